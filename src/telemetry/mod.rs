//! What the machine did while the load ran: CPU and memory of the server's processes, and how contended the client's
//! own threads were.
//!
//! Linux only, out of `/proc`; elsewhere every function answers that it does not know.

mod contention;
mod machine;
mod processes;

pub use contention::Contention;
pub use machine::Machine;
#[cfg(target_os = "linux")]
pub(crate) use processes::below;
pub use processes::{Root, Usage, Watch};
