//! An HTTP header that goes with every request.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A header. Its value may be a secret, so only its name is ever printed or saved.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ...", self.name)
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&self.name)
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("a header is `Name: value`")?;
        let (name, value) = (name.trim(), value.trim());
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) {
            return Err(format!(
                "`{name}` is no name of a header: a header is `Name: value`"
            ));
        }
        if value.chars().any(char::is_control) {
            return Err(format!(
                "the value of the header `{name}` has a control character in it"
            ));
        }
        Ok(Self {
            name: name.into(),
            value: value.into(),
        })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_never_shown() {
        let header: Header = "Authorization: Bearer sesame".parse().unwrap();
        assert_eq!(header.value, "Bearer sesame");
        assert_eq!(format!("{header:?}"), "Authorization: ...");
        assert_eq!(serde_json::to_string(&header).unwrap(), r#""Authorization""#);
    }

    #[test]
    fn a_header_without_a_name_is_refused() {
        assert!("sesame".parse::<Header>().is_err());
        assert!(": sesame".parse::<Header>().is_err());
        assert!("a b: c".parse::<Header>().is_err());
    }
}
