//! The client on trial: it drives the built-in reference server, whose own word says what the client should have
//! measured. What is tested is this program on this machine, not an engine.

mod asked;
mod search;
mod server;
mod truth;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub use search::search;
pub use server::{Reference, SERVER_SUBCOMMAND, ServerError};
pub use truth::{Seen, Told, Truth, compare};

pub use crate::client::Stall;

use crate::client::{Target, TargetError};
use crate::load::{self, LoadError, StepLoad, Stop, run_step};
use crate::measure::calibration::{Calibration, CalibrationLoad};
use crate::measure::result::Stamp;
use crate::measure::{Clock, LiveShards, Sink, StepRecord, lag};
use crate::profile::{Cpus, Endpoint, Extent, Length, Step, Timeouts, Warmup};
use asked::Asked;

/// How long an answer streams, about.
const ANSWER: Duration = Duration::from_secs(1);

/// Output events of an answer at most: of longer ones, the first would be folded before they are compared.
const MOST_EVENTS: u32 = 8192;

/// Milliseconds to the first event of an answer.
const TTFT_MS: f64 = 20.0;

/// No stream takes longer than its answer by this; one that does is a failure, which the result tells.
const PATIENCE: Duration = Duration::from_secs(20);

/// Requests that may wait to be taken from the client's threads.
const BACKLOG: usize = 8192;

/// The load of a calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Concurrent streams.
    pub users: u32,
    /// Output events per second of each stream.
    pub rate: f64,
    /// Length of the window.
    pub duration: Duration,
    /// Words of each prompt.
    pub isl: u32,
    /// Output events of each answer; absent for those of about a second.
    pub osl: Option<u32>,
    /// Bytes of text in each output event, at least.
    pub event_bytes: u32,
    /// Stalls the client's threads on purpose.
    pub stall: Option<Stall>,
    /// The processors of the client's threads; absent for any.
    pub cpus: Option<Cpus>,
}

impl Load {
    /// The body of each of its requests.
    pub fn body(&self) -> Vec<u8> {
        let body = serde_json::json!({
            "model": "reference",
            "stream": true,
            "stream_options": { "include_usage": true },
            "max_tokens": self.osl(),
            "messages": [{ "role": "user", "content": vec!["word"; self.isl as usize].join(" ") }],
            "reference": {
                "ttft_ms": TTFT_MS,
                "itl_ms": 1e3 / self.rate,
                "event_bytes": self.event_bytes,
            },
        });
        body.to_string().into_bytes()
    }

    /// Output events of an answer.
    fn osl(&self) -> u32 {
        let second = (self.rate * ANSWER.as_secs_f64()) as u32;
        self.osl.unwrap_or(second).clamp(2, MOST_EVENTS)
    }

    /// Over which time the users start: long enough that the events of different streams do not come at one instant,
    /// short against the window.
    fn ramp(&self) -> Duration {
        (self.duration / 5).clamp(Duration::from_millis(310), Duration::from_millis(1010))
    }

    /// Events per second of all streams, if the server keeps to its schedule and the client asks again at once.
    fn planned_events_per_s(&self) -> f64 {
        let osl = f64::from(self.osl());
        f64::from(self.users) * osl / (TTFT_MS / 1e3 + (osl - 1.0) / self.rate)
    }

    fn describe(&self) -> CalibrationLoad {
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        CalibrationLoad {
            users: self.users,
            rate: self.rate,
            isl: self.isl,
            osl: self.osl(),
            event_bytes: self.event_bytes,
            stall: self
                .stall
                .map(|stall| format!("{}/{}", ms(stall.blocked), ms(stall.every))),
        }
    }
}

/// Why a calibration could not be made. A result that is bad is no error.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The reference server failed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The load could not be run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server's address is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// More requests ended at once than could be taken from the client's threads.
    #[error("{0} requests were lost between the client's threads and the comparison: ask for fewer users")]
    Overrun(u64),
}

