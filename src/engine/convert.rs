//! A model in a form that an engine does not read, converted once and kept.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::build::{TAIL_LINES, watched};
use super::environment::{Environment, clear, folder, home, lock, put_files, said};
use super::recipe::{Convert, Recipe, fill, placeholders};
use super::{EngineError, Progress, catalogue};

/// Written last, beside the converted model.
const STAMP: &str = "converted.json";

/// The folder that the converter fills.
const MODEL: &str = "model";

/// A model that was converted for an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Converted {
    /// The folder that the engine is given.
    pub path: PathBuf,
    /// SHA-256 of the file that it was made from.
    pub from_sha256: String,
    /// SHA-256 over the lines `SHA-256  path` of its files, sorted by path: what `sha256sum` prints for them.
    pub sha256: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its form, in the converter's words.
    pub format: String,
    /// Bits for each weight, as the converter counted what it wrote; none where it did not say.
    pub bits_per_weight: Option<f64>,
    /// Seconds that the conversion took.
    pub seconds: f64,
}

/// The last line that a converter prints.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    format: Option<String>,
    bits_per_weight: Option<f64>,
}

/// Whether the engine gets a conversion of `model` in its place: it reads no GGUF, and its recipe has a converter.
pub fn is_converted(recipe: &Recipe, model: &Path) -> bool {
    let gguf = |name: &str| name.eq_ignore_ascii_case("gguf");
    let is_gguf = model.extension().and_then(|e| e.to_str()).is_some_and(gguf);
    recipe.convert.is_some() && is_gguf && !recipe.formats.iter().any(|format| gguf(format))
}

/// The conversion of the GGUF `model` that the engine [needs](is_converted), made unless it was made before: one for each
/// content of the file and each converter, whole or not there.
///
/// # Errors
/// What to type where the converter's environment is missing, or the end of what the converter said.
pub fn convert(
    recipe: &Recipe,
    model: &Path,
    sha256: &str,
    progress: &dyn Progress,
) -> Result<Option<Converted>, EngineError> {
    let Some(how) = recipe.convert.as_ref().filter(|_| is_converted(recipe, model)) else {
        return Ok(None);
    };
    let place = home(recipe)?.join("converted").join(key(recipe, how, sha256)?);
    let _held = lock(&place, progress)?;
    if let Some(kept) = kept(&place) {
        return Ok(Some(kept));
    }
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = place.with_file_name(name);
    // What a conversion left that was killed, and what one left that the user spoiled.
    clear(&part)?;
    clear(&place)?;
    let out = part.join(MODEL);
    fs::create_dir_all(&out).map_err(EngineError::io(format!("cannot create {}", out.display())))?;
    let converted = write(recipe, how, model, &out, progress);
    let (told, seconds) = match converted {
        Ok(converted) => converted,
        Err(error) => {
            clear(&part)?;
            return Err(error);
        }
    };
    let unread = || EngineError::io(format!("cannot read {}", out.display()));
    let (sha256_out, bytes) = listing(&out).map_err(unread())?;
    let converted = Converted {
        path: place.join(MODEL),
        from_sha256: sha256.to_owned(),
        sha256: sha256_out,
        bytes,
        format: told.format.unwrap_or_else(|| how.to.clone()),
        bits_per_weight: told.bits_per_weight,
        seconds,
    };
    fs::write(part.join(STAMP), serde_json::json!(converted).to_string())
        .and_then(|()| fs::rename(&part, &place))
        .map_err(EngineError::io(format!("cannot write {}", place.display())))?;
    Ok(Some(converted))
}

