//! Durations as people write them: `30s`, `5m`, `1m 30s`, `500ms`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Reads a duration.
///
/// # Errors
/// If the unit is missing or unknown.
pub fn parse(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.') && text != "0" {
        return Err(format!(
            "`{text}` has no unit: write `{text}s` for seconds (units: ms, s, m, h)"
        ));
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is no duration: write `30s`, `5m` or `1m 30s` (units: ms, s, m, h)"))
}

/// Writes a duration as [`parse`] reads it.
pub fn show(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

pub(super) fn read<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a duration is a text with a unit, such as \"30s\"")]
    enum Form {
        Text(String),
        Number(f64),
    }
    let text = match Form::deserialize(input)? {
        Form::Text(text) => text,
        Form::Number(number) => number.to_string(),
    };
    parse(&text).map(Some).map_err(serde::de::Error::custom)
}

/// For results: seconds, as a plain number.
pub(super) fn seconds<S: Serializer>(duration: &Duration, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_f64(duration.as_secs_f64())
}

/// For results: seconds, as a plain number, or null.
pub(super) fn some_seconds<S: Serializer>(duration: &Option<Duration>, output: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => output.serialize_f64(duration.as_secs_f64()),
        None => output.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(ms in 0u64..100_000_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }
    }

    #[test]
    fn bad_durations_say_what_is_right() {
        let parse = |text: &str| parse(text).unwrap_err();
        insta::assert_snapshot!(
            [
                parse("30"),
                parse("1.5"),
                parse("30 parsecs"),
                parse(""),
                parse("-5s")
            ]
            .join("\n")
        );
    }
}
