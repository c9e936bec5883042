//! Attention of a sequence's new rows over its own keys and values, one KV head at a time.

use crate::kv::{BLOCK, Head};
use crate::math;
use crate::widen::Widen;
use loadtest_weights::config::Pairs;
use loadtest_weights::rope::Rope;
use pulp::{Simd, WithSimd};

/// Memory that one thread's attention uses again and again.
pub struct Scratch {
    widen: Widen,
    block: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            widen: crate::widen::detect(),
            block: Vec::new(),
            scores: Vec::new(),
            sums: Vec::new(),
        }
    }
}

/// Norms of queries and keys before they are turned.
#[derive(Clone, Copy)]
pub struct HeadNorms<'a> {
    /// Of the queries.
    pub query: &'a [f32],
    /// Of the keys.
    pub key: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// The queries, key and value of one row for one KV head, and where its result goes.
pub struct Row<'a> {
    /// The heads of the group, one after the other.
    pub queries: &'a mut [f32],
    /// One head.
    pub key: &'a mut [f32],
    /// One head.
    pub value: &'a [f32],
    /// As many heads as queries.
    pub out: &'a mut [f32],
}

/// One KV head's share of a layer's attention for the rows of one sequence.
pub struct Attend<'a, R> {
    /// Gives row `i`.
    pub row: R,
    /// How many rows there are.
    pub rows: usize,
    /// Position of the first.
    pub position: usize,
    /// What the sequence remembers; the rows are added to it.
    pub memory: Head<'a>,
    /// Width of a head.
    pub head_dim: usize,
    /// How heads are turned.
    pub pairs: Pairs,
    /// By which angles.
    pub rope: &'a Rope,
    /// Gemma's norms.
    pub norms: Option<HeadNorms<'a>>,
    /// Factor on queries.
    pub query_scale: f32,
    /// Positions that a row sees, itself included.
    pub window: Option<usize>,
    /// This thread's memory.
    pub scratch: &'a mut Scratch,
}

impl<'r, R: FnMut(usize) -> Row<'r>> WithSimd for Attend<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let mut queries: Vec<Query<'r>> = Vec::with_capacity(self.rows * 4);
        for index in 0..self.rows {
            let position = self.position + index;
            let row = (self.row)(index);
            let angles = self.rope.at(position);
            if let Some(norms) = self.norms {
                math::normalise(row.key, norms.key, norms.eps);
            }
            math::rotate(row.key, angles, self.pairs);
            self.memory.write(position, row.key, row.value);
            let heads = row
                .queries
                .chunks_exact_mut(self.head_dim)
                .zip(row.out.chunks_exact_mut(self.head_dim));
            for (query, out) in heads {
                if let Some(norms) = self.norms {
                    math::normalise(query, norms.query, norms.eps);
                }
                math::rotate(query, angles, self.pairs);
                query.iter_mut().for_each(|x| *x *= self.query_scale);
                let start = self
                    .window
                    .map_or(0, |window| (position + 1).saturating_sub(window));
                queries.push(Query {
                    query,
                    out,
                    start,
                    end: position + 1,
                });
            }
        }
        let mut rest = &mut queries[..];
        while !rest.is_empty() {
            let (tile, after) = match rest.len() {
                8.. => rest.split_at_mut(8),
                4.. => rest.split_at_mut(4),
                _ => rest.split_at_mut(rest.len()),
            };
            match tile.len() {
                8 => attend_tile::<8>(tile, &self.memory, self.head_dim, self.scratch),
                4 => attend_tile::<4>(tile, &self.memory, self.head_dim, self.scratch),
                3 => attend_tile::<3>(tile, &self.memory, self.head_dim, self.scratch),
                2 => attend_tile::<2>(tile, &self.memory, self.head_dim, self.scratch),
                _ => attend_tile::<1>(tile, &self.memory, self.head_dim, self.scratch),
            }
            rest = after;
        }
    }
}

