//! Looking at something once a second while the load runs.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;

/// Looks at each full second of the caller's clock, on a thread of its own, until it is stopped or dropped.
#[derive(Debug)]
pub struct Watch<T> {
    stop: Sender<()>,
    looker: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Vec<T>>>,
}

impl<T: Send + 'static> Watch<T> {
    /// Looks at once, then at each full second. A look is told the time and may show several things, or none.
    pub fn start<S: IntoIterator<Item = T>>(
        clock_ns: impl Fn() -> u64 + Send + 'static,
        mut look: impl FnMut(u64) -> S + Send + 'static,
    ) -> Watch<T> {
        let (stop, stopped) = channel();
        let seen = Arc::<Mutex<Vec<T>>>::default();
        let shared = seen.clone();
        let looker = thread::spawn(move || {
            let mut note = || {
                let shown = look(clock_ns());
                shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(shown);
            };
            loop {
                note();
                let left = Duration::from_nanos(SECOND_NS - clock_ns() % SECOND_NS);
                if stopped.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
                    note();
                    return;
                }
            }
        });
        Watch {
            stop,
            looker: Some(looker),
            seen,
        }
    }

    /// Shows what was seen so far, in order.
    pub fn peek<R>(&self, show: impl FnOnce(&[T]) -> R) -> R {
        show(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks for the last time and returns all that was seen, in order.
    pub fn stop(mut self) -> Vec<T> {
        // It fails when the looker has ended, and then it can be joined.
        let _ = self.stop.send(());
        if let Some(looker) = self.looker.take() {
            let _ = looker.join();
        }
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_looks_at_its_start_and_at_its_end() {
        let mut looks = 0;
        let watch = Watch::start(
            || 5,
            move |at_ns| {
                looks += 1;
                (looks != 2).then_some((looks, at_ns))
            },
        );
        let seen = watch.stop();
        assert!(
            seen.first() == Some(&(1, 5)) && seen.iter().all(|look| look.0 != 2),
            "{seen:?}"
        );
    }

    #[test]
    fn looks_come_at_the_seconds_of_the_clock() {
        // A clock on which a second is a hundred microseconds away at every reading.
        let watch = Watch::start(|| 3 * SECOND_NS - 100_000, |at_ns| [at_ns]);
        while watch.peek(<[u64]>::len) < 4 {
            thread::yield_now();
        }
        assert!(watch.stop().len() > 4);
    }
}
