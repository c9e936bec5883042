//! The page on which everything meets: calibrate → engine up → load → window → save → calibrate → report.

mod calibration;
mod cores;
mod display;
mod ended;
mod engines;
mod interrupt;
mod notes;
mod shown;
mod stable;
mod step;
mod subject;
mod used;
mod verify;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;

use crate::cli;
use crate::measure::result::{EngineAnswers, Price, RunResult, Status, Verdict};
use crate::measure::{Clock, Store};
use crate::profile::{Format, Profile, Verify};
use crate::report::{self, Overview, Progress, Show};
use crate::telemetry::{self, Machine};

use calibration::When;
use cores::Cores;

pub use cores::server_cpus;
pub use interrupt::Interrupt;
pub use shown::Shown;
pub use subject::{Subject, model};

pub use engines::{have, honours, recipe};

/// How a command that could be carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did what it was asked to.
    Done,
    /// It could not, or not all of it; the report says which part and why.
    Failed,
    /// It did, and a gate failed under `--strict`: a step was limited by the client, or answers were garbled.
    Gate,
    /// The user interrupted it; what was measured is saved.
    Interrupted,
}

impl Ending {
    /// The exit code that stands for it.
    pub fn code(self) -> u8 {
        match self {
            Ending::Done => 0,
            Ending::Failed => 1,
            Ending::Gate => 3,
            Ending::Interrupted => 130,
        }
    }
}

/// What was asked for makes no sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Usage(pub anyhow::Error);

/// Runs a load test and prints its report.
///
/// # Errors
/// [`Usage`] when the profile and the flags do not fit together; else whatever keeps the run from starting. An engine
/// that fails is no error: its failure is part of the report.
pub fn run(flags: &cli::Run, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let profile = load_profile(flags)?;
    let cores = Cores::of(&profile, step::threads(&profile))?;
    let recipes = engines::recipes(&profile)?;
    if flags.dry_run {
        report::print(&profile.plan_text())?;
        return Ok(Ending::Done);
    }
    let progress = Progress::new(show(&profile));
    let subject = Subject::resolve(&profile, &recipes, &Shown::on(&progress, interrupt))?;

    let mut cards = telemetry::nvidia();
    let machine = Machine::read(cards.as_deref_mut());
    let progress = progress.on_dashboard(overview(&profile, &subject, &recipes), {
        let interrupt = interrupt.clone();
        move || interrupt.ask()
    });
    let clock = Clock::start();
    let mut store = open_store(&profile, &recipes, &subject, &machine)?;
    let bench = step::Bench {
        profile: &profile,
        subject: &subject,
        cores: &cores,
        progress: &progress,
        interrupt,
        clock,
        cards: cards.map(|cards| Arc::new(Mutex::new(cards))),
        verifier: verify::verifier(&profile, recipes.iter().map(|recipe| recipe.name.clone())),
    };
    calibration::calibrate(&bench, &mut store, When::Before)?;
    for (number, turn) in profile.turns(recipes.len()).iter().enumerate() {
        if stable::turn_over(&profile, &recipes[turn.engine].name, turn, &store.run().steps) {
            continue;
        }
        if number > 0 {
            engines::cool_down(&bench);
        }
        if interrupt.is_set() {
            break;
        }
        let api_key = flags.api_key.as_ref().map(cli::Secret::reveal);
        engines::measure(&bench, &mut store, turn, &recipes[turn.engine], api_key)?;
    }

    if !store.run().steps.is_empty() {
        calibration::calibrate(&bench, &mut store, When::After)?;
    }

    for note in stable::notes(&profile, store.run()) {
        store.note(note);
    }
    drop(progress);
    let dir = store.dir().to_owned();
    let status = status(&profile, &store, interrupt);
    let result = store.finish(status)?;
    write_page(&result, &dir);
    print(&profile, &result, &dir)?;
    report::export(&result, &dir, &profile.report.export)
        .with_context(|| format!("cannot export to {}", dir.display()))?;
    Ok(ending(&profile, &result))
}

/// The profile with the flags over it.
fn load_profile(flags: &cli::Run) -> anyhow::Result<Profile> {
    let profile =
        Profile::load(flags.profile.as_deref(), &flags.settings).map_err(|error| Usage(error.into()))?;
    stable::check(&profile)?;
    Ok(profile)
}

