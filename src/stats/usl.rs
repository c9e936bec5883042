//! The Universal Scalability Law: what more users add, and what they cost.
//!
//! X(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1)): N. Gunther, A simple capacity model of massively parallel
//! transaction systems, CMG 1993; Guerrilla Capacity Planning, 2007, chapter 4.

use super::student::t_975;

/// Measured loads without which the law's three parameters mean nothing.
const FEWEST_LOADS: usize = 4;

/// A step counts as linear from this efficiency on.
const LINEAR: f64 = 0.9;

/// A parameter with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its value.
    pub value: f64,
    /// Its interval.
    pub ci95: [f64; 2],
}

/// The law, fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted {
    /// Throughput of one user alone.
    pub lambda: Parameter,
    /// Contention: the share of the work that users must wait for each other to do. 0 without it.
    pub sigma: Parameter,
    /// Coherency: what each pair of users costs. 0 without it: then throughput has no peak.
    pub kappa: Parameter,
    /// Users at which throughput is highest, sqrt((1 - sigma) / kappa), with its interval; absent where `kappa` cannot be
    /// told from 0.
    pub peak_users: Option<Parameter>,
    /// How far the measured throughputs lie from the law, as a share: the standard deviation of their logarithms.
    pub residual: f64,
}

impl Fitted {
    /// Throughput at so many users, by the law.
    pub fn throughput(&self, users: f64) -> f64 {
        self.lambda.value * users / divisor(users, self.sigma.value, self.kappa.value)
    }
}

fn divisor(n: f64, sigma: f64, kappa: f64) -> f64 {
    1.0 + sigma * (n - 1.0) + kappa * n * (n - 1.0)
}

/// Fits the law to (users, throughput) by least squares on the logarithms of throughput, as errors are shares of what is
/// measured: a weighted linear fit of n / X, which is linear in 1 / lambda, sigma / lambda and kappa / lambda, polished by
/// Gauss and Newton's steps. A parameter that would be below 0 is held at 0. Intervals are those of the linearised fit with
/// Student's t.
///
/// Absent with fewer than 4 different loads, or a throughput of 0.
pub fn fit(points: &[(f64, f64)]) -> Option<Fitted> {
    let mut loads: Vec<f64> = points.iter().map(|(n, _)| *n).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    let sound = points.iter().all(|&(n, x)| n >= 1.0 && x > 0.0 && x.is_finite());
    if loads.len() < FEWEST_LOADS || !sound {
        return None;
    }
    // Which of (sigma, kappa) may differ from 0: both, else the better one alone, else none.
    let tries = [[true, true], [true, false], [false, true], [false, false]];
    let solved = tries.map(|free| solve(points, free));
    let allowed = |s: &&Solution| s.sigma >= 0.0 && s.kappa >= 0.0;
    let best = solved
        .iter()
        .flatten()
        .filter(allowed)
        .min_by(|a, b| a.squares.total_cmp(&b.squares))?;
    // Intervals are of the whole law: a parameter held at 0 is not known to be 0.
    let whole = solved[0].as_ref().unwrap_or(best);
    Some(best.with_intervals(whole, points))
}

/// The law's parameters for a choice of free ones.
#[derive(Debug, Clone, Copy)]
struct Solution {
    lambda: f64,
    sigma: f64,
    kappa: f64,
    squares: f64,
}

