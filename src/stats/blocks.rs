//! The circular block bootstrap of a ratio of sums: means, rates, shares, and with them percentiles.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::length::block_length;
use super::student::{NORMAL_975, t_975};

/// How often the series is drawn anew.
const REPLICATES: usize = 1_000;

/// Longer series are summed up in groups of neighbours to at most so many.
const MOST_CELLS: usize = 4_096;

/// Fewer cells carry no interval.
const FEWEST_CELLS: usize = 10;

/// The same series has the same interval, whoever asks.
const SEED: u64 = 95;

/// A value and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Blocks that it rests on: one more than its degrees of freedom.
    pub blocks: usize,
}

/// A share and the range in which it lies, neither cut to 0 nor to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Blocks that it rests on.
    pub blocks: usize,
}

impl Level {
    /// The values between which the percentile lies, from the same values in order; a level between two of them lies
    /// between their values. Absent where a limit lies beyond all of them.
    pub fn of_sorted(&self, sorted: &[f64]) -> Option<[f64; 2]> {
        let n = sorted.len();
        let at = |level: f64| {
            let rank = level * n as f64;
            let (below, part) = (rank.floor(), rank.fract());
            let value = |rank: f64| sorted.get((rank as usize).checked_sub(1)?).copied();
            let (low, high) = (value(below)?, value(below + 1.0).or(value(below))?);
            (rank <= n as f64).then_some(low + part * (high - low))
        };
        Some([at(self.low)?, at(self.high + 1.0 / n as f64)?])
    }
}

/// A series in time order whose sums are of interest as a ratio: latencies over requests, tokens over seconds, failures
/// over requests.
#[derive(Debug, Clone)]
pub struct Blocks {
    sums: Vec<f64>,
    counts: Vec<f64>,
}

impl Blocks {
    /// A cell for each pair; absent with fewer than 10 cells, or where nothing is counted.
    pub fn new(cells: impl IntoIterator<Item = (f64, f64)>) -> Option<Blocks> {
        let (mut sums, mut counts): (Vec<f64>, Vec<f64>) = cells.into_iter().unzip();
        let together = sums.len().div_ceil(MOST_CELLS);
        if together > 1 {
            let merged = |cells: &[f64]| cells.chunks(together).map(|c| c.iter().sum()).collect();
            (sums, counts) = (merged(&sums), merged(&counts));
        }
        let counted = counts.iter().sum::<f64>() > 0.0;
        (sums.len() >= FEWEST_CELLS && counted).then_some(Blocks { sums, counts })
    }

    /// A series in which every cell counts as one.
    pub fn of_values(values: impl IntoIterator<Item = f64>) -> Option<Blocks> {
        Self::new(values.into_iter().map(|x| (x, 1.0)))
    }

    fn ratio(&self) -> f64 {
        self.sums.iter().sum::<f64>() / self.counts.iter().sum::<f64>()
    }

    /// The ratio with its 95 % interval: the circular block bootstrap's percentiles (D. Politis and J. Romano, A circular
    /// block-resampling procedure, 1992), their distance from the ratio widened by what blocks cost, Student's t with
    /// one degree of freedom less than there are blocks over the normal quantile, and sqrt(n / (n - length)).
    pub fn estimate(&self) -> Estimate {
        let value = self.ratio();
        let drawn = self.draw(value);
        Estimate {
            value,
            low: value + drawn.widen * (drawn.low - value),
            high: value + drawn.widen * (drawn.high - value),
            blocks: drawn.blocks,
        }
    }

    /// The same of a share that stands for the level `p` of a percentile: how far the share below it may lie from `p`.
    /// Where all or none lie below it, as when the greatest values are equal, drawing them anew tells nothing of the spread;
    /// then it is that of independent values.
    fn level(&self, p: f64) -> Level {
        let value = self.ratio();
        let drawn = self.draw(value);
        let (below, above) = match 0.0 < value && value < 1.0 {
            true => (drawn.low - value, drawn.high - value),
            false => {
                let half = NORMAL_975 * (p * (1.0 - p) / self.counts.iter().sum::<f64>()).sqrt();
                (-half, half)
            }
        };
        Level {
            low: p + drawn.widen * below,
            high: p + drawn.widen * above,
            blocks: drawn.blocks,
        }
    }

