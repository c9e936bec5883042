//! What an engine needs beside its server: files, and what it must be told once the server is up, by its program again.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use super::build::TAIL_LINES;
use super::recipe::{Recipe, fill};
use super::settings::Settings;
use super::{EngineError, Program, environment};

/// A recipe's command lines, its placeholders filled.
pub(super) struct Commands {
    /// What starts the server.
    pub serve: Vec<OsString>,
    /// What it is to be told once it is up.
    pub prepare: Vec<Vec<OsString>>,
    /// Variables of all of them.
    pub env: Vec<(String, String)>,
}

impl Commands {
    /// Fills the recipe's placeholders, and writes the files that it wants.
    pub fn new(
        recipe: &Recipe,
        program: &Program,
        settings: &Settings,
        port: u16,
    ) -> Result<Commands, EngineError> {
        let values = settings.values(port, &environment::folder(recipe)?);
        let filled = |words: &[String]| -> Vec<OsString> {
            let words = words.iter().map(|word| fill(word, &values).into());
            program.argv.iter().cloned().chain(words).collect()
        };
        let weights = match settings.weights {
            Some(_) => &recipe.serve.weights_args[..],
            None => &[],
        };
        let device = match settings.device {
            Some(_) => &recipe.serve.device_args[..],
            None => &[],
        };
        let mut serve = filled(&[&recipe.serve.args[..], weights, device].concat());
        serve.extend(settings.extra_args.iter().map(OsString::from));
        let variables = recipe.serve.env.iter();
        write_files(recipe, &values)?;
        Ok(Commands {
            serve,
            prepare: recipe.serve.prepare.iter().map(|words| filled(words)).collect(),
            env: variables
                .map(|(name, value)| (name.clone(), fill(value, &values)))
                .collect(),
        })
    }
}

/// Writes the files that the recipe wants beside the server.
fn write_files(recipe: &Recipe, values: &[(&str, String)]) -> Result<(), EngineError> {
    for (path, text) in &recipe.serve.files {
        let path = PathBuf::from(fill(path, values));
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        folder
            .and_then(|()| std::fs::write(&path, fill(text, values)))
            .map_err(EngineError::io(format!("cannot write {}", path.display())))?;
    }
    Ok(())
}

/// A run of the engine's program beside its server.
pub(super) struct Preparation<'a> {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Variables added to its environment: the server's.
    pub env: &'a [(String, String)],
}

impl Preparation<'_> {
    /// What is run, as one would type it.
    pub fn command(&self) -> String {
        let words: Vec<_> = self.argv.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// Runs it to its end; dropping the future ends it.
    pub async fn run(self, engine: &str) -> Result<(), EngineError> {
        let command = self.command();
        let failed = EngineError::io(format!("cannot run `{command}` for {engine}"));
        let Some((program, args)) = self.argv.split_first() else {
            return Ok(());
        };
        let output = tokio::process::Command::new(program)
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        Err(EngineError::Command {
            engine: engine.into(),
            command,
            tail: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
        })
    }
}
