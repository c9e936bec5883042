//! Statistics: pure functions of numbers, each with the source of its formula.
//!
//! Requests of one run are not independent: they share queues, batches and a machine that drifts. So everything within a
//! run rests on a block bootstrap ([`Blocks`]), in which neighbours stay together; repeats of a run are independent, and
//! have Student's t ([`Spread`], [`welch`]).

mod blocks;
mod difference;
mod holm;
mod length;
mod line;
mod repeats;
mod student;
#[cfg(test)]
pub(crate) mod truth;
mod usl;

pub use blocks::{Blocks, Estimate, Level, quantile_interval, share};
pub use difference::{Difference, difference};
pub use holm::holm;
pub use line::{Line, line};
pub use repeats::{Spread, Welch, welch};
pub use usl::{Fitted, Parameter, fit, knee, linear_up_to};
