use std::path::PathBuf;

/// Why a model's text side (metadata, tokenizer, chat template) could not be read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file could not be opened or read.
    #[error("cannot read {path}", path = path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not begin as a GGUF file does.
    #[error("{path}: not a GGUF file ({found})", path = path.display())]
    NotGguf {
        /// The file in question.
        path: PathBuf,
        /// What stands there instead.
        found: String,
    },
    /// The header promises more bytes than the file has.
    #[error("{path}: the model file is cut short: expected {expected} bytes, found {found}; fetch it again", path = path.display())]
    CutShort {
        /// The file in question.
        path: PathBuf,
        /// The least number of bytes that the file must have.
        expected: u64,
        /// The number of bytes that it has.
        found: u64,
    },
    /// A length, type or value that no valid file has.
    #[error("{path}: damaged model file: {what}", path = path.display())]
    Damaged {
        /// The file in question.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The path names neither a GGUF file nor a Hugging Face folder.
    #[error("{path}: expected a .gguf file or a folder with tokenizer.json", path = path.display())]
    NotAModel {
        /// The path as given.
        path: PathBuf,
    },
    /// The kind of tokenizer is one that this crate cannot build.
    #[error("{what} `{found}` is not supported; known: {known}")]
    Unsupported {
        /// The metadata key, as in `tokenizer.ggml.pre`.
        what: &'static str,
        /// Its value.
        found: String,
        /// The values that are supported.
        known: String,
    },
    /// The tokenizer could not be built, or could not encode the text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// Base models have no template.
    #[error("this model has no chat template; use /v1/completions or name a template")]
    NoChatTemplate,
    /// The template does not compile, or refused these messages.
    #[error("chat template: {0}")]
    Template(String),
}
