//! The choice of the next token from a row of logits.

use std::cell::RefCell;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Weights that are summed as one, so that a draw looks at one block only.
const BLOCK: usize = 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory of one sampling thread, kept between draws.
#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    sums: Vec<f64>,
    candidates: Vec<(f32, u32)>,
}

/// How one request chooses, and its own random numbers.
#[derive(Debug)]
pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    top_k: Option<usize>,
    rng: ChaCha8Rng,
}

impl Sampler {
    pub(crate) fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        Self {
            temperature,
            top_p,
            top_k: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Draws from so many of the likeliest tokens alone, if told.
    pub(crate) fn of_likeliest(self, top_k: Option<usize>) -> Self {
        Self { top_k, ..self }
    }

    /// Chooses a token that is not in `masked`, which is sorted and leaves at least one.
    pub(crate) fn sample(&mut self, logits: &[f32], masked: &[u32]) -> u32 {
        let (best, max) = argmax(logits, masked);
        // Also where the model gave no number that can be weighed.
        if self.temperature <= 0.0 || !max.is_finite() {
            return best;
        }
        let draw = self.rng.random::<f64>();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.weigh(logits, masked, max, self.temperature);
            if let Some(k) = self.top_k {
                scratch.keep_heaviest(k);
            }
            if self.top_p < 1.0 {
                scratch.draw_nucleus(draw, self.top_p)
            } else {
                scratch.draw(draw)
            }
            .unwrap_or(best)
        })
    }
}

impl Scratch {
    /// Softmax weights at `temperature`, not normalised; the likeliest token weighs 1.
    fn weigh(&mut self, logits: &[f32], masked: &[u32], max: f32, temperature: f32) {
        let scale = 1.0 / temperature;
        self.weights.clear();
        self.weights
            .extend(logits.iter().map(|logit| exp((logit - max) * scale)));
        for token in masked {
            if let Some(weight) = self.weights.get_mut(*token as usize) {
                *weight = 0.0;
            }
        }
        self.sum();
    }

    fn sum(&mut self) {
        self.sums.clear();
        self.sums.extend(
            self.weights
                .chunks(BLOCK)
                .map(|block| f64::from(block.iter().sum::<f32>())),
        );
    }

    /// Takes the weight from all but the `k` heaviest tokens.
    fn keep_heaviest(&mut self, k: usize) {
        self.candidates.clear();
        let weighed = (0..).zip(&self.weights).filter(|(_, weight)| **weight > 0.0);
        self.candidates
            .extend(weighed.map(|(token, weight)| (*weight, token)));
        if k >= self.candidates.len() {
            return;
        }
        self.candidates.select_nth_unstable_by(k, heavier_first);
        for (_, token) in &self.candidates[k..] {
            self.weights[*token as usize] = 0.0;
        }
        self.sum();
    }

    /// The token at share `draw` of the total weight.
    fn draw(&self, draw: f64) -> Option<u32> {
        let mut left = draw * self.sums.iter().sum::<f64>();
        let block = self.sums.iter().position(|sum| {
            let here = left < *sum;
            left -= if here { 0.0 } else { *sum };
            here
        });
        // Rounding may leave a draw near 1 without a block, or past a block's end: the last token that has a weight.
        let first = block.unwrap_or(self.sums.len() - 1) * BLOCK;
        let mut last = None;
        for (token, weight) in (first as u32..).zip(self.weights[first..].iter().take(BLOCK)) {
            if *weight > 0.0 {
                last = Some(token);
                left -= f64::from(*weight);
                if left < 0.0 {
                    break;
                }
            }
        }
        last
    }

    /// The token at share `draw` of the weight of the nucleus: the fewest likeliest tokens that make up `top_p`
    /// (Holtzman et al., The Curious Case of Neural Text Degeneration, 2020).
    fn draw_nucleus(&mut self, draw: f64, top_p: f32) -> Option<u32> {
        let total: f64 = self.sums.iter().sum();
        let wanted = total * f64::from(top_p);
        // Tokens lighter than this weigh less than 1 - top_p all together, so that the nucleus does without them.
        let floor = ((total - wanted) / self.weights.len() as f64) as f32 * 0.99;
        self.candidates.clear();
        let heavy = (0..)
            .zip(&self.weights)
            .filter(|(_, weight)| **weight > 0.0 && **weight >= floor);
        self.candidates
            .extend(heavy.map(|(token, weight)| (*weight, token)));
        // Halve the stretch in which the nucleus ends, heavier half first, until it is short enough to sort.
        let (mut start, mut end, mut before) = (0, self.candidates.len(), 0.0);
        while end - start > 64 {
            let half = (end - start) / 2;
            self.candidates[start..end].select_nth_unstable_by(half, heavier_first);
            let sum = weight_of(&self.candidates[start..start + half]);
            if before + sum >= wanted {
                end = start + half;
            } else {
                before += sum;
                start += half;
            }
        }
        self.candidates[start..end].sort_unstable_by(heavier_first);
        let reached = self.candidates[start..end].iter().position(|(weight, _)| {
            before += f64::from(*weight);
            before >= wanted
        });
        let nucleus = &self.candidates[..reached.map_or(end, |at| start + at + 1)];
        let mut left = draw * before;
        let drawn = nucleus.iter().find(|(weight, _)| {
            left -= f64::from(*weight);
            left < 0.0
        });
        drawn.or(nucleus.last()).map(|(_, token)| *token)
    }
}

