//! One engine of the run: brought up, measured step by step, stopped. Its failure is data.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ended::{death, load_time, not_stopped};
use super::step::{self, Bench};
use super::{Shown, Usage, verify};
use crate::engine::{
    self, Converted, Effective, EngineError, Exit, Kind, Program, Recipe, Running, Sampling, Settings,
};
use crate::measure::Store;
use crate::measure::result::{ConvertedModel, EngineFailure, EngineResult};
use crate::model::Model;
use crate::profile::{Cpus, Profile, Turn, Verify};
use crate::telemetry::affinity;

/// Tokens of a chat template and a nonce around a prompt, at most.
const TEMPLATE_TOKENS: u32 = 128;

/// The recipes that the profile names.
pub fn recipes(profile: &Profile) -> anyhow::Result<Vec<Recipe>> {
    let names = match &profile.url {
        Some(_) => vec!["attach".to_owned()],
        None => profile.engines.clone(),
    };
    let line = profile.server.command.as_deref();
    names.iter().map(|name| recipe(name, line)).collect()
}

/// The recipe of an engine; `line` is what starts the engine `command`.
///
/// # Errors
/// [`Usage`] for an unknown name, or a line that starts nothing.
pub fn recipe(name: &str, line: Option<&str>) -> anyhow::Result<Recipe> {
    let recipe = engine::recipe(name).map_err(|error| Usage(error.into()))?;
    match (recipe.kind, line) {
        (Kind::Command, Some(line)) => recipe
            .with_command(line)
            .map_err(|error| Usage(error.into()).into()),
        _ => Ok(recipe),
    }
}

/// What a reader must know of engines that cannot do all that the profile asks for.
pub fn notes(profile: &Profile, recipes: &[Recipe]) -> Vec<String> {
    if profile.verify == Verify::Only {
        return Vec::new();
    }
    let stops = |recipe: &&Recipe| profile.requests.ignore_eos && recipe.dialect.ignore_eos.is_none();
    let note = |recipe: &Recipe| {
        format!(
            "{} cannot go on past its model's end token: its answers may be shorter than asked for",
            recipe.name
        )
    };
    let sampling = |recipe: &&Recipe| recipe.ready.sampling;
    let alike = |recipe: &Recipe| {
        format!(
            "{} samples every answer as its first request asked: the load's temperature and top_p, and no other",
            recipe.name
        )
    };
    let stopping = recipes.iter().filter(stops).map(note);
    stopping
        .chain(recipes.iter().filter(sampling).map(alike))
        .chain(recipes.iter().filter_map(|recipe| untold(profile, recipe)))
        .collect()
}

/// What an engine is not told of how to draw tokens, because it has no field for it.
fn untold(profile: &Profile, recipe: &Recipe) -> Option<String> {
    let (dialect, requests) = (&recipe.dialect, &profile.requests);
    let drawn = requests.temperature > 0.0;
    let settings = [
        ("temperature", &dialect.temperature, true),
        ("top_p", &dialect.top_p, drawn && requests.top_p < 1.0),
        ("top_k", &dialect.top_k, drawn && requests.top_k.is_some()),
        ("seed", &dialect.seed, drawn),
    ];
    let missing: Vec<&str> = settings
        .into_iter()
        .filter(|(_, field, matters)| *matters && field.is_none())
        .map(|(name, ..)| name)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} takes no {} with a request: it draws its tokens in its own way",
            recipe.name,
            missing.join(", ")
        )
    })
}

/// What is known of an engine before it is started.
pub fn describe(recipe: &Recipe) -> EngineResult {
    EngineResult {
        name: recipe.name.clone(),
        kind: recipe.kind.to_string(),
        ..EngineResult::default()
    }
}

/// How the server is to be started: room for the largest step, the same for every engine.
fn settings(bench: &Bench<'_>, log: &Path) -> anyhow::Result<Settings> {
    let (profile, subject) = (bench.profile, bench.subject);
    let model = subject
        .model()
        .context("an engine that is started needs a model")?;
    let mut settings = Settings::new(&model.path, subject.name().unwrap_or(&model.name), log);
    settings.parallel = profile.server.parallel;
    settings.context = profile.server.context + TEMPLATE_TOKENS;
    settings.cpus = bench.cores.server.as_ref().map(|cpus| cpus.list().to_vec());
    let threads = || default_threads(bench.cores.server.as_ref());
    settings.threads = profile.server.threads.unwrap_or_else(threads);
    settings.weights = profile.server.weights.clone();
    settings.ready_timeout = profile.server.load_timeout;
    settings.device = profile.server.device.clone();
    settings.sampling = Sampling {
        // Answers that are verified are greedy.
        temperature: match profile.verify {
            Verify::Only => Some(0.0),
            Verify::On | Verify::Off => Some(profile.requests.temperature),
        },
        top_p: Some(profile.requests.top_p),
    };
    settings.extra_args = profile.server.args.clone();
    Ok(settings)
}

