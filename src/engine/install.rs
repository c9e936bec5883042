//! Installing an engine into a folder of its own: a private Python environment, or what Go builds.

mod go;
mod python;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::locate::ensure;
use super::recipe::{Install, Recipe, fill};
use super::{EngineError, Program, Progress, catalogue};

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
        system && (self.go.is_none() || go::compiler().is_some())
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
        ("python", python::python_in(&dir).display().to_string()),
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
    forget(&dir.join(STAMP))?;
    let version = match &how.go {
        Some(package) => go::install(recipe, how, package, &dir, progress)?,
        None => python::install(recipe, &how.packages, &dir, progress)?,
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

/// Removes what says that an installation is whole.
fn forget(stamp: &Path) -> Result<(), EngineError> {
    match fs::remove_file(stamp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(EngineError::io(format!(
            "cannot remove {}",
            stamp.display()
        ))(error)),
        _ => Ok(()),
    }
}

/// Removes a folder with everything in it.
fn cleared(dir: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::io(format!("cannot clear {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

/// A line of an installer's output as a word about its progress, unless it is about an error.
fn said(line: &str) -> Option<String> {
    let line = line.trim();
    let short = || line.chars().take(100).collect();
    (!line.is_empty() && !line.to_lowercase().contains("error")).then(short)
}
