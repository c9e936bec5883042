//! `loadtest compare` and repeats, as a user has them: real differences, gates, and runs that must not be compared.

mod support;

use serde_json::Value;
use support::{House, Reference, stderr};

const LOAD: [&str; 10] = [
    "--model",
    "reference",
    "--users",
    "2",
    "--isl",
    "8",
    "--osl",
    "8",
    "--num-prompts",
    "120",
];

/// A load against a server with this TTFT in ms, with more flags.
fn load(house: &House, ttft_ms: &str, args: &[&str]) -> Value {
    let server = Reference::start(&["--ttft-ms", ttft_ms, "--itl-ms", "1"]);
    let (code, summary) = house.load(&server.url, &[&LOAD[..], args].concat());
    assert_eq!(code, Some(0));
    summary
}

/// The comparison in JSON, and the exit code.
fn compared(house: &House, args: &[&str]) -> (Option<i32>, Value) {
    let output = house.run(&[&["compare"], args, &["--format", "json"]].concat());
    let found = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        found.unwrap_or_else(|error| panic!("{error}: {}", stderr(&output))),
    )
}

fn row<'a>(found: &'a Value, metric: &str) -> &'a Value {
    let rows = found["pairs"][0]["cells"][0]["rows"].as_array().expect("rows");
    rows.iter()
        .find(|row| row["metric"] == metric)
        .expect("the metric")
}

#[test]
fn a_slower_server_is_called_slower_and_fails_its_gate() {
    let house = House::new();
    load(&house, "5", &[]);
    load(&house, "100", &[]);
    let gates = ["--fail-on", "ttft_p50 > +5%", "--fail-on", "output_tps < -3%"];
    let (code, found) = compared(&house, &[&["last~1", "last"], &gates[..]].concat());
    assert_eq!(code, Some(3), "{found:#}");
    let ttft = row(&found, "ttft_p50");
    assert_eq!(
        (&ttft["real"], &ttft["better"]),
        (&true.into(), &false.into()),
        "{ttft:#}"
    );
    assert!(ttft["ratio_ci95"][0].as_f64().expect("a limit") > 1.0 && ttft["test"] == "block_bootstrap");
    assert_eq!(row(&found, "errors")["real"], false);

    // The same difference, the other way round, is no failure; and a run does not differ from itself.
    assert_eq!(
        compared(&house, &[&["last", "last~1"], &gates[..]].concat()).0,
        Some(0)
    );
    let (code, found) = compared(&house, &[&["last", "last"], &gates[..]].concat());
    assert_eq!((code, &row(&found, "ttft_p50")["real"]), (Some(0), &false.into()));

    let markdown = house.run(&[
        "compare", "last~1", "last", "--metric", "ttft_p50", "--format", "markdown",
    ]);
    let text = String::from_utf8(markdown.stdout).expect("UTF-8");
    assert!(
        text.contains("| ttft_p50, ms |") && text.contains("more time"),
        "{text}"
    );
}

#[test]
fn runs_of_different_loads_are_refused_and_the_differences_named() {
    let house = House::new();
    load(&house, "2", &[]);
    load(&house, "2", &["--seed", "7"]);
    let output = house.run(&["compare", "last~1", "last"]);
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("load: requests.seed 0 -> 7") && message.contains("--anyway"),
        "{message}"
    );
    assert_eq!(compared(&house, &["last~1", "last", "--anyway"]).0, Some(0));
}

#[test]
fn what_cannot_be_compared_says_what_is_right() {
    let house = House::new();
    load(&house, "2", &[]);
    for (args, word) in [
        (&["compare", "last"][..], "a second run"),
        (&["compare", "last", "last", "--metric", "tftt_p50"], "ttft_p50"),
        (
            &["compare", "last", "last", "--fail-on", "ttft_p50 > 5"],
            "percentage",
        ),
        (&["compare", "last:vllm", "last"], "attach"),
        (&["--until-stable", "tps:2%"], "output_tps"),
    ] {
        let output = house.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(word), "{args:?}: {}", stderr(&output));
    }
    let output = house.run(&["compare", "last", "elsewhere"]);
    assert_eq!(output.status.code(), Some(1));
    // A gate on what was not measured holds nothing: it must not pass.
    assert_eq!(
        compared(&house, &["last", "last", "--fail-on", "goodput_rps < -3%"]).0,
        Some(1)
    );
}

#[test]
fn repeats_are_tested_by_themselves() {
    let house = House::new();
    load(&house, "5", &["--repeat", "3"]);
    let run = load(&house, "100", &["--repeat", "3"]);
    let repeats = &run["repeats"][0];
    assert_eq!((&repeats["n"], &repeats["users"]), (&3.into(), &2.into()));
    let spread = &repeats["metrics"]["ttft_p50"];
    assert!(
        spread["min"].as_f64() <= spread["median"].as_f64() && spread["cv"].is_f64(),
        "{spread}"
    );
    let (_, found) = compared(&house, &["last~1", "last", "--metric", "ttft_p50"]);
    let ttft = row(&found, "ttft_p50");
    assert_eq!(
        (&ttft["test"], &ttft["real"]),
        (&"welch_t".into(), &true.into()),
        "{ttft:#}"
    );
    assert!(ttft["effect"].as_f64().expect("an effect size") > 0.8);
}

#[test]
fn repeats_end_when_the_metric_is_known_or_at_their_bound() {
    let house = House::new();
    let few = ["--num-prompts", "20"];
    let run = load(
        &house,
        "5",
        &[
            &few[..],
            &["--until-stable", "e2el_p50:95%", "--max-repeats", "6"],
        ]
        .concat(),
    );
    let steps = run["steps"].as_array().expect("steps").len();
    assert!((3..6).contains(&steps), "{steps}");
    // A share of nothing is never known within a percent of it.
    let run = load(
        &house,
        "5",
        &[&few[..], &["--until-stable", "errors:1%", "--max-repeats", "4"]].concat(),
    );
    assert_eq!(run["steps"].as_array().map(Vec::len), Some(4));
    let notes = run["notes"].to_string();
    assert!(notes.contains("after 4 repeats errors is unknown"), "{notes}");
}
