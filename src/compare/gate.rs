//! Gates: `--fail-on "ttft_p99 > +5%"`.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{Comparison, Row};
use crate::measure::{Metric, NoMetric};

/// A change that must not be: of a metric, above or below so many percent of the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    metric: &'static Metric,
    above: bool,
    percent: f64,
}

/// Why an expression is no gate.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum GateError {
    /// It is not of the form.
    #[error("`{text}` {why}: write a metric, > or <, and a change in percent, as in \"ttft_p99 > +5%\"")]
    Form {
        /// The expression.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// There is no such metric.
    #[error(transparent)]
    Metric(#[from] NoMetric),
}

impl FromStr for Gate {
    type Err = GateError;

    fn from_str(text: &str) -> Result<Gate, GateError> {
        let wrong = |why| GateError::Form {
            text: text.to_owned(),
            why,
        };
        let at = text
            .find(['<', '>'])
            .ok_or_else(|| wrong("has neither > nor <"))?;
        let (metric, rest) = text.split_at(at);
        let (sign, bound) = rest.split_at(1);
        let metric = match metric.trim() {
            "" => return Err(wrong("names no metric")),
            name => Metric::find(name)?,
        };
        let bound = bound
            .trim()
            .strip_suffix('%')
            .ok_or_else(|| wrong("has a bound that is no percentage"))?;
        let percent: f64 = bound
            .trim()
            .parse()
            .map_err(|_| wrong("has a bound that is no number"))?;
        match percent.is_finite() {
            true => Ok(Gate {
                metric,
                above: sign == ">",
                percent,
            }),
            false => Err(wrong("has a bound that is no number")),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.above { '>' } else { '<' };
        write!(f, "{} {sign} {:+}%", self.metric.id, self.percent)
    }
}

/// What a gate says of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Held {
    /// The expression.
    pub gate: String,
    /// What it says.
    pub ruling: Ruling,
    /// Where it failed, or why it could not be held.
    pub because: Vec<String>,
}

/// How a gate was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// No real difference went beyond it.
    Passed,
    /// One did.
    Failed,
    /// Both sides have the metric, and no difference of it could be tested: too few requests, seconds or repeats.
    Untested,
    /// There is nothing to compare: a side lacks the metric, or the two were made under other conditions.
    Incomparable,
}

impl Gate {
    /// Holds the gate against every load compared. Only differences that are real count.
    pub fn hold(&self, comparison: &Comparison) -> Held {
        let mut because = Vec::new();
        let (mut tested, mut requests) = (false, None);
        for pair in &comparison.pairs {
            for cell in &pair.cells {
                for row in cell.rows.iter().filter(|row| row.metric == self.metric.id) {
                    tested |= row.test.is_some();
                    requests = requests
                        .min(Some(cell.fewest_requests))
                        .or(Some(cell.fewest_requests));
                    if let Some(change) = row
                        .change_percent
                        .filter(|change| row.real && self.is_beyond(*change))
                    {
                        because.push(format!(
                            "{}, {}: {}",
                            pair.candidate,
                            cell.load,
                            told(row, change)
                        ));
                    }
                }
            }
        }
        let ruling = match (requests, tested) {
            (None, _) => {
                because.push("was not measured on both sides".to_owned());
                Ruling::Incomparable
            }
            (Some(requests), false) => {
                because.push(self.untested(requests));
                Ruling::Untested
            }
            (_, true) if because.is_empty() => Ruling::Passed,
            (_, true) => Ruling::Failed,
        };
        Held {
            gate: self.to_string(),
            ruling,
            because,
        }
    }

    /// The gate on sides that must not be compared.
    pub fn incomparable(&self, because: &str) -> Held {
        Held {
            gate: self.to_string(),
            ruling: Ruling::Incomparable,
            because: vec![because.to_owned()],
        }
    }

    /// Why no difference was tested, and what would change that.
    fn untested(&self, requests: u64) -> String {
        let takes = self.metric.fewest_requests().map_or_else(String::new, |needed| {
            format!(
                "that takes {needed} requests, more where neighbours are alike, and there are {requests}; measure longer, or "
            )
        });
        format!("has no interval within a run: {takes}repeat each side 3 times")
    }

    fn is_beyond(&self, change: f64) -> bool {
        match self.above {
            true => change > self.percent,
            false => change < self.percent,
        }
    }
}

fn told(row: &Row, change: f64) -> String {
    let p = row.p_corrected.unwrap_or(1.0);
    let p = if p < 0.001 {
        "p < 0.001".to_owned()
    } else {
        format!("p = {p:.3}")
    };
    format!("{change:+.1} % ({p})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_and_printed() {
        for (text, shown) in [
            ("ttft_p99 > +5%", "ttft_p99 > +5%"),
            ("output_tps<-3%", "output_tps < -3%"),
            (" itl > 2.5 %", "itl_p50 > +2.5%"),
        ] {
            assert_eq!(text.parse::<Gate>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn wrong_gates_say_what_is_right() {
        let errors = [
            "ttft_p99",
            "ttft_p99 > 5",
            "> 5%",
            "tftt_p99 > 5%",
            "ttft_p99 > much%",
            "ttft_p99 = 5%",
        ]
        .map(|text| text.parse::<Gate>().unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"));
    }
}
