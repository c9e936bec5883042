//! Servers that behave and servers that don't: what is said about each, and that none is left running.
#![cfg(target_os = "linux")]

#[path = "support/processes.rs"]
mod processes;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use loadtest::engine::{self, Access, EngineError, Program, Recipe, Running, Settings};
use loadtest::telemetry::Root;
use processes::{PATIENCE, alive, until};

const RECIPE: &str = r#"
name = "stand-in"
title = "a stand-in"
kind = "spawned"
description = "a script"
[find]
programs = ["python3"]
[serve]
args = ["{port}", "PIDS"]
[ready]
path = "/health"
stop_grace_s = 1
[effective]
path = "/props"
parallel = "/slots"
context = "/model/context"
"#;

/// A stand-in of one kind in a folder of its own.
struct StandIn {
    dir: tempfile::TempDir,
    recipe: Recipe,
    program: Program,
}

impl StandIn {
    fn new(mode: &str) -> StandIn {
        let dir = tempfile::tempdir().unwrap();
        let text = RECIPE.replace("PIDS", pids_file(dir.path()).to_str().unwrap());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/server.py");
        let mut program = Program::at("python3");
        program.argv.extend([script.into(), mode.into()]);
        StandIn {
            recipe: Recipe::parse(&text, "engine.toml", None).unwrap(),
            program,
            dir,
        }
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new("model.gguf", "m", self.dir.path().join("engine.log"));
        settings.guard = env!("CARGO_BIN_EXE_loadtest").into();
        settings.ready_timeout = Some(PATIENCE);
        settings
    }

    async fn start_with(&self, settings: &Settings) -> Result<Running, EngineError> {
        engine::start(&self.recipe, &self.program, settings, &|_: &str| {}).await
    }

    async fn start(&self) -> Result<Running, EngineError> {
        self.start_with(&self.settings()).await
    }

    /// The processes that the stand-in said it is or started.
    fn pids(&self) -> Vec<u32> {
        read_pids(self.dir.path())
    }

    fn assert_all_gone(&self, count: usize) {
        let pids = self.pids();
        assert_eq!(pids.len(), count);
        assert!(pids.iter().all(|pid| !alive(*pid)), "left running: {pids:?}");
    }
}

fn pids_file(dir: &Path) -> PathBuf {
    dir.join("pids")
}

fn read_pids(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(pids_file(dir)).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_server_is_ready_tells_its_settings_and_stops() {
    let stand_in = StandIn::new("behaves");
    let running = stand_in.start().await.unwrap();
    assert!(running.base_url().starts_with("http://127.0.0.1:"));
    assert_eq!(
        (running.effective().parallel, running.effective().context),
        (Some(3), Some(512))
    );
    let load = running.load().unwrap();
    assert!(load.ready.unwrap() > Duration::ZERO && load.first_token > load.ready.unwrap());
    assert!(running.exit().is_none() && !running.is_dead());
    let usage = running.processes().unwrap().usage(1).unwrap();
    assert!(usage.rss_bytes > 1 << 20 && usage.threads >= 1);
    assert_eq!(running.pid(), stand_in.pids().first().copied());
    let exit = running.stop().await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(15)));
    assert!(exit.log_tail.contains("stand-in behaves"));
    stand_in.assert_all_gone(1);
}

#[tokio::test]
async fn one_that_dies_while_loading_is_said_to_have_with_its_log() {
    let stand_in = StandIn::new("dies");
    let message = stand_in.start().await.err().unwrap().to_string();
    assert!(message.contains("died while loading, exit code 7"), "{message}");
    assert!(message.contains("cannot load: file is cut short"), "{message}");
    stand_in.assert_all_gone(1);
}

#[tokio::test]
async fn one_that_never_gets_ready_is_given_up_and_killed() {
    let stand_in = StandIn::new("never-ready");
    let mut settings = stand_in.settings();
    settings.ready_timeout = Some(Duration::from_secs(3));
    let message = stand_in.start_with(&settings).await.err().unwrap().to_string();
    assert!(message.contains("did not answer within 3 s"), "{message}");
    stand_in.pids().iter().for_each(|pid| assert!(!alive(*pid)));
}

#[tokio::test]
async fn what_it_is_told_once_it_is_up_and_never_ends_is_named() {
    let mut stand_in = StandIn::new("behaves");
    let pids = stand_in.recipe.serve.args[1].clone();
    stand_in.recipe.serve.prepare = vec![vec!["{port}".into(), pids, "prepares".into()]];
    let mut settings = stand_in.settings();
    settings.ready_timeout = Some(Duration::from_secs(20));
    let message = stand_in.start_with(&settings).await.err().unwrap().to_string();
    let (before, after) = message.split_once(" has not ended").expect("a reason");
    assert!(
        before.contains("did not answer within 20 s: `python3 ") && before.ends_with(" prepares`"),
        "{message}"
    );
    assert!(after.contains("--load-timeout"), "{message}");
    until("the end of both processes", || {
        stand_in.pids().iter().all(|pid| !alive(*pid))
    });
}

