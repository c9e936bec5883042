//! `loadtest compare` and repeats, as a user has them: real differences, gates, and runs that must not be compared.

mod support;

use serde_json::Value;
use support::{House, Reference, stderr};

const LOAD: [&str; 8] = ["--model", "reference", "--users", "2", "--isl", "8", "--osl", "8"];

/// 120 requests to a server with this TTFT in ms, with more flags.
fn load(house: &House, ttft_ms: &str, args: &[&str]) -> Value {
    requests(house, "120", ttft_ms, args)
}

/// So many requests.
fn requests(house: &House, number: &str, ttft_ms: &str, args: &[&str]) -> Value {
    let server = Reference::start(&["--ttft-ms", ttft_ms, "--itl-ms", "1"]);
    let number = ["--num-prompts", number];
    let (code, summary) = house.load(&server.url, &[&LOAD[..], &number[..], args].concat());
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

    let junit = house.run(&[&["compare", "last~1", "last", "--format", "junit"], &gates[..]].concat());
    assert_eq!(junit.status.code(), Some(3));
    let text = String::from_utf8(junit.stdout).expect("UTF-8");
    assert!(
        text.contains(r#"failures="1" errors="0""#) && text.contains("attach, 2 users, ISL 8, OSL 8: +"),
        "{text}"
    );

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
    // A build server sees a test that could not be held, not a file that is empty.
    let gate = ["--fail-on", "ttft_p50 > +5%", "--format", "junit"];
    let output = house.run(&[&["compare", "last~1", "last"], &gate[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        text.contains("<error message=") && text.contains("requests.seed 0 -&gt; 7"),
        "{text}"
    );
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
        (&["compare", "last", "last", "--format", "junit"], "--fail-on"),
        (&["--until-stable", "tps:2%"], "output_tps"),
    ] {
        let output = house.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(word), "{args:?}: {}", stderr(&output));
    }
    let output = house.run(&["compare", "last", "elsewhere"]);
    assert_eq!(output.status.code(), Some(1));
    // Too few requests for a p99: no failure, and no silence either.
    let (code, found) = compared(&house, &["last", "last", "--fail-on", "ttft_p99 > +5%"]);
    let gate = &found["gates"][0];
    assert_eq!((code, &gate["ruling"]), (Some(0), &"untested".into()), "{gate:#}");
    assert!(
        gate["because"][0]
            .as_str()
            .is_some_and(|why| why.contains("there are 120")),
        "{gate:#}"
    );
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

/// Writes cards into every step of the last run, as a run beside an NVIDIA driver has them.
fn with_cards(house: &House, memory_gb: f64, joules: f64) {
    let newest = std::fs::read_dir(house.dir.path().join("results")).expect("results");
    let newest = newest.flatten().map(|entry| entry.path()).max().expect("a run");
    let path = newest.join("run.json");
    let mut run: Value = serde_json::from_slice(&std::fs::read(&path).expect("a run")).expect("JSON");
    for (number, step) in run["steps"].as_array_mut().expect("steps").iter_mut().enumerate() {
        let some = 1.0 + 0.01 * number as f64;
        step["server"] = serde_json::json!({ "gpu": [{
            "index": 0, "name": "a card", "server": true, "utilisation_pct": 90.0 * some,
            "memory_peak_bytes": (memory_gb * 1e9 * some) as u64, "power_w": 300.0 * some, "energy_j": joules * some,
        }] });
    }
    std::fs::write(&path, run.to_string()).expect("written");
}

#[test]
fn what_the_cards_took_is_compared_too() {
    let house = House::new();
    load(&house, "2", &["--repeat", "3"]);
    with_cards(&house, 8.0, 60.0);
    load(&house, "2", &["--repeat", "3"]);
    with_cards(&house, 6.0, 30.0);
    let gate = ["--fail-on", "gpu_memory_peak > +5%"];
    let metrics = [
        "--metric",
        "gpu_util,gpu_memory_peak,gpu_power,gpu_energy_per_token",
    ];
    let (code, found) = compared(&house, &[&["last~1", "last"], &metrics[..], &gate[..]].concat());
    assert_eq!((code, &found["gates"][0]["ruling"]), (Some(0), &"passed".into()));
    let memory = row(&found, "gpu_memory_peak");
    assert_eq!((&memory["real"], &memory["better"]), (&true.into(), &true.into()));
    assert!(
        (memory["change_percent"].as_f64().expect("a change") + 25.0).abs() < 0.1,
        "{memory:#}"
    );
    assert_eq!(row(&found, "gpu_energy_per_token")["better"], true);
    assert_eq!(row(&found, "gpu_util")["better"], Value::Null);
    let back = [&["compare", "last", "last~1"], &metrics[..], &gate[..]].concat();
    let output = house.run(&back);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        text.contains("% more memory") && text.contains("gpu_power, W"),
        "{text}"
    );
}

#[test]
fn repeats_end_when_the_metric_is_known_or_at_their_bound() {
    let house = House::new();
    let until = ["--until-stable", "e2el_p50:95%", "--max-repeats", "6"];
    let run = requests(&house, "20", "5", &until);
    let steps = run["steps"].as_array().expect("steps").len();
    assert!((3..6).contains(&steps), "{steps}");
    // A share of nothing is never known within a percent of it.
    let until = ["--until-stable", "errors:1%", "--max-repeats", "4"];
    let run = requests(&house, "20", "5", &until);
    assert_eq!(run["steps"].as_array().map(Vec::len), Some(4));
    let notes = run["notes"].to_string();
    assert!(notes.contains("after 4 repeats errors is unknown"), "{notes}");
}
