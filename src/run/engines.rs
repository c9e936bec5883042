//! One engine of the run: brought up, measured step by step, stopped. Its failure is data.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ended::{death, load_time, not_stopped};
use super::step::{self, Bench};
use super::{Shown, Usage, verify};
use crate::engine::{
    self, Access, Converted, Effective, EngineError, Exit, Kind, Program, Recipe, Running, Sampling, Setting,
    Settings,
};
use crate::measure::Store;
use crate::measure::result::{ConvertedModel, EngineFailure, EngineResult};
use crate::model::Model;
use crate::profile::{Cpus, Profile, Turn, Verify};
use crate::telemetry::affinity;

/// Tokens of a chat template and a nonce around a prompt, at most.
const TEMPLATE_TOKENS: u32 = 128;

/// The recipes that the profile names, held to the settings that the user named.
///
/// # Errors
/// [`Usage`] as [`recipe`], and for a setting that an engine is not told.
pub fn recipes(profile: &Profile) -> anyhow::Result<Vec<Recipe>> {
    if profile.url.is_some() {
        return Ok(vec![recipe("attach", None)?]);
    }
    let server = &profile.server;
    let named = [
        (Setting::Parallel, server.parallel_is_named),
        (Setting::Context, server.context_is_named),
        (Setting::Threads, server.threads.is_some()),
        (Setting::Weights, server.weights.is_some()),
        (Setting::Device, server.device.is_some()),
    ];
    let had = |name: &String| {
        let recipe = engine::recipe(name).map_err(|error| Usage(error.into()))?;
        // The line is for that one among the engines.
        let line = server.command.as_deref().filter(|_| recipe.kind == Kind::Command);
        let recipe = started_by(recipe, line)?;
        honours(&recipe, named)?;
        Ok(recipe)
    };
    profile.engines.iter().map(had).collect()
}

/// The recipe of an engine; `line` is what starts the engine `command`.
///
/// # Errors
/// [`Usage`] for an unknown name, a line that starts nothing, or one beside an engine that has its own.
pub fn recipe(name: &str, line: Option<&str>) -> anyhow::Result<Recipe> {
    started_by(engine::recipe(name).map_err(|error| Usage(error.into()))?, line)
}

fn started_by(recipe: Recipe, line: Option<&str>) -> anyhow::Result<Recipe> {
    match line {
        Some(line) => recipe
            .with_command(line)
            .map_err(|error| Usage(error.into()).into()),
        None => Ok(recipe),
    }
}

/// Refuses settings that the user named and that the engine is not told.
///
/// # Errors
/// [`Usage`] with what would do it.
pub fn honours(recipe: &Recipe, named: impl IntoIterator<Item = (Setting, bool)>) -> anyhow::Result<()> {
    let named = named
        .into_iter()
        .filter_map(|(setting, is_named)| is_named.then_some(setting));
    recipe.honours(named).map_err(|error| Usage(error.into()).into())
}

/// What an engine wants to see before it answers.
pub fn access(profile: &Profile, api_key: Option<&str>) -> Access {
    let headers = profile.requests.headers.iter();
    Access {
        api_key: api_key.map(str::to_owned),
        headers: headers
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    }
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
        engine.wanted = settings
            .as_ref()
            .map(|settings| wanted(recipe, settings))
            .unwrap_or_default();
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
            let sha256 = model.checksum(status)?;
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
            let running = engine::attach(recipe, url, name, &access(bench.profile, api_key)).await?;
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

/// What a server was told to have, as `run.json` holds it.
fn wanted(recipe: &Recipe, settings: &Settings) -> serde_json::Map<String, serde_json::Value> {
    let value = |setting| -> Option<serde_json::Value> {
        Some(match setting {
            Setting::Host => settings.host.to_string().into(),
            Setting::Parallel => settings.parallel.into(),
            Setting::Context => settings.context.into(),
            Setting::Threads => settings.threads.into(),
            Setting::Weights => settings.weights.clone()?.into(),
            Setting::Device => settings.device.clone()?.into(),
        })
    };
    Setting::ALL
        .into_iter()
        .filter(|setting| recipe.passes(*setting))
        .filter_map(|setting| Some((setting.name().to_owned(), value(setting)?)))
        .collect()
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
