//! The reference server as a process: its faults as a client sees them, and its own word against what was read.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use loadtest_protocol::ChunkRef;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, get, post, until};

/// A running server; killed when dropped.
struct Reference {
    process: Child,
    address: SocketAddr,
}

impl Reference {
    fn start(args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_reference"))
            .args(["--ttft-ms", "2", "--itl-ms", "1", "--die-with-parent"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .unwrap()
            .parse()
            .unwrap();
        Self { process, address }
    }

    async fn stream(&self, model: &str, max_tokens: u64) -> Answer {
        let body = json!({
            "model": model, "prompt": "one two three", "max_tokens": max_tokens, "stream": true,
            "stream_options": { "include_usage": true },
        });
        post(self.address, "/v1/completions", &body).await
    }

    async fn totals(&self) -> Value {
        get(self.address, "/reference/totals").await.json()
    }

    async fn log(&self) -> Vec<Value> {
        let log = get(self.address, "/reference/log?since=0").await.text();
        log.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))
            .unwrap()
            .count()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Events of a stream that carry output; events that cannot be read do not count.
fn outputs(answer: &Answer) -> usize {
    let data = answer.data();
    data.iter()
        .filter(|data| ChunkRef::parse(data.as_bytes()).is_ok_and(|chunk| chunk.carries_output()))
        .count()
}

#[tokio::test]
async fn its_word_agrees_with_what_was_read() {
    let reference = Reference::start(&[]);
    let answers = futures::future::join_all((0..20).map(|i| reference.stream("reference", 10 + i))).await;
    let read: usize = answers.iter().map(outputs).sum();
    until("all is settled", async || {
        reference.log().await.iter().all(|record| record["done"].is_u64())
    })
    .await;
    let totals = reference.totals().await;
    assert_eq!(
        (totals["requests"].as_u64(), totals["events"].as_u64()),
        (Some(20), Some(read as u64))
    );
    assert_eq!(
        (totals["tokens"].as_u64(), totals["open_streams"].as_u64()),
        (Some(read as u64), Some(0))
    );
    for record in reference.log().await {
        let stamps = |name: &str| -> Vec<u64> { serde_json::from_value(record[name].clone()).unwrap() };
        let (received, before, after) = (
            record["received"].as_u64().unwrap(),
            stamps("before"),
            stamps("after"),
        );
        assert_eq!(
            (record["request_id"].as_str(), record["prompt_tokens"].as_u64()),
            (Some("the-test"), Some(3))
        );
        assert_eq!(record["events"].as_u64(), Some(before.len() as u64));
        assert!(before.iter().zip(&after).all(|(before, after)| before <= after));
        assert!(before.is_sorted() && record["done"].as_u64() >= after.last().copied());
        for (i, before) in before.iter().enumerate() {
            assert!(
                *before >= received + 2_000_000 + i as u64 * 1_000_000,
                "event {i} was sent before its time"
            );
        }
    }
    post(reference.address, "/reference/reset", &Value::Null).await;
    assert_eq!(reference.totals().await["events"], 0);
}

#[tokio::test]
async fn streams_that_break() {
    let reference = Reference::start(&[]);
    for (fault, expected, broken) in [
        ("truncate:after=3", 3, true),
        ("cut:after=3", 3, true),
        ("no_done", 6, false),
        ("error_event:after=3", 3, false),
    ] {
        let answer = reference.stream(&format!("reference+{fault}"), 6).await;
        assert_eq!((outputs(&answer), answer.broken), (expected, broken), "{fault}");
        assert!(!answer.data().iter().any(|data| data == "[DONE]"), "{fault}");
    }
    let malformed = reference.stream("reference+malformed:after=3", 6).await;
    assert_eq!(outputs(&malformed), 5);
    assert!(
        malformed
            .data()
            .iter()
            .any(|data| data != "[DONE]" && ChunkRef::parse(data.as_bytes()).is_err())
    );
    let empty = reference.stream("reference+empty", 6).await;
    assert_eq!(
        (outputs(&empty), empty.data().last().map(String::as_str)),
        (0, Some("[DONE]"))
    );
    until("all is over", async || {
        reference.totals().await["open_streams"] == 0
    })
    .await;
}

#[tokio::test]
async fn streams_that_are_spelt_otherwise_say_the_same() {
    let reference = Reference::start(&[]);
    let plain = reference.stream("reference", 12).await;
    for fault in ["crlf", "comments", "utf8", "batch", "batch:after=100"] {
        let answer = reference.stream(&format!("reference+{fault}"), 12).await;
        assert_eq!(
            (outputs(&answer), answer.data().len()),
            (12, plain.data().len()),
            "{fault}"
        );
    }
    let lines = reference.stream("reference+multiline", 12).await;
    assert_eq!(lines.data().len(), 2 * plain.data().len() - 1);
    let usage = |answer: &Answer| {
        let usages = answer.data();
        usages
            .iter()
            .filter_map(|data| ChunkRef::parse(data.as_bytes()).ok()?.usage?.completion_tokens)
            .next_back()
    };
    assert_eq!(usage(&plain), Some(12));
    assert_eq!(
        usage(&reference.stream("reference+wrong_usage", 12).await),
        Some(19)
    );
    assert_eq!(usage(&reference.stream("reference+no_usage", 12).await), None);
}

#[tokio::test]
async fn answers_that_are_no_streams() {
    let reference = Reference::start(&[]);
    for status in [401, 404, 429, 500] {
        let answer = reference.stream(&format!("reference+http_{status}"), 1).await;
        assert_eq!(answer.status, status);
        assert!(answer.json()["error"]["message"].is_string());
    }
    let html = reference.stream("reference+html", 1).await;
    assert!(html.status == 200 && html.text().starts_with("<!DOCTYPE html>"));
    assert_eq!(
        reference.stream("reference+no_such_fault", 1).await.json()["error"]["param"],
        "model"
    );
    let by_prompt = json!({ "prompt": "[reference http_503] hello" });
    assert_eq!(
        post(reference.address, "/v1/completions", &by_prompt)
            .await
            .status,
        503
    );
    let by_object = json!({ "prompt": "hello", "reference": { "fault": "http_502" } });
    assert_eq!(
        post(reference.address, "/v1/completions", &by_object)
            .await
            .status,
        502
    );
}

#[tokio::test]
async fn flags_choose_who_is_struck() {
    let reference = Reference::start(&["--faults", "http_500:every=3,refuse:every=1000"]);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(reference.stream("reference", 1).await.status);
    }
    assert_eq!(statuses, [200, 200, 500, 200, 200, 500]);
    assert_eq!(reference.totals().await["faults"], json!({ "http_500": 2 }));
}

#[tokio::test]
async fn what_never_answers_leaks_nothing() {
    let reference = Reference::start(&["--slots", "1"]);
    for fault in ["hang", "stall:after=2", "no_headers", "slow_headers:ms=100000"] {
        let mut socket = TcpStream::connect(reference.address).await.unwrap();
        let body = format!(r#"{{"model":"reference+{fault}","prompt":"a","max_tokens":5,"stream":true}}"#);
        let length = body.len();
        let head = format!("POST /v1/completions HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all((head + &body).as_bytes()).await.unwrap();
        until("it is taken in", async || {
            reference.totals().await["open_streams"] == 1
        })
        .await;
        drop(socket);
        until("it is let go", async || {
            reference.totals().await["open_streams"] == 0
        })
        .await;
    }
    assert_eq!(reference.totals().await["cancelled"], 4);
    assert_eq!(
        outputs(&reference.stream("reference", 3).await),
        3,
        "the slot is free again"
    );
}

#[tokio::test]
async fn ten_thousand_disconnects_leak_nothing() {
    let reference = Reference::start(&["--itl-ms", "50"]);
    let totals = reference.totals().await;
    until("the connection is closed", async || {
        reference.totals().await["open_connections"] == 1
    })
    .await;
    let (files, connections) = (reference.open_files(), totals["open_connections"].as_u64());
    let request = {
        let body = r#"{"prompt":"a","max_tokens":1000,"stream":true}"#;
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for _ in 0..100 {
        let hasty = (0..100).map(async |i| {
            let mut socket = TcpStream::connect(reference.address).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            // Some go before the answer begins, some after its head.
            if i % 2 == 0 {
                socket.read_exact(&mut [0; 15]).await.unwrap();
            }
        });
        futures::future::join_all(hasty).await;
    }
    until("no stream and no connection is left", async || {
        let totals = reference.totals().await;
        totals["open_streams"] == 0 && totals["open_connections"].as_u64() == connections
    })
    .await;
    let requests = reference.totals().await["requests"].as_u64();
    assert!(
        requests >= Some(5_000),
        "only {requests:?} requests were read before their client left"
    );
    until("no file is left", async || reference.open_files() <= files).await;
}

#[tokio::test]
async fn servers_that_do_not_come_up() {
    let never = Reference::start(&["--never-ready"]);
    assert_eq!(get(never.address, "/health").await.status, 503);
    assert_eq!(never.stream("reference", 1).await.status, 503);
    let late = Reference::start(&["--ready-after", "0.2"]);
    until("it is ready", async || {
        get(late.address, "/health").await.status == 200
    })
    .await;
    let mut dying = Reference::start(&["--die-while-loading"]);
    assert_eq!(dying.process.wait().unwrap().code(), Some(1));
    let mut mortal = Reference::start(&["--faults", "die:from=2:after=1"]);
    assert_eq!(outputs(&mortal.stream("reference", 2).await), 2);
    assert!(mortal.stream("reference", 2).await.broken);
    assert!(!mortal.process.wait().unwrap().success());
}

#[tokio::test]
async fn the_gauges_say_what_runs_and_waits() {
    let reference = Reference::start(&["--slots", "2"]);
    let gauges = async || {
        let text = get(reference.address, "/metrics").await.text();
        ["loadtest_requests_running ", "loadtest_requests_waiting "].map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().parse::<u64>().unwrap()
        })
    };
    let streams = futures::future::join_all((0..5).map(|_| reference.stream("reference", 100_000)));
    let watch = until("two run and three wait", async || gauges().await == [2, 3]);
    tokio::select! {
        _ = streams => panic!("100,000 tokens are over already"),
        () = watch => (),
    }
    until("nothing runs or waits", async || gauges().await == [0, 0]).await;
}
