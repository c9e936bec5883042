//! Conducts one step: starts its shards, opens and closes its window, drains it, and gathers what they recorded.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::attack;
use super::control::{Control, Gate, Stop};
use super::counting::{CountTokens, Counting};
use super::user::Shard;
use crate::client::{Reader, Shared, Stall, Target};
use crate::measure::{
    Arrivals, Clock, Contention, LiveShards, Objectives, Recorder, Second, Sink, StepRecord, WallOffset,
};
use crate::profile::{Cpus, Extent, Step, Timeouts, Warmup};
use crate::telemetry::{Cost, Meter, ThreadId, affinity};

/// How often the window is looked after.
const TICK: Duration = Duration::from_millis(10);

const SECOND_NS: u64 = 1_000_000_000;

/// Where the bodies of requests come from.
pub trait Requests: Send + Sync {
    /// Writes the JSON body of the request with this number to `out`, which is empty. Called between two requests of a
    /// user: what it takes is part of the send lag.
    fn body(&self, id: u64, out: &mut Vec<u8>);
}

/// One step of the load, with all it needs.
pub struct StepLoad {
    /// Whom to ask.
    pub target: Arc<Target>,
    /// Number of the engine in its run.
    pub engine: u16,
    /// Number of the step in its run.
    pub step: u16,
    /// Users and lengths.
    pub shape: Step,
    /// Over this time users start, evenly.
    pub ramp: Duration,
    /// Before the window opens.
    pub warmup: Warmup,
    /// How long the window is.
    pub extent: Extent,
    /// What keeps the window shut beside the warm-up.
    pub gate: Option<Arc<Gate>>,
    /// How long requests in flight are followed after the window.
    pub drain: Duration,
    /// How long a user whose request failed waits before the next.
    pub backoff: Duration,
    /// How long users wait for the server.
    pub timeouts: Timeouts,
    /// What a request must keep to count as good.
    pub objectives: Option<Objectives>,
    /// What is asked.
    pub requests: Arc<dyn Requests>,
    /// Counts the output of answers whose server does not tell it, once they are over. Without it, their events count.
    pub count: Option<CountTokens>,
    /// Number of the step's first request.
    pub first_id: u64,
    /// Threads that drive streams; each serves hundreds.
    pub shards: usize,
    /// The processors that these threads may run on; absent for any.
    pub cpus: Option<Cpus>,
    /// Stalls the threads that read on purpose, to see what that does to the figures.
    pub stall: Option<Stall>,
    /// The run's clock.
    pub clock: Clock,
    /// Ends the step early.
    pub stop: Stop,
    /// Where finished requests go.
    pub sink: Sink,
    /// Counters to be looked at meanwhile, one set a shard.
    pub live: Arc<LiveShards>,
}

/// Why a step could not be run. A request that fails is none of these.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// goose refused the attack or gave it up.
    #[error("goose cannot run {users} users")]
    Goose {
        /// Users wanted.
        users: u32,
        /// What goose says.
        source: attack::AttackError,
    },
    /// No thread or runtime could be had.
    #[error("no thread for the load")]
    Thread(#[from] io::Error),
    /// A thread of the load panicked.
    #[error("a thread of the load panicked")]
    Panic,
    /// There is nobody to ask.
    #[error("a step needs at least one user")]
    NoUsers,
}

type Outcome = Result<(u64, u64), LoadError>;

/// What the one who conducts a step saw of its window.
#[derive(Default)]
struct Seen {
    cost: Cost,
    clock_steps: u32,
}

struct Running {
    thread: JoinHandle<Outcome>,
    /// Of the thread that asks, and of the one that reads.
    ids: [ThreadId; 2],
    shard: Arc<Shard>,
}

/// Runs one step and blocks until its last request is over. Calls `window_opens` on this thread, with the instant in
/// nanoseconds on the run's clock, when the window has opened.
///
/// # Errors
/// If the load itself cannot be run. Whatever a server does is data in the record.
pub fn run_step(load: StepLoad, window_opens: &mut dyn FnMut(u64)) -> Result<StepRecord, LoadError> {
    let users = load.shape.users;
    if users == 0 {
        return Err(LoadError::NoUsers);
    }
    let control = Arc::new(Control::new(
        users,
        load.warmup,
        load.extent,
        load.gate.clone(),
        load.first_id,
    ));
    let started_ns = load.clock.now_ns();
    let shards = load.shards.clamp(1, users as usize) as u32;
    let counting = start_counting(&load, &control, started_ns)?;
    let mut running = Vec::new();
    let mut first_user = 0;
    for index in 0..shards {
        let share = users / shards + u32::from(index < users % shards);
        running.push(start_shard(
            &load,
            (&control, counting.as_ref()),
            index as usize,
            (first_user, share),
            started_ns,
        )?);
        first_user += share;
    }
    let mut timeline = Timeline::new(started_ns);
    let counter = counting.as_ref().map(Counting::id);
    let seen = conduct(&load, &control, (&running, counter), &mut timeline, window_opens);
    finish(&load, &control, (running, counting), timeline, seen)
}

