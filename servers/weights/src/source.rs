//! Where weights come from: a GGUF file, or a Hugging Face folder with `config.json` and safetensors.

use crate::config::{Config, Family};
use crate::tensor::{Kind, Raw};
use anyhow::{Context, bail, ensure};
use loadtest_model::gguf::Gguf;
use memmap2::Mmap;
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An open model, its files mapped into memory. Tensors go by their GGUF names.
pub struct Source {
    path: PathBuf,
    config: Config,
    is_gguf: bool,
    files: Vec<Mmap>,
    tensors: HashMap<String, Entry>,
}

/// Where a tensor is.
struct Entry {
    kind: Kind,
    /// Rows first.
    shape: Vec<usize>,
    file: usize,
    bytes: Range<usize>,
}

impl Source {
    /// Opens a GGUF file or a folder.
    ///
    /// # Errors
    /// If it can't be read or is no model that we compute.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = if path.is_dir() {
            Self::open_folder(path)
        } else {
            Self::open_gguf(path)
        };
        let mut source = opened.with_context(|| format!("cannot load the model {}", path.display()))?;
        if source.has("rope_freqs.weight") {
            let divisors = source.vector("rope_freqs.weight", source.config.rope.len())?;
            source.config.divide_rope(&divisors)?;
        }
        Ok(source)
    }

    fn open_gguf(path: &Path) -> anyhow::Result<Self> {
        let gguf = Gguf::open(path)?;
        let mut tensors = HashMap::new();
        for (name, tensor) in gguf.table() {
            // A type that is not known here matters only if a tensor of it is asked for.
            let (Some(kind), Some(bytes)) = (Kind::of_ggml(tensor.kind), &tensor.bytes) else {
                continue;
            };
            let entry = Entry {
                kind,
                shape: tensor.dimensions.iter().rev().map(|&n| n as usize).collect(),
                file: 0,
                bytes: bytes.start as usize..bytes.end as usize,
            };
            tensors.insert(name.to_owned(), entry);
        }
        Ok(Self {
            path: path.into(),
            config: Config::from_gguf(&gguf)?,
            is_gguf: true,
            files: vec![map(path)?],
            tensors,
        })
    }

    fn open_folder(path: &Path) -> anyhow::Result<Self> {
        let json = std::fs::read(path.join("config.json")).context("no readable config.json")?;
        let config = Config::from_json(&serde_json::from_slice(&json).context("config.json is not JSON")?)?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "safetensors")
            {
                names.push(file);
            }
        }
        if names.is_empty() {
            bail!("there is no .safetensors file in the folder");
        }
        names.sort();
        let (mut files, mut tensors) = (Vec::new(), HashMap::new());
        for name in names {
            let file = map(&name)?;
            let read = SafeTensors::deserialize(&file)
                .with_context(|| format!("{} is damaged or cut short", name.display()))?;
            for (name, tensor) in read.iter() {
                let Some(kind) = Kind::of_safetensors(tensor.dtype()) else {
                    continue;
                };
                let start = tensor.data().as_ptr() as usize - file.as_ptr() as usize;
                let entry = Entry {
                    kind,
                    shape: tensor.shape().to_vec(),
                    file: files.len(),
                    bytes: start..start + tensor.data().len(),
                };
                tensors.insert(name.to_owned(), entry);
            }
            files.push(file);
        }
        Ok(Self {
            path: path.into(),
            config,
            is_gguf: false,
            files,
            tensors,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        self.is_gguf
    }

    /// The type of a safetensors file's numbers.
    pub fn dtype(&self) -> Option<Kind> {
        let entry = self.tensors.get("model.norm.weight");
        entry.filter(|_| !self.is_gguf).map(|entry| entry.kind)
    }

    /// Whether the tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// A matrix of `outputs` rows and `inputs` columns.
    ///
    /// # Errors
    /// If it is missing or of another shape.
    pub fn matrix(&self, name: &str, (outputs, inputs): (Option<usize>, usize)) -> anyhow::Result<Raw<'_>> {
        let raw = self.read(name)?;
        let fits =
            raw.shape.len() == 2 && raw.shape[1] == inputs && outputs.is_none_or(|n| n == raw.shape[0]);
        ensure!(
            fits,
            "{name} in {} is {:?} where {outputs:?} x {inputs} is expected",
            self.path.display(),
            raw.shape
        );
        Ok(raw)
    }

    /// A vector of `len` numbers.
    ///
    /// # Errors
    /// If it is missing or of another length.
    pub fn vector(&self, name: &str, len: usize) -> anyhow::Result<Vec<f32>> {
        let vector = self.read(name)?.to_f32()?;
        ensure!(
            vector.len() == len,
            "{name} in {} has {} numbers where {len} are expected",
            self.path.display(),
            vector.len()
        );
        Ok(vector)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        if self.is_gguf {
            return self.tensors.get(name);
        }
        self.tensors.get(&hugging_face_name(name, self.config.family)?)
    }

    fn read(&self, name: &str) -> anyhow::Result<Raw<'_>> {
        let entry = self.entry(name).with_context(|| {
            format!(
                "{} has no tensor {name}, or one of a type that is not known",
                self.path.display()
            )
        })?;
        let bytes = self.files[entry.file].get(entry.bytes.clone());
        Ok(Raw {
            kind: entry.kind,
            shape: &entry.shape,
            bytes: bytes.with_context(|| format!("{} is cut short", self.path.display()))?,
            is_gguf: self.is_gguf,
        })
    }
}

fn map(path: &Path) -> anyhow::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: a file that someone changes while it is mapped is out of our hands, as for every user of mmap.
    Ok(unsafe { Mmap::map(&file)? })
}

/// What Hugging Face calls the tensor that GGUF calls `name`.
fn hugging_face_name(name: &str, family: Family) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(whole.into());
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.split_once('.')?;
    let gemma = family == Family::Gemma3;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "post_attention_norm" => "post_attention_layernorm",
        "ffn_norm" if gemma => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "post_ffw_norm" => "post_feedforward_layernorm",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}
