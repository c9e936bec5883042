//! A server process under its [`guard`]: started, watched, stopped.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::{guard, log, orphans};
use crate::telemetry::{self, affinity};

/// Lines of the log that stand in an [`Exit`].
const LOG_LINES: usize = 50;

/// Beyond what the guard may take, before a process that is dropped is left to it.
const DROP_MARGIN: Duration = Duration::from_secs(2);

/// Between two looks at whether a process that is dropped has gone.
const DROP_LOOK: Duration = Duration::from_millis(5);

/// How a server process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Its exit code, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed for want of memory while it ran; none where the system does not tell.
    pub out_of_memory: Option<bool>,
    /// The last 50 lines of its log.
    pub log_tail: String,
    /// When that was heard of: within a tenth of a second.
    #[serde(skip)]
    pub at: Option<Instant>,
}

impl Exit {
    /// Whether it was killed, by us or by others.
    pub fn is_killed(&self) -> bool {
        self.signal == Some(libc::SIGKILL)
    }

    /// What is known of want of memory as the cause, to stand behind the end itself; empty where nothing points at it.
    pub fn memory(&self) -> &'static str {
        match (self.is_killed(), self.out_of_memory) {
            (_, Some(true)) => "; memory ran out while it ran, and the kernel killed for it",
            (true, Some(false)) => {
                "; someone sent the signal: the kernel has killed nothing for want of memory"
            }
            (true, None) => "; the kernel sends that signal when memory runs out: `dmesg` tells",
            (false, _) => "",
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(number)) => {
                let name = nix::sys::signal::Signal::try_from(number);
                write!(
                    f,
                    "{}",
                    name.map_or_else(|_| format!("signal {number}"), |signal| signal.to_string())
                )
            }
            (None, None) => f.write_str("an unknown end: its guard is gone"),
        }
    }
}

/// What to run, and how.
pub(super) struct Launch<'a> {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Variables added to the environment.
    pub env: Vec<(String, String)>,
    /// Where its output goes.
    pub log: &'a Path,
    /// The processors that it may run on; absent for any.
    pub cpus: Option<Vec<usize>>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// The program that has [`guard::main`].
    pub guard: &'a Path,
}

/// A server process. Dropping it ends the server and everything the server started, and waits for that as long as
/// the guard may take.
pub(super) struct Process {
    pid: u32,
    guard_pid: u32,
    socket: UnixStream,
    dead: Arc<AtomicBool>,
    exit: watch::Receiver<Option<Exit>>,
    patience: Duration,
}

impl Process {
    /// Starts the program.
    pub fn start(launch: Launch<'_>) -> std::io::Result<Process> {
        let (socket, theirs) = UnixStream::pair()?;
        let before = Before {
            log: launch.log.to_owned(),
            mark: orphans::mark(),
            oom_kills: telemetry::oom_kills(),
        };
        let mut command = Command::new(launch.guard);
        command
            .arg0("loadtest-guard")
            .arg(guard::SUBCOMMAND)
            .arg(launch.log)
            .arg(launch.grace.as_millis().to_string())
            .args(&launch.argv)
            .envs(launch.env)
            .env(orphans::VARIABLE, &before.mark)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some(cpus) = launch.cpus {
            // SAFETY: the closure makes one system call and allocates nothing, which is allowed between fork and exec.
            unsafe { command.pre_exec(move || affinity::pin(&cpus)) };
        }
        let guard = command.spawn()?;
        let guard_pid = guard.id();
        let (started, starting) = mpsc::sync_channel(1);
        let (ended, exit) = watch::channel(None);
        let lines = BufReader::new(socket.try_clone()?);
        let dead = Arc::<AtomicBool>::default();
        let news = News {
            started,
            dead: dead.clone(),
            ended,
        };
        thread::Builder::new()
            .name("server-watch".into())
            .spawn(move || follow(lines, guard, &before, &news))?;
        match starting.recv() {
            Ok(Ok(pid)) => Ok(Process {
                pid,
                guard_pid,
                socket,
                dead,
                exit,
                patience: launch.grace + guard::KILL_PATIENCE + DROP_MARGIN,
            }),
            Ok(Err(reason)) => Err(std::io::Error::other(reason)),
            Err(_) => Err(std::io::Error::other(
                "the guard process ended before it started the server",
            )),
        }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The guard's process id: all that the server started lives below it.
    pub fn guard_pid(&self) -> u32 {
        self.guard_pid
    }

    /// Whether the server's own process has ended. What it started may still be on its way out.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// How it ended, once all that it started is gone.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        // The sender goes away only after it has sent.
        exit.wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| exit.clone())
            .unwrap_or_default()
    }

    /// Ends it and everything it started: SIGTERM, the grace, SIGKILL. Returns when all of it is gone.
    pub async fn stop(&self) -> Exit {
        // It fails when the guard has gone already, and then the exit is known.
        let _ = (&self.socket).write_all(b"stop\n");
        self.ended().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The reader has a copy of the socket, so closing ours would tell the guard nothing.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
        let deadline = Instant::now() + self.patience;
        while self.exit.borrow().is_none() && Instant::now() < deadline {
            thread::sleep(DROP_LOOK);
        }
    }
}

