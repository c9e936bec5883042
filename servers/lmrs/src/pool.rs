//! The `backend` that new requests go to. It is replaced by another when it died or when a request wants other sampling;
//! the one before goes with the last of its requests.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Mutex;

use crate::backend::{Backend, Program, Sampling};

/// Where requests get their backend from.
pub struct Pool {
    program: Program,
    current: Mutex<Option<Arc<Backend>>>,
}

impl Pool {
    /// A pool that has started nothing yet.
    pub fn new(program: Program) -> Pool {
        Pool {
            program,
            current: Mutex::new(None),
        }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.program.threads
    }

    /// A process for requests of this sampling.
    ///
    /// # Errors
    /// lm.rs can't be started.
    pub async fn lease(&self, sampling: Sampling) -> anyhow::Result<Arc<Backend>> {
        let mut current = self.current.lock().await;
        if let Some(backend) = current.as_ref().filter(|backend| backend.sampling == sampling) {
            return Ok(Arc::clone(backend));
        }
        *current = None;
        let backend = Backend::start(&self.program, sampling).await;
        let backend = Arc::new(backend.context("cannot start lm.rs")?);
        *current = Some(Arc::clone(&backend));
        Ok(backend)
    }

    /// Takes one that died out of use.
    pub async fn forget(&self, dead: &Arc<Backend>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, dead)) {
            *current = None;
        }
    }
}
