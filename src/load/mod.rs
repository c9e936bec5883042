//! When to do it: the schedule of a step, its shards, and the attack that `goose` governs.

mod attack;
mod conduct;
mod control;
mod user;

pub use attack::AttackError;
pub use conduct::{LoadError, Requests, StepLoad, run_step};
pub use control::Stop;

/// Streams that one thread drives.
const USERS_PER_SHARD: u32 = 512;

/// Threads that drive the streams of so many users, on this machine.
pub fn shards(users: u32) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (users.div_ceil(USERS_PER_SHARD) as usize).clamp(1, cpus)
}
