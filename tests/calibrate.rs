//! The client on trial, as a user sees it: by `loadtest calibrate`, and around every run.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;
use support::{House, Reference, stderr};

/// Every field that scripts read is there, percentiles are ordered, and what was sent was counted once.
fn assert_sound(calibration: &Value) {
    for error in ["ttft_error_ms", "itl_error_ms", "arrival_error_ms"] {
        let error = &calibration[error];
        let at = |key: &str| {
            error[key]
                .as_f64()
                .unwrap_or_else(|| panic!("no {key}: {calibration:#}"))
        };
        assert!(at("n") > 0.0, "{calibration:#}");
        assert!(
            at("p50") <= at("p99") && at("p99") <= at("max"),
            "{calibration:#}"
        );
    }
    for key in ["events_lost", "events_doubled", "requests_failed"] {
        assert_eq!(calibration[key], 0, "{key}: {calibration:#}");
    }
    for key in [
        "events",
        "requests",
        "events_per_s",
        "cpu_us_per_event",
        "window_s",
    ] {
        assert!(calibration[key].as_f64() > Some(0.0), "{key}: {calibration:#}");
    }
}

fn calibrate(args: &[&str]) -> Value {
    let house = House::new();
    let fixed = [
        "calibrate",
        "--users",
        "4",
        "--duration",
        "500ms",
        "--format",
        "json",
    ];
    let output = house.run(&[&fixed[..], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_client_is_held_against_the_server() {
    let calibration = calibrate(&["--no-search", "--rate", "50", "--isl", "10", "--payload", "300"]);
    assert_sound(&calibration);
    assert_eq!(calibration["load"]["users"], 4);
    assert_eq!(calibration["load"]["event_bytes"], 300);
    assert_eq!(calibration["capacity"], Value::Null);
}

#[test]
fn the_highest_rate_is_searched_for() {
    let calibration = calibrate(&["--rate", "20000"]);
    assert_sound(&calibration);
    let tried = calibration["capacity"]["tried"].as_array().expect("a list");
    assert!(!tried.is_empty(), "{calibration:#}");
    // The machine decides how fast; but what was held must be one of those tried, and the highest of them.
    let held = tried.iter().filter(|one| one["missed"].is_null());
    let best = held
        .map(|one| one["rate"].as_f64().expect("a rate"))
        .reduce(f64::max);
    assert_eq!(
        calibration["capacity"]["held"]["rate"].as_f64(),
        best,
        "{calibration:#}"
    );
}

/// A reader that sleeps 30 ms out of every 100 finds events that arrived while it slept.
#[test]
fn a_stalled_reader_is_said_to_be_late() {
    let house = House::new();
    let args = [
        "calibrate",
        "--users",
        "4",
        "--duration",
        "1s",
        "--no-search",
        "--stall",
        "30ms/100ms",
    ];
    let output = house.run(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("the reader was late"), "{text}");
    assert!(text.contains(" 0 lost, 0 doubled; 0 requests failed"), "{text}");
}

/// The flags of a small load on the reference server.
fn small_load(server: &Reference) -> [&str; 11] {
    let url = server.url.as_str();
    [
        "--url",
        url,
        "--model",
        "reference",
        "--users",
        "2",
        "--osl",
        "8",
        "--isl",
        "10",
        "--no-progress",
    ]
}

/// A short load with the calibration as it is by default.
fn run(house: &House, args: &[&str]) -> Value {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let output = house.run(&[&small_load(&server)[..], &["--num-prompts", "4"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let file = std::fs::read(house.run_dir().join("run.json")).expect("run.json");
    let manifest: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(
        text.contains("this machine's client error before"),
        manifest["calibration"].is_object(),
        "{text}"
    );
    manifest
}

#[test]
fn a_run_keeps_its_calibrations() {
    let manifest = run(&House::new(), &[]);
    for when in ["before", "after"] {
        assert_sound(&manifest["calibration"][when]);
        assert_eq!(manifest["calibration"][when]["load"]["users"], 2);
    }
    assert_eq!(manifest["calibration"]["failure"], Value::Null);
    assert_eq!(manifest["profile"]["calibrate"], true);
}

#[test]
fn a_run_can_go_without() {
    assert_eq!(
        run(&House::new(), &["--no-calibrate"])["calibration"],
        Value::Null
    );
    let house = House::new();
    std::fs::write(
        house.dir.path().join("plain.toml"),
        "[measure]\ncalibrate = false\n",
    )
    .expect("a profile");
    let manifest = run(&house, &["--profile", "plain.toml"]);
    assert_eq!(manifest["calibration"], Value::Null);
    assert_eq!(manifest["profile"]["calibrate"], false);
}

/// Waits for a line of `process`'s stderr that holds `word`, and interrupts it. Returns the exit code.
fn interrupt_at(process: &mut Child, word: &str) -> Option<i32> {
    let stderr = process.stderr.take().expect("it is piped");
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(word)), "it never said {word:?}");
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(process.id().cast_signed(), libc::SIGINT) };
    // What it says from here on must find a reader.
    lines.for_each(drop);
    process.wait().expect("it ends").code()
}

#[test]
fn a_calibration_can_be_interrupted() {
    let house = House::new();
    let mut calibrate = house
        .command()
        .args(["calibrate", "--users", "2", "--duration", "2m"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("loadtest starts");
    assert_eq!(interrupt_at(&mut calibrate, "calibrating"), Some(130));
}

#[test]
fn an_interrupted_run_is_not_calibrated_after() {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let house = House::new();
    let mut run = house
        .command()
        .args(small_load(&server))
        .args(["--duration", "10m"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("loadtest starts");
    assert_eq!(interrupt_at(&mut run, "step 1/1"), Some(130));
    let file = std::fs::read(house.run_dir().join("run.json")).expect("run.json");
    let manifest: Value = serde_json::from_slice(&file).expect("JSON");
    assert_sound(&manifest["calibration"]["before"]);
    assert_eq!(manifest["calibration"]["after"], Value::Null);
    assert_eq!(manifest["calibration"]["failure"], Value::Null);
}
