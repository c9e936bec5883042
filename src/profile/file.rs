//! Profiles by name and by path, and everything that can be wrong in their files.

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

use super::error::Conflict;
use super::nearest::{did_you_mean, nearest};
use super::resolve::resolve;
use super::{Error, Profile, Settings};

/// Declares the profiles that are part of the program.
macro_rules! shipped {
    ($($name:literal),+) => {
        /// The shipped profiles: name and text.
        const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../loadprofiles/", $name, ".toml")))),+];
    };
}
shipped!(
    "quick",
    "sustained-32",
    "sustained-64",
    "scaling-10-100",
    "latency-single",
    "responses",
    "s1",
    "s2",
    "s3",
    "s4",
    "s5",
    "s6"
);

/// The profile that runs when none is named.
const DEFAULT: &str = "quick";

/// Names and descriptions of the profiles that are part of the program.
pub fn shipped() -> Vec<(&'static str, String)> {
    let describe = |text| {
        parse("", text)
            .ok()
            .and_then(|settings| settings.description)
            .unwrap_or_default()
    };
    SHIPPED
        .iter()
        .map(|(name, text)| (*name, describe(text)))
        .collect()
}

impl Profile {
    /// The profile of this name with `flags` over it: a path to a file, a file in `./loadprofiles`, or one that is
    /// part of the program; `quick` if no name is given.
    ///
    /// # Errors
    /// If there is no such profile, or something in its file, in the flags or in both together is wrong.
    pub fn load(name: Option<&str>, flags: &Settings) -> Result<Self, Error> {
        let name = name.unwrap_or(DEFAULT);
        let (file, text) = find(name)?;
        let label = Path::new(name)
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or(name);
        let settings = parse(&file, &text)?;
        resolve(label, settings.clone()).map_err(|conflict| at_key(&file, &text, conflict))?;
        resolve(label, flags.clone().over(settings)).map_err(|conflict| Error::Flag {
            flag: flag_name(conflict.key),
            message: conflict.message,
        })
    }
}

/// The flag of a key, where the two differ by more than `_`.
fn flag_name(key: &str) -> String {
    match key {
        "engines" => "engine".into(),
        "slo" => "goodput".into(),
        key => key.replace('_', "-"),
    }
}

/// Where the profile stands, and its text.
fn find(name: &str) -> Result<(String, String), Error> {
    let local = Path::new("loadprofiles").join(format!("{name}.toml"));
    let path = if name.ends_with(".toml") || name.contains('/') {
        Path::new(name)
    } else {
        &local
    };
    match fs::read_to_string(path) {
        Ok(text) => return Ok((path.display().to_string(), text)),
        Err(source) if path != local || source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::Read {
                path: path.into(),
                source,
            });
        }
        Err(_) => {}
    }
    if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        return Ok((format!("{name}.toml"), (*text).into()));
    }
    let mut known: Vec<String> = SHIPPED.iter().map(|(shipped, _)| (*shipped).into()).collect();
    let own = fs::read_dir("loadprofiles").into_iter().flatten().flatten();
    for stem in own.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_string())) {
        if !known.contains(&stem) {
            known.push(stem);
        }
    }
    let hint = did_you_mean(name, known.iter().map(String::as_str));
    Err(Error::UnknownProfile {
        name: name.into(),
        hint,
        known,
    })
}

/// Reads the text of a profile.
fn parse(file: &str, text: &str) -> Result<Settings, Error> {
    toml::from_str(text).map_err(|error| Error::File {
        file: file.into(),
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        message: explain(error.message()),
    })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Names the nearest right key where the parser lists the keys that there are.
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(wrong) = quoted.next() else {
        return message.into();
    };
    if message.starts_with("unknown variant") {
        let known: Vec<&str> = quoted.collect();
        return format!(
            "there is no `{wrong}`{}; there are {}",
            did_you_mean(wrong, known.iter().copied()),
            known.join(", ")
        );
    }
    if !message.starts_with("unknown field") {
        return message.into();
    }
    let known: Vec<&str> = quoted.collect();
    if ["api_key", "api-key"].contains(&wrong) {
        return "an API key does not belong into a file: set OPENAI_API_KEY".into();
    }
    if let Some(section) = section_of(&wrong.replace('-', "_")) {
        return format!(
            "the key `{wrong}` belongs into [{section}], as `{}`",
            wrong.replace('-', "_")
        );
    }
    match nearest(wrong, known.iter().copied()) {
        Some(right) => format!("there is no key `{wrong}` here (did you mean `{right}`?)"),
        None => format!("there is no key `{wrong}` here; there are {}", known.join(", ")),
    }
}

/// The section in which a key stands.
fn section_of(key: &str) -> Option<&'static str> {
    ["load", "requests", "measure", "slo", "server", "report"]
        .into_iter()
        .find(|section| {
            let probe = toml::from_str::<Settings>(&format!("[{section}]\n{key} = {{}}"));
            probe.is_err_and(|error| !error.message().starts_with("unknown field"))
        })
}

/// An impossible setting of a file, with the line on which its key stands.
fn at_key(file: &str, text: &str, conflict: Conflict) -> Error {
    let span = DeTable::parse(text)
        .ok()
        .and_then(|table| key_start(table.get_ref(), &conflict));
    Error::File {
        file: file.into(),
        line: span.map_or(1, |start| line_of(text, start)),
        message: format!("{}: {}", conflict.key, conflict.message),
    }
}

fn key_start(table: &DeTable<'_>, conflict: &Conflict) -> Option<usize> {
    let start = |table: &DeTable<'_>, key: &str| {
        table
            .keys()
            .find(|name| name.get_ref() == key)
            .map(|name: &Spanned<_>| name.span().start)
    };
    if conflict.section.is_empty() {
        return start(table, conflict.key);
    }
    let section = table
        .iter()
        .find(|(name, _)| name.get_ref() == conflict.section)?;
    let inner = section.1.get_ref().as_table()?;
    start(inner, conflict.key).or(Some(section.0.span().start))
}
