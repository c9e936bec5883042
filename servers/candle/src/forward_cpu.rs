//! The forward pass on the CPU: integer products over all rows of a step, plain loops for the rest, no tensor and no
//! allocation on the way.

use crate::Forward;
use crate::attention::{Attend, HeadNorms, Row, Scratch};
use crate::kv::{KvMemory, Layout};
use crate::linear::Kernel;
use crate::linear::activations::{Activations, RowMut};
use crate::linear::affine8::{Affine8, Into};
use crate::linear::tensor::quantised;
use crate::math;
use crate::pool::{Disjoint, Pool};
use anyhow::Context;
use candle_core::Device;
use loadtest_shell::{Rows, check_batch};
use loadtest_weights::config::{Activation, Config};
use loadtest_weights::rope::Rope;
use loadtest_weights::source::Source;
use loadtest_weights::tensor::Raw;
use loadtest_weights::weights::{Build, Layer, Weights};
use pulp::Arch;

/// A model on the CPU, its weights packed for integer products.
pub struct CpuForward {
    config: Config,
    weights: Weights<Affine8>,
    kv: KvMemory,
    rope: [Rope; 2],
    context: usize,
    buffers: Buffers,
    compute: Compute,
}

/// What computes: threads and instruction sets.
struct Compute {
    pool: Pool,
    kernel: Kernel,
    arch: Arch,
    scratch: Vec<ThreadScratch>,
}

/// The rows of a step on their way through the layers.
#[derive(Default)]
struct Buffers {
    /// The state of each row.
    x: Vec<f32>,
    /// What a product reads.
    input: Activations,
    /// Query, key and value.
    qkv: Vec<f32>,
    /// What attention gives.
    attention: Vec<f32>,
    /// Gate and up.
    gate_up: Vec<f32>,
    /// A half layer's result before its norm (Gemma).
    result: Vec<f32>,
    /// The rows whose logits are wanted.
    last: Vec<f32>,
}

struct Packing<'a>(&'a mut Pool);

impl Build for Packing<'_> {
    type Matrix = Affine8;

    fn matrix(&mut self, parts: &[Raw<'_>], bias: Option<Vec<f32>>) -> anyhow::Result<Affine8> {
        let parts = parts.iter().map(|raw| quantised(raw, &Device::Cpu));
        let matrix = Affine8::pack(&parts.collect::<Result<Vec<_>, _>>()?, self.0)?;
        Ok(match bias {
            Some(bias) => matrix.with_bias(bias),
            None => matrix,
        })
    }
}

impl CpuForward {
    /// Loads and packs the weights.
    ///
    /// # Errors
    /// If a tensor is missing or has no packed form, or no threads can be started.
    pub fn load(source: &Source, kernel: Kernel, threads: usize) -> anyhow::Result<Self> {
        let mut pool = Pool::new(threads).context("cannot start the compute threads")?;
        let weights = Weights::load(source, &mut Packing(&mut pool))?;
        let config = source.config().clone();
        let scratch = (0..pool.threads()).map(|_| ThreadScratch::default()).collect();
        Ok(Self {
            kv: KvMemory::new(layout(&config), 0, 0)?,
            config,
            weights,
            rope: Default::default(),
            context: 0,
            buffers: Buffers::default(),
            compute: Compute {
                pool,
                kernel,
                arch: Arch::new(),
                scratch,
            },
        })
    }

