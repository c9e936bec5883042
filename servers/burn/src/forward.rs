//! The forward pass, in burn's tensors.

use crate::attention::{Cache, Sees};
use crate::groups::{Group, groups, order};
use crate::linear::{Linear, Linears, heads_to_part};
use anyhow::Context;
use burn_tensor::activation::{gelu_approximate, silu};
use burn_tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use loadtest_shell::{Rows, check_batch};
use loadtest_weights::config::{Activation, Config};
use loadtest_weights::rope::Rope;
use loadtest_weights::source::Source;
use loadtest_weights::weights::{Layer, Weights};
use rayon::prelude::*;
use std::ops::Range;

/// A part of the rows has at least so many, but for the last.
const PART_ROWS: usize = 8;

/// A model on a device.
pub struct Model {
    config: Config,
    weights: Weights<Linear>,
    norms: Vec<Norms>,
    norm: Tensor<1>,
    caches: Vec<Cache>,
    /// Tokens that each slot holds.
    lens: Vec<usize>,
    /// Without and with a window.
    rope: [Rope; 2],
    context: usize,
    device: Device,
    /// Threads that compute side by side what burn gives one alone; 1 where it is not the processor that computes.
    threads: usize,
}

/// A layer's norms on the device.
struct Norms {
    attention: Tensor<1>,
    /// On the heads of query and key, `1 x heads x head_dim` (Gemma).
    heads: Option<Tensor<3>>,
    attention_post: Option<Tensor<1>>,
    ffn: Tensor<1>,
    ffn_post: Option<Tensor<1>>,
}

/// What all layers of a step share.
struct Step {
    groups: Vec<Group>,
    /// Where each row's key and value go.
    places: Tensor<1, Int>,
    /// For layers without and with a window: cosines and sines of each row, and what each group sees.
    kinds: [Option<(Angles, Vec<Sees>)>; 2],
}

/// `rows x 1 x head_dim`: `x * cos + swapped(x) * sin` turns a head, its halves swapped.
struct Angles {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Model {
    /// Loads the weights as numbers of a type onto a device, which may compute on several threads.
    ///
    /// # Errors
    /// If a tensor is missing or can't be read.
    pub fn load(source: &Source, dtype: FloatDType, device: &Device, threads: usize) -> anyhow::Result<Self> {
        let config = source.config().clone();
        let mut build = Linears {
            dtype,
            device: device.clone(),
        };
        let mut weights = Weights::load(source, &mut build)?;
        if let Some(heads) = heads_to_part(&config) {
            for layer in &mut weights.layers {
                layer.qkv.part_pairs(heads, config.head_dim);
            }
        }
        let norms = weights.layers.iter();
        Ok(Self {
            norms: norms.map(|layer| Norms::new(layer, &config, &build)).collect(),
            norm: build.vector(weights.norm.clone()),
            config,
            weights,
            caches: Vec::new(),
            lens: Vec::new(),
            rope: Default::default(),
            context: 0,
            device: device.clone(),
            threads,
        })
    }

    /// Entries of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.weights.vocabulary
    }

    /// Memory that the weights take.
    pub fn weights_bytes(&self) -> u64 {
        self.weights.matrices().map(Linear::bytes).sum()
    }

    /// KV memory that a position of a sequence takes.
    pub fn kv_bytes_per_token(&self) -> u64 {
        (self.config.layers * 2 * self.config.kv_width() * size_of::<f32>()) as u64
    }

    /// Makes room for `parallel` sequences of up to `context` tokens.
    pub fn prepare(&mut self, parallel: usize, context: usize) {
        self.caches.clear();
        let cache = |_| Cache::new(&self.config, parallel, context, &self.device);
        self.caches = (0..self.config.layers).map(cache).collect();
        self.lens = vec![0; parallel];
        self.rope =
            [&self.config.rope, &self.config.local_rope].map(|frequencies| Rope::new(frequencies, context));
        self.context = context;
    }

