//! What tests of the program share: the scripted server, and `loadtest` as a process.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The reference server's program, built with the same profile as the tests.
pub fn reference_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let loadtest = Path::new(env!("CARGO_BIN_EXE_loadtest"));
        let folder = loadtest.parent().expect("the program lies in a folder");
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--package",
            "loadtest-shell",
            "--bin",
            "reference",
        ]);
        build
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", folder.parent().expect("target"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().expect("cargo runs").success(),
            "the reference server does not build"
        );
        folder.join("reference")
    })
}

/// A reference server that runs until it is dropped.
pub struct Reference {
    process: Child,
    pub url: String,
}

impl Reference {
    pub fn start(args: &[&str]) -> Reference {
        let mut process = Command::new(reference_program())
            .args(args)
            .arg("--die-with-parent")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the reference server starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says where it listens");
        let url = line.split_whitespace().last().unwrap_or_default().to_owned();
        assert!(url.starts_with("http://"), "it said {line:?}");
        Reference { process, url }
    }

    /// What it says it sent.
    pub fn totals(&self) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let url = format!("{}/reference/totals", self.url);
        runtime.block_on(async {
            reqwest::get(url)
                .await
                .expect("it answers")
                .json()
                .await
                .expect("JSON")
        })
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `loadtest` with a folder of its own for results, configuration and cache.
pub struct House {
    pub dir: TempDir,
    env: Option<(&'static str, PathBuf)>,
}

impl House {
    pub fn new() -> House {
        House {
            dir: tempfile::tempdir().expect("a temporary folder"),
            env: None,
        }
    }

    /// With a variable in the program's environment.
    pub fn with_env(mut self, name: &'static str, value: PathBuf) -> House {
        self.env = Some((name, value));
        self
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command
            .current_dir(self.dir.path())
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("OPENAI_API_KEY")
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .stdin(Stdio::null())
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("loadtest starts")
    }

    /// A short load against `url`, with more flags; returns the exit code and the summary.
    pub fn load(&self, url: &str, args: &[&str]) -> (Option<i32>, Value) {
        let fixed = [
            "--url",
            url,
            "--format",
            "json",
            "--no-progress",
            "--no-calibrate",
            "--warmup",
            "0s",
            "--ramp",
            "0s",
        ];
        let output = self
            .command()
            .args(fixed)
            .args(args)
            .output()
            .expect("loadtest starts");
        let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: stdout {:?}, stderr {}",
                String::from_utf8_lossy(&output.stdout),
                stderr(&output)
            )
        });
        (output.status.code(), summary)
    }

    /// Adds an engine of the user's own.
    pub fn engine(&self, name: &str, recipe: &str) {
        let folder = self.dir.path().join("config/loadtest/servers").join(name);
        std::fs::create_dir_all(&folder).expect("a folder for the recipe");
        std::fs::write(folder.join("engine.toml"), recipe).expect("the recipe is written");
    }

    /// The smallest model file that is whole: a GGUF of a few words, so that no test needs a download.
    pub fn tiny_model(&self) -> PathBuf {
        let path = self.dir.path().join("tiny.gguf");
        std::fs::write(&path, include_bytes!("../data/tiny.gguf")).expect("written");
        path
    }

    /// The folder of the only run.
    pub fn run_dir(&self) -> PathBuf {
        let results = self.dir.path().join("results");
        let mut runs = std::fs::read_dir(&results)
            .expect("results")
            .flatten()
            .map(|entry| entry.path());
        let run = runs.next().expect("a run");
        assert!(runs.next().is_none(), "more than one run");
        run
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No process with this word in its command line is left.
pub fn nothing_left(word: &str) {
    let found = Command::new("pgrep")
        .args(["-f", word])
        .output()
        .expect("pgrep runs");
    assert!(
        found.stdout.is_empty(),
        "left running: {}",
        String::from_utf8_lossy(&found.stdout)
    );
}

/// Reads one request; nothing more comes when it says so.
pub fn read_request(tcp: &mut BufReader<TcpStream>) -> bool {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if tcp.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = told.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            return tcp.read_exact(&mut vec![0; length]).is_ok();
        }
    }
}
