//! Servers that misbehave while they are measured: the run says what happened, goes on, and leaves nothing running.
#![cfg(target_os = "linux")]

#[path = "support/processes.rs"]
mod processes;
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use processes::{alive, until};
use serde_json::Value;
use support::{House, reference_program, stderr};

/// A house with the engines `hostile`, which misbehaves in these ways, and `fine`.
struct Scene {
    house: House,
    model: PathBuf,
    pids: PathBuf,
}

impl Scene {
    fn new(modes: &str) -> Scene {
        let house = House::new();
        let (model, pids) = (house.tiny_model(), house.dir.path().join("pids"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/hostile.py");
        let reference = reference_program().display().to_string();
        let serving = "\"--port\", \"{port}\", \"--model-name\", \"{model_name}\", \"--ttft-ms\", \"50\"";
        let recipe = |name: &str, program: &str, args: &str| {
            format!(
                "name = {name:?}\ntitle = {name:?}\nkind = \"spawned\"\ndescription = \"x\"\nformats = [\"gguf\"]\n\
                 [find]\nprograms = [{program:?}]\n[serve]\nargs = [{args}]\n\
                 [ready]\npath = \"/health\"\nstop_grace_s = 1\n[metrics]\npath = \"/metrics\"\n"
            )
        };
        let misbehaving = format!("{script:?}, {modes:?}, {pids:?}, {reference:?}, {serving}");
        let hostile = recipe("hostile", "python3", &misbehaving);
        let fine = recipe("fine", &reference, serving);
        house.engine("hostile", &hostile);
        house.engine("fine", &fine);
        Scene { house, model, pids }
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = self.house.command();
        command
            .arg("--model")
            .arg(&self.model)
            .args([
                "--users", "2", "--osl", "5", "--isl", "40", "--warmup", "0s", "--ramp", "0s",
            ])
            .args(["--no-calibrate", "--format", "json", "--no-progress"])
            .args(more);
        command
    }

    /// Runs it to its end.
    fn run(&self, more: &[&str]) -> (Option<i32>, Value, String) {
        let output = self.command(more).output().expect("loadtest starts");
        let summary = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
        (output.status.code(), summary, stderr(&output))
    }

    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(&self.pids).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn left(&self) -> Vec<u32> {
        self.pids().into_iter().filter(|pid| alive(*pid)).collect()
    }

    fn assert_all_gone(&self, count: usize) {
        assert_eq!(self.pids().len(), count);
        assert_eq!(self.left(), Vec::<u32>::new(), "left running");
    }

    /// Whether a request has been written down.
    fn is_measuring(&self) -> bool {
        let runs = fs::read_dir(self.house.dir.path().join("results"));
        runs.into_iter()
            .flatten()
            .flatten()
            .filter_map(|run| fs::metadata(run.path().join("requests.jsonl")).ok())
            .any(|file| file.len() > 0)
    }
}

#[test]
fn one_that_is_killed_under_load_is_a_result_and_the_next_has_its_turn() {
    let scene = Scene::new("is-killed+forks");
    let (code, run, _) = scene.run(&["--engine", "hostile,fine", "--num-prompts", "100"]);
    assert_eq!(code, Some(1), "{run:#}");
    let engine = &run["engines"][0];
    let failure = &engine["failure"];
    assert_eq!(
        (&engine["exit"], &failure["exit"]),
        (&"SIGKILL".into(), &"SIGKILL".into())
    );
    assert_eq!(failure["step"], 0);
    assert!(failure["at_s"].as_f64() > Some(0.0), "{failure:#}");
    let tail = failure["log_tail"].as_array().expect("lines");
    assert_eq!(tail.last(), Some(&"last words".into()));
    let step = &run["steps"][0];
    let lost = failure["requests_lost"].as_u64().expect("a count");
    assert!(
        lost > 0 && Some(lost) <= step["requests_all"]["failed"].as_u64(),
        "{run:#}"
    );
    assert_eq!(run["steps"][1]["engine"], "fine");
    assert_eq!(run["steps"][1]["requests"]["ok"], 100);
    scene.assert_all_gone(5);

    let report = scene.house.run(&["report", "last"]);
    let text = String::from_utf8_lossy(&report.stdout);
    let wanted = format!("under 2 users; it took {lost} request");
    assert!(
        text.contains("hostile died during the run, SIGKILL, ") && text.contains(&wanted),
        "{text}"
    );
    assert!(
        text.contains("| last words") && text.contains("engine-hostile.log"),
        "{text}"
    );
}

/// The kernel's killer for want of memory comes while a model is loaded, more often than not.
#[test]
fn one_that_is_killed_while_it_loads_has_a_word_on_memory() {
    let scene = Scene::new("is-killed-loading");
    let (code, run, _) = scene.run(&["--engine", "hostile,fine", "--num-prompts", "2"]);
    assert_eq!(code, Some(1), "{run:#}");
    let failure = &run["engines"][0]["failure"];
    let message = failure["message"].as_str().expect("words");
    assert!(
        message.contains("died while loading, SIGKILL; ") && message.contains("memory"),
        "{message}"
    );
    assert_eq!(failure["exit"], "SIGKILL");
    scene.assert_all_gone(1);
}

#[test]
fn one_whose_guard_is_killed_leaves_nothing_either() {
    let scene = Scene::new("ignores-sigterm+forks");
    let process = scene
        .command(&["--engine", "hostile", "--duration", "10m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadtest starts");
    until("a request", || scene.is_measuring());
    assert_eq!(scene.left().len(), 5);
    let server = scene.pids()[0].cast_signed();
    let guard = procfs::process::Process::new(server).and_then(|server| server.stat());
    let guard = nix::unistd::Pid::from_raw(guard.expect("it runs").ppid);
    nix::sys::signal::kill(guard, Signal::SIGKILL).expect("it runs");
    let output = process.wait_with_output().expect("it ends");
    scene.assert_all_gone(5);
    assert_eq!(output.status.code(), Some(1));
    let run: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    let message = run["engines"][0]["failure"]["message"].as_str().expect("words");
    assert!(
        message.contains("died during the run") && message.contains("its guard is gone"),
        "{message}"
    );
}

#[test]
fn one_that_ignores_sigterm_is_killed_and_that_is_said() {
    let scene = Scene::new("ignores-sigterm");
    let (code, run, _) = scene.run(&["--engine", "hostile", "--num-prompts", "4"]);
    assert_eq!(code, Some(0), "{run:#}");
    assert_eq!(run["engines"][0]["exit"], "stopped by SIGKILL");
    let notes = run["notes"].to_string();
    assert!(
        notes.contains("hostile was still there 1 s after SIGTERM"),
        "{notes}"
    );
    scene.assert_all_gone(2);
}

#[test]
fn what_it_forks_is_watched_and_goes_with_it() {
    let scene = Scene::new("forks");
    let (code, run, _) = scene.run(&["--engine", "hostile", "--duration", "1s"]);
    assert_eq!(code, Some(0), "{run:#}");
    let server = &run["steps"][0]["server"];
    assert!(server["threads_peak"].as_u64() >= Some(5), "{server:#}");
    assert!(server["rss_peak_bytes"].as_u64() <= server["rss_high_water_bytes"].as_u64());
    assert!(server["cpu_s"].as_f64().is_some() && server["minor_faults"].as_u64().is_some());
    let load = &run["engines"][0]["loads"][0];
    let parts = load["ready_s"].as_f64().zip(load["first_token_s"].as_f64());
    let (ready, first_token) = parts.expect("both parts");
    let total = run["engines"][0]["load_s"].as_f64().expect("a number");
    assert!(
        (ready + first_token - total).abs() < 1e-6 && ready > 0.0,
        "{load:#}"
    );
    scene.assert_all_gone(5);
    let dir = scene.house.run_dir();
    let timeline = fs::read_to_string(dir.join("timeline.csv")).expect("the timeline");
    assert!(
        timeline
            .lines()
            .next()
            .expect("a head")
            .contains("server_threads,server_minor_faults")
    );
    let pages = fs::File::open(dir.join("metrics-hostile.txt.gz")).expect("its metrics were kept");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(pages), &mut text).expect("gzip");
    assert!(
        text.starts_with("# loadtest: step 0, ") && text.contains("loadtest_requests_running"),
        "{text}"
    );
}

#[test]
fn one_that_floods_its_log_is_measured_and_the_disk_is_not_filled() {
    let scene = Scene::new("floods");
    let (code, run, _) = scene.run(&["--engine", "hostile", "--duration", "2s"]);
    assert_eq!(code, Some(0), "{run:#}");
    assert_eq!(run["steps"][0]["requests_all"]["failed"], 0, "{run:#}");
    scene.assert_all_gone(2);
    let log = fs::read(scene.house.run_dir().join("engine-hostile.log")).expect("the log");
    assert!(log.len() < 20 << 20, "{} bytes", log.len());
    let text = String::from_utf8_lossy(&log);
    assert!(text.starts_with("first words\n"));
    assert!(text.contains("[loadtest left out "), "the flood was no flood");
}

#[test]
fn one_that_loads_too_long_is_given_up_and_the_flag_is_named() {
    let scene = Scene::new("loads-long+ignores-sigterm+forks");
    let flags = [
        "--engine",
        "hostile,fine",
        "--num-prompts",
        "2",
        "--load-timeout",
        "2s",
    ];
    let (code, run, told) = scene.run(&flags);
    assert_eq!(code, Some(1), "{run:#}");
    let failure = &run["engines"][0]["failure"];
    let message = failure["message"].as_str().expect("words");
    assert!(
        message.contains("did not answer within 2 s") && message.contains("--load-timeout"),
        "{message}"
    );
    assert!(
        failure["log_tail"]
            .to_string()
            .contains("loading shard 3 of 6000"),
        "{failure:#}"
    );
    assert!(told.contains("hostile: loading, at most 2 s"), "{told}");
    assert_eq!(run["steps"][0]["engine"], "fine");
    scene.assert_all_gone(4);
}

fn tell(process: &Child, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(process.id().cast_signed());
    nix::sys::signal::kill(pid, signal).expect("it runs");
}

#[test]
fn an_interrupt_while_it_loads_ends_all_of_it() {
    let scene = Scene::new("loads-long+ignores-sigterm+forks");
    let mut process = scene
        .command(&["--engine", "hostile", "--duration", "10m"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("loadtest starts");
    until("the server's start", || scene.pids().len() == 4);
    tell(&process, Signal::SIGINT);
    let lines = BufReader::new(process.stderr.take().expect("piped")).lines();
    let told: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(process.wait().expect("it ends").code(), Some(130), "{told:?}");
    // Not even for a moment: the next run may want the same port and the same memory.
    scene.assert_all_gone(4);
    assert!(told.iter().any(|line| line.contains("interrupted")), "{told:?}");
}

/// Nobody at a terminal sends the signal to cargo too.
#[test]
fn a_build_is_ended_by_what_ends_loadtest_and_what_was_measured_is_saved() {
    let scene = Scene::new("fine");
    scene.house.engine(
        "built",
        "name = \"built\"\ntitle = \"built\"\nkind = \"embedded\"\ndescription = \"x\"\nformats = [\"gguf\"]\n\
         [build]\nmanifest = \"engine.toml\"\nbinary = \"built\"\ntakes = \"for ever\"\n\
         [serve]\nargs = [\"{port}\"]\n[ready]\npath = \"/health\"\n",
    );
    let process = scene
        .command(&["--engine", "fine,built", "--num-prompts", "4"])
        .env(
            "CARGO",
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/endless-cargo"),
        )
        .env("PIDS", &scene.pids)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadtest starts");
    until("the build", || scene.pids().len() == 2);
    tell(&process, Signal::SIGTERM);
    let output = process.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    scene.assert_all_gone(2);
    let run: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert_eq!(
        (&run["status"], &run["steps"][0]["engine"]),
        (&"interrupted".into(), &"fine".into())
    );
}

#[test]
fn it_does_not_outlive_a_loadtest_that_is_killed() {
    let scene = Scene::new("ignores-sigterm+forks");
    let mut process = scene
        .command(&["--engine", "hostile", "--duration", "10m"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadtest starts");
    until("a request", || scene.is_measuring());
    assert_eq!(scene.left().len(), 5);
    process.kill().expect("it runs");
    process.wait().expect("it ends");
    until("the end of all processes", || scene.left().is_empty());
}
