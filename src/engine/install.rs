//! Installing an engine into a folder of its own: a private Python environment, or what Go builds.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::build::watched;
use super::locate::{ensure, search_path};
use super::recipe::{Install, Recipe, fill};
use super::{EngineError, Program, Progress, catalogue, golang};

/// Written last: an environment without it is not whole.
const STAMP: &str = "installed.json";

/// What a whole installation says about itself.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    packages: Vec<String>,
    version: String,
}

impl Install {
    /// What is put in: packages of Python, or the one that Go builds.
    fn contents(&self) -> Vec<String> {
        self.packages.iter().chain(&self.go).cloned().collect()
    }

    /// Whether this machine has what the installation itself needs.
    pub(super) fn possible(&self) -> bool {
        let here = |platform: &String| platform == std::env::consts::OS;
        let system = self.platforms.is_empty() || self.platforms.iter().any(here);
        system && (self.go.is_none() || golang::compiler().is_some())
    }
}

/// The folder of ours for an engine, where its environment is too: below `$LOADTEST_HOME`, else the user's data folder.
pub(super) fn folder(recipe: &Recipe) -> Result<PathBuf, EngineError> {
    let home = std::env::var_os("LOADTEST_HOME").map(PathBuf::from);
    let base = home
        .or_else(|| Some(dirs::data_dir()?.join("loadtest")))
        .ok_or_else(|| EngineError::Missing {
            engine: recipe.name.clone(),
            what_to_do: "there is no home folder to install into; name one in LOADTEST_HOME".into(),
        })?;
    Ok(base.join("engines").join(&recipe.name))
}

/// The program of a whole installation, if there is one for the packages that the recipe wants.
pub(super) fn installed(recipe: &Recipe, how: &Install) -> Result<Option<Program>, EngineError> {
    let dir = folder(recipe)?;
    let stamp = fs::read(dir.join(STAMP))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok());
    let Some(stamp) = stamp.filter(|stamp| stamp.packages == how.contents()) else {
        return Ok(None);
    };
    put_files(recipe, how, &dir)?;
    let values = [
        ("python", python_in(&dir).display().to_string()),
        ("dir", dir.display().to_string()),
    ];
    let argv = how
        .program
        .iter()
        .map(|word| OsString::from(fill(word, &values)))
        .collect();
    Ok(Some(Program {
        argv,
        version: Some(stamp.version),
    }))
}

/// Installs the engine into a folder of its own. What an interrupted installation left is done again. An engine
/// that is had in another way is [had](ensure) so.
///
/// # Errors
/// What to type for an engine that only the user can get, no Python or Go, or the end of what pip or Go said.
pub fn install(recipe: &Recipe, progress: &dyn Progress) -> Result<Program, EngineError> {
    let Some(how) = recipe.install.as_ref().filter(|how| how.possible()) else {
        return ensure(recipe, progress);
    };
    let dir = folder(recipe)?;
    let parent = dir.parent().unwrap_or(&dir);
    fs::create_dir_all(parent).map_err(EngineError::io(format!("cannot create {}", parent.display())))?;
    // Two installations of one engine wait for each other; the second finds the first one's.
    let lock = parent.join(format!("{}.lock", recipe.name));
    let lock_failed = || EngineError::io(format!("cannot lock {}", lock.display()));
    let held = File::create(&lock).map_err(lock_failed())?;
    held.lock().map_err(lock_failed())?;
    if let Some(program) = installed(recipe, how)? {
        return Ok(program);
    }
    progress.status(&format!("installing {}: {}", recipe.title, how.takes));
    let version = match &how.go {
        Some(package) => golang::install(recipe, how, package, &dir, progress)?,
        None => {
            cleared(&dir)?;
            environment(recipe, how, &dir, progress)?;
            versions(recipe, how, &dir, progress)?
        }
    };
    put_files(recipe, how, &dir)?;
    let stamp = Stamp {
        packages: how.contents(),
        version,
    };
    let partial = dir.join("installed.part");
    let written = fs::write(&partial, serde_json::json!(stamp).to_string());
    written
        .and_then(|()| fs::rename(&partial, dir.join(STAMP)))
        .map_err(EngineError::io(format!(
            "cannot write {}",
            dir.join(STAMP).display()
        )))?;
    installed(recipe, how)?.ok_or_else(|| EngineError::Missing {
        engine: recipe.name.clone(),
        what_to_do: format!(
            "its installation in {} did not last; install it again",
            dir.display()
        ),
    })
}

/// Removes a folder with everything in it.
pub(super) fn cleared(dir: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::io(format!("cannot clear {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Makes the environment and puts the packages into it.
fn environment(
    recipe: &Recipe,
    how: &Install,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    let named = std::env::var_os("LOADTEST_PYTHON").map(PathBuf::from);
    let python = named
        .or_else(|| search_path("python3"))
        .ok_or_else(|| EngineError::Missing {
            engine: recipe.name.clone(),
            what_to_do: "its installation needs Python: put `python3` on PATH, or name it in LOADTEST_PYTHON"
                .into(),
        })?;
    let what = format!("installing {}", recipe.title);
    let said = |line: &str| {
        let line = line.trim();
        let short = || line.chars().take(100).collect();
        (!line.is_empty() && !line.to_lowercase().contains("error")).then(short)
    };
    progress.status(&format!(
        "{what}: making a Python environment in {}",
        dir.display()
    ));
    watched(
        &recipe.name,
        &what,
        Command::new(python).args(["-m", "venv"]).arg(dir),
        said,
        progress,
    )?;
    let mut pip = Command::new(python_in(dir));
    pip.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    ]);
    pip.args(&how.packages);
    watched(&recipe.name, &what, &mut pip, said, progress)?;
    Ok(())
}

/// The versions that pip put in, as `name version`.
fn versions(
    recipe: &Recipe,
    how: &Install,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<String, EngineError> {
    let names: Vec<&str> = how.packages.iter().map(|package| bare_name(package)).collect();
    let script =
        "import sys, importlib.metadata as m; print(', '.join(n + ' ' + m.version(n) for n in sys.argv[1:]))";
    let mut python = Command::new(python_in(dir));
    python.args(["-c", script]).args(names);
    let printed = watched(
        &recipe.name,
        &format!("installing {}", recipe.title),
        &mut python,
        |_| None,
        progress,
    )?;
    Ok(printed.trim().to_owned())
}

/// `torch` out of `torch[extra]>=2,<3`.
fn bare_name(package: &str) -> &str {
    package
        .split(['=', '<', '>', '!', '~', '[', ';', ' ', '@'])
        .next()
        .unwrap_or(package)
}

/// Brings the files that stand beside the recipe up to date in the environment.
fn put_files(recipe: &Recipe, how: &Install, dir: &Path) -> Result<(), EngineError> {
    for file in &how.files {
        let text = catalogue::file_beside(recipe, file)?;
        let path = dir.join(file);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        let partial = path.with_extension("part");
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(EngineError::io(format!("cannot write {}", path.display())))?;
    }
    Ok(())
}

fn python_in(dir: &Path) -> PathBuf {
    dir.join("bin/python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_have_bare_names() {
        assert_eq!(bare_name("xllamacpp==2026.10.11549"), "xllamacpp");
        assert_eq!(bare_name("transformers[serving]>=5"), "transformers");
    }
}
