//! From settings, some of them absent, to a [`Profile`] that can be run.

use std::path::Path;
use std::time::Duration;

use super::error::Conflict;
use super::settings::COMMAND;
use super::{
    Extent, Length, MeasureSettings, Order, Profile, Report, ReportSettings, RequestSettings, Requests,
    Server, Settings, Shape, Source, Timeouts, UntilStable, Users, Verify, Warmup,
};

/// Tokens that a chat template may add around a prompt; kept free in every sequence's context.
const TEMPLATE_TOKENS: u32 = 64;

/// How tokens are drawn unless told otherwise: as users have their chats answered.
const TEMPERATURE: f64 = 0.8;
const TOP_P: f64 = 0.95;

/// The warm-up of a window that is counted in requests waits for slow servers no longer.
const LONGEST_WARMUP: Duration = Duration::from_secs(300);

/// Repeats that `--until-stable` makes at least, and at most unless told otherwise.
const FEWEST_REPEATS: u32 = 3;
const MOST_REPEATS: u32 = 10;

/// Checks settings and fills in the defaults.
pub(super) fn resolve(name: &str, settings: Settings) -> Result<Profile, Conflict> {
    let (engines, model) = target(&settings)?;
    let Settings {
        description,
        url,
        load,
        requests,
        measure,
        slo,
        server,
        report,
        ..
    } = settings;
    let users = load
        .users
        .unwrap_or(Users::List(vec![1]))
        .levels(load.step)
        .map_err(|message| conflict("load", "step", message))?;
    let extent = Extent {
        duration: load.duration,
        requests: load.num_prompts,
    };
    positive(
        "load",
        "duration",
        extent.duration.is_none_or(|time| !time.is_zero()),
    )?;
    positive("load", "num_prompts", extent.requests != Some(0))?;
    let (repeat, stable) = repeats(&measure)?;
    let (order, restart) = (measure.order.unwrap_or_default(), measure.restart.unwrap_or(true));
    if order == Order::Interleaved && !restart {
        let message =
            "interleaved engines take turns, each started anew for its turn: leave out --no-restart";
        return Err(conflict("measure", "order", message.into()));
    }
    positive(
        "server",
        "load_timeout",
        server.load_timeout.is_none_or(|time| !time.is_zero()),
    )?;
    for (key, value) in [
        ("threads", server.threads),
        ("parallel", server.parallel),
        ("context", server.context),
    ] {
        positive("server", key, value != Some(0))?;
    }
    priced(&report, &engines)?;
    if let Some(slo) = slo {
        slo.check().map_err(|message| conflict("", "slo", message))?;
    }
    let verify = measure.verify.unwrap_or_default();
    reference(
        &engines,
        url.as_deref(),
        verify,
        measure.verify_against.as_deref(),
    )?;
    let requests = request_shape(requests)?;
    let needed = requests.shapes.iter().map(Shape::most_tokens).max().unwrap_or(0);
    let context = server.context.unwrap_or_else(|| {
        (needed.min(1 << 30) + TEMPLATE_TOKENS)
            .next_multiple_of(256)
            .max(1024)
    });
    if needed > context {
        let message = format!(
            "{needed} tokens of input and output do not fit into a context of {context}: give at least {needed}, \
             or shorter lengths"
        );
        return Err(conflict("server", "context", message));
    }
    let most_users = users.iter().copied().max().unwrap_or(1);
    let extent = match extent {
        Extent {
            duration: None,
            requests: None,
        } => Extent {
            duration: Some(Duration::from_secs(60)),
            requests: None,
        },
        given => given,
    };
    let warmup = measure.warmup.unwrap_or(Duration::ZERO);
    Ok(Profile {
        name: name.into(),
        description,
        engines,
        url,
        model,
        users,
        extent,
        ramp: load.ramp.unwrap_or_default(),
        drain: load.drain.unwrap_or(Duration::from_secs(30)),
        client_cpus: load.client_cpus,
        backoff: load.backoff.unwrap_or(Duration::from_millis(500)),
        requests,
        warmup: Warmup {
            duration: warmup,
            requests_per_user: measure.warmup_requests.unwrap_or(1),
            most: warmup.max(extent.duration.unwrap_or(LONGEST_WARMUP)),
        },
        repeat,
        stable,
        order,
        restart,
        cool_down: measure.cool_down.unwrap_or_default(),
        calibrate: measure.calibrate.unwrap_or(true) && verify != Verify::Only,
        verify,
        verify_against: measure.verify_against,
        slo,
        server: Server {
            command: server.command,
            threads: server.threads,
            server_cpus: server.server_cpus,
            parallel: server.parallel.unwrap_or(most_users),
            parallel_is_named: server.parallel.is_some(),
            context,
            context_is_named: server.context.is_some(),
            weights: server.weights,
            load_timeout: server.load_timeout,
            device: server.device,
            args: server.server_arg.unwrap_or_default(),
        },
        report: Report {
            output: report.output,
            format: report.format.unwrap_or_default(),
            quiet: report.quiet.unwrap_or(false),
            progress: !report.no_progress.unwrap_or(false),
            price_per_hour: report.price_per_hour,
            baseline: report.baseline,
            export: report.export.unwrap_or_default(),
            strict: report.strict.unwrap_or(false),
        },
    })
}

