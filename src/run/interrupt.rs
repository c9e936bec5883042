//! Ctrl-C: the first ends the run in order, the second cuts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::load::Stop;
use crate::report;

use super::Ending;

/// How often the user has asked to stop, and who must hear of it.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: Arc<AtomicU8>,
    at_once: Arc<AtomicBool>,
    stop: Stop,
    tell: watch::Sender<bool>,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP for this process. Called once, before anything else does: `goose` would
    /// install a handler of its own.
    pub fn install() -> Interrupt {
        let interrupt = Interrupt {
            asked: Arc::default(),
            at_once: Arc::default(),
            stop: Stop::default(),
            tell: watch::Sender::new(false),
        };
        let asker = interrupt.clone();
        let handler = move || {
            if asker.at_once.load(Ordering::Relaxed) {
                eprintln!("\ninterrupted");
            } else if !asker.is_set() {
                eprintln!(
                    "\ninterrupted: stopping, what was measured is saved (again to cut requests in flight)"
                );
            }
            asker.ask();
        };
        // It fails only where a handler is installed already, and there is none before this.
        let _ = ctrlc::set_handler(handler);
        interrupt
    }

    /// The user asks to stop: the first time in order, the second time at once.
    pub fn ask(&self) {
        if self.at_once.load(Ordering::Relaxed) {
            leave();
        }
        match self.asked.fetch_add(1, Ordering::Relaxed) {
            0 => {
                self.stop.soft();
                self.tell.send_replace(true);
            }
            1 => self.stop.hard(),
            // Whatever hangs now is not the load; servers end by their guards.
            _ => leave(),
        }
    }

    /// Does what may take long before there is anything to save: the first wish to stop ends the program.
    pub fn at_once<T>(&self, work: impl FnOnce() -> T) -> T {
        self.at_once.store(true, Ordering::Relaxed);
        let done = work();
        self.at_once.store(false, Ordering::Relaxed);
        done
    }

    /// Whether the user has asked to stop.
    pub fn is_set(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    /// Waits so long, or until the user asks to stop.
    pub fn wait(&self, time: Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        match runtime {
            Ok(runtime) => {
                // Either end is fine.
                let _ = runtime.block_on(async { tokio::time::timeout(time, self.asked()).await });
            }
            Err(_) => std::thread::sleep(time),
        }
    }

    /// What ends the load when the user asks to stop.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Returns once the user has asked to stop.
    pub async fn asked(&self) {
        // The sender is ours, so that this ends when the user asks and not before.
        let _ = self.tell.subscribe().wait_for(|set| *set).await;
    }
}

/// Ends the program as one that was interrupted.
fn leave() -> ! {
    report::leave();
    std::process::exit(Ending::Interrupted.code().into())
}
