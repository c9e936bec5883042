//! Every way in which a server can fail a request lands under its own name, with an exit code, and saved.

mod support;

use serde_json::Value;
use support::{House, Reference};

/// Loads `reference` with a fault and returns the step's result.
fn step_with(fault: &str, more: &[&str]) -> Value {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let house = House::new();
    let model = format!("reference+{fault}");
    let mut args = vec![
        "--model",
        &model,
        "--users",
        "2",
        "--num-prompts",
        "4",
        "--osl",
        "8",
        "--drain",
        "20s",
    ];
    args.extend(more);
    let (code, summary) = house.load(&server.url, &args);
    assert_eq!(code, Some(0), "a failed request is data: {summary:#}");
    let saved: Value =
        serde_json::from_slice(&std::fs::read(house.run_dir().join("run.json")).expect("run.json"))
            .expect("JSON");
    assert_eq!(
        saved["steps"][0]["errors"], summary["steps"][0]["errors"],
        "what is printed is saved"
    );
    let lines = std::fs::read_to_string(house.run_dir().join("requests.jsonl")).expect("requests.jsonl");
    assert_eq!(
        lines.lines().count() as u64,
        summary["steps"][0]["requests_all"]["sent"]
            .as_u64()
            .expect("a count")
    );
    summary["steps"][0].clone()
}

/// All four requests of the window failed this way.
fn fails_as(fault: &str, kind: &str, more: &[&str]) {
    let step = step_with(fault, more);
    assert_eq!(step["errors"][kind], 4, "{fault}: {:#}", step["errors"]);
    assert_eq!(step["requests"]["failed"], 4);
    assert!(
        step["verdicts"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|verdict| verdict == "errors")
    );
}

/// The server does something unusual that is no fault.
fn succeeds_with(quirk: &str) -> Value {
    let step = step_with(quirk, &[]);
    assert_eq!(
        (&step["requests"]["ok"], &step["requests"]["failed"]),
        (&4.into(), &0.into()),
        "{quirk}: {step:#}"
    );
    step
}

#[test]
fn http_401() {
    fails_as("http_401", "http_4xx", &[]);
}

#[test]
fn http_404() {
    fails_as("http_404", "http_4xx", &[]);
}

#[test]
fn http_429() {
    fails_as("http_429", "http_429", &[]);
}

#[test]
fn http_500() {
    fails_as("http_500", "http_5xx", &[]);
}

#[test]
fn html_with_status_200() {
    fails_as("html", "malformed", &[]);
}

#[test]
fn half_an_event() {
    fails_as("cut:after=3", "truncated", &[]);
}

#[test]
fn a_connection_closed_between_events() {
    fails_as("truncate:after=3", "truncated", &[]);
}

#[test]
fn nothing_at_all() {
    fails_as("no_headers", "timeout_first", &["--first-token-timeout", "200ms"]);
}

#[test]
fn headers_and_then_nothing() {
    fails_as("hang", "timeout_first", &["--first-token-timeout", "200ms"]);
}

#[test]
fn a_stream_that_falls_silent() {
    fails_as("stall:after=3", "stalled", &["--stall-timeout", "200ms"]);
}

#[test]
fn a_stream_that_takes_too_long() {
    fails_as("itl=100", "timeout_total", &["--timeout", "300ms"]);
}

#[test]
fn an_error_event() {
    fails_as("error_event:after=2", "server_error_event", &[]);
}

#[test]
fn an_event_that_is_no_json() {
    fails_as("malformed:after=2", "malformed", &[]);
}

#[test]
fn a_stream_without_output() {
    fails_as("empty", "empty", &[]);
}

#[test]
fn unusual_streams_are_understood() {
    for quirk in [
        "crlf",
        "comments",
        "multiline",
        "utf8",
        "batch",
        "slow_headers:ms=20",
    ] {
        let step = succeeds_with(quirk);
        assert_eq!(step["tokens"]["output"], 32, "{quirk}: 4 requests of 8 tokens");
    }
}

#[test]
fn without_usage_events_are_counted_and_it_is_said() {
    let step = succeeds_with("no_usage");
    assert_eq!(
        (&step["tokens"]["output"], &step["tokens"]["source"]),
        (&32.into(), &"events".into())
    );
    assert!(
        step["verdicts"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|verdict| verdict == "tokens_are_events")
    );
}

#[test]
fn a_server_that_is_gone() {
    let house = House::new();
    let server = Reference::start(&[]);
    let url = server.url.clone();
    drop(server);
    let output = house.run(&[
        "--url",
        &url,
        "--model",
        "reference",
        "--duration",
        "1s",
        "--no-calibrate",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", support::stderr(&output));
    assert!(
        support::stderr(&output).contains("no server answers"),
        "{}",
        support::stderr(&output)
    );
}
