//! Ollama: against a stand-in that refuses what it refuses, and for real where LOADTEST_OLLAMA names it.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use loadtest::engine::{self, Access, Recipe, Running, Settings, Verdict};
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
            "20",
            "--isl",
            "40",
            "--top-k",
            "40",
            "--top-p",
            "1",
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
    let step = &summary["steps"][0];
    let (ok, failed) = (&step["requests"]["ok"], &step["requests"]["failed"]);
    assert_eq!((ok, failed), (&4.into(), &0.into()), "{step:#}");
    // Four answers as they were recorded: 12 tokens, where 20 were asked for.
    let tokens = (&step["tokens"]["output"], &step["tokens"]["source"]);
    assert_eq!(tokens, (&48.into(), &"usage".into()), "{step:#}");
    let notes = summary["notes"].to_string();
    assert!(
        notes.contains("ollama cannot go on past its model's end token"),
        "{notes}"
    );
    assert!(notes.contains("ollama takes no top_k with"), "{notes}");
    assert!(house.dir.path().join("ours/engines/ollama/models").is_dir());
}

/// The servers of these tests share a folder of models: one at a time.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server of the real one, on the model in LOADTEST_TEST_GGUF, that is to answer so many at once.
async fn real(parallel: u32, dir: &Path) -> (Recipe, Running) {
    let Some(model) = std::env::var_os("LOADTEST_TEST_GGUF") else {
        panic!("LOADTEST_TEST_GGUF names no model")
    };
    let recipe = engine::recipe("ollama").unwrap();
    let said = |status: &str| println!("{status}");
    let program = engine::ensure(&recipe, None, &said).unwrap();
    let mut settings = Settings::new(model, "a-model", dir.join("engine.log"));
    (settings.parallel, settings.context) = (parallel, 512);
    settings.guard = env!("CARGO_BIN_EXE_loadtest").into();
    let running = engine::start(&recipe, &program, &settings, &said).await.unwrap();
    (recipe, running)
}

#[tokio::test]
#[ignore = "needs `ollama` in LOADTEST_OLLAMA or on PATH, and a GGUF named in LOADTEST_TEST_GGUF"]
async fn ollama_serves_and_is_understood() {
    let _one = ONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let (recipe, running) = real(2, dir.path()).await;
    let found = engine::check(&recipe, &running, &Access::default())
        .await
        .unwrap();
    println!("{found:#?} {:?} {:?}", running.effective(), running.version());
    assert_eq!((found.status, found.done), (200, true));
    assert_eq!(found.usage, Some("own chunk"));
    let verdict = |name| {
        let known = found.parameters.iter().find(|known| known.name == name);
        known.expect("it was asked").verdict
    };
    for name in ["stream_options", "temperature", "top_p", "seed"] {
        assert_eq!(verdict(name), Verdict::Honoured, "{name}");
    }
    for name in ["max_completion_tokens", "top_k", "ignore_eos"] {
        assert_eq!(verdict(name), Verdict::Ignored, "{name}");
    }
    running.stop().await.unwrap();
}

/// Streams a long answer, and writes `name` down for each piece of text as it comes.
async fn answer(running: &Running, name: char, pieces: &Mutex<Vec<char>>) {
    let body = serde_json::json!({
        "model": running.model_name(), "stream": true, "max_tokens": 64, "temperature": 0,
        "messages": [{ "role": "user", "content": format!("Tell me a long story about {name} and the sea.") }],
    });
    let url = format!("{}/v1/chat/completions", running.base_url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut response = client.post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    while let Some(chunk) = response.chunk().await.unwrap() {
        let chunk = String::from_utf8_lossy(&chunk);
        let new = chunk.matches("\"finish_reason\":null").count();
        pieces.lock().unwrap().extend(std::iter::repeat_n(name, new));
    }
}

#[tokio::test]
#[ignore = "needs `ollama` in LOADTEST_OLLAMA or on PATH, and a GGUF named in LOADTEST_TEST_GGUF"]
async fn ollama_answers_as_many_at_once_as_it_is_told() {
    let _one = ONE.lock().await;
    for parallel in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let (_, running) = real(parallel, dir.path()).await;
        let pieces = Mutex::default();
        tokio::join!(answer(&running, 'A', &pieces), answer(&running, 'B', &pieces));
        running.stop().await.unwrap();
        let pieces: String = pieces.into_inner().unwrap().into_iter().collect();
        println!("{parallel}: {pieces}");
        let both_began = pieces.find('A').max(pieces.find('B'));
        let one_ended = pieces.rfind('A').min(pieces.rfind('B'));
        assert!(pieces.contains('A') && pieces.contains('B'), "{pieces}");
        assert_eq!(both_began < one_ended, parallel == 2, "{pieces}");
    }
}
