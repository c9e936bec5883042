//! Linear layers by candle's own products: dense, or on ggml's blocks.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use crate::source::Raw;
use crate::weights::Build;

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

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn matrix(&mut self, parts: Vec<Raw>, bias: Option<Vec<f32>>) -> anyhow::Result<Linear> {
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
    fn part(&self, raw: Raw) -> Result<Part> {
        let dense = |raw: &Raw| match raw {
            Raw::Quantized(tensor) => tensor.dequantize(&self.device),
            Raw::Dense(tensor) => Ok(tensor.clone()),
        };
        let quantized = match (self.form, raw) {
            (Form::Dense(dtype), raw) => return Ok(Part::Dense(dense(&raw)?.to_dtype(dtype)?)),
            (Form::Quantized, Raw::Quantized(tensor)) => tensor,
            (_, raw) => QTensor::quantize(&dense(&raw)?.to_dtype(DType::F32)?, GgmlDType::Q8_0)?,
        };
        Ok(Part::Quantized(QMatMul::from_qtensor(quantized)?))
    }
}