/// Least squares with `sigma` and `kappa` free or held at 0.
fn solve(points: &[(f64, f64)], free: [bool; 2]) -> Option<Solution> {
    let columns = |n: f64| {
        [
            1.0,
            if free[0] { n - 1.0 } else { 0.0 },
            if free[1] { n * (n - 1.0) } else { 0.0 },
        ]
    };
    let (mut normal, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
    for &(n, x) in points {
        let (row, y) = (columns(n), n / x);
        accumulate(&mut normal, &mut right, row.map(|c| c / y), 1.0);
    }
    let [a, b, c] = solved(normal, right, free)?;
    let mut found = Solution {
        lambda: 1.0 / a,
        sigma: b / a,
        kappa: c / a,
        squares: 0.0,
    };
    found.squares = found.squares_of(points)?;
    for _ in 0..20 {
        let (mut normal, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
        for &(n, x) in points {
            let row = found.slope(n, free);
            accumulate(&mut normal, &mut right, row, (x / found.at(n)).ln());
        }
        let step = solved(normal, right, free)?;
        let Some(better) = found.after(step, points) else {
            break;
        };
        let gain = found.squares - better.squares;
        found = better;
        if gain <= 1e-14 * (found.squares + 1e-300) {
            break;
        }
    }
    Some(found)
}

impl Solution {
    fn at(&self, n: f64) -> f64 {
        self.lambda * n / divisor(n, self.sigma, self.kappa)
    }

    /// Derivatives of ln X by ln lambda, sigma and kappa.
    fn slope(&self, n: f64, free: [bool; 2]) -> [f64; 3] {
        let d = divisor(n, self.sigma, self.kappa);
        let of = |free: bool, x: f64| if free { -x / d } else { 0.0 };
        [1.0, of(free[0], n - 1.0), of(free[1], n * (n - 1.0))]
    }

    /// Sum of squared logarithmic errors; absent where the law is not above 0.
    fn squares_of(&self, points: &[(f64, f64)]) -> Option<f64> {
        let error = |&(n, x): &(f64, f64)| {
            let law = self.at(n);
            (law > 0.0 && law.is_finite()).then(|| (x / law).ln().powi(2))
        };
        points.iter().map(error).sum()
    }

    /// The solution a step further, the step halved until it is a better one.
    fn after(&self, step: [f64; 3], points: &[(f64, f64)]) -> Option<Solution> {
        (0..20).map(|halvings| 0.5_f64.powi(halvings)).find_map(|part| {
            let mut next = Solution {
                lambda: self.lambda * (part * step[0]).exp(),
                sigma: self.sigma + part * step[1],
                kappa: self.kappa + part * step[2],
                squares: 0.0,
            };
            next.squares = next.squares_of(points)?;
            (next.squares < self.squares).then_some(next)
        })
    }

    fn with_intervals(&self, whole: &Solution, points: &[(f64, f64)]) -> Fitted {
        let free = [true, true];
        let mut normal = [[0.0; 3]; 3];
        for &(n, _) in points {
            accumulate(&mut normal, &mut [0.0; 3], whole.slope(n, free), 0.0);
        }
        let dof = (points.len() as f64 - 3.0).max(1.0);
        let variance = whole.squares / dof;
        let column = |i: usize| {
            let mut unit = [0.0; 3];
            unit[i] = 1.0;
            solved(normal, unit, free).unwrap_or([f64::INFINITY; 3])
        };
        let covariance = [column(0), column(1), column(2)].map(|c| c.map(|x| x * variance));
        let t = t_975(dof);
        let half = |i: usize| t * covariance[i][i].sqrt();
        let shares = |value: f64, centre: f64, half: f64| Parameter {
            value,
            ci95: [(centre - half).max(0.0), (centre + half).max(0.0)],
        };
        let sigma = shares(self.sigma, whole.sigma, half(1));
        let kappa = shares(self.kappa, whole.kappa, half(2));
        let log = half(0);
        let peak = (kappa.ci95[0] > 0.0 && self.sigma < 1.0 && self.kappa > 0.0).then(|| {
            let users = ((1.0 - self.sigma) / self.kappa).sqrt();
            // Of ln users, by the derivatives with respect to sigma and kappa.
            let slope = [-0.5 / (1.0 - self.sigma), -0.5 / self.kappa];
            let spread = slope[0] * slope[0] * covariance[1][1]
                + 2.0 * slope[0] * slope[1] * covariance[1][2]
                + slope[1] * slope[1] * covariance[2][2];
            let reach = t * spread.max(0.0).sqrt();
            Parameter {
                value: users,
                ci95: [users * (-reach).exp(), users * reach.exp()],
            }
        });
        Fitted {
            lambda: Parameter {
                value: self.lambda,
                ci95: [whole.lambda * (-log).exp(), whole.lambda * log.exp()],
            },
            sigma,
            kappa,
            peak_users: peak,
            residual: (self.squares / dof).sqrt(),
        }
    }
}

fn accumulate(normal: &mut [[f64; 3]; 3], right: &mut [f64; 3], row: [f64; 3], y: f64) {
    for ((equation, sum), factor) in normal.iter_mut().zip(right).zip(row) {
        for (cell, other) in equation.iter_mut().zip(row) {
            *cell += factor * other;
        }
        *sum += factor * y;
    }
}

/// Solves the normal equations by determinants; what is not free stays 0. They are scaled, as n (n - 1) dwarfs 1.
fn solved(mut normal: [[f64; 3]; 3], mut right: [f64; 3], free: [bool; 2]) -> Option<[f64; 3]> {
    for (i, free) in [(1, free[0]), (2, free[1])] {
        if !free {
            normal[i] = [0.0; 3];
            normal[i][i] = 1.0;
            right[i] = 0.0;
        }
    }
    let all = [0, 1, 2];
    let scale = all.map(|i| 1.0 / normal[i][i].sqrt());
    let [a, b, c] = all.map(|i| all.map(|j| normal[i][j] * scale[i] * scale[j]));
    let y = all.map(|i| right[i] * scale[i]);
    let whole = determinant(a, b, c);
    let parts = [determinant(y, b, c), determinant(a, y, c), determinant(a, b, y)];
    (whole > 1e-13).then(|| all.map(|i| parts[i] / whole * scale[i]))
}

fn determinant(a: [f64; 3], b: [f64; 3], c: [f64; 3]) -> f64 {
    a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
}

/// The knee: the load with the most power, throughput over response time (L. Kleinrock, Power and deterministic rules of
/// thumb for probabilistic problems in computer communications, ICC 1979; R. Jain, The Art of Computer Systems Performance
/// Analysis, 1991, 3.3). Users who wait for nothing but answers make throughput times response time their number
/// (Little's law), so that power is throughput squared over users.
pub fn knee(points: &[(f64, f64)]) -> Option<f64> {
    let power = |&(n, x): &(f64, f64)| x * x / n;
    let best = points.iter().max_by(|a, b| power(a).total_cmp(&power(b)))?;
    (best.1 > 0.0).then_some(best.0)
}

/// The most users up to which every measured load had at least 90 % of the throughput per user of the smallest one.
/// `points` are in the order of users.
pub fn linear_up_to(points: &[(f64, f64)]) -> Option<f64> {
    let (n, x) = points.first().copied().filter(|(_, x)| *x > 0.0)?;
    let linear = |&&(users, throughput): &&(f64, f64)| throughput / users >= LINEAR * x / n;
    points.iter().take_while(linear).last().map(|(users, _)| *users)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    const USERS: [f64; 10] = [1.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 80.0, 100.0];

    fn law(lambda: f64, sigma: f64, kappa: f64) -> Vec<(f64, f64)> {
        USERS
            .iter()
            .map(|&n| (n, lambda * n / divisor(n, sigma, kappa)))
            .collect()
    }

    #[test]
    fn known_parameters_are_recovered() {
        for (lambda, sigma, kappa) in [
            (72.0, 0.05, 0.0004),
            (50.0, 0.2, 0.0),
            (10.0, 0.0, 0.001),
            (995.6, 0.02671, 0.000769),
        ] {
            let found = fit(&law(lambda, sigma, kappa)).unwrap();
            assert!((found.lambda.value / lambda - 1.0).abs() < 1e-6, "{found:?}");
            assert!(
                (found.sigma.value - sigma).abs() < 1e-6 && (found.kappa.value - kappa).abs() < 1e-8,
                "{found:?}"
            );
            assert!(found.residual < 1e-6);
            if kappa > 0.0 {
                let peak = found.peak_users.unwrap().value;
                assert!((peak - ((1.0 - sigma) / kappa).sqrt()).abs() < 0.01);
            }
        }
    }

    #[test]
    fn intervals_hold_the_truth_95_times_in_100() {
        let (lambda, sigma, kappa, noise) = (72.0, 0.08, 0.0005, 0.02);
        let truth = law(lambda, sigma, kappa);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut held = [0; 4];
        for _ in 0..2_000 {
            let noisy: Vec<_> = truth
                .iter()
                .map(|&(n, x)| {
                    let error: f64 = StandardNormal.sample(&mut rng);
                    (n, x * (noise * error).exp())
                })
                .collect();
            let found = fit(&noisy).unwrap();
            let holds = |p: Parameter, truth: f64| usize::from(p.ci95[0] <= truth && truth <= p.ci95[1]);
            let peak = found.peak_users.unwrap();
            for (held, now) in held.iter_mut().zip([
                holds(found.lambda, lambda),
                holds(found.sigma, sigma),
                holds(found.kappa, kappa),
                holds(peak, ((1.0 - sigma) / kappa).sqrt()),
            ]) {
                *held += now;
            }
        }
        assert!(
            held.iter().all(|&n| (1_860..=1_940).contains(&n)),
            "{held:?} of 2000"
        );
    }

    #[test]
    fn what_would_be_negative_is_0_and_has_no_peak() {
        let better_than_linear: Vec<_> = USERS.iter().map(|&n| (n, 10.0 * n.powf(1.05))).collect();
        let found = fit(&better_than_linear).unwrap();
        assert_eq!((found.sigma.value, found.kappa.value), (0.0, 0.0));
        assert_eq!(found.peak_users, None);
    }

    #[test]
    fn too_few_loads_or_none_that_work_have_no_law() {
        assert_eq!(fit(&law(10.0, 0.1, 0.0)[..3]), None);
        let same = [(1.0, 5.0), (1.0, 6.0), (2.0, 9.0), (2.0, 8.0), (3.0, 10.0)];
        assert_eq!(fit(&same), None, "three loads, repeated");
        assert_eq!(fit(&[(1.0, 5.0), (2.0, 9.0), (4.0, 0.0), (8.0, 20.0)]), None);
    }

    #[test]
    fn the_knee_and_the_linear_part() {
        let points = [
            (1.0, 10.0),
            (2.0, 20.0),
            (4.0, 38.0),
            (8.0, 60.0),
            (16.0, 70.0),
            (32.0, 60.0),
        ];
        assert_eq!(knee(&points), Some(8.0), "60 * 60 / 8 is the most");
        assert_eq!(linear_up_to(&points), Some(4.0));
        assert_eq!((knee(&[]), linear_up_to(&[(1.0, 0.0)])), (None, None));
    }
}
