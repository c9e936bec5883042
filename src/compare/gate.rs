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
    /// Whether a real difference went beyond it.
    pub failed: bool,
    /// Where, and what it is about otherwise.
    pub because: Vec<String>,
}

impl Gate {
    /// Holds the gate against every load compared. Only differences that are real count.
    pub fn hold(&self, comparison: &Comparison) -> Held {
        let mut held = Held {
            gate: self.to_string(),
            failed: false,
            because: Vec::new(),
        };
        let (mut seen, mut tested) = (false, false);
        for pair in &comparison.pairs {
            for cell in &pair.cells {
                for row in cell.rows.iter().filter(|row| row.metric == self.metric.id) {
                    (seen, tested) = (true, tested || row.test.is_some());
                    if let Some(change) = row
                        .change_percent
                        .filter(|change| row.real && self.is_beyond(*change))
                    {
                        held.failed = true;
                        held.because.push(format!(
                            "{}, {} users: {}",
                            pair.candidate,
                            cell.load.users,
                            told(row, change)
                        ));
                    }
                }
            }
        }
        match (seen, tested) {
            (false, _) => held.because.push("was not measured on both sides".to_owned()),
            (true, false) => held
                .because
                .push("has no interval within a run: 3 repeats of each side test it".to_owned()),
            _ => {}
        }
        held
    }

    /// Whether both sides have the metric at some load.
    pub fn is_measured(&self, comparison: &Comparison) -> bool {
        let cells = comparison.pairs.iter().flat_map(|pair| &pair.cells);
        let mut rows = cells.flat_map(|cell| &cell.rows);
        rows.any(|row| row.metric == self.metric.id)
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
