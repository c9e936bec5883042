//! What lies between two independent values that have intervals.

use super::Estimate;
use super::student::{t_975, two_sided};

/// How the second of two values differs from the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The second over the first; absent where one of them is not above 0.
    pub ratio: Option<f64>,
    /// Its 95 % interval; absent where one of the two values' intervals is not all above 0.
    pub ratio_ci95: Option<[f64; 2]>,
    /// The probability of a difference at least as large between two runs that do not differ.
    pub p: f64,
}

/// Compares two values by their intervals, on the scale of logarithms where both intervals lie above 0: the interval of
/// the difference is built from the distances of each value to its own limits, which need not be alike to both sides
/// (method of variance estimates recovery: G. Zou and A. Donner, Construction of confidence limits about effect
/// measures, Statistics in Medicine 27, 2008). `p` is what Student's t, with the fewer of both degrees of freedom, says of
/// the distance to 0 in units of the limit that faces it: below 5 % if and only if the 95 % interval leaves 0 out.
pub fn difference(first: &Estimate, second: &Estimate) -> Difference {
    let positive = first.low.min(second.low) > 0.0;
    let scale = |e: &Estimate| match positive {
        true => [e.low.ln(), e.value.ln(), e.high.ln()],
        false => [e.low, e.value, e.high],
    };
    let ([low1, value1, high1], [low2, value2, high2]) = (scale(first), scale(second));
    let apart = value2 - value1;
    let down = (value2 - low2).hypot(high1 - value1);
    let up = (high2 - value2).hypot(value1 - low1);
    let facing = if apart > 0.0 { down } else { up };
    let dof = first.blocks.min(second.blocks).saturating_sub(1).max(1) as f64;
    let p = match (apart == 0.0, facing > 0.0) {
        (true, _) => 1.0,
        (false, true) => two_sided(t_975(dof) * apart / facing, dof),
        (false, false) => 0.0,
    };
    Difference {
        ratio: (first.value > 0.0 && second.value > 0.0).then(|| second.value / first.value),
        ratio_ci95: positive.then(|| [(apart - down).exp(), (apart + up).exp()]),
        p,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(value: f64, low: f64, high: f64) -> Estimate {
        Estimate {
            value,
            low,
            high,
            blocks: 30,
        }
    }

    #[test]
    fn p_is_below_5_percent_exactly_when_the_interval_leaves_1_out() {
        for (low, high) in [(95.0, 105.0), (85.0, 119.0), (90.0, 140.0)] {
            for second in [101.0, 107.0, 112.0, 120.0, 140.0] {
                let second = estimate(second, second * 0.95, second * 1.06);
                let found = difference(&estimate(100.0, low, high), &second);
                let [down, up] = found.ratio_ci95.unwrap();
                assert!(down < found.ratio.unwrap() && found.ratio.unwrap() < up);
                assert_eq!(found.p < 0.05, down > 1.0, "{found:?}");
                let back = difference(&second, &estimate(100.0, low, high));
                assert!(
                    (back.p - found.p).abs() < 1e-12
                        && (back.ratio.unwrap() * found.ratio.unwrap() - 1.0).abs() < 1e-12
                );
            }
        }
    }

    #[test]
    fn a_value_of_0_is_compared_without_a_ratio() {
        let found = difference(&estimate(0.0, 0.0, 0.01), &estimate(0.2, 0.15, 0.26));
        assert_eq!((found.ratio, found.ratio_ci95), (None, None));
        assert!(found.p < 0.001);
        assert_eq!(
            difference(&estimate(0.0, 0.0, 0.0), &estimate(0.0, 0.0, 0.0)).p,
            1.0
        );
    }
}
