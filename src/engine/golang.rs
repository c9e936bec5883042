//! What Go builds out of a module, in a folder of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::watched;
use super::environment::clear;
use super::locate::search_path;
use super::recipe::{Install, Recipe};
use super::{EngineError, Progress};

/// Go's command.
pub(super) fn compiler() -> Option<PathBuf> {
    search_path("go")
}

/// Builds `packages`, which are named with their version, into `dir/bin`; returns the version of their module.
///
/// Sources and intermediate results have a folder in `dir` as well, which goes when the build is done: the user's own
/// module and build caches stay as they are.
pub(super) fn install(
    recipe: &Recipe,
    how: &Install,
    packages: &[String],
    dir: &Path,
    progress: &dyn Progress,
) -> Result<String, EngineError> {
    let go = compiler().ok_or_else(|| EngineError::Missing {
        engine: recipe.name.clone(),
        what_to_do: "its installation needs Go: put `go` on PATH".into(),
    })?;
    // Binaries come to their place when the build is whole.
    let (binaries, scratch) = (dir.join("bin"), dir.join("build"));
    let built = scratch.join("bin");
    clear(&scratch)?;
    let what = format!("installing {}", recipe.title);
    let mut build = Command::new(&go);
    // Go writes modules that cannot be deleted unless told otherwise.
    build.args(["install", "-v", "-modcacherw"]).args(packages);
    build
        .env("GOBIN", &built)
        .env("GOPATH", scratch.join("modules"))
        .env("GOCACHE", scratch.join("cache"))
        .env_remove("GOMODCACHE")
        .envs(&how.env);
    watched(&recipe.name, &what, &mut build, said, progress)?;
    clear(&binaries)?;
    std::fs::rename(&built, &binaries)
        .map_err(EngineError::io(format!("cannot write {}", binaries.display())))?;
    clear(&scratch)?;
    let mut ask = Command::new(&go);
    ask.args(["version", "-m"]).arg(&binaries);
    let told = watched(&recipe.name, &what, &mut ask, |_| None, progress)?;
    Ok(version(&told).unwrap_or_else(|| packages.join(", ")))
}

/// A line of Go's as a word about its progress: what it downloads, or, alone in its line, a package it is done with.
fn said(line: &str) -> Option<String> {
    let line = line.trim();
    let package = !line.is_empty() && !line.contains(char::is_whitespace);
    (package || line.starts_with("go: downloading ")).then(|| line.chars().take(100).collect())
}

/// `v0.9.3` out of what `go version -m` tells of a binary.
fn version(told: &str) -> Option<String> {
    let mut words = told
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some("mod")).then_some(words))?;
    words.nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_says_is_no_progress() {
        assert!(said("github.com/ollama/ollama/llama").is_some());
        assert!(said("go: downloading golang.org/x/sys v0.31.0").is_some());
        assert_eq!(said("cgo: C compiler \"gcc\" not found"), None);
        assert_eq!(said("# github.com/ollama/ollama/llama"), None);
    }

    #[test]
    fn a_binary_tells_its_version() {
        let told = "bin/ollama: go1.24.0\n\tpath\tgithub.com/ollama/ollama\n\
                    \tmod\tgithub.com/ollama/ollama\tv0.9.3\th1:abc=\n\tdep\tgithub.com/x/y\tv1.0.0\n";
        assert_eq!(version(told).as_deref(), Some("v0.9.3"));
        assert_eq!(version("bin/ollama: go1.24.0\n"), None);
    }
}
