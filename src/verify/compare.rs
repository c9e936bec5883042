//! Two answers to the same prompt held against each other. Pure.

use loadtest_protocol::Likely;

use super::{Loaded, Reply};
use crate::engine::Answer;
use crate::measure::result::{Agreement, Cause, Difference, Gap, TokenCounts, UnderLoad};

/// Two engines round differently, each on its way to the logits: where activations are rounded to eight bits, log
/// probabilities of likely tokens move by 0.1 on average and by 1 at worst (servers/candle/README.md).
pub const BETWEEN_ENGINES: f64 = 1.0;

/// The same engine computes the same numbers under load, but for the order in which a larger batch is summed: half
/// precision at most.
pub const UNDER_LOAD: f64 = 0.25;

/// Tokens of a text, where no engine tells them.
pub type Count<'a> = &'a dyn Fn(&str) -> usize;

/// Holds answers against the reference's, prompt by prompt; a prompt that one of the two did not answer is left out.
pub fn agreement(reference: &[Option<Answer>], other: &[Option<Answer>], count: Count<'_>) -> Agreement {
    let mut found = Agreement::default();
    let (mut prefix, mut tokens, mut similarity) = (0, 0, 0.0);
    for (prompt, pair) in (0..).zip(reference.iter().zip(other)) {
        let (Some(a), Some(b)) = pair else { continue };
        found.compared += 1;
        let whole = length(a, count);
        tokens += whole;
        let Some(difference) = difference(prompt, a, b, BETWEEN_ENGINES, count) else {
            found.same += 1;
            prefix += whole;
            similarity += 1.0;
            continue;
        };
        prefix += difference.token as usize;
        similarity += difference.similarity;
        *match difference.cause {
            Cause::NearTie => &mut found.near_ties,
            Cause::Apart => &mut found.apart,
            Cause::Unknown => &mut found.unknown,
        } += 1;
        found.differences.push(difference);
    }
    let mean = |sum: f64| sum / f64::from(found.compared.max(1));
    found.common_prefix_mean = round(mean(prefix as f64));
    found.tokens_mean = round(mean(tokens as f64));
    found.similarity_mean = round(mean(similarity));
    found
}

/// Holds answers given under load against those that the same engine gave alone.
pub fn under_load(alone: &[Option<Answer>], loaded: &[Loaded], count: Count<'_>) -> UnderLoad {
    let mut found = UnderLoad::default();
    for (prompt, reply) in loaded {
        let Some(Some(alone)) = alone.get(*prompt) else {
            continue;
        };
        found.asked += 1;
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::Failed(why) => {
                found.failed += 1;
                found.failures.push(why.clone());
                continue;
            }
            Reply::Late => {
                found.late += 1;
                continue;
            }
        };
        let prompt = u32::try_from(*prompt).unwrap_or(u32::MAX);
        match difference(prompt, alone, answer, UNDER_LOAD, count) {
            None => found.same += 1,
            Some(difference) => {
                match difference.cause {
                    Cause::NearTie => found.near_ties += 1,
                    Cause::Apart | Cause::Unknown => found.garbled += 1,
                }
                found.differences.push(difference);
            }
        }
    }
    found
}

/// What the server counts against `count`, over the answers of which both are known.
pub fn token_counts(answers: &[Option<Answer>], count: Count<'_>) -> Option<TokenCounts> {
    let mut counts = TokenCounts::default();
    for answer in answers.iter().flatten() {
        let Some(told) = answer.output_tokens else {
            continue;
        };
        let counted = count(&answer.text) as u64;
        counts.answers += 1;
        counts.differing += u32::from(told.abs_diff(counted) > 1);
        counts.told += told;
        counts.counted += counted;
    }
    (counts.answers > 0).then_some(counts)
}