fn start_counting(
    load: &StepLoad,
    control: &Arc<Control>,
    started_ns: u64,
) -> Result<Option<Counting>, LoadError> {
    let Some(count) = load.count.clone() else {
        return Ok(None);
    };
    let recorder = Recorder::new(started_ns, load.objectives);
    let place = placing(load.cpus.as_ref());
    Counting::start(count, recorder, control.clone(), load.sink.clone(), place).map(Some)
}

fn start_shard(
    load: &StepLoad,
    (control, counting): (&Arc<Control>, Option<&Counting>),
    index: usize,
    (first_user, users): (u32, u32),
    started_ns: u64,
) -> Result<Running, LoadError> {
    let shared = Shared {
        target: load.target.clone(),
        timeouts: load.timeouts,
        clock: load.clock,
        cut: control.cut.clone(),
        window: control.window.clone(),
        live: load.live.shard(index),
        keep_text: counting.is_some(),
    };
    let (place, reading) = placing(load.cpus.as_ref());
    let reader = Reader::start(&format!("read-{index}"), shared, load.stall, place)?;
    let reading = reading.recv().map_err(|_| LoadError::Panic)??;
    let shard = Arc::new(Shard {
        reader: Arc::new(reader),
        control: control.clone(),
        stop: load.stop.clone(),
        requests: load.requests.clone(),
        sink: load.sink.clone(),
        recorder: Mutex::new(Recorder::new(started_ns, load.objectives)),
        uncounted: counting.map(Counting::uncounted),
        engine: load.engine,
        step: load.step,
        backoff: load.backoff,
        first_user,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (own, ramp) = (shard.clone(), load.ramp);
    let (place, asking) = placing(load.cpus.as_ref());
    let thread = thread::Builder::new()
        .name(format!("load-{index}"))
        .spawn(move || {
            place();
            let attacked = runtime.block_on(attack::run(own, users, ramp));
            attacked.map_err(|source| LoadError::Goose { users, source })
        })?;
    let asking = asking.recv().map_err(|_| LoadError::Panic)??;
    Ok(Running {
        thread,
        ids: [asking, reading],
        shard,
    })
}

/// What a thread of the load does first: it goes to its processors. The other end is told which thread it is.
fn placing(cpus: Option<&Cpus>) -> (impl FnOnce() + Send + 'static, Receiver<io::Result<ThreadId>>) {
    let cpus = cpus.cloned();
    let (id, placed) = mpsc::sync_channel(1);
    let place = move || {
        let pinned = cpus.map_or(Ok(()), |cpus| affinity::pin(cpus.list()));
        // Whoever started the thread waits for this.
        let _ = id.send(pinned.map(|()| ThreadId::own()));
    };
    (place, placed)
}

/// Looks after the window until every shard is done. Returns what the load cost inside the window.
fn conduct(
    load: &StepLoad,
    control: &Control,
    (running, counter): (&[Running], Option<ThreadId>),
    timeline: &mut Timeline,
    window_opens: &mut dyn FnMut(u64),
) -> Seen {
    let meter = Meter::of(
        running
            .iter()
            .flat_map(|shard| shard.ids)
            .chain(counter)
            .collect(),
    );
    let mut at_start = None;
    let mut seen = Seen::default();
    let mut wall = WallOffset::new(load.clock);
    let mut stopped_ns = None;
    while !running.iter().all(|shard| shard.thread.is_finished()) {
        let now = load.clock.now_ns();
        let start_ns = control.window().start_ns;
        wall.check(now);
        if at_start.is_none() && now >= start_ns {
            at_start = Some(meter.read());
            window_opens(start_ns);
        }
        if control.advance(now, &load.stop) {
            let stopped = *stopped_ns.get_or_insert_with(|| {
                seen.cost = at_start
                    .map(|start| meter.read().since(start))
                    .unwrap_or_default();
                now
            });
            // Asked again at every turn, because an attack that is just starting would clear it.
            attack::stop();
            let drained = now - stopped >= load.drain.as_nanos() as u64;
            if (drained || load.stop.is_hard()) && !control.cut.is_cut() {
                control.cut.cut();
            }
        }
        timeline.advance(now, &load.live);
        thread::sleep(TICK);
    }
    seen.clock_steps = wall.steps();
    seen
}

fn finish(
    load: &StepLoad,
    control: &Control,
    (running, counting): (Vec<Running>, Option<Counting>),
    mut timeline: Timeline,
    seen: Seen,
) -> Result<StepRecord, LoadError> {
    let now = load.clock.now_ns();
    // A load that ended by itself closes its window here.
    control.advance(now, &{
        let stop = Stop::default();
        stop.soft();
        stop
    });
    let threads = u32::try_from(2 * running.len() + usize::from(counting.is_some())).unwrap_or(u32::MAX);
    let mut gathered: Option<Recorder> = None;
    let mut goose_requests = (0, 0);
    for Running { thread, shard, .. } in running {
        let (ok, failed) = thread.join().map_err(|_| LoadError::Panic)??;
        goose_requests = (goose_requests.0 + ok, goose_requests.1 + failed);
        let empty = Recorder::new(timeline.started_ns, load.objectives);
        let recorder = std::mem::replace(
            &mut *shard.recorder.lock().unwrap_or_else(PoisonError::into_inner),
            empty,
        );
        match &mut gathered {
            Some(gathered) => gathered.merge(recorder),
            None => gathered = Some(recorder),
        }
    }
    if let (Some(gathered), Some(counting)) = (&mut gathered, counting) {
        gathered.merge(counting.finish()?);
    }
    timeline.advance(now + 3 * SECOND_NS, &load.live);
    let recorder = gathered.ok_or(LoadError::NoUsers)?;
    let (mut record, arrivals) = recorder.finish(control.window());
    record.users = load.shape.users;
    record.client_threads = threads;
    record.client_cpu_ns = seen.cost.cpu_ns;
    record.contention = Contention {
        run_queue_ns: seen.cost.run_queue_ns,
        steal_ns: seen.cost.steal_ns,
        pressure_ns: seen.cost.pressure_ns,
    };
    record.clock_steps = seen.clock_steps;
    record.cold_users = control.cold_users();
    record.goose_requests = goose_requests;
    record.seconds = timeline.finish(&arrivals, now);
    Ok(record)
}

/// The seconds of a step, gathered while it runs.
struct Timeline {
    started_ns: u64,
    /// The second to be looked at next, and the gauges as they stood at its end, once it is over.
    next_s: u64,
    gauged_s: u64,
    seconds: Vec<Second>,
}

impl Timeline {
    fn new(started_ns: u64) -> Self {
        let first = started_ns / SECOND_NS;
        Self {
            started_ns,
            next_s: first,
            gauged_s: first,
            seconds: Vec::new(),
        }
    }

    /// Notes the gauges when a second ends, and its counts one second later, when all who write them are done.
    fn advance(&mut self, now_ns: u64, live: &LiveShards) {
        while (self.gauged_s + 1) * SECOND_NS <= now_ns {
            let totals = live.totals();
            self.seconds.push(Second {
                at_s: self.gauged_s,
                users: totals.users,
                in_flight: totals.in_flight,
                streaming: totals.streaming,
                ..Second::default()
            });
            self.gauged_s += 1;
        }
        while (self.next_s + 2) * SECOND_NS <= now_ns {
            let counts = live.take_second(self.next_s);
            let second = self
                .seconds
                .iter_mut()
                .rev()
                .find(|second| second.at_s == self.next_s);
            if let Some(second) = second {
                second.sent = counts.sent;
                second.ok = counts.ok;
                second.failed = counts.failed;
                second.ttft_ns = counts.ttft_ns;
                second.itl_ns = counts.itl_ns;
                second.gaps = counts.gaps;
            }
            self.next_s += 1;
        }
    }

    /// Adds the arrivals by second, and cuts the seconds that lie after the step.
    fn finish(mut self, arrivals: &[Arrivals], now_ns: u64) -> Vec<Second> {
        self.seconds.retain(|second| second.at_s <= now_ns / SECOND_NS);
        for (second, arrivals) in self.seconds.iter_mut().zip(arrivals) {
            second.events = arrivals.events;
            second.output_tokens = arrivals.tokens.round() as u64;
        }
        self.seconds
    }
}
