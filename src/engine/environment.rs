//! A folder for what an engine needs: a private Python environment, filled by pip, or what Go builds. It is whole or not
//! there, and shared by all who wait for it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::build::watched;
use super::locate::search_path;
use super::recipe::{Convert, Install, Recipe};
use super::{EngineError, Progress, catalogue, golang};

/// Written last: an environment without it is not whole.
const STAMP: &str = "installed.json";

/// How often a lock that another process holds is tried.
const LOCK_LOOK: Duration = Duration::from_millis(200);

/// What a whole environment says about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    packages: Vec<String>,
    /// The packages with their versions.
    pub version: String,
}

/// Where everything of ours for engines is: below `$LOADTEST_HOME`, else the user's data folder.
pub(super) fn home(recipe: &Recipe) -> Result<PathBuf, EngineError> {
    let home = std::env::var_os("LOADTEST_HOME").map(PathBuf::from);
    home.or_else(|| Some(dirs::data_dir()?.join("loadtest")))
        .ok_or_else(|| EngineError::Missing {
            engine: recipe.name.clone(),
            what_to_do: "there is no home folder to install into; name one in LOADTEST_HOME".into(),
        })
}

/// The folder of ours for an engine, where its environment is too; flavours of one engine share it.
pub(super) fn folder(recipe: &Recipe) -> Result<PathBuf, EngineError> {
    let shared = recipe.install.as_ref().and_then(|how| how.environment.as_ref());
    Ok(home(recipe)?.join("engines").join(shared.unwrap_or(&recipe.name)))
}

/// An environment as a recipe wants it.
pub(super) struct Environment<'a> {
    recipe: &'a Recipe,
    /// Where it is.
    pub dir: PathBuf,
    packages: &'a [String],
    /// How Go builds it; none: it is an environment of Python's.
    go: Option<&'a Install>,
    files: &'a [PathBuf],
    /// What making it means, for people.
    what: String,
    takes: &'a str,
}

impl<'a> Environment<'a> {
    /// The engine's.
    pub fn of_engine(recipe: &'a Recipe, how: &'a Install) -> Result<Environment<'a>, EngineError> {
        Ok(Environment {
            recipe,
            dir: folder(recipe)?,
            packages: how.go.as_ref().map_or(&how.packages, std::slice::from_ref),
            go: how.go.as_ref().map(|_| how),
            files: &how.files,
            what: format!("installing {}", recipe.title),
            takes: &how.takes,
        })
    }

    /// That of a converter that has packages of its own.
    pub fn of_converter(recipe: &'a Recipe, how: &'a Convert) -> Result<Environment<'a>, EngineError> {
        let name = format!("{}-convert", recipe.name);
        Ok(Environment {
            recipe,
            dir: home(recipe)?.join("engines").join(name),
            packages: &how.packages,
            go: None,
            files: &how.files,
            what: format!("installing what converts models for {}", recipe.title),
            takes: &how.takes,
        })
    }

    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.dir.join("bin/python")
    }

    /// What it says about itself, if it is whole and has the packages that are wanted.
    pub fn whole(&self) -> Option<Stamp> {
        let bytes = fs::read(self.dir.join(STAMP)).ok()?;
        let stamp: Stamp = serde_json::from_slice(&bytes).ok()?;
        (stamp.packages == self.packages).then_some(stamp)
    }

    /// Makes it, unless it is whole. What an interrupted installation left is done again.
    pub fn make(&self, progress: &dyn Progress) -> Result<(), EngineError> {
        // Two who make one environment wait for each other; the second finds the first one's.
        let _held = lock(&self.dir, progress)?;
        if self.whole().is_some() {
            return Ok(());
        }
        progress.note(&format!("{}: {}", self.what, self.takes));
        let version = match self.go {
            Some(how) => golang::install(self.recipe, how, self.packages, &self.dir, progress)?,
            None => self.fill(progress)?,
        };
        let stamp = Stamp {
            packages: self.packages.to_vec(),
            version,
        };
        let (partial, whole) = (self.dir.join("installed.part"), self.dir.join(STAMP));
        fs::write(&partial, serde_json::json!(stamp).to_string())
            .and_then(|()| fs::rename(&partial, &whole))
            .map_err(EngineError::io(format!("cannot write {}", whole.display())))
    }

    /// Makes the environment in place of what is there, and puts the packages into it; returns their versions.
    fn fill(&self, progress: &dyn Progress) -> Result<String, EngineError> {
        clear(&self.dir)?;
        let named = std::env::var_os("LOADTEST_PYTHON").map(PathBuf::from);
        let python = named
            .or_else(|| search_path("python3"))
            .ok_or_else(|| EngineError::Missing {
                engine: self.recipe.name.clone(),
                what_to_do:
                    "its installation needs Python: put `python3` on PATH, or name it in LOADTEST_PYTHON"
                        .into(),
            })?;
        progress.status(&format!(
            "{}: making a Python environment in {}",
            self.what,
            self.dir.display()
        ));
        let mut venv = Command::new(python);
        venv.args(["-m", "venv"]).arg(&self.dir);
        self.watched(&mut venv, progress)?;
        let mut pip = Command::new(self.python());
        pip.args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
        ])
        .args(["--progress-bar", "off"])
        .args(self.packages);
        self.watched(&mut pip, progress)?;
        self.versions(progress)
    }

    fn watched(&self, command: &mut Command, progress: &dyn Progress) -> Result<String, EngineError> {
        watched(&self.recipe.name, &self.what, command, said, progress)
    }

    /// The versions that pip put in, as `name version`.
    fn versions(&self, progress: &dyn Progress) -> Result<String, EngineError> {
        let names: Vec<&str> = self.packages.iter().map(|package| bare_name(package)).collect();
        let script = "import sys, importlib.metadata as m; \
                      print(', '.join(n + ' ' + m.version(n) for n in sys.argv[1:]))";
        let mut python = Command::new(self.python());
        python.args(["-c", script]).args(names);
        Ok(self.watched(&mut python, progress)?.trim().to_owned())
    }

    /// Brings the files that stand beside the recipe up to date in it.
    pub fn put_files(&self) -> Result<(), EngineError> {
        put_files(self.recipe, self.files, &self.dir)
    }
}

