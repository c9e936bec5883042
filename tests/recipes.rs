//! Every recipe whose server speaks OpenAI's API, against a stand-in that takes the real one's arguments, refuses what it
//! refuses, and replays its stream; and lm.rs's behind its bridge. Ollama and the command line have tests of their own.
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

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

/// A stand-in that runs already.
struct Running {
    process: Child,
    url: String,
}

impl Running {
    fn start(name: &str, more: &[&str]) -> Running {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("its address").port().to_string();
        drop(free);
        let process = Command::new("python3")
            .arg(script())
            .args([name, "-", "--port", &port])
            .args(more)
            .spawn();
        let running = Running {
            process: process.expect("python3 runs"),
            url: format!("http://127.0.0.1:{port}"),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !running.answers() {
            assert!(Instant::now() < deadline, "the stand-in does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        running
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.url.trim_start_matches("http://")) else {
            return false;
        };
        let asked = stream.write_all(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut line = String::new();
        asked.is_ok() && BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("HTTP/")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn lm_studio_is_asked_where_it_runs() {
    let (house, _) = house("lmstudio");
    let server = Running::start("lmstudio", &[]);
    let check = |more: &[&str]| {
        let args = [
            "engines",
            "check",
            "lmstudio",
            "--url",
            &server.url,
            "--format",
            "json",
        ];
        house.run(&[&args[..], more].concat())
    };
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    insta::assert_json_snapshot!("lmstudio", found);
    let unknown = check(&["--model", "not-loaded"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("has no model `not-loaded`; name one of these with --model: loaded-model")
    );
}

#[test]
fn lm_studio_is_driven_where_it_runs() {
    let (house, _) = house("lmstudio");
    let server = Running::start("lmstudio", &[]);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/lmstudio/engine.toml");
    let recipe = std::fs::read_to_string(recipe).expect("its recipe");
    house.engine("lmstudio", &recipe.replace("http://127.0.0.1:1234", &server.url));
    let load = [
        "--engine",
        "lmstudio",
        "--model",
        "loaded-model",
        "--users",
        "2",
        "--num-prompts",
        "4",
    ];
    let drawn = ["--osl", "4", "--isl", "40", "--top-k", "40", "--top-p", "1"];
    let short = [
        "--warmup",
        "0s",
        "--ramp",
        "0s",
        "--no-calibrate",
        "--format",
        "json",
    ];
    let output = house.run(&[&load[..], &drawn, &short].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let requests = &summary["steps"][0]["requests"];
    assert_eq!((&requests["ok"], &requests["failed"]), (&4.into(), &0.into()));
    assert!(!summary["notes"].to_string().contains(" takes no "));
}

/// What a check of this stand-in, which runs already, prints as JSON, and how it ends.
fn checked(house: &House, url: &str, more: &[&str], key: Option<&str>) -> Output {
    let args = ["engines", "check", "attach", "--url", url, "--format", "json"];
    let mut command = house.command();
    command.args(args).args(more);
    if let Some(key) = key {
        command.env("OPENAI_API_KEY", key);
    }
    command.output().expect("loadtest starts")
}

#[test]
fn a_check_shows_the_key_or_the_header_that_a_server_wants() {
    let house = House::new();
    let server = Running::start("lmstudio", &["--key", "sesame"]);
    for (more, key) in [
        (&[][..], Some("sesame")),
        (&["--header", "X-Key: sesame"][..], None),
    ] {
        let output = checked(&house, &server.url, more, key);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            (&found["status"], &found["done"]),
            (&200.into(), &true.into()),
            "{found:#}"
        );
        let told = [
            stderr(&output),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ]
        .concat();
        assert!(!told.contains("sesame"), "{told}");
    }
}

#[test]
fn a_load_shows_its_headers_from_its_first_question_on() {
    let house = House::new();
    let server = Running::start("lmstudio", &["--key", "sesame"]);
    // No model is named, so the server is asked for its list.
    let short = ["--users", "1", "--num-prompts", "2", "--osl", "4", "--isl", "40"];
    let (code, summary) = house.load(
        &server.url,
        &[&short[..], &["--header", "X-Key: sesame"]].concat(),
    );
    assert_eq!(code, Some(0), "{summary:#}");
    assert_eq!(summary["steps"][0]["requests"]["ok"], 2, "{summary:#}");
}

#[test]
fn a_check_that_is_refused_fails() {
    let house = House::new();
    let server = Running::start("lmstudio", &["--key", "sesame"]);
    let named = ["--model", "loaded-model"];
    let output = checked(&house, &server.url, &named, Some("wrong"));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["status"], 401, "{found:#}");
    let words = "attach refused the request: HTTP 401: {\"error\": {\"message\": \"no key, no answer\"}}";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    // Without a name it asks for the list of models first.
    let unnamed = checked(&house, &server.url, &[], None);
    assert_eq!(unnamed.status.code(), Some(1));
    assert!(stderr(&unnamed).contains("401"), "{}", stderr(&unnamed));
}

#[test]
fn a_check_asks_by_the_names_that_the_recipe_has() {
    let house = House::new();
    let server = Running::start("renamed", &[]);
    let text = format!(
        "name = 'renamed'\ntitle = 'x'\nkind = 'attach'\ndescription = 'x'\nurl = '{}'\n\
         [dialect]\ntemperature = 'heat'\ntop_p = 'nucleus'\ntop_k = 'likeliest'\nseed = 'start'\n\
         ignore_eos = 'go_on'\n",
        server.url
    );
    house.engine("renamed", &text);
    let output = house.run(&["engines", "check", "renamed", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = found["parameters"].as_array().expect("a list");
    for name in ["temperature", "top_p", "top_k", "seed", "ignore_eos"] {
        let parameter = all.iter().find(|parameter| parameter["name"] == name);
        assert_eq!(
            parameter.expect("it was asked")["verdict"],
            "honoured",
            "{name}: {found:#}"
        );
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
