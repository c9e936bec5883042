//! When repeats are enough: `output_tps:2%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A metric, and how well its mean over the repeats must be known before they end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stable {
    /// The metric's name, as in `loadtest compare`.
    pub metric: String,
    /// Half the width of the 95 % interval of its mean, as a share of the mean.
    pub within: f64,
}

impl FromStr for Stable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("`{text}` {why}: write a metric and a bound in percent, as `output_tps:2%`");
        let (metric, bound) = text.split_once(':').ok_or_else(|| wrong("has no bound"))?;
        let percent = bound
            .trim()
            .strip_suffix('%')
            .ok_or_else(|| wrong("has a bound that is no percentage"))?;
        let percent: f64 = percent
            .trim()
            .parse()
            .map_err(|_| wrong("has a bound that is no number"))?;
        match percent > 0.0 && percent < 100.0 && !metric.trim().is_empty() {
            true => Ok(Stable {
                metric: metric.trim().to_owned(),
                within: percent / 100.0,
            }),
            false => Err(wrong("asks for nothing")),
        }
    }
}

impl TryFrom<String> for Stable {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Stable> for String {
    fn from(stable: Stable) -> String {
        stable.to_string()
    }
}

impl fmt::Display for Stable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}%", self.metric, (self.within * 1e6).round() / 1e4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_and_a_bound_are_read_and_printed() {
        let stable: Stable = "output_tps:2%".parse().unwrap();
        assert_eq!((stable.metric.as_str(), stable.within), ("output_tps", 0.02));
        assert_eq!(stable.to_string(), "output_tps:2%");
    }

    #[test]
    fn wrong_ones_say_what_is_right() {
        let errors = [
            "output_tps",
            "output_tps:2",
            "output_tps:x%",
            "output_tps:0%",
            ":2%",
        ]
        .map(|text| text.parse::<Stable>().unwrap_err());
        insta::assert_snapshot!(errors.join("\n"));
    }
}
