//! What it meant: samples, recorders, the measurement window, and the versioned result.

pub mod calibration;
mod clock;
pub mod definition;
#[cfg(test)]
pub(crate) mod fixture;
mod histogram;
pub mod hlog;
mod live;
mod record;
mod recorder;
mod replay;
mod requests;
pub mod result;
mod sample;
mod store;
mod summary;
mod timeline;
mod trace;

pub use clock::{Clock, WallOffset};
pub use histogram::lag;
pub use live::{Live, LiveShards, SecondCounts, Totals};
pub use record::{Latencies, Second, StepRecord, Window};
pub use recorder::{Arrivals, Objectives, Recorder};
pub use replay::open;
pub use requests::{RequestLine, Sink};
pub use sample::{Outcome, Sample, TokenSource};
pub use store::{Store, StoreError, find, load};
pub use summary::{StepContext, fill_scaling, summarise};
pub use timeline::ServerSecond;
pub use trace::{Event, RequestId, Trace};
