//! Metadata of GGUF files: the header, the key-value pairs and the tensor table, never the tensor data.
//!
//! The format is described in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every length is checked
//! against the bytes that are left in the file before anything is allocated.

mod reader;
mod value;

use crate::ModelError;
use reader::Reader;
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::Path;

pub use value::Value;

/// The metadata of one GGUF file whose size fits its tensor table.
#[derive(Debug)]
pub struct Gguf {
    metadata: HashMap<String, Value>,
    table: HashMap<String, Tensor>,
    expected_bytes: u64,
    weights: Weights,
}

/// An entry of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its type, by its number in the format.
    pub kind: u32,
    /// Its dimensions; the first is the one whose elements lie side by side.
    pub dimensions: Vec<u64>,
    /// Where in the file its data are; `None` where the type is not known.
    pub bytes: Option<Range<u64>>,
}

/// The elements of all tensors, and the bytes that they take; no bytes where a tensor's type is not known.
#[derive(Debug, Clone, Copy)]
struct Weights {
    elements: u64,
    bytes: Option<u64>,
}

impl Gguf {
    /// Reads the metadata of the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, is not a little-endian GGUF file of version 2 or 3, holds impossible lengths, or
    /// has fewer bytes than its tensor table implies.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        Reader::new(BufReader::new(file), path, size).gguf()
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The value under `key`, if it is a string.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The value under `key`, if it is a non-negative integer.
    pub fn unsigned(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// The value under `key`, if it is a boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The value under `key`, if it is an array.
    pub fn array(&self, key: &str) -> Option<&[Value]> {
        self.get(key)?.as_array()
    }

    /// The model's architecture, as in `llama`: the prefix of its own keys.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    /// Number of tensors in the file.
    pub fn tensors(&self) -> u64 {
        self.table.len() as u64
    }

    /// The tensors and their names.
    pub fn table(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.table.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Bits of the file for each weight: the tensors' bytes over their elements, times 8; `None` without tensors, or
    /// where the type of one is not known.
    pub fn bits_per_weight(&self) -> Option<f64> {
        let bytes = self.weights.bytes?;
        (self.weights.elements > 0).then(|| 8.0 * bytes as f64 / self.weights.elements as f64)
    }

    /// The least size in bytes that a whole file with this tensor table has.
    pub fn expected_bytes(&self) -> u64 {
        self.expected_bytes
    }
}
