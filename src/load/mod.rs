//! When to do it: the schedule of a step, its shards, and the attack that `goose` governs.

mod attack;
mod conduct;
mod control;
mod counting;
mod user;

pub use attack::AttackError;
pub use conduct::{LoadError, Requests, StepLoad, run_step};
pub use control::{Gate, Stop};
pub use counting::CountTokens;

use crate::profile::Cpus;

/// Streams that one thread drives.
const USERS_PER_SHARD: u32 = 512;

/// Threads that drive the streams of so many users, on these processors or all of this machine.
pub fn shards(users: u32, cpus: Option<&Cpus>) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpus = cpus.map_or_else(all, |own| own.list().len());
    (users.div_ceil(USERS_PER_SHARD) as usize).clamp(1, cpus)
}
