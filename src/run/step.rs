//! The steps of one engine: load, window, save.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::cores::Cores;
use super::display::{self, Display};
use super::{Interrupt, Subject, stable};
use crate::client::Target;
use crate::engine::{Recipe, Running};
use crate::load::{self, Requests, StepLoad, Stop, run_step};
use crate::measure::result::{SequenceLength, ServerResult, StepFacts};
use crate::measure::{Clock, LiveShards, Objectives, ServerSecond, StepContext, StepRecord, Store, Window};
use crate::profile::{Dialect, Length, Planned, Profile, Prompts, Slo, Turn};
use crate::report::Progress;
use crate::telemetry::{Gauges, Queue, Usage, Watch};

/// How often the display and the server's process are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Numbers of prompts set aside for a step, so that every engine gets the same ones and no step those of another.
const PROMPTS_PER_STEP: u64 = 100_000;

const NS: f64 = 1e9;

/// What all steps of a run share.
pub struct Bench<'a> {
    /// What to do.
    pub profile: &'a Profile,
    /// The model under test.
    pub subject: &'a Subject,
    /// Who may run on which processors.
    pub cores: &'a Cores,
    /// Where progress goes.
    pub progress: &'a Progress,
    /// The user's wish to stop.
    pub interrupt: &'a Interrupt,
    /// The run's clock.
    pub clock: Clock,
}

/// The most threads that a step of the profile takes.
pub fn threads(profile: &Profile) -> usize {
    let most = profile.users.iter().max().copied().unwrap_or(1);
    load::shards(most, None)
}

/// A step's prompts, by the numbers of its requests.
struct Numbered {
    prompts: Prompts,
    first_id: u64,
    first_prompt: u64,
}

impl Requests for Numbered {
    fn body(&self, id: u64, out: &mut Vec<u8>) {
        self.prompts.body(self.first_prompt + (id - self.first_id), out);
    }
}

/// Runs every step of the profile against one engine and saves each as it ends. Ends early when the user or the
/// server's death wants it.
///
/// # Errors
/// If no load can be generated, or a result not be saved.
pub fn all(
    bench: &Bench<'_>,
    store: &mut Store,
    turn: &Turn,
    recipe: &Recipe,
    running: &Running,
    api_key: Option<&str>,
) -> anyhow::Result<()> {
    let index = turn.engine;
    let requests = &bench.profile.requests;
    let headers: Vec<_> = requests
        .headers
        .iter()
        .map(|h| (h.name.clone(), h.value.clone()))
        .collect();
    let target = Target::new(running.base_url(), requests.endpoint.path(), api_key, &headers)?;
    let target = Arc::new(target);
    let dialect = dialect(recipe, running);
    let steps = bench.profile.steps();
    let mut first_id = store
        .run()
        .steps
        .iter()
        .map(|step| step.requests_all.sent + u64::from(step.facts.users))
        .sum();
    for planned in steps.iter().filter(|step| turn.repeats.contains(&step.repeat)) {
        if bench.interrupt.is_set() || running.exit().is_some() {
            break;
        }
        if stable::enough(bench.profile, &recipe.name, planned, &store.run().steps) {
            continue;
        }
        let facts = facts(recipe, planned, index * steps.len());
        store.step_begins(facts.clone())?;
        let stop = bench.interrupt.stop().for_server();
        let prompts = prompts(bench, planned, &dialect, first_id)?;
        let load = step_load(
            bench,
            store,
            planned,
            &facts,
            (index, target.clone(), prompts, first_id, stop),
        )?;
        let done = store.run().steps.len();
        let mut window_opens = |start_ns| {
            // So that a run that is killed can be told with its window. If it cannot be saved, the step's end says so.
            let _ = store.step_begins(StepFacts {
                window_start_ns: Some(start_ns),
                ..facts.clone()
            });
        };
        let gauges = gauges(recipe, running, api_key)?;
        let (record, seen) = watched(
            bench,
            running,
            (&facts, done, steps.len()),
            load,
            gauges,
            &mut window_opens,
        )?;
        first_id += record.all_outcomes.values().sum::<u64>() + u64::from(planned.step.users);
        let (server, seconds) = used(&seen.usages, record.window);
        let (server_running, server_waiting) = said(&seen.queues, record.window);
        let context = StepContext {
            server,
            server_running,
            server_waiting,
        };
        bench
            .progress
            .finished(store.step_done(facts, &record, context, &seconds)?);
    }
    Ok(())
}

