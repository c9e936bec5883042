//! What it meant: samples, recorders, the measurement window, and the versioned result.

mod clock;
mod record;
mod sample;

pub use clock::{Clock, WallOffset};
pub use record::{Latencies, Second, StepRecord, Window};
pub use sample::{Outcome, Sample, TokenSource};
