//! The engine `command`: any command line that starts a server.

use super::recipe::{Find, Kind, PLACEHOLDERS, Recipe, placeholders, unknown};
use super::{EngineError, locate};

impl Recipe {
    /// The engine that `line` starts. It is split into words like a shell's line, and words may hold
    /// [placeholders](PLACEHOLDERS).
    ///
    /// # Errors
    /// An engine that is not of the kind `command`, a line that is no command line, one that does not tell the server
    /// its port, an unknown placeholder, or a program that is not there.
    pub fn with_command(mut self, line: &str) -> Result<Recipe, EngineError> {
        let wrong = |message: String| EngineError::CommandLine { message };
        if self.kind != Kind::Command {
            return Err(wrong(format!(
                "{} has a command line of its own; this one is for `--engine command`",
                self.name
            )));
        }
        let words = shlex::split(line).ok_or_else(|| wrong(format!("a quote is not closed in `{line}`")))?;
        let Some((program, args)) = words.split_first() else {
            return Err(wrong("it is empty: write `my-server --port {port}`".into()));
        };
        if let Some((_, message)) = words.iter().find_map(|word| unknown(word, &PLACEHOLDERS)) {
            return Err(wrong(message));
        }
        if !words
            .iter()
            .flat_map(|word| placeholders(word))
            .any(|name| name == "port")
        {
            return Err(wrong(format!(
                "tell the server its port with `{{port}}`: `{line}` does not"
            )));
        }
        let found = locate::program(program).ok_or_else(|| {
            wrong(format!(
                "no program `{program}` is here or on PATH; a shell's own words need `sh -c '...'`"
            ))
        })?;
        self.find = Some(Find {
            env: None,
            programs: vec![found.display().to_string()],
            version_args: Vec::new(),
            get: None,
        });
        self.serve.args = args.to_vec();
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::{Recipe, recipe};

    fn with(line: &str) -> Result<Recipe, String> {
        let command = recipe("command").unwrap();
        command.with_command(line).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        let recipe = with("sh -c 'exec my-server --port \"{port}\"' --model {model}").unwrap();
        assert_eq!(
            recipe.serve.args,
            ["-c", "exec my-server --port \"{port}\"", "--model", "{model}"]
        );
        assert!(recipe.find.unwrap().programs[0].ends_with("/sh"));
    }

    #[test]
    fn a_wrong_line_says_what_is_right() {
        let lines = [
            "",
            "sh 'open {port}",
            "sh -c serve",
            "sh {port} {modle}",
            "no-such-server-anywhere --port {port}",
        ];
        let errors = lines.map(|line| with(line).unwrap_err());
        insta::assert_snapshot!(errors.join("\n"));
        let other = recipe("llamacpp").unwrap().with_command("sh {port}").unwrap_err();
        assert!(
            other.to_string().starts_with("--command: llamacpp has"),
            "{other}"
        );
    }
}
