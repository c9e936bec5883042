//! Where an engine's program is on this machine, and what to do where it isn't.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;

use super::error::reason;
use super::recipe::{Find, Install, Kind, Recipe};
use super::{EngineError, Progress, build, catalogue, install};

/// How long a program may take to tell its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(10);

/// A program that can be started as a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program, and arguments that come before the recipe's.
    pub argv: Vec<OsString>,
    /// Its version, where it tells.
    pub version: Option<String>,
}

impl Program {
    /// A program that needs no arguments of its own.
    pub fn at(path: impl Into<OsString>) -> Program {
        Program {
            argv: vec![path.into()],
            version: None,
        }
    }
}

/// Whether an engine can be used on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It can be started.
    Ready(Program),
    /// It is built by its first use.
    Buildable {
        /// What that costs.
        takes: String,
    },
    /// It can be installed.
    Installable {
        /// What to type, and what that costs.
        how: String,
    },
    /// It can be had by the user only.
    Missing {
        /// What to do.
        what_to_do: String,
    },
    /// It is never started: `--url` gives its address.
    Attach,
}

impl Recipe {
    /// Whether the engine can be used here. Builds and installs nothing.
    ///
    /// # Errors
    /// A program that the user named in the environment but that is not there.
    pub fn availability(&self) -> Result<Availability, EngineError> {
        if self.kind == Kind::Attach {
            return Ok(Availability::Attach);
        }
        if !self.runs_here() {
            return Ok(Availability::Missing {
                what_to_do: format!("it runs on {} only", self.platforms.join(" and ")),
            });
        }
        if !self.engine_is_here()? {
            return Ok(Availability::Missing {
                what_to_do: self.what_to_do(),
            });
        }
        if let Some(program) = self.found()? {
            return Ok(Availability::Ready(program));
        }
        if let Some(program) = self.installed()? {
            return Ok(Availability::Ready(program));
        }
        if let Some(built) = self.build.as_ref().filter(|_| build::package(self).is_some()) {
            return Ok(Availability::Buildable {
                takes: built.takes.clone(),
            });
        }
        if let Some(install) = self.install.as_ref().filter(|install| install.possible()) {
            return Ok(Availability::Installable {
                how: self.install_command(install),
            });
        }
        Ok(Availability::Missing {
            what_to_do: self.what_to_do(),
        })
    }

    fn install_command(&self, install: &Install) -> String {
        format!(
            "type `loadtest engines install {}` ({})",
            self.name, install.takes
        )
    }

    fn runs_here(&self) -> bool {
        let here = |platform: &String| platform == std::env::consts::OS;
        self.platforms.is_empty() || self.platforms.iter().any(here)
    }

    /// The user's own server.
    fn users(&self) -> Result<Option<Program>, EngineError> {
        // What a bridge's user has is the engine behind it.
        let find = self.find.as_ref().filter(|_| self.kind != Kind::Bridge);
        find.map_or(Ok(None), |find| on_path(self, find))
    }

    /// Whether the engine behind a bridge is on this machine; other kinds have none.
    fn engine_is_here(&self) -> Result<bool, EngineError> {
        match &self.find {
            Some(find) if self.kind == Kind::Bridge => Ok(on_path(self, find)?.is_some()),
            _ => Ok(true),
        }
    }

    /// The program as the user has it, or as it was built or shipped.
    fn found(&self) -> Result<Option<Program>, EngineError> {
        if let Some(mut program) = self.users()? {
            program.version = self.version_of(&program);
            return Ok(Some(program));
        }
        let built = self.build.as_ref().and_then(|how| build::built(&how.binary));
        let Some(path) = built else { return Ok(None) };
        Ok(Some(Program {
            version: self.version_behind()?,
            ..Program::at(path)
        }))
    }

    /// What a program of the user's says of its version.
    fn version_of(&self, program: &Program) -> Option<String> {
        let args = self.find.as_ref().map_or(&[][..], |find| &find.version_args);
        version(program, args, VERSION_PATIENCE)
    }

    /// The version of the engine behind a bridge; of other kinds, none.
    fn version_behind(&self) -> Result<Option<String>, EngineError> {
        let find = self.find.as_ref().filter(|_| self.kind == Kind::Bridge);
        let engine = find.map_or(Ok(None), |find| on_path(self, find))?;
        Ok(engine.and_then(|engine| self.version_of(&engine)))
    }

