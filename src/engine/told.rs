//! Which settings a recipe passes on. What it does not is no setting of that engine, and is refused where the user named it.

use super::EngineError;
use super::recipe::{Kind, Recipe, placeholders};

/// A setting that servers may be told at their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The address to listen on.
    Host,
    /// Sequences served at once.
    Parallel,
    /// Tokens of context for each of them.
    Context,
    /// Threads that compute.
    Threads,
    /// The form to keep the weights in.
    Weights,
    /// What it computes on.
    Device,
}

impl Setting {
    /// All that bear on how it computes.
    pub const ALL: [Setting; 5] = [
        Setting::Parallel,
        Setting::Context,
        Setting::Threads,
        Setting::Weights,
        Setting::Device,
    ];

    /// The key in `run.json`, the placeholder in recipes and, after two dashes, the flag.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Host => "host",
            Setting::Parallel => "parallel",
            Setting::Context => "context",
            Setting::Threads => "threads",
            Setting::Weights => "weights",
            Setting::Device => "device",
        }
    }

    fn is_told_by(self, placeholder: &str) -> bool {
        placeholder == self.name() || (self == Setting::Context && placeholder == "context_total")
    }
}

impl Recipe {
    /// Whether the server is told this setting.
    pub fn passes(&self, setting: Setting) -> bool {
        let added = match setting {
            Setting::Weights => !self.serve.weights_args.is_empty(),
            Setting::Device => !self.serve.device_args.is_empty(),
            Setting::Host | Setting::Parallel | Setting::Context | Setting::Threads => false,
        };
        let told = || {
            self.serve
                .words()
                .flat_map(|word| placeholders(word))
                .any(|name| setting.is_told_by(name))
        };
        self.kind != Kind::Attach && (added || told())
    }

    /// Holds the settings that the user named to what the recipe passes on.
    ///
    /// # Errors
    /// The first that it does not, and what would do it.
    pub fn honours(&self, named: impl IntoIterator<Item = Setting>) -> Result<(), EngineError> {
        let Some(setting) = named.into_iter().find(|setting| !self.passes(*setting)) else {
            return Ok(());
        };
        let name = setting.name();
        let what_to_do = match (self.kind, setting) {
            (Kind::Attach, _) => "it is not started by loadtest; leave this out".into(),
            (Kind::Command, _) => {
                format!(
                    "put `{{{name}}}` where the line of --command is to have the value, or leave this out"
                )
            }
            (_, Setting::Weights | Setting::Device) => format!(
                "leave this out and give its own argument by --server-arg, or name `{name}_args` under [serve] in an \
                 engine.toml of yours"
            ),
            (_, Setting::Host | Setting::Parallel | Setting::Context | Setting::Threads) => format!(
                "leave this out and give its own argument by --server-arg, or name `{{{name}}}` in the `args` of an \
                 engine.toml of yours"
            ),
        };
        Err(EngineError::Untold {
            engine: self.name.clone(),
            setting: name,
            what_to_do,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::recipe;

    fn passed(recipe: &Recipe) -> Vec<&'static str> {
        let passed = Setting::ALL.into_iter().filter(|setting| recipe.passes(*setting));
        passed.map(Setting::name).collect()
    }

    #[test]
    fn a_setting_is_told_in_arguments_environment_files_or_preparations() {
        for (name, wanted) in [
            (
                "candle",
                &["parallel", "context", "threads", "weights", "device"][..],
            ),
            // By its total, by a variable and by a file.
            ("llamacpp", &["parallel", "context", "threads"]),
            ("ollama", &["parallel", "context", "threads"]),
            ("vllm", &["parallel", "context"]),
            ("uzu", &[]),
            ("command", &[]),
            ("lmstudio", &[]),
        ] {
            assert_eq!(passed(&recipe(name).unwrap()), wanted, "{name}");
        }
        let mut prepared = recipe("uzu").unwrap();
        prepared.serve.prepare = vec![vec!["set".into(), "threads={threads}".into()]];
        assert_eq!(passed(&prepared), ["threads"]);
    }

    #[test]
    fn what_is_not_told_is_refused_with_what_would_do_it() {
        let refused = |name: &str, setting| {
            let error = recipe(name).unwrap().honours([Setting::Parallel, setting]);
            error.unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            [
                refused("vllm", Setting::Threads),
                refused("llamacpp", Setting::Device),
                refused("command", Setting::Threads),
                refused("lmstudio", Setting::Threads),
            ]
            .join("\n")
        );
        let line = "sh -c 'serve --port {port} -j {threads}'";
        let told = recipe("command").unwrap().with_command(line).unwrap();
        told.honours([Setting::Threads]).unwrap();
    }
}
