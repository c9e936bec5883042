//! What the dashboard knows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::measure::LatestSecond;
use crate::measure::result::StepResult;
use crate::report::{Live, users};

/// Seconds of each engine that are kept for its sparklines.
const KEPT: usize = 300;
/// Messages that are kept.
const MESSAGES: usize = 50;

/// The run as it was planned.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Profile and model, in words.
    pub title: String,
    /// Engines in the order of the profile.
    pub engines: Vec<String>,
    /// Steps of the whole run.
    pub steps: usize,
    /// What a step takes at least, where that is known.
    pub step_time: Option<Duration>,
}

/// One second of an engine under load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tick {
    pub tokens_per_s: f64,
    pub second: LatestSecond,
}

/// One engine so far.
#[derive(Debug, Default)]
pub(super) struct EngineState {
    pub name: String,
    pub live: Option<Live>,
    pub ticks: VecDeque<Tick>,
    at_s: Option<u64>,
}

/// A finished step.
#[derive(Debug)]
pub(super) struct Finished {
    pub name: String,
    pub tokens_per_s: f64,
    pub ttft_ms: [Option<f64>; 2],
    pub itl_ms: Option<f64>,
    pub failed: u64,
    pub client_ms: Option<f64>,
}

/// All that is shown.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) overview: Overview,
    pub(super) since: Instant,
    pub(super) engines: Vec<EngineState>,
    /// Number of the step under way, from 0, and its engine's index.
    pub(super) step: Option<(usize, usize)>,
    pub(super) task: Option<String>,
    pub(super) finished: Vec<Finished>,
    pub(super) messages: VecDeque<String>,
}

impl State {
    pub(super) fn new(overview: Overview) -> State {
        let engine = |name: &String| EngineState {
            name: name.clone(),
            ..EngineState::default()
        };
        State {
            engines: overview.engines.iter().map(engine).collect(),
            overview,
            since: Instant::now(),
            step: None,
            task: None,
            finished: Vec::new(),
            messages: VecDeque::new(),
        }
    }

    /// Adds a message.
    pub fn say(&mut self, text: &str) {
        self.messages.extend(text.lines().map(str::to_owned));
        let many = self.messages.len().saturating_sub(MESSAGES);
        self.messages.drain(..many);
    }

    /// Something other than a step goes on, or no longer.
    pub fn task(&mut self, text: Option<String>) {
        self.task = text;
    }

    /// A step begins.
    pub fn begins(&mut self, number: usize, engine: &str) {
        let known = self.engines.iter().position(|known| known.name == engine);
        let index = known.unwrap_or_else(|| {
            self.engines.push(EngineState {
                name: engine.to_owned(),
                ..EngineState::default()
            });
            self.engines.len() - 1
        });
        self.step = Some((number, index));
    }

    /// The step under way, at this moment.
    pub fn goes(&mut self, live: &Live) {
        let Some(engine) = self.step.and_then(|(_, index)| self.engines.get_mut(index)) else {
            return;
        };
        if let Some(second) = live.second
            && engine.at_s.is_none_or(|seen| seen < second.at_s)
        {
            engine.at_s = Some(second.at_s);
            engine.ticks.push_back(Tick {
                tokens_per_s: live.tokens_per_s,
                second,
            });
            let many = engine.ticks.len().saturating_sub(KEPT);
            engine.ticks.drain(..many);
        }
        engine.live = Some(*live);
    }

    /// A step is over.
    pub fn ended(&mut self, step: &StepResult) {
        let facts = &step.facts;
        self.finished.push(Finished {
            name: format!("{}, {}", facts.engine, users(facts.users)),
            tokens_per_s: step.output_tps,
            ttft_ms: [step.ttft_ms.p50, step.ttft_ms.p99],
            itl_ms: step.itl_ms.p50,
            failed: step.requests.failed,
            client_ms: step.client.error_p99_ms,
        });
    }

    /// Steps that are over, and the share of the one under way.
    pub(super) fn done(&self) -> f64 {
        let part = |live: &Live| {
            let total = live.total.filter(|total| !total.is_zero())?;
            Some((live.elapsed.as_secs_f64() / total.as_secs_f64()).min(1.0))
        };
        let under_way = self.current().and_then(part).unwrap_or(0.0);
        let over = self.finished.len() as f64;
        (over + under_way) / self.overview.steps.max(1) as f64
    }

    /// What the rest of the run takes at least.
    pub(super) fn left(&self) -> Option<Duration> {
        let step = self.overview.step_time?;
        let more = self.overview.steps.saturating_sub(self.finished.len());
        let spent = self
            .current()
            .map_or(Duration::ZERO, |live| live.elapsed.min(step));
        Some((step * u32::try_from(more).ok()?).saturating_sub(spent))
    }

    /// The step under way, unless it is over.
    pub(super) fn current(&self) -> Option<&Live> {
        let (number, index) = self.step?;
        (number >= self.finished.len())
            .then(|| self.engines.get(index)?.live.as_ref())
            .flatten()
    }
}