/// The run's folder, with all that is known before anything is measured.
fn open_store(
    profile: &Profile,
    recipes: &[crate::engine::Recipe],
    subject: &Subject,
    machine: &Machine,
) -> anyhow::Result<Store> {
    let effective = match serde_json::to_value(profile).context("the profile does not serialise")? {
        serde_json::Value::Object(map) => map,
        _ => serde_json::Map::new(),
    };
    let mut run = RunResult::new(chrono::Utc::now(), effective);
    if let Ok(serde_json::Value::Object(machine)) = serde_json::to_value(machine) {
        run.machine = machine;
    }
    run.model = subject.describe();
    run.engines = recipes.iter().map(engines::describe).collect();
    run.price = profile.report.price_per_hour.map(|per_hour| Price {
        per_hour,
        baseline: profile.report.baseline.clone(),
    });
    run.notes.extend(subject.note());
    run.notes.extend(notes::of(profile, recipes));
    Ok(Store::create(profile.report.folder(), run)?)
}

/// What the dashboard says of the run before it begins.
fn overview(profile: &Profile, subject: &Subject, recipes: &[crate::engine::Recipe]) -> Overview {
    let model = subject
        .name()
        .map_or_else(String::new, |name| format!(", model {name}"));
    let step_time = profile
        .extent
        .duration
        .map(|window| profile.ramp + profile.warmup.duration + window);
    Overview {
        title: format!("loadtest: profile {}{model}", profile.name),
        engines: recipes.iter().map(|recipe| recipe.name.clone()).collect(),
        steps: profile.steps().len() * recipes.len(),
        step_time,
    }
}

fn status(profile: &Profile, store: &Store, interrupt: &Interrupt) -> Status {
    let run = store.run();
    let idle = match profile.verify {
        Verify::Only => answered(run).next().is_none(),
        Verify::On | Verify::Off => run.steps.is_empty(),
    };
    if interrupt.is_set() {
        Status::Interrupted
    } else if idle || run.engines.iter().all(|engine| engine.failure.is_some()) {
        Status::Failed
    } else {
        Status::Done
    }
}

/// The engines whose answers were verified.
fn answered(run: &RunResult) -> impl Iterator<Item = &EngineAnswers> {
    let engines = run.verification.iter().flat_map(|found| &found.engines);
    engines.filter(|engine| engine.failure.is_none())
}

fn show(profile: &Profile) -> Show {
    match (profile.report.quiet, profile.report.progress) {
        (true, _) => Show::Nothing,
        (false, false) => Show::Lines,
        (false, true) => Show::Auto,
    }
}

/// Writes `report.html`. A page that cannot be written costs nothing that was measured: a warning, no error.
pub fn write_page(result: &RunResult, dir: &Path) -> Option<PathBuf> {
    report::write_page(result, dir)
        .inspect_err(|error| eprintln!("warning: cannot write report.html in {}: {error}", dir.display()))
        .ok()
}

/// The tables on stdout, and where the files are.
fn print(profile: &Profile, result: &RunResult, dir: &Path) -> std::io::Result<()> {
    let format = profile.report.format;
    if format != Format::Table && !profile.report.quiet {
        eprintln!("files: {}", dir.display());
    }
    report::print(&report::render(
        result,
        format,
        report::terminal_width(),
        Some(dir),
    ))
}

fn ending(profile: &Profile, result: &RunResult) -> Ending {
    let gates = [Verdict::ClientLimited, Verdict::Garbled];
    let gate_failed = result
        .steps
        .iter()
        .any(|step| gates.iter().any(|gate| step.verdicts.contains(gate)));
    let silent = profile.verify == Verify::Only && answered(result).count() < result.engines.len();
    match result.status {
        Status::Interrupted => Ending::Interrupted,
        Status::Failed | Status::Running => Ending::Failed,
        Status::Done if result.engines.iter().any(|engine| engine.failure.is_some()) => Ending::Failed,
        Status::Done if silent => Ending::Failed,
        Status::Done if profile.report.strict && gate_failed => Ending::Gate,
        Status::Done => Ending::Done,
    }
}