/// Threads of a server on this machine: one for each of its processors. Where it has none of its own, one for each there
/// is, less one for the client where there are more than two.
fn default_threads(own: Option<&Cpus>) -> u32 {
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = match own {
        Some(own) => own.list().len(),
        None if all > 2 => all - 1,
        None => all,
    };
    u32::try_from(threads).unwrap_or(u32::MAX)
}

/// A file of the run's folder about a server: one for each time that the engine is started.
pub fn file_name(what: &str, recipe: &Recipe, turn: &Turn, extension: &str) -> String {
    match turn.repeats.start {
        0 => format!("{what}-{}.{extension}", recipe.name),
        repeat => format!("{what}-{}-{}.{extension}", recipe.name, repeat + 1),
    }
}

/// Lets the machine rest between two turns; ends early when the user wants the run to stop.
pub fn cool_down(bench: &Bench<'_>) {
    let rest = bench.profile.cool_down;
    if rest.is_zero() || bench.interrupt.is_set() {
        return;
    }
    let shown = humantime::format_duration(rest);
    bench.progress.status(&format!("resting for {shown}"));
    bench.interrupt.wait(rest);
}

/// Brings the engine up for one turn, runs its steps, and stops it. Whatever goes wrong with the engine is saved with
/// what was measured until then.
///
/// # Errors
/// If the results cannot be saved, or no load can be generated.
pub fn measure(
    bench: &Bench<'_>,
    store: &mut Store,
    turn: &Turn,
    recipe: &Recipe,
    api_key: Option<&str>,
) -> anyhow::Result<()> {
    let index = turn.engine;
    // An engine that failed once has had its turn.
    if store.run().engines[index].failure.is_some() {
        return Ok(());
    }
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let log = file_name("engine", recipe, turn, "log");
    let settings = match recipe.kind {
        Kind::Attach => None,
        _ => Some(settings(bench, &store.dir().join(&log))?),
    };
    let (running, converted) = match bring_up(bench, recipe, settings.as_ref(), api_key, &control) {
        Ok(Some(up)) => up,
        Ok(None) => return Ok(()),
        Err(error) => {
            let failure = failure(&error);
            bench
                .progress
                .status(&format!("{}: {}", recipe.name, failure.message));
            store.engine(index, |engine| engine.failure = Some(failure))?;
            return Ok(());
        }
    };
    store.engine(index, |engine| {
        engine.version = running.version().map(str::to_owned);
        engine.converted = converted.map(converted_model);
        engine.starts += u32::from(running.pid().is_some());
        let load = running.load();
        engine.load_s = engine.load_s.or(load.map(|load| load.first_token.as_secs_f64()));
        engine.loads.extend(load.map(load_time));
        engine.wanted = settings.as_ref().map(wanted).unwrap_or_default();
        engine.effective = effective(running.effective());
        engine.effective.extend(processors(bench, &running));
        engine.log = running.pid().map(|_| log);
    })?;

    verify::alone(bench, store, index, recipe, &running, api_key, &control)?;
    let steps = step::all(bench, store, turn, recipe, &running, api_key);

    // Before it is told to stop, which ends it too.
    let died = running.is_dead();
    let ended = control.block_on(running.stop());
    let (toll, steps) = match steps {
        Ok(toll) => (toll, Ok(())),
        Err(error) => (None, Err(error)),
    };
    if let Some(exit) = ended {
        if exit.is_killed() && !died {
            store.note(not_stopped(recipe));
        }
        store.engine(index, |engine| match died {
            true => {
                engine.exit = Some(exit.to_string());
                engine.failure = Some(death(bench, recipe, &exit, toll.as_ref()));
            }
            false if exit.is_killed() => engine.exit = Some("stopped by SIGKILL".into()),
            false => engine.exit = Some("stopped".into()),
        })?;
    }
    steps
}

/// An engine's program, and the model in a form that it reads.
pub struct Had {
    /// The program.
    pub program: Program,
    /// The model's file or folder.
    pub model: PathBuf,
    /// What that is, where it is not the model that was named.
    pub converted: Option<Converted>,
}