    /// Computes all rows of `batch`, and the logits that it wants.
    ///
    /// # Errors
    /// If a row does not continue its sequence, or the device does not give the logits.
    pub fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()> {
        logits.clear();
        check_batch(batch, self.context, self.weights.vocabulary, |slot| {
            self.lens.get(slot).copied()
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        let order = order(batch);
        let ordered = || order.iter().map(|&entry| &batch[entry]);
        let tokens: Vec<i32> = ordered()
            .flat_map(|rows| rows.tokens)
            .map(|&token| token as i32)
            .collect();
        let step = self.plan(batch, &order);
        for rows in batch {
            self.lens[rows.slot] = rows.position + rows.tokens.len();
        }
        let x = self.weights.embedding.rows(indices(tokens, &self.device));
        let mut x = match self.config.embedding_scale {
            1.0 => x,
            scale => x.mul_scalar(scale),
        };
        for index in 0..self.config.layers {
            x = self.layer(index, x, &step);
        }
        let mut ends = vec![0; batch.len()];
        let mut end = 0;
        for &entry in &order {
            end += batch[entry].tokens.len();
            ends[entry] = end as i32 - 1;
        }
        let wanted = ends.into_iter().zip(batch).filter(|(_, rows)| rows.logits);
        let wanted: Vec<i32> = wanted.map(|(end, _)| end).collect();
        if !wanted.is_empty() {
            let x = x.select(0, indices(wanted, &self.device));
            let x = rms_norm(x, self.norm.clone().unsqueeze(), self.config.norm_eps);
            let x = self.weights.output().forward(x);
            *logits = x
                .try_into_vec_as()
                .context("the device does not give the logits")?;
        }
        Ok(())
    }

    /// Forgets a sequence.
    pub fn free(&mut self, slot: usize) {
        if let Some(len) = self.lens.get_mut(slot) {
            *len = 0;
        }
    }

    fn plan(&self, batch: &[Rows<'_>], order: &[usize]) -> Step {
        let groups = groups(batch, order, batch.len().div_ceil(self.threads));
        let rows = || {
            let entries = order.iter().map(|&entry| &batch[entry]);
            entries.flat_map(|rows| {
                (rows.position..)
                    .take(rows.tokens.len())
                    .map(move |at| (rows.slot, at))
            })
        };
        let places = rows().map(|(slot, position)| (slot * self.context + position) as i32);
        let positions: Vec<usize> = rows().map(|(_, position)| position).collect();
        let kinds = [false, true].map(|windowed| {
            let window = self.config.window.filter(|_| windowed);
            let sees = groups
                .iter()
                .map(|group| Sees::new(&self.config, group, window, &self.device));
            let angles = || Angles::new(&self.rope[usize::from(windowed)], &positions, &self.device);
            let used = self.config.windowed.contains(&windowed);
            used.then(|| (angles(), sees.collect()))
        });
        Step {
            places: indices(places.collect(), &self.device),
            groups,
            kinds,
        }
    }

    fn layer(&mut self, index: usize, x: Tensor<2>, step: &Step) -> Tensor<2> {
        let (angles, sees) = step.kinds[usize::from(self.config.windowed[index])]
            .as_ref()
            .expect("every kind of layer has been planned for");
        let rows = x.dims()[0];
        let qkv = self.in_parts(rows, |part| self.project(index, cut(&x, &part), angles.of(&part)));
        let (query_width, kv_width) = (self.config.query_width(), self.config.kv_width());
        let query = qkv.clone().narrow(1, 0, query_width);
        let key = qkv.clone().narrow(1, query_width, kv_width);
        let value = qkv.narrow(1, query_width + kv_width, kv_width);
        self.caches[index].write(&step.places, key, value);
        let cache = &self.caches[index];
        let attend = |(group, sees): (&Group, &Sees)| {
            cache.attend(&self.config, group, sees, cut(&query, &group.all_rows()))
        };
        let results = step.groups.par_iter().zip(sees).map(attend);
        let h = joined(results.collect());
        self.in_parts(rows, |part| self.feed(index, cut(&x, &part), cut(&h, &part)))
    }

    /// Queries, turned and scaled, keys, turned, and values of rows, side by side.
    fn project(&self, index: usize, x: Tensor<2>, angles: Angles) -> Tensor<2> {
        let (config, norms) = (&self.config, &self.norms[index]);
        let (rows, dim) = (x.dims()[0], config.head_dim);
        let h = rms_norm(x, norms.attention.clone().unsqueeze(), config.norm_eps);
        let qkv = self.weights.layers[index].qkv.forward(h);
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let turned = config.heads + config.kv_heads;
        let heads = qkv
            .clone()
            .narrow(1, 0, turned * dim)
            .reshape([rows, turned, dim]);
        let heads = match &norms.heads {
            Some(norm) => rms_norm(heads, norm.clone(), config.norm_eps),
            None => heads,
        };
        let heads = angles.rotate(heads).reshape([rows, turned * dim]);
        let query = heads
            .clone()
            .narrow(1, 0, query_width)
            .mul_scalar(config.query_scale);
        let key = heads.narrow(1, query_width, kv_width);
        let value = qkv.narrow(1, query_width + kv_width, kv_width);
        Tensor::cat(vec![query, key, value], 1)
    }

    /// What a layer makes of rows and of what their attention gave.
    fn feed(&self, index: usize, x: Tensor<2>, attended: Tensor<2>) -> Tensor<2> {
        let eps = self.config.norm_eps;
        let (layer, norms) = (&self.weights.layers[index], &self.norms[index]);
        let x = x + normed(
            layer.attention_output.forward(attended),
            &norms.attention_post,
            eps,
        );
        let h = layer
            .gate_up
            .forward(rms_norm(x.clone(), norms.ffn.clone().unsqueeze(), eps));
        let ffn = self.config.ffn;
        let (gate, up) = (h.clone().narrow(1, 0, ffn), h.narrow(1, ffn, ffn));
        let gate = match self.config.activation {
            Activation::Silu => silu(gate),
            Activation::Gelu => gelu_approximate(gate),
        };
        x + normed(layer.down.forward(gate * up), &norms.ffn_post, eps)
    }

    /// Does for parts of `rows` rows, side by side, what is done for each row alone. On the CPU burn computes everything but
    /// large products on one thread.
    fn in_parts(&self, rows: usize, work: impl Fn(Range<usize>) -> Tensor<2> + Send + Sync) -> Tensor<2> {
        joined(parts(rows, self.threads).into_par_iter().map(work).collect())
    }
}

/// Rows in parts of like size, for at most so many threads.
fn parts(rows: usize, threads: usize) -> Vec<Range<usize>> {
    let size = rows.div_ceil(threads).max(PART_ROWS);
    (0..rows)
        .step_by(size)
        .map(|start| start..(start + size).min(rows))
        .collect()
}

/// Some rows of a tensor.
fn cut<const D: usize>(x: &Tensor<D>, rows: &Range<usize>) -> Tensor<D> {
    x.clone().narrow(0, rows.start, rows.len())
}

/// Rows after rows.
fn joined(mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 0),
    }
}

impl Norms {
    fn new(layer: &Layer<Linear>, config: &Config, build: &Linears) -> Self {
        let vector = |weights: &Vec<f32>| build.vector(weights.clone());
        let heads = layer.query_norm.as_ref().zip(layer.key_norm.as_ref());
        let heads = heads.map(|(query, key)| {
            let query = std::iter::repeat_n(query, config.heads);
            let both: Vec<f32> = query
                .chain(std::iter::repeat_n(key, config.kv_heads))
                .flatten()
                .copied()
                .collect();
            let shape = [1, config.heads + config.kv_heads, config.head_dim];
            build.vector(both).reshape(shape)
        });
        Self {
            attention: vector(&layer.attention_norm),
            heads,
            attention_post: layer.attention_post_norm.as_ref().map(vector),
            ffn: vector(&layer.ffn_norm),
            ffn_post: layer.ffn_post_norm.as_ref().map(vector),
        }
    }
}

impl Angles {
    fn new(rope: &Rope, positions: &[usize], device: &Device) -> Self {
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for &position in positions {
            let (cos, sin) = rope.at(position);
            cosines.extend(cos.iter().chain(cos));
            sines.extend(sin.iter().map(|sin| -sin).chain(sin.iter().copied()));
        }
        let shape = [positions.len(), 1, cosines.len() / positions.len()];
        let tensor = |numbers| Tensor::from_data(TensorData::new(numbers, shape), (device, DType::F32));
        Self {
            cos: tensor(cosines),
            sin: tensor(sines),
        }
    }