fn dialect(recipe: &Recipe, running: &Running) -> Dialect {
    let known = &recipe.dialect;
    let extra = known
        .extra
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), serde_json::to_value(value).ok()?)));
    Dialect {
        model: known.model.replace("{model_name}", running.model_name()),
        max_tokens: known.max_tokens.clone(),
        ignore_eos: known.ignore_eos.clone(),
        ignore_eos_value: serde_json::to_value(&known.ignore_eos_value).unwrap_or(true.into()),
        include_usage: known.include_usage,
        extra: extra.collect(),
    }
}

fn facts(recipe: &Recipe, planned: &Planned, first_step: usize) -> StepFacts {
    let length = |length: Length| SequenceLength {
        mean: length.mean,
        stddev: length.stddev,
    };
    StepFacts {
        step: u16::try_from(first_step)
            .unwrap_or(u16::MAX)
            .saturating_add(planned.index),
        engine: recipe.name.clone(),
        repeat: planned.repeat,
        users: planned.step.users,
        rate: None,
        isl: length(planned.step.isl),
        osl: length(planned.step.osl),
        window_start_ns: None,
    }
}

fn prompts(
    bench: &Bench<'_>,
    planned: &Planned,
    dialect: &Dialect,
    first_id: u64,
) -> anyhow::Result<Numbered> {
    // A note of the run says so where an engine cannot.
    let mut requests = bench.profile.requests.clone();
    requests.ignore_eos &= dialect.ignore_eos.is_some();
    let counter = bench.subject.count();
    let counter = counter.as_ref().map(|count| count as &dyn Fn(&str) -> usize);
    Ok(Numbered {
        prompts: Prompts::prepare(&requests, &planned.step, dialect, counter)?,
        first_id,
        first_prompt: u64::from(planned.index) * PROMPTS_PER_STEP,
    })
}

fn objectives(slo: &Slo) -> Objectives {
    let ns = |ms: Option<f64>| ms.map(|ms| (ms * 1e6) as u64);
    Objectives {
        ttft_ns: ns(slo.ttft),
        tpot_ns: ns(slo.tpot),
        e2el_ns: ns(slo.e2el),
    }
}

fn step_load(
    bench: &Bench<'_>,
    store: &Store,
    planned: &Planned,
    facts: &StepFacts,
    (engine, target, prompts, first_id, stop): (usize, Arc<Target>, Numbered, u64, Stop),
) -> anyhow::Result<StepLoad> {
    let profile = bench.profile;
    let shards = load::shards(planned.step.users, bench.cores.client.as_ref());
    Ok(StepLoad {
        target,
        engine: u16::try_from(engine)?,
        step: facts.step,
        shape: planned.step.clone(),
        ramp: profile.ramp,
        warmup: profile.warmup,
        extent: profile.extent,
        drain: profile.drain,
        backoff: profile.backoff,
        timeouts: profile.requests.timeouts,
        objectives: profile.slo.as_ref().map(objectives),
        requests: Arc::new(prompts),
        first_id,
        shards,
        cpus: bench.cores.client.clone(),
        stall: None,
        clock: bench.clock,
        stop,
        sink: store
            .sink()
            .ok_or_else(|| anyhow::anyhow!("the run's files are closed"))?,
        live: Arc::new(LiveShards::new(shards)),
    })
}

