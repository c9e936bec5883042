//! Folders of runs: how they are named, and how one is found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};

use super::result::RunResult;
use super::store::{StoreError, writing};

/// How the time of a run's start stands at the beginning of its folder's name, so that names sort by time.
const STARTED: &str = "%Y%m%dT%H%M%SZ";

/// Creates a directory that no other run has: a second run within the same second gets a number.
pub(super) fn create(root: &Path, run: &RunResult) -> Result<PathBuf, StoreError> {
    fs::create_dir_all(root).map_err(writing(root))?;
    let started: DateTime<Utc> = run.started_at.parse().unwrap_or_default();
    let name = format!(
        "{}-{}",
        started.format(STARTED),
        file_safe(run.profile_name().unwrap_or("run"))
    );
    for attempt in 1_u32.. {
        let dir = root.join(if attempt == 1 {
            name.clone()
        } else {
            format!("{name}-{attempt}")
        });
        match fs::create_dir(&dir) {
            Ok(()) => {
                let hdr = dir.join("hdr");
                fs::create_dir(&hdr).map_err(writing(&hdr))?;
                return Ok(dir);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(writing(&dir)(e)),
        }
    }
    unreachable!("more than four billion runs within a second")
}

/// A name that is safe as part of a file name everywhere.
pub(super) fn file_safe(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// The directory of `run`: a path, or `last` for the newest run under `root`, `last~1` for the one before it, and so on.
///
/// # Errors
/// When there is no such run.
pub fn find(root: &Path, run: &str) -> Result<PathBuf, StoreError> {
    let holds_run = |dir: &Path| dir.join("run.json").is_file() || dir.join("requests.jsonl").is_file();
    let back = match run.strip_prefix("last") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix('~').and_then(|n| n.parse::<usize>().ok()),
        None => None,
    };
    let Some(back) = back else {
        let named = [PathBuf::from(run), root.join(run)];
        return named
            .into_iter()
            .find(|dir| holds_run(dir))
            .ok_or_else(|| StoreError::NoRun {
                path: PathBuf::from(run),
            });
    };
    let entries = fs::read_dir(root).map_err(|source| StoreError::Read {
        path: root.to_owned(),
        source,
    })?;
    let mut dirs: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|dir| is_named_by_time(dir) && holds_run(dir))
        .collect();
    dirs.sort();
    dirs.into_iter().rev().nth(back).ok_or_else(|| StoreError::NoRun {
        path: root.to_owned(),
    })
}

/// Whether a folder bears the name that its run gave it. One that was renamed, or that lies there for another reason, has no
/// place in the order of time.
fn is_named_by_time(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.split_once('-'))
        .is_some_and(|(time, _)| NaiveDateTime::parse_from_str(time, STARTED).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_runs(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("run.json"), "{}").unwrap();
        }
        root
    }

    #[test]
    fn a_baseline_kept_beside_the_runs_is_found_by_its_name_and_is_never_the_last() {
        let root = with_runs(&[
            "20260301T123000Z-quick",
            "20260302T000000Z-quick",
            "baseline",
            "old-20260303",
        ]);
        let at = |run: &str| find(root.path(), run).unwrap();
        assert_eq!(at("last"), root.path().join("20260302T000000Z-quick"));
        assert_eq!(at("last~1"), root.path().join("20260301T123000Z-quick"));
        assert!(find(root.path(), "last~2").is_err());
        assert_eq!(at("baseline"), root.path().join("baseline"));
    }
}
