//! What it meant: samples, recorders, the measurement window, and the versioned result.

pub mod definition;
mod histogram;
pub mod hlog;
mod record;
mod replay;
mod requests;
pub mod result;
mod sample;
mod store;
mod summary;
mod timeline;

pub use record::{Latencies, Second, StepRecord, Window};
pub use replay::open;
pub use requests::{RequestLine, Sink};
pub use sample::{Outcome, Sample, TokenSource};
pub use store::{Store, StoreError, find, load};
pub use summary::{StepContext, fill_scaling, summarise};
pub use timeline::ServerSecond;
