//! Servers that run already, as LM Studio does: asked and driven where they are, with what they want to be shown. A stand-in
//! takes their place.
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{House, stderr};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/engine.py")
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
    let house = House::new();
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
    let house = House::new();
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
