//! The steps of one engine: load, window, save.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::cores::Cores;
use super::display::{self, Display};
use super::verify::Again;
use super::watched::{Looks, SharedCards, Watched};
use super::{Interrupt, Subject, engines, stable};
use crate::client::Target;
use crate::engine::{Recipe, Running};
use crate::load::{self, Gate, Requests, StepLoad, Stop, run_step};
use crate::measure::result::{SequenceLength, StepFacts};
use crate::measure::{Clock, LiveShards, Objectives, Outcome, ServerSecond, StepContext, StepRecord, Store};
use crate::profile::{Dialect, Length, Planned, Profile, Prompts, Slo, Turn};
use crate::report::{Live, Progress, ServerNow};
use crate::verify::{Loaded, Verifier};

/// How often the display and the server's process are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Numbers of prompts set aside for a step, so that every engine gets the same ones and no step those of another.
const PROMPTS_PER_STEP: u64 = 100_000;

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
    /// The machine's graphics cards, where there are any.
    pub cards: Option<SharedCards>,
    /// Who keeps the engines' answers, if they are verified.
    pub verifier: Option<Verifier>,
}

/// What a server took down when it died in a step.
#[derive(Debug, Clone, Copy)]
pub struct Toll {
    /// The step's number in the run.
    pub step: u16,
    /// Its users.
    pub users: u32,
    /// Requests that ended with the server.
    pub requests: u64,
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
/// server's death wants it; returns what the server's death took down, if it died in a step.
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
) -> anyhow::Result<Option<Toll>> {
    let index = turn.engine;
    let mut toll = None;
    let requests = &bench.profile.requests;
    let headers: Vec<_> = requests
        .headers
        .iter()
        .map(|h| (h.name.clone(), h.value.clone()))
        .collect();
    let target = Target::new(running.base_url(), requests.endpoint.path(), api_key, &headers)?;
    let target = Arc::new(target);
    let dialect = dialect(recipe, running);
    let again = Again::new(bench, index, recipe, running, api_key);
    let steps = bench.profile.steps();
    let mut first_id = store
        .run()
        .steps
        .iter()
        .map(|step| step.requests_all.sent + u64::from(step.facts.users))
        .sum();
    for planned in steps.iter().filter(|step| turn.repeats.contains(&step.repeat)) {
        if bench.interrupt.is_set() || running.is_dead() {
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
        let watched = Watched::start(&Looks {
            clock: bench.clock,
            cards: bench.cards.as_ref(),
            recipe,
            running,
            api_key,
            archive: store
                .dir()
                .join(engines::file_name("metrics", recipe, turn, "txt.gz")),
            step: facts.step,
        })?;
        let mut window_opens = |start_ns| {
            // So that a run that is killed can be told with its window. If it cannot be saved, the step's end says so.
            let _ = store.step_begins(StepFacts {
                window_start_ns: Some(start_ns),
                ..facts.clone()
            });
        };
        let record = shown(
            bench,
            (running, &watched),
            (&facts, done, steps.len()),
            load,
            again.as_ref(),
            &mut window_opens,
        );
        let seen = watched.stop();
        let (record, loaded) = record?;
        first_id += record.all_outcomes.values().sum::<u64>() + u64::from(planned.step.users);
        toll = running.is_dead().then(|| Toll {
            step: facts.step,
            users: facts.users,
            requests: record
                .all_outcomes
                .get(&Outcome::ServerExit)
                .copied()
                .unwrap_or(0),
        });
        let context = StepContext {
            verified: again.as_ref().and_then(|again| again.judge(&loaded)),
            ..seen.context(record.window)
        };
        bench
            .progress
            .finished(store.step_done(facts, &record, context, &seen.seconds())?);
    }
    Ok(toll)
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
        temperature: known.temperature.clone(),
        top_p: known.top_p.clone(),
        top_k: known.top_k.clone(),
        seed: known.seed.clone(),
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
        gate: None,
        ramp: profile.ramp,
        warmup: profile.warmup,
        extent: profile.extent,
        drain: profile.drain,
        backoff: profile.backoff,
        timeouts: profile.requests.timeouts,
        objectives: profile.slo.as_ref().map(objectives),
        requests: Arc::new(prompts),
        count: bench.subject.count_output(),
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

/// Runs the step while someone shows how it goes and someone asks once more for some answers, and ends it when the server
/// is gone.
fn shown(
    bench: &Bench<'_>,
    (running, watched): (&Running, &Watched),
    (facts, done, steps): (&StepFacts, usize, usize),
    mut load: StepLoad,
    again: Option<&Again<'_>>,
    window_opens: &mut dyn FnMut(u64),
) -> anyhow::Result<(StepRecord, Vec<Loaded>)> {
    let (live, stop, over) = (load.live.clone(), load.stop.clone(), AtomicBool::new(false));
    let opened_ns = AtomicU64::new(display::AHEAD);
    let gate = Arc::new(Gate::default());
    load.gate = again.map(|_| gate.clone());
    let (gate, number) = (&*gate, usize::from(facts.step));
    let (record, loaded) = thread::scope(|scope| {
        let asker = again.map(|again| scope.spawn(move || again.ask(gate, number)));
        let looker = scope.spawn(|| {
            let shown = bench
                .progress
                .step(done, steps * bench.profile.engines.len().max(1), &facts.engine);
            let mut display = Display::new(bench, &live, &opened_ns);
            while !over.load(Ordering::Relaxed) {
                match (running.pid(), running.is_dead()) {
                    (_, true) => stop.server_gone(),
                    (Some(_), false) => stop.server_is_there(),
                    (None, false) => {}
                }
                shown.update(&Live {
                    server: watched.latest().and_then(now),
                    ..display.look()
                });
                thread::park_timeout(LOOK_EVERY);
            }
        });
        let record = run_step(load, &mut |start_ns| {
            opened_ns.store(start_ns, Ordering::Relaxed);
            window_opens(start_ns);
        });
        gate.close();
        over.store(true, Ordering::Relaxed);
        looker.thread().unpark();
        // A thread that panicked has no answers, and the scope tells of it.
        let loaded = asker.and_then(|asker| asker.join().ok());
        (record, loaded.unwrap_or_default())
    });
    Ok((record?, loaded))
}

/// What the display shows of the server.
fn now(second: ServerSecond) -> Option<ServerNow> {
    Some(ServerNow {
        gpu_pct: second.gpu_utilisation_pct(),
        cpu_cores: second.cpu_cores?,
        rss_bytes: second.rss_bytes?,
    })
}
