//! Why a model could not be had.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `--model` names nothing known.
    #[error(
        "--model: unknown model `{name}`{hint}; known: {known}; or give a path to a .gguf file or a Hugging Face \
         folder, or hf:owner/repo[/file]",
        hint = nearest.map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default()
    )]
    Unknown {
        /// The name as given.
        name: String,
        /// The known name most like it.
        nearest: Option<&'static str>,
        /// All known names.
        known: String,
    },
    /// An `hf:` reference that is not `hf:owner/repo[/file]`.
    #[error("--model: `{0}` is not of the form hf:owner/repo[/file]")]
    Reference(String),
    /// The path does not exist.
    #[error("--model: {path}: no such file or folder", path = .0.display())]
    NoSuchPath(PathBuf),
    /// The file at the path is no whole model.
    #[error("--model")]
    Unusable(#[from] loadtest_model::ModelError),
    /// There is no place to keep models.
    #[error("no cache folder on this system; set LOADTEST_CACHE to one")]
    NoCache,
    /// A file could not be read or written.
    #[error("cannot use {path}", path = path.display())]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No source had the model.
    #[error("cannot get model `{name}`; tried:{}\n{remedy}", list(attempts))]
    AllFailed {
        /// The model.
        name: String,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
        /// What the user can do.
        remedy: String,
    },
}

impl ModelError {
    /// Whether `--model` itself is wrong: it names nothing that could be looked for.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. } | Self::Reference(_) | Self::NoSuchPath(_)
        )
    }

    /// For `map_err`: says which file.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| ModelError::Io { path, source }
    }
}

/// A source that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which one.
    pub source: String,
    /// How it failed.
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.why)
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| format!("\n  {attempt}")).collect()
}
