//! The forward pass in candle's tensors: on any device, with weights in any form.

use crate::Forward;
use crate::linear::tensor::{Form, Linear, Linears};
use candle_core::{D, DType, Device, Result, Tensor};
use loadtest_shell::{Rows, check_batch};
use loadtest_weights::config::{Activation, Config, Pairs};
use loadtest_weights::rope::Rope;
use loadtest_weights::source::Source;
use loadtest_weights::weights::{Layer, Weights};

/// A model on a device, in candle's tensors.
pub struct TensorForward {
    config: Config,
    weights: Weights<Linear>,
    norms: Vec<Norms>,
    norm: Tensor,
    rope: Vec<[Tensor; 2]>,
    slots: Vec<Slot>,
    context: usize,
    device: Device,
}

/// A layer's norms on the device.
struct Norms {
    attention: Tensor,
    query: Option<Tensor>,
    key: Option<Tensor>,
    attention_post: Option<Tensor>,
    ffn: Tensor,
    ffn_post: Option<Tensor>,
}

/// A sequence's memory: keys and values of each layer, `kv_heads x context x head_dim`. On the CPU, the system puts
/// memory behind them as positions are first written.
struct Slot {
    len: usize,
    layers: Vec<[Tensor; 2]>,
}

impl TensorForward {
    /// Loads the weights in a form onto a device.
    ///
    /// # Errors
    /// If a tensor is missing or the device has no such memory.
    pub fn load(source: &Source, form: Form, device: &Device) -> anyhow::Result<Self> {
        let weights = Weights::load(
            source,
            &mut Linears {
                form,
                device: device.clone(),
            },
        )?;
        Ok(Self {
            config: source.config().clone(),
            norms: weights
                .layers
                .iter()
                .map(|layer| Norms::new(layer, device))
                .collect::<Result<_>>()?,
            norm: Tensor::new(&weights.norm[..], device)?,
            weights,
            rope: Vec::new(),
            slots: Vec::new(),
            context: 0,
            device: device.clone(),
        })
    }

