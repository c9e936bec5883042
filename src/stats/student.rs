//! Student's t distribution, from `statrs`.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// 97.5 % quantile of the standard normal distribution.
pub(super) const NORMAL_975: f64 = 1.959_963_985;

/// 97.5 % quantile of Student's t: what a 95 % interval is wide by, in standard errors.
pub(super) fn t_975(dof: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, dof.max(1.0)) {
        Ok(t) => t.inverse_cdf(0.975),
        Err(_) => f64::INFINITY,
    }
}

/// The probability that |t| is at least this large.
pub(super) fn two_sided(t: f64, dof: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, dof.max(1.0)) {
        Ok(distribution) => (2.0 * distribution.cdf(-t.abs())).min(1.0),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (dof, t) in [
            (1.0, 12.706),
            (2.0, 4.303),
            (4.0, 2.776),
            (9.0, 2.262),
            (19.0, 2.093),
            (99.0, 1.984),
        ] {
            assert!((t_975(dof) - t).abs() < 0.001, "{dof}: {}", t_975(dof));
            assert!((two_sided(t_975(dof), dof) - 0.05).abs() < 1e-6);
        }
    }
}
