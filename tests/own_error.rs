//! What a run says of the client that made it.

mod support;

use serde_json::Value;
use support::{House, Reference};

/// A load on a server that answers at once, so that 5 % of its TTFT is less than any client needs.
fn hopeless(more: &[&str]) -> (Option<i32>, Value) {
    let server = Reference::start(&["--ttft-ms", "0", "--itl-ms", "1"]);
    let fixed = [
        "--model",
        "reference",
        "--users",
        "2",
        "--num-prompts",
        "40",
        "--osl",
        "4",
        "--isl",
        "8",
    ];
    House::new().load(&server.url, &[&fixed, more].concat())
}

#[test]
fn a_step_that_the_client_limits_fails_a_strict_run() {
    for (flags, expected) in [(&[][..], 0), (&["--strict"], 3)] {
        let (code, summary) = hopeless(flags);
        let verdicts = &summary["steps"][0]["verdicts"];
        assert!(
            verdicts
                .as_array()
                .is_some_and(|verdicts| verdicts.iter().any(|verdict| verdict == "client_limited")),
            "{verdicts}"
        );
        assert_eq!(code, Some(expected), "{flags:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_error_is_the_sum_of_its_parts_and_the_machine_is_asked() {
    let (_, summary) = hopeless(&[]);
    let client = &summary["steps"][0]["client"];
    assert_eq!(
        (&client["stamp"], &client["unstamped_events"]),
        (&"kernel".into(), &0.into())
    );
    let parts = client["error_parts_ms"].as_object().expect("an object");
    let sum: f64 = parts.values().map(|part| part.as_f64().expect("measured")).sum();
    let error = client["error_p99_ms"].as_f64().expect("measured");
    assert!(parts.len() == 4 && (sum - error).abs() < 1e-5, "{client:#}");
    for lag in ["read_lag_ms", "send_lag_ms", "sending_ms"] {
        assert!(client[lag]["p99"].is_f64(), "{lag}: {client:#}");
    }
    assert!(
        client["run_queue_s"].is_f64() && client["steal_s"].is_f64(),
        "{client:#}"
    );
    assert_eq!(
        (&client["threads"], &client["clock_steps"]),
        (&2.into(), &0.into())
    );
}