/// The gauges in which the server tells of its queue, where the recipe knows of any.
fn gauges(recipe: &Recipe, running: &Running, api_key: Option<&str>) -> std::io::Result<Option<Gauges>> {
    let Some(metrics) = &recipe.metrics else {
        return Ok(None);
    };
    let url = format!("{}{}", running.base_url(), metrics.path);
    let key = api_key.map(str::to_owned);
    Gauges::new(url, key, metrics.running.clone(), metrics.waiting.clone()).map(Some)
}

/// What was seen of the server, once a second.
struct Seen {
    usages: Vec<Usage>,
    queues: Vec<Queue>,
}

/// Runs the step while someone shows how it goes, samples the server's processes, asks it for its queue, and ends the
/// step when the server is gone.
fn watched(
    bench: &Bench<'_>,
    running: &Running,
    (facts, done, steps): (&StepFacts, usize, usize),
    load: StepLoad,
    gauges: Option<Gauges>,
    window_opens: &mut dyn FnMut(u64),
) -> anyhow::Result<(StepRecord, Seen)> {
    let clock = bench.clock;
    let usages = running
        .processes()
        .map(|root| Watch::start(move || root.usage(clock.now_ns())));
    let queues = gauges.map(|mut gauges| Watch::start(move || gauges.look(clock.now_ns())));
    let (live, stop, over) = (load.live.clone(), load.stop.clone(), AtomicBool::new(false));
    let opened_ns = AtomicU64::new(display::AHEAD);
    let record = thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let shown = bench
                .progress
                .step(done, steps * bench.profile.engines.len().max(1), &facts.engine);
            let mut display = Display::new(bench, &live, &opened_ns);
            while !over.load(Ordering::Relaxed) {
                match (running.pid(), running.exit()) {
                    (_, Some(_)) => stop.server_gone(),
                    (Some(_), None) => stop.server_is_there(),
                    (None, None) => {}
                }
                shown.update(&display.look());
                thread::park_timeout(LOOK_EVERY);
            }
        });
        let record = run_step(load, &mut |start_ns| {
            opened_ns.store(start_ns, Ordering::Relaxed);
            window_opens(start_ns);
        });
        over.store(true, Ordering::Relaxed);
        looker.thread().unpark();
        record
    });
    let seen = Seen {
        usages: usages.map(Watch::stop).unwrap_or_default(),
        queues: queues.map(Watch::stop).unwrap_or_default(),
    };
    Ok((record?, seen))
}

/// What the server said of its queue inside the window, averaged: requests it worked on, requests that waited.
fn said(queues: &[Queue], window: Window) -> (Option<f64>, Option<f64>) {
    let mean = |gauge: fn(&Queue) -> Option<f64>| {
        let values: Vec<f64> = queues
            .iter()
            .filter(|queue| window.holds(queue.at_ns))
            .filter_map(gauge)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    (mean(|queue| queue.running), mean(|queue| queue.waiting))
}

/// What the server used inside the window, and second by second.
fn used(usages: &[Usage], window: Window) -> (Option<ServerResult>, Vec<ServerSecond>) {
    let seconds = usages.windows(2).map(|pair| {
        let passed_s = (pair[1].at_ns.saturating_sub(pair[0].at_ns)) as f64 / NS;
        ServerSecond {
            at_s: pair[0].at_ns / 1_000_000_000,
            cpu_cores: if passed_s > 0.0 {
                (pair[1].cpu_s - pair[0].cpu_s) / passed_s
            } else {
                0.0
            },
            rss_bytes: pair[1].rss_bytes,
            ..ServerSecond::default()
        }
    });
    // Samples come once a second: the nearest ones to the window's ends bound what is counted.
    let nearest = |at_ns: u64| usages.iter().min_by_key(|usage| usage.at_ns.abs_diff(at_ns));
    let inside = nearest(window.start_ns).zip(nearest(window.end_ns));
    let server = inside.map(|(first, last)| ServerResult {
        cpu_s: (last.cpu_s - first.cpu_s).max(0.0),
        rss_peak_bytes: usages.iter().map(|usage| usage.rss_bytes).max().unwrap_or(0),
        gpu: Vec::new(),
    });
    (server, seconds.collect())
}
