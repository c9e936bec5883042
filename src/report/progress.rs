//! Live progress on stderr: a dashboard or bars on a terminal, plain lines every few seconds where there is none.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::dashboard::{Dashboard, Overview};
use super::words::users;
use crate::measure::LatestSecond;
use crate::measure::result::StepResult;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

/// Longest silence where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const FRAME: Duration = Duration::from_millis(200);

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// Lines, also on a terminal (`--no-progress`).
    Lines,
    /// Nothing (`--quiet`).
    Nothing,
}

/// Where progress goes. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    lines: bool,
    dashboard: Option<Arc<Dashboard>>,
}

impl Progress {
    /// Progress on stderr.
    pub fn new(show: Show) -> Progress {
        let bars = show == Show::Auto && io::stderr().is_terminal();
        Progress {
            bars: bars.then(MultiProgress::new),
            lines: !bars && show != Show::Nothing,
            dashboard: None,
        }
    }

    /// The same on a dashboard, where bars are shown and the terminal is large enough. `stop` is called when the user
    /// asks to stop. The terminal is free again when this, and what came from it, is dropped.
    pub fn on_dashboard(self, overview: Overview, stop: impl Fn() + Send + 'static) -> Progress {
        let wanted = self.bars.is_some();
        let dashboard = wanted.then(|| Dashboard::start(overview, stop)).flatten();
        Progress {
            dashboard: dashboard.map(Arc::new),
            ..self
        }
    }

    /// Says something once.
    pub fn status(&self, text: &str) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.tell(|state| state.say(text));
        } else if let Some(bars) = &self.bars {
            // A terminal that went away must not end the run.
            let _ = bars.println(text);
        } else if self.lines {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Something that takes a while: a download (`total` in bytes), or a build or a start (no total).
    pub fn task(&self, name: &str, total: Option<u64>) -> Task {
        if let Some(dashboard) = &self.dashboard {
            dashboard.tell(|state| state.task(Some(name.to_owned())));
            return Task(Line::on(dashboard));
        }
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left",
            None => "{spinner} {msg} {elapsed}",
        };
        Task(self.line(template, total, total, name.to_owned()))
    }

    /// Step `index` (from 0) of `count`, on `engine`.
    pub fn step(&self, index: usize, count: usize, engine: &str) -> StepProgress {
        let name = format!("step {}/{count} {engine}", index + 1);
        if let Some(dashboard) = &self.dashboard {
            dashboard.tell(|state| state.begins(index, engine));
            return StepProgress {
                line: Line::on(dashboard),
                name,
            };
        }
        let line = self.line("{prefix} [{bar:20}] {msg}", Some(1_000), None, name.clone());
        StepProgress { line, name }
    }

    /// A step is over, and this came of it.
    pub fn finished(&self, step: &StepResult) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.tell(|state| state.ended(step));
        }
    }

    /// `length` is that of the bar; `bytes`, the total that a plain line names.
    fn line(&self, template: &str, length: Option<u64>, bytes: Option<u64>, text: String) -> Line {
        if let Some(bars) = &self.bars {
            let bar = bars.add(length.map_or_else(ProgressBar::new_spinner, ProgressBar::new));
            let style = ProgressStyle::with_template(template).expect("the templates above are well formed");
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix(text.clone());
            bar.set_message(text);
            bar.enable_steady_tick(FRAME);
            return Line {
                bar: Some(bar),
                beat: None,
                dashboard: None,
            };
        }
        let beat = self
            .lines
            .then(|| Heartbeat::start(text, bytes, LINE_EVERY, io::stderr()));
        Line {
            bar: None,
            beat,
            dashboard: None,
        }
    }
}

/// A bar, a heartbeat of lines, a place on the dashboard, or nothing.
#[derive(Debug)]
struct Line {
    bar: Option<ProgressBar>,
    beat: Option<Heartbeat>,
    dashboard: Option<Arc<Dashboard>>,
}

impl Line {
    fn on(dashboard: &Arc<Dashboard>) -> Line {
        Line {
            bar: None,
            beat: None,
            dashboard: Some(Arc::clone(dashboard)),
        }
    }

    fn set(&self, position: Option<u64>, text: Option<String>) {
        if let Some(bar) = &self.bar {
            position.inspect(|p| bar.set_position(*p));
            text.clone().inspect(|t| bar.set_message(t.clone()));
        }
        if let Some(beat) = &self.beat {
            let mut state = beat.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.position = position.unwrap_or(state.position);
            state.text = text.unwrap_or_else(|| std::mem::take(&mut state.text));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(dashboard) = &self.dashboard {
            dashboard.tell(|state| state.task(None));
        }
    }
}

/// A task under way. Its line goes away when it is dropped.
#[derive(Debug)]
pub struct Task(Line);

impl Task {
    /// Sets how far it is, in the unit of its total.
    pub fn position(&self, position: u64) {
        self.0.set(Some(position), None);
    }

    /// Changes what it says.
    pub fn message(&self, text: &str) {
        if let Some(dashboard) = &self.0.dashboard {
            dashboard.tell(|state| state.task(Some(text.to_owned())));
        }
        self.0.set(None, Some(text.to_owned()));
    }
}

/// What a step is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Users are starting.
    Ramp,
    /// All users run; the window is not open yet.
    WarmUp,
    /// The window is open.
    Measure,
    /// The load has stopped; requests under way end.
    Drain,
}

