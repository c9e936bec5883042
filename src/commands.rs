//! What `loadtest` does besides load tests: engines, models, calibration, reports, explanations, and serving.

mod check;
mod compare;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Style, Width};

pub use compare::compare;

use crate::calibrate;
use crate::cli::{
    Calibrate, EngineAction, ModelAction, Report, SERVED_CONTEXT, SERVED_PARALLEL, Serve, TableFormat,
};
use crate::engine::{self, Listed, Setting, Settings};
use crate::measure::definition::{self, Definition};
use crate::measure::result::Price;
use crate::measure::{fill_cost, find, open};
use crate::model;
use crate::report::{self, Progress, Show};
use crate::run::{self, Ending, Interrupt, Shown, Usage};

/// `loadtest engines [list | install NAME | check NAME]`.
///
/// # Errors
/// An unknown engine, or one that can't be installed or does not come up.
pub fn engines(
    action: Option<&EngineAction>,
    format: TableFormat,
    interrupt: &Interrupt,
) -> anyhow::Result<Ending> {
    let progress = Progress::new(Show::Auto);
    let status = Shown::on(&progress, interrupt);
    match action {
        None => list(format)?,
        Some(EngineAction::List { format }) => list(*format)?,
        Some(EngineAction::Install { name, model }) => {
            let recipe = run::recipe(name, None)?;
            let program = engine::install(&recipe, &status)?;
            if let Some(model) = model {
                run::have(&recipe, &run::model(Some(model), &status)?, None, &status)?;
            }
            let version = program
                .version
                .map_or_else(String::new, |version| format!(" {version}"));
            report::print(&format!(
                "{name}{version} is installed; use it by --engine {name}\n"
            ))?;
        }
        Some(EngineAction::Check(asked)) => return check::check(asked, interrupt, &status),
    }
    Ok(Ending::Done)
}

fn list(format: TableFormat) -> anyhow::Result<()> {
    let all = engine::list()?;
    report::print(&match format {
        TableFormat::Table => engine_table(all),
        TableFormat::Json => format!("{}\n", serde_json::to_string_pretty(&all)?),
    })?;
    Ok(())
}

/// A folder for a log that outlives the command, so that it can be read after a failure.
fn tempfile_dir() -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("loadtest-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Runs `work`, unless the user interrupts it: then nothing.
fn block_on<T>(
    interrupt: &Interrupt,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            done = work => done.map(Some),
            () = interrupt.asked() => Ok(None),
        }
    })
}

fn engine_table(engines: Vec<Listed>) -> String {
    let mut table = Builder::default();
    table.push_record([
        "engine",
        "kind",
        "state",
        "version",
        "formats",
        "needs",
        "found",
        "to use it",
    ]);
    for row in engines {
        let path = row.path.map(|path| path.display().to_string());
        table.push_record([
            row.name,
            row.kind.to_string(),
            row.state.to_owned(),
            row.version.unwrap_or_default(),
            row.formats.join(", "),
            row.needs.unwrap_or_default(),
            path.unwrap_or_default(),
            row.what_to_do,
        ]);
    }
    let fitted = Width::wrap(report::terminal_width())
        .priority(Priority::max(true))
        .keep_words(true);
    format!("{}\n", table.build().with(Style::psql()).with(fitted))
}