/// Where two answers differ first, if they do.
fn difference(prompt: u32, a: &Answer, b: &Answer, near_tie: f64, count: Count<'_>) -> Option<Difference> {
    let (text_a, text_b) = (whole(&a.text), whole(&b.text));
    if text_a == text_b {
        return None;
    }
    let mut shared = common_prefix(text_a, text_b);
    if a.tokens.is_empty() && b.tokens.is_empty() {
        // From the start of the word in which they part.
        shared = text_a[..shared].rfind(char::is_whitespace).unwrap_or(0);
    }
    let token = match (a.tokens.is_empty(), b.tokens.is_empty()) {
        (false, false) => {
            let pairs = a.tokens.iter().zip(&b.tokens);
            pairs.take_while(|(a, b)| a.token.token == b.token.token).count()
        }
        (false, true) => parting(a, text_b, shared),
        (true, false) => parting(b, text_a, shared),
        (true, true) => count(&text_a[..shared]),
    };
    let (from_a, from_b) = (
        rest(a, b, text_a, token, shared),
        rest(b, a, text_b, token, shared),
    );
    let (reference, other) = (said(a, from_a, token), said(b, from_b, token));
    let reference_gap = gap(a, token, b, &other, from_b);
    let other_gap = gap(b, token, a, &reference, from_a);
    let within = |gap: Gap| !gap.at_least && gap.nats.abs() <= near_tie;
    let gaps: Vec<Gap> = [reference_gap, other_gap].into_iter().flatten().collect();
    let cause = match gaps.is_empty() {
        true => Cause::Unknown,
        false if gaps.into_iter().all(within) => Cause::NearTie,
        false => Cause::Apart,
    };
    Some(Difference {
        prompt,
        token: u32::try_from(token).unwrap_or(u32::MAX),
        reference,
        other,
        reference_gap,
        other_gap,
        similarity: round(strsim::normalized_levenshtein(text_a, text_b)),
        cause,
    })
}

/// An answer without the half of a character with which it may have been cut off: some servers hold it back.
fn whole(text: &str) -> &str {
    text.trim_end_matches(char::REPLACEMENT_CHARACTER)
}

/// Bytes that two texts begin with alike, whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

fn bytes(token: &Likely) -> usize {
    token.bytes.as_ref().map_or(token.token.len(), Vec::len)
}

/// Tokens of an answer that lie within its first `shared` bytes.
fn pieces_within(answer: &Answer, shared: usize) -> usize {
    let mut end = 0;
    let ends = answer.tokens.iter().map(|entry| {
        end += bytes(&entry.token);
        end
    });
    ends.take_while(|end| *end <= shared).count()
}

/// The token of `told` at which an answer whose tokens are not known parts from it; they share their first `shared` bytes.
///
/// That may be one before the texts part: " l" and " la" begin alike.
fn parting(told: &Answer, untold: &str, shared: usize) -> usize {
    let mut start = 0;
    let longer = told.tokens.iter().position(|entry| {
        let rest = untold.get(start..).unwrap_or_default();
        let taken = |likely: &Likely| {
            likely.token.starts_with(&entry.token.token)
                && start + likely.token.len() > shared
                && rest.starts_with(&likely.token)
        };
        let found = start + bytes(&entry.token) <= shared && entry.top_logprobs.iter().any(taken);
        start += bytes(&entry.token);
        found
    });
    longer.unwrap_or_else(|| pieces_within(told, shared))
}

/// What is left of `text` from its token number `token` on, by its own pieces, else by the other's.
fn rest<'a>(own: &Answer, other: &Answer, text: &'a str, token: usize, shared: usize) -> &'a str {
    let pieces = match own.tokens.is_empty() {
        true => &other.tokens,
        false => &own.tokens,
    };
    let at = match pieces.is_empty() {
        true => shared,
        false => pieces.iter().take(token).map(|entry| bytes(&entry.token)).sum(),
    };
    text.get(at..).unwrap_or_default()
}

/// The token there, or the word where tokens are not known; empty for an end.
fn said(answer: &Answer, rest: &str, token: usize) -> String {
    if let Some(entry) = answer.tokens.get(token) {
        return entry.token.token.clone();
    }
    let word = rest.trim_start();
    let end = word.find(char::is_whitespace).unwrap_or(word.len());
    rest[..rest.len() - word.len() + end].chars().take(24).collect()
}

