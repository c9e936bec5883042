//! What a server answers, outside of a stream.

use serde::{Deserialize, Serialize};

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

/// The answer to a chat request that did not ask for a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChatCompletion {
    /// The response's name.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// When it was created, in seconds since the Unix epoch.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Which configuration of the server answered.
    #[serde(default)]
    pub system_fingerprint: Option<String>,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// What it took.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// One answer of a chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChatChoice {
    /// Which of the `n` answers.
    pub index: u32,
    /// The answer.
    pub message: ChatMessage,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
}

/// What one side of a chat says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: Option<String>,
}

/// The answer to a completion request that did not ask for a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Completion {
    /// The response's name.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// When it was created, in seconds since the Unix epoch.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Which configuration of the server answered.
    #[serde(default)]
    pub system_fingerprint: Option<String>,
    /// The answers.
    pub choices: Vec<CompletionChoice>,
    /// What it took.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// One continuation of a prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompletionChoice {
    /// Which of the `n` answers.
    pub index: u32,
    /// The continuation.
    pub text: String,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
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
