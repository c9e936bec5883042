//! The command line of a server around an embedded engine.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::Limits;

/// Serves a model over OpenAI's API
#[derive(Debug, Clone, Parser)]
pub struct ServeArgs {
    /// Model to serve: a GGUF file, or a folder in Hugging Face's form
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// Name to serve it under [default: the file's, without its extension]
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Further name that requests may use; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Sequences that are computed at a time
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub parallel: usize,
    /// Most tokens of a sequence, prompt and output; at most what the model was trained for
    #[arg(long, default_value_t = 2048, value_name = "TOKENS")]
    pub context: usize,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Requests that may wait; one more is refused with status 429
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub queue: usize,
    /// Most rows of prompts that one step computes, beside the rows of the sequences that decode
    #[arg(long, default_value_t = 256, value_name = "ROWS")]
    pub prefill_chunk: usize,
    /// Form in which the engine keeps the weights
    #[arg(long, default_value = "auto", value_name = "FORM")]
    pub weights: String,
    /// Where to compute: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Number format to compute in; the engine's own choice if not given
    #[arg(long)]
    pub dtype: Option<String>,
    /// Be killed when the parent process dies (Linux)
    #[arg(long)]
    pub die_with_parent: bool,
}

impl ServeArgs {
    /// The name that the model is served under.
    pub fn served_name(&self) -> String {
        let named_file = |path: &Path| {
            if path.is_dir() {
                path.file_name()
            } else {
                path.file_stem()
            }
            .map(<_>::to_owned)
        };
        let of_path =
            || named_file(&self.model).map_or_else(|| "model".into(), |name| name.to_string_lossy().into());
        self.model_name.clone().unwrap_or_else(of_path)
    }

    /// The bounds of the server.
    pub fn limits(&self) -> Limits {
        let &Self {
            parallel,
            context,
            queue,
            prefill_chunk,
            ..
        } = self;
        Limits {
            parallel,
            context,
            queue,
            prefill_chunk,
        }
    }
}
