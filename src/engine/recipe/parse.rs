//! From the text of an `engine.toml` to a [`Recipe`], or to a line and what is wrong there.

use std::path::{Path, PathBuf};

use super::placeholder::{CONVERT_PLACEHOLDERS, INSTALL_PLACEHOLDERS, PLACEHOLDERS, placeholders, unknown};
use super::{Convert, Kind, Recipe};

/// Why a recipe can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file is no recipe.
    #[error("{file}:{line}: {message}")]
    Invalid {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No engine has this name.
    #[error("no engine is called `{name}`{}; known: {known}", .nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// The name asked for.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
}

impl Recipe {
    /// Reads a recipe. `file` is what errors call it, `dir` where its relative paths start.
    pub fn parse(text: &str, file: &str, dir: Option<&Path>) -> Result<Recipe, RecipeError> {
        let invalid = |at: usize, message: String| RecipeError::Invalid {
            file: file.into(),
            line: 1 + text[..at.min(text.len())].matches('\n').count(),
            message,
        };
        let mut recipe: Recipe = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            invalid(at, with_nearest(error.message()))
        })?;
        if let Some((at, message)) = recipe.mistake(text) {
            return Err(invalid(at, message));
        }
        recipe.dir = dir.map(Path::to_owned);
        Ok(recipe)
    }

    /// What the types alone can't rule out: byte offset and message.
    fn mistake(&self, text: &str) -> Option<(usize, String)> {
        let at = |needle: &str| text.find(needle).unwrap_or(0);
        let chosen = self.serve.weights_args.iter().chain(&self.serve.device_args);
        let serve = self.serve.words().chain(chosen);
        let install = self.install.iter().flat_map(|install| &install.program);
        let convert = self.convert.iter().flat_map(|convert| &convert.command);
        let mistake = serve
            .map(|word| (word, &PLACEHOLDERS[..]))
            .chain(install.map(|word| (word, &INSTALL_PLACEHOLDERS[..])))
            .chain(convert.map(|word| (word, &CONVERT_PLACEHOLDERS[..])))
            .find_map(|(word, known)| unknown(word, known));
        if let Some((name, message)) = mistake {
            return Some((at(&format!("{{{name}}}")), message));
        }
        if !matches!(
            self.dialect.max_tokens.as_str(),
            "max_tokens" | "max_completion_tokens"
        ) {
            let message = "dialect.max_tokens is `max_tokens` or `max_completion_tokens`".to_owned();
            return Some((at("max_tokens"), message));
        }
        if self
            .install
            .as_ref()
            .is_some_and(|how| how.packages.is_empty() == how.go.is_none())
        {
            let message = "install has `packages` for pip or `go`, one of the two".to_owned();
            return Some((at("[install]"), message));
        }
        if let Some(message) = self.convert.as_ref().and_then(|how| self.misconverts(how)) {
            return Some((at("[convert]"), message));
        }
        let had = self.find.is_some() || self.build.is_some() || self.install.is_some();
        let told_port = || {
            let words = self.serve.args.iter().chain(self.serve.env.values());
            words
                .flat_map(|word| placeholders(word))
                .any(|name| name == "port")
        };
        match self.kind {
            Kind::Attach | Kind::Command if had => Some((
                0,
                format!("an engine of kind `{}` has no find, build or install", self.kind),
            )),
            Kind::Attach | Kind::Command => None,
            _ if !had => Some((
                0,
                format!(
                    "an engine of kind `{}` needs [find], [build] or [install]",
                    self.kind
                ),
            )),
            _ if !told_port() => Some((
                at("[serve]"),
                "serve.args or serve.env must tell the server its `{port}`".into(),
            )),
            _ => None,
        }
    }

    /// What is wrong with a conversion.
    fn misconverts(&self, how: &Convert) -> Option<String> {
        let missing = ["model", "out"].into_iter().find(|name| !how.uses(name));
        if let Some(name) = missing {
            return Some(format!(
                "convert.command must tell the converter its `{{{name}}}`"
            ));
        }
        let nameable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if how.to.is_empty() || !how.to.chars().all(nameable) {
            return Some("convert.to is a form's name: letters, digits, `-`, `_` and `.`".into());
        }
        let lacks = how.uses("python") && how.packages.is_empty() && self.install.is_none();
        lacks.then(|| "convert.command has a `{python}`: give its convert.packages, or [install]".into())
    }
}

