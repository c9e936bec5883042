//! Linear layers: where the time goes.

use burn_tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use loadtest_weights::config::{Config, Pairs};
use loadtest_weights::tensor::Raw;
use loadtest_weights::weights::Build;

/// A matrix on a device, perhaps put together from several (query, key and value).
pub struct Linear {
    /// `inputs` x `outputs`: gemm reads a matrix where it lies if its outputs do so side by side, and copies it otherwise.
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    dtype: FloatDType,
}

impl Linear {
    /// `x * w` for all rows of `x`, in f32.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.clone();
        let product = match self.dtype {
            FloatDType::F32 => x.matmul(weight),
            dtype => x.cast(dtype).matmul(weight).cast(FloatDType::F32),
        };
        match &self.bias {
            Some(bias) => product + bias.clone().unsqueeze(),
            None => product,
        }
    }

    /// What belongs to the outputs `ids`, a row for each, in f32: an embedding.
    pub fn rows(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let rows = self.weight.clone().select(1, ids).transpose();
        match self.dtype {
            FloatDType::F32 => rows,
            _ => rows.cast(FloatDType::F32),
        }
    }

    /// Memory that the weights take.
    pub fn bytes(&self) -> u64 {
        (self.weight.shape().num_elements() * DType::from(self.dtype).size()) as u64
    }

    /// Puts the numbers that the rotary embedding turns together half a head apart, in the first `heads` heads of the
    /// outputs, so that all models turn alike; scores stay the same if queries and keys are both put so.
    pub fn part_pairs(&mut self, heads: usize, head_dim: usize) {
        let weight = self.weight.clone().transpose();
        let [outputs, inputs] = weight.dims();
        let turned = heads * head_dim;
        let parted = |rows: Tensor<2>, inputs: usize| {
            let pairs = rows.reshape([heads, head_dim / 2, 2, inputs]);
            pairs.swap_dims(1, 2).reshape([turned, inputs])
        };
        let rest = |matrix: Tensor<2>| matrix.slice(turned..outputs);
        self.weight = side_by_side(Tensor::cat(
            vec![parted(weight.clone().slice(0..turned), inputs), rest(weight)],
            0,
        ));
        self.bias = self.bias.take().map(|bias| {
            let bias = bias.unsqueeze_dim::<2>(1);
            let bias = vec![parted(bias.clone().slice(0..turned), 1), rest(bias)];
            Tensor::cat(bias, 0).squeeze_dim(1)
        });
    }
}

/// Makes [`Linear`]s on one device.
pub struct Linears {
    /// Type of the weights.
    pub dtype: FloatDType,
    /// Where they are.
    pub device: Device,
}

impl Build for Linears {
    type Matrix = Linear;

    fn matrix(&mut self, parts: &[Raw<'_>], bias: Option<Vec<f32>>) -> anyhow::Result<Linear> {
        let outputs = parts.iter().map(|raw| raw.shape[0]).sum::<usize>();
        let mut numbers = Vec::with_capacity(outputs * parts[0].shape[1]);
        for raw in parts {
            numbers.extend(raw.to_f32()?);
        }
        let weight = TensorData::new(numbers, [outputs, parts[0].shape[1]]);
        Ok(Linear {
            weight: side_by_side(Tensor::from_data(weight, (&self.device, DType::from(self.dtype)))),
            bias: bias.map(|bias| self.vector(bias)),
            dtype: self.dtype,
        })
    }
}

/// `outputs` x `inputs`, as in the file, into `inputs` x `outputs`, in memory too.
fn side_by_side(weight: Tensor<2>) -> Tensor<2> {
    let [outputs, inputs] = weight.dims();
    // What is not in one piece is copied when it gets another shape.
    let flat: Tensor<1> = weight.transpose().reshape([inputs * outputs]);
    flat.reshape([inputs, outputs])
}

impl Linears {
    /// A vector of f32 on the device.
    pub fn vector(&self, numbers: Vec<f32>) -> Tensor<1> {
        let len = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [len]), (&self.device, DType::F32))
    }
}

/// Heads of query and key whose pairs have to be parted first: none if they are already.
pub fn heads_to_part(config: &Config) -> Option<usize> {
    (config.pairs == Pairs::Adjacent).then_some(config.heads + config.kv_heads)
}
