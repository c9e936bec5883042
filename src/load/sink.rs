//! The way of finished requests to whoever writes them down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::measure::Sample;

/// Takes samples without ever making the load wait: if the writer is too far behind, a sample is lost and counted.
#[derive(Debug, Clone)]
pub struct SampleSink {
    samples: SyncSender<Sample>,
    lost: Arc<AtomicU64>,
}

impl SampleSink {
    /// A sink and the end its samples come out of, with room for `capacity` of them in between.
    pub fn new(capacity: usize) -> (Self, Receiver<Sample>) {
        let (samples, receiver) = sync_channel(capacity);
        (
            Self {
                samples,
                lost: Arc::default(),
            },
            receiver,
        )
    }

    /// Samples that the writer had no room for. They are in the record all the same.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    pub(super) fn put(&self, sample: Sample) {
        if self.samples.try_send(sample).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}
