//! A bridge of its own for each test, and what its streams say.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A bridge that runs until it is dropped.
pub struct Bridge {
    pub process: Child,
    pub url: String,
    dir: TempDir,
    pub client: reqwest::Client,
}

/// A folder with a model of this many embeddings of this width, a tokenizer, and a program that is the stand-in.
pub fn house(vocabulary: u32, dim: u32) -> TempDir {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("a folder");
    let mut model = b"lmrs".to_vec();
    for number in [4, dim, 8, 1, 1, 8, 1, vocabulary, 512] {
        model.extend(number.to_le_bytes());
    }
    model.extend([0; 8]);
    // Q8_0, of the family of Llama.
    model.extend([1, 1]);
    model.resize(256, 0);
    std::fs::write(dir.path().join("model.lmrs"), model).expect("written");
    let mut tokenizer: Vec<u8> = [262_u32, 4, 1, 2]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    for token in special
        .into_iter()
        .chain(bytes)
        .chain(["w".into(), "o".into(), "wo".into()])
    {
        tokenizer.extend(1_f32.to_le_bytes());
        tokenizer.extend((token.len() as u32).to_le_bytes());
        tokenizer.extend(token.as_bytes());
    }
    std::fs::write(dir.path().join("tokenizer.bin"), tokenizer).expect("written");
    let program = dir.path().join("backend");
    let this = std::env::current_exe().expect("this program");
    let script = format!(
        "#!/bin/sh\nFAKE_ARGS=\"$*\" exec '{}' --exact fake_backend --ignored --nocapture\n",
        this.display()
    );
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    dir
}

pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest-lmrs"));
    command
        .args([
            "--port",
            "0",
            "--model-name",
            "m",
            "--threads",
            "1",
            "--die-with-parent",
            "--model",
        ])
        .arg(dir)
        .env("LOADTEST_LMRS", dir.join("backend"))
        .env("FAKE_LOG", dir.join("log"));
    command
}

impl Bridge {
    pub async fn start(args: &[&str]) -> Bridge {
        Bridge::in_house(house(262, 64), args).await
    }

    pub async fn in_house(dir: TempDir, args: &[&str]) -> Bridge {
        let mut process = command(dir.path())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bridge starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output is piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("it says where it listens");
        // What its backend says goes the same way.
        std::thread::spawn(move || lines.lines().count());
        let bridge = Bridge {
            process,
            url: line.split_whitespace().last().unwrap_or_default().to_owned(),
            dir,
            client: reqwest::Client::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        while bridge.page("/health").await.0 != 200 {
            assert!(Instant::now() < deadline, "it did not get ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bridge
    }

    pub async fn page(&self, path: &str) -> (u16, String) {
        let answer = self
            .client
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("a page"))
    }

    pub async fn ask(&self, prompt: &str, more: Value) -> Response {
        let mut body = json!({
            "model": "m",
            "messages": [{ "role": "user", "content": prompt }],
            "stream": true,
            "stream_options": { "include_usage": true },
            "max_tokens": 64,
        });
        for (name, value) in more.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let url = format!("{}/v1/chat/completions", self.url);
        self.client
            .post(url)
            .json(&body)
            .send()
            .await
            .expect("it answers")
    }

    /// A whole streamed answer.
    pub async fn answer(&self, prompt: &str, more: Value) -> Answer {
        let response = self.ask(prompt, more).await;
        assert_eq!(response.status(), 200);
        Answer::of(&response.text().await.expect("a stream"))
    }

    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What its backends were started with, and their process ids.
    pub fn starts(&self) -> Vec<(String, u32)> {
        let starts = self.log().into_iter().filter_map(|line| {
            let (pid, sampling) = line.strip_prefix("start ")?.split_once(' ')?;
            Some((sampling.to_owned(), pid.parse().ok()?))
        });
        starts.collect()
    }

    pub async fn until_logged(&self, line: &str) {
        until(line, || self.log().iter().any(|logged| logged == line)).await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A zombie is gone too: only its parent has not looked yet.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// What a stream said.
#[derive(Debug, Default)]
pub struct Answer {
    pub text: String,
    pub events: usize,
    pub finish: Option<String>,
    pub usage: Value,
    pub error: Option<String>,
    pub done: bool,
}

impl Answer {
    pub fn of(stream: &str) -> Answer {
        let mut answer = Answer::default();
        for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
            if data == "[DONE]" {
                answer.done = true;
                continue;
            }
            let chunk: Value = serde_json::from_str(data).expect("JSON");
            let text = chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default();
            answer.text.push_str(text);
            answer.events += usize::from(!text.is_empty());
            let string = |value: &Value| value.as_str().map(str::to_owned);
            answer.finish = string(&chunk["choices"][0]["finish_reason"]).or(answer.finish);
            answer.error = string(&chunk["error"]["message"]).or(answer.error);
            if chunk["usage"].is_object() {
                answer.usage = chunk["usage"].clone();
            }
        }
        answer
    }
}
