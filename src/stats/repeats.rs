//! Repeats: values that were measured anew, independent of each other.

use super::student::{t_975, two_sided};

/// What repeats of one figure say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Number of repeats.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Standard deviation (over n - 1); absent for one repeat.
    pub sd: Option<f64>,
    /// 95 % interval of the mean by Student's t; absent for one repeat.
    pub ci95: Option<[f64; 2]>,
}

impl Spread {
    /// Of these values; absent when there are none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (n, (min, max)) = (sorted.len(), (*sorted.first()?, *sorted.last()?));
        let mean = values.iter().sum::<f64>() / n as f64;
        let sd = (n > 1).then(|| variance(values, mean).sqrt());
        let half = sd.map(|sd| t_975((n - 1) as f64) * sd / (n as f64).sqrt());
        Some(Spread {
            n,
            mean,
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
            min,
            max,
            sd,
            ci95: half.map(|half| [mean - half, mean + half]),
        })
    }

    /// Coefficient of variation: standard deviation over mean.
    pub fn cv(&self) -> Option<f64> {
        self.sd
            .filter(|_| self.mean != 0.0)
            .map(|sd| sd / self.mean.abs())
    }

    /// Half the width of the mean's interval over the mean: how far it is known, as a share of it.
    pub fn within(&self) -> Option<f64> {
        let [low, high] = self.ci95?;
        (self.mean != 0.0).then(|| (high - low) / 2.0 / self.mean.abs())
    }
}

fn variance(values: &[f64], mean: f64) -> f64 {
    values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
}

/// Two sets of repeats, compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Welch {
    /// Welch's t.
    pub t: f64,
    /// Its degrees of freedom.
    pub dof: f64,
    /// The probability of a t at least as large between sets that do not differ.
    pub p: f64,
    /// Hedges' g: the difference of the means over the pooled standard deviation, corrected for small numbers (L. Hedges,
    /// Distribution theory for Glass's estimator of effect size, Journal of Educational Statistics 6, 1981). Absent where
    /// no repeat differs from another of its set.
    pub effect: Option<f64>,
    /// Whether the logarithms were compared: all values are above 0. Then the ratio is that of the geometric means.
    pub logarithms: bool,
    /// 95 % interval of the ratio of the second to the first.
    pub ratio_ci95: Option<[f64; 2]>,
}

/// Welch's t test (B. Welch, The generalization of Student's problem, Biometrika 34, 1947) of the second set against the
/// first; on logarithms where all values are above 0, because what differs between runs does so by factors. Absent when a
/// set has fewer than 2 values.
pub fn welch(first: &[f64], second: &[f64]) -> Option<Welch> {
    if first.len().min(second.len()) < 2 {
        return None;
    }
    let logarithms = first.iter().chain(second).all(|&x| x > 0.0);
    let scale = |values: &[f64]| -> Vec<f64> {
        let scaled = values.iter().map(|x| if logarithms { x.ln() } else { *x });
        scaled.collect()
    };
    let (first, second) = (scale(first), scale(second));
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean1, mean2) = (mean(&first), mean(&second));
    let (var1, var2) = (variance(&first, mean1), variance(&second, mean2));
    let (part1, part2) = (var1 / n1, var2 / n2);
    let (apart, error) = (mean2 - mean1, (part1 + part2).sqrt());
    let constant = error <= 1e-12 * mean1.abs().max(mean2.abs());
    let dof = match constant {
        true => n1 + n2 - 2.0,
        false => (part1 + part2).powi(2) / (part1.powi(2) / (n1 - 1.0) + part2.powi(2) / (n2 - 1.0)),
    };
    let t = match constant {
        true if apart.abs() <= 1e-12 * mean1.abs() => 0.0,
        true => f64::INFINITY.copysign(apart),
        false => apart / error,
    };
    let pooled = (((n1 - 1.0) * var1 + (n2 - 1.0) * var2) / (n1 + n2 - 2.0)).sqrt();
    let small = 1.0 - 3.0 / (4.0 * (n1 + n2 - 2.0) - 1.0);
    let half = t_975(dof) * error;
    Some(Welch {
        t,
        dof,
        p: if t.is_infinite() { 0.0 } else { two_sided(t, dof) },
        effect: (!constant).then(|| small * apart / pooled),
        logarithms,
        ratio_ci95: logarithms.then(|| [(apart - half).exp(), (apart + half).exp()]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_summed_up() {
        let spread = Spread::of(&[10.0, 12.0, 11.0, 15.0]).unwrap();
        assert_eq!(
            (spread.mean, spread.median, spread.min, spread.max),
            (12.0, 11.5, 10.0, 15.0)
        );
        assert!((spread.sd.unwrap() - 2.160).abs() < 0.001 && (spread.cv().unwrap() - 0.180).abs() < 0.001);
        // 3.182 * 2.160 / 2, over 12
        assert!((spread.within().unwrap() - 0.2864).abs() < 0.001);
        assert_eq!(Spread::of(&[3.0]).unwrap().ci95, None);
        assert_eq!(Spread::of(&[]), None);
    }

    /// The example of Welch's test in the R documentation of `t.test(extra ~ group, data = sleep)`: t = -1.8608,
    /// df = 17.776, p-value = 0.07939. Values at or below 0 are compared as they are.
    #[test]
    fn students_sleep_data() {
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let found = welch(&first, &second).unwrap();
        assert!((found.t - 1.8608).abs() < 1e-4 && (found.dof - 17.776).abs() < 1e-3);
        assert!((found.p - 0.07939).abs() < 1e-5 && !found.logarithms);
    }

    #[test]
    fn factors_are_compared_as_factors() {
        let found = welch(&[100.0, 102.0, 98.0], &[200.0, 204.0, 196.0]).unwrap();
        let [low, high] = found.ratio_ci95.unwrap();
        assert!(
            low < 2.0 && 2.0 < high && found.p < 1e-4 && found.effect.unwrap() > 10.0,
            "{found:?}"
        );
        let same = welch(&[5.0, 5.0], &[5.0, 5.0]).unwrap();
        assert_eq!((same.p, same.effect), (1.0, None));
        assert_eq!(welch(&[5.0, 5.0], &[6.0, 6.0]).unwrap().p, 0.0);
        assert_eq!(welch(&[5.0], &[6.0, 6.0]), None);
    }
}
