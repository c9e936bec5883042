//! How likely mistral.rs (0.8.1) held a token of a greedy answer: each event has one token, and in place of log
//! probabilities, decimal logarithms of logits (`Sampler::sample_argmax` of mistralrs-core).
//!
//! Logits are log probabilities but for a sum that is the same for all tokens of a place, so that the difference between
//! two of them is the difference of the log probabilities. A logit that is not positive has no logarithm.

use loadtest_protocol::{Likely, TokenLogprob};
use serde::Deserialize;
use serde_json::Value;

/// What stands at `logprobs` of a choice.
#[derive(Debug, Deserialize)]
struct Told {
    /// What the event adds to the text.
    token: String,
    logprob: Option<f64>,
    /// The token's own text.
    bytes: Option<Vec<u8>>,
    top_logprobs: Vec<Top>,
}

/// One of the likeliest tokens, itself among them. `token`, its number, tells it from a token of other servers.
#[derive(Debug, Deserialize)]
struct Top {
    #[serde(rename = "token")]
    _number: u64,
    logprob: Option<f64>,
    bytes: Option<String>,
}

/// The token of an event, with logits in place of log probabilities; nothing if this is not how mistral.rs tells them, or
/// if the event's text is not that of one token. Without the likeliest tokens where no logit can be had: a logarithm of
/// a probability, too, is not positive.
pub fn token(told: &Value) -> Option<TokenLogprob> {
    let told = Told::deserialize(told).ok()?;
    let own = String::from_utf8(told.bytes?).ok()?;
    let added = told.token;
    // Blanks at an answer's start and end tokens are left out of its text. Where a token's own text lacks its blank, and at
    // the end of a character that several tokens make, those of the likeliest tokens could not be told either.
    let one = added == own || added == own.trim_start() || added.is_empty();
    if !one {
        return None;
    }
    let is_logit = told.logprob.is_some_and(|logarithm| logarithm > 0.0);
    let tops = told.top_logprobs.into_iter().filter(|_| is_logit);
    let tops = tops.filter_map(|top| Some((top.bytes?, top.logprob?)));
    let likely = |token, logarithm: f64, bytes| Likely {
        token,
        logprob: 10_f64.powf(logarithm),
        bytes,
    };
    Some(TokenLogprob {
        token: likely(own, told.logprob.unwrap_or_default(), Some(added.into_bytes())),
        top_logprobs: tops
            .map(|(text, logarithm)| likely(text, logarithm, None))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn logits(entry: &TokenLogprob) -> Vec<(&str, f64)> {
        let tops = entry.top_logprobs.iter();
        tops.map(|likely| (likely.token.as_str(), (likely.logprob * 1e4).round() / 1e4))
            .collect()
    }

    /// Of mistral.rs 0.8.1 with SmolLM2-135M in Q4_1: the last two events of an answer that it ended itself.
    #[test]
    fn recorded_logarithms_are_logits() {
        let read = |told: &str| token(&serde_json::from_str(told).unwrap()).unwrap();
        let full_stop = read(
            r#"{"token":".","logprob":1.3901047,"bytes":[46],"top_logprobs":[
            {"token":30,"logprob":1.3901047,"bytes":"."},{"token":28,"logprob":1.3627264,"bytes":","},
            {"token":17,"logprob":1.3612183,"bytes":"!"},{"token":2,"logprob":1.3557026,"bytes":"<|im_end|>"},
            {"token":15107,"logprob":1.3515204,"bytes":" �"}]}"#,
        );
        assert_eq!(full_stop.token.token, ".");
        assert_eq!(
            logits(&full_stop),
            [
                (".", 24.553),
                (",", 23.0529),
                ("!", 22.973),
                ("<|im_end|>", 22.6831),
                (" �", 22.4657)
            ]
        );
        let end = read(
            r#"{"token":"","logprob":1.3383057,"bytes":[60,124,105,109,95,101,110,100,124,62],"top_logprobs":[
            {"token":2,"logprob":1.3383057,"bytes":"<|im_end|>"},{"token":339,"logprob":1.2361223,"bytes":" I"}]}"#,
        );
        assert_eq!(
            (end.token.token.as_str(), end.token.bytes.as_deref()),
            ("<|im_end|>", Some(&[][..]))
        );
    }

    #[test]
    fn what_is_no_logit_of_a_whole_token_is_not_told() {
        let of = |added: &str, own: &str, logprob: Value| {
            let top = json!([{ "token": 7, "logprob": logprob, "bytes": own },
                             { "token": 8, "logprob": null, "bytes": " x" }]);
            let told =
                json!({ "token": added, "logprob": logprob, "bytes": own.as_bytes(), "top_logprobs": top });
            token(&told).map(|entry| entry.top_logprobs.len())
        };
        assert_eq!(of("is", " is", json!(1.2)), Some(1), "an answer's first word");
        assert_eq!(of(" is", "is", json!(1.2)), None, "a tokenizer that eats blanks");
        assert_eq!(
            of("🐱", "\u{fffd}", json!(1.4)),
            None,
            "the last of several tokens"
        );
        assert_eq!(
            of("is", "is", json!(-0.3)),
            Some(0),
            "it may be a log probability"
        );
        assert_eq!(
            of("is", "is", json!(null)),
            Some(0),
            "a logit that is not positive"
        );
        let chat = json!({ "content": [{ "token": "a", "logprob": -0.1, "top_logprobs": [] }] });
        assert_eq!(token(&chat), None);
    }
}
