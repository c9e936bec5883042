//! What the machine did while the load ran: CPU and memory of the server's processes, what the client's own threads cost
//! and waited for, which processors each had, what the graphics cards do, and what the server says of itself.
//!
//! Mostly out of `/proc`, which only Linux has; elsewhere every function answers that it does not know.

pub mod affinity;
mod archive;
mod cost;
mod gpu;
mod machine;
mod page;
mod processes;
mod queue;
mod watch;

pub use archive::Archive;
pub use cost::{Cost, Meter, ThreadId};
pub use gpu::{Card, Cards, nvidia};
pub use machine::{Machine, oom_kills};
pub use page::MetricsPage;
pub use processes::{Root, Usage};
#[cfg(target_os = "linux")]
pub(crate) use processes::{below, marked};
pub use queue::{Gauges, Queue};
pub use watch::Watch;
