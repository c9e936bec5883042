//! What takes long, shown: downloads, builds and servers that load.

use std::sync::{Mutex, PoisonError};

use crate::report::{Progress, Task};
use crate::{engine, model};

use super::Interrupt;

/// Shows whatever goes on now as one task; dropped, the task is over.
pub struct Shown<'a> {
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    now: Mutex<Option<Now>>,
}

struct Now {
    task: Task,
    done: u64,
}

impl<'a> Shown<'a> {
    /// Nothing goes on yet. What does is given up when the user asks to stop.
    pub fn on(progress: &'a Progress, interrupt: &'a Interrupt) -> Shown<'a> {
        Shown {
            progress,
            interrupt,
            now: Mutex::new(None),
        }
    }

    /// By what the user asks to stop.
    pub(super) fn interrupt(&self) -> &Interrupt {
        self.interrupt
    }

    fn set(&self, now: Option<Now>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl engine::Progress for Shown<'_> {
    fn status(&self, message: &str) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &*now {
            Some(now) => now.task.message(message),
            None => {
                *now = Some(Now {
                    task: self.progress.task(message, None),
                    done: 0,
                })
            }
        }
    }

    fn note(&self, message: &str) {
        self.progress.status(message);
    }

    fn stopped(&self) -> bool {
        self.interrupt.is_set()
    }
}

impl model::Progress for Shown<'_> {
    fn begin(&self, label: &str, total: Option<u64>) {
        // The line of the task before goes away first.
        self.set(None);
        self.set(Some(Now {
            task: self.progress.task(label, total),
            done: 0,
        }));
    }

    fn advance(&self, bytes: u64) {
        if let Some(now) = &mut *self.now.lock().unwrap_or_else(PoisonError::into_inner) {
            now.done += bytes;
            now.task.position(now.done);
        }
    }

    fn finish(&self) {
        self.set(None);
    }

    fn note(&self, message: &str) {
        self.progress.status(message);
    }
}
