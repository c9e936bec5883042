//! The bridge as a process, in front of a stand-in for lm.rs's `backend` that misbehaves on request.
#![cfg(target_os = "linux")]

mod fake;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test: what the bridge starts as lm.rs.
#[test]
#[ignore = "the stand-in that other tests start"]
fn fake_backend() {
    fake::serve();
}

/// A bridge that runs until it is dropped.
struct Bridge {
    process: Child,
    url: String,
    dir: TempDir,
    client: reqwest::Client,
}

/// A folder with a model of this many embeddings of this width, a tokenizer, and a program that is the stand-in.
fn house(vocabulary: u32, dim: u32) -> TempDir {
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

fn command(dir: &Path) -> Command {
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
    async fn start(args: &[&str]) -> Bridge {
        Bridge::in_house(house(262, 64), args).await
    }

    async fn in_house(dir: TempDir, args: &[&str]) -> Bridge {
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

    async fn page(&self, path: &str) -> (u16, String) {
        let answer = self
            .client
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("a page"))
    }

    async fn ask(&self, prompt: &str, more: Value) -> Response {
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
    async fn answer(&self, prompt: &str, more: Value) -> Answer {
        let response = self.ask(prompt, more).await;
        assert_eq!(response.status(), 200);
        Answer::of(&response.text().await.expect("a stream"))
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What its backends were started with, and their process ids.
    fn starts(&self) -> Vec<(String, u32)> {
        let starts = self.log().into_iter().filter_map(|line| {
            let (pid, sampling) = line.strip_prefix("start ")?.split_once(' ')?;
            Some((sampling.to_owned(), pid.parse().ok()?))
        });
        starts.collect()
    }

    async fn until_logged(&self, line: &str) {
        until(line, || self.log().iter().any(|logged| logged == line)).await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A zombie is gone too: only its parent has not looked yet.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// What a stream said.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    events: usize,
    finish: Option<String>,
    usage: Value,
    error: Option<String>,
    done: bool,
}

impl Answer {
    fn of(stream: &str) -> Answer {
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

#[tokio::test]
async fn an_answer_is_streamed_token_by_token_and_counted() {
    let bridge = Bridge::start(&[]).await;
    let answer = bridge.answer("words 5", json!({})).await;
    assert_eq!((answer.text.as_str(), answer.events), (" w0 w1 w2 w3 w4", 5));
    assert_eq!(
        (answer.finish.as_deref(), answer.done, answer.error),
        (Some("stop"), true, None)
    );
    // The end token counts. `words 5`: seven characters, two of them one token; a date and 30 tokens of the template.
    assert_eq!(answer.usage["completion_tokens"], 6);
    assert_eq!(answer.usage["prompt_tokens"], 30 + 11 + 6);
    let (_, props) = bridge.page("/props").await;
    let props: Value = serde_json::from_str(&props).expect("JSON");
    assert_eq!(
        (&props["context"], &props["weights"]),
        (&512.into(), &"q8_0".into())
    );
}

#[tokio::test]
async fn an_answer_ends_where_it_is_to_end() {
    let bridge = Bridge::start(&[]).await;
    let bounded = bridge.answer("forever", json!({ "max_tokens": 7 })).await;
    assert_eq!((bounded.events, bounded.finish.as_deref()), (7, Some("length")));
    assert_eq!(bounded.usage["completion_tokens"], 7);
    bridge.until_logged("send failed").await;
    let stopped = bridge.answer("forever", json!({ "stop": [" w3"] })).await;
    assert_eq!(
        (stopped.text.as_str(), stopped.finish.as_deref()),
        (" w0 w1 w2", Some("stop"))
    );
    assert_eq!(stopped.usage["completion_tokens"], 4);
    // The longest answer is bounded by the context.
    let unbounded = bridge.answer("forever", json!({ "max_tokens": null })).await;
    assert_eq!(unbounded.finish.as_deref(), Some("length"));
    let total = &unbounded.usage["total_tokens"];
    assert_eq!(total, 512);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_work() {
    let bridge = Bridge::start(&[]).await;
    let mut response = bridge.ask("crawl", json!({ "max_tokens": 400 })).await;
    response.chunk().await.expect("a chunk");
    drop(response);
    bridge.until_logged("send failed").await;
    let answer = bridge.answer("words 1", json!({})).await;
    assert_eq!(answer.finish.as_deref(), Some("stop"));
}

#[tokio::test]
async fn a_panic_of_a_connection_takes_one_request_down() {
    let bridge = Bridge::start(&[]).await;
    let broken = bridge.answer("break 3", json!({})).await;
    let error = broken.error.expect("an error");
    assert!(
        error.starts_with("lm.rs broke the connection off") && error.ends_with("after 3 tokens."),
        "{error}"
    );
    assert_eq!((broken.events, broken.done), (3, false));
    let garbled = bridge.answer("garbage", json!({})).await;
    assert!(
        garbled
            .error
            .is_some_and(|error| error.contains("no message of its protocol"))
    );
    let fine = bridge.answer("status words 2", json!({})).await;
    assert_eq!((fine.events, fine.finish.as_deref()), (2, Some("stop")));
    // The one that it began with, and the one that all requests had.
    assert!(bridge.starts().len() <= 2, "{:?}", bridge.log());
}

#[tokio::test]
async fn one_that_dies_is_replaced() {
    let bridge = Bridge::start(&[]).await;
    let died = bridge.answer("die 2", json!({})).await;
    let error = died.error.expect("an error");
    assert!(error.starts_with("lm.rs died, signal: 6"), "{error}");
    let before = bridge.starts().len();
    let fine = bridge.answer("words 2", json!({})).await;
    assert_eq!(fine.finish.as_deref(), Some("stop"));
    assert_eq!(bridge.starts().len(), before + 1);
}

#[tokio::test]
async fn sampling_is_what_a_request_asks_for() {
    let bridge = Bridge::start(&[]).await;
    for temperature in [0.8, 0.8, 0.0] {
        bridge
            .answer("words 1", json!({ "temperature": temperature, "top_p": 0.95 }))
            .await;
    }
    let starts: Vec<String> = bridge
        .starts()
        .into_iter()
        .map(|(sampling, _)| sampling)
        .collect();
    assert_eq!(starts, ["1 1", "0.8 0.95", "0 0.95"]);
}

#[tokio::test]
async fn what_lm_rs_cannot_do_is_refused_by_name() {
    let bridge = Bridge::start(&[]).await;
    let user = json!({ "role": "user", "content": "words 1" });
    let refused = [
        ("ignore_eos", json!({ "ignore_eos": true })),
        ("min_tokens", json!({ "min_tokens": 3 })),
        (
            "messages",
            json!({ "messages": [{ "role": "system", "content": "Be brief." }, user] }),
        ),
        (
            "messages",
            json!({ "messages": [user, { "role": "assistant", "content": "w0" }, user] }),
        ),
        (
            "messages",
            json!({ "messages": [{ "role": "user", "content": " " }] }),
        ),
        ("messages", json!({ "max_tokens": 600 })),
    ];
    for (param, fields) in refused {
        let response = bridge.ask("words 1", fields.clone()).await;
        assert_eq!(response.status(), 400, "{fields}");
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["error"]["param"], param, "{body}");
    }
    let completion = bridge.client.post(format!("{}/v1/completions", bridge.url));
    let response = completion
        .json(&json!({ "model": "m", "prompt": "words 1" }))
        .send()
        .await
        .expect("it answers");
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn requests_beyond_the_bound_wait() {
    let bridge = Bridge::start(&["--parallel", "1"]).await;
    let mut first = bridge.ask("hold", json!({ "max_tokens": 400 })).await;
    first.chunk().await.expect("a chunk");
    let second = bridge.answer("words 2", json!({}));
    let waits = async {
        while !bridge
            .page("/metrics")
            .await
            .1
            .contains("loadtest_requests_waiting 1")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(first);
    };
    let (second, ()) = tokio::join!(second, waits);
    assert_eq!(second.finish.as_deref(), Some("stop"));
}

#[tokio::test]
async fn memory_bounds_the_requests_at_a_time() {
    // Embeddings larger than any memory.
    let bridge = Bridge::in_house(house(4_000_000, 1_000_000), &["--parallel", "8"]).await;
    let (_, props) = bridge.page("/props").await;
    let props: Value = serde_json::from_str(&props).expect("JSON");
    assert_eq!(props["parallel"], 1);
}

#[tokio::test]
async fn a_process_that_is_replaced_ends_with_its_last_request() {
    let bridge = Bridge::start(&[]).await;
    let mut old = bridge
        .ask("hold", json!({ "max_tokens": 400, "temperature": 0.5 }))
        .await;
    old.chunk().await.expect("a chunk");
    bridge.answer("words 1", json!({ "temperature": 0 })).await;
    let of = |sampling: &str| {
        let starts = bridge.starts();
        starts
            .iter()
            .find(|start| start.0 == sampling)
            .expect("it was started")
            .1
    };
    let (replaced, current) = (of("0.5 1"), of("0 1"));
    assert!(alive(replaced) && alive(current));
    drop(old);
    until("the end of the one before", || !alive(replaced)).await;
    assert!(alive(current));
}

#[tokio::test]
async fn nothing_is_left_when_the_bridge_goes() {
    let mut bridge = Bridge::start(&[]).await;
    let mut response = bridge.ask("hold", json!({ "max_tokens": 400 })).await;
    response.chunk().await.expect("a chunk");
    let pids: Vec<u32> = bridge.starts().into_iter().map(|(_, pid)| pid).collect();
    assert!(pids.iter().any(|pid| alive(*pid)));
    bridge.process.kill().expect("killed");
    until("the end of lm.rs", || pids.iter().all(|pid| !alive(*pid))).await;
}

#[test]
fn one_that_cannot_be_started_is_said_to_be() {
    let dir = house(262, 64);
    let failed = |program: PathBuf| {
        let output = command(dir.path())
            .env("LOADTEST_LMRS", program)
            .output()
            .expect("the bridge runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let missing = failed("/no/such/backend".into());
    assert!(missing.contains("cannot start /no/such/backend"), "{missing}");
    let ended = failed("/bin/false".into());
    assert!(
        ended.contains("lm.rs ended at its start, exit status: 1"),
        "{ended}"
    );
    std::fs::remove_file(dir.path().join("tokenizer.bin")).expect("removed");
    let tokenizer = failed("/bin/false".into());
    assert!(tokenizer.contains("tokenizer.bin"), "{tokenizer}");
}
