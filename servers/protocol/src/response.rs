//! What a server answers, outside of a stream.

use serde::{Deserialize, Serialize};

use crate::Logprobs;

/// Token counts of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated, an end token included.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
}

impl Usage {
    /// Counts of `prompt` tokens read and `completion` tokens generated.
    pub fn new(prompt: u64, completion: u64) -> Self {
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt + completion,
        }
    }
}

/// The answer to a request that did not ask for a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Completion {
    /// The response's name.
    pub id: String,
    /// `chat.completion` or `text_completion`.
    pub object: String,
    /// When it was created, in seconds since the Unix epoch.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Which configuration of the server answered.
    #[serde(default)]
    pub system_fingerprint: Option<String>,
    /// The answers.
    pub choices: Vec<Choice>,
    /// What it took.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// One of the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Which of the `n` answers.
    pub index: u32,
    /// What was generated.
    #[serde(flatten)]
    pub output: Output,
    /// How likely the model held its tokens, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Logprobs>,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
}

/// What was generated, under the name that the endpoint gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// The answer in a chat.
    Message(ChatMessage),
    /// The continuation of a prompt.
    Text(String),
}

/// What one side of a chat says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: Option<String>,
}

/// The answer of `/v1/models`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Models {
    /// `list`.
    #[serde(default)]
    pub object: String,
    /// The models that can be asked for.
    pub data: Vec<Model>,
}

/// A model that can be asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Model {
    /// Its name in requests.
    pub id: String,
    /// `model`.
    #[serde(default)]
    pub object: String,
    /// When it was loaded, in seconds since the Unix epoch.
    #[serde(default)]
    pub created: u64,
    /// Who serves it.
    #[serde(default)]
    pub owned_by: String,
}

/// The body of an answer whose status is no success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorDetail,
}

/// What is wrong with a request or with the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For a person.
    pub message: String,
    /// The class: `invalid_request_error`, `server_error`, ...
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// The request's field that is at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// For a program: `model_not_found`, `context_length_exceeded`, ...
    #[serde(default)]
    pub code: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_choice_is_named_as_its_endpoint_names_it() {
        let message = ChatMessage {
            role: "assistant".into(),
            content: Some("hi".into()),
        };
        for (output, key, value) in [
            (
                Output::Message(message),
                "message",
                json!({ "role": "assistant", "content": "hi" }),
            ),
            (Output::Text("hi".into()), "text", json!("hi")),
        ] {
            let choice = Choice {
                index: 0,
                output,
                logprobs: None,
                finish_reason: Some("stop".into()),
            };
            let json = json!({ "index": 0, key: value, "finish_reason": "stop" });
            assert_eq!(serde_json::to_value(&choice).unwrap(), json);
            assert_eq!(serde_json::from_value::<Choice>(json).unwrap(), choice);
        }
    }
}
