//! What the machine did while the load ran: CPU and memory of the server's processes, what the client's own threads cost
//! and waited for, which processors each had, and what the server says of its queue.
//!
//! Mostly out of `/proc`, which only Linux has; elsewhere every function answers that it does not know.

pub mod affinity;
mod cost;
mod machine;
mod processes;
mod queue;
mod watch;

pub use cost::{Cost, Meter, ThreadId};
pub use machine::Machine;
#[cfg(target_os = "linux")]
pub(crate) use processes::below;
pub use processes::{Root, Usage};
pub use queue::{Gauges, Queue};
pub use watch::Watch;