/// Checks the engine whose answers are the reference.
fn reference(
    engines: &[String],
    url: Option<&str>,
    verify: Verify,
    named: Option<&str>,
) -> Result<(), Conflict> {
    let Some(named) = named else { return Ok(()) };
    let wrong = |message: String| Err(conflict("measure", "verify_against", message));
    if verify == Verify::Off {
        return wrong("nothing is verified: add --verify".into());
    }
    if url.is_some() {
        return wrong("there is one server, whose answers are held against its own: leave this out".into());
    }
    if engines.iter().any(|engine| engine == named) {
        return Ok(());
    }
    let hint = super::nearest::did_you_mean(named, engines.iter().map(String::as_str));
    wrong(format!(
        "`{named}` is not tested{hint}; there are {}",
        engines.join(", ")
    ))
}

/// Repeats at most, and what may end them before.
fn repeats(measure: &MeasureSettings) -> Result<(u32, Option<UntilStable>), Conflict> {
    positive("measure", "repeat", measure.repeat != Some(0))?;
    let Some(until) = measure.until_stable.clone() else {
        return match measure.max_repeats {
            Some(_) => Err(conflict(
                "measure",
                "max_repeats",
                "bounds --until-stable, which is not given: give it, or --repeat".into(),
            )),
            None => Ok((measure.repeat.unwrap_or(1), None)),
        };
    };
    let least = measure.repeat.unwrap_or(FEWEST_REPEATS).max(FEWEST_REPEATS);
    let most = measure.max_repeats.unwrap_or(MOST_REPEATS.max(least));
    if most < least {
        let message = format!("must be at least {least}: fewer repeats do not tell their own spread");
        return Err(conflict("measure", "max_repeats", message));
    }
    Ok((most, Some(UntilStable { until, least })))
}

/// What is tested: engines with a model, or a server that runs already.
fn target(settings: &Settings) -> Result<(Vec<String>, Option<String>), Conflict> {
    let Some(url) = &settings.url else {
        let line = &settings.server.command;
        let default = if line.is_some() { COMMAND } else { "candle" };
        let engines = settings.engines.clone().unwrap_or_else(|| vec![default.into()]);
        match (engines.iter().any(|name| name == COMMAND), line) {
            (true, None) => {
                let message = "`command` needs the line that starts it: --command 'my-server --port {port}'";
                return Err(conflict("", "engines", message.into()));
            }
            (false, Some(_)) => {
                let message =
                    "this line starts the engine `command`: name that one too, as in --engine candle,command";
                return Err(conflict("server", "command", message.into()));
            }
            _ => {}
        }
        if let Some(twice) = engines
            .iter()
            .enumerate()
            .find(|(i, name)| engines[..*i].contains(name))
        {
            return Err(conflict("", "engines", format!("`{}` is named twice", twice.1)));
        }
        if engines.iter().any(|name| name.trim().is_empty()) {
            return Err(conflict(
                "",
                "engines",
                "a name is empty: write `candle,llamacpp`".into(),
            ));
        }
        let model = settings
            .model
            .clone()
            .unwrap_or_else(|| "smollm2-135m-instruct".into());
        return Ok((engines, Some(model)));
    };
    if settings.engines.is_some() {
        let message = "a server that runs already, while --engine starts one: give one of the two";
        return Err(conflict("", "url", message.into()));
    }
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(conflict(
            "",
            "url",
            format!("`{url}` is no address: write `http://host:8000`"),
        ));
    }
    let server = &settings.server;
    let started = [
        ("command", server.command.is_some()),
        ("threads", server.threads.is_some()),
        ("server_cpus", server.server_cpus.is_some()),
        ("parallel", server.parallel.is_some()),
        ("weights", server.weights.is_some()),
        ("load_timeout", server.load_timeout.is_some()),
        ("device", server.device.is_some()),
        ("server_arg", server.server_arg.is_some()),
    ];
    if let Some((key, _)) = started.into_iter().find(|(_, given)| *given) {
        let message = "this is for engines that are started; the server at the URL runs already";
        return Err(conflict("server", key, message.into()));
    }
    Ok((Vec::new(), settings.model.clone()))
}