/// Who is told what the guard tells.
struct News {
    started: mpsc::SyncSender<Result<u32, String>>,
    dead: Arc<AtomicBool>,
    ended: watch::Sender<Option<Exit>>,
}

/// What is known before the start.
struct Before {
    log: PathBuf,
    /// What marks the server and all that it starts.
    mark: String,
    /// The kernel's kills for want of memory.
    oom_kills: Option<u64>,
}

/// Reads what the guard tells until it ends. Does its work where it was killed before the server's end.
fn follow(lines: BufReader<UnixStream>, mut guard: Child, before: &Before, news: &News) {
    let mut server = None;
    let mut exit = Exit::default();
    let died = |exit: &mut Exit| {
        exit.at = Some(Instant::now());
        exit.out_of_memory = risen(before.oom_kills, telemetry::oom_kills());
        news.dead.store(true, Ordering::Relaxed);
    };
    for line in lines.lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("started", pid)) => {
                server = pid.parse().ok();
                let _ = news.started.send(server.ok_or_else(|| line.clone()));
            }
            Some(("exited", code)) => {
                exit.code = code.parse().ok();
                died(&mut exit);
            }
            Some(("killed", number)) => {
                exit.signal = number.parse().ok();
                died(&mut exit);
            }
            // After `started` nobody listens any more.
            Some(("failed", reason)) => drop(news.started.try_send(Err(reason.to_owned()))),
            _ => {}
        }
    }
    let was_killed = guard.wait().is_ok_and(|status| status.signal().is_some());
    if exit.at.is_none() {
        died(&mut exit);
        orphans::kill_all(server, &before.mark);
    } else if was_killed {
        // The server's end was seen, so that its process id may be another's by now.
        orphans::kill_all(None, &before.mark);
    }
    exit.log_tail = log::tail(&before.log, LOG_LINES);
    news.ended.send_replace(Some(exit));
}

/// Whether a count that is known at both times went up.
fn risen(before: Option<u64>, now: Option<u64>) -> Option<bool> {
    Some(now? > before?)
}

/// This very program, to be run again as guard, even if its file was replaced since it started.
pub fn this_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    match std::env::current_exe() {
        Ok(program) if !running.exists() => program,
        _ => running.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_told_from_a_signal_of_someones() {
        let end = |signal, before, now| Exit {
            signal,
            out_of_memory: risen(before, now),
            ..Exit::default()
        };
        let killed = Some(libc::SIGKILL);
        assert!(end(killed, Some(3), Some(4)).memory().contains("memory ran out"));
        assert!(end(killed, Some(4), Some(4)).memory().contains("someone sent"));
        assert!(end(killed, None, Some(4)).memory().contains("dmesg"));
        // What the server started may have been killed in its place.
        assert!(end(None, Some(3), Some(4)).memory().contains("memory ran out"));
        assert_eq!(end(None, Some(4), Some(4)).memory(), "");
    }
}
