//! Whether engines' answers are held against each other.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether engines' greedy answers are held against each other before the load, and against their own under it. In a
/// profile's file it is `true`, `false` or `"only"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Verify {
    /// Yes
    #[value(name = "true")]
    On,
    /// No
    #[default]
    #[value(name = "false")]
    Off,
    /// Yes, and there is no load
    Only,
}

impl Serialize for Verify {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
            Self::Only => serializer.serialize_str("only"),
        }
    }
}

impl<'de> Deserialize<'de> for Verify {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Boolean(true) => Ok(Self::On),
            toml::Value::Boolean(false) => Ok(Self::Off),
            toml::Value::String(word) if word == "only" => Ok(Self::Only),
            other => Err(serde::de::Error::custom(format!(
                "verify is true, false or \"only\", not {other}"
            ))),
        }
    }
}
