//! Where weights come from: a GGUF file, or a Hugging Face folder with `config.json` and safetensors.

use crate::config::{Config, Family};
use anyhow::{Context, bail};
use candle_core::quantized::{QTensor, gguf_file};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// A matrix as the file has it.
pub enum Raw {
    /// Blocks of GGUF; also its f32 and f16 tensors.
    Quantized(QTensor),
    /// A tensor of a safetensors file.
    Dense(Tensor),
}

/// An open model. Tensors go by their GGUF names.
pub struct Source {
    path: PathBuf,
    config: Config,
    file: Container,
}

enum Container {
    Gguf(Box<gguf_file::Content>, BufReader<File>),
    Safetensors(MmapedSafetensors),
}

impl Source {
    /// Opens a GGUF file or a folder.
    ///
    /// # Errors
    /// If it can't be read or is no model that we compute.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut source = if path.is_dir() {
            Self::open_folder(path)
        } else {
            Self::open_gguf(path)
        }
        .with_context(|| format!("cannot load the model {}", path.display()))?;
        if let Some(divisors) = source.vector_if_any("rope_freqs.weight")? {
            source.config.divide_rope(&divisors)?;
        }
        Ok(source)
    }

    fn open_gguf(path: &Path) -> anyhow::Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let content = gguf_file::Content::read(&mut file).context("not a GGUF file, or cut short")?;
        let config = Config::from_gguf(&content)?;
        Ok(Self {
            path: path.into(),
            config,
            file: Container::Gguf(Box::new(content), file),
        })
    }

    fn open_folder(path: &Path) -> anyhow::Result<Self> {
        let json = std::fs::read(path.join("config.json")).context("no readable config.json")?;
        let config = Config::from_json(&serde_json::from_slice(&json).context("config.json is not JSON")?)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "safetensors")
            {
                files.push(file);
            }
        }
        if files.is_empty() {
            bail!("there is no .safetensors file in the folder");
        }
        files.sort();
        // SAFETY: a file that someone changes while it is mapped is out of our hands, as for every user of mmap.
        let tensors = unsafe { MmapedSafetensors::multi(&files)? };
        Ok(Self {
            path: path.into(),
            config,
            file: Container::Safetensors(tensors),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        matches!(self.file, Container::Gguf(..))
    }

    /// The type of a safetensors file's numbers.
    pub fn dtype(&self) -> Option<DType> {
        match &self.file {
            Container::Gguf(..) => None,
            Container::Safetensors(tensors) => tensors.get("model.norm.weight").ok()?.dtype().try_into().ok(),
        }
    }

    /// Whether the tensor is there.
    pub fn has(&self, name: &str) -> bool {
        match &self.file {
            Container::Gguf(content, _) => content.tensor_infos.contains_key(name),
            Container::Safetensors(tensors) => {
                hugging_face_name(name, self.config.family).is_some_and(|name| tensors.get(&name).is_ok())
            }
        }
    }

    /// A matrix of `outputs` rows and `inputs` columns, on `device`.
    ///
    /// # Errors
    /// If it is missing, cut short or of another shape.
    pub fn matrix(
        &mut self,
        name: &str,
        shape: (Option<usize>, usize),
        device: &Device,
    ) -> anyhow::Result<Raw> {
        let raw = self.read(name, device)?;
        let dims = match &raw {
            Raw::Quantized(tensor) => tensor.shape().dims2()?,
            Raw::Dense(tensor) => tensor.dims2()?,
        };
        if dims.1 != shape.1 || shape.0.is_some_and(|outputs| outputs != dims.0) {
            bail!(
                "{name} in {} is {dims:?} where {shape:?} is expected",
                self.path.display()
            );
        }
        Ok(raw)
    }

    /// A vector of `len` numbers.
    ///
    /// # Errors
    /// If it is missing, cut short or of another length.
    pub fn vector(&mut self, name: &str, len: usize) -> anyhow::Result<Vec<f32>> {
        let tensor = match self.read(name, &Device::Cpu)? {
            Raw::Quantized(tensor) => tensor.dequantize(&Device::Cpu)?,
            Raw::Dense(tensor) => tensor,
        };
        let vector: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        if vector.len() != len {
            bail!(
                "{name} in {} has {} numbers where {len} are expected",
                self.path.display(),
                vector.len()
            );
        }
        Ok(vector)
    }

    fn vector_if_any(&mut self, name: &str) -> anyhow::Result<Option<Vec<f32>>> {
        let len = self.config.rope.len();
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    fn read(&mut self, name: &str, device: &Device) -> anyhow::Result<Raw> {
        let raw = match &mut self.file {
            Container::Gguf(content, file) => content.tensor(file, name, device).map(Raw::Quantized),
            Container::Safetensors(tensors) => match hugging_face_name(name, self.config.family) {
                Some(name) => tensors.load(&name, device).map(Raw::Dense),
                None => Err(candle_core::Error::Msg("it has no name in safetensors".into())),
            },
        };
        raw.with_context(|| {
            format!(
                "cannot read tensor {name} of {}: missing, or the file is cut short",
                self.path.display()
            )
        })
    }
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
