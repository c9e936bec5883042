//! Ctrl-C: the first ends the run in order, the second cuts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::load::Stop;
use crate::report;

/// How often the user has asked to stop, and who must hear of it.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: Arc<AtomicU8>,
    stop: Stop,
    tell: watch::Sender<bool>,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP for this process. Called once, before anything else does: `goose` would
    /// install a handler of its own.
    pub fn install() -> Interrupt {
        let interrupt = Interrupt {
            asked: Arc::default(),
            stop: Stop::default(),
            tell: watch::Sender::new(false),
        };
        let asker = interrupt.clone();
        let handler = move || {
            if !asker.is_set() {
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
        match self.asked.fetch_add(1, Ordering::Relaxed) {
            0 => {
                self.stop.soft();
                self.tell.send_replace(true);
            }
            1 => self.stop.hard(),
            // Whatever hangs now is not the load; servers end by their guards.
            _ => {
                report::leave();
                std::process::exit(130)
            }
        }
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