/// Of equals, the token with the lower number goes first.
fn heavier_first(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

fn weight_of(candidates: &[(f32, u32)]) -> f64 {
    candidates.iter().map(|(weight, _)| f64::from(*weight)).sum()
}

/// The token with the highest logit outside `masked`, the first of equals, and that logit.
fn argmax(logits: &[f32], masked: &[u32]) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut start = 0;
    for end in masked
        .iter()
        .map(|token| *token as usize)
        .filter(|end| *end < logits.len())
        .chain([logits.len()])
    {
        let part = &logits[start..end.max(start)];
        let max = highest(part);
        if max > best.1
            && let Some(at) = part.iter().position(|logit| *logit == max)
        {
            best = ((start + at) as u32, max);
        }
        start = end + 1;
    }
    best
}

/// The highest of some logits; NaN counts as lowest. Sixteen running maxima let the compiler use vectors.
fn highest(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *logit);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().copied())
        .fold(f32::NEG_INFINITY, larger)
}

/// e^x for x <= 0 to a relative error below 1e-5, in a form that compiles to vector code: 2^(i + f) with the
/// Taylor polynomial of 2^f on [-0.5, 0.5]. NaN and anything under e^-80 give 0.
fn exp(x: f32) -> f32 {
    let power = x * std::f32::consts::LOG2_E;
    // Adding and taking off 1.5 * 2^23 rounds to a whole number.
    let whole = (power + 12_582_912.0) - 12_582_912.0;
    let f = (power - whole) * std::f32::consts::LN_2;
    let fraction = 1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0)))));
    let scale = f32::from_bits((((whole as i32).wrapping_add(127)) << 23).cast_unsigned());
    if x > -80.0 { fraction * scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Probabilities by the book, in f64.
    fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = logits
            .iter()
            .map(|l| (f64::from(l - max) / f64::from(temperature)).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    /// Tokens that belong to the nucleus by a full sort.
    fn nucleus(probabilities: &[f64], top_p: f64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..probabilities.len() as u32).collect();
        order.sort_by(|a, b| probabilities[*b as usize].total_cmp(&probabilities[*a as usize]));
        let mut sum = 0.0;
        let mut kept = Vec::new();
        for token in order {
            kept.push(token);
            sum += probabilities[token as usize];
            // A sum that rounding may put on either side of the border keeps one token more.
            if sum >= top_p + 1e-4 {
                break;
            }
        }
        kept
    }

    fn frequencies(sampler: &mut Sampler, logits: &[f32], masked: &[u32], draws: usize) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(logits, masked) as usize] += 1.0 / draws as f64;
        }
        counts
    }

    proptest! {
        #[test]
        fn greedy_takes_the_first_maximum(logits in prop::collection::vec(-9_i8..9, 1..300), skip in 0_u32..300) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let masked: Vec<u32> = if logits.len() > 1 { vec![skip % logits.len() as u32] } else { vec![] };
            let expected = (0..logits.len() as u32)
                .filter(|token| !masked.contains(token))
                .rev()
                .max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize]));
            let got = Sampler::new(0.0, 1.0, 0).sample(&logits, &masked);
            prop_assert_eq!(Some(got), expected);
        }

        #[test]
        fn draws_stay_in_the_nucleus(
            logits in prop::collection::vec(-8.0_f32..8.0, 2..400),
            top_p in 0.05_f32..0.99,
            temperature in 0.2_f32..2.0,
            seed: u64,
        ) {
            let kept = nucleus(&softmax(&logits, temperature), f64::from(top_p));
            let mut sampler = Sampler::new(temperature, top_p, seed);
            for _ in 0..50 {
                prop_assert!(kept.contains(&sampler.sample(&logits, &[])));
            }
        }

        #[test]
        fn draws_stay_among_the_likeliest(
            logits in prop::collection::vec(-8.0_f32..8.0, 2..400),
            k in 1_usize..20,
            top_p in 0.5_f32..1.0,
            seed: u64,
        ) {
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            let mut sampler = Sampler::new(1.5, top_p, seed).of_likeliest(Some(k));
            for _ in 0..50 {
                let drawn = sampler.sample(&logits, &[]);
                prop_assert!(order.iter().take(k).any(|token| logits[*token as usize] == logits[drawn as usize]));
            }
        }

        #[test]
        fn exp_is_close(x in -79.0_f32..0.0) {
            let exact = f64::from(x).exp();
            prop_assert!(((f64::from(exp(x)) - exact) / exact).abs() < 1e-5);
        }

        #[test]
        fn the_same_seed_draws_the_same(logits in prop::collection::vec(-8.0_f32..8.0, 1..3000), seed: u64) {
            let run = || {
                let mut sampler = Sampler::new(1.0, 0.9, seed);
                (0..8).map(|_| sampler.sample(&logits, &[])).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits: Vec<f32> = (0..2500)
            .map(|i| if i % 500 == 7 { (i / 500) as f32 } else { -20.0 })
            .collect();
        let expected = softmax(&logits, 1.3);
        let got = frequencies(&mut Sampler::new(1.3, 1.0, 5), &logits, &[], 20_000);
        for token in 0..logits.len() {
            // Four standard deviations of a binomial share.
            let bound = 4.0 * (expected[token] / 20_000.0).sqrt() + 1e-4;
            assert!((got[token] - expected[token]).abs() < bound, "token {token}");
        }
    }

    #[test]
    fn masked_tokens_never_come() {
        let logits = [9.0, 1.0, 8.0, 2.0];
        for (temperature, top_p) in [(0.0, 1.0), (1.0, 1.0), (1.0, 0.9)] {
            let got = frequencies(&mut Sampler::new(temperature, top_p, 3), &logits, &[0, 2], 500);
            assert_eq!((got[0], got[2]), (0.0, 0.0));
        }
    }

    #[test]
    fn rows_without_a_number_do_not_break() {
        for value in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
            let token = Sampler::new(1.0, 0.9, 1).sample(&[value; 40], &[]);
            assert!(token < 40);
        }
    }
}
