//! Which forward pass a model gets, and how it is served.

use crate::Forward;
use crate::forward_cpu::CpuForward;
use crate::forward_tensor::TensorForward;
use crate::linear::Kernel;
use crate::linear::tensor::Form;
use crate::source::Source;
use anyhow::Context;
use candle_core::{DType, Device};
use clap::ValueEnum;
use loadtest_shell::{Engine, EngineInfo, Rows};
use std::path::Path;

/// In which form weights are held and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightsForm {
    /// On the CPU affine8 for GGUF (quantized where the processor has neither AVX2 nor AVX-512) and dense for
    /// safetensors; on a GPU quantized for GGUF, dense for safetensors
    Auto,
    /// The file's quantised numbers repacked as bytes for integer products that grow with the batch (CPU)
    Affine8,
    /// The file's blocks as they are, by candle's QMatMul
    Quantized,
    /// All requantised to Q8_0, by candle's QMatMul
    Q8,
    /// Dense numbers: f32 on the CPU; on a GPU the type of a safetensors file, f16 for GGUF
    Dense,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// The processor
    Cpu,
    /// The first NVIDIA GPU (needs the feature `cuda`)
    Cuda,
    /// The Apple GPU (needs the feature `metal`)
    Metal,
}

/// How to load a model.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Form of the weights.
    pub weights: WeightsForm,
    /// Device.
    pub place: Place,
    /// Threads that compute on the CPU.
    pub threads: usize,
}

/// A loaded model.
pub struct Candle {
    forward: Box<dyn Forward>,
    info: EngineInfo,
}

impl Candle {
    /// Loads a GGUF file or a folder with safetensors; `name` is what it is served as.
    ///
    /// # Errors
    /// If the model can't be read, or the device or form can't be had.
    pub fn load(path: &Path, name: &str, options: Options) -> anyhow::Result<Self> {
        let device = match options.place {
            Place::Cpu => Device::Cpu,
            Place::Cuda => Device::new_cuda(0).context("--device cuda")?,
            Place::Metal => Device::new_metal(0).context("--device metal")?,
        };
        let mut source = Source::open(path)?;
        let kernel = Kernel::available()[0];
        let cpu = options.place == Place::Cpu;
        let weights = match options.weights {
            WeightsForm::Auto if !source.is_gguf() => WeightsForm::Dense,
            WeightsForm::Auto if cpu && !matches!(kernel, Kernel::Scalar) => WeightsForm::Affine8,
            WeightsForm::Auto => WeightsForm::Quantized,
            named => named,
        };
        anyhow::ensure!(cpu || weights != WeightsForm::Affine8, "--weights affine8 is for the CPU");
        let dense = match (cpu, source.dtype()) {
            (true, _) => DType::F32,
            (false, dtype) => dtype.unwrap_or(DType::F16),
        };
        let (forward, form): (Box<dyn Forward>, _) = match weights {
            WeightsForm::Affine8 => {
                (Box::new(CpuForward::load(&mut source, kernel, options.threads)?), format!("affine8 ({})", kernel.name()))
            }
            WeightsForm::Dense => {
                (Box::new(TensorForward::load(&mut source, Form::Dense(dense), &device)?), dense.as_str().into())
            }
            WeightsForm::Q8 => (Box::new(TensorForward::load(&mut source, Form::Q8, &device)?), "q8_0".into()),
            _ => (Box::new(TensorForward::load(&mut source, Form::Quantized, &device)?), "quantized".into()),
        };
        let info = EngineInfo {
            engine: "candle".into(),
            version: CANDLE_VERSION.into(),
            model: name.into(),
            weights: form,
            weights_bytes: forward.weights_bytes(),
            kv_bytes_per_token: forward.kv_bytes_per_token(),
            max_context: source.config().context,
            vocabulary: forward.vocabulary(),
            device: match options.place {
                Place::Cpu => "cpu".into(),
                Place::Cuda => "cuda:0".into(),
                Place::Metal => "metal".into(),
            },
            threads: if cpu { options.threads } else { 0 },
        };
        Ok(Self { forward, info })
    }
}

/// The version of candle-core in Cargo.toml.
const CANDLE_VERSION: &str = "0.11.1";

impl Engine for Candle {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn prepare(&mut self, parallel: usize, context: usize) -> anyhow::Result<()> {
        self.forward.prepare(parallel, context)
    }

    fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()> {
        self.forward.step(batch, logits)
    }

    fn free(&mut self, slot: usize) {
        self.forward.free(slot);
    }
}
