//! What an engine must be told once its server is up, by running its program again.

use std::ffi::OsString;
use std::process::Stdio;

use super::EngineError;
use super::build::TAIL_LINES;

/// A run of the engine's program beside its server.
pub(super) struct Preparation<'a> {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Variables added to its environment: the server's.
    pub env: &'a [(String, String)],
}

impl Preparation<'_> {
    /// Runs it to its end; dropping the future ends it.
    pub async fn run(self, engine: &str) -> Result<(), EngineError> {
        let words: Vec<_> = self.argv.iter().map(|word| word.to_string_lossy()).collect();
        let command = words.join(" ");
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
            command: command.clone(),
            tail: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
        })
    }
}
