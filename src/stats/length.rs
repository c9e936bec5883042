//! How long the blocks of a bootstrap are.

/// Blocks that a series is cut into, at least and at most. Fewer tell too little of their own spread; more would take
/// neighbours apart without need.
const FEWEST: usize = 10;
const MOST: usize = 50;

/// Blocks are so many times as long as is best for the estimated variance: that length leaves a bias that makes intervals
/// too narrow, while the spread that longer blocks add is known and taken into account (Student's t).
const LONGER: f64 = 3.0;

/// The block length for a series of deviations from their mean: three times that of Politis and White, such that there
/// are 10 to 50 blocks.
pub(super) fn block_length(deviations: &[f64]) -> usize {
    let n = deviations.len();
    let shortest = n.div_ceil(MOST).max(1);
    let longest = (n / FEWEST).max(1);
    let wanted = (LONGER * politis_white(deviations)).round() as usize;
    wanted.clamp(shortest.min(longest), longest)
}

/// The automatic block length for the circular bootstrap: D. Politis and H. White, Automatic block-length selection for
/// the dependent bootstrap, Econometric Reviews 23 (2004), as corrected by A. Patton, D. Politis and H. White, ibid. 28
/// (2009). Correlations count up to twice the lag after which they are too small to be told from none.
fn politis_white(deviations: &[f64]) -> f64 {
    let n = deviations.len() as f64;
    if n < 8.0 {
        return 1.0;
    }
    let in_a_row = (n.log10().sqrt() as usize).max(5);
    let most = (n.sqrt().ceil() as usize + in_a_row).min(deviations.len() - 1);
    let covariance = |lag: usize| {
        let products = deviations[lag..].iter().zip(deviations).map(|(x, y)| x * y);
        products.sum::<f64>() / n
    };
    let covariances: Vec<f64> = (0..=most).map(covariance).collect();
    let variance = covariances[0];
    if variance <= 0.0 {
        return 1.0;
    }
    let small = 2.0 * (n.log10() / n).sqrt() * variance;
    let last = (1..=most)
        .find(|&lag| covariances[lag..].iter().take(in_a_row).all(|c| c.abs() < small))
        .map_or(most, |lag| lag - 1);
    let reach = (2 * last.max(1)).min(most);
    // The flat-top window: whole up to half the reach, then down to nothing.
    let (mut spectrum, mut slope) = (variance, 0.0);
    for (lag, covariance) in covariances.iter().enumerate().take(reach + 1).skip(1) {
        let at = lag as f64 / reach as f64;
        let weight = if at <= 0.5 { 1.0 } else { 2.0 * (1.0 - at) };
        spectrum += 2.0 * weight * covariance;
        slope += 2.0 * weight * lag as f64 * covariance;
    }
    let spread = 4.0 / 3.0 * spectrum * spectrum;
    let length = match spread > 0.0 {
        true => (2.0 * slope * slope / spread).cbrt() * n.cbrt(),
        false => 1.0,
    };
    length.clamp(1.0, (3.0 * n.sqrt()).min(n / 3.0).ceil())
}

#[cfg(test)]
mod tests {
    use super::super::truth::series;
    use super::*;

    fn length(correlation: f64) -> usize {
        let values = series(7, 2_000, correlation, 0.5);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        block_length(&values.iter().map(|x| x - mean).collect::<Vec<_>>())
    }

    #[test]
    fn blocks_are_longer_where_neighbours_are_alike() {
        let (none, some, much) = (length(0.0), length(0.5), length(0.8));
        assert_eq!(none, 40, "as short as is allowed");
        assert!(none <= some && some < much && much <= 200, "{none} {some} {much}");
    }

    #[test]
    fn a_short_or_constant_series_has_a_length() {
        assert_eq!(block_length(&[1.0]), 1);
        assert_eq!(block_length(&[0.0; 50]), 3, "nothing to see");
    }
}
