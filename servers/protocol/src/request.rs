//! What a client asks. Serialised by the load generator; read field by field by the servers, so that an error
//! can name the field.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::AskedLogprobs;

/// A request to `/v1/chat/completions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The conversation so far, as the chat template takes it.
    pub messages: Vec<Value>,
    /// Everything that is not the input.
    #[serde(flatten)]
    pub params: Params,
}

/// A request to `/v1/completions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompletionRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// Everything that is not the input.
    #[serde(flatten)]
    pub params: Params,
}

/// The text or tokens that a completion continues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// One prompt, tokenized already.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several prompts, tokenized already.
    TokenLists(Vec<Vec<u32>>),
}

/// Texts that end the output where they appear; they are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Stop {
    /// The texts.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// What a stream tells besides its output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// Whether a last chunk without choices counts the tokens.
    #[serde(default)]
    pub include_usage: bool,
    /// Whether every chunk counts the tokens so far (not in OpenAI's API; vLLM's and SGLang's name).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continuous_usage_stats: bool,
}

/// How to generate, the same for chat and completions.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Params {
    /// The model asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Most tokens to generate, by the older name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Most tokens to generate, by the newer name, which wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    /// Fewest tokens to generate before an end token may come (not in OpenAI's API).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u64>,
    /// 0 is greedy; 1 is the model's own distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Only the likeliest tokens that make up this share of the probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Only so many of the likeliest tokens; 0 or -1 is all (not in OpenAI's API).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// The same seed, request and server give the same output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Texts that end the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Whether to go on to the most tokens although the model would end (not in OpenAI's API).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// How many answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Whether to stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What the stream tells besides its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Whether log probabilities of the tokens are wanted; the endpoints ask for them in different ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<AskedLogprobs>,
    /// How many of the likeliest tokens are wanted at each place (chat).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u64>,
    /// Every other field, as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A body that is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    /// The field at fault, if it is one field.
    pub param: Option<String>,
    /// What is wrong, for a person.
    pub message: String,
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RequestError {}

impl ChatRequest {
    /// Reads a request body.
    ///
    /// # Errors
    /// If it is not a JSON object, has no messages, or a field has the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let mut fields = object(body)?;
        let messages: Vec<Map<String, Value>> = required(&mut fields, "messages", "an array of objects")?;
        if messages.is_empty() {
            return Err(wrong("messages", "is empty; at least one message is needed"));
        }
        let messages = messages.into_iter().map(Value::Object).collect();
        Ok(Self {
            messages,
            params: Params::take(fields)?,
        })
    }
}

impl CompletionRequest {
    /// Reads a request body.
    ///
    /// # Errors
    /// If it is not a JSON object, has no prompt, or a field has the wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let mut fields = object(body)?;
        let prompt = required(&mut fields, "prompt", "a string, an array of strings, or tokens")?;
        Ok(Self {
            prompt,
            params: Params::take(fields)?,
        })
    }
}

impl Params {
    /// The most tokens to generate, by either name.
    pub fn max_tokens(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    fn take(mut fields: Map<String, Value>) -> Result<Self, RequestError> {
        let fields = &mut fields;
        Ok(Self {
            model: optional(fields, "model", "a string")?,
            max_tokens: optional(fields, "max_tokens", "a whole number")?,
            max_completion_tokens: optional(fields, "max_completion_tokens", "a whole number")?,
            min_tokens: optional(fields, "min_tokens", "a whole number")?,
            temperature: optional(fields, "temperature", "a number")?,
            top_p: optional(fields, "top_p", "a number")?,
            top_k: optional(fields, "top_k", "a whole number")?,
            seed: optional(fields, "seed", "a whole number")?,
            stop: optional(fields, "stop", "a string or an array of strings")?,
            ignore_eos: optional(fields, "ignore_eos", "true or false")?,
            n: optional(fields, "n", "a whole number")?,
            stream: optional(fields, "stream", "true or false")?,
            stream_options: optional(fields, "stream_options", "an object of true or false")?,
            logprobs: optional(fields, "logprobs", "true, false, or a whole number")?,
            top_logprobs: optional(fields, "top_logprobs", "a whole number")?,
            rest: std::mem::take(fields),
        })
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, RequestError> {
    serde_json::from_slice(body).map_err(|error| RequestError {
        param: None,
        message: format!("The body is not a JSON object: {error}."),
    })
}

/// Takes a field out; null counts as absent, as OpenAI's API has it.
fn optional<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, RequestError> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|_| wrong(name, &format!("must be {expected}"))),
    }
}

fn required<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    name: &str,
    expected: &str,
) -> Result<T, RequestError> {
    optional(fields, name, expected)?
        .ok_or_else(|| wrong(name, &format!("is missing; it must be {expected}")))
}

fn wrong(param: &str, what: &str) -> RequestError {
    RequestError {
        param: Some(param.to_owned()),
        message: format!("'{param}' {what}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_collected() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"echo":true,"stop":["a","b"],
            "max_tokens":5,"max_completion_tokens":7,"temperature":null}"#;
        let request = ChatRequest::parse(body).unwrap();
        assert_eq!(request.params.max_tokens(), Some(7));
        assert_eq!(request.params.temperature, None);
        assert_eq!(request.params.stop.unwrap().into_vec(), ["a", "b"]);
        assert_eq!(request.params.rest.keys().collect::<Vec<_>>(), ["echo"]);
    }

    #[test]
    fn errors_name_the_field() {
        let param = |body: &str| ChatRequest::parse(body.as_bytes()).unwrap_err().param;
        assert_eq!(
            param(r#"{"messages":[{}],"max_tokens":"5"}"#).as_deref(),
            Some("max_tokens")
        );
        assert_eq!(
            param(r#"{"messages":[{}],"max_tokens":-1}"#).as_deref(),
            Some("max_tokens")
        );
        assert_eq!(param(r#"{"messages":[]}"#).as_deref(), Some("messages"));
        assert_eq!(param(r#"{"messages":["hi"]}"#).as_deref(), Some("messages"));
        assert_eq!(param("{}").as_deref(), Some("messages"));
        assert_eq!(param("[1,2]"), None);
        assert_eq!(param("nonsense"), None);
    }

    #[test]
    fn prompts_of_every_form() {
        let prompt = |json: &str| CompletionRequest::parse(format!(r#"{{"prompt":{json}}}"#).as_bytes());
        assert_eq!(prompt(r#""a""#).unwrap().prompt, Prompt::Text("a".into()));
        assert_eq!(
            prompt(r#"["a"]"#).unwrap().prompt,
            Prompt::Texts(vec!["a".into()])
        );
        assert_eq!(prompt("[1,2]").unwrap().prompt, Prompt::Tokens(vec![1, 2]));
        assert_eq!(
            prompt("[[1],[2]]").unwrap().prompt,
            Prompt::TokenLists(vec![vec![1], vec![2]])
        );
        assert_eq!(prompt("7").unwrap_err().param.as_deref(), Some("prompt"));
    }

    #[test]
    fn a_request_survives_the_wire() {
        let params = Params {
            model: Some("m".into()),
            max_tokens: Some(9),
            stream: Some(true),
            stream_options: Some(StreamOptions {
                include_usage: true,
                continuous_usage_stats: false,
            }),
            ..Params::default()
        };
        let request = CompletionRequest {
            prompt: Prompt::Text("x".into()),
            params,
        };
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(
            json,
            r#"{"prompt":"x","model":"m","max_tokens":9,"stream":true,"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(CompletionRequest::parse(json.as_bytes()).unwrap(), request);
    }
}
