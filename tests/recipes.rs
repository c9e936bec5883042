//! Every recipe whose server speaks OpenAI's API, against a stand-in that takes the real one's arguments, refuses what it
//! refuses, and replays its stream; and lm.rs's behind its bridge. Ollama and the command line have tests of their own.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{House, nothing_left, stderr};

/// A recipe, the variable that names its program, and whether it takes a GGUF.
struct Case {
    name: &'static str,
    env: &'static str,
    gguf: bool,
}

const CASES: [Case; 5] = [
    Case {
        name: "llamacpp",
        env: "LOADTEST_LLAMA_SERVER",
        gguf: true,
    },
    Case {
        name: "vllm",
        env: "LOADTEST_VLLM",
        gguf: false,
    },
    Case {
        name: "sglang",
        env: "LOADTEST_SGLANG",
        gguf: false,
    },
    Case {
        name: "tgi",
        env: "LOADTEST_TGI",
        gguf: false,
    },
    Case {
        name: "uzu",
        env: "LOADTEST_UZU",
        gguf: false,
    },
];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/engine.py")
}

/// A house with a program that is the stand-in for `name`, and with its recipe as one for any system.
fn house(name: &str) -> (House, PathBuf) {
    let house = House::new();
    let program = house.dir.path().join(name);
    let text = format!(
        "#!/bin/sh\nexec python3 '{}' {name} '{}' \"$@\"\n",
        script().display(),
        house.dir.path().display()
    );
    std::fs::write(&program, text).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("servers/{name}/engine.toml"));
    let recipe = std::fs::read_to_string(shipped).expect("its recipe");
    house.engine(name, &recipe.replace("platforms = [\"macos\"]\n", ""));
    (house, program)
}

/// A model of Hugging Face's form: its text side, which is all that is read here.
fn folder(house: &House) -> PathBuf {
    let folder = house.dir.path().join("tiny");
    std::fs::create_dir(&folder).expect("a folder");
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": { "type": "Whitespace" }, "decoder": null,
        "model": { "type": "WordLevel", "vocab": { "[UNK]": 0, "word": 1 }, "unk_token": "[UNK]" },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    std::fs::write(folder.join("config.json"), "{\"max_position_embeddings\": 4096}").expect("written");
    folder
}

fn run(case: &Case, args: &[&str]) -> (Value, String) {
    let (house, program) = house(case.name);
    let model = match case.gguf {
        true => house.tiny_model(),
        false => folder(&house),
    };
    let output = house
        .command()
        .env(case.env, &program)
        .env("LOADTEST_HOME", house.dir.path().join("ours"))
        .args(args)
        .args(["--model", model.to_str().expect("UTF-8"), "--format", "json"])
        .output()
        .expect("loadtest starts");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}: {}",
        case.name,
        stderr(&output)
    );
    nothing_left(&format!("engine.py {} {}", case.name, house.dir.path().display()));
    let told = serde_json::from_slice(&output.stdout).expect("JSON");
    (told, stderr(&output))
}

#[test]
fn each_stream_is_understood() {
    for case in &CASES {
        let (found, _) = run(case, &["engines", "check", case.name]);
        insta::assert_json_snapshot!(case.name, found);
    }
}

#[test]
fn each_is_driven_and_what_it_sent_is_counted() {
    for case in &CASES {
        let load = ["--users", "2", "--num-prompts", "4", "--osl", "12", "--isl", "40"];
        let short = ["--ignore-eos", "--warmup", "0s", "--ramp", "0s", "--no-calibrate"];
        let (summary, _) = run(case, &[&["--engine", case.name][..], &load, &short].concat());
        let (engine, step) = (&summary["engines"][0], &summary["steps"][0]);
        let all = &step["requests"];
        assert_eq!(
            (&all["ok"], &all["failed"]),
            (&4.into(), &0.into()),
            "{}: {step:#}",
            case.name
        );
        assert_eq!(step["tokens"]["source"], "usage", "{}", case.name);
        // One that knows no `ignore_eos` ends where its recorded stream did, and the report says so.
        let notes = summary["notes"].to_string();
        let stops = notes.contains(&format!("{} cannot go on past", case.name));
        assert_eq!(stops, ["tgi", "uzu"].contains(&case.name), "{notes}");
        let told = |key: &str| engine["effective"][key].as_u64();
        let wanted = |key: &str| engine["wanted"][key].as_u64();
        let mut keys: Vec<&String> = engine["wanted"].as_object().expect("settings").keys().collect();
        keys.sort();
        let passed: &[&str] = match case.name {
            "llamacpp" => &["context", "parallel", "threads"],
            "uzu" => &[],
            _ => &["context", "parallel"],
        };
        assert_eq!(keys, passed, "{}", case.name);
        if case.name == "sglang" {
            assert_eq!(
                (&engine["effective"]["batch"], &engine["effective"]["device"]),
                (&2048.into(), &"cuda".into())
            );
        }
        match case.name {
            "llamacpp" | "sglang" => {
                assert_eq!(
                    (told("parallel"), told("context")),
                    (wanted("parallel"), wanted("context"))
                );
            }
            "vllm" | "tgi" => assert_eq!(told("context"), wanted("context")),
            _ => assert_eq!(told("context"), None),
        }
    }
}

