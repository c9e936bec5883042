//! Lengths in tokens: `128`, or `128,16` for a mean and a standard deviation.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Deserializer, Serialize};

/// A length in tokens: fixed, or drawn from a normal distribution and cut at 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Length {
    /// Mean, in tokens.
    pub mean: u32,
    /// Standard deviation, in tokens; 0 for a fixed length.
    pub stddev: u32,
}

impl Length {
    /// A length that does not vary.
    pub const fn fixed(mean: u32) -> Self {
        Self { mean, stddev: 0 }
    }

    /// One length out of the distribution, never 0.
    pub fn draw(self, rng: &mut impl Rng) -> u32 {
        match Normal::new(f64::from(self.mean), f64::from(self.stddev)) {
            Ok(normal) if self.stddev > 0 => normal.sample(rng).round().max(1.0) as u32,
            _ => self.mean,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stddev {
            0 => write!(f, "{}", self.mean),
            stddev => write!(f, "{},{stddev}", self.mean),
        }
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.trim().parse::<u32>().map_err(|_| {
                format!("`{text}` is no length in tokens: write `128`, or `128,16` for mean and deviation")
            })
        };
        let (mean, stddev) = match text.split_once(',') {
            Some((mean, stddev)) => (number(mean)?, number(stddev)?),
            None => (number(text)?, 0),
        };
        match mean {
            0 => Err("a length of 0 tokens asks for nothing: give 1 or more".into()),
            _ => Ok(Self { mean, stddev }),
        }
    }
}

/// Reads one length or a list of them, each a number or the text of the command line.
pub(super) fn read_list<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<Length>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "a length is a number of tokens, or \"128,16\" for mean and deviation, or a list"
    )]
    enum Form {
        Number(u32),
        Text(String),
        List(Vec<Form>),
    }
    fn collect(form: Form, into: &mut Vec<Length>) -> Result<(), String> {
        match form {
            Form::Number(tokens) => into.push(tokens.to_string().parse()?),
            Form::Text(text) => into.push(text.parse()?),
            Form::List(forms) => forms.into_iter().try_for_each(|form| collect(form, into))?,
        }
        Ok(())
    }
    let mut lengths = Vec::new();
    collect(Form::deserialize(input)?, &mut lengths).map_err(serde::de::Error::custom)?;
    match lengths.is_empty() {
        true => Err(serde::de::Error::custom("an empty list of lengths gives no step")),
        false => Ok(Some(lengths)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(mean in 1u32.., stddev in 0u32..) {
            let length = Length { mean, stddev };
            prop_assert_eq!(length.to_string().parse::<Length>(), Ok(length));
        }

        #[test]
        fn a_draw_is_never_empty(mean in 1u32..50, stddev in 0u32..200, seed: u64) {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let drawn = Length { mean, stddev }.draw(&mut rng);
            prop_assert!(drawn >= 1);
            prop_assert!(stddev > 0 || drawn == mean);
        }
    }

    #[test]
    fn the_mean_of_many_draws_is_the_mean() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let length = Length {
            mean: 200,
            stddev: 20,
        };
        let sum: u32 = (0..4000).map(|_| length.draw(&mut rng)).sum();
        assert!((f64::from(sum) / 4000.0 - 200.0).abs() < 2.0);
    }

    #[test]
    fn bad_lengths_say_what_is_right() {
        let parse = |text: &str| text.parse::<Length>().unwrap_err();
        insta::assert_snapshot!([parse("0"), parse("long"), parse("128,x"), parse("-1")].join("\n"));
    }
}