/// Runs the converter; what it told of its work, and the seconds that it took.
fn write(
    recipe: &Recipe,
    how: &Convert,
    model: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(Told, f64), EngineError> {
    let (python, dir) = tools(recipe, how, progress)?;
    let model = std::path::absolute(model).unwrap_or_else(|_| model.to_owned());
    let name = model
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let values = [
        ("python", python.display().to_string()),
        ("dir", dir.display().to_string()),
        ("model", model.display().to_string()),
        ("out", out.display().to_string()),
    ];
    let words: Vec<OsString> = how
        .command
        .iter()
        .map(|word| fill(word, &values).into())
        .collect();
    let Some((program, args)) = words.split_first() else {
        return Ok((Told::default(), 0.0));
    };
    let what = format!("converting {name} to {} for {}", how.to, recipe.title);
    progress.note(&format!("{what}, once: {}", how.takes));
    let started = Instant::now();
    let lines = Mutex::new(VecDeque::new());
    let seen = |line: &str| {
        keep(&lines, line);
        said(line)
    };
    let mut converter = Command::new(program);
    let output = watched(&recipe.name, &what, converter.args(args), seen, progress);
    let output = output.map_err(|error| with_all(error, &lines))?;
    let last = output.lines().rfind(|line| !line.trim().is_empty());
    let told = last.and_then(|line| serde_json::from_str(line).ok());
    Ok((told.unwrap_or_default(), started.elapsed().as_secs_f64()))
}

/// Keeps the last lines that a converter says, progress bars left out.
fn keep(lines: &Mutex<VecDeque<String>>, line: &str) {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if !line.trim().is_empty() && !line.contains("%|") {
        lines.push_back(line.to_owned());
    }
    if lines.len() > TAIL_LINES {
        lines.pop_front();
    }
}

/// The failure of a converter with all of its last lines: what went before an error tells where it was.
fn with_all(error: EngineError, lines: &Mutex<VecDeque<String>>) -> EngineError {
    let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    match error {
        EngineError::Command { engine, command, .. } => EngineError::Command {
            engine,
            command,
            tail: Vec::from(lines).join("\n"),
        },
        other => other,
    }
}

/// The converter's interpreter and its folder, with its files in it.
fn tools(recipe: &Recipe, how: &Convert, progress: &dyn Progress) -> Result<(PathBuf, PathBuf), EngineError> {
    if !how.packages.is_empty() {
        let environment = Environment::of_converter(recipe, how)?;
        environment.make(progress)?;
        environment.put_files()?;
        return Ok((environment.python(), environment.dir));
    }
    let dir = folder(recipe)?;
    let python = dir.join("bin/python");
    if how.uses("python") && !python.is_file() {
        return Err(EngineError::Missing {
            engine: recipe.name.clone(),
            what_to_do: format!(
                "it takes {} and is given a GGUF; what converts it comes with `loadtest engines install {}`, or name a \
                 model in that form with --model",
                recipe.formats.join(" or "),
                recipe.name
            ),
        });
    }
    fs::create_dir_all(&dir).map_err(EngineError::io(format!("cannot create {}", dir.display())))?;
    put_files(recipe, &how.files, &dir)?;
    Ok((python, dir))
}

impl Convert {
    /// Whether the command holds this placeholder.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.command
            .iter()
            .flat_map(|word| placeholders(word))
            .any(|word| word == name)
    }
}

/// The name of the folder of a conversion: a changed converter makes another one. Engines whose converters are the same
/// share it.
fn key(recipe: &Recipe, how: &Convert, sha256: &str) -> Result<String, EngineError> {
    let mut digest = Sha256::new();
    for word in how.packages.iter().chain(&how.command) {
        digest.update(word);
        digest.update([0]);
    }
    for file in &how.files {
        digest.update(catalogue::file_beside(recipe, file)?);
    }
    let converter = hex(digest);
    let short = |hash: &str| hash.chars().take(16).collect::<String>();
    Ok(format!("{}-{}-{}", how.to, short(sha256), short(&converter)))
}

/// A whole conversion that is there.
fn kept(place: &Path) -> Option<Converted> {
    let stamp = fs::read(place.join(STAMP)).ok()?;
    let kept: Converted = serde_json::from_slice(&stamp).ok()?;
    // Its home may have been moved.
    let path = place.join(MODEL);
    path.is_dir().then_some(Converted { path, ..kept })
}

/// The hash of a folder, as [`Converted`] defines it, and the bytes in it.
fn listing(dir: &Path) -> io::Result<(String, u64)> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
    let (mut lines, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    for file in files {
        let mut digest = Sha256::new();
        let mut file_in = File::open(&file)?;
        loop {
            let read = file_in.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            bytes += read as u64;
        }
        let name = file.strip_prefix(dir).unwrap_or(&file);
        lines.update(format!("{}  {}\n", hex(digest), name.display()));
    }
    Ok((hex(lines), bytes))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

fn hex(digest: Sha256) -> String {
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
