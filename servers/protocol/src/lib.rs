//! OpenAI wire types, shared by the load generator and every server: what a request asks, what a response
//! says, and a borrowed reading of one streamed chunk for the client's hot path.

mod chunk;
mod logprobs;
mod reader;
mod request;
mod response;

pub use chunk::{ChoiceRef, ChunkRef, DeltaRef, ErrorRef, FunctionRef, Text, ToolCallRef, UsageRef};
pub use logprobs::{AskedLogprobs, Likely, LogprobLists, Logprobs, TokenLogprob};
pub use reader::{Chunk, ChunkReader};
pub use request::{ChatRequest, CompletionRequest, Params, Prompt, RequestError, Stop, StreamOptions};
pub use response::{ChatMessage, Choice, Completion, ErrorBody, ErrorDetail, Model, Models, Output, Usage};
