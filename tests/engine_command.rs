//! Any command line is an engine.
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{House, nothing_left, reference_program, stderr};

/// A line that starts the reference server as one would type it.
fn reference_line(more: &str) -> String {
    format!(
        "'{}' --port {{port}} --model-name 'its own name' {more}",
        reference_program().display()
    )
}

#[test]
fn a_command_line_is_an_engine() {
    let house = House::new();
    let model = house.tiny_model();
    let line = reference_line("--seed 4711004");
    let args = [
        "--command",
        &line,
        "--model",
        model.to_str().expect("UTF-8"),
        "--users",
        "2",
    ];
    let short = [
        "--num-prompts",
        "4",
        "--osl",
        "5",
        "--isl",
        "40",
        "--format",
        "json",
        "--no-calibrate",
    ];
    let output = house.run(&[&args[..], &short[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["engines"][0]["name"], "command");
    assert_eq!(summary["profile"]["server"]["command"], line.as_str());
    assert_eq!(summary["steps"][0]["requests"]["failed"], 0, "{summary:#}");
    nothing_left("--seed 4711004");
}

#[test]
fn a_command_line_of_a_profile_is_one_too() {
    let house = House::new();
    let model = house.tiny_model();
    let profile = house.dir.path().join("mine.toml");
    let text = format!(
        "engines = [\"command\"]\nmodel = {:?}\n[load]\nusers = 1\nnum_prompts = 2\n[requests]\nisl = 40\nosl = 3\n\
         [measure]\ncalibrate = false\n[server]\ncommand = {:?}\n",
        model.display().to_string(),
        reference_line("")
    );
    std::fs::write(&profile, text).expect("written");
    let output = house.run(&["--profile", profile.to_str().expect("UTF-8"), "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_command_line_that_starts_no_server_is_a_usage_error() {
    let house = House::new();
    for (line, wanted) in [
        (
            "no-such-server --port {port}",
            "--command: no program `no-such-server`",
        ),
        ("sh -c 'sleep 1'", "--command: tell the server its port"),
        ("sh -c '{port}", "--command: a quote is not closed"),
    ] {
        let output = house.run(&["--engine", "command", "--command", line]);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    }
}

#[test]
fn a_check_tells_what_a_server_does_with_its_parameters() {
    let house = House::new();
    let model = house.tiny_model();
    let line = reference_line("--seed 4711005");
    let output = house.run(&[
        "engines",
        "check",
        "command",
        "--command",
        &line,
        "--model",
        model.to_str().expect("UTF-8"),
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&found["status"], &found["done"]),
        (&200.into(), &true.into()),
        "{found:#}"
    );
    let verdict = |name: &str| {
        let all = found["parameters"].as_array().expect("a list");
        all.iter()
            .find(|parameter| parameter["name"] == name)
            .expect("it was asked")["verdict"]
            .clone()
    };
    assert_eq!(verdict("max_tokens"), "honoured", "{found:#}");
    assert_eq!(verdict("stream_options"), "honoured", "{found:#}");
    nothing_left("--seed 4711005");
}