/// A step at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Live {
    /// What it is doing.
    pub phase: Phase,
    /// Time since the step began.
    pub elapsed: Duration,
    /// Expected length of the step, where it is known.
    pub total: Option<Duration>,
    /// Users started.
    pub users: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Output tokens per second, lately.
    pub tokens_per_s: f64,
    /// Median TTFT so far.
    pub ttft_p50: Option<Duration>,
    /// Requests that succeeded so far.
    pub ok: u64,
    /// Requests that failed so far.
    pub failed: u64,
    /// The newest second that is over, and what it brought.
    pub second: Option<LatestSecond>,
    /// What the server's processes use, where they are in sight.
    pub server: Option<ServerNow>,
    /// How late the client read, at p99 of that second.
    pub read_lag_p99: Option<Duration>,
}

/// What a server uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerNow {
    /// Processors.
    pub cpu_cores: f64,
    /// Resident memory of the process tree.
    pub rss_bytes: u64,
    /// Utilisation of its GPUs, on average.
    pub gpu_pct: Option<f64>,
}

impl Live {
    pub(super) fn text(&self) -> String {
        let phase = match self.phase {
            Phase::Ramp => "ramp",
            Phase::WarmUp => "warm-up",
            Phase::Measure => "measuring",
            Phase::Drain => "drain",
        };
        let ttft = self
            .ttft_p50
            .map_or_else(|| "-".to_owned(), |t| format!("{:.0} ms", t.as_secs_f64() * 1e3));
        let left = self.total.map_or_else(String::new, |total| {
            format!(
                ", {} s left",
                total.saturating_sub(self.elapsed).as_secs_f64().ceil()
            )
        });
        format!(
            "{phase}: {}, {} in flight, {:.0} tok/s, TTFT p50 {ttft}, {} ok, {} failed{left}",
            users(self.users),
            self.in_flight,
            self.tokens_per_s,
            self.ok,
            self.failed
        )
    }

    fn permille(&self) -> Option<u64> {
        let total = self.total.filter(|t| !t.is_zero())?;
        Some((1e3 * self.elapsed.as_secs_f64() / total.as_secs_f64()).min(1e3) as u64)
    }
}

/// A step under way. Its line goes away when it is dropped.
#[derive(Debug)]
pub struct StepProgress {
    line: Line,
    name: String,
}

impl StepProgress {
    /// Shows where the step is. Call it as often as is handy: the display keeps its own pace.
    pub fn update(&self, live: &Live) {
        if let Some(dashboard) = &self.line.dashboard {
            dashboard.tell(|state| state.goes(live));
            return;
        }
        let text = if self.line.bar.is_some() {
            live.text()
        } else {
            format!("{}, {}", self.name, live.text())
        };
        self.line.set(live.permille(), Some(text));
    }
}

/// What the next line says.
#[derive(Debug)]
struct Beat {
    text: String,
    position: u64,
}

/// A thread that writes a line now and then, so that nobody takes a long build for a hang.
#[derive(Debug)]
struct Heartbeat {
    state: Arc<Mutex<Beat>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    fn start(
        text: String,
        total: Option<u64>,
        every: Duration,
        mut out: impl Write + Send + 'static,
    ) -> Heartbeat {
        let _ = writeln!(out, "{text}");
        let state = Arc::new(Mutex::new(Beat { text, position: 0 }));
        let (stop, stopped) = channel::<()>();
        let (shared, started) = (Arc::clone(&state), Instant::now());
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let beat = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = writeln!(out, "{}", beat_line(&beat, total, started.elapsed()));
            }
        });
        Heartbeat {
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn beat_line(beat: &Beat, total: Option<u64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match total {
        None => format!("{} ({seconds} s)", beat.text),
        Some(total) => {
            format!(
                "{}: {} of {} ({seconds} s)",
                beat.text,
                HumanBytes(beat.position),
                HumanBytes(total)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_what_it_does() {
        let live = Live {
            phase: Phase::Measure,
            elapsed: Duration::from_secs(15),
            total: Some(Duration::from_secs(60)),
            users: 64,
            in_flight: 63,
            tokens_per_s: 412.4,
            ttft_p50: Some(Duration::from_millis(182)),
            ok: 120,
            failed: 1,
            second: None,
            server: None,
            read_lag_p99: None,
        };
        let said =
            "measuring: 64 users, 63 in flight, 412 tok/s, TTFT p50 182 ms, 120 ok, 1 failed, 45 s left";
        assert_eq!(live.text(), said);
        assert_eq!(live.permille(), Some(250));
        assert_eq!(Live { total: None, ..live }.permille(), None);
    }

    #[test]
    fn a_heartbeat_names_the_time_and_the_bytes() {
        let beat = Beat {
            text: "building candle".to_owned(),
            position: 3 << 20,
        };
        assert_eq!(
            beat_line(&beat, None, Duration::from_secs(35)),
            "building candle (35 s)"
        );
        let line = beat_line(&beat, Some(12 << 20), Duration::from_secs(5));
        assert_eq!(line, "building candle: 3.00 MiB of 12.00 MiB (5 s)");
    }

    #[test]
    fn quiet_shows_nothing_and_costs_no_thread() {
        let progress = Progress::new(Show::Nothing);
        let task = progress.task("download", Some(10));
        task.position(5);
        assert!(task.0.bar.is_none() && task.0.beat.is_none());
    }
}