    fn draw(&self, value: f64) -> Drawn {
        let n = self.sums.len();
        let deviations: Vec<f64> = self
            .sums
            .iter()
            .zip(&self.counts)
            .map(|(s, c)| s - value * c)
            .collect();
        let length = block_length(&deviations);
        let blocks = n.div_ceil(length);
        let block_sums = |cells: &[f64]| -> Vec<f64> {
            let mut sum: f64 = cells[..length].iter().sum();
            (0..n)
                .map(|at| {
                    let this = sum;
                    sum += cells[(at + length) % n] - cells[at];
                    this
                })
                .collect()
        };
        let (sums, counts) = (block_sums(&self.sums), block_sums(&self.counts));
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let starts = u32::try_from(n).unwrap_or(u32::MAX);
        let mut ratios: Vec<f64> = (0..REPLICATES)
            .map(|_| {
                let (mut sum, mut count) = (0.0, 0.0);
                for _ in 0..blocks {
                    let start = rng.random_range(0..starts) as usize;
                    sum += sums[start];
                    count += counts[start];
                }
                sum / count
            })
            .filter(|ratio| ratio.is_finite())
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * ratios.len().saturating_sub(1) as f64).round() as usize;
            ratios.get(rank).copied().unwrap_or(value)
        };
        Drawn {
            low: at(0.025),
            high: at(0.975),
            widen: t_975((blocks - 1) as f64) / NORMAL_975 * (n as f64 / (n - length) as f64).sqrt(),
            blocks,
        }
    }
}

/// The bootstrap's percentiles, and how much wider the interval is.
struct Drawn {
    low: f64,
    high: f64,
    widen: f64,
    blocks: usize,
}

/// The range of levels in which the percentile `p` lies with 95 % confidence, from how many of each cell lie at or below
/// its estimate. Of independent values this is the interval of order statistics (W. Conover, Practical Nonparametric
/// Statistics, 3.2); of others, what R. Woodruff (Confidence intervals for medians and other position measures, JASA 47,
/// 1952) makes of a share whose spread is known.
pub fn quantile_interval(below: impl IntoIterator<Item = (f64, f64)>, p: f64) -> Option<Level> {
    Some(Blocks::new(below)?.level(p))
}

/// A share of independent or correlated yes and no, from how many there are in each cell: Wilson's score interval
/// (JASA 22, 1927) with as many trials as the block bootstrap's spread is worth.
pub fn share(cells: impl IntoIterator<Item = (f64, f64)>) -> Option<Estimate> {
    let blocks = Blocks::new(cells)?;
    let value = blocks.ratio();
    let drawn = blocks.draw(value);
    let trials: f64 = blocks.counts.iter().sum();
    let half = drawn.widen * (drawn.high - drawn.low) / 2.0;
    let worth = match half > 0.0 {
        true => (value * (1.0 - value) * (NORMAL_975 / half).powi(2)).min(trials),
        false => trials,
    };
    let z2 = NORMAL_975 * NORMAL_975;
    let centre = (value + z2 / (2.0 * worth)) / (1.0 + z2 / worth);
    let reach =
        NORMAL_975 / (1.0 + z2 / worth) * (value * (1.0 - value) / worth + z2 / (4.0 * worth * worth)).sqrt();
    Some(Estimate {
        value,
        low: if value == 0.0 {
            0.0
        } else {
            (centre - reach).max(0.0)
        },
        high: if value == 1.0 {
            1.0
        } else {
            (centre + reach).min(1.0)
        },
        blocks: drawn.blocks,
    })
}
