//! 10,000 streams of one event a second: `loadtest` as its users run it, watched from outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use loadtest::calibrate::SERVER_SUBCOMMAND;

const STREAMS: u64 = 10_000;

/// Peak resident memory of a process, in KiB.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// One run with so many users. Returns its peak memory in KiB, the step's result, and when the last user's first request
/// went out, in seconds.
fn load(url: &str, users: u64) -> (u64, serde_json::Value, f64) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "--url",
            url,
            "--model",
            "reference",
            "--users",
            &users.to_string(),
        ])
        .args([
            "--isl",
            "64",
            "--osl",
            "20",
            "--ramp",
            "5s",
            "--warmup",
            "0s",
            "--duration",
            "20s",
        ])
        .args([
            "--drain",
            "60s",
            "--no-calibrate",
            "--no-progress",
            "--format",
            "json",
            "--output",
        ])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadtest runs");
    let mut peak = 0;
    while child.try_wait().expect("it is ours").is_none() {
        peak = peak_kib(child.id()).unwrap_or(peak);
        thread::sleep(Duration::from_millis(200));
    }
    let output = child.wait_with_output().expect("it has ended");
    let run: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    let step = run["steps"][0].clone();
    (peak, step, last_first_request(dir.path()))
}

/// When the last of the first requests of all users was sent, in seconds since the first.
fn last_first_request(dir: &Path) -> f64 {
    let run = fs::read_dir(dir)
        .expect("a folder")
        .flatten()
        .next()
        .expect("one run");
    let lines = fs::read_to_string(run.path().join("requests.jsonl")).expect("it was written");
    let mut first = std::collections::HashMap::new();
    for line in lines.lines() {
        let request: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        if let (Some(user), Some(sent)) = (request["user"].as_u64(), request["sent_ns"].as_u64()) {
            let earliest = first.entry(user).or_insert(sent);
            *earliest = sent.min(*earliest);
        }
    }
    let earliest = first.values().min().copied().unwrap_or(0);
    first
        .values()
        .max()
        .map_or(f64::NAN, |&last| (last - earliest) as f64 / 1e9)
}

pub fn run() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            SERVER_SUBCOMMAND,
            "--port",
            "0",
            "--ttft-ms",
            "1000",
            "--itl-ms",
            "1000",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the reference server");
    let told = BufReader::new(server.stdout.take().expect("piped"));
    let url = told
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            Some(
                line[line.find("http://")?..]
                    .split_whitespace()
                    .next()?
                    .to_owned(),
            )
        })
        .expect("the server tells its address");
    let (few_kib, _, _) = load(&url, 10);
    let (many_kib, step, last) = load(&url, STREAMS);
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
    println!(
        "{STREAMS} streams x 1 event/s: {} requests in the window, {} failed; {:.1} KiB of client memory a stream; all first requests out within {last:.1} s of the first",
        step["requests"]["sent"],
        step["requests"]["failed"],
        (many_kib - few_kib) as f64 / (STREAMS - 10) as f64,
    );
}