/// Drives the server and compares. Nothing if `stop` ended the load early.
///
/// # Errors
/// When the server or the load fails as a whole; a request that fails is part of the result.
pub fn measure(
    reference: &Reference,
    load: &Load,
    stop: &Stop,
) -> Result<Option<Calibration>, CalibrateError> {
    let stop = stop.for_server();
    let clock = Clock::start();
    reference.forget()?;
    let asked = Arc::new(Asked::new(load));
    let (sink, seen) = Sink::with_events(BACKLOG);
    let overrun = sink.clone();
    let step = step(reference, load, stop.clone(), clock, asked, sink)?;
    let (record, seen, lost) = thread::scope(|scope| {
        let seen = scope.spawn(|| seen.into_iter().map(Seen::from).collect::<Vec<_>>());
        let record = run_step(step, &mut |_| {});
        let lost = overrun.lost();
        // The last of the sinks: with it, what is seen comes to its end.
        drop(overrun);
        (record, seen.join().expect("collecting does not panic"), lost)
    });
    let record = record?;
    if stop.is_soft() {
        return Ok(None);
    }
    if lost > 0 {
        return Err(CalibrateError::Overrun(lost));
    }
    let truth = compare(&seen, &reference.log()?, clock, record.window);
    Ok(Some(result(load, &record, truth)))
}

fn step(
    reference: &Reference,
    load: &Load,
    stop: Stop,
    clock: Clock,
    asked: Arc<Asked>,
    sink: Sink,
) -> Result<StepLoad, CalibrateError> {
    let fixed = |mean| Length { mean, stddev: 0 };
    let shards = load::shards(load.users, load.cpus.as_ref());
    let target = Target::new(reference.base_url(), Endpoint::Chat.path(), None, &[])?;
    Ok(StepLoad {
        gate: None,
        target: Arc::new(target),
        engine: 0,
        step: 0,
        shape: Step {
            users: load.users,
            isl: fixed(load.isl),
            osl: fixed(load.osl()),
        },
        ramp: load.ramp(),
        warmup: Warmup {
            duration: load.ramp(),
            requests_per_user: 0,
            most: load.ramp(),
        },
        extent: Extent {
            duration: Some(load.duration),
            requests: None,
        },
        drain: PATIENCE,
        backoff: ANSWER,
        timeouts: Timeouts {
            connect: PATIENCE,
            first_token: PATIENCE,
            stall: PATIENCE,
            total: ANSWER + PATIENCE,
        },
        objectives: None,
        requests: asked,
        count: None,
        first_id: 0,
        shards,
        cpus: load.cpus.clone(),
        stall: load.stall,
        clock,
        stop,
        sink,
        live: Arc::new(LiveShards::new(shards)),
    })
}

fn result(load: &Load, record: &StepRecord, truth: Truth) -> Calibration {
    let window_s = (record.window.end_ns - record.window.start_ns) as f64 / 1e9;
    let inside = truth.events_inside;
    Calibration {
        load: load.describe(),
        window_s,
        requests: truth.requests,
        requests_failed: truth.failed,
        events: truth.events,
        events_lost: truth.lost,
        events_doubled: truth.doubled,
        events_per_s: round(inside as f64 / window_s.max(f64::MIN_POSITIVE)),
        sent_rate: truth.sent_rate.map(round),
        stamp: match record.kernel_stamps {
            true => Stamp::Kernel,
            false => Stamp::Read,
        },
        ttft_error_ms: truth.ttft,
        itl_error_ms: truth.itl,
        arrival_error_ms: truth.arrival,
        read_lag_ms: lag(&record.read_lag),
        send_lag_ms: lag(&record.send_lag),
        cpu_us_per_event: (inside > 0).then(|| round(record.client_cpu_ns as f64 / 1e3 / inside as f64)),
        capacity: None,
    }
}

/// To three decimals: more of them say nothing.
fn round(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}