fn request_shape(settings: RequestSettings) -> Result<Requests, Conflict> {
    let at = |key, message: String| Err(conflict("requests", key, message));
    let source = match settings.dataset.as_deref() {
        None | Some("synthetic") => Source::Synthetic,
        Some("questions") => Source::Questions,
        Some(path) if Path::new(path).is_file() => Source::File(path.into()),
        Some(name) => {
            let hint = super::nearest::did_you_mean(name, ["synthetic", "questions"]);
            return at(
                "dataset",
                format!(
                    "there is no file `{name}`{hint}; there are synthetic, questions, or the path of a .jsonl"
                ),
            );
        }
    };
    let synthetic = source == Source::Synthetic;
    let shapes = shapes(&settings, synthetic)?;
    let shared_prefix = settings.shared_prefix.unwrap_or(0);
    if shared_prefix > 0 && !synthetic {
        return at(
            "shared_prefix",
            "only synthetic prompts take a shared prefix".into(),
        );
    }
    let mut lengths = shapes.iter().map(|shape| shape.isl);
    if let Some(short) = lengths.find(|isl| shared_prefix > 0 && isl.mean <= shared_prefix) {
        let message = format!(
            "{shared_prefix} tokens leave nothing of a prompt of {}",
            short.mean
        );
        return at("shared_prefix", message);
    }
    if settings.temperature.is_some_and(|t| !(0.0..=10.0).contains(&t)) {
        return at("temperature", "must be 0 or above (2 is much already)".into());
    }
    if settings.top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
        return at("top_p", "must be above 0 and at most 1".into());
    }
    positive("requests", "top_k", settings.top_k != Some(0))?;
    let seconds = |given: Option<Duration>, default| given.unwrap_or(Duration::from_secs(default));
    let timeouts = Timeouts {
        connect: seconds(settings.connect_timeout, 10),
        first_token: seconds(settings.first_token_timeout, 300),
        stall: seconds(settings.stall_timeout, 60),
        total: seconds(settings.timeout, 600),
    };
    let given = [
        ("connect_timeout", timeouts.connect),
        ("first_token_timeout", timeouts.first_token),
        ("stall_timeout", timeouts.stall),
        ("timeout", timeouts.total),
    ];
    for (key, time) in given {
        positive("requests", key, !time.is_zero())?;
    }
    Ok(Requests {
        shapes,
        source,
        shared_prefix,
        ignore_eos: settings.ignore_eos.unwrap_or(false),
        temperature: settings.temperature.unwrap_or(TEMPERATURE),
        top_p: settings.top_p.unwrap_or(TOP_P),
        top_k: settings.top_k,
        seed: settings.seed.unwrap_or(0),
        endpoint: settings.endpoint.unwrap_or_default(),
        tokenizer: settings.tokenizer,
        headers: settings.header.unwrap_or_default(),
        timeouts,
    })
}

/// The shapes that were asked for: as pairs, or as every input length with every output length.
fn shapes(settings: &RequestSettings, synthetic: bool) -> Result<Vec<Shape>, Conflict> {
    let at = |key, message: &str| Err(conflict("requests", key, message.into()));
    let given = [
        ("isl", settings.isl.is_some()),
        ("shape", settings.shape.is_some()),
    ];
    if let Some((key, _)) = given.into_iter().find(|(_, given)| *given && !synthetic) {
        return at(
            key,
            "a dataset's prompts have their own lengths: leave out this or the dataset",
        );
    }
    if let Some(shapes) = &settings.shape {
        return match settings.isl.is_some() || settings.osl.is_some() {
            true => at("shape", "has both lengths: leave out isl and osl, or this"),
            false => Ok(shapes.clone()),
        };
    }
    let or_usual =
        |lengths: &Option<Vec<Length>>| lengths.clone().unwrap_or_else(|| vec![Length::fixed(128)]);
    let isl = match synthetic {
        true => or_usual(&settings.isl),
        false => vec![Length::fixed(0)],
    };
    Ok(Shape::crossed(&isl, &or_usual(&settings.osl)))
}

/// The price and its baseline, held against the engines of the run.
fn priced(report: &ReportSettings, engines: &[String]) -> Result<(), Conflict> {
    let sound = |price: f64| price.is_finite() && price > 0.0;
    positive(
        "report",
        "price_per_hour",
        report.price_per_hour.is_none_or(sound),
    )?;
    match &report.baseline {
        Some(_) if report.price_per_hour.is_none() => {
            let message = "costs are held against this engine's: give --price-per-hour too".into();
            Err(conflict("report", "baseline", message))
        }
        Some(name) if !engines.contains(name) => {
            let message = format!(
                "`{name}` is none of the engines of this run: {}",
                engines.join(", ")
            );
            Err(conflict("report", "baseline", message))
        }
        _ => Ok(()),
    }
}

fn positive(section: &'static str, key: &'static str, holds: bool) -> Result<(), Conflict> {
    match holds {
        true => Ok(()),
        false => Err(conflict(section, key, "must be above 0".into())),
    }
}

fn conflict(section: &'static str, key: &'static str, message: String) -> Conflict {
    Conflict {
        section,
        key,
        message,
    }
}