/// `loadtest serve ENGINE`: in the foreground, until it is interrupted or ends by itself.
///
/// # Errors
/// The model or the engine can't be had, or the server does not come up.
pub fn serve(serve: &Serve, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let progress = Progress::new(Show::Auto);
    let status = Shown::on(&progress, interrupt);
    let recipe = run::recipe(&serve.engine, serve.server.command.as_deref())?;
    let named = [
        (Setting::Host, serve.host != Ipv4Addr::LOCALHOST),
        (Setting::Parallel, serve.server.parallel.is_some()),
        (Setting::Context, serve.server.context.is_some()),
        (Setting::Threads, serve.server.threads.is_some()),
        (Setting::Weights, serve.server.weights.is_some()),
        (Setting::Device, serve.server.device.is_some()),
    ];
    run::honours(&recipe, named)?;
    let model = run::model(serve.model.as_deref(), &status)?;
    let had = run::have(&recipe, &model, serve.server.device.as_deref(), &status)?;
    let mut settings = Settings::new(
        &had.model,
        &model.name,
        tempfile_dir()?.join(format!("engine-{}.log", recipe.name)),
    );
    settings.host = serve.host;
    settings.port = (serve.port != 0).then_some(serve.port);
    settings.parallel = serve.server.parallel.unwrap_or(SERVED_PARALLEL);
    settings.context = serve.server.context.unwrap_or(SERVED_CONTEXT);
    settings.cpus = run::server_cpus(serve.server.server_cpus.as_ref())?;
    let cpus = match &settings.cpus {
        Some(own) => own.len(),
        None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    let threads = || u32::try_from(cpus).unwrap_or(u32::MAX);
    settings.threads = serve.server.threads.unwrap_or_else(threads);
    settings.weights = serve.server.weights.clone();
    settings.ready_timeout = serve.server.load_timeout;
    settings.device = serve.server.device.clone();
    settings.extra_args = serve.server.server_arg.clone().unwrap_or_default();
    let log = settings.log.clone();
    let everywhere = match serve.host.is_unspecified() {
        true => " and at this machine's other addresses",
        false => "",
    };
    let ended = block_on(interrupt, async {
        let running = engine::start(&recipe, &had.program, &settings, &status).await?;
        report::print(&format!(
            "{} serves {} at {}/v1{everywhere} (its log: {}; Ctrl-C stops it)\n",
            recipe.name,
            running.model_name(),
            running.base_url(),
            log.display(),
        ))?;
        tokio::select! {
            exit = running.died() => Ok(Some(exit)),
            () = interrupt.asked() => { running.stop().await; Ok(None) }
        }
    })?;
    match ended.flatten() {
        Some(exit) => anyhow::bail!(
            "{} ended by itself, {exit}{}; its last lines:\n{}",
            recipe.name,
            exit.memory(),
            exit.log_tail
        ),
        None => Ok(Ending::Interrupted),
    }
}

/// `loadtest calibrate`: [`Ending::Failed`] when an event was lost or doubled, or a request failed.
///
/// # Errors
/// When the reference server does not come up, or no load can be generated.
pub fn calibrate(flags: &Calibrate, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let load = calibrate::Load {
        users: flags.users,
        rate: flags.rate,
        duration: flags.duration,
        isl: flags.isl,
        osl: None,
        event_bytes: flags.payload,
        stall: flags
            .stall
            .map(|(blocked, every)| calibrate::Stall { blocked, every }),
        cpus: None,
    };
    let progress = Progress::new(Show::Auto);
    let reference = calibrate::Reference::start(&engine::this_program())?;
    let shown = progress.task(
        &format!(
            "calibrating: {} x {} events/s",
            report::users(load.users),
            load.rate
        ),
        None,
    );
    let measured = calibrate::measure(&reference, &load, interrupt.stop())?;
    drop(shown);
    let Some(mut result) = measured else {
        return Ok(Ending::Interrupted);
    };
    if !flags.no_search {
        let _shown = progress.task("searching for the highest rate", None);
        result.capacity = calibrate::search(&reference, &load, interrupt.stop(), &|one| {
            progress.status(&report::tried(one));
        })?;
    }
    report::print(&match flags.format {
        TableFormat::Table => report::calibration(&result),
        TableFormat::Json => format!("{}\n", serde_json::to_string_pretty(&result)?),
    })?;
    Ok(match interrupt.is_set() {
        true => Ending::Interrupted,
        false if result.is_whole() => Ending::Done,
        false => Ending::Failed,
    })
}

/// `loadtest report RUN`: shows a run again, on stdout or in `output`, and writes its `report.html` anew.
///
/// # Errors
/// There is no such run, its files are broken, or what was asked for cannot be written or opened; [`Usage`] for a baseline that is none of its engines.
pub fn report(asked: &Report) -> anyhow::Result<Ending> {
    let dir = find(Path::new("results"), &asked.run.to_string_lossy())?;
    let mut result = open(&dir)?;
    if let Some(per_hour) = asked.price_per_hour {
        let known = |name: &String| result.engines.iter().any(|engine| engine.name == *name);
        if let Some(unknown) = asked.baseline.as_ref().filter(|name| !known(name)) {
            return Err(Usage(anyhow::anyhow!("--baseline: the run has no engine `{unknown}`")).into());
        }
        let baseline = asked.baseline.clone();
        result.price = Some(Price { per_hour, baseline });
        fill_cost(&mut result);
    }
    let written = report::export(&result, &dir, &asked.export)
        .with_context(|| format!("cannot export to {}", dir.display()))?;
    let page = run::write_page(&result, &dir);
    let width = report::terminal_width();
    let shown = report::render(&result, asked.format, width, Some(&dir));
    match &asked.output {
        Some(file) => {
            std::fs::write(file, shown).with_context(|| format!("cannot write {}", file.display()))?
        }
        None => report::print(&shown)?,
    }
    for path in written {
        eprintln!("wrote {}", path.display());
    }
    if asked.open {
        let page = page.with_context(|| format!("{} has no report.html to open", dir.display()))?;
        ::open::that_detached(&page)
            .with_context(|| format!("no browser could be started; open {} yourself", page.display()))?;
    }
    Ok(Ending::Done)
}

/// `loadtest explain [METRIC]`.
///
/// # Errors
/// [`Usage`] for an unknown metric.
pub fn explain(metric: Option<&str>) -> anyhow::Result<Ending> {
    let all: Vec<&Definition> = match metric {
        None => definition::DEFINITIONS.iter().collect(),
        Some(name) => vec![definition::explain(name).map_err(|error| Usage(error.into()))?],
    };
    let texts: Vec<String> = all.iter().map(|definition| explanation(definition)).collect();
    report::print(&texts.join("\n"))?;
    Ok(Ending::Done)
}

fn explanation(definition: &Definition) -> String {
    let Definition {
        id,
        name,
        unit,
        meaning,
        elsewhere,
    } = definition;
    let mut text = match unit.is_empty() {
        true => format!("{id}: {name}\n"),
        false => format!("{id}: {name}, in {unit}\n"),
    };
    text += &format!("  {meaning}\n");
    if !elsewhere.is_empty() {
        text += &format!("  Elsewhere: {elsewhere}\n");
    }
    text
}

/// `loadtest models [list | fetch NAME]`.
///
/// # Errors
/// The model can't be had.
pub fn models(action: Option<&ModelAction>, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    match action {
        None | Some(ModelAction::List) => {
            let mut table = Builder::default();
            table.push_record(["model", "licence", "size", "where it is"]);
            for entry in model::registry() {
                let size = entry
                    .bytes
                    .map_or_else(String::new, |bytes| format!("{} MB", bytes / 1_000_000));
                let hub = format!("hf:{}/{}", entry.hub.repo, entry.hub.file);
                table.push_record([entry.name.clone(), entry.license.clone(), size, hub]);
            }
            report::print(&format!("{}\n", table.build().with(Style::psql())))?;
        }
        Some(ModelAction::Fetch { name }) => {
            let progress = Progress::new(Show::Auto);
            let model = run::model(Some(name), &Shown::on(&progress, interrupt))?;
            report::print(&format!("{}\n", model.path.display()))?;
        }
    }
    Ok(Ending::Done)
}
