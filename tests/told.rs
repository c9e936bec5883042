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

/// A server of ours that knows no `--version`, and an engine behind a bridge that does.
#[test]
fn an_old_program_tells_no_version_and_the_table_stands() {
    let house = House::new();
    let program = |name: &str, text: &str| {
        let path = house.dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    };
    let listed = |lmrs: &str| -> Value {
        let output = house
            .command()
            .env("LOADTEST_LMRS", program("backend", lmrs))
            .env(
                "LOADTEST_LLAMA_SERVER",
                program("llama-server", "echo unexpected argument >&2\nexit 2"),
            )
            .args(["engines", "--format", "json"])
            .output()
            .expect("loadtest starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let version = |rows: &Value, name: &str| {
        let all = rows.as_array().expect("rows");
        let row = all.iter().find(|row| row["name"] == name).expect("its row");
        row["version"].clone()
    };
    let rows = listed("test \"$1\" = --version && echo lmrs-api 1.0");
    assert_eq!(version(&rows, "llamacpp"), Value::Null);
    // In a checkout both can be had: built, or built on first use.
    let (candle, lmrs) = (version(&rows, "candle"), version(&rows, "lmrs"));
    assert!(
        candle.is_null()
            || candle
                .as_str()
                .is_some_and(|text| text.starts_with("candle-core "))
    );
    assert!(lmrs.is_null() || lmrs == "lmrs-api 1.0", "{lmrs}");
}