    /// Those of some rows.
    fn of(&self, rows: &Range<usize>) -> Self {
        Self {
            cos: cut(&self.cos, rows),
            sin: cut(&self.sin, rows),
        }
    }

    /// Turns all heads (`rows x heads x head_dim`) by the angles of their rows.
    fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let (first, second) = (x.clone().narrow(2, 0, half), x.clone().narrow(2, half, half));
        let swapped = Tensor::cat(vec![second, first], 2);
        x * self.cos.clone() + swapped * self.sin.clone()
    }
}

/// [Root mean square normalisation](https://arxiv.org/abs/1910.07467) over the last dimension.
fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<D>, eps: f32) -> Tensor<D> {
    let mean_square = x.clone().square().mean_dim(D - 1);
    x * mean_square.add_scalar(eps).sqrt().recip() * weight
}

fn normed(x: Tensor<2>, weight: &Option<Tensor<1>>, eps: f32) -> Tensor<2> {
    match weight {
        Some(weight) => rms_norm(x, weight.clone().unsqueeze(), eps),
        None => x,
    }
}

fn indices(numbers: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let len = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [len]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_rows_and_none_is_empty() {
        assert_eq!(parts(20, 2), [0..10, 10..20]);
        assert_eq!(parts(7, 2).len(), 1);
        for (rows, threads) in (1..300).flat_map(|rows| [1, 2, 16, 96].map(|threads| (rows, threads))) {
            let parts = parts(rows, threads);
            assert!(parts.len() <= threads, "{rows} rows, {threads} threads");
            assert!(parts.iter().all(|part| !part.is_empty()));
            assert!(parts.into_iter().flatten().eq(0..rows));
        }
    }
}
