//! What it meant: samples, recorders, the measurement window, and the versioned result.

mod clock;
mod live;
mod record;
mod recorder;
mod sample;
mod trace;

pub use clock::{Clock, WallOffset};
pub use live::{Live, LiveShards, SecondCounts, Totals};
pub use record::{Latencies, Second, StepRecord, Window};
pub use recorder::{Arrivals, Objectives, Recorder};
pub use sample::{Outcome, Sample, TokenSource};
pub use trace::{Event, RequestId, Trace};