/// The candidate that `name` was most likely meant to be.
pub(in crate::engine) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// serde says "unknown field `x`, expected one of `a`, `b`": names the nearest of them first.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown ").then(|| quoted.next()).flatten();
    match unknown.and_then(|name| nearest(name, quoted)) {
        Some(hit) => format!("{message} (did you mean `{hit}`?)"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Dialect;

    const MINIMAL: &str = r#"name = "x"
title = "X"
kind = "spawned"
description = "a server"
[find]
programs = ["x"]
[serve]
args = ["--port", "{port}"]
"#;

    fn error(text: &str) -> String {
        Recipe::parse(text, "x/engine.toml", None)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn defaults_are_those_of_the_reference_api() {
        let recipe = Recipe::parse(MINIMAL, "x/engine.toml", None).unwrap();
        assert_eq!(recipe.dialect, Dialect::default());
        assert_eq!(recipe.ready.timeout(), Duration::from_secs(600));
    }

    #[test]
    fn a_field_that_a_server_lacks_is_false() {
        let with = |value: &str| {
            let text = format!("{MINIMAL}[dialect]\nignore_eos = {value}\n");
            Recipe::parse(&text, "x", None).map(|recipe| recipe.dialect.ignore_eos)
        };
        assert_eq!(with("false").unwrap(), None);
        let text = format!("{MINIMAL}[dialect]\nseed = false\ntop_k = 'topK'\n");
        let dialect = Recipe::parse(&text, "x", None).unwrap().dialect;
        assert_eq!((dialect.seed, dialect.top_k.as_deref()), (None, Some("topK")));
        assert_eq!(with("'min_p'").unwrap().as_deref(), Some("min_p"));
        for wrong in ["true", "''", "1"] {
            assert!(
                with(wrong).unwrap_err().to_string().contains("or false"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn placeholders_of_files_and_preparations_are_checked_too() {
        let files = MINIMAL.to_owned() + "files = { '{log}.txt' = '{modle}' }\n";
        assert!(error(&files).contains("did you mean `{model}`?"));
        let prepare = MINIMAL.to_owned() + "prepare = [['create', '{thing}']]\n";
        assert!(error(&prepare).starts_with("x/engine.toml:9: unknown placeholder `{thing}`"));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_nearest() {
        let message = error(&MINIMAL.replace("programs", "program"));
        assert!(
            message.starts_with("x/engine.toml:6: unknown field `program`"),
            "{message}"
        );
        assert!(message.ends_with("(did you mean `programs`?)"), "{message}");
        let message = error(&MINIMAL.replace("\"spawned\"", "\"spawnd\""));
        assert!(
            message.contains(":3:") && message.contains("did you mean `spawned`?"),
            "{message}"
        );
    }

    #[test]
    fn a_wrong_placeholder_is_named_with_its_line_and_the_nearest() {
        let message = error(&MINIMAL.replace("{port}", "{prot}"));
        assert_eq!(
            message,
            "x/engine.toml:8: unknown placeholder `{prot}`, did you mean `{port}`?"
        );
    }

    #[test]
    fn an_engine_is_installed_by_pip_or_by_go() {
        let install = |lines: &str| {
            let text =
                format!("{MINIMAL}[install]\nprogram = ['{{dir}}/bin/x']\ntakes = 'a minute'\n{lines}");
            Recipe::parse(&text, "x/engine.toml", None).map(|_| ())
        };
        install("packages = ['x']").unwrap();
        install("go = 'example.com/x@v1.0.0'").unwrap();
        for wrong in ["", "packages = ['x']\ngo = 'example.com/x@v1.0.0'"] {
            let message = install(wrong).unwrap_err().to_string();
            assert!(message.starts_with("x/engine.toml:9: install has"), "{message}");
        }
    }

    #[test]
    fn a_conversion_says_what_it_reads_and_writes() {
        let convert = |to: &str, words: &str| {
            error(&format!(
                "{MINIMAL}[convert]\nto = '{to}'\ncommand = [{words}]\ntakes = 'a second'\n"
            ))
        };
        assert!(convert("st", "'c', '{model}'").contains("`{out}`"));
        assert!(convert("st", "'c', '{model}', '{our}'").contains("did you mean `{out}`?"));
        assert!(convert("a/b", "'c', '{model}', '{out}'").contains("a form's name"));
        assert!(convert("st", "'{python}', '{model}', '{out}'").contains("convert.packages"));
    }

    #[test]
    fn a_server_must_be_told_its_port_and_be_had_somehow() {
        assert!(error(&MINIMAL.replace("{port}", "8000")).contains("`{port}`"));
        assert!(error(&MINIMAL.replace("[find]\nprograms = [\"x\"]\n", "")).contains("needs [find]"));
        assert!(error(&MINIMAL.replace("spawned", "attach")).contains("has no find"));
    }
}
