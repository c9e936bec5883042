//! The directory of a run, written so that nothing measured is lost: `run.json` by temporary file and rename after
//! each step, `requests.jsonl` as requests end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};

use super::requests::Writer;
use super::result::{EngineResult, RunResult, SCHEMA_VERSION, Status, StepFacts, StepResult};
use super::summary::{StepContext, fill_scaling, summarise};
use super::timeline::{self, ServerSecond};
use super::{Sink, StepRecord, hlog};

/// Why a run directory could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `run.json` is not what it should be.
    #[error("{path} is not a run.json of loadtest: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// `run.json` was written by a newer version.
    #[error("{path} has schema version {found}; this loadtest reads up to {SCHEMA_VERSION}: use a newer one")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// There is no run where one was looked for.
    #[error("no run in {path}: name a directory that holds run.json or requests.jsonl, or `last`")]
    NoRun {
        /// The directory.
        path: PathBuf,
    },
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    |source| StoreError::Write {
        path: path.to_owned(),
        source,
    }
}

/// The directory of a run that is under way.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    run: RunResult,
    writer: Writer,
}

impl Store {
    /// Creates `<root>/<utc time>-<profile>/` and saves `run`, which names all engines and has no steps yet.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be written.
    pub fn create(root: &Path, run: RunResult) -> Result<Store, StoreError> {
        let dir = create_dir(root, &run)?;
        let names = run.engines.iter().map(|engine| engine.name.clone()).collect();
        let requests = dir.join("requests.jsonl");
        let writer = Writer::start(&requests, names).map_err(writing(&requests))?;
        let timeline = dir.join("timeline.csv");
        timeline::create(&timeline).map_err(writing(&timeline))?;
        let store = Store { dir, run, writer };
        store.save()?;
        Ok(store)
    }

    /// The directory; servers' logs belong there too.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run so far.
    pub fn run(&self) -> &RunResult {
        &self.run
    }

    /// Where the client leaves its samples, each once, when its request is over. Absent after [`Store::finish`].
    pub fn sink(&self) -> Option<Sink> {
        self.writer.sink()
    }

    /// Changes what is known about engine `index` (its version, settings, load time, end or failure) and saves it.
    ///
    /// # Errors
    /// When `run.json` cannot be written.
    pub fn engine(&mut self, index: usize, change: impl FnOnce(&mut EngineResult)) -> Result<(), StoreError> {
        if let Some(engine) = self.run.engines.get_mut(index) {
            change(engine);
        }
        self.save()
    }

    /// Says that a step begins, so that it can be told from `requests.jsonl` should the run be killed. Called again
    /// with `window_start_ns` when the window opens.
    ///
    /// # Errors
    /// When `run.json` cannot be written.
    pub fn step_begins(&mut self, facts: StepFacts) -> Result<(), StoreError> {
        self.run.unfinished = Some(facts);
        self.save()
    }

    /// Adds a finished step: its result, its rows of the timeline and its histograms.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn step_done(
        &mut self,
        facts: StepFacts,
        record: &StepRecord,
        context: StepContext,
        server_seconds: &[ServerSecond],
    ) -> Result<&StepResult, StoreError> {
        let timeline = self.dir.join("timeline.csv");
        timeline::append(&timeline, &facts, record, server_seconds).map_err(writing(&timeline))?;
        let hdr = self.dir.join("hdr").join(hlog::file_name(&facts));
        hlog::write(&hdr, self.started_at(), record).map_err(writing(&hdr))?;
        let index = self.run.steps.len();
        self.run.steps.push(summarise(facts, record, context));
        fill_scaling(&mut self.run.steps);
        self.run.unfinished = None;
        self.save()?;
        Ok(&self.run.steps[index])
    }

    /// Adds something that a reader must know, in words; saved with the next change.
    pub fn note(&mut self, note: impl Into<String>) {
        self.run.notes.push(note.into());
    }

    /// Waits for `requests.jsonl`, then saves `run.json` for the last time. Every [`Sink`] must be dropped before.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(mut self, status: Status) -> Result<RunResult, StoreError> {
        let written = self.writer.finish();
        self.run.status = status;
        self.run.finished_at = Some(Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
        self.save()?;
        written.map_err(writing(&self.dir.join("requests.jsonl")))?;
        Ok(self.run)
    }

    fn started_at(&self) -> DateTime<Utc> {
        self.run.started_at.parse().unwrap_or_default()
    }

    /// A reader sees the old file or the new one, never half of one, also after a power cut.
    fn save(&self) -> Result<(), StoreError> {
        let path = self.dir.join("run.json");
        let temporary = self.dir.join("run.json.part");
        let run = RunResult {
            request_lines_lost: self.writer.lost(),
            ..self.run.clone()
        };
        let mut text = serde_json::to_vec_pretty(&run).map_err(|e| writing(&path)(e.into()))?;
        text.push(b'\n');
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(writing(&path))
    }
}

/// Creates a directory that no other run has: a second run within the same second gets a number.
fn create_dir(root: &Path, run: &RunResult) -> Result<PathBuf, StoreError> {
    fs::create_dir_all(root).map_err(writing(root))?;
    let started: DateTime<Utc> = run.started_at.parse().unwrap_or_default();
    let name = format!(
        "{}-{}",
        started.format("%Y%m%dT%H%M%SZ"),
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

/// Reads `run.json` of a run directory.
///
/// # Errors
/// When it is absent, unreadable, malformed, or of a newer version.
pub fn load(dir: &Path) -> Result<RunResult, StoreError> {
    let path = dir.join("run.json");
    let text = fs::read(&path).map_err(|source| StoreError::Read {
        path: path.clone(),
        source,
    })?;
    let malformed = |source| StoreError::Malformed {
        path: path.clone(),
        source,
    };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(malformed)?;
    if let Some(found) = value["schema_version"]
        .as_u64()
        .filter(|v| *v > u64::from(SCHEMA_VERSION))
    {
        return Err(StoreError::Newer { path, found });
    }
    serde_json::from_value(value).map_err(malformed)
}

/// The directory of `run`: a path, or `last` for the newest run under `root`.
///
/// # Errors
/// When there is no such run.
pub fn find(root: &Path, run: &str) -> Result<PathBuf, StoreError> {
    let holds_run = |dir: &Path| dir.join("run.json").is_file() || dir.join("requests.jsonl").is_file();
    if run != "last" {
        let named = [PathBuf::from(run), root.join(run)];
        return named
            .into_iter()
            .find(|dir| holds_run(dir))
            .ok_or_else(|| StoreError::NoRun {
                path: PathBuf::from(run),
            });
    }
    let entries = fs::read_dir(root).map_err(|source| StoreError::Read {
        path: root.to_owned(),
        source,
    })?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|dir| holds_run(dir))
        .max()
        .ok_or_else(|| StoreError::NoRun {
            path: root.to_owned(),
        })
}
