//! The local model cache: one slot a model, filled atomically, its checksum remembered beside it.

use super::{ModelError, Progress};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use tempfile::{NamedTempFile, TempDir};

/// Where one model's file is kept, held by this process alone until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    folder: PathBuf,
    name: String,
    _lock: File,
}

impl Slot {
    /// Opens the slot of `name`, waiting for another process that holds it.
    pub(super) fn open(cache: &Path, name: &str, progress: &dyn Progress) -> Result<Self, ModelError> {
        let folder = cache.join("models");
        fs::create_dir_all(&folder).map_err(ModelError::io(&folder))?;
        let path = folder.join(format!("{name}.lock"));
        let lock = File::create(&path).map_err(ModelError::io(&path))?;
        if lock.try_lock().is_err() {
            progress.note(&format!("waiting for another loadtest that fetches {name}"));
            lock.lock().map_err(ModelError::io(&path))?;
        }
        let slot = Self {
            folder,
            name: name.to_owned(),
            _lock: lock,
        };
        slot.sweep();
        Ok(slot)
    }

    /// The model's file once it is there.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.gguf", self.name))
    }

    /// A new file to download to; it vanishes unless it is installed.
    pub(super) fn part(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(&self.temporary())
            .suffix(".part")
            .tempfile_in(&self.folder)
    }

    /// A new folder to download to; it vanishes when dropped.
    pub(super) fn scratch(&self) -> io::Result<TempDir> {
        tempfile::Builder::new()
            .prefix(&self.temporary())
            .suffix(".part")
            .tempdir_in(&self.folder)
    }

    /// Puts a whole download whose checksum was held in the model's place.
    pub(super) fn install(&self, part: NamedTempFile, sha256: &str) -> io::Result<PathBuf> {
        part.as_file().sync_all()?;
        part.persist(self.file())?;
        self.remember(&self.file(), sha256)?;
        Ok(self.file())
    }

    /// The SHA-256 of `path`: remembered if the file has not changed since, else computed.
    pub(super) fn checksum(&self, path: &Path, progress: &dyn Progress) -> io::Result<String> {
        let stamp = stamp(path)?;
        let remembered = fs::read_to_string(self.sidecar(path)).unwrap_or_default();
        if let Some((sha256, rest)) = remembered.trim_end().split_once(' ')
            && rest == stamp
        {
            return Ok(sha256.to_owned());
        }
        progress.begin(
            &format!("checking {}", self.name),
            Some(fs::metadata(path)?.len()),
        );
        let sha256 = hash(path, progress);
        progress.finish();
        let sha256 = sha256?;
        self.remember(path, &sha256)?;
        Ok(sha256)
    }

    fn remember(&self, path: &Path, sha256: &str) -> io::Result<()> {
        let mut sidecar = NamedTempFile::new_in(&self.folder)?;
        writeln!(sidecar, "{sha256} {}", stamp(path)?)?;
        sidecar.persist(self.sidecar(path))?;
        Ok(())
    }

    /// Where the checksum of `path` is remembered; a model in Hugging Face's layout has several files.
    fn sidecar(&self, path: &Path) -> PathBuf {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        self.folder.join(format!("{}.{file}.sha256", self.name))
    }

    fn temporary(&self) -> String {
        format!(".{}-", self.name)
    }

    /// Removes what a killed download left: the lock is ours, so nobody writes it any more.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&self.temporary()) && name.ends_with(".part") {
                let path = entry.path();
                // What cannot be removed costs disk space only.
                let _ = if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
            }
        }
    }
}

/// Size, times, inode and path: a file for which they are the same is taken to be the same. What copies a file with its time
/// of modification does not set the time at which the inode changed.
pub(super) fn stamp(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    let changed = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(format!(
        "{} {} {}.{:09} {} {}",
        metadata.len(),
        changed.as_nanos(),
        metadata.ctime(),
        metadata.ctime_nsec(),
        metadata.ino(),
        path.display()
    ))
}

/// A digest in lower-case hex.
pub(super) fn hex(digest: Sha256) -> String {
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The SHA-256 of the file at `path` in lower-case hex.
pub(super) fn hash(path: &Path, progress: &dyn Progress) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hashing = Hashing::new(io::sink(), progress);
    io::copy(&mut file, &mut hashing)?;
    Ok(hashing.finish())
}

/// A writer that hashes what passes and reports its length.
pub(super) struct Hashing<'a, W> {
    output: W,
    digest: Sha256,
    progress: &'a dyn Progress,
}

impl<'a, W: Write> Hashing<'a, W> {
    pub(super) fn new(output: W, progress: &'a dyn Progress) -> Self {
        Self {
            output,
            digest: Sha256::new(),
            progress,
        }
    }

    /// The digest in lower-case hex.
    pub(super) fn finish(self) -> String {
        hex(self.digest)
    }
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.progress.advance(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Bytes of all files under `folder`.
pub(super) fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() {
            size_of(&path)
        } else {
            fs::metadata(&path).map_or(0, |metadata| metadata.len())
        }
    };
    entries.flatten().map(size).sum()
}

/// The first bytes of the file at `path`, for messages.
pub(super) fn beginning(path: &Path) -> Option<String> {
    let mut start = [0; 16];
    let read = File::open(path).ok()?.read(&mut start).ok()?;
    Some(start[..read].escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Counts how often something had to be hashed.
    #[derive(Default)]
    struct Begun(RefCell<usize>);

    impl Progress for Begun {
        fn begin(&self, _: &str, _: Option<u64>) {
            *self.0.borrow_mut() += 1;
        }
    }

    #[test]
    fn a_checksum_is_remembered_until_the_file_changes() {
        let cache = tempfile::tempdir().unwrap();
        let progress = Begun::default();
        let slot = Slot::open(cache.path(), "m", &progress).unwrap();
        fs::write(slot.file(), "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(slot.checksum(&slot.file(), &progress).unwrap(), abc);
        assert_eq!(slot.checksum(&slot.file(), &progress).unwrap(), abc);
        assert_eq!(*progress.0.borrow(), 1);
        fs::write(slot.file(), "abcd").unwrap();
        assert_ne!(slot.checksum(&slot.file(), &progress).unwrap(), abc);
        assert_eq!(*progress.0.borrow(), 2);
    }

    #[test]
    fn a_dropped_download_leaves_nothing_and_a_killed_one_is_swept() {
        let cache = tempfile::tempdir().unwrap();
        let slot = Slot::open(cache.path(), "m", &()).unwrap();
        let mut part = slot.part().unwrap();
        part.write_all(b"half").unwrap();
        drop(part);
        assert!(!slot.file().exists());
        let (_, killed) = slot.part().unwrap().keep().unwrap();
        drop(slot);
        assert!(killed.exists());
        let slot = Slot::open(cache.path(), "m", &()).unwrap();
        assert!(!killed.exists() && !slot.file().exists());
    }

    #[test]
    fn a_slot_is_held_by_one_at_a_time() {
        let cache = tempfile::tempdir().unwrap();
        let slot = Slot::open(cache.path(), "m", &()).unwrap();
        let path = cache.path().to_owned();
        let (sent, received) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let slot = Slot::open(&path, "m", &()).unwrap();
            sent.send(slot.file().exists()).unwrap();
        });
        let mut part = slot.part().unwrap();
        part.write_all(b"whole").unwrap();
        slot.install(part, "00").unwrap();
        assert!(received.try_recv().is_err());
        drop(slot);
        assert!(received.recv().unwrap());
        second.join().unwrap();
    }
}
