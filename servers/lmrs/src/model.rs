//! What the head of an `.lmrs` file tells of the model in it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};

/// Bytes of the head that are read.
const HEAD: usize = 55;

/// The model's family, which decides its chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Gemma,
    Llama,
    Phi,
}

/// A model's form and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub family: Family,
    /// `f32`, `q8_0` or `q4_0`.
    pub weights: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// Tokens of context.
    pub context: u32,
    dim: u32,
    layers: u32,
    kv_dim: u32,
    vocabulary: u32,
}

impl Model {
    /// Reads the head of the file at `path`.
    ///
    /// # Errors
    /// The file is not there, or is none of lm.rs's.
    pub fn read(path: &Path) -> anyhow::Result<Model> {
        let shown = path.display();
        let mut file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
        let bytes = file.metadata()?.len();
        let mut head = [0; HEAD];
        file.read_exact(&mut head)
            .with_context(|| format!("{shown} is cut short"))?;
        Model::of(&head, bytes).with_context(|| format!("{shown} is no model of lm.rs"))
    }

    fn of(head: &[u8; HEAD], bytes: u64) -> anyhow::Result<Model> {
        ensure!(head[..4] == *b"lmrs", "it does not begin with `lmrs`");
        let version = number(head, 4);
        ensure!(version == 4, "its version is {version}, and 4 is known");
        let [
            dim,
            _hidden,
            layers,
            _heads,
            head_size,
            kv_heads,
            vocabulary,
            context,
        ] = std::array::from_fn(|i| number(head, 8 + 4 * i));
        let weights = match head[48] {
            0 => "f32",
            1 => "q8_0",
            2 => "q4_0",
            other => anyhow::bail!("its weights are of the unknown form {other}"),
        };
        let family = match head[49] {
            0 => Family::Gemma,
            1 => Family::Llama,
            2 => Family::Phi,
            other => anyhow::bail!("it is of the unknown family {other}"),
        };
        Ok(Model {
            family,
            weights,
            bytes,
            // lm.rs itself takes no more.
            context: context.min(8192),
            dim,
            layers,
            kv_dim: head_size.saturating_mul(kv_heads),
            vocabulary,
        })
    }

    /// Most bytes that a connection takes while it lasts: its KV memory, and the embeddings of a quantised model, which
    /// lm.rs widens once for each.
    pub fn connection_bytes(&self) -> u64 {
        let cells = u64::from(self.layers) * u64::from(self.context) * u64::from(self.kv_dim);
        let widened = match self.weights {
            "f32" => 0,
            _ => u64::from(self.vocabulary) * u64::from(self.dim),
        };
        4 * (2 * cells + widened)
    }
}

fn number(head: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&head[at..at + 4]);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(weights: u8) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(b"lmrs");
        for (i, value) in [4_u32, 576, 1536, 30, 9, 64, 3, 128_256, 16_384]
            .into_iter()
            .enumerate()
        {
            head[4 + 4 * i..8 + 4 * i].copy_from_slice(&value.to_le_bytes());
        }
        (head[48], head[49]) = (weights, 1);
        head
    }

    #[test]
    fn a_head_tells_what_a_connection_takes() {
        let model = Model::of(&head(1), 7).unwrap();
        assert_eq!(
            (model.family, model.weights, model.context),
            (Family::Llama, "q8_0", 8192)
        );
        let cache = 2 * 4 * 30 * 8192 * 192;
        assert_eq!(model.connection_bytes(), cache + 4 * 128_256 * 576);
        assert_eq!(Model::of(&head(0), 7).unwrap().connection_bytes(), cache);
    }

    #[test]
    fn what_is_no_model_is_said_to_be_none() {
        let mut other = head(1);
        other[..4].copy_from_slice(b"GGUF");
        assert!(
            Model::of(&other, 0)
                .unwrap_err()
                .to_string()
                .contains("does not begin")
        );
        assert!(
            Model::of(&head(9), 0)
                .unwrap_err()
                .to_string()
                .contains("unknown form 9")
        );
    }
}
