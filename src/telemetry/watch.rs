//! Looking at something once a second while the load runs.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks once a second, on a thread of its own, until it is stopped or dropped.
#[derive(Debug)]
pub struct Watch<T> {
    stop: Sender<()>,
    looker: Option<JoinHandle<Vec<T>>>,
}

impl<T: Send + 'static> Watch<T> {
    /// Starts to look; a look that shows nothing is left out.
    pub fn start(mut look: impl FnMut() -> Option<T> + Send + 'static) -> Watch<T> {
        let (stop, stopped) = channel();
        let looker = thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                seen.extend(look());
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    seen.extend(look());
                    return seen;
                }
            }
        });
        Watch {
            stop,
            looker: Some(looker),
        }
    }

    /// Looks for the last time and returns all that was seen, in order.
    pub fn stop(mut self) -> Vec<T> {
        // It fails when the looker has ended, and then it can be joined.
        let _ = self.stop.send(());
        self.looker
            .take()
            .and_then(|looker| looker.join().ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_looks_at_its_start_and_at_its_end() {
        let mut looks = 0;
        let watch = Watch::start(move || {
            looks += 1;
            (looks != 2).then_some(looks)
        });
        let seen = watch.stop();
        assert!(seen.first() == Some(&1) && !seen.contains(&2), "{seen:?}");
    }
}