    fn installed(&self) -> Result<Option<Program>, EngineError> {
        self.install
            .as_ref()
            .map_or(Ok(None), |how| install::installed(self, how))
    }

    fn what_to_do(&self) -> String {
        let Some(find) = &self.find else {
            return match self.kind {
                Kind::Command => "give the line that starts it: --command 'my-server --port {port}'".into(),
                _ => format!(
                    "it is built in a source checkout of loadtest, and this is none; in one, `cargo install --locked --path .` in \
                     servers/{} puts it on PATH",
                    self.name
                ),
            };
        };
        let path =
            (!find.programs.is_empty()).then(|| format!("put `{}` on PATH", find.programs.join("` or `")));
        let env = find.env.as_ref().map(|env| format!("name the program in {env}"));
        let ways: Vec<String> = [path, env].into_iter().flatten().collect();
        let ways = ways.join(", or ");
        let by_hand = match &find.get {
            Some(get) if ways.is_empty() => get.clone(),
            Some(get) => format!("{get}; then {ways}"),
            None => ways,
        };
        match self.install.as_ref().filter(|install| install.lacks_go()) {
            Some(install) => format!(
                "{by_hand}; or put `go` on PATH and {}",
                self.install_command(install)
            ),
            None => by_hand,
        }
    }
}

/// The engine's program: the user's, else in a checkout the one cargo builds now (quick when nothing changed), for the
/// device if one is named, else one that was built or installed before.
///
/// # Errors
/// What to type or do where there is none, and the end of cargo's output where the build failed.
pub fn ensure(
    recipe: &Recipe,
    device: Option<&str>,
    progress: &dyn Progress,
) -> Result<Program, EngineError> {
    let may_build = std::env::var_os("LOADTEST_NO_BUILD").is_none();
    if recipe.users()?.is_none()
        && recipe.engine_is_here()?
        && may_build
        && let Some(how) = &recipe.build
        && let Some(package) = build::package(recipe)
    {
        return Ok(Program {
            version: recipe.version_behind()?,
            ..build::build(recipe, how, &package, device, progress)?
        });
    }
    let what_to_do = match recipe.availability()? {
        Availability::Ready(program) => return Ok(program),
        Availability::Buildable { .. } => "LOADTEST_NO_BUILD is set and it was not built before".into(),
        Availability::Installable { how } => how,
        Availability::Missing { what_to_do } => what_to_do,
        Availability::Attach => "it is not started by loadtest; give its address with --url".into(),
    };
    Err(EngineError::Missing {
        engine: recipe.name.clone(),
        what_to_do,
    })
}

/// A row of `loadtest engines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The engine's name.
    pub name: String,
    /// Embedded, spawned, bridge or attach.
    pub kind: Kind,
    /// In a word: `ready`, `builds itself`, `not installed`, `missing`, `--command`, `--url`.
    pub state: &'static str,
    /// Version, where it is known.
    pub version: Option<String>,
    /// Where its program is, where there is one.
    pub path: Option<PathBuf>,
    /// Model formats that it takes.
    pub formats: Vec<String>,
    /// What the machine must have.
    pub needs: Option<String>,
    /// What to type or do to use it.
    pub what_to_do: String,
    /// One line about it.
    pub description: String,
}

