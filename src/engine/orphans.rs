//! What a server whose guard is gone has left: found by the server's process group, and by a mark in the environment,
//! which all that the server starts inherits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    // In containers process ids come again.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{count}.{}", std::process::id(), now.as_nanos())
}

/// Kills all that is left of the server: once its process group, where the id of its process is known and can be nobody
/// else's yet, and what has this mark. Returns when none of it is left, or when something withstands SIGKILL.
pub(super) fn kill_all(server: Option<u32>, mark: &str) {
    if let Some(pid) = server {
        // Fails only when the group is empty.
        let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = left(mark);
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
fn left(mark: &str) -> Vec<Pid> {
    let left = crate::telemetry::marked(VARIABLE, mark);
    left.into_iter().map(Pid::from_raw).collect()
}

/// Unknown here: the process group alone is killed.
#[cfg(not(target_os = "linux"))]
fn left(_mark: &str) -> Vec<Pid> {
    Vec::new()
}
