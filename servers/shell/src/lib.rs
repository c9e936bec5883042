//! The OpenAI-compatible streaming server that inference engines plug into.
//!
//! A request flows one way: [`routes`] takes it from the socket, [`call`] checks it, a [`Generator`] turns it
//! into a stream of [`Event`]s, [`frames`] renders those as server-sent events. The generator of an engine is the
//! scheduler; the one of the [`reference`] server is a known schedule.

mod args;
pub mod call;
pub mod engine;
pub mod frames;
mod generate;
pub mod listen;
mod logprobs;
mod memory;
mod metrics;
mod plan;
pub mod reference;
mod refusal;
pub mod routes;
mod sample;
mod scheduler;
mod sequence;
mod serve;
mod text;
mod worker;

pub use args::ServeArgs;
pub use engine::{Engine, EngineInfo, Rows, check_batch};
pub use generate::{Event, Finish, Generation, Generator, Input, Request};
pub use memory::free as free_memory;
pub use metrics::{Counted, Metrics, Outcome};
pub use refusal::Refusal;
pub use scheduler::{Limits, Scheduler};
pub use serve::serve;
pub use text::{Detokenizer, TextModel};
pub use worker::Worker;
