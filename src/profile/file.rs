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
    "long-context",
    "s1",
    "s2",
    "s3",
    "s4",
    "s5",
    "s6",
    "s1-s6"
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

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Settings {
        use clap::Parser;
        let words = std::iter::once("loadtest").chain(line.split_whitespace());
        crate::cli::Cli::try_parse_from(words).unwrap().run.settings
    }

    fn load(name: &str, line: &str) -> Result<Profile, Error> {
        Profile::load(Some(name), &flags(line))
    }

    #[test]
    fn every_shipped_profile_is_sound() {
        for (name, description) in shipped() {
            let profile = load(name, "").unwrap();
            assert_eq!(profile.name, name);
            assert!(!description.is_empty() && !profile.steps().is_empty());
        }
        assert_eq!(
            Profile::load(None, &Settings::default()).unwrap(),
            load("quick", "").unwrap()
        );
    }

    #[test]
    fn the_reference_profiles_do_what_they_are_named_for() {
        let users = |profile: &Profile| profile.steps().iter().map(|p| p.step.users).collect::<Vec<_>>();
        assert_eq!(
            users(&load("scaling-10-100", "").unwrap()),
            [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
        );
        let sustained = load("sustained-64", "").unwrap();
        assert_eq!(
            sustained.extent.duration,
            Some(std::time::Duration::from_secs(300))
        );
        assert_eq!((users(&sustained), sustained.server.parallel), (vec![64], 64));
        let isl = |p: &Profile| p.steps().iter().map(|p| p.step.isl.mean).collect::<Vec<_>>();
        assert_eq!(isl(&load("latency-single", "").unwrap()), [10, 50, 200]);
        let osl = |p: &Profile| p.steps().iter().map(|p| p.step.osl.mean).collect::<Vec<_>>();
        assert_eq!(osl(&load("responses", "").unwrap()), [50, 200, 500]);
        let shapes = [(16, 32), (64, 64), (256, 128), (512, 256), (1024, 128), (64, 512)];
        let all = load("s1-s6", "").unwrap().steps();
        let pairs: Vec<_> = all
            .iter()
            .step_by(5)
            .map(|p| (p.step.isl.mean, p.step.osl.mean))
            .collect();
        assert_eq!((all.len(), pairs), (30, shapes.to_vec()));
        for (i, (isl, osl)) in shapes.into_iter().enumerate() {
            let steps = load(&format!("s{}", i + 1), "").unwrap().steps();
            assert_eq!(steps.len(), 5);
            assert!(
                steps
                    .iter()
                    .all(|p| (p.step.users, p.step.isl.mean, p.step.osl.mean) == (1, isl, osl))
            );
        }
    }

    #[test]
    fn flags_override_the_profile_and_what_goes_with_it() {
        let profile = load("scaling-10-100", "--users 64 --num-prompts 100").unwrap();
        assert_eq!(profile.users, [64]);
        assert_eq!(
            (profile.extent.duration, profile.extent.requests),
            (None, Some(100))
        );
        let shapes = |line| {
            let shapes = load("s1-s6", line).unwrap().requests.shapes;
            shapes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shapes("--shape 8/4 --shape 9,2/4"), ["8/4", "9,2/4"]);
        assert_eq!(shapes("--isl 8 --isl 9 --osl 4"), ["8/4", "9/4"]);
        assert_eq!(shapes("--dataset questions"), ["0/128"]);
        assert_eq!(
            load("scaling-10-100", "--users 10..30").unwrap().users,
            [10, 20, 30]
        );
        let attached = load("sustained-64", "--url http://127.0.0.1:8000").unwrap();
        assert_eq!((attached.engines.len(), attached.model), (0, None));
        assert!(load("quick", "").unwrap().requests.ignore_eos);
        assert!(!load("quick", "--ignore-eos=false").unwrap().requests.ignore_eos);
    }

    #[test]
    fn bad_flags_beside_a_profile_say_what_is_right() {
        let bad = [
            "--users 10..100",
            "--users 8 --step 4",
            "--step 4",
            "--users 10..100 --step 0",
            "--url http://h:1 --engine candle",
            "--url h:1",
            "--url http://h:1 --threads 2",
            "--url http://h:1 --command serve",
            "--engine command",
            "--engine candle --command serve",
            "--engine candle,candle",
            "--isl 9000 --context 8192",
            "--shape 9000/1 --context 8192",
            "--shape 64/64 --osl 8",
            "--dataset questions --shape 64/64",
            "--isl 4000000000,4000000000",
            "--isl 10 --shared-prefix 10",
            "--dataset questions --isl 10",
            "--dataset qestions",
            "--repeat 0",
            "--max-repeats 5",
            "--until-stable output_tps:2% --max-repeats 2",
            "--num-prompts 0",
            "--duration 0s",
            "--temperature -1",
            "--top-p 2",
            "--timeout 0s",
            "--top-k 0",
            "--verify-against candle",
            "--engine candle,llamacpp --verify --verify-against candel",
            "--url http://h:1 --verify --verify-against candle",
        ];
        let errors = bad.map(|line| load("quick", line).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn bad_files_name_line_and_nearest_name() {
        let dir = tempfile::tempdir().unwrap();
        let bad = [
            "[load]\nusers = 4\nduratoin = \"30s\"",
            "[lod]\nusers = 4",
            "users = 4",
            "[load]\nnum-prompts = 4\nshared-prefix = 2",
            "[load]\nduration = 30",
            "[load]\nduration = \"30\"",
            "[load]\nduration = \"30 parsecs\"",
            "[load]\nusers = \"100..10\"\nstep = 10",
            "[load]\nusers = \"10..100\"",
            "[load]\nusers = 0",
            "[load]\nusers = 4\n\n[requests]\nisl = 0",
            "[requests]\nshape = [\"16/32\", \"64\"]",
            "[requests]\nshape = \"16/32\"\nosl = 8",
            "[requests]\nendpoint = \"chatt\"",
            "[requests]\nisl = 4000\nosl = 200\n[server]\ncontext = 2048",
            "[requests]\napi_key = \"sesame\"",
            "[slo]\ntftt = 500",
            "[slo]\nttft = 0",
            "engines = [\"candle\"]\nurl = \"http://h:1\"",
            "[load\nusers = 4",
        ];
        let errors = bad.map(|text| {
            let path = dir.path().join("p.toml");
            fs::write(&path, text).unwrap();
            let error = load(path.to_str().unwrap(), "").unwrap_err().to_string();
            assert!(!error.contains("sesame"));
            error.replace(path.to_str().unwrap(), "p.toml")
        });
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn an_unknown_profile_names_the_nearest() {
        insta::assert_snapshot!(
            ["sustaned-64", "zzz", "./missing.toml"]
                .map(|name| load(name, "").unwrap_err().to_string())
                .join("\n")
        );
    }

    #[test]
    fn plans_are_as_they_were_read_last() {
        for (name, line) in [
            ("quick", ""),
            ("sustained-64", ""),
            (
                "latency-single",
                "--url http://127.0.0.1:8000 --shared-prefix 4 --goodput ttft:500",
            ),
            ("s1", "--threads 2 --weights q8"),
            ("s2", "--command serve"),
            ("s1-s6", ""),
        ] {
            insta::assert_snapshot!(format!("plan_{name}"), load(name, line).unwrap().plan_text());
        }
    }

    #[test]
    fn results_never_hold_the_value_of_a_header() {
        let profile = load("quick", "--header Cookie:sesame").unwrap();
        let json = serde_json::to_value(&profile).unwrap();
        assert_eq!(json["requests"]["headers"], serde_json::json!(["Cookie"]));
        assert_eq!(json["extent"]["duration_s"], 20.0);
        assert!(!json.to_string().contains("sesame"));
    }
}
