//! Engines that fail are results: what was measured is saved, the run goes on, and the exit code says so.
#![cfg(target_os = "linux")]

mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::{House, reference_program, stderr};

/// The smallest model file that is whole: a GGUF of a few words, so that no test needs a download.
fn tiny_model(house: &House) -> PathBuf {
    let path = house.dir.path().join("tiny.gguf");
    std::fs::write(&path, include_bytes!("data/tiny.gguf")).expect("written");
    path
}

/// A recipe that starts the reference server with more arguments.
fn recipe(name: &str, more: &[&str]) -> String {
    let more: Vec<String> = more.iter().map(|word| format!("{word:?}")).collect();
    let program = reference_program().display().to_string();
    format!(
        "name = {name:?}\ntitle = {name:?}\nkind = \"spawned\"\ndescription = \"the reference server\"\n\
         formats = [\"gguf\"]\n[find]\nprograms = [{program:?}]\n[serve]\n\
         args = [\"--port\", \"{{port}}\", \"--model-name\", \"{{model_name}}\", {}]\n\
         [ready]\npath = \"/health\"\ntimeout_s = 3\nstop_grace_s = 2\n",
        more.join(", ")
    )
}

/// Runs one engine after another on the tiny model.
fn run(house: &House, engines: &str) -> (Option<i32>, Value, String) {
    let model = tiny_model(house);
    let args = [
        "--engine",
        engines,
        "--model",
        model.to_str().expect("UTF-8"),
        "--users",
        "2",
    ];
    let short = [
        "--duration",
        "1s",
        "--warmup",
        "0s",
        "--osl",
        "5",
        "--isl",
        "40",
        "--format",
        "json",
        "--no-progress",
        "--no-calibrate",
    ];
    let output = house
        .command()
        .args(args)
        .args(short)
        .output()
        .expect("loadtest starts");
    let summary =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (output.status.code(), summary, stderr(&output))
}

/// No process with this word in its command line is left.
fn nothing_left(word: &str) {
    let found = Command::new("pgrep")
        .args(["-f", word])
        .output()
        .expect("pgrep runs");
    assert!(
        found.stdout.is_empty(),
        "left running: {}",
        String::from_utf8_lossy(&found.stdout)
    );
}

#[test]
fn an_engine_that_dies_while_loading_takes_nothing_else_with_it() {
    let house = House::new();
    house.engine("dying", &recipe("dying", &["--die-while-loading"]));
    house.engine("fine", &recipe("fine", &["--seed", "4711001"]));
    let (code, summary, _) = run(&house, "dying,fine");
    assert_eq!(code, Some(1), "{summary:#}");
    let failure = &summary["engines"][0]["failure"];
    assert!(
        failure["message"]
            .as_str()
            .expect("words")
            .contains("died while loading"),
        "{failure:#}"
    );
    assert_eq!(failure["exit"], "exit code 1");
    assert!(failure["log_tail"].to_string().contains("as told"), "{failure:#}");
    assert_eq!(summary["steps"][0]["engine"], "fine");
    assert!(summary["steps"][0]["requests"]["ok"].as_u64() > Some(0));
    nothing_left("--seed 4711001");
}

#[test]
fn an_engine_that_dies_mid_run_leaves_its_exit_and_its_requests() {
    let house = House::new();
    // The readiness probe is a request too.
    house.engine("mortal", &recipe("mortal", &["--faults", "die:from=20"]));
    let (code, summary, _) = run(&house, "mortal");
    assert_eq!(code, Some(1), "{summary:#}");
    let engine = &summary["engines"][0];
    assert!(
        engine["failure"]["message"]
            .as_str()
            .expect("words")
            .contains("died during the run"),
        "{engine:#}"
    );
    assert_eq!(engine["exit"], "SIGABRT");
    let step = &summary["steps"][0];
    assert!(step["requests"]["ok"].as_u64() > Some(0), "{step:#}");
    assert!(step["requests_all"]["failed"].as_u64() > Some(0), "{step:#}");
}

#[test]
fn an_engine_that_never_gets_ready_is_given_up_and_stopped() {
    let house = House::new();
    house.engine(
        "sleepy",
        &recipe("sleepy", &["--never-ready", "--seed", "4711002"]),
    );
    let (code, summary, _) = run(&house, "sleepy");
    assert_eq!(code, Some(1), "{summary:#}");
    let failure = summary["engines"][0]["failure"]["message"]
        .as_str()
        .expect("words")
        .to_owned();
    assert!(failure.contains("did not answer within 3 s"), "{failure}");
    nothing_left("--seed 4711002");
}

#[test]
fn a_port_in_use() {
    let house = House::new();
    house.engine("fine", &recipe("fine", &[]));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let model = tiny_model(&house);
    let output = house.run(&[
        "serve",
        "fine",
        "--model",
        model.to_str().expect("UTF-8"),
        "--port",
        &port,
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("port {port} is in use")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_interrupted_run_reports_what_it_measured() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let house = House::new();
    house.engine("fine", &recipe("fine", &["--seed", "4711003"]));
    let model = tiny_model(&house);
    let args = [
        "--engine",
        "fine",
        "--model",
        model.to_str().expect("UTF-8"),
        "--users",
        "2",
        "--osl",
        "5",
        "--isl",
        "40",
    ];
    let mut process = house
        .command()
        .args(args)
        .args([
            "--duration",
            "10m",
            "--warmup",
            "0s",
            "--format",
            "json",
            "--no-progress",
            "--no-calibrate",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadtest starts");
    // Requests are on disk while the step runs: wait for the first, then interrupt.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let written = || {
        let results = house.dir.path().join("results");
        let runs = std::fs::read_dir(results).into_iter().flatten().flatten();
        runs.filter_map(|run| std::fs::metadata(run.path().join("requests.jsonl")).ok())
            .any(|file| file.len() > 0)
    };
    while !written() {
        assert!(std::time::Instant::now() < deadline, "no request was written");
        std::thread::yield_now();
    }
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(process.id().cast_signed(), libc::SIGINT) };
    let mut summary = String::new();
    BufReader::new(process.stdout.take().expect("piped"))
        .read_line(&mut summary)
        .expect("a summary begins");
    assert_eq!(process.wait().expect("it ends").code(), Some(130));
    let saved: Value =
        serde_json::from_slice(&std::fs::read(house.run_dir().join("run.json")).expect("run.json"))
            .expect("JSON");
    assert_eq!(saved["status"], "interrupted");
    assert!(
        saved["steps"][0]["requests"]["ok"].as_u64() > Some(0),
        "{saved:#}"
    );
    nothing_left("--seed 4711003");
}

#[cfg(target_os = "linux")]
#[test]
fn each_side_runs_on_the_processors_it_was_given() {
    use loadtest::telemetry::affinity;

    let house = House::new();
    house.engine("mine", &recipe("mine", &[]));
    let model = tiny_model(&house);
    let all = affinity::of(0).expect("Linux tells");
    let (first, last) = (all[0].to_string(), all[all.len() - 1].to_string());
    let output = house.run(&[
        "--engine",
        "mine",
        "--model",
        model.to_str().expect("UTF-8"),
        "--users",
        "2",
        "--num-prompts",
        "2",
        "--osl",
        "4",
        "--format",
        "json",
        "--client-cpus",
        &first,
        "--server-cpus",
        &last,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let effective = &summary["engines"][0]["effective"];
    assert_eq!(
        (&effective["client_cpus"], &effective["server_cpus"]),
        (&first.into(), &last.into()),
        "{effective:#}"
    );
}
