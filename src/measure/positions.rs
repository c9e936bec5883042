//! How fast tokens come, by their place in the answer: does decoding slow down as the context grows?

use super::result::PositionItl;

/// Sums of inter-token latencies by position, in buckets that grow: four for each factor of two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    buckets: Vec<Sum>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    tokens: u64,
    ns: u64,
}

/// The bucket of a position; positions up to 7 have one each.
fn bucket(position: u64) -> usize {
    if position < 4 {
        return position as usize;
    }
    let octave = position.ilog2();
    let quarter = (position >> (octave - 2)) & 3;
    (4 * (octave - 1)) as usize + quarter as usize
}

/// The first position of a bucket.
fn first(bucket: usize) -> u64 {
    match bucket {
        0..4 => bucket as u64,
        _ => (4 + bucket as u64 % 4) << (bucket / 4 - 1),
    }
}

impl Positions {
    /// Adds `tokens` that came in `ns`, the last of them the answer's token of number `position`, counted from 1.
    pub(super) fn add(&mut self, position: u64, tokens: u64, ns: u64) {
        let bucket = bucket(position);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, Sum::default());
        }
        self.buckets[bucket].tokens += tokens;
        self.buckets[bucket].ns = self.buckets[bucket].ns.saturating_add(ns);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (bucket, sum) in other.buckets.iter().enumerate().filter(|(_, sum)| sum.tokens > 0) {
            self.add(first(bucket), sum.tokens, sum.ns);
        }
    }

    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }

    /// The mean inter-token latency of each bucket that has tokens.
    pub(super) fn means(&self) -> Vec<PositionItl> {
        let mean = |(bucket, sum): (usize, &Sum)| PositionItl {
            from: first(bucket),
            to: first(bucket + 1) - 1,
            tokens: sum.tokens,
            mean_ms: super::histogram::round(sum.ns as f64 / sum.tokens as f64 / 1e6),
        };
        let sums = self.buckets.iter().enumerate();
        sums.filter(|(_, sum)| sum.tokens > 0).map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_position_lies_in_its_bucket(position in 0_u64..1 << 50) {
            let bucket = bucket(position);
            prop_assert!(first(bucket) <= position && position < first(bucket + 1));
        }
    }

    #[test]
    fn means_are_told_by_position_and_merge() {
        let (mut one, mut other) = (Positions::default(), Positions::default());
        one.add(2, 1, 10_000_000);
        one.add(2, 1, 30_000_000);
        other.add(100, 4, 8_000_000);
        one.merge(&other);
        let means = one.means();
        let told: Vec<_> = means
            .iter()
            .map(|m| (m.from, m.to, m.tokens, m.mean_ms))
            .collect();
        assert_eq!(told, [(2, 2, 2, 20.0), (96, 111, 4, 2.0)]);
    }
}