#[tokio::test]
async fn one_that_refuses_is_not_waited_for() {
    let stand_in = StandIn::new("refuses");
    let message = stand_in.start().await.err().unwrap().to_string();
    assert!(
        message.contains("HTTP 401") && message.contains("no key"),
        "{message}"
    );
    stand_in.assert_all_gone(1);
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed() {
    let stand_in = StandIn::new("ignores-sigterm");
    let exit = stand_in.start().await.unwrap().stop().await.unwrap();
    assert_eq!(exit.signal, Some(9));
    stand_in.assert_all_gone(1);
}

#[tokio::test]
async fn children_detached_or_not_go_with_the_server() {
    let stand_in = StandIn::new("forks");
    let running = stand_in.start().await.unwrap();
    assert_eq!(stand_in.pids().iter().filter(|pid| alive(**pid)).count(), 4);
    let all = running.processes().unwrap().usage(0).unwrap();
    let server = Root::Tree(running.pid().unwrap()).usage(0).unwrap();
    assert_eq!(
        all.threads,
        server.threads + 1,
        "the one whose parent died is watched too"
    );
    running.stop().await.unwrap();
    stand_in.assert_all_gone(4);
}

#[tokio::test]
async fn a_flood_of_output_does_not_fill_the_disk() {
    let stand_in = StandIn::new("floods");
    let exit = stand_in.start().await.unwrap().stop().await.unwrap();
    assert!(exit.log_tail.ends_with("the last line"));
    let log = fs::metadata(stand_in.dir.path().join("engine.log")).unwrap();
    assert!(
        log.len() < 20 << 20,
        "64 MiB of output became {} bytes",
        log.len()
    );
}

#[tokio::test]
async fn its_death_during_a_run_is_told() {
    let stand_in = StandIn::new("forks");
    let running = stand_in.start().await.unwrap();
    let pid = nix::unistd::Pid::from_raw(running.pid().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(running.died().await.signal, Some(9));
    assert_eq!(running.exit().unwrap().to_string(), "SIGKILL");
    stand_in.assert_all_gone(4);
}

#[tokio::test]
async fn dropping_it_ends_everything() {
    let stand_in = StandIn::new("forks");
    drop(stand_in.start().await.unwrap());
    until("the end of all processes", || {
        stand_in.pids().iter().all(|pid| !alive(*pid))
    });
}

#[tokio::test]
async fn a_port_in_use_is_said_to_be() {
    let stand_in = StandIn::new("behaves");
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut settings = stand_in.settings();
    settings.port = Some(other.local_addr().unwrap().port());
    let message = stand_in.start_with(&settings).await.err().unwrap().to_string();
    assert!(message.contains("is in use"), "{message}");
    assert!(stand_in.pids().is_empty());
}

#[tokio::test]
async fn a_port_that_someone_took_first_is_exchanged_for_another() {
    let stand_in = StandIn::new("comes-second");
    let pids = pids_file(stand_in.dir.path());
    let thief = std::thread::spawn(move || {
        let file = pids.with_extension("port");
        until("a port to take", || {
            fs::read_to_string(&file).is_ok_and(|port| !port.is_empty())
        });
        let port: u16 = fs::read_to_string(&file).unwrap().parse().unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        fs::write(pids.with_extension("taken"), "").unwrap();
        taken
    });
    let told = std::sync::Mutex::new(String::new());
    let tell = |words: &str| told.lock().unwrap().push_str(words);
    let settings = stand_in.settings();
    let running = engine::start(&stand_in.recipe, &stand_in.program, &settings, &tell)
        .await
        .unwrap();
    let taken = thief.join().unwrap().local_addr().unwrap().port();
    assert!(!running.base_url().ends_with(&format!(":{taken}")));
    let told = told.lock().unwrap().clone();
    assert!(
        told.contains(&format!("port {taken} was taken meanwhile")),
        "{told}"
    );
    running.stop().await.unwrap();
    stand_in.assert_all_gone(2);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let mut stand_in = StandIn::new("behaves");
    stand_in.program = Program::at("/no/such/program");
    let error = stand_in.start().await.err().unwrap();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[tokio::test]
async fn attaching_needs_an_answer_and_leaves_the_server_alone() {
    let stand_in = StandIn::new("behaves");
    let server = stand_in.start().await.unwrap();
    let recipe = engine::recipe("attach").unwrap();
    let url = format!("{}/v1/", server.base_url());
    let attached = engine::attach(&recipe, &url, Some("m".into()), &Access::default())
        .await
        .unwrap();
    assert_eq!((attached.base_url(), attached.pid()), (server.base_url(), None));
    assert_eq!(attached.stop().await, None);
    let unnamed = engine::attach(&recipe, &url, None, &Access::default())
        .await
        .err()
        .unwrap();
    assert!(unnamed.to_string().contains("--model"), "{unnamed}");
    server.stop().await.unwrap();
    let gone = engine::attach(&recipe, &url, Some("m".into()), &Access::default())
        .await
        .err()
        .unwrap();
    assert!(gone.to_string().contains("no server answers"), "{gone}");
}

/// Not a test: what `sigkill_of_loadtest_takes_the_server_along` runs as the process to be killed.
#[tokio::test]
#[ignore = "a helper that another test starts"]
async fn a_parent_to_be_killed() {
    let Some(dir) = std::env::var_os("STAND_IN_DIR").map(PathBuf::from) else {
        return;
    };
    let stand_in = StandIn::new("forks");
    let running = stand_in.start().await.unwrap();
    fs::copy(pids_file(stand_in.dir.path()), dir.join("partial")).unwrap();
    fs::rename(dir.join("partial"), pids_file(&dir)).unwrap();
    running.died().await;
}

#[test]
fn sigkill_of_loadtest_takes_the_server_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_parent_to_be_killed", "--ignored"])
        .env("STAND_IN_DIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the server's start", || read_pids(dir.path()).len() == 4);
    let pids = read_pids(dir.path());
    assert!(pids.iter().all(|pid| alive(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the end of all processes", || pids.iter().all(|pid| !alive(*pid)));
}
