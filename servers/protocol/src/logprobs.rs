//! How likely a model held its tokens: the two shapes in which servers tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Log probabilities (natural) of an answer's tokens, in the order of the tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Logprobs {
    /// As the older endpoint has them.
    Lists(LogprobLists),
    /// As a chat has them, and some servers' completions.
    Content {
        /// One entry a token; absent where there is none.
        #[serde(default)]
        content: Option<Vec<TokenLogprob>>,
    },
}

/// One token, and what might have stood in its place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token.
    #[serde(flatten)]
    pub token: Likely,
    /// The likeliest tokens at this place, likeliest first.
    #[serde(default)]
    pub top_logprobs: Vec<Likely>,
}

/// A token and how likely it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Likely {
    /// Its text. Half a character shows as U+FFFD; an end token is empty, or has a name.
    pub token: String,
    /// The natural logarithm of its probability.
    pub logprob: f64,
    /// The text's bytes, where the server tells them.
    #[serde(default)]
    pub bytes: Option<Vec<u8>>,
}

/// Log probabilities in lists side by side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogprobLists {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// The tokens' log probabilities.
    pub token_logprobs: Vec<Option<f64>>,
    /// The likeliest tokens at each place.
    #[serde(default)]
    pub top_logprobs: Option<Vec<Option<BTreeMap<String, f64>>>>,
    /// Where each token begins in the answer's text, in characters.
    #[serde(default)]
    pub text_offset: Vec<u64>,
}

impl Logprobs {
    /// One entry a token, whatever the shape.
    pub fn into_tokens(self) -> Vec<TokenLogprob> {
        match self {
            Self::Content { content } => content.unwrap_or_default(),
            Self::Lists(lists) => lists.into_tokens(),
        }
    }
}

impl LogprobLists {
    fn into_tokens(self) -> Vec<TokenLogprob> {
        let likely = |token, logprob| Likely {
            token,
            logprob,
            bytes: None,
        };
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let tokens = self.tokens.into_iter().zip(self.token_logprobs);
        tokens
            .map(|(token, logprob)| {
                let top = tops.next().flatten().unwrap_or_default();
                let mut top: Vec<Likely> = top.into_iter().map(|(token, p)| likely(token, p)).collect();
                top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
                TokenLogprob {
                    token: likely(token, logprob.unwrap_or(0.0)),
                    top_logprobs: top,
                }
            })
            .collect()
    }
}

/// What the two endpoints take as `logprobs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AskedLogprobs {
    /// Chat: whether they are wanted; `top_logprobs` says how many others at each place.
    Wanted(bool),
    /// Completions: wanted, with so many others at each place.
    Top(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<(String, Vec<String>)> {
        let logprobs: Logprobs = serde_json::from_str(json).unwrap();
        let names = |top: Vec<Likely>| top.into_iter().map(|likely| likely.token).collect();
        let tokens = logprobs.into_tokens().into_iter();
        tokens
            .map(|entry| (entry.token.token, names(entry.top_logprobs)))
            .collect()
    }

    #[test]
    fn both_shapes_say_the_same() {
        let chat = r#"{"content":[{"id":7,"token":"a","bytes":[97],"logprob":-0.1,"top_logprobs":
            [{"id":7,"token":"a","bytes":[97],"logprob":-0.1},{"token":"b","logprob":-2.5}]}],"refusal":null}"#;
        let lists = r#"{"tokens":["a"],"token_logprobs":[-0.1],"top_logprobs":[{"b":-2.5,"a":-0.1}],"text_offset":[0]}"#;
        let expected = vec![("a".to_owned(), vec!["a".to_owned(), "b".to_owned()])];
        assert_eq!(read(chat), expected);
        assert_eq!(read(lists), expected);
        assert_eq!(read(r#"{"content":null}"#), []);
    }
}
