//! What a request must keep to count as good: `ttft:500 tpot:50 e2el:5000`, in milliseconds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::nearest::did_you_mean;

/// Service-level objectives of one request, in milliseconds; one that is absent is met by every request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Most milliseconds to the first token.
    #[serde(rename(serialize = "ttft_ms"))]
    pub ttft: Option<f64>,
    /// Most milliseconds per output token after the first.
    #[serde(rename(serialize = "tpot_ms"))]
    pub tpot: Option<f64>,
    /// Most milliseconds to the last token.
    #[serde(rename(serialize = "e2el_ms"))]
    pub e2el: Option<f64>,
}

impl Slo {
    /// The objectives that stand for something no request can meet, or for none at all.
    pub(super) fn check(&self) -> Result<(), String> {
        let limits = [("ttft", self.ttft), ("tpot", self.tpot), ("e2el", self.e2el)];
        for (name, limit) in limits {
            if limit.is_some_and(|ms| !(ms.is_finite() && ms > 0.0)) {
                return Err(format!("the limit of `{name}` must be above 0 ms"));
            }
        }
        match limits.iter().all(|(_, limit)| limit.is_none()) {
            true => Err("no objective is given: name ttft, tpot or e2el, in milliseconds".into()),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = [("ttft", self.ttft), ("tpot", self.tpot), ("e2el", self.e2el)];
        let given = limits
            .iter()
            .filter_map(|(name, limit)| limit.map(|ms| format!("{name}:{ms}")));
        f.write_str(&given.collect::<Vec<_>>().join(" "))
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut slo = Self::default();
        for part in text.split([' ', ',']).filter(|part| !part.is_empty()) {
            let (name, limit) = part
                .split_once(':')
                .ok_or_else(|| format!("`{part}` is no objective: write `ttft:500`, in milliseconds"))?;
            let place = match name {
                "ttft" => &mut slo.ttft,
                "tpot" => &mut slo.tpot,
                "e2el" => &mut slo.e2el,
                _ => {
                    let hint = did_you_mean(name, ["ttft", "tpot", "e2el"]);
                    return Err(format!(
                        "`{name}` is no objective{hint}; there are ttft, tpot and e2el"
                    ));
                }
            };
            let limit = limit
                .trim_end_matches("ms")
                .parse()
                .map_err(|_| format!("`{limit}` is no number of milliseconds: write `{name}:500`"))?;
            if place.replace(limit).is_some() {
                return Err(format!("`{name}` is given twice: one limit is enough"));
            }
        }
        slo.check().map(|()| slo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_and_printed() {
        let slo: Slo = "ttft:500 tpot:50 e2el:5000".parse().unwrap();
        assert_eq!(
            slo,
            Slo {
                ttft: Some(500.0),
                tpot: Some(50.0),
                e2el: Some(5000.0)
            }
        );
        assert_eq!(slo.to_string(), "ttft:500 tpot:50 e2el:5000");
    }

    #[test]
    fn bad_objectives_say_what_is_right() {
        let parse = |text: &str| text.parse::<Slo>().unwrap_err();
        insta::assert_snapshot!(
            [
                parse("tftt:500"),
                parse("ttft"),
                parse("ttft:soon"),
                parse("ttft:0"),
                parse("ttft:500 ttft:300"),
                parse("")
            ]
            .join("\n")
        );
    }
}