    fn layer(&mut self, index: usize, batch: &[Rows<'_>]) {
        let Self {
            config,
            weights,
            buffers,
            compute,
            ..
        } = self;
        let (layer, rows, eps) = (
            &weights.layers[index],
            buffers.x.len() / config.hidden,
            config.norm_eps,
        );
        compute.normalise(&buffers.x, &layer.attention_norm, eps, &mut buffers.input);
        compute.multiply(&layer.qkv, &buffers.input, &mut buffers.qkv, Into::Store);
        buffers.attention.resize(rows * config.query_width(), 0.0);
        let rope = &self.rope[usize::from(config.windowed[index])];
        compute.attend(
            config,
            layer,
            index,
            batch,
            rope,
            &mut self.kv,
            &mut buffers.qkv,
            &mut buffers.attention,
        );
        compute.quantise(&buffers.attention, config.query_width(), &mut buffers.input);
        compute.add(
            &layer.attention_output,
            layer.attention_post_norm.as_deref(),
            eps,
            buffers,
        );

        compute.normalise(&buffers.x, &layer.ffn_norm, eps, &mut buffers.input);
        compute.multiply(&layer.gate_up, &buffers.input, &mut buffers.gate_up, Into::Store);
        compute.gate(
            &buffers.gate_up,
            config.ffn,
            config.activation,
            &mut buffers.input,
        );
        compute.add(&layer.down, layer.ffn_post_norm.as_deref(), eps, buffers);
    }

    fn embed(&mut self, batch: &[Rows<'_>]) {
        let (embedding, hidden, scale) = (
            &self.weights.embedding,
            self.config.hidden,
            self.config.embedding_scale,
        );
        let tokens: Vec<u32> = batch.iter().flat_map(|rows| rows.tokens).copied().collect();
        self.buffers.x.resize(tokens.len() * hidden, 0.0);
        let x = Disjoint::new(&mut self.buffers.x);
        self.compute.rows(tokens.len(), |row| {
            // SAFETY: each row is given once.
            let x = unsafe { x.part(row * hidden, hidden) };
            embedding.column(tokens[row] as usize, x);
            x.iter_mut().for_each(|x| *x *= scale);
        });
    }

    fn logits(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) {
        let (buffers, hidden) = (&mut self.buffers, self.config.hidden);
        buffers.last.clear();
        let mut end = 0;
        for rows in batch {
            end += rows.tokens.len();
            if rows.logits {
                buffers
                    .last
                    .extend_from_slice(&buffers.x[(end - 1) * hidden..end * hidden]);
            }
        }
        self.compute.normalise(
            &buffers.last,
            &self.weights.norm,
            self.config.norm_eps,
            &mut buffers.input,
        );
        self.compute
            .multiply(self.weights.output(), &buffers.input, logits, Into::Store);
    }
}

fn layout(config: &Config) -> Layout {
    Layout {
        layers: config.layers,
        heads: config.kv_heads,
        head_dim: config.head_dim,
    }
}

impl Forward for CpuForward {
    fn vocabulary(&self) -> usize {
        self.weights.vocabulary
    }

    fn weights_bytes(&self) -> u64 {
        self.weights.matrices().map(Affine8::bytes).sum()
    }

    fn kv_bytes_per_token(&self) -> u64 {
        layout(&self.config).bytes_per_token()
    }

    fn prepare(&mut self, parallel: usize, context: usize) -> anyhow::Result<()> {
        self.kv = KvMemory::new(layout(&self.config), parallel, context)?;
        self.rope =
            [&self.config.rope, &self.config.local_rope].map(|frequencies| Rope::new(frequencies, context));
        self.context = context;
        Ok(())
    }

    fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()> {
        logits.clear();
        check_batch(batch, self.context, self.weights.vocabulary, |slot| {
            self.kv.len(slot)
        })?;
        for rows in batch {
            self.kv.resize(rows.slot, rows.position + rows.tokens.len());
        }
        self.embed(batch);
        for index in 0..self.config.layers {
            self.layer(index, batch);
        }
        self.logits(batch, logits);
        Ok(())
    }

    fn free(&mut self, slot: usize) {
        self.kv.free(slot);
    }
}

impl Compute {
    fn multiply(&mut self, matrix: &Affine8, x: &Activations, y: &mut Vec<f32>, into: Into) {
        y.resize(x.rows * matrix.outputs(), 0.0);
        matrix.multiply(x, y, into, self.kernel, &mut self.pool);
    }

    /// Adds the product to the state, after a norm where there is one.
    fn add(&mut self, matrix: &Affine8, norm: Option<&[f32]>, eps: f32, buffers: &mut Buffers) {
        let Some(norm) = norm else {
            return self.multiply(matrix, &buffers.input, &mut buffers.x, Into::Add);
        };
        self.multiply(matrix, &buffers.input, &mut buffers.result, Into::Store);
        let (x, y, width, arch) = (
            Disjoint::new(&mut buffers.x),
            &buffers.result,
            norm.len(),
            self.arch,
        );
        self.rows(y.len() / width, |row| {
            // SAFETY: each row is given once.
            let x = unsafe { x.part(row * width, width) };
            arch.dispatch(
                #[inline(always)]
                || math::add_normalised(x, &y[row * width..][..width], norm, eps),
            );
        });
    }

    fn normalise(&mut self, x: &[f32], norm: &[f32], eps: f32, out: &mut Activations) {
        let width = norm.len();
        self.quantised(
            x.len() / width,
            width,
            out,
            #[inline(always)]
            |row, scratch, out| {
                math::normalise_quantised(&x[row * width..][..width], norm, eps, scratch, out)
            },
        );
    }

    fn quantise(&mut self, x: &[f32], width: usize, out: &mut Activations) {
        self.quantised(
            x.len() / width,
            width,
            out,
            #[inline(always)]
            |row, _, mut out| out.quantise(&x[row * width..][..width]),
        );
    }

    fn gate(&mut self, gate_up: &[f32], width: usize, activation: Activation, out: &mut Activations) {
        self.quantised(
            gate_up.len() / width / 2,
            width,
            out,
            #[inline(always)]
            |row, scratch, out| {
                let (gate, up) = gate_up[row * width * 2..][..width * 2].split_at(width);
                math::gate_quantised(gate, up, activation, scratch, out);
            },
        );
    }

    /// Calls `task` for each row; few rows are not worth the other threads.
    fn rows(&mut self, rows: usize, task: impl Fn(usize) + Sync) {
        let chunk = rows.div_ceil(self.pool.threads() * 2).max(2);
        self.pool.run(rows.div_ceil(chunk), &|_, index| {
            (index * chunk..((index + 1) * chunk).min(rows)).for_each(&task);
        });
    }

    /// Fills `out` row by row; `row` gets scratch memory for one row.
    fn quantised(
        &mut self,
        rows: usize,
        width: usize,
        out: &mut Activations,
        row: impl Fn(usize, &mut [f32], RowMut<'_>) + Sync,
    ) {
        out.resize(rows, width);
        let (q, scale, sum) = (
            Disjoint::new(&mut out.q),
            Disjoint::new(&mut out.scale),
            Disjoint::new(&mut out.sum),
        );
        let chunk = rows.div_ceil(self.pool.threads() * 2).max(2);
        let (scratch, arch) = (Disjoint::new(&mut self.scratch), self.arch);
        self.pool.run(rows.div_ceil(chunk), &|thread, index| {
            // SAFETY: each thread uses its own.
            let line = &mut unsafe { scratch.part(thread, 1) }[0].line;
            line.resize(width, 0.0);
            for index in index * chunk..((index + 1) * chunk).min(rows) {
                // SAFETY: each row is given once.
                let out = unsafe {
                    RowMut {
                        q: q.part(index * width, width),
                        scale: scale.part(index * width / 32, width / 32),
                        sum: sum.part(index * width / 16, width / 16),
                    }
                };
                arch.dispatch(
                    #[inline(always)]
                    || row(index, line, out),
                );
            }
        });
    }

    /// A layer's attention: one task for each sequence and KV head.
    #[allow(clippy::too_many_arguments)] // the parts of one borrowed `CpuForward`
    fn attend(
        &mut self,
        config: &Config,
        layer: &Layer<Affine8>,
        index: usize,
        batch: &[Rows<'_>],
        rope: &Rope,
        kv: &mut KvMemory,
        qkv: &mut [f32],
        out: &mut [f32],
    ) {
        let (dim, group) = (config.head_dim, config.heads / config.kv_heads * config.head_dim);
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let width = query_width + 2 * kv_width;
        let first_rows: Vec<usize> = batch
            .iter()
            .scan(0, |next, rows| {
                Some(std::mem::replace(next, *next + rows.tokens.len()))
            })
            .collect();
        let (kv, qkv, out) = (kv.share(), Disjoint::new(qkv), Disjoint::new(out));
        let norms = layer.query_norm.as_deref().zip(layer.key_norm.as_deref());
        let norms = norms.map(|(query, key)| HeadNorms {
            query,
            key,
            eps: config.norm_eps,
        });
        let (scratch, arch) = (Disjoint::new(&mut self.scratch), self.arch);
        self.pool.run(batch.len() * config.kv_heads, &|thread, task| {
            let (entry, head) = (task / config.kv_heads, task % config.kv_heads);
            let (rows, first) = (&batch[entry], first_rows[entry]);
            // SAFETY: a task alone uses its sequence's and head's columns of these rows and its head of the memory
            // (a batch has a slot only once); each thread has its own scratch.
            unsafe {
                arch.dispatch(Attend {
                    row: |row| Row {
                        queries: qkv.part((first + row) * width + head * group, group),
                        key: qkv.part((first + row) * width + query_width + head * dim, dim),
                        value: qkv.part((first + row) * width + query_width + kv_width + head * dim, dim),
                        out: out.part((first + row) * query_width + head * group, group),
                    },
                    rows: rows.tokens.len(),
                    position: rows.position,
                    memory: kv.head(rows.slot, index, head),
                    head_dim: dim,
                    pairs: config.pairs,
                    rope,
                    norms,
                    query_scale: config.query_scale,
                    window: config.window_of(index),
                    scratch: &mut scratch.part(thread, 1)[0].attention,
                });
            }
        });
    }
}

/// Memory that one thread uses again and again.
#[derive(Default)]
struct ThreadScratch {
    line: Vec<f32>,
    attention: Scratch,
}
