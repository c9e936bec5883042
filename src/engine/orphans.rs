//! What a server whose guard is gone has left: found by the server's process group, and by a mark in the environment,
//! which all that the server starts inherits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::guard::KILL_PATIENCE;

/// The variable of the environment that holds the mark.
pub(super) const VARIABLE: &str = "LOADTEST_SERVER";

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(5);

/// A mark that no other server has.
pub(super) fn mark() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Kills all that is left of the server with this process id, where it is known, and this mark. Returns when none of it
/// is, or when something withstands SIGKILL.
pub(super) fn kill_all(server: Option<u32>, mark: &str) {
    let group = server.map(|pid| Pid::from_raw(pid.cast_signed()));
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        if let Some(group) = group {
            // Fails only when the group is empty.
            let _ = killpg(group, Signal::SIGKILL);
        }
        let left = left(group, mark);
        for pid in &left {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        thread::sleep(LOOK);
    }
}

#[cfg(target_os = "linux")]
fn left(group: Option<Pid>, mark: &str) -> Vec<Pid> {
    let left = crate::telemetry::marked(group.map(Pid::as_raw), (VARIABLE, mark));
    left.into_iter().map(Pid::from_raw).collect()
}

/// Unknown here: the process group alone is killed.
#[cfg(not(target_os = "linux"))]
fn left(_group: Option<Pid>, _mark: &str) -> Vec<Pid> {
    Vec::new()
}
