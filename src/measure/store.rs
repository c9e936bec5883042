//! The directory of a run, written so that nothing measured is lost: `run.json` by temporary file and rename after
//! each step, `requests.jsonl` as requests end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};

use super::across::across_steps;
use super::calibration::Calibrations;
use super::folder;
use super::requests::Writer;
use super::result::{EngineResult, RunResult, SCHEMA_VERSION, Status, StepFacts, StepResult, Verification};
use super::summary::{StepContext, summarise};
use super::timeline::{self, ServerSecond};
use super::{Sink, StepRecord, gpus, hlog};

/// Why a run directory could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `run.json` is not what it should be.
    #[error("{path} is not a run.json of loadtest")]
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

pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
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
        let dir = folder::create(root, &run)?;
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

    /// Changes what the calibrations before and after the run found, and saves it.
    ///
    /// # Errors
    /// When `run.json` cannot be written.
    pub fn calibrated(&mut self, change: impl FnOnce(&mut Calibrations)) -> Result<(), StoreError> {
        change(self.run.calibration.get_or_insert_default());
        self.save()
    }

    /// Changes what is known of the engines' answers, and saves it.
    ///
    /// # Errors
    /// When `run.json` cannot be written.
    pub fn verified(&mut self, change: impl FnOnce(&mut Verification)) -> Result<(), StoreError> {
        change(self.run.verification.get_or_insert_default());
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

    /// Adds a finished step: its result, its rows of the timeline and of the cards, and its histograms.
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
        let cards = self.dir.join("gpus.csv");
        gpus::append(&cards, &facts, record, server_seconds).map_err(writing(&cards))?;
        let hdr = self.dir.join("hdr").join(hlog::file_name(&facts));
        hlog::write(&hdr, self.started_at(), record).map_err(writing(&hdr))?;
        let index = self.run.steps.len();
        self.run.steps.push(summarise(facts, record, context));
        across_steps(&mut self.run);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::find;
    use crate::measure::fixture::{facts, new_run, record, sample};
    use crate::measure::result::schema;
    use crate::measure::{RequestLine, hlog};

    fn finished(root: &Path) -> (PathBuf, RunResult) {
        let mut store = Store::create(root, new_run()).unwrap();
        let dir = store.dir().to_owned();
        let sink = store.sink().unwrap();
        (0..1_000).for_each(|id| sink.send(sample(id, 0, id), &[]));
        drop(sink);
        store.engine(0, |engine| engine.load_s = Some(1.5)).unwrap();
        store.step_begins(facts(0, "candle", 4)).unwrap();
        store
            .step_done(facts(0, "candle", 4), &record(4, 20), StepContext::default(), &[])
            .unwrap();
        (dir, store.finish(Status::Done).unwrap())
    }

    #[test]
    fn a_run_is_read_back_as_it_was_written() {
        let root = tempfile::tempdir().unwrap();
        let (dir, run) = finished(root.path());
        assert!(dir.ends_with("20260301T123000Z-sustained-64"));
        let json = |run: &RunResult| serde_json::to_value(run).unwrap();
        assert_eq!(json(&load(&dir).unwrap()), json(&run));
        assert_eq!(find(root.path(), "last").unwrap(), dir);
        assert_eq!(find(root.path(), "last~0").unwrap(), dir);
        assert!(find(root.path(), "last~1").is_err());
        assert_eq!(find(root.path(), dir.to_str().unwrap()).unwrap(), dir);
        assert!(matches!(
            find(root.path(), "nothing"),
            Err(StoreError::NoRun { .. })
        ));

        let lines = fs::read_to_string(dir.join("requests.jsonl")).unwrap();
        let lines: Vec<RequestLine> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(
            lines
                .iter()
                .enumerate()
                .all(|(i, line)| line.sample.id == i as u64 && line.engine == "candle")
        );
        assert_eq!(lines.len(), 1_000);

        let timeline = fs::read_to_string(dir.join("timeline.csv")).unwrap();
        assert_eq!(timeline.lines().count(), 25);
        assert_eq!(
            timeline.lines().nth(3),
            Some("candle,0,0,2,1,4,4,3,200,200,3,3,0,20,20,,,,,,,,,,")
        );
    }

    #[test]
    fn histograms_are_read_back_without_loss() {
        let root = tempfile::tempdir().unwrap();
        let (dir, _) = finished(root.path());
        let found = hlog::read(&dir.join("hdr/000-candle-4u.hlog")).unwrap();
        let record = record(4, 20);
        assert_eq!(found.len(), 13);
        assert_eq!(found["ttft"], record.latencies.ttft);
        assert_eq!(found["itl"], record.latencies.itl);
        assert_eq!(found["send_lag"], record.send_lag);
    }

    #[test]
    fn two_runs_of_one_second_have_directories_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let first = Store::create(root.path(), new_run()).unwrap();
        let second = Store::create(root.path(), new_run()).unwrap();
        assert_ne!(first.dir(), second.dir());
    }

    /// `UPDATE_SCHEMA=1 cargo test schema` writes it anew.
    #[test]
    fn the_schema_is_that_of_the_types_and_holds_for_what_is_written() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/schema.json");
        let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let saved = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            saved == text,
            "results/schema.json is stale: run `UPDATE_SCHEMA=1 cargo test schema`"
        );

        let root = tempfile::tempdir().unwrap();
        let (dir, _) = finished(root.path());
        let run: serde_json::Value =
            serde_json::from_slice(&fs::read(dir.join("run.json")).unwrap()).unwrap();
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("run.json", schema()).unwrap();
        let id = compiler.compile("run.json", &mut schemas).unwrap();
        schemas.validate(&run, id).unwrap();
        let mut wrong = run;
        wrong["steps"][0]["ttft_ms"]["p50"] = "fast".into();
        assert!(schemas.validate(&wrong, id).is_err());
    }
}
