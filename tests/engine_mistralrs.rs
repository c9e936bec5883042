//! mistral.rs: against a stand-in that replays its stream, and for real where it is built.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use loadtest::engine::{self, Access, Settings, Verdict};
use serde_json::Value;
use support::{House, nothing_left, stderr};

/// The stand-in, as a program.
fn stand_in(house: &House) -> PathBuf {
    let program = house.dir.path().join("loadtest-mistralrs");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/mistralrs.py");
    let text = format!("#!/bin/sh\nexec python3 '{}' \"$@\"\n", script.display());
    std::fs::write(&program, text).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    program
}

#[test]
fn its_stream_is_read_and_what_it_cannot_do_is_said() {
    let house = House::new();
    let model = house.tiny_model();
    let output = house
        .command()
        .env("LOADTEST_MISTRALRS", stand_in(&house))
        .env("LOADTEST_HOME", house.dir.path().join("ours"))
        .args(["--engine", "mistralrs", "--model", model.to_str().expect("UTF-8")])
        .args(["--users", "3", "--num-prompts", "6", "--osl", "8", "--isl", "40"])
        .args(["--top-k", "40", "--top-p", "1"])
        .args(["--no-calibrate", "--format", "json"])
        .output()
        .expect("loadtest starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let engine = &summary["engines"][0];
    assert_eq!(engine["version"], "0.0.0-stand-in", "{engine:#}");
    assert_eq!(engine["effective"]["parallel"], 3, "{engine:#}");
    assert_eq!(engine["effective"]["context"], 8192, "{engine:#}");
    let step = &summary["steps"][0];
    assert_eq!(
        (&step["requests"]["ok"], &step["requests"]["failed"]),
        (&6.into(), &0.into()),
        "{step:#}"
    );
    let notes = summary["notes"].to_string();
    assert!(
        notes.contains("mistralrs cannot go on past its model's end token"),
        "{notes}"
    );
    assert!(notes.contains("mistralrs takes no seed with"), "{notes}");
    nothing_left(house.dir.path().to_str().expect("UTF-8"));
}

#[tokio::test]
#[ignore = "needs loadtest-mistralrs in LOADTEST_MISTRALRS or half an hour to build it, and a GGUF in LOADTEST_TEST_GGUF"]
async fn mistral_rs_serves_and_is_understood() {
    let Some(model) = std::env::var_os("LOADTEST_TEST_GGUF") else {
        panic!("LOADTEST_TEST_GGUF names no model")
    };
    let dir = tempfile::tempdir().unwrap();
    let recipe = engine::recipe("mistralrs").unwrap();
    let said = |status: &str| println!("{status}");
    let program = engine::ensure(&recipe, None, &said).unwrap();
    let mut settings = Settings::new(model, "a-model", dir.path().join("engine.log"));
    (settings.parallel, settings.context, settings.threads) = (2, 512, 2);
    settings.guard = env!("CARGO_BIN_EXE_loadtest").into();
    let running = engine::start(&recipe, &program, &settings, &said).await.unwrap();
    let effective = running.effective();
    assert_eq!((effective.parallel, effective.threads), (Some(2), Some(2)));
    let found = engine::check(&recipe, &running, &Access::default())
        .await
        .unwrap();
    println!("{found:#?} {effective:?} {:?}", running.version());
    assert_eq!((found.status, found.role_chunk, found.done), (200, false, true));
    assert_eq!(
        (found.usage, found.completion_tokens),
        (Some("finish chunk"), Some(16))
    );
    let verdict = |name| {
        found
            .parameters
            .iter()
            .find(|known| known.name == name)
            .map(|known| known.verdict)
    };
    for name in ["max_tokens", "max_completion_tokens", "temperature"] {
        assert_eq!(verdict(name), Some(Verdict::Honoured), "{name}");
    }
    // The stop word is one token of its own, and the answer has another one for it, with the space before it.
    for name in ["seed", "ignore_eos", "stop"] {
        assert_eq!(verdict(name), Some(Verdict::Ignored), "{name}");
    }
    let exit = running.stop().await.unwrap();
    assert_eq!(exit.code, Some(0), "{}", exit.log_tail);
}
