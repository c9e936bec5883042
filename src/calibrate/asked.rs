//! What a calibration asks for, and, where it is wanted, the stalling of who asks.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Load, Stall, TTFT_MS};
use crate::load::Requests;

/// The bodies of a calibration's requests: all the same.
pub(super) struct Asked {
    body: Vec<u8>,
    stall: Option<Stall>,
    stalled: AtomicBool,
}

thread_local! {
    /// Whether this thread of the client has its stalling task.
    static STALLS: Cell<bool> = const { Cell::new(false) };
}

impl Asked {
    pub fn new(load: &Load) -> Asked {
        let body = serde_json::json!({
            "model": "reference",
            "stream": true,
            "stream_options": { "include_usage": true },
            "max_tokens": load.osl(),
            "messages": [{ "role": "user", "content": vec!["word"; load.isl as usize].join(" ") }],
            "reference": {
                "ttft_ms": TTFT_MS,
                "itl_ms": 1e3 / load.rate,
                "event_bytes": load.event_bytes,
            },
        });
        Asked {
            body: body.to_string().into_bytes(),
            stall: load.stall,
            stalled: AtomicBool::new(false),
        }
    }

    /// Whether a thread was made to stall.
    pub fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Starts, once on every thread of the client, a task that blocks it. The task ends with the thread's runtime.
    fn start_stalling(&self, Stall { blocked, every }: Stall) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if STALLS.replace(true) {
            return;
        }
        self.stalled.store(true, Ordering::Relaxed);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(every.saturating_sub(blocked).max(Duration::from_millis(1))).await;
                std::thread::sleep(blocked);
            }
        });
    }
}

impl Requests for Asked {
    fn body(&self, _: u64, out: &mut Vec<u8>) {
        if let Some(stall) = self.stall {
            self.start_stalling(stall);
        }
        out.extend_from_slice(&self.body);
    }
}
