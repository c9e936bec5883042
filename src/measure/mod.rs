//! What it meant: samples, recorders, the measurement window, and the versioned result.

mod arrivals;
pub mod calibration;
mod clock;
pub mod definition;
#[cfg(test)]
pub(crate) mod fixture;
mod gaps;
mod histogram;
pub mod hlog;
mod latencies;
mod live;
mod own_error;
mod price;
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
mod verdicts;
mod wall;
mod window;

pub use arrivals::Arrivals;
pub use clock::Clock;
pub use histogram::lag;
pub use latencies::Latencies;
pub use live::{Live, LiveShards, SecondCounts, Totals};
pub use price::fill_cost;
pub use record::{Contention, Second, StepRecord};
pub use recorder::{Objectives, Recorder};
pub use replay::open;
pub use requests::{RequestLine, Sink};
pub use sample::{Outcome, Sample, TokenSource};
pub use store::{Store, StoreError, find, load};
pub use summary::{StepContext, fill_scaling, summarise};
pub use timeline::ServerSecond;
pub use trace::{Event, RequestId, Trace};
pub use wall::{Clocks, WallOffset};
pub use window::{OpenWindow, Window};
