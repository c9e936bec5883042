//! Where a model is computed, and how it is served.

use crate::forward::Model;
use anyhow::{Context, bail, ensure};
use burn_tensor::{Device, FloatDType};
use loadtest_shell::{Engine, EngineInfo, Rows, ServeArgs};
use loadtest_weights::source::Source;
use loadtest_weights::tensor::Kind;
use std::path::Path;

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Options {
    /// Type of the weights; by default f32 on the CPU, on a GPU the file's (f16 for GGUF).
    pub dtype: Option<FloatDType>,
    /// Device: `cpu`, `cuda`, `cuda:N`, `metal`, `vulkan` or `webgpu`.
    pub device: String,
    /// Threads that compute on the CPU.
    pub threads: usize,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// If a value is unknown; the message names the flag.
    pub fn new(args: &ServeArgs) -> anyhow::Result<Self> {
        let dtype = match args.dtype.as_deref() {
            None => None,
            Some("f32") => Some(FloatDType::F32),
            Some("f16") => Some(FloatDType::F16),
            Some("bf16") => Some(FloatDType::BF16),
            Some(other) => bail!("--dtype {other}: f32, f16 or bf16 is expected"),
        };
        let weights = &args.weights;
        ensure!(
            weights == "auto" || weights == "dense",
            "--weights {weights}: auto or dense is expected; burn computes with dense weights"
        );
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            dtype,
            device: args.device.clone(),
            threads: args.threads.unwrap_or_else(cores),
        })
    }
}

fn device(name: &str) -> anyhow::Result<Device> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index: usize = index
        .parse()
        .context("the part behind the colon must be a number")?;
    ensure!(index == 0 || kind == "cuda", "only cuda takes a number");
    Ok(match kind {
        "cpu" => Device::flex(),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(index),
        #[cfg(feature = "metal")]
        "metal" => Device::metal(Default::default()),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(Default::default()),
        #[cfg(feature = "webgpu")]
        "webgpu" => Device::webgpu(Default::default()),
        _ if ["cuda", "metal", "vulkan", "webgpu"].contains(&kind) => {
            bail!("this server was built without the feature {kind}")
        }
        _ => bail!("cpu, cuda, cuda:N, metal, vulkan or webgpu is expected"),
    })
}

/// A loaded model.
pub struct Burn {
    model: Model,
    info: EngineInfo,
}

impl Burn {
    /// Loads a GGUF file or a folder with safetensors; `name` is what it is served as.
    ///
    /// # Errors
    /// If the model can't be read or the device can't be had.
    pub fn load(path: &Path, name: &str, options: &Options) -> anyhow::Result<Self> {
        let cpu = options.device == "cpu";
        let device = device(&options.device).with_context(|| format!("--device {}", options.device))?;
        let source = Source::open(path)?;
        let dtype = options.dtype.unwrap_or(match source.dtype() {
            _ if cpu => FloatDType::F32,
            Some(Kind::F32) => FloatDType::F32,
            Some(Kind::BF16) => FloatDType::BF16,
            _ => FloatDType::F16,
        });
        let threads = if cpu { rayon::current_num_threads() } else { 1 };
        let model = Model::load(&source, dtype, &device, threads)?;
        let info = EngineInfo {
            engine: "burn".into(),
            version: BURN_VERSION.into(),
            model: name.into(),
            weights: format!("{dtype:?}").to_lowercase(),
            weights_bytes: model.weights_bytes(),
            kv_bytes_per_token: model.kv_bytes_per_token(),
            max_context: source.config().context,
            vocabulary: model.vocabulary(),
            device: options.device.clone(),
            threads: if cpu { options.threads } else { 0 },
        };
        Ok(Self { model, info })
    }
}

/// The version of burn-tensor in Cargo.lock.
const BURN_VERSION: &str = "0.22.1";

impl Engine for Burn {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn prepare(&mut self, parallel: usize, context: usize) -> anyhow::Result<()> {
        self.model.prepare(parallel, context);
        Ok(())
    }

    fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()> {
        self.model.step(batch, logits)
    }

    fn free(&mut self, slot: usize) {
        self.model.free(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_told_is_the_one_that_computes() {
        let lock = include_str!("../Cargo.lock");
        let locked = format!("name = \"burn-tensor\"\nversion = \"{BURN_VERSION}\"\n");
        assert!(lock.contains(&locked));
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        for (name, message) in [("tpu", "cpu, cuda"), ("cpu:1", "only cuda"), ("cuda:x", "number")] {
            let error = device(name).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
