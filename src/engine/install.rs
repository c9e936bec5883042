//! Installing an engine into a folder of its own.

use std::ffi::OsString;

use super::environment::Environment;
use super::locate::ensure;
use super::recipe::{Install, Recipe, fill};
use super::{EngineError, Program, Progress, golang};

impl Install {
    /// Whether this machine has what the installation itself needs.
    pub(super) fn possible(&self) -> bool {
        self.runs_here() && !(self.go.is_some() && golang::compiler().is_none())
    }

    /// Whether Go is all that it lacks.
    pub(super) fn lacks_go(&self) -> bool {
        self.runs_here() && !self.possible()
    }

    fn runs_here(&self) -> bool {
        let here = |platform: &String| platform == std::env::consts::OS;
        self.platforms.is_empty() || self.platforms.iter().any(here)
    }
}

/// The program of a whole installation, if there is one for the packages that the recipe wants.
pub(super) fn installed(recipe: &Recipe, how: &Install) -> Result<Option<Program>, EngineError> {
    let environment = Environment::of_engine(recipe, how)?;
    let Some(stamp) = environment.whole() else {
        return Ok(None);
    };
    environment.put_files()?;
    let values = [
        ("python", environment.python().display().to_string()),
        ("dir", environment.dir.display().to_string()),
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
        return ensure(recipe, None, progress);
    };
    let environment = Environment::of_engine(recipe, how)?;
    environment.make(progress)?;
    installed(recipe, how)?.ok_or_else(|| EngineError::Missing {
        engine: recipe.name.clone(),
        what_to_do: format!(
            "its installation in {} did not last; install it again",
            environment.dir.display()
        ),
    })
}
