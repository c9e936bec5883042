//! Which forward pass a model gets, and how it is served.

use crate::Forward;
use crate::forward_cpu::CpuForward;
use crate::forward_tensor::TensorForward;
use crate::linear::Kernel;
use crate::linear::tensor::Form;
use anyhow::{Context, bail, ensure};
use candle_core::{DType, Device, DeviceLocation};
use loadtest_shell::{Engine, EngineInfo, Rows, ServeArgs};
use loadtest_weights::source::Source;
use loadtest_weights::tensor::Kind;
use std::path::Path;
use std::str::FromStr;

/// In which form weights are held and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsForm {
    /// On the CPU affine8 for GGUF (quantized where the processor has neither AVX2 nor AVX-512) and dense for
    /// safetensors; on a GPU quantized for GGUF, dense for safetensors.
    Auto,
    /// The file's quantised numbers repacked as bytes for integer products that grow with the batch (CPU).
    Affine8,
    /// The file's blocks as they are, by candle's `QMatMul`.
    Quantized,
    /// All requantised to Q8_0, by candle's `QMatMul`.
    Q8,
    /// Dense numbers.
    Dense,
}

impl FromStr for WeightsForm {
    type Err = anyhow::Error;

    fn from_str(form: &str) -> anyhow::Result<Self> {
        Ok(match form {
            "auto" => Self::Auto,
            "affine8" => Self::Affine8,
            "quantized" => Self::Quantized,
            "q8" => Self::Q8,
            "dense" => Self::Dense,
            other => bail!("--weights {other}: auto, affine8, quantized, q8 or dense is expected"),
        })
    }
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Options {
    /// Form of the weights.
    pub weights: WeightsForm,
    /// Type of dense weights; by default f32 on the CPU, on a GPU the file's (f16 for GGUF).
    pub dtype: Option<DType>,
    /// Device.
    pub device: Device,
    /// Threads that compute on the CPU.
    pub threads: usize,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// If a value is unknown or the device is not there; the message names the flag.
    pub fn new(args: &ServeArgs) -> anyhow::Result<Self> {
        let dtype = match args.dtype.as_deref() {
            None => None,
            Some("f32") => Some(DType::F32),
            Some("f16") => Some(DType::F16),
            Some("bf16") => Some(DType::BF16),
            Some(other) => bail!("--dtype {other}: f32, f16 or bf16 is expected"),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            weights: args.weights.parse()?,
            dtype,
            device: device(&args.device).with_context(|| format!("--device {}", args.device))?,
            threads: args.threads.unwrap_or_else(cores),
        })
    }
}

fn device(name: &str) -> anyhow::Result<Device> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index = index
        .parse()
        .context("the part behind the colon must be a number")?;
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" if cfg!(feature = "cuda") => Ok(Device::new_cuda(index)?),
        "metal" if cfg!(feature = "metal") => Ok(Device::new_metal(index)?),
        "cuda" | "metal" => bail!("this server was built without the feature {kind}"),
        _ => bail!("cpu, cuda, cuda:N or metal is expected"),
    }
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
        let Options { device, threads, .. } = &options;
        let (source, cpu) = (Source::open(path)?, device.is_cpu());
        let kernel = Kernel::available()[0];
        let weights = match options.weights {
            WeightsForm::Auto if options.dtype.is_some() || !source.is_gguf() => WeightsForm::Dense,
            WeightsForm::Auto if cpu && !matches!(kernel, Kernel::Scalar) => WeightsForm::Affine8,
            WeightsForm::Auto => WeightsForm::Quantized,
            named => named,
        };
        ensure!(
            cpu || weights != WeightsForm::Affine8,
            "--weights affine8 is for --device cpu"
        );
        ensure!(
            weights == WeightsForm::Dense || options.dtype.is_none(),
            "--dtype is for --weights dense"
        );
        let dense = options.dtype.unwrap_or(match cpu {
            true => DType::F32,
            false => match source.dtype() {
                Some(Kind::F32) => DType::F32,
                Some(Kind::BF16) => DType::BF16,
                _ => DType::F16,
            },
        });
        let (forward, form): (Box<dyn Forward>, _) = match weights {
            WeightsForm::Affine8 => (
                Box::new(CpuForward::load(&source, kernel, *threads)?),
                format!("affine8 ({})", kernel.name()),
            ),
            WeightsForm::Dense => (
                Box::new(TensorForward::load(&source, Form::Dense(dense), device)?),
                dense.as_str().into(),
            ),
            WeightsForm::Q8 => (
                Box::new(TensorForward::load(&source, Form::Q8, device)?),
                "q8_0".into(),
            ),
            _ => (
                Box::new(TensorForward::load(&source, Form::Quantized, device)?),
                "quantized".into(),
            ),
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
            device: match device.location() {
                DeviceLocation::Cpu => "cpu".into(),
                DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
                DeviceLocation::Metal { .. } => "metal".into(),
            },
            threads: if cpu { *threads } else { 0 },
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
