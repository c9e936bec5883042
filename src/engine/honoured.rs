//! What a server does with the parameters of a request, found out by asking it.

use serde::Serialize;
use serde_json::{Value, json};

use super::EngineError;
use super::check::{Asker, Findings, TOKENS};
use super::recipe::Dialect;

/// Tokens within which an answer must end by itself for `ignore_eos` to be judged.
const LONG: u64 = 128;

/// What a server did with a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its answer was as the parameter wants it.
    Honoured,
    /// Its answer was not.
    Ignored,
    /// Its streams have usage, asked for or not.
    AlwaysSendsUsage,
    /// It refused the request, with this status.
    Refused(u16),
    /// The answers tell nothing about it.
    Unknown,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Honoured => f.write_str("honoured"),
            Verdict::Ignored => f.write_str("ignored"),
            Verdict::AlwaysSendsUsage => f.write_str("always sends usage"),
            Verdict::Refused(status) => write!(f, "refused ({status})"),
            Verdict::Unknown => f.write_str("unknown"),
        }
    }
}

/// A parameter, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its usual name in a request.
    pub name: &'static str,
    /// What the server did with it.
    pub verdict: Verdict,
}

/// What the server calls the fields that are tried; where it has none, what most servers call it.
struct Names<'a> {
    temperature: &'a str,
    top_p: &'a str,
    top_k: &'a str,
    seed: &'a str,
    ignore_eos: &'a str,
}

impl<'a> Names<'a> {
    fn of(dialect: &'a Dialect) -> Self {
        fn or<'a>(field: &'a Option<String>, usual: &'a str) -> &'a str {
            field.as_deref().unwrap_or(usual)
        }
        Names {
            temperature: or(&dialect.temperature, "temperature"),
            top_p: or(&dialect.top_p, "top_p"),
            top_k: or(&dialect.top_k, "top_k"),
            seed: or(&dialect.seed, "seed"),
            ignore_eos: or(&dialect.ignore_eos, "ignore_eos"),
        }
    }
}

/// Asks the server about each parameter; `first` is the answer to a greedy request for [`TOKENS`] tokens.
pub(super) async fn parameters(asker: &Asker<'_>, first: &Findings) -> Result<Vec<Parameter>, EngineError> {
    let names = Names::of(asker.dialect());
    let mut found = Vec::new();
    let mut note = |name, verdict| found.push(Parameter { name, verdict });
    for name in ["max_tokens", "max_completion_tokens"] {
        let verdict = match name == asker.dialect().max_tokens {
            true => bounded(first, TOKENS),
            false => bounded(&other_bound(asker, name).await?, 3),
        };
        note(name, verdict);
    }
    note("stream_options", usage(asker, first).await?);
    let greedy = greedy(asker, &names, first).await?;
    let heat = heat(asker, &names).await?;
    let hot = temperature(asker, &greedy, &heat).await?;
    note("temperature", hot);
    for (usual, name, least) in [
        ("top_p", names.top_p, json!(0.0001)),
        ("top_k", names.top_k, json!(1)),
    ] {
        let narrow = [&heat[..], &[(name, least)]].concat();
        note(usual, narrowed(&greedy, hot, &asker.ask(&narrow).await?));
    }
    note("seed", seed(asker, &names, hot).await?);
    let again = matches!(hot, Verdict::Honoured | Verdict::Unknown);
    note("stop", stop(asker, &greedy, again).await?);
    note("ignore_eos", ignore_eos(asker, names.ignore_eos).await?);
    Ok(found)
}

/// A bound by another field; alone, if the server takes the two for one that is given twice.
async fn other_bound(asker: &Asker<'_>, name: &str) -> Result<Findings, EngineError> {
    let both = asker.ask(&[(name, json!(3))]).await?;
    match both.refused() {
        true => {
            asker
                .ask(&[(&asker.dialect().max_tokens, Value::Null), (name, json!(3))])
                .await
        }
        false => Ok(both),
    }
}

/// Output tokens: as the server counts them, else its events with text.
fn tokens(found: &Findings) -> u64 {
    found.completion_tokens.unwrap_or(u64::from(found.text_events))
}

fn bounded(found: &Findings, most: u64) -> Verdict {
    match tokens(found) {
        _ if found.refused() => Verdict::Refused(found.status),
        n if n > most => Verdict::Ignored,
        _ if found.finish_reason.as_deref() == Some("length") => Verdict::Honoured,
        _ => Verdict::Unknown,
    }
}

/// Usage comes where it is asked for, and only there.
async fn usage(asker: &Asker<'_>, first: &Findings) -> Result<Verdict, EngineError> {
    let (with, without);
    match asker.dialect().include_usage {
        true => {
            without = asker.ask(&[("stream_options", Value::Null)]).await?;
            with = first.clone();
        }
        false => {
            with = asker
                .ask(&[("stream_options", json!({ "include_usage": true }))])
                .await?;
            without = first.clone();
        }
    }
    Ok(match (with.usage.is_some(), without.usage.is_some()) {
        _ if with.refused() => Verdict::Refused(with.status),
        _ if without.refused() => Verdict::Unknown,
        (true, true) => Verdict::AlwaysSendsUsage,
        (true, false) => Verdict::Honoured,
        (false, _) => Verdict::Ignored,
    })
}

