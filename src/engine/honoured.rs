//! What a server does with the parameters of a request, found out by asking it.

use serde::Serialize;
use serde_json::{Value, json};

use super::EngineError;
use super::check::{Asker, Findings, TOKENS};

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
            Verdict::Refused(status) => write!(f, "refused ({status})"),
            Verdict::Unknown => f.write_str("unknown"),
        }
    }
}

/// A parameter, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name in a request.
    pub name: &'static str,
    /// What the server did with it.
    pub verdict: Verdict,
}

/// Asks the server about each parameter; `first` is the answer to a greedy request for [`TOKENS`] tokens.
pub(super) async fn parameters(asker: &Asker<'_>, first: &Findings) -> Result<Vec<Parameter>, EngineError> {
    let mut found = Vec::new();
    let mut note = |name, verdict| found.push(Parameter { name, verdict });
    for name in ["max_tokens", "max_completion_tokens"] {
        let verdict = match name == asker.bound() {
            true => bounded(first, TOKENS),
            false => bounded(&other_bound(asker, name).await?, 3),
        };
        note(name, verdict);
    }
    note("stream_options", usage(first));
    let hot = temperature(asker, first).await?;
    note("temperature", hot);
    for (name, least) in [("top_p", json!(0.0001)), ("top_k", json!(1))] {
        note(name, narrowed(asker, first, hot, (name, least)).await?);
    }
    note("seed", seed(asker).await?);
    note("stop", stop(asker, first).await?);
    note("ignore_eos", ignore_eos(asker).await?);
    Ok(found)
}

/// A bound by another field; alone, if the server takes the two for one that is given twice.
async fn other_bound(asker: &Asker<'_>, name: &str) -> Result<Findings, EngineError> {
    let both = asker.ask(&[(name, json!(3))]).await?;
    match both.refused() {
        true => asker.ask(&[(asker.bound(), Value::Null), (name, json!(3))]).await,
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

fn usage(found: &Findings) -> Verdict {
    match found.usage {
        Some(_) => Verdict::Honoured,
        None => Verdict::Ignored,
    }
}

/// Greedy answers are the same, hot ones are not.
async fn temperature(asker: &Asker<'_>, first: &Findings) -> Result<Verdict, EngineError> {
    let again = asker.ask(&[]).await?;
    if again.text != first.text {
        return Ok(Verdict::Ignored);
    }
    let hot = asker
        .ask(&[("temperature", json!(1.5)), ("seed", json!(7))])
        .await?;
    Ok(match hot.text == first.text {
        _ if hot.refused() => Verdict::Refused(hot.status),
        true => Verdict::Unknown,
        false => Verdict::Honoured,
    })
}

/// A hot answer is the greedy one if no token but the likeliest may be drawn.
async fn narrowed(
    asker: &Asker<'_>,
    first: &Findings,
    hot: Verdict,
    (name, least): (&str, Value),
) -> Result<Verdict, EngineError> {
    let heat = [("temperature", json!(1.5)), ("seed", json!(7)), (name, least)];
    let found = asker.ask(&heat).await?;
    Ok(match (found.refused(), hot, found.text == first.text) {
        (true, ..) => Verdict::Refused(found.status),
        (_, Verdict::Honoured, true) => Verdict::Honoured,
        (_, Verdict::Honoured, false) => Verdict::Ignored,
        _ => Verdict::Unknown,
    })
}

/// The same seed gives the same answer, another one another.
async fn seed(asker: &Asker<'_>) -> Result<Verdict, EngineError> {
    let mut answers = Vec::new();
    for seed in [1, 1, 2] {
        let found = asker
            .ask(&[("temperature", json!(1)), ("seed", json!(seed))])
            .await?;
        if found.refused() {
            return Ok(Verdict::Refused(found.status));
        }
        answers.push(found.text);
    }
    Ok(match (answers[0] == answers[1], answers[1] == answers[2]) {
        (false, _) => Verdict::Ignored,
        (true, true) => Verdict::Unknown,
        (true, false) => Verdict::Honoured,
    })
}

/// A greedy answer ends before a word that it had, or with it: some send the word before they see that it is one.
async fn stop(asker: &Asker<'_>, first: &Findings) -> Result<Verdict, EngineError> {
    let Some(word) = first.text.split_whitespace().nth(2) else {
        return Ok(Verdict::Unknown);
    };
    let found = asker.ask(&[("stop", json!([word]))]).await?;
    let went_on = |(_, rest): (&str, &str)| !rest.is_empty();
    Ok(match found.text.split_once(word).is_some_and(went_on) {
        _ if found.refused() => Verdict::Refused(found.status),
        _ if first.text.ends_with(word) => Verdict::Unknown,
        true => Verdict::Ignored,
        false => Verdict::Honoured,
    })
}

/// An answer that ends by itself goes on.
async fn ignore_eos(asker: &Asker<'_>) -> Result<Verdict, EngineError> {
    let short = [
        (
            "messages",
            json!([{ "role": "user", "content": "Answer with the word yes and nothing else." }]),
        ),
        (asker.bound(), json!(LONG)),
    ];
    let ended = asker
        .ask(&[&short[..], &[(asker.ignores_eos_by(), Value::Null)]].concat())
        .await?;
    let went_on = asker
        .ask(&[&short[..], &[(asker.ignores_eos_by(), asker.ignores_eos_with())]].concat())
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