/// Gets an engine's program, building it for the device if need be, and `model` in a form that it reads, converting it if
/// need be.
///
/// # Errors
/// What to do where the program or its converter can't be had, or the end of what cargo or the converter said.
pub fn have(recipe: &Recipe, model: &Model, device: Option<&str>, status: &Shown<'_>) -> anyhow::Result<Had> {
    let program = engine::ensure(recipe, device, status)?;
    let converted = match engine::is_converted(recipe, &model.path) {
        true => {
            let sha256 = model.checksum(status)?.unwrap_or_default();
            engine::convert(recipe, &model.path, &sha256, status)?
        }
        false => None,
    };
    let given = converted
        .as_ref()
        .map_or(&model.path, |converted| &converted.path);
    Ok(Had {
        program,
        model: given.clone(),
        converted,
    })
}

/// The engine's server, ready, and the conversion that it serves; none if the user would not wait.
fn bring_up(
    bench: &Bench<'_>,
    recipe: &Recipe,
    settings: Option<&Settings>,
    api_key: Option<&str>,
    control: &tokio::runtime::Runtime,
) -> anyhow::Result<Option<(Running, Option<Converted>)>> {
    let status = Shown::on(bench.progress, bench.interrupt);
    let had = match (settings, bench.subject.model()) {
        (Some(settings), Some(model)) => {
            let had = match have(recipe, model, settings.device.as_deref(), &status) {
                Err(_) if bench.interrupt.is_set() => return Ok(None),
                had => had?,
            };
            let given = Settings {
                model: had.model.clone(),
                ..settings.clone()
            };
            Some((had, given))
        }
        _ => None,
    };
    let ready = async {
        let Some((had, settings)) = had else {
            let url = bench.profile.url.as_deref().or(recipe.url.as_deref());
            let url = url.context("attach needs --url")?;
            let name = bench.subject.name().map(str::to_owned);
            let running = engine::attach(recipe, url, name, api_key.map(str::to_owned)).await?;
            return Ok((running, None));
        };
        let running = engine::start(recipe, &had.program, &settings, &status).await?;
        Ok((running, had.converted))
    };
    control.block_on(async {
        tokio::select! {
            ready = ready => ready.map(Some),
            () = bench.interrupt.asked() => Ok(None),
        }
    })
}

/// A conversion, as `run.json` holds it.
fn converted_model(converted: Converted) -> ConvertedModel {
    ConvertedModel {
        path: converted.path.display().to_string(),
        from_hash: converted.from_sha256,
        path_hash: converted.sha256,
        bytes: converted.bytes,
        format: converted.format,
        bits_per_weight: converted.bits_per_weight,
        convert_s: converted.seconds,
    }
}

/// What a server was asked to have, as `run.json` holds it.
fn wanted(settings: &Settings) -> serde_json::Map<String, serde_json::Value> {
    let numbers = [
        ("parallel", settings.parallel),
        ("context", settings.context),
        ("threads", settings.threads),
    ];
    let numbers = numbers.map(|(key, value)| (key.to_owned(), value.into()));
    let words = [("weights", &settings.weights), ("device", &settings.device)];
    let words = words
        .into_iter()
        .filter_map(|(key, word)| Some((key.to_owned(), word.clone()?.into())));
    numbers.into_iter().chain(words).collect()
}

/// What an engine tells of its settings, as `run.json` holds it.
fn effective(effective: &Effective) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(effective) {
        Ok(serde_json::Value::Object(map)) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => serde_json::Map::new(),
    }
}

/// Where the load's threads and the server's processes may run, as the system says.
fn processors(bench: &Bench<'_>, running: &Running) -> impl Iterator<Item = (String, serde_json::Value)> {
    let client = bench.cores.client.clone();
    let client = client.or_else(|| Cpus::new(affinity::of(0)?));
    let server = running.pid().and_then(affinity::of).and_then(Cpus::new);
    [("client_cpus", client), ("server_cpus", server)]
        .into_iter()
        .filter_map(|(key, cpus)| Some((key.to_owned(), cpus?.to_string().into())))
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// An engine that did not come up, as `run.json` holds it.
fn failure(error: &anyhow::Error) -> EngineFailure {
    let exit = |exit: &Exit| (Some(exit.to_string()), lines(&exit.log_tail));
    let (exit, log_tail) = match error.downcast_ref::<EngineError>() {
        Some(EngineError::Died { exit: end, .. }) => exit(end),
        Some(EngineError::NeverReady { log_tail, .. }) => (None, lines(log_tail)),
        Some(EngineError::Command { tail, .. }) => (None, lines(tail)),
        _ => (None, Vec::new()),
    };
    // The tail stands on its own; the message need not repeat it.
    let message = format!("{error:#}");
    let message = match message.split_once('\n') {
        Some((first, _)) if !log_tail.is_empty() => first.to_owned(),
        _ => message,
    };
    EngineFailure {
        message,
        exit,
        log_tail,
        ..EngineFailure::default()
    }
}