/// The greedy answer: the first one, unless its request had no field for the temperature and the usual one is taken.
async fn greedy(asker: &Asker<'_>, names: &Names<'_>, first: &Findings) -> Result<Findings, EngineError> {
    match asker.dialect().temperature {
        Some(_) => Ok(first.clone()),
        None => {
            let cold = asker.ask(&[(names.temperature, json!(0))]).await?;
            Ok(if cold.refused() { first.clone() } else { cold })
        }
    }
}

/// What makes an answer hot, and the same each time where the server takes a seed.
async fn heat<'a>(asker: &Asker<'_>, names: &Names<'a>) -> Result<Vec<(&'a str, Value)>, EngineError> {
    let (hot, seed) = ((names.temperature, json!(1.5)), (names.seed, json!(7)));
    let seeded = asker.dialect().seed.is_some() && !asker.ask(std::slice::from_ref(&seed)).await?.refused();
    Ok([hot].into_iter().chain(seeded.then_some(seed)).collect())
}

/// Greedy answers are the same, hot ones are not.
async fn temperature(
    asker: &Asker<'_>,
    greedy: &Findings,
    heat: &[(&str, Value)],
) -> Result<Verdict, EngineError> {
    let (name, _) = heat[0];
    let again = asker.ask(&[(name, json!(0))]).await?;
    if again.refused() {
        return Ok(Verdict::Refused(again.status));
    }
    if again.text != greedy.text {
        return Ok(Verdict::Ignored);
    }
    let hot = asker.ask(heat).await?;
    Ok(match hot.text == greedy.text {
        _ if hot.refused() => Verdict::Refused(hot.status),
        true => Verdict::Unknown,
        false => Verdict::Honoured,
    })
}

/// A hot answer is the greedy one if no token but the likeliest may be drawn.
fn narrowed(greedy: &Findings, hot: Verdict, found: &Findings) -> Verdict {
    match (found.refused(), hot, found.text == greedy.text) {
        // Which of the two it refused is not known.
        (true, Verdict::Refused(_), _) => Verdict::Unknown,
        (true, ..) => Verdict::Refused(found.status),
        (_, Verdict::Honoured, true) => Verdict::Honoured,
        (_, Verdict::Honoured, false) => Verdict::Ignored,
        _ => Verdict::Unknown,
    }
}

/// The same seed gives the same answer, another one another.
async fn seed(asker: &Asker<'_>, names: &Names<'_>, hot: Verdict) -> Result<Verdict, EngineError> {
    let mut answers = Vec::new();
    for seed in [1, 1, 2] {
        let found = asker
            .ask(&[(names.temperature, json!(1)), (names.seed, json!(seed))])
            .await?;
        if found.refused() {
            return Ok(match hot {
                Verdict::Refused(_) => Verdict::Unknown,
                _ => Verdict::Refused(found.status),
            });
        }
        answers.push(found.text);
    }
    Ok(match (answers[0] == answers[1], answers[1] == answers[2]) {
        (false, _) => Verdict::Ignored,
        (true, true) => Verdict::Unknown,
        (true, false) => Verdict::Honoured,
    })
}

/// A greedy answer ends before a word that it had, or with it: some send the word before they see that it is one. Where
/// it need not come `again`, a word that does not come tells nothing.
async fn stop(asker: &Asker<'_>, greedy: &Findings, again: bool) -> Result<Verdict, EngineError> {
    let Some(word) = greedy.text.split_whitespace().nth(2) else {
        return Ok(Verdict::Unknown);
    };
    let found = asker.ask(&[("stop", json!([word]))]).await?;
    let went_on = |(_, rest): (&str, &str)| !rest.is_empty();
    Ok(match found.text.split_once(word).is_some_and(went_on) {
        _ if found.refused() => Verdict::Refused(found.status),
        _ if greedy.text.ends_with(word) => Verdict::Unknown,
        true => Verdict::Ignored,
        false if again => Verdict::Honoured,
        false => Verdict::Unknown,
    })
}

/// An answer that ends by itself goes on.
async fn ignore_eos(asker: &Asker<'_>, name: &str) -> Result<Verdict, EngineError> {
    let bound = asker.dialect().max_tokens.as_str();
    let short = [
        (
            "messages",
            json!([{ "role": "user", "content": "Answer with the word yes and nothing else." }]),
        ),
        (bound, json!(LONG)),
    ];
    let ended = asker.ask(&[&short[..], &[(name, Value::Null)]].concat()).await?;
    let went_on = asker
        .ask(&[&short[..], &[(name, json!(asker.dialect().ignore_eos_value))]].concat())
        .await?;
    Ok(match (tokens(&ended) < LONG, tokens(&went_on) < LONG) {
        _ if went_on.refused() => Verdict::Refused(went_on.status),
        _ if ended.refused() => Verdict::Unknown,
        (_, true) => Verdict::Ignored,
        (true, false) => Verdict::Honoured,
        (false, false) => Verdict::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tokens: u64, finish: &str) -> Findings {
        Findings {
            status: 200,
            completion_tokens: Some(tokens),
            finish_reason: Some(finish.into()),
            ..Findings::default()
        }
    }

    #[test]
    fn a_bound_is_judged_by_what_was_generated() {
        assert_eq!(bounded(&found(16, "length"), 16), Verdict::Honoured);
        assert_eq!(bounded(&found(17, "stop"), 16), Verdict::Ignored);
        assert_eq!(bounded(&found(5, "stop"), 16), Verdict::Unknown);
        let refused = Findings {
            status: 422,
            ..Findings::default()
        };
        assert_eq!(bounded(&refused, 16), Verdict::Refused(422));
    }
}
