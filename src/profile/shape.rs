//! The lengths of a request: `512/128`, or `512,64/128,16` with deviations.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Length;

/// How long the input and the output of a request are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shape {
    /// Input sequence length; a mean of 0 where the dataset decides.
    pub isl: Length,
    /// Output sequence length asked for.
    pub osl: Length,
}

impl Shape {
    /// Every input length with every output length.
    pub(super) fn crossed(isl: &[Length], osl: &[Length]) -> Vec<Shape> {
        let with_all = |&isl| osl.iter().map(move |&osl| Shape { isl, osl });
        isl.iter().flat_map(with_all).collect()
    }

    /// Tokens that hardly any request of this shape exceeds: four standard deviations above the means.
    pub(super) fn most_tokens(&self) -> u32 {
        let most = |length: Length| length.mean.saturating_add(length.stddev.saturating_mul(4));
        most(self.isl).saturating_add(most(self.osl))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.isl, self.osl)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (isl, osl) = text.split_once('/').ok_or_else(|| {
            format!("`{text}` is no shape: write input and output tokens, as `512/128` or `512,64/128,16`")
        })?;
        Ok(Shape {
            isl: isl.parse()?,
            osl: osl.parse()?,
        })
    }
}

/// Reads one shape or a list of them.
pub(super) fn read_list<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<Shape>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "a shape is a text such as \"512/128\", or a list of them"
    )]
    enum Form {
        One(String),
        List(Vec<String>),
    }
    let texts = match Form::deserialize(input)? {
        Form::One(text) => vec![text],
        Form::List(texts) => texts,
    };
    let shapes: Result<Vec<Shape>, String> = texts.iter().map(|text| text.parse()).collect();
    let shapes = shapes.map_err(serde::de::Error::custom)?;
    match shapes.is_empty() {
        true => Err(serde::de::Error::custom("an empty list of shapes gives no step")),
        false => Ok(Some(shapes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_printed() {
        for text in ["512/128", "512,64/128", "1/8,2"] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
        let parse = |text: &str| text.parse::<Shape>().unwrap_err();
        insta::assert_snapshot!([parse("512"), parse("512/0"), parse("512x128"), parse("/8")].join("\n"));
    }
}
