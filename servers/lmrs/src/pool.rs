//! The `backend` that new requests go to. It is replaced by another when it died, when a request wants other sampling, or
//! when it keeps too much memory; the one before goes with the last of its requests.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Mutex;

use crate::backend::{Backend, Program, Sampling};
use crate::model::Model;

/// How many requests memory allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// At a time.
    pub parallel: usize,
    /// Of one process in its life; none: any number.
    pub life: Option<u64>,
}

impl Room {
    /// Half of the `free` bytes are for the connections of the moment, a quarter for what a process keeps of those
    /// before, of which there may be two: one that goes and one that comes.
    pub fn new(model: &Model, wanted: usize, free: u64) -> Room {
        let fits = free / 2 / model.connection_bytes().max(1);
        let life = (free / 4).checked_div(model.kept_bytes());
        Room {
            parallel: wanted.min(usize::try_from(fits).unwrap_or(usize::MAX)).max(1),
            life: life.map(|life| life.max(1)),
        }
    }
}

/// A process, and how many requests it has had.
struct Current {
    backend: Arc<Backend>,
    requests: u64,
}

/// Where requests get their backend from.
pub struct Pool {
    program: Program,
    /// What memory allows.
    pub room: Room,
    current: Mutex<Option<Current>>,
}

impl Pool {
    /// A pool that has started nothing yet.
    pub fn new(program: Program, room: Room) -> Pool {
        Pool {
            program,
            room,
            current: Mutex::new(None),
        }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.program.threads
    }

    /// Starts a process that the first request is likely to want.
    ///
    /// # Errors
    /// lm.rs can't be started.
    pub async fn warm(&self) -> anyhow::Result<()> {
        let sampling = Sampling {
            temperature: 1.0,
            top_p: 1.0,
        };
        let backend = Arc::new(Backend::start(&self.program, sampling).await?);
        *self.current.lock().await = Some(Current { backend, requests: 0 });
        Ok(())
    }

    /// A process for one request of this sampling.
    ///
    /// # Errors
    /// lm.rs can't be started.
    pub async fn lease(&self, sampling: Sampling) -> anyhow::Result<Arc<Backend>> {
        let mut current = self.current.lock().await;
        let fresh = |current: &&mut Current| {
            let young = self.room.life.is_none_or(|life| current.requests < life);
            young && current.backend.sampling == sampling
        };
        if let Some(current) = current.as_mut().filter(fresh) {
            current.requests += 1;
            return Ok(Arc::clone(&current.backend));
        }
        // The one before goes first where it has no request: two need memory for two.
        *current = None;
        let backend = Backend::start(&self.program, sampling).await;
        let backend = Arc::new(backend.context("cannot start lm.rs")?);
        *current = Some(Current {
            backend: Arc::clone(&backend),
            requests: 1,
        });
        Ok(backend)
    }

    /// Takes one that died out of use.
    pub async fn forget(&self, dead: &Arc<Backend>) {
        let mut current = self.current.lock().await;
        if current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(&current.backend, dead))
        {
            *current = None;
        }
    }
}
