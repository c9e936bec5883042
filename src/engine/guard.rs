//! The guard: a small process between `loadtest` and a server, which outlives `loadtest` by as long as it takes to
//! end the server and everything the server started, however `loadtest` itself ended.
//!
//! `loadtest` runs itself again as `loadtest __guard LOG GRACE_MS PROGRAM ARG...`, with one end of a socket as standard
//! input. The guard starts the program in a process group of its own, copies its output into the log, and writes what
//! happens to the socket, a line each: `started PID`, then `exited CODE` or `killed SIGNAL`, or `failed REASON`. It
//! ends when all that the server started is gone too. The line `stop` asks it to end the server; so does the end of the
//! stream, which is how the death of `loadtest` looks, be it by SIGKILL. As child subreaper (Linux) it also inherits
//! what the server's descendants detach. Where the guard itself is killed, `loadtest` ends what is
//! left.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, kill, killpg, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::log::BoundedLog;

/// The hidden subcommand: `main` hands what follows it to [`main`].
pub const SUBCOMMAND: &str = "__guard";

/// How often the guard looks for children that ended.
const REAP_EVERY: Duration = Duration::from_millis(50);

/// How long processes that were sent SIGKILL may take to go.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Signals meant for `loadtest` that must not end the guard before the server.
const IGNORED: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Runs the guard with the arguments after [`SUBCOMMAND`]: log file, grace in milliseconds, program, its arguments.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(log), Some(grace), Some(program)) = (args.next(), args.next(), args.next()) else {
        eprintln!("the guard is for loadtest's own use");
        return ExitCode::from(2);
    };
    let grace = Duration::from_millis(grace.to_str().and_then(|ms| ms.parse().ok()).unwrap_or(0));
    let Ok(socket) = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
    else {
        return ExitCode::FAILURE;
    };
    let failed = match guard(&socket, Path::new(&log), grace, (program, args.collect())) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => "to learn how the server ended".to_owned(),
        Err(error) => error.to_string(),
    };
    // Nobody may be left to read it.
    let _ = writeln!(&socket, "failed {failed}");
    ExitCode::SUCCESS
}

/// How the server's own process ended.
#[derive(Clone, Copy)]
struct End {
    value: i32,
    signalled: bool,
}

impl End {
    /// Tells it, if anyone is left to read it.
    fn tell(self, mut socket: &UnixStream) {
        let what = if self.signalled { "killed" } else { "exited" };
        let _ = writeln!(socket, "{what} {}", self.value);
    }
}

/// Returns whether it could tell how the server ended.
fn guard(
    mut socket: &UnixStream,
    log: &Path,
    grace: Duration,
    (program, args): (OsString, Vec<OsString>),
) -> std::io::Result<bool> {
    for number in IGNORED {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;

    let (output, writer) = std::io::pipe()?;
    let mut log = BoundedLog::create(log)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let server = spawn(&mut command)?;
    // It holds the pipe's writing end, and the log is to end with the last process that writes to it.
    drop(command);
    let server_pid = Pid::from_raw(server.id().cast_signed());
    writeln!(socket, "started {server_pid}")?;
    let logging = thread::spawn(move || copy(output, &mut log));
    let stop = stop_requests(socket.try_clone()?);

    let mut end = None;
    wait_for_end(server_pid, &stop, None, &mut end);
    if end.is_none() {
        // Both fail only when nothing is left to be signalled.
        let _ = killpg(server_pid, Signal::SIGTERM);
        wait_for_end(server_pid, &stop, Some(Instant::now() + grace), &mut end);
    }
    // What the server started may take a while to go; its own end is news at once.
    let told = end;
    if let Some(end) = told {
        end.tell(socket);
    }
    let clean = sweep(server_pid, &mut end);
    if let (None, Some(end)) = (told, end) {
        end.tell(socket);
    }
    // A process that withstood SIGKILL still holds the pipe: don't wait for the end of its output.
    if clean {
        let _ = logging.join();
    }
    Ok(end.is_some())
}

/// Starts the server so that it dies with the guard, and with the signals that the guard ignores set back.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    // SAFETY: the closure makes system calls only (signal, prctl), which are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            for number in IGNORED {
                signal(number, SigHandler::SigDfl)?;
            }
            // Sent when the thread that forked ends: the guard's main thread, which lives as long as the guard.
            #[cfg(target_os = "linux")]
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    command.spawn()
}

/// A channel that tells when to stop: on the line `stop`, and when the other end of the socket is gone.
fn stop_requests(socket: UnixStream) -> Receiver<()> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(socket).lines().map_while(Result::ok);
        let _ = lines.find(|line| line == "stop");
        // The guard may have moved on already.
        let _ = sender.send(());
    });
    receiver
}

/// Reaps children until the server has ended. Without a `deadline` a request to stop ends the wait too.
fn wait_for_end(server: Pid, stop: &Receiver<()>, deadline: Option<Instant>, end: &mut Option<End>) {
    loop {
        reap(server, end);
        let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if end.is_some() || over {
            return;
        }
        match deadline {
            Some(_) => thread::sleep(REAP_EVERY),
            None if stop.recv_timeout(REAP_EVERY) == Err(RecvTimeoutError::Timeout) => {}
            None => return,
        }
    }
}

/// Takes note of every child that has ended, adopted ones too.
fn reap(server: Pid, end: &mut Option<End>) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, value)) if pid == server => {
                *end = Some(End {
                    value,
                    signalled: false,
                })
            }
            Ok(WaitStatus::Signaled(pid, number, _)) if pid == server => {
                *end = Some(End {
                    value: number as i32,
                    signalled: true,
                });
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Kills whatever is left of the server until nothing is; false if something withstood it.
fn sweep(server: Pid, end: &mut Option<End>) -> bool {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        // Fails only when the group is empty.
        let _ = killpg(server, Signal::SIGKILL);
        let left = descendants();
        for pid in &left {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        reap(server, end);
        if left.is_empty() && end.is_some() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// All processes below the guard that still run.
#[cfg(target_os = "linux")]
fn descendants() -> Vec<Pid> {
    let ours = std::process::id().cast_signed();
    crate::telemetry::below(ours)
        .iter()
        .filter(|stat| stat.state != 'Z')
        .map(|stat| Pid::from_raw(stat.pid))
        .collect()
}

/// Unknown here: the process group alone is killed.
#[cfg(not(target_os = "linux"))]
fn descendants() -> Vec<Pid> {
    Vec::new()
}

/// Copies the server's output into the log until nobody writes to it any more.
fn copy(mut output: PipeReader, log: &mut BoundedLog) {
    // A full disk must not end a run: the output is read on, so that the server is not blocked.
    let mut kept = std::io::copy(&mut output, log).is_ok();
    kept &= log.finish().is_ok();
    if !kept {
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    }
}
