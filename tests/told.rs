//! What an engine is not told is refused where the user named it, and stands in no result where not.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::{House, reference_program, stderr};

/// A house with an engine that is told its port and sequences alone.
fn house() -> (House, String) {
    let house = House::new();
    let program = reference_program().display().to_string();
    house.engine(
        "curt",
        &format!(
            "name = 'curt'\ntitle = 'curt'\nkind = 'spawned'\ndescription = 'x'\n[find]\nprograms = ['/bin/sh']\n\
             [serve]\nargs = ['-c', \"exec '{program}' --port $0 --model-name $1\", '{{port}}', '{{model_name}}']\n\
             env = {{ SEQUENCES = '{{parallel}}' }}\n[ready]\npath = '/health'\n"
        ),
    );
    let model = house.tiny_model().display().to_string();
    (house, model)
}

/// A line that starts the reference server and names more to its shell.
fn line(more: &str) -> String {
    let program = reference_program().display();
    format!("sh -c \"exec '{program}' --port $0 --model-name m\" {{port}} {more}")
}

const SHORT: [&str; 10] = [
    "--users",
    "2",
    "--num-prompts",
    "2",
    "--osl",
    "3",
    "--isl",
    "40",
    "--no-calibrate",
    "--format",
];

#[test]
fn a_named_setting_that_an_engine_is_not_told_is_a_usage_error() {
    let (house, model) = house();
    let profile = house.dir.path().join("mine.toml");
    std::fs::write(&profile, "engines = ['curt']\n[server]\nthreads = 2\n").expect("written");
    let (profile, bare) = (profile.to_str().expect("UTF-8"), line(""));
    let cases: [(&[&str], &str); 8] = [
        (
            &["--engine", "curt", "--threads", "2"],
            "--threads: curt is not told it",
        ),
        (
            &["--engine", "curt", "--context", "512"],
            "`{context}` in the `args`",
        ),
        (
            &["--engine", "curt", "--weights", "f16"],
            "`weights_args` under [serve]",
        ),
        (&["--profile", profile], "--threads: curt is not told it"),
        (
            &["--engine", "candle,curt", "--device", "cpu"],
            "--device: curt is not told it",
        ),
        (
            &["--engine", "curt", "--threads", "2", "--dry-run"],
            "--threads: curt",
        ),
        (
            &["--command", &bare, "--threads", "2"],
            "--threads: command is not told it: put `{threads}` where the line of --command",
        ),
        (&["serve", "curt", "--threads", "2"], "--threads: curt"),
    ];
    for (args, wanted) in cases {
        let output = house.run(&[args, &["--model", &model]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(wanted), "{args:?}: {}", stderr(&output));
    }
    let output = house.run(&["serve", "curt", "--command", &bare, "--model", &model]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("curt has a command line of its own"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_was_told_is_what_was_wanted() {
    let (house, model) = house();
    let told = line("{parallel} {threads}");
    let args = [
        "--engine",
        "curt,command",
        "--command",
        &told,
        "--model",
        &model,
        "--parallel",
        "3",
    ];
    let output = house.run(&[&args[..], &SHORT, &["json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let engines = &summary["engines"];
    assert_eq!(engines[0]["wanted"], json!({ "parallel": 3 }));
    let command = &engines[1]["wanted"];
    assert_eq!(
        (&command["parallel"], &command["context"]),
        (&3.into(), &Value::Null)
    );
    assert!(command["threads"].as_u64() > Some(0), "{command}");
    assert_eq!(
        summary["notes"],
        json!(["curt is not told how many threads to use: it chooses for itself"])
    );
}

#[test]
fn the_plan_names_the_folder_in_which_the_run_makes_its_own() {
    let (house, model) = house();
    let output = house.run(&[
        "--engine",
        "curt",
        "--model",
        &model,
        "--output",
        "mine",
        "--dry-run",
    ]);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.contains("mine/<utc time>-quick\n"), "{plan}");
}

/// A program that knows `--version`, and one that does not.
#[test]
fn a_program_that_tells_no_version_has_none_and_the_table_stands() {
    let house = House::new();
    let program = house.dir.path().join("llama-server");
    let version = |text: &str| {
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let output = house
            .command()
            .env("LOADTEST_LLAMA_SERVER", &program)
            .args(["engines", "--format", "json"])
            .output()
            .expect("loadtest starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let all = rows.as_array().expect("rows");
        let row = all.iter().find(|row| row["name"] == "llamacpp").expect("its row");
        row["version"].clone()
    };
    let told = version("test \"$1\" = --version && echo version: 4711");
    assert!(told.as_str().is_some_and(|told| told.contains("4711")), "{told}");
    assert_eq!(version("echo unexpected argument >&2\nexit 2"), Value::Null);
}
