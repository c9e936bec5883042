//! Building an engine's server with cargo, in a source checkout.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::recipe::{Build, Recipe};
use super::{EngineError, Program, Progress, catalogue};

/// At most this long between two words about the progress.
const SPEAK_EVERY: Duration = Duration::from_secs(1);

/// A command that is to stop may take so long to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Lines of a failed command's output that its error shows.
pub(super) const TAIL_LINES: usize = 30;

/// The manifest of the engine's package, where there is one on this machine.
pub(super) fn package(recipe: &Recipe) -> Option<PathBuf> {
    let manifest = &recipe.build.as_ref()?.manifest;
    let folder = recipe
        .dir
        .clone()
        .or_else(|| Some(catalogue::checkout()?.join("servers").join(&recipe.name)))?;
    Some(folder.join(manifest)).filter(|path| path.is_file())
}

/// A binary that was built or shipped before: beside this program, or in the checkout's release folder.
pub(super) fn built(binary: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.to_owned()));
    let release = catalogue::checkout().map(|root| target_dir(&root).join("release"));
    beside
        .into_iter()
        .chain(release)
        .map(|dir| dir.join(binary))
        .find(|path| path.is_file())
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// Lets cargo bring the engine's binary up to date, for a device if one is named.
pub(super) fn build(
    recipe: &Recipe,
    how: &Build,
    manifest: &Path,
    device: Option<&str>,
    progress: &dyn Progress,
) -> Result<Program, EngineError> {
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let target = target_dir(&catalogue::checkout().unwrap_or_else(|| folder.to_owned()));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--release",
        "--message-format",
        "json-render-diagnostics",
        "--bin",
        &how.binary,
    ]);
    command
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target);
    let features = features(how, device);
    if !features.is_empty() {
        command.arg("--features").arg(features.join(","));
    }
    // Cargo reads its configuration from the folder it runs in: the engine's own goes with the engine.
    command.current_dir(folder).envs(&how.env);
    command
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "120");
    let what = format!("building {}", recipe.title);
    // Later builds compile what has changed, but a device's code is its own.
    match device.filter(|_| features.len() > how.features.len()) {
        _ if !target.join("release").join(&how.binary).is_file() => {
            progress.note(&format!("{what}, once: {}", how.takes));
        }
        Some(device) => progress.note(&format!(
            "{what} for {device}: {}, unless it was built for that before",
            how.takes
        )),
        None => {}
    }
    let output = watched(&recipe.name, &what, &mut command, cargo_status, progress)?;
    executable(&output, &how.binary)
        .map(Program::at)
        .ok_or_else(|| EngineError::Command {
            engine: recipe.name.clone(),
            command: shown(&command),
            tail: format!("cargo made no binary called {}", how.binary),
        })
}

/// What cargo is to switch on. A device is `cuda` or the like, or one of several, `cuda:1`.
fn features<'a>(how: &'a Build, device: Option<&str>) -> Vec<&'a str> {
    let kind = device.and_then(|device| device.split(':').next());
    let of_device = how.device_features.iter().filter(|feature| kind == Some(feature));
    how.features.iter().chain(of_device).map(String::as_str).collect()
}

/// Where cargo's JSON messages say that `binary` is.
fn executable(messages: &str, binary: &str) -> Option<PathBuf> {
    let message = |line| serde_json::from_str::<serde_json::Value>(line).ok();
    let of_binary =
        |message: &serde_json::Value| message.pointer("/target/name").is_some_and(|name| name == binary);
    let path = |message: serde_json::Value| message.get("executable")?.as_str().map(PathBuf::from);
    messages
        .lines()
        .filter_map(message)
        .filter(of_binary)
        .filter_map(path)
        .next_back()
}

/// Turns a line of cargo's stderr into a few words, if it tells of progress.
fn cargo_status(line: &str) -> Option<String> {
    let plain = strip_escapes(line);
    let (verb, rest) = plain.trim().split_once(' ')?;
    match verb {
        "Building" => {
            // Building [====>    ] 12/345: serde, libc
            let (_, count) = rest.split_once("] ")?;
            let (count, crates) = count.split_once(": ").unwrap_or((count, ""));
            Some(
                format!("compiling {} {}", count.trim(), crates.trim())
                    .trim_end()
                    .to_owned(),
            )
        }
        "Compiling" | "Downloading" | "Downloaded" | "Updating" | "Locking" | "Fetching" | "Blocking" => {
            Some(plain.trim().to_lowercase())
        }
        _ => None,
    }
}

/// Leaves out the terminal's colour and cursor sequences.
fn strip_escapes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // A control sequence ends with its first letter.
            let _ = rest.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Runs a command that may take minutes. What `status` makes of its lines is told at least every second, with the time
