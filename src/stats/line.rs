//! A straight line through points.

use super::student::t_975;

/// `y = intercept + slope x`, by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// `y` where `x` is 0.
    pub intercept: f64,
    /// What one more of `x` adds to `y`.
    pub slope: f64,
    /// 95 % interval of the slope by Student's t (N. Draper and H. Smith, Applied Regression Analysis, 1.4); absent for two
    /// points, which leave nothing to judge it by.
    pub slope_ci95: Option<[f64; 2]>,
}

/// The line through these points; absent with fewer than two different `x`.
pub fn line(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if points.len() < 2 || xx == 0.0 {
        return None;
    }
    let xy: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let slope = xy / xx;
    let intercept = mean_y - slope * mean_x;
    let rest: f64 = points
        .iter()
        .map(|(x, y)| (y - intercept - slope * x).powi(2))
        .sum();
    let dof = n - 2.0;
    let half = (dof > 0.0).then(|| t_975(dof) * (rest / dof / xx).sqrt());
    Some(Line {
        intercept,
        slope,
        slope_ci95: half.map(|half| [slope - half, slope + half]),
    })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_line_without_noise_is_found_exactly() {
        let points = [(10.0, 25.0), (50.0, 65.0), (200.0, 215.0)];
        let found = line(&points).unwrap();
        assert!((found.intercept - 15.0).abs() < 1e-9 && (found.slope - 1.0).abs() < 1e-12);
        let [low, high] = found.slope_ci95.unwrap();
        assert!(high - low < 1e-6);
        assert_eq!(line(&points[..2]).unwrap().slope_ci95, None);
        assert_eq!(line(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(line(&[]), None);
    }

    #[test]
    fn the_slope_lies_in_its_interval_95_times_in_100() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut covered = 0;
        for _ in 0..2_000 {
            let noise = |rng: &mut ChaCha8Rng| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            let points: Vec<_> = [10.0, 50.0, 200.0]
                .into_iter()
                .cycle()
                .take(15)
                .map(|x: f64| (x, 5.0 + 0.4 * x + 3.0 * noise(&mut rng)))
                .collect();
            let [low, high] = line(&points).unwrap().slope_ci95.unwrap();
            covered += u32::from((low..=high).contains(&0.4));
        }
        let share = f64::from(covered) / 2_000.0;
        assert!((0.93..=0.97).contains(&share), "{share}");
    }
}
