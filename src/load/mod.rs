//! When to do it: the schedule of a step, its shards, and the attack that `goose` governs.

mod attack;
mod conduct;
mod control;
mod user;

pub use attack::AttackError;
pub use conduct::{LoadError, Requests, StepLoad, run_step};
pub use control::Stop;
