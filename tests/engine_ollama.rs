//! Ollama: against a stand-in that refuses what it refuses, and for real where LOADTEST_OLLAMA names it.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use loadtest::engine::{self, Settings};
use serde_json::Value;
use support::{House, stderr};

#[test]
fn a_model_is_made_in_the_running_server_and_what_it_cannot_do_is_said() {
    let house = House::new();
    let program = house.dir.path().join("ollama");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/ollama.py");
    let text = format!("#!/bin/sh\nexec python3 '{}' \"$@\"\n", script.display());
    std::fs::write(&program, text).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let model = house.tiny_model();
    let output = house
        .command()
        .env("LOADTEST_OLLAMA", &program)
        .env("LOADTEST_HOME", house.dir.path().join("ours"))
        .args([
            "--engine",
            "ollama",
            "--model",
            model.to_str().expect("UTF-8"),
            "--users",
            "2",
        ])
        .args([
            "--num-prompts",
            "4",
            "--osl",
            "8",
            "--isl",
            "40",
            "--no-calibrate",
            "--format",
            "json",
        ])
        .output()
        .expect("loadtest starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let engine = &summary["engines"][0];
    assert!(
        engine["version"]
            .as_str()
            .is_some_and(|version| version.contains("0.0.0-stand-in")),
        "{engine:#}"
    );
    assert_eq!(summary["steps"][0]["requests"]["failed"], 0, "{summary:#}");
    let notes = summary["notes"].to_string();
    assert!(
        notes.contains("ollama cannot go on past its model's end token"),
        "{notes}"
    );
    assert!(house.dir.path().join("ours/engines/ollama/models").is_dir());
}

#[tokio::test]
#[ignore = "needs `ollama` in LOADTEST_OLLAMA or on PATH, and a GGUF named in LOADTEST_TEST_GGUF"]
async fn ollama_serves_and_is_understood() {
    let Some(model) = std::env::var_os("LOADTEST_TEST_GGUF") else {
        panic!("LOADTEST_TEST_GGUF names no model")
    };
    let dir = tempfile::tempdir().unwrap();
    let recipe = engine::recipe("ollama").unwrap();
    let said = |status: &str| println!("{status}");
    let program = engine::ensure(&recipe, None, &said).unwrap();
    let mut settings = Settings::new(model, "a-model", dir.path().join("engine.log"));
    (settings.parallel, settings.context) = (2, 512);
    settings.guard = env!("CARGO_BIN_EXE_loadtest").into();
    let running = engine::start(&recipe, &program, &settings, &said).await.unwrap();
    let found = engine::check(&recipe, &running).await.unwrap();
    println!("{found:#?} {:?} {:?}", running.effective(), running.version());
    assert_eq!((found.status, found.done), (200, true));
    assert_eq!(found.usage, Some("own chunk"));
    running.stop().await.unwrap();
}
