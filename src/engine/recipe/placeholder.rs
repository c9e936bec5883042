//! `{names}` in a recipe's words.

/// Words in braces that a recipe's arguments may use.
pub const PLACEHOLDERS: [&str; 10] = [
    "model",
    "model_name",
    "host",
    "port",
    "parallel",
    "context",
    "context_total",
    "threads",
    "weights",
    "log",
];

/// Those of the commands that install an engine.
pub(super) const INSTALL_PLACEHOLDERS: [&str; 2] = ["python", "dir"];

/// The names in braces inside `word`; JSON braces and the like are no names.
pub(super) fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let name = &rest[..rest.find('}')?];
        (!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(name)
    })
}

/// Puts values in the place of `{names}`.
pub(in crate::engine) fn fill(word: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(word.to_owned(), |word, (name, value)| {
        word.replace(&format!("{{{name}}}"), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_that_are_no_names_stay() {
        let word = r#"{"a": {port}}"#;
        assert_eq!(placeholders(word).collect::<Vec<_>>(), ["port"]);
        assert_eq!(fill(word, &[("port", "80".into())]), r#"{"a": 80}"#);
    }
}
