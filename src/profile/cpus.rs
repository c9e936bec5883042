//! A set of processors, written as `0,2-3`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Numbers of processors as the system counts them, in order, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpus(Vec<usize>);

/// The highest number that is taken: what the system's own sets of processors have room for.
const HIGHEST: usize = 1023;

impl Cpus {
    /// These processors; nothing if there are none.
    pub fn new(mut cpus: Vec<usize>) -> Option<Cpus> {
        cpus.sort_unstable();
        cpus.dedup();
        (!cpus.is_empty()).then_some(Cpus(cpus))
    }

    /// Their numbers, in order.
    pub fn list(&self) -> &[usize] {
        &self.0
    }

    /// Those of `all` that are not in this set; nothing if none is left.
    pub fn others(&self, all: &[usize]) -> Option<Cpus> {
        Cpus::new(all.iter().copied().filter(|cpu| !self.0.contains(cpu)).collect())
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |part: &str, why: &str| format!("`{part}` {why}: write numbers and ranges such as `0,2-3`");
        let number = |part: &str| match part.trim().parse::<usize>() {
            Ok(cpu) if cpu <= HIGHEST => Ok(cpu),
            _ => Err(wrong(
                part.trim(),
                &format!("is no processor from 0 to {HIGHEST}"),
            )),
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong(part.trim(), "goes down"));
            }
            cpus.extend(first..=last);
        }
        Cpus::new(cpus).ok_or_else(|| wrong(text, "names no processor"))
    }
}

impl TryFrom<String> for Cpus {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cpus> for String {
    fn from(cpus: Cpus) -> String {
        cpus.to_string()
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cpus in prop::collection::btree_set(0_usize..200, 1..40)) {
            let list: Vec<usize> = cpus.into_iter().collect();
            let cpus = Cpus::new(list.clone()).unwrap();
            prop_assert_eq!(cpus.to_string().parse::<Cpus>(), Ok(cpus));
        }
    }

    #[test]
    fn numbers_and_ranges_in_any_order() {
        let cpus: Cpus = "7, 0,2-3,3".parse().unwrap();
        assert_eq!(
            (cpus.list(), cpus.to_string().as_str()),
            (&[0, 2, 3, 7][..], "0,2-3,7")
        );
        assert_eq!(cpus.others(&[0, 1, 2, 8]), Cpus::new(vec![1, 8]));
        assert_eq!(cpus.others(&[0, 7]), None);
    }

    #[test]
    fn bad_sets_say_what_is_right() {
        let errors = ["", "a-b", "3-1", "1,,2", "-1", "2-", "4096", "0-1-2"]
            .map(|text| text.parse::<Cpus>().unwrap_err());
        insta::assert_snapshot!(errors.join("\n"));
    }
}