/// All engines, as `loadtest engines` shows them.
///
/// # Errors
/// A recipe that can't be read.
pub fn list() -> Result<Vec<Listed>, EngineError> {
    let row = |recipe: Recipe| {
        let use_it = format!("--engine {}", recipe.name);
        // Not of a program that the user has in the place of ours.
        let builds = recipe.users().is_ok_and(|users| users.is_none());
        let built = recipe.build.as_ref().filter(|_| builds);
        let of_build = || built?.version.clone();
        let (state, program, what_to_do) = match recipe.availability() {
            Ok(Availability::Ready(program)) => ("ready", Some(program), use_it),
            Ok(Availability::Buildable { takes }) => (
                "builds itself",
                None,
                format!("{use_it} ({takes} the first time)"),
            ),
            Ok(Availability::Installable { how }) => ("not installed", None, how),
            Ok(Availability::Missing { what_to_do }) => match recipe.kind {
                Kind::Command => (
                    "--command",
                    None,
                    format!("{use_it} --command 'my-server --port {{port}}'"),
                ),
                _ => ("missing", None, what_to_do),
            },
            Ok(Availability::Attach) => match &recipe.url {
                Some(url) => (
                    "--url",
                    None,
                    format!("start it at {url}, then {use_it} --model NAME"),
                ),
                None => ("--url", None, "--url http://HOST:PORT --model NAME".into()),
            },
            Err(error) => ("missing", None, reason(&error)),
        };
        let path = program
            .as_ref()
            .and_then(|program| program.argv.first())
            .map(PathBuf::from);
        let version = program.and_then(|program| program.version).or_else(of_build);
        let converted = recipe.convert.is_some().then(|| "gguf (converted)".to_owned());
        let formats = recipe.formats.into_iter().chain(converted).collect();
        Listed {
            name: recipe.name,
            kind: recipe.kind,
            state,
            version,
            path,
            formats,
            needs: recipe.needs,
            what_to_do,
            description: recipe.description,
        }
    };
    Ok(catalogue::recipes()?.into_iter().map(row).collect())
}

/// The user's program: named in the environment, else the first on `PATH`.
fn on_path(recipe: &Recipe, find: &Find) -> Result<Option<Program>, EngineError> {
    let named = find
        .env
        .as_ref()
        .and_then(|env| Some((env, std::env::var_os(env).filter(|path| !path.is_empty())?)));
    if let Some((env, path)) = named {
        let path = PathBuf::from(path);
        if !path.is_file() {
            let what_to_do = format!("{env} names {}, which is no file", path.display());
            return Err(EngineError::Missing {
                engine: recipe.name.clone(),
                what_to_do,
            });
        }
        return Ok(Some(Program::at(path)));
    }
    Ok(find
        .programs
        .iter()
        .find_map(|name| search_path(name))
        .map(Program::at))
}

/// The executable that a word of a command line means: at a path, or on `PATH`.
pub(super) fn program(word: &str) -> Option<PathBuf> {
    if !word.contains('/') {
        return search_path(word);
    }
    let path = std::path::absolute(word).ok()?;
    executable(&path).then_some(path)
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The first executable called `name` on `PATH`.
pub(super) fn search_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| executable(path))
}

/// The first line that mentions a version, out of what the program prints for `args`; none of a program that fails at it,
/// or that is still at it after `patience`.
fn version(program: &Program, args: &[String], patience: Duration) -> Option<String> {
    let (path, first) = program.argv.split_first().filter(|_| !args.is_empty())?;
    let mut command = Command::new(path);
    command
        .args(first)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().ok()?;
    let deadline = Instant::now() + patience;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(ended)) => break Some(ended),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            _ => break None,
        }
    };
    // It fails only when nothing is left of them. What holds the pipes would be waited for.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let Some(ended) = ended else {
        let _ = child.wait();
        return None;
    };
    if !ended.success() {
        return None;
    }
    let mut text = String::new();
    // What a version says fits a pipe, so reading after the end loses nothing.
    child.stdout.take()?.take(4096).read_to_string(&mut text).ok()?;
    child.stderr.take()?.take(4096).read_to_string(&mut text).ok()?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().next();
    lines
        .find(|line| line.to_lowercase().contains("version"))
        .or(first)
        .map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(script: &str, patience: Duration) -> Option<String> {
        let argv = ["/bin/sh", "-c", script].map(OsString::from).into();
        version(&Program { argv, version: None }, &["--version".into()], patience)
    }

    #[test]
    fn a_version_is_told_by_a_program_that_knows_it() {
        let long = Duration::from_secs(600);
        assert_eq!(says("echo; echo lmrs-api 1.0", long).unwrap(), "lmrs-api 1.0");
        assert_eq!(
            says("echo loading; echo version: 5 >&2", long).unwrap(),
            "version: 5"
        );
        assert_eq!(says("echo unexpected argument >&2; exit 2", long), None);
        // One that goes to the background holds its pipes.
        assert_eq!(says("sleep 600 & echo server 1", long).unwrap(), "server 1");
        assert_eq!(says("sleep 600; echo late", Duration::ZERO), None);
    }
}
