//! Responses read from memory: the way of the bytes is that of [`Client`](super::Client), but for the socket. Fuzzing
//! and benches go this way.

use std::sync::Arc;

use super::Failure;
use super::response::Response;
use super::stamped::Arrival;
use crate::measure::{Live, LiveShards, Trace};

/// The reader of one response after the other.
pub struct Reader {
    response: Response,
    live: Arc<Live>,
    /// What is known of the response.
    pub trace: Trace,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            response: Response::default(),
            live: LiveShards::new(1).shard(0),
            trace: Trace::default(),
        }
    }
}

impl Reader {
    /// Ready for the next response; keeps the memory.
    pub fn clear(&mut self) {
        self.response.clear();
        self.trace.clear();
    }

    /// Takes bytes that came at `at_ns`. Says whether the response is over.
    ///
    /// # Errors
    /// The failure that the response is. Nothing may be read after that.
    pub fn read(&mut self, bytes: &[u8], at_ns: u64) -> Result<bool, Failure> {
        let over = self
            .response
            .read(bytes, arrival(at_ns), &mut self.trace, &self.live)?;
        self.trace.end_ns = self.response.end_ns();
        Ok(over)
    }

    /// The connection was closed at `at_ns`, before the response was over.
    ///
    /// # Errors
    /// The failure that the response is, unless nothing of it is missing.
    pub fn close(&mut self, at_ns: u64) -> Result<(), Failure> {
        self.response.close(arrival(at_ns), &self.trace)?;
        self.trace.end_ns = self.response.end_ns();
        Ok(())
    }
}

fn arrival(at_ns: u64) -> Arrival {
    Arrival {
        at_ns,
        read_ns: at_ns,
    }
}
