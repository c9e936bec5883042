//! The checksum of a model that the user has at a path: computed, and for a large one remembered until a file changes.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{Model, ModelError, Progress, cache};

/// From this many bytes on, hashing takes long enough to be shown and remembered.
const LARGE: u64 = 64 << 20;

/// The SHA-256 of a file, or the [`listing`] of a folder.
pub(super) fn of(model: &Model, cache: &Path, progress: &dyn Progress) -> Result<String, ModelError> {
    let path = &model.path;
    compute(path, cache, (&model.name, LARGE), progress).map_err(ModelError::io(path))
}

fn compute(
    path: &Path,
    cache: &Path,
    (name, large): (&str, u64),
    progress: &dyn Progress,
) -> io::Result<String> {
    let files = match path.is_dir() {
        true => files(path)?,
        false => vec![path.to_owned()],
    };
    let ledger = match bytes(&files)? >= large {
        true => Some(Ledger::of(cache, path)?),
        false => None,
    };
    let stamps = files.iter().map(|file| cache::stamp(file));
    let stamps = stamps.collect::<io::Result<Vec<_>>>()?;
    let known = |stamp: &String| ledger.as_ref()?.known.get(stamp).cloned();
    let mut sums: Vec<Option<String>> = stamps.iter().map(known).collect();
    let missing: Vec<usize> = (0..files.len()).filter(|&at| sums[at].is_none()).collect();
    if !missing.is_empty() {
        let unread: Vec<PathBuf> = missing.iter().map(|&at| files[at].clone()).collect();
        if ledger.is_some() {
            progress.begin(&format!("checking {name}"), Some(bytes(&unread)?));
        }
        let hashed: io::Result<()> = missing.iter().try_for_each(|&at| {
            sums[at] = Some(cache::hash(&files[at], progress)?);
            Ok(())
        });
        progress.finish();
        hashed?;
    }
    let sums: Vec<String> = sums.into_iter().flatten().collect();
    if let Some(ledger) = ledger.filter(|_| !missing.is_empty()) {
        // A checksum that is not remembered costs time only.
        let _ = ledger.keep(sums.iter().zip(&stamps));
    }
    Ok(match path.is_dir() {
        true => listing(
            path,
            sums.iter()
                .map(String::as_str)
                .zip(files.iter().map(PathBuf::as_path)),
        ),
        false => sums.concat(),
    })
}

/// The SHA-256 of the lines `SHA-256  path` of files in `folder`, given sorted.
pub(super) fn listing<'a>(folder: &Path, files: impl Iterator<Item = (&'a str, &'a Path)>) -> String {
    let mut lines = Sha256::new();
    for (sha256, file) in files {
        let name = file.strip_prefix(folder).unwrap_or(file);
        lines.update(format!("{sha256}  {}\n", name.display()));
    }
    cache::hex(lines)
}

/// The files in `folder` and in the folders below it, sorted. Hidden ones are no part of a model: `.git` and `.cache` hold
/// copies and times.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // A link to a folder may lead round in a circle; one to a file is what the hub's cache is made of.
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The bytes of all these files.
pub(super) fn bytes(files: &[PathBuf]) -> io::Result<u64> {
    files.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// What is remembered of the model at one path: a line `SHA-256 stamp` for each file.
struct Ledger {
    path: PathBuf,
    /// SHA-256 by [stamp](cache::stamp).
    known: HashMap<String, String>,
}

impl Ledger {
    fn of(cache: &Path, model: &Path) -> io::Result<Ledger> {
        let mut place = Sha256::new();
        place.update(model.canonicalize()?.as_os_str().as_encoded_bytes());
        let name = &cache::hex(place)[..16];
        let path = cache.join("checksums").join(name);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let pair = |line: &str| {
            let (sha256, stamp) = line.split_once(' ')?;
            Some((stamp.to_owned(), sha256.to_owned()))
        };
        Ok(Ledger {
            path,
            known: text.lines().filter_map(pair).collect(),
        })
    }

    /// Remembers these and nothing else.
    fn keep<'a>(&self, lines: impl Iterator<Item = (&'a String, &'a String)>) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = NamedTempFile::new_in(folder)?;
        for (sha256, stamp) in lines {
            writeln!(file, "{sha256} {stamp}")?;
        }
        file.persist(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What had to be hashed: bytes each time.
    #[derive(Default)]
    struct Begun(RefCell<Vec<u64>>);

    impl Progress for Begun {
        fn begin(&self, _: &str, total: Option<u64>) {
            self.0.borrow_mut().extend(total);
        }
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_large_file_is_hashed_once_and_again_when_it_changed() {
        let place = tempfile::tempdir().unwrap();
        let (file, cache) = (place.path().join("m.gguf"), place.path().join("cache"));
        let begun = Begun::default();
        let sum = || compute(&file, &cache, ("m", 3), &begun).unwrap();
        fs::write(&file, "abc").unwrap();
        assert_eq!((sum(), sum()), (ABC.to_owned(), ABC.to_owned()));
        assert_eq!(*begun.0.borrow(), [3]);
        fs::write(&file, "abcd").unwrap();
        assert_ne!(sum(), ABC);
        assert_eq!(*begun.0.borrow(), [3, 4]);
        let small = compute(&file, &place.path().join("none"), ("m", LARGE), &begun).unwrap();
        assert_eq!((small, begun.0.borrow().len()), (sum(), 2));
        assert!(!place.path().join("none").exists());
    }

    #[test]
    fn a_folder_has_the_checksum_of_its_listing() {
        let place = tempfile::tempdir().unwrap();
        let (folder, cache) = (place.path().join("m"), place.path().join("cache"));
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::create_dir_all(folder.join(".git")).unwrap();
        for name in ["b.json", "sub/a", ".git/copy"] {
            fs::write(folder.join(name), "abc").unwrap();
        }
        // A link to a file is the file; one to a folder is left out.
        std::os::unix::fs::symlink(folder.join("b.json"), folder.join("a.json")).unwrap();
        std::os::unix::fs::symlink(&folder, folder.join("round")).unwrap();
        let begun = Begun::default();
        let sum = || compute(&folder, &cache, ("m", 1), &begun).unwrap();
        let mut wanted = Sha256::new();
        wanted.update(format!("{ABC}  a.json\n{ABC}  b.json\n{ABC}  sub/a\n"));
        let wanted = cache::hex(wanted);
        assert_eq!((&sum(), &sum()), (&wanted, &wanted));
        // Of a changed folder, only what changed is read.
        fs::write(folder.join("sub/a"), "abcd").unwrap();
        assert_ne!(sum(), wanted);
        assert_eq!(*begun.0.borrow(), [9, 4]);
    }
}
