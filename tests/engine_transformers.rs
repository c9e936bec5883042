//! PyTorch's two flavours: against a stand-in that refuses what `transformers serve` refuses, and for real where they are
//! installed.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use loadtest::engine::{self, Access, Settings};
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::{House, nothing_left, stderr};

/// A house in which both flavours are installed, with the stand-in as their interpreter.
struct Installed {
    house: House,
    model: PathBuf,
}

impl Installed {
    fn new() -> Installed {
        let house = House::new();
        let model = house.tiny_model();
        let environment = house.dir.path().join("ours/engines/pytorch");
        std::fs::create_dir_all(environment.join("bin")).expect("a folder");
        let python = environment.join("bin/python");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/transformers.py");
        let text = format!("#!/bin/sh\nexec python3 '{}' \"$@\"\n", script.display());
        std::fs::write(&python, text).expect("written");
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let packages = engine::recipe("pytorch")
            .expect("shipped")
            .install
            .expect("it is installed")
            .packages;
        let stamp = serde_json::json!({ "packages": packages, "version": "transformers 0.0.0-stand-in" });
        std::fs::write(environment.join("installed.json"), stamp.to_string()).expect("written");
        Installed { house, model }
    }

    fn command(&self) -> Command {
        let mut command = self.house.command();
        command.env("LOADTEST_HOME", self.house.dir.path().join("ours"));
        command
    }

    /// A short load on both.
    fn load(&self, args: &[&str]) -> Output {
        let mut command = self.command();
        command.args([
            "--engine",
            "pytorch,pytorch-cb",
            "--users",
            "2",
            "--num-prompts",
            "4",
            "--isl",
            "40",
        ]);
        command
            .args(["--osl", "20", "--no-calibrate", "--model"])
            .arg(&self.model)
            .args(args);
        let output = command.output().expect("loadtest starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        output
    }
}

#[test]
fn both_flavours_serve_one_conversion_and_give_the_length_asked_for() {
    let installed = Installed::new();
    let told = [
        "--ignore-eos",
        "--temperature",
        "0.5",
        "--top-k",
        "40",
        "--top-p",
        "1",
        "--weights",
        "bfloat16",
        "--device",
        "cpu",
    ];
    let output = installed.load(&[&told[..], &["--format", "json"]].concat());
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let engines = summary["engines"].as_array().expect("a list");
    for (step, engine) in engines.iter().enumerate() {
        let step = &summary["steps"][step];
        assert_eq!(step["requests"]["failed"], 0, "{summary:#}");
        let (ok, output) = (&step["requests"]["ok"], &step["tokens"]["output"]);
        assert_eq!(output.as_u64(), ok.as_u64().map(|ok| 20 * ok), "{step:#}");
        assert_eq!(step["tokens"]["source"], "usage");
        assert_eq!(engine["version"], "transformers 0.0.0-stand-in");
        let log = engine["log"].as_str().expect("a name");
        let log = std::fs::read_to_string(installed.house.run_dir().join(log)).expect("its log");
        assert!(log.contains("--dtype bfloat16 --device cpu"), "{log}");
    }
    assert_eq!(engines[0]["converted"], engines[1]["converted"]);
    assert_eq!(engines[0]["converted"]["format"], "safetensors float32");
    assert_eq!(engines[0]["effective"]["parallel"], 1);
    let notes = summary["notes"].to_string();
    assert!(
        notes.contains("pytorch-cb samples every answer as its first request asked"),
        "{notes}"
    );
    assert!(!notes.contains("cannot go on"), "{notes}");
    for name in ["pytorch", "pytorch-cb"] {
        assert!(notes.contains(&format!("{name} takes no top_k with")), "{notes}");
        assert!(
            notes.contains(&format!("{name} has one seed for all its requests")),
            "{notes}"
        );
    }
    nothing_left(&format!("{}/ours", installed.house.dir.path().display()));
}

#[test]
fn what_the_plain_one_does_not_do_is_said() {
    let installed = Installed::new();
    let output = installed.load(&["--ignore-eos=false", "--format", "table"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        table.contains("pytorch has 1 sequences at once, 2 were asked for"),
        "{table}"
    );
    assert!(
        table.contains("pytorch-cb ran a conversion of the model"),
        "{table}"
    );
    assert!(
        table.contains("answers were shorter than asked: 8.00 tokens on average, 20 wanted"),
        "{table}"
    );
}

#[test]
fn a_check_understands_its_stream() {
    let installed = Installed::new();
    let mut command = installed.command();
    command
        .args(["engines", "check", "pytorch", "--format", "json", "--model"])
        .arg(&installed.model);
    let output = command.output().expect("loadtest starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&found["status"], &found["role_chunk"]),
        (&200.into(), &true.into()),
        "{found:#}"
    );
    assert_eq!(
        (&found["usage"], &found["done"]),
        (&"finish chunk".into(), &false.into())
    );
    assert_eq!(found["completion_tokens"], 16);
    let parameters = found["parameters"].as_array().expect("a list");
    let verdict = |name: &str| {
        let found = parameters.iter().find(|parameter| parameter["name"] == name);
        found.expect("it was asked")["verdict"].clone()
    };
    assert_eq!(verdict("ignore_eos"), "honoured");
    assert_eq!(verdict("stream_options"), "always_sends_usage");
    assert_eq!(verdict("top_k"), serde_json::json!({ "refused": 422 }));
}

#[tokio::test]
#[ignore = "needs `loadtest engines install pytorch` (5.6 GB), and a GGUF named in LOADTEST_TEST_GGUF"]
async fn both_flavours_serve_for_real() {
    let Some(model) = std::env::var_os("LOADTEST_TEST_GGUF").map(PathBuf::from) else {
        panic!("LOADTEST_TEST_GGUF names no model")
    };
    let file = std::fs::read(&model).unwrap();
    let sha256: String = Sha256::digest(&file)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let said = |status: &str| println!("{status}");
    for name in ["pytorch", "pytorch-cb"] {
        let dir = tempfile::tempdir().unwrap();
        let recipe = engine::recipe(name).unwrap();
        let program = engine::install(&recipe, &said).unwrap();
        let converted = engine::convert(&recipe, &model, &sha256, &said).unwrap().unwrap();
        assert_eq!(converted.bits_per_weight, Some(32.0));
        let mut settings = Settings::new(converted.path, "a-model", dir.path().join("engine.log"));
        (settings.parallel, settings.context, settings.threads) = (2, 512, 2);
        settings.guard = env!("CARGO_BIN_EXE_loadtest").into();
        let running = engine::start(&recipe, &program, &settings, &said).await.unwrap();
        let found = engine::check(&recipe, &running, &Access::default())
            .await
            .unwrap();
        println!("{found:#?} {:?} {:?}", running.effective(), running.version());
        assert_eq!((found.status, found.role_chunk, found.done), (200, true, false));
        assert_eq!(
            (found.usage, found.completion_tokens),
            (Some("finish chunk"), Some(16))
        );
        running.stop().await.unwrap();
    }
}
