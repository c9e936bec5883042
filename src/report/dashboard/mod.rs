//! The run on a terminal while it goes on: a thread of its own draws what the others tell it, and hears the keys.

mod draw;
mod state;

use std::io::{self, IsTerminal, Stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

pub use state::Overview;
pub(super) use state::State;

/// Time between two pictures: often enough for an eye, seldom enough for a machine that has two processors.
const FRAME: Duration = Duration::from_millis(250);

/// Whether the terminal is ours at present.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while a run has it. Dropped, the terminal is as it was.
#[derive(Debug)]
pub struct Dashboard {
    state: Arc<Mutex<State>>,
    over: Option<Sender<()>>,
    drawer: Option<JoinHandle<()>>,
}

impl Dashboard {
    /// Takes the terminal, where stderr and stdin are one that is large enough. `stop` is called at each `q` or Ctrl-C.
    pub fn start(overview: Overview, stop: impl Fn() + Send + 'static) -> Option<Dashboard> {
        if !(io::stderr().is_terminal() && io::stdin().is_terminal()) {
            return None;
        }
        let (width, height) = ratatui::crossterm::terminal::size().ok()?;
        if width < draw::LEAST_WIDTH || height < draw::LEAST_HEIGHT {
            return None;
        }
        let terminal = take().ok()?;
        let state = Arc::new(Mutex::new(State::new(overview)));
        let (over, ended) = channel::<()>();
        let shared = Arc::clone(&state);
        let drawer = std::thread::spawn(move || {
            let mut terminal = terminal;
            while ended.try_recv() == Err(TryRecvError::Empty) {
                let drawn = {
                    let state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    terminal.draw(|frame| draw::draw(frame, &state, Instant::now()))
                };
                // A terminal that went away must not end the run.
                if drawn.is_err() {
                    break;
                }
                if let Some(asked) = keys(FRAME) {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).say(asked);
                    stop();
                }
            }
            leave();
        });
        Some(Dashboard {
            state,
            over: Some(over),
            drawer: Some(drawer),
        })
    }

    /// Changes what is shown.
    pub(super) fn tell(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.over = None;
        if let Some(drawer) = self.drawer.take() {
            let _ = drawer.join();
        }
        leave();
    }
}

/// Waits so long for a key that asks to stop.
fn keys(time: Duration) -> Option<&'static str> {
    let until = Instant::now() + time;
    while event::poll(until.saturating_duration_since(Instant::now())).unwrap_or(false) {
        let Ok(Event::Key(key)) = event::read() else {
            continue;
        };
        let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if key.kind == KeyEventKind::Press && (key.code == KeyCode::Char('q') || ctrl_c) {
            return Some(
                "stopping: what was measured is saved and reported (q again cuts requests in flight)",
            );
        }
    }
    None
}

fn take() -> io::Result<Terminal<CrosstermBackend<Stderr>>> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::Relaxed);
    execute!(io::stderr(), EnterAlternateScreen).inspect_err(|_| leave())?;
    Terminal::new(CrosstermBackend::new(io::stderr())).inspect_err(|_| leave())
}

/// Gives the terminal back, if it was taken: also what a process calls that must end at once.
pub fn leave() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        // Nothing can be done about a terminal that does not listen.
        let _ = execute!(io::stderr(), LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
