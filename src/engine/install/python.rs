//! A Python environment of an engine's own, filled by pip.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{cleared, said};
use crate::engine::build::watched;
use crate::engine::locate::search_path;
use crate::engine::recipe::Recipe;
use crate::engine::{EngineError, Progress};

/// Makes the environment in `dir`, which loses what it had, and puts the packages into it; returns their versions.
pub(super) fn install(
    recipe: &Recipe,
    packages: &[String],
    dir: &Path,
    progress: &dyn Progress,
) -> Result<String, EngineError> {
    let named = std::env::var_os("LOADTEST_PYTHON").map(PathBuf::from);
    let python = named
        .or_else(|| search_path("python3"))
        .ok_or_else(|| EngineError::Missing {
            engine: recipe.name.clone(),
            what_to_do: "its installation needs Python: put `python3` on PATH, or name it in LOADTEST_PYTHON"
                .into(),
        })?;
    let what = format!("installing {}", recipe.title);
    cleared(dir)?;
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
    pip.args(packages);
    watched(&recipe.name, &what, &mut pip, said, progress)?;
    versions(recipe, packages, dir, progress)
}

/// The versions that pip put in, as `name version`.
fn versions(
    recipe: &Recipe,
    packages: &[String],
    dir: &Path,
    progress: &dyn Progress,
) -> Result<String, EngineError> {
    let names: Vec<&str> = packages.iter().map(|package| bare_name(package)).collect();
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

/// The environment's interpreter.
pub(super) fn python_in(dir: &Path) -> PathBuf {
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
