//! A run that is killed leaves enough for a report.
#![cfg(unix)]

mod support;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{House, Reference, stderr};

/// The folder of the run, once a request that was sent inside the saved window is on disk; with that window's start.
fn measured(house: &House) -> Option<(PathBuf, u64)> {
    let runs = std::fs::read_dir(house.dir.path().join("results")).ok()?;
    let dir = runs.flatten().next()?.path();
    let run: Value = serde_json::from_slice(&std::fs::read(dir.join("run.json")).ok()?).ok()?;
    let start = run["unfinished"]["window_start_ns"].as_u64()?;
    let lines = std::fs::read_to_string(dir.join("requests.jsonl")).ok()?;
    let inside = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .any(|line| line["sent_ns"].as_u64() >= Some(start));
    inside.then_some((dir, start))
}

#[test]
fn a_killed_run_is_reported_with_its_window() {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let house = House::new();
    let mut process = house
        .command()
        .args(["--url", &server.url, "--model", "reference", "--users", "2"])
        .args([
            "--osl",
            "8",
            "--warmup",
            "0s",
            "--ramp",
            "0s",
            "--duration",
            "10m",
        ])
        .args(["--no-progress", "--no-calibrate"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadtest starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    let (dir, start) = loop {
        if let Some(found) = measured(&house) {
            break found;
        }
        assert!(Instant::now() < deadline, "no request of the window was written");
        std::thread::sleep(Duration::from_millis(20));
    };
    // SIGKILL: the program gets no chance to save anything more.
    process.kill().expect("it runs");
    process.wait().expect("it ends");

    let dir = dir.to_str().expect("UTF-8");
    let output = house.run(&["report", dir]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let tables = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(tables.contains("was cut short"), "{tables}");
    assert!(!tables.contains("its window had not opened"), "{tables}");

    let output = house.run(&["report", dir, "--format", "json"]);
    let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let step = &run["steps"][0];
    let engine = step["engine"].as_str().expect("a name");
    assert!(tables.contains(engine), "no row of {engine}: {tables}");
    assert_eq!(step["recomputed"], true);
    assert_eq!(step["window_start_ns"], start);
    assert!(step["requests"]["ok"].as_u64() > Some(0), "{step:#}");
}
