//! What can be wrong with a profile or a prompt.

use std::path::PathBuf;

/// Why there is no profile to run, or no prompts to send.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No shipped profile and no file has this name.
    #[error("there is no profile `{name}`{hint}; there are {}, or give the path of a .toml file", known.join(", "))]
    UnknownProfile {
        /// The name asked for.
        name: String,
        /// Half a sentence with the nearest name, or nothing.
        hint: String,
        /// Every name there is.
        known: Vec<String>,
    },
    /// A file that should be read is not readable.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in a file is wrong.
    #[error("{file}:{line}: {message}")]
    File {
        /// The file, as it was named.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// Something on the command line is wrong, alone or together with the profile.
    #[error("--{flag}: {message}")]
    Flag {
        /// The flag.
        flag: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A prompt of exactly so many tokens cannot be made.
    #[error("no prompt of {wanted} tokens can be made with this model's tokenizer: {reason}")]
    Length {
        /// The length asked for.
        wanted: u32,
        /// Why.
        reason: String,
    },
    /// An engine does not take what the profile asks for.
    #[error("{0}")]
    Refused(String),
}

/// A setting that is impossible, alone or beside another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The section of the file in which the key stands; empty for the top.
    pub section: &'static str,
    /// The key, and with `-` for `_` the flag.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub message: String,
}