/// One head's query, where its result goes, and the positions `start..end` that it sees.
struct Query<'a> {
    query: &'a [f32],
    out: &'a mut [f32],
    start: usize,
    end: usize,
}

/// `out = softmax(query · keys) · values` for `N` queries, which read each key and value once.
#[inline(always)]
fn attend_tile<const N: usize>(
    tile: &mut [Query<'_>],
    memory: &Head<'_>,
    head_dim: usize,
    scratch: &mut Scratch,
) {
    let tile: &mut [Query<'_>; N] = tile.try_into().expect("a tile of N");
    let first = tile.iter().map(|query| query.start).min().unwrap_or(0) / BLOCK;
    let last = tile
        .iter()
        .map(|query| query.end)
        .max()
        .unwrap_or(0)
        .div_ceil(BLOCK);
    let width = (last - first) * BLOCK;
    scratch.block.resize(BLOCK * head_dim, 0.0);
    scratch.scores.resize(N * width, 0.0);
    scratch.sums.resize(N * head_dim, 0.0);
    let Scratch {
        widen,
        block,
        scores,
        sums,
    } = scratch;

    for b in first..last {
        widen(memory.keys(b), block);
        let mut dots = [[0f32; BLOCK]; N];
        for (d, keys) in block.as_chunks::<BLOCK>().0.iter().enumerate() {
            for (dots, query) in dots.iter_mut().zip(tile.iter()) {
                let q = query.query[d];
                for (dot, key) in dots.iter_mut().zip(keys) {
                    *dot = q.mul_add(*key, *dot);
                }
            }
        }
        for (n, dots) in dots.iter().enumerate() {
            scores[n * width + (b - first) * BLOCK..][..BLOCK].copy_from_slice(dots);
        }
    }
    let mut totals = [0f32; N];
    for (n, query) in tile.iter().enumerate() {
        let scores = &mut scores[n * width..][..width];
        scores[..query.start - first * BLOCK].fill(f32::NEG_INFINITY);
        scores[query.end - first * BLOCK..].fill(f32::NEG_INFINITY);
        totals[n] = exponentials(scores);
    }
    sums[..N * head_dim].fill(0.0);
    for b in first..last {
        widen(memory.values(b), block);
        for d in (0..head_dim).step_by(16) {
            let mut lanes = [[0f32; 16]; N];
            for (n, lanes) in lanes.iter_mut().enumerate() {
                lanes.copy_from_slice(&sums[n * head_dim + d..][..16]);
            }
            for row in 0..BLOCK {
                let values: &[f32; 16] = block[row * head_dim + d..][..16].try_into().expect("16 numbers");
                for (n, lanes) in lanes.iter_mut().enumerate() {
                    let weight = scores[n * width + (b - first) * BLOCK + row];
                    for (lane, value) in lanes.iter_mut().zip(values) {
                        *lane = weight.mul_add(*value, *lane);
                    }
                }
            }
            for (n, lanes) in lanes.iter().enumerate() {
                sums[n * head_dim + d..][..16].copy_from_slice(lanes);
            }
        }
    }
    for (n, query) in tile.iter_mut().enumerate() {
        for (out, sum) in query.out.iter_mut().zip(&sums[n * head_dim..]) {
            *out = sum / totals[n];
        }
    }
}

/// Replaces scores by `e^(score - largest)` and gives their sum; what is -∞ becomes 0.
#[inline(always)]
fn exponentials(scores: &mut [f32]) -> f32 {
    let chunks = scores.as_chunks_mut::<16>().0;
    let mut largest = [f32::NEG_INFINITY; 16];
    for chunk in chunks.iter() {
        for (largest, score) in largest.iter_mut().zip(chunk) {
            *largest = largest.max(*score);
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; 16];
    for chunk in chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = if *score == f32::NEG_INFINITY {
                0.0
            } else {
                math::exp(*score - largest)
            };
            *sum += *score;
        }
    }
    sums.iter().sum()
}