#[test]
fn what_a_server_cannot_be_told_is_left_out_and_said() {
    for case in &CASES {
        let load = ["--users", "2", "--num-prompts", "4", "--osl", "4", "--isl", "40"];
        let short = ["--warmup", "0s", "--ramp", "0s", "--no-calibrate"];
        let drawn = ["--engine", case.name, "--top-k", "40", "--top-p", "1"];
        let (summary, _) = run(case, &[&drawn[..], &load, &short].concat());
        let step = &summary["steps"][0];
        let (ok, failed) = (&step["requests"]["ok"], &step["requests"]["failed"]);
        assert_eq!((ok, failed), (&4.into(), &0.into()), "{}: {step:#}", case.name);
        let notes = summary["notes"].to_string();
        let missing = match case.name {
            "tgi" => Some("tgi takes no top_k with"),
            "uzu" => Some("uzu takes no seed with"),
            _ => None,
        };
        assert_eq!(notes.contains(" takes no "), missing.is_some(), "{notes}");
        assert!(notes.contains(missing.unwrap_or_default()), "{notes}");
    }
}

/// The bridge to lm.rs, built beside the program under test, which finds it there.
fn build_bridge() {
    let folder = Path::new(env!("CARGO_BIN_EXE_loadtest"))
        .parent()
        .expect("a folder");
    let mut build = Command::new(env!("CARGO"));
    // With the features of the whole workspace, as tests of it are built.
    build
        .args(["build", "--quiet", "--workspace", "--bin", "loadtest-lmrs"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", folder.parent().expect("target"));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(
        build.status().expect("cargo runs").success(),
        "the bridge does not build"
    );
}

/// What lm.rs reads, of one layer and without weights.
fn write_lmrs(folder: &Path) {
    let mut model = b"lmrs".to_vec();
    for number in [4_u32, 64, 8, 1, 1, 8, 1, 260, 512] {
        model.extend(number.to_le_bytes());
    }
    model.extend([0; 8]);
    model.extend([1, 1]);
    model.resize(256, 0);
    std::fs::write(folder.join("model.lmrs"), model).expect("written");
    let mut tokenizer: Vec<u8> = [260_u32, 64, 0, 1]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    for token in 0..260 {
        let name = format!("<{token}>");
        tokenizer.extend(0_f32.to_le_bytes());
        tokenizer.extend((name.len() as u32).to_le_bytes());
        tokenizer.extend(name.as_bytes());
    }
    std::fs::write(folder.join("tokenizer.bin"), tokenizer).expect("written");
}

#[test]
fn lm_rs_is_driven_through_its_bridge() {
    build_bridge();
    let house = House::new();
    let model = folder(&house);
    write_lmrs(&model);
    let program = house.dir.path().join("backend");
    let stand_in = script().with_file_name("lmrs.py");
    std::fs::write(
        &program,
        format!("#!/bin/sh\nexec python3 '{}' \"$@\"\n", stand_in.display()),
    )
    .expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let load = [
        "--engine",
        "lmrs",
        "--users",
        "2",
        "--num-prompts",
        "4",
        "--osl",
        "12",
        "--isl",
        "40",
    ];
    let short = [
        "--warmup",
        "0s",
        "--ramp",
        "0s",
        "--no-calibrate",
        "--format",
        "json",
        "--top-k",
        "40",
        "--top-p",
        "1",
    ];
    let output = house
        .command()
        .env("LOADTEST_LMRS", &program)
        .env("LOADTEST_NO_BUILD", "1")
        .args(load)
        .args(short)
        .args(["--model", model.to_str().expect("UTF-8")])
        .output()
        .expect("loadtest starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    nothing_left("stand-ins/lmrs.py");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (engine, step) = (&summary["engines"][0], &summary["steps"][0]);
    assert_eq!(
        (&step["requests"]["ok"], &step["requests"]["failed"]),
        (&4.into(), &0.into()),
        "{step:#}"
    );
    assert_eq!(
        (&step["tokens"]["output"], &step["tokens"]["source"]),
        (&48.into(), &"usage".into()),
        "{step:#}"
    );
    assert_eq!(
        (&engine["kind"], &engine["effective"]["context"]),
        (&"bridge".into(), &512.into())
    );
    let notes = summary["notes"].to_string();
    assert!(notes.contains("lmrs takes no top_k, seed with"), "{notes}");
}

#[test]
fn without_lm_rs_its_bridge_is_not_built() {
    let house = House::new();
    let mut listing = house.command();
    let output = listing
        .env_remove("LOADTEST_LMRS")
        .args(["engines", "--format", "json"])
        .output();
    let output = output.expect("loadtest starts");
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let row = rows
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["name"] == "lmrs")
        .expect("its row");
    assert_eq!(row["state"], "missing");
    assert!(row["what_to_do"].to_string().contains("LOADTEST_LMRS"), "{row}");
}