    fn layer(&mut self, index: usize, x: &Tensor, batch: &[Rows<'_>], positions: &Tensor) -> Result<Tensor> {
        let eps = self.config.norm_eps;
        let h = self.weights.layers[index]
            .qkv
            .forward(&rms_norm(x, &self.norms[index].attention, eps)?)?;
        let h = self.attention(index, &h, batch, positions)?;
        let (layer, norms) = (&self.weights.layers[index], &self.norms[index]);
        let x = (x + normed(
            layer.attention_output.forward(&h)?,
            norms.attention_post.as_ref(),
            eps,
        )?)?;
        let h = layer.gate_up.forward(&rms_norm(&x, &norms.ffn, eps)?)?;
        let (gate, up) = (
            h.narrow(1, 0, self.config.ffn)?,
            h.narrow(1, self.config.ffn, self.config.ffn)?,
        );
        let gate = match self.config.activation {
            Activation::Silu => gate.contiguous()?.silu()?,
            Activation::Gelu => gate.contiguous()?.gelu()?,
        };
        let h = layer.down.forward(&(gate * up)?)?;
        x + normed(h, norms.ffn_post.as_ref(), eps)?
    }

    fn attention(
        &mut self,
        index: usize,
        qkv: &Tensor,
        batch: &[Rows<'_>],
        positions: &Tensor,
    ) -> Result<Tensor> {
        let Self {
            config,
            norms,
            rope,
            slots,
            ..
        } = self;
        let (query_width, kv_width, eps) = (config.query_width(), config.kv_width(), config.norm_eps);
        let heads = |from: usize, heads: usize| {
            qkv.narrow(1, from, heads * config.head_dim)?
                .contiguous()?
                .reshape(((), heads, config.head_dim))
        };
        let angles = &rope[usize::from(config.windowed[index])];
        let angles = [
            angles[0].index_select(positions, 0)?,
            angles[1].index_select(positions, 0)?,
        ];
        let query = normed(heads(0, config.heads)?, norms[index].query.as_ref(), eps)?;
        let key = normed(
            heads(query_width, config.kv_heads)?,
            norms[index].key.as_ref(),
            eps,
        )?;
        let query = (rotate(&query, &angles, config.pairs)? * f64::from(config.query_scale))?;
        let key = rotate(&key, &angles, config.pairs)?;
        let value = heads(query_width + kv_width, config.kv_heads)?;
        let (mut first, mut results) = (0, Vec::with_capacity(batch.len()));
        for rows in batch {
            let n = rows.tokens.len();
            let memory = &slots[rows.slot].layers[index];
            for (memory, new) in memory.iter().zip([&key, &value]) {
                memory.slice_set(
                    &new.narrow(0, first, n)?.transpose(0, 1)?.contiguous()?,
                    1,
                    rows.position,
                )?;
            }
            results.push(attend(
                config,
                index,
                &query.narrow(0, first, n)?,
                memory,
                rows.position,
            )?);
            first += n;
        }
        Tensor::cat(&results, 0)
    }

    /// Memory for one sequence of up to `context` positions.
    fn slot(&self, context: usize) -> Result<Slot> {
        let shape = (self.config.kv_heads, context, self.config.head_dim);
        let empty = || Tensor::zeros(shape, DType::F32, &self.device);
        let layers = (0..self.config.layers).map(|_| Ok([empty()?, empty()?]));
        Ok(Slot {
            len: 0,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    fn logits(&self, x: &Tensor, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> Result<()> {
        let ends = batch.iter().scan(0, |end, rows| {
            *end += rows.tokens.len() as u32;
            Some((*end - 1, rows.logits))
        });
        let wanted: Vec<u32> = ends.filter(|end| end.1).map(|end| end.0).collect();
        if !wanted.is_empty() {
            let x = x.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
            let x = self
                .weights
                .output()
                .forward(&rms_norm(&x, &self.norm, self.config.norm_eps)?)?;
            *logits = x.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }
}

impl Forward for TensorForward {
    fn vocabulary(&self) -> usize {
        self.weights.vocabulary
    }

    fn weights_bytes(&self) -> u64 {
        self.weights.matrices().map(Linear::bytes).sum()
    }

    fn kv_bytes_per_token(&self) -> u64 {
        (self.config.layers * 2 * self.config.kv_width() * size_of::<f32>()) as u64
    }

    fn prepare(&mut self, parallel: usize, context: usize) -> anyhow::Result<()> {
        self.slots = (0..parallel).map(|_| self.slot(context)).collect::<Result<_>>()?;
        self.context = context;
        let tables = [&self.config.rope, &self.config.local_rope]
            .into_iter()
            .map(|frequencies| {
                let rope = Rope::new(frequencies, context);
                let (cos, sin) = rope.table();
                let shape = (context, 1, frequencies.len());
                Ok([
                    Tensor::from_slice(cos, shape, &self.device)?,
                    Tensor::from_slice(sin, shape, &self.device)?,
                ])
            });
        self.rope = tables.collect::<Result<_>>()?;
        Ok(())
    }

    fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()> {
        logits.clear();
        check_batch(batch, self.context, self.weights.vocabulary, |slot| {
            Some(self.slots.get(slot)?.len)
        })?;
        for rows in batch {
            self.slots[rows.slot].len = rows.position + rows.tokens.len();
        }
        let tokens: Vec<u32> = batch.iter().flat_map(|rows| rows.tokens).copied().collect();
        let positions = batch
            .iter()
            .flat_map(|rows| (rows.position..).take(rows.tokens.len()));
        let positions: Vec<u32> = positions.map(|position| position as u32).collect();
        let positions = Tensor::new(positions, &self.device)?;
        let x = self.weights.embedding.rows(&Tensor::new(tokens, &self.device)?)?;
        let mut x = (x * f64::from(self.config.embedding_scale))?;
        for index in 0..self.config.layers {
            x = self.layer(index, &x, batch, &positions)?;
        }
        self.logits(&x, batch, logits)?;
        Ok(())
    }

    fn free(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.len = 0;
        }
    }
}

impl Norms {
    fn new(layer: &Layer<Linear>, device: &Device) -> Result<Self> {
        let tensor = |weights: &Vec<f32>| Tensor::new(&weights[..], device);
        let optional = |weights: &Option<Vec<f32>>| weights.as_ref().map(tensor).transpose();
        Ok(Self {
            attention: tensor(&layer.attention_norm)?,
            query: optional(&layer.query_norm)?,
            key: optional(&layer.key_norm)?,
            attention_post: optional(&layer.attention_post_norm)?,
            ffn: tensor(&layer.ffn_norm)?,
            ffn_post: optional(&layer.ffn_post_norm)?,
        })
    }
}

fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + f64::from(eps))?.sqrt()?)?
        .broadcast_mul(weight)
}

fn normed(x: Tensor, weight: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    weight.map_or(Ok(x.clone()), |weight| rms_norm(&x, weight, eps))
}

/// Turns all heads (`rows x heads x head_dim`) by the angles of their rows.
fn rotate(x: &Tensor, [cos, sin]: &[Tensor; 2], pairs: Pairs) -> Result<Tensor> {
    let (rows, heads, dim) = x.dims3()?;
    let turned = |a: Tensor, b: Tensor| -> Result<[Tensor; 2]> {
        let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
        Ok([first, (a.broadcast_mul(sin)? + b.broadcast_mul(cos)?)?])
    };
    match pairs {
        Pairs::Adjacent => {
            let x = x.reshape((rows, heads, dim / 2, 2))?;
            let part = |index| x.narrow(3, index, 1)?.squeeze(3);
            Tensor::stack(&turned(part(0)?, part(1)?)?, 3)?.reshape((rows, heads, dim))
        }
        Pairs::Halves => Tensor::cat(
            &turned(x.narrow(2, 0, dim / 2)?, x.narrow(2, dim / 2, dim / 2)?)?,
            2,
        ),
    }
}

/// Attention of one sequence's rows, the first at `position`, over what it remembers.
fn attend(
    config: &Config,
    layer: usize,
    query: &Tensor,
    memory: &[Tensor; 2],
    position: usize,
) -> Result<Tensor> {
    let (rows, heads, dim) = query.dims3()?;
    let (kv_heads, group, end) = (config.kv_heads, heads / config.kv_heads, position + rows);
    let window = config.window_of(layer).unwrap_or(usize::MAX);
    let start = (position + 1).saturating_sub(window);
    let [keys, values] = memory;
    let keys = keys.narrow(1, start, end - start)?.contiguous()?;
    let values = values.narrow(1, start, end - start)?.contiguous()?;
    let query = query
        .reshape((rows, kv_heads, group, dim))?
        .permute((1, 2, 0, 3))?
        .contiguous()?;
    let scores = query.reshape((kv_heads, group * rows, dim))?.matmul(&keys.t()?)?;
    let mut scores = scores.reshape((kv_heads, group, rows, end - start))?;
    if rows > 1 {
        let seen = |row: usize, key: usize| key <= position + row && position + row - key < window;
        let mask = (0..rows).flat_map(|row| {
            (start..end).map(move |key| if seen(row, key) { 0.0 } else { f32::NEG_INFINITY })
        });
        let mask = Tensor::from_vec(mask.collect::<Vec<f32>>(), (rows, end - start), scores.device())?;
        scores = scores.broadcast_add(&mask)?;
    }
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let result = weights
        .reshape((kv_heads, group * rows, end - start))?
        .matmul(&values)?;
    result
        .reshape((kv_heads, group, rows, dim))?
        .permute((2, 0, 1, 3))?
        .contiguous()?
        .reshape((rows, heads * dim))
}
