//! What it meant: samples, recorders, the measurement window, and the versioned result.

pub mod definition;
mod record;
mod sample;

pub use record::{Latencies, Second, StepRecord, Window};
pub use sample::{Outcome, Sample, TokenSource};
