//! `{names}` in a recipe's words.

use super::parse::nearest;

/// Words in braces that a recipe's arguments may use; `dir` is a folder of ours for the engine.
pub const PLACEHOLDERS: [&str; 12] = [
    "model",
    "model_name",
    "host",
    "port",
    "parallel",
    "context",
    "context_total",
    "threads",
    "weights",
    "device",
    "log",
    "dir",
];

/// Those of the commands that install an engine.
pub(super) const INSTALL_PLACEHOLDERS: [&str; 2] = ["python", "dir"];

/// Those of the command that converts a model.
pub(super) const CONVERT_PLACEHOLDERS: [&str; 4] = ["python", "dir", "model", "out"];

/// The names in braces inside `word`; JSON braces and the like are no names.
pub(in crate::engine) fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let name = &rest[..rest.find('}')?];
        (!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(name)
    })
}

/// The first name in braces that is not among `known`, and the known one that it was most likely meant to be.
pub(in crate::engine) fn unknown<'a>(word: &'a str, known: &[&'static str]) -> Option<(&'a str, String)> {
    let name = placeholders(word).find(|name| !known.contains(name))?;
    let hint = nearest(name, known.iter().copied()).map(|n| format!(", did you mean `{{{n}}}`?"));
    Some((
        name,
        format!("unknown placeholder `{{{name}}}`{}", hint.unwrap_or_default()),
    ))
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
