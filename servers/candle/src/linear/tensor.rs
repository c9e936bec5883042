//! Linear layers by candle's own products: dense, or on ggml's blocks.

use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use loadtest_weights::tensor::{Kind, Raw};
use loadtest_weights::weights::Build;

/// How the weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the blocks of the file; dense tensors become Q8_0.
    Quantized,
    /// All requantised to Q8_0, which has the fastest of ggml's kernels.
    Q8,
    /// As numbers of this type.
    Dense(DType),
}

/// One matrix after another, their outputs side by side.
pub struct Linear {
    parts: Vec<Part>,
    bias: Option<Tensor>,
}

enum Part {
    /// `outputs` x `inputs`, as in the file.
    Dense(Tensor),
    Quantized(QMatMul),
}

impl Linear {
    /// `x * w` for all rows of `x`, in f32.
    ///
    /// # Errors
    /// If a width does not fit or the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let products: Vec<Tensor> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Dense(weights) => x
                    .to_dtype(weights.dtype())?
                    .matmul(&weights.t()?)?
                    .to_dtype(DType::F32),
                Part::Quantized(weights) => weights.forward(x),
            })
            .collect::<Result<_>>()?;
        let product = if products.len() == 1 {
            products[0].clone()
        } else {
            Tensor::cat(&products, 1)?
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    /// The matrix's rows `ids`, in f32: an embedding.
    ///
    /// # Errors
    /// If there is no such row or the device fails.
    pub fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.parts[0] {
            Part::Dense(weights) => weights.index_select(ids, 0)?.to_dtype(DType::F32),
            Part::Quantized(weights) => weights.embedding(ids)?.to_dtype(DType::F32),
        }
    }

    /// Memory that the weights take.
    pub fn bytes(&self) -> u64 {
        let dense = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let bytes = self.parts.iter().map(|part| match part {
            Part::Dense(weights) => dense(weights),
            Part::Quantized(QMatMul::QTensor(weights)) => weights.storage_size_in_bytes(),
            Part::Quantized(QMatMul::Tensor(weights) | QMatMul::TensorF16(weights)) => dense(weights),
        });
        bytes.sum::<usize>() as u64
    }
}

/// Makes [`Linear`]s of one form on one device.
pub struct Linears {
    /// How the weights are held.
    pub form: Form,
    /// And where.
    pub device: Device,
}

impl Build for Linears {
    type Matrix = Linear;

    fn matrix(&mut self, parts: &[Raw<'_>], bias: Option<Vec<f32>>) -> anyhow::Result<Linear> {
        let mut linear = Linear {
            parts: Vec::new(),
            bias: None,
        };
        for raw in parts {
            linear.parts.push(self.part(raw)?);
        }
        linear.bias = bias.map(|bias| Tensor::new(bias, &self.device)).transpose()?;
        Ok(linear)
    }
}

impl Linears {
    fn part(&self, raw: &Raw<'_>) -> Result<Part> {
        let quantized = match self.form {
            Form::Dense(dtype) => return Ok(Part::Dense(dense(raw, &self.device)?.to_dtype(dtype)?)),
            Form::Quantized => quantised(raw, &self.device)?,
            Form::Q8 => QTensor::quantize(&dense(raw, &self.device)?.to_dtype(DType::F32)?, GgmlDType::Q8_0)?,
        };
        Ok(Part::Quantized(QMatMul::from_qtensor(quantized)?))
    }
}

/// What candle calls each kind of block or, in GGUF, of number.
const TYPES: [(Kind, GgmlDType); 13] = [
    (Kind::F32, GgmlDType::F32),
    (Kind::F16, GgmlDType::F16),
    (Kind::BF16, GgmlDType::BF16),
    (Kind::Q4_0, GgmlDType::Q4_0),
    (Kind::Q4_1, GgmlDType::Q4_1),
    (Kind::Q5_0, GgmlDType::Q5_0),
    (Kind::Q5_1, GgmlDType::Q5_1),
    (Kind::Q8_0, GgmlDType::Q8_0),
    (Kind::Q2_K, GgmlDType::Q2K),
    (Kind::Q3_K, GgmlDType::Q3K),
    (Kind::Q4_K, GgmlDType::Q4K),
    (Kind::Q5_K, GgmlDType::Q5K),
    (Kind::Q6_K, GgmlDType::Q6K),
];

/// What a type of candle's is called in files.
pub fn kind(dtype: GgmlDType) -> Option<Kind> {
    Some(TYPES.iter().find(|(_, of_candle)| *of_candle == dtype)?.0)
}

/// The tensor in ggml's blocks: those of a GGUF file as they are, a safetensors file's numbers as Q8_0.
///
/// # Errors
/// If it has no such form.
pub fn quantised(raw: &Raw<'_>, device: &Device) -> Result<QTensor> {
    if !raw.is_gguf {
        return QTensor::quantize(&dense(raw, device)?.to_dtype(DType::F32)?, GgmlDType::Q8_0);
    }
    let (_, dtype) = TYPES
        .into_iter()
        .find(|(kind, _)| *kind == raw.kind)
        .expect("the table has every kind");
    // candle takes the bytes for blocks where they are; a file may have them at any address, memory of its own is aligned.
    let aligned = raw.bytes.to_vec();
    qtensor_from_ggml(dtype, &aligned, raw.shape.to_vec(), device)
}

/// The tensor's numbers; those of a safetensors file in its type.
fn dense(raw: &Raw<'_>, device: &Device) -> Result<Tensor> {
    let dtype = match raw.kind {
        _ if raw.is_gguf => return quantised(raw, device)?.dequantize(device),
        Kind::F16 => DType::F16,
        Kind::BF16 => DType::BF16,
        _ => DType::F32,
    };
    Tensor::from_raw_buffer(raw.bytes, dtype, raw.shape, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_as_candle_dequantises_it() {
        let source = Tensor::randn(0f32, 1.0, (3, 512), &Device::Cpu).unwrap();
        for (kind, dtype) in TYPES {
            if matches!(kind, Kind::Q2_K | Kind::Q3_K) {
                continue; // left to candle
            }
            let quantised = QTensor::quantize(&source, dtype).unwrap();
            let expected = quantised.dequantize(&Device::Cpu).unwrap();
            let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
            let raw = Raw {
                kind,
                shape: &[3, 512],
                bytes: &quantised.data().unwrap(),
                is_gguf: true,
            };
            let numbers = raw.to_f32().unwrap();
            assert_eq!(numbers.len(), expected.len());
            for (i, (ours, theirs)) in numbers.iter().zip(&expected).enumerate() {
                assert!((ours - theirs).abs() <= 1e-5, "{kind:?} {i}: {ours} {theirs}");
            }
            let again = super::quantised(&raw, &Device::Cpu).unwrap();
            assert_eq!(
                (again.dtype(), again.data().unwrap()),
                (dtype, quantised.data().unwrap())
            );
        }
    }
}