/// gone by; other lines stand in the error if it fails. It ends, and all that it started, when the user asks to stop.
/// Returns its standard output.
pub(super) fn watched(
    engine: &str,
    what: &str,
    command: &mut Command,
    status: impl Fn(&str) -> Option<String> + Sync,
    progress: &dyn Progress,
) -> Result<String, EngineError> {
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = spawned.map_err(EngineError::io(format!(
        "cannot run `{}` for {engine}",
        shown(command)
    )))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let started = Instant::now();
    let step = Mutex::new(String::new());
    let tail = Mutex::new(VecDeque::new());
    let note = |line: &str| match status(line) {
        Some(words) => *lock(&step) = words,
        None if line.trim().is_empty() => {}
        None => {
            let mut tail = lock(&tail);
            tail.push_back(line.to_owned());
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
        }
    };
    let (ended, output) = thread::scope(|scope| {
        let errors = scope.spawn(|| stderr.map(|pipe| each_line(pipe, &note)));
        let output = scope.spawn(|| {
            let mut all = String::new();
            if let Some(pipe) = stdout {
                each_line(pipe, |line| {
                    note(if line.starts_with('{') { "" } else { line });
                    all.push_str(line);
                    all.push('\n');
                });
            }
            all
        });
        let (mut said, mut stopping) = (None::<Instant>, None::<Instant>);
        // Both readers end with the command, whose end its own `wait` tells last.
        while !(errors.is_finished() && output.is_finished()) {
            if said.is_none_or(|at| at.elapsed() >= SPEAK_EVERY) {
                let step = lock(&step).clone();
                let between = if step.is_empty() { "" } else { ": " };
                progress.status(&format!(
                    "{what}{between}{step} ({} s)",
                    started.elapsed().as_secs()
                ));
                said = Some(Instant::now());
            }
            if progress.stopped() {
                end(&child, stopping.get_or_insert_with(Instant::now).elapsed());
            }
            thread::sleep(Duration::from_millis(20));
        }
        (child.wait(), output.join().unwrap_or_default())
    });
    let ended = ended.map_err(EngineError::io(format!("cannot wait for `{}`", shown(command))))?;
    if ended.success() {
        return Ok(output);
    }
    if progress.stopped() {
        return Err(EngineError::Interrupted);
    }
    let tail = Vec::from(std::mem::take(&mut *lock(&tail))).join("\n");
    Err(EngineError::Command {
        engine: engine.into(),
        command: shown(command),
        tail,
    })
}

/// Tells a command and all that it started to end, by SIGKILL once it was told for long.
fn end(leader: &Child, told: Duration) {
    let signal = if told < STOP_PATIENCE {
        Signal::SIGTERM
    } else {
        Signal::SIGKILL
    };
    // It fails only when nothing is left of them.
    let _ = killpg(Pid::from_raw(leader.id().cast_signed()), signal);
}

/// The value behind a lock that no holder leaves half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Hands on each line; a carriage return ends one too, as progress bars use it.
fn each_line(pipe: impl Read, mut line: impl FnMut(&str)) {
    let mut pending = Vec::new();
    for byte in BufReader::new(pipe).bytes().map_while(Result::ok) {
        if byte == b'\n' || byte == b'\r' {
            line(&String::from_utf8_lossy(&pending));
            pending.clear();
        } else {
            pending.push(byte);
        }
    }
    line(&String::from_utf8_lossy(&pending));
}

/// A command as one would type it, short.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_out_of_what_cargo_says() {
        let bar = "\u{1b}[K\u{1b}[1m\u{1b}[36m    Building\u{1b}[0m [=====>     ] 12/345: serde, libc(build)";
        assert_eq!(cargo_status(bar).unwrap(), "compiling 12/345 serde, libc(build)");
        assert_eq!(
            cargo_status("   Compiling libc v0.2.1").unwrap(),
            "compiling libc v0.2.1"
        );
        assert_eq!(cargo_status("error[E0308]: mismatched types"), None);
    }

    #[test]
    fn a_device_is_built_for() {
        let how = Build {
            manifest: "Cargo.toml".into(),
            binary: "x".into(),
            features: vec!["own".into()],
            device_features: vec!["cuda".into(), "metal".into()],
            env: Default::default(),
            takes: String::new(),
        };
        assert_eq!(features(&how, None), ["own"]);
        assert_eq!(features(&how, Some("cpu")), ["own"]);
        assert_eq!(features(&how, Some("cuda:1")), ["own", "cuda"]);
    }

    #[test]
    fn what_recipes_want_switched_on_their_packages_have() {
        let mut devices = 0;
        for recipe in catalogue::recipes().unwrap() {
            let Some(manifest) = package(&recipe) else {
                continue;
            };
            let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
            for feature in &recipe.build.as_ref().unwrap().device_features {
                assert!(
                    manifest["features"].get(feature).is_some(),
                    "{}: {feature}",
                    recipe.name
                );
                devices += 1;
            }
        }
        assert!(devices > 0);
    }

    #[test]
    fn the_binary_is_where_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/a/other"}
{"reason":"compiler-artifact","target":{"name":"server"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"server"},"executable":"/a/server"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "server").unwrap(), Path::new("/a/server"));
        assert_eq!(executable(messages, "none"), None);
    }

    #[test]
    fn a_failed_command_shows_the_end_of_what_it_said() {
        let said = Mutex::new(Vec::new());
        let progress = |status: &str| said.lock().unwrap().push(status.to_owned());
        let script = "echo '   Compiling a v1' >&2; echo 'error: no such thing' >&2; exit 3";
        let error = watched(
            "x",
            "building x",
            Command::new("sh").args(["-c", script]),
            cargo_status,
            &progress,
        );
        let Err(EngineError::Command { tail, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(tail, "error: no such thing");
        assert!(!said.lock().unwrap().is_empty());
    }

    /// Asks to stop as soon as the command has said what it is at.
    struct Impatient(Mutex<String>);

    impl Progress for Impatient {
        fn status(&self, message: &str) {
            *self.0.lock().unwrap() = message.to_owned();
        }

        fn stopped(&self) -> bool {
            self.0.lock().unwrap().contains("compiling")
        }
    }

    #[test]
    fn a_command_ends_with_all_that_it_started_when_the_user_asks_to_stop() {
        let script = "sleep 600 & echo '   Compiling a v1' >&2; wait";
        let ended = watched(
            "x",
            "building x",
            Command::new("sh").args(["-c", script]),
            cargo_status,
            &Impatient(Mutex::default()),
        );
        // It returns at all: what sleeps holds the pipes that are read to their ends.
        assert!(matches!(ended, Err(EngineError::Interrupted)), "{ended:?}");
    }
}