/// By how much `judge` holds its own token likelier than the one with which `other` goes on.
fn gap(judge: &Answer, token: usize, other: &Answer, said: &str, rest: &str) -> Option<Gap> {
    let entry = judge.tokens.get(token)?;
    let own = &entry.token;
    let candidates = entry
        .top_logprobs
        .iter()
        .filter(|likely| likely.token != own.token);
    let meant = match other.tokens.is_empty() {
        false => candidates.clone().find(|likely| same_token(&likely.token, said)),
        true if rest.is_empty() => candidates.clone().find(|likely| is_end(&likely.token)),
        true => candidates
            .clone()
            .filter(|likely| !is_end(&likely.token) && rest.starts_with(&likely.token))
            .max_by_key(|likely| likely.token.len()),
    };
    let least = || candidates.clone().next_back();
    let (found, at_least) = match meant {
        Some(found) => (found, false),
        None => (least()?, true),
    };
    Some(Gap {
        nats: round(own.logprob - found.logprob),
        at_least,
    })
}

fn same_token(a: &str, b: &str) -> bool {
    a == b || is_end(a) && is_end(b)
}

/// End tokens have no text, or a name such as `<|im_end|>`.
fn is_end(token: &str) -> bool {
    token.is_empty() || token.starts_with('<') && token.ends_with('>') && token.len() > 2
}

/// Tokens of an answer.
fn length(answer: &Answer, count: Count<'_>) -> usize {
    match answer.tokens.len() {
        0 => count(&answer.text),
        tokens => tokens,
    }
}

