//! The program around an engine, on the real model.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with the test.
struct Server {
    process: Child,
    address: String,
    /// Open as long as the server may write to it.
    _output: BufReader<ChildStdout>,
}

impl Server {
    fn start(binary: &str, model: &Path) -> Self {
        let mut process = Command::new(binary)
            .args([
                "--port",
                "0",
                "--parallel",
                "3",
                "--context",
                "256",
                "--threads",
                "2",
            ])
            .args(["--die-with-parent", "--model"])
            .arg(model)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server's program");
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
        output.read_line(&mut line).expect("where it listens");
        let address = line.trim().rsplit("//").next().unwrap_or_default().to_owned();
        Self {
            process,
            address,
            _output: output,
        }
    }

    /// Status and body.
    fn ask(&self, request: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(&self.address).expect("a connection");
        socket.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ))
    }

    fn post(&self, path: &str, body: &serde_json::Value) -> (u16, String) {
        let body = body.to_string();
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server answers greedily, the same alone and beside others, and says what it has under `/props` and `/metrics`.
pub fn serves(binary: &str, engine: &str, model: &Path) {
    let server = Server::start(binary, model);
    let started = Instant::now();
    while server.get("/health").0 != 200 {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "the model is not loaded"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let (_, props) = server.get("/props");
    let props: serde_json::Value = serde_json::from_str(&props).expect("a JSON page");
    assert_eq!(props["engine"], engine);
    for (key, value) in [("parallel", 3), ("context", 256), ("threads", 2)] {
        assert_eq!(props[key], value, "{key}");
    }
    let complete = |prompt: &str| {
        let body = serde_json::json!({"model": props["model"], "prompt": prompt, "max_tokens": 12, "temperature": 0,
            "ignore_eos": true});
        let (status, answer) = server.post("/v1/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("a JSON answer");
        assert_eq!(answer["usage"]["completion_tokens"], 12);
        answer["choices"][0]["text"].as_str().expect("a text").to_owned()
    };
    let prompts = [
        "The capital of France is",
        "Once upon a time",
        "One, two, three, four,",
    ];
    let alone = prompts.map(complete);
    assert!(alone[0].contains("Paris"), "{alone:?}");
    let together = std::thread::scope(|scope| {
        let answers = prompts.map(|prompt| scope.spawn(move || complete(prompt)));
        answers.map(|answer| answer.join().expect("an answer"))
    });
    assert_eq!(alone, together);
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.contains("loadtest_requests_running 0"), "{metrics}");
}

/// A server that is asked for more KV memory than the machine has refuses at its start.
pub fn refuses_more_kv_memory_than_there_is(binary: &str, model: &Path, args: &[&str]) {
    let output = Command::new(binary)
        .args(["--port", "0", "--parallel", "1000000000", "--context", "2048"])
        .args(args)
        .arg("--model")
        .arg(model)
        .output()
        .expect("the server's program");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("--parallel 1000000000 and --context 2048 need"),
        "{message}"
    );
}