/// Removes a folder with everything in it.
pub(super) fn clear(dir: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::io(format!("cannot clear {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

/// A lock beside `path`, held until it is dropped; the folder around it is made. Waits for another process that holds it,
/// unless the user asks to stop.
pub(super) fn lock(path: &Path, progress: &dyn Progress) -> Result<File, EngineError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(EngineError::io(format!("cannot create {}", parent.display())))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock = parent.join(name);
    let failed = || EngineError::io(format!("cannot lock {}", lock.display()));
    let file = File::create(&lock).map_err(failed())?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
            Err(TryLockError::WouldBlock) if progress.stopped() => return Err(EngineError::Interrupted),
            Err(TryLockError::WouldBlock) => {
                progress.status(&format!(
                    "waiting for another loadtest that holds {}",
                    lock.display()
                ));
            }
        }
        thread::sleep(LOCK_LOOK);
    }
}

/// Brings files that stand beside the recipe up to date in `dir`.
pub(super) fn put_files(recipe: &Recipe, files: &[PathBuf], dir: &Path) -> Result<(), EngineError> {
    for file in files {
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

/// What pip and other programs that say what they do are seen to do. An error is kept for the end instead.
pub(super) fn said(line: &str) -> Option<String> {
    // Of a bar, its words and its share.
    let line = line.split('|').next().unwrap_or_default().trim();
    let short = || line.chars().take(100).collect();
    (!line.is_empty() && !line.to_lowercase().contains("error")).then(short)
}

/// `torch` out of `torch[extra]>=2,<3`.
fn bare_name(package: &str) -> &str {
    package
        .split(['=', '<', '>', '!', '~', '[', ';', ' ', '@'])
        .next()
        .unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_its_words_and_its_share() {
        assert_eq!(
            said("writing:  28%|##    | 75/272 [00:07<00:09]").unwrap(),
            "writing:  28%"
        );
        assert_eq!(said("ERROR: no such package"), None);
    }

    #[test]
    fn requirements_have_bare_names() {
        assert_eq!(bare_name("xllamacpp==2026.10.11549"), "xllamacpp");
        assert_eq!(bare_name("transformers[serving]>=5"), "transformers");
    }
}