/// Four decimals: what is stored is read by people too.
fn round(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use loadtest_protocol::TokenLogprob;

    use super::*;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    /// An answer of words; of each, what else was likely there, and by how much less.
    fn told(pieces: &[(&str, &[(&str, f64)])]) -> Answer {
        let likely = |token: &str, logprob| Likely {
            token: token.into(),
            logprob,
            bytes: None,
        };
        let entry = |(token, others): &(&str, &[(&str, f64)])| TokenLogprob {
            token: likely(token, -0.5),
            top_logprobs: std::iter::once(likely(token, -0.5))
                .chain(others.iter().map(|(other, less)| likely(other, -0.5 - less)))
                .collect(),
        };
        let text = pieces
            .iter()
            .map(|(token, _)| *token)
            .filter(|token| !is_end(token));
        Answer {
            text: text.collect(),
            tokens: pieces.iter().map(entry).collect(),
            ..Answer::default()
        }
    }

    fn untold(text: &str) -> Answer {
        Answer {
            text: text.into(),
            ..Answer::default()
        }
    }

    fn of(a: &Answer, b: &Answer) -> Option<Difference> {
        difference(0, a, b, BETWEEN_ENGINES, &words)
    }

    #[test]
    fn the_same_text_is_the_same_answer() {
        let one = told(&[("It", &[]), (" is", &[])]);
        assert_eq!(of(&one, &untold("It is")), None);
        assert_eq!(of(&one, &told(&[("It is", &[])])), None, "cut otherwise");
        assert_eq!(of(&one, &untold("It is\u{fffd}")), None, "half a character");
    }

    #[test]
    fn a_near_tie_explains_a_difference() {
        let a = told(&[("It", &[]), (" is", &[(" was", 0.03)]), (" red", &[])]);
        let b = told(&[("It", &[]), (" was", &[(" is", 0.1)]), (" blue", &[])]);
        let found = of(&a, &b).unwrap();
        assert_eq!(
            (found.token, found.reference.as_str(), found.other.as_str()),
            (1, " is", " was")
        );
        assert_eq!(found.cause, Cause::NearTie);
        let nats = |gap: Option<Gap>| gap.map(|gap| (gap.nats, gap.at_least));
        assert_eq!(nats(found.reference_gap), Some((0.03, false)));
        assert_eq!(nats(found.other_gap), Some((0.1, false)));
        // One that does not tell is judged by what the other tells.
        let found = of(&a, &untold("It was blue")).unwrap();
        assert_eq!(
            (found.token, found.other.as_str(), found.cause),
            (1, " was", Cause::NearTie)
        );
        assert_eq!(found.other_gap, None);
    }

    #[test]
    fn a_longer_token_parts_before_the_texts_do() {
        let a = told(&[("The", &[("There", 0.05)]), (" answer", &[(" end", 3.0)])]);
        let found = of(&a, &untold("There are")).unwrap();
        assert_eq!(
            (found.token, found.other.as_str(), found.cause),
            (0, "There", Cause::NearTie)
        );
        // A longer token that both texts have is no parting.
        let a = told(&[
            ("Mon", &[("Monday", 0.1)]),
            ("day", &[]),
            (" is", &[(" was", 2.0)]),
        ]);
        let found = of(&a, &untold("Monday was")).unwrap();
        assert_eq!((found.token, found.cause), (2, Cause::Apart));
    }

    #[test]
    fn what_is_far_less_likely_is_no_tie() {
        let a = told(&[("It", &[]), (" is", &[(" was", 0.03), (" has", 2.5)])]);
        let third = of(&a, &untold("It has")).unwrap();
        assert_eq!(
            (third.reference_gap.unwrap().nats, third.cause),
            (2.5, Cause::Apart)
        );
        let none_of_them = of(&a, &untold("It xyz")).unwrap();
        let gap = none_of_them.reference_gap.unwrap();
        assert_eq!(
            (gap.nats, gap.at_least, none_of_them.cause),
            (2.5, true, Cause::Apart)
        );
        // Both must find it a tie.
        let sure = told(&[("It", &[]), (" was", &[(" is", 4.0)])]);
        assert_eq!(of(&a, &sure).unwrap().cause, Cause::Apart);
    }

    #[test]
    fn without_log_probabilities_the_cause_is_unknown() {
        let found = of(&untold("It is red"), &untold("It is rich")).unwrap();
        assert_eq!(
            (found.token, found.reference.as_str(), found.cause),
            (2, " red", Cause::Unknown)
        );
    }

    #[test]
    fn an_end_may_be_a_tie_too() {
        let ends = told(&[("Yes", &[]), ("", &[(" but", 0.2)])]);
        let goes_on = told(&[("Yes", &[]), (" but", &[("<|im_end|>", 0.3)]), (" no", &[])]);
        let found = of(&ends, &goes_on).unwrap();
        assert_eq!(
            (found.token, found.reference.as_str(), found.cause),
            (1, "", Cause::NearTie)
        );
        assert_eq!(found.other_gap.unwrap().nats, 0.3);
        assert_eq!(of(&goes_on, &untold("Yes")).unwrap().cause, Cause::NearTie);
    }

    #[test]
    fn agreement_counts_and_averages() {
        let same = Some(untold("one two three four"));
        let a = [same.clone(), Some(untold("red green")), None, Some(untold("x"))];
        let b = [same, Some(untold("red blue")), Some(untold("y")), None];
        let found = agreement(&a, &b, &words);
        assert_eq!((found.compared, found.same, found.unknown), (2, 1, 1));
        assert_eq!((found.common_prefix_mean, found.tokens_mean), (2.5, 3.0));
        assert_eq!(found.differences[0].prompt, 1);
        assert!((0.5..1.0).contains(&found.similarity_mean));
    }

    #[test]
    fn under_load_the_unknown_counts_as_garbled() {
        let alone = [Some(told(&[("a", &[("b", 0.1)])])), Some(untold("one")), None];
        let loaded = [
            (0, Reply::Answer(untold("b"))),
            (1, Reply::Answer(untold("two"))),
            (1, Reply::Answer(untold("one"))),
            (1, Reply::Failed("gone".to_owned())),
            (1, Reply::Late),
            (2, Reply::Answer(untold("never asked alone"))),
        ];
        let found = under_load(&alone, &loaded, &words);
        assert_eq!(
            (
                found.asked,
                found.same,
                found.near_ties,
                found.garbled,
                found.failed,
                found.late
            ),
            (5, 1, 1, 1, 1, 1)
        );
        assert_eq!(found.failures, ["gone"]);
    }

    #[test]
    fn an_end_token_more_is_no_other_count() {
        let told = |text: &str, tokens| {
            Some(Answer {
                output_tokens: Some(tokens),
                ..untold(text)
            })
        };
        let answers = [told("one two", 3), told("one two", 2), told("one two", 5), None];
        let counts = token_counts(&answers, &words).unwrap();
        assert_eq!(
            (counts.answers, counts.differing, counts.told, counts.counted),
            (3, 1, 10, 6)
        );
        assert_eq!(token_counts(&[Some(untold("a"))], &words), None);
    }
}
