//! How many users: `64`, `10,20,40` or a range such as `10..100`, which takes a step.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Concurrency levels, one step of the load each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// These levels, in this order.
    List(Vec<u32>),
    /// From the first to the last level, both included.
    Range {
        /// The lowest level.
        first: u32,
        /// The highest level.
        last: u32,
    },
}

impl Users {
    /// Whether this is a range, which needs a step.
    pub fn is_range(&self) -> bool {
        matches!(self, Self::Range { .. })
    }

    /// The levels. A range goes up by `step` and always ends with its last level, even if the last step is shorter.
    ///
    /// # Errors
    /// If a range has no step, the step is 0, or there is a step and no range.
    pub fn levels(&self, step: Option<u32>) -> Result<Vec<u32>, String> {
        match (self, step) {
            (Self::List(levels), None) => Ok(levels.clone()),
            (Self::List(_), Some(step)) => Err(format!(
                "a step of {step} needs a range of users, as in `10..100`; the users are `{self}`"
            )),
            (Self::Range { .. }, None) => Err(format!(
                "the range `{self}` needs a step: add `step` (`--step 10`), or list the levels"
            )),
            (Self::Range { .. }, Some(0)) => Err("a step of 0 never gets on: give 1 or more".into()),
            (Self::Range { first, last }, Some(step)) => {
                let mut levels: Vec<u32> = (*first..*last).step_by(step as usize).collect();
                levels.push(*last);
                Ok(levels)
            }
        }
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, last } => write!(f, "{first}..{last}"),
            Self::List(levels) => {
                let levels: Vec<String> = levels.iter().map(u32::to_string).collect();
                f.write_str(&levels.join(","))
            }
        }
    }
}

impl FromStr for Users {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((first, last)) = text.split_once("..") {
            let (first, last) = (level(first)?, level(last.trim_start_matches('='))?);
            return if first > last {
                Err(format!(
                    "the range `{text}` runs backwards: write `{last}..{first}`"
                ))
            } else {
                Ok(Self::Range { first, last })
            };
        }
        text.split(',')
            .map(level)
            .collect::<Result<_, _>>()
            .map(Self::List)
    }
}

fn level(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(0) => Err("0 users send nothing: give 1 or more".into()),
        Ok(users) => Ok(users),
        Err(_) => Err(format!(
            "`{text}` is no number of users: write `64`, `10,20,40` or `10..100`"
        )),
    }
}

/// In a file: a number, a list of numbers, or the same text as on the command line.
impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "users are a number, a list of numbers, or a range such as \"10..100\""
        )]
        enum Form {
            Number(u32),
            List(Vec<u32>),
            Text(String),
        }
        let levels = match Form::deserialize(input)? {
            Form::Text(text) => return text.parse().map_err(serde::de::Error::custom),
            Form::Number(users) => vec![users],
            Form::List(levels) => levels,
        };
        if levels.is_empty() || levels.contains(&0) {
            return Err(serde::de::Error::custom("0 users send nothing: give 1 or more"));
        }
        Ok(Self::List(levels))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_includes_both_ends_and_never_repeats(first in 1u32..500, more in 0u32..500, step in 1u32..100) {
            let last = first + more;
            let levels = Users::Range { first, last }.levels(Some(step)).unwrap();
            prop_assert_eq!(levels.first(), Some(&first));
            prop_assert_eq!(levels.last(), Some(&last));
            prop_assert!(levels.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= step));
        }

        #[test]
        fn what_is_printed_is_read_again(levels in prop::collection::vec(1u32..10_000, 1..8)) {
            let users = Users::List(levels);
            prop_assert_eq!(users.to_string().parse::<Users>(), Ok(users));
        }
    }

    #[test]
    fn ten_to_a_hundred() {
        let levels = "10..100".parse::<Users>().unwrap().levels(Some(10)).unwrap();
        assert_eq!(levels, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    }

    #[test]
    fn bad_users_say_what_is_right() {
        let parse = |text: &str| text.parse::<Users>().unwrap_err();
        let levels = |text: &str, step| text.parse::<Users>().unwrap().levels(step).unwrap_err();
        insta::assert_snapshot!(
            [
                parse("100..10"),
                parse("0"),
                parse("0..4"),
                parse("many"),
                parse("-3"),
                levels("10..100", None),
                levels("10..100", Some(0)),
                levels("64", Some(10)),
            ]
            .join("\n")
        );
    }
}
