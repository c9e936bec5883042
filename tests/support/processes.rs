//! Processes of a test, looked at from outside.

use std::fs;
use std::time::{Duration, Instant};

/// What a busy machine is given.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A zombie is gone too: only its parent has not looked yet.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until this holds.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come about in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}
