//! The HTTP side, through real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use loadtest_protocol::ChunkRef;
use loadtest_shell::Limits;
use loadtest_shell::routes::{self, Server};
use serde_json::{Value, json};

use crate::client::{ask, get, post, send, until};
use crate::fake::Hold;

async fn listen(server: Arc<Server>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes::router(server)).await });
    address
}

async fn start(parallel: usize, queue: usize) -> (SocketAddr, Hold, Arc<Server>) {
    let server = Server::loading(vec!["fake".into(), "alias".into()]);
    let limits = Limits {
        parallel,
        context: 128,
        queue,
        prefill_chunk: 16,
    };
    let (scheduler, worker, hold) = crate::fake::scheduler(limits, Arc::clone(&server.metrics));
    std::thread::spawn(move || worker.run());
    server.ready(Arc::new(scheduler));
    (listen(Arc::clone(&server)).await, hold, server)
}

fn chat(text: &str, fields: Value) -> Value {
    let mut body = json!({
        "model": "fake", "messages": [{ "role": "user", "content": text }], "temperature": 0, "stream": true,
    });
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body
}

/// A stream without what differs from run to run.
fn stable(text: &str) -> String {
    let cut = |line: &str| match (line.find("\"id\":"), line.find("\"model\":")) {
        (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to..]),
        _ => line.to_owned(),
    };
    text.lines().map(|line| cut(line) + "\n").collect()
}

#[tokio::test]
async fn a_chat_streams_as_the_api_does() {
    let (address, ..) = start(2, 8).await;
    let fields = json!({ "stream_options": { "include_usage": true } });
    let answer = post(address, "/v1/chat/completions", &chat("echo:h\"é\0", fields)).await;
    assert_eq!(stable(&answer.text()), include_str!("golden/chat.txt"));
    let fields = json!({ "stream_options": { "continuous_usage_stats": true }, "max_tokens": 2 });
    let answer = post(address, "/v1/chat/completions", &chat("echo:hi\0", fields)).await;
    assert_eq!(
        stable(&answer.text()),
        include_str!("golden/chat-continuous-usage.txt")
    );
}

#[tokio::test]
async fn a_completion_streams_as_the_api_does() {
    let (address, ..) = start(2, 8).await;
    let body = json!({ "prompt": "echo:hi\0", "stream": true, "temperature": 0 });
    let answer = post(address, "/v1/completions", &body).await;
    assert_eq!(stable(&answer.text()), include_str!("golden/completion.txt"));
}

#[tokio::test]
async fn without_a_stream_the_answer_is_one_body() {
    let (address, ..) = start(2, 8).await;
    let chat = post(
        address,
        "/v1/chat/completions",
        &chat("echo:hi\0", json!({ "stream": false })),
    )
    .await
    .json();
    assert_eq!(
        chat["choices"][0]["message"],
        json!({ "role": "assistant", "content": "hi" })
    );
    assert_eq!(chat["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        chat["usage"],
        json!({ "prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11 })
    );
    let body = json!({ "model": "alias", "prompt": [101, 99, 104, 111, 58, 104, 105, 0], "temperature": 0, "max_tokens": 2 });
    let completion = post(address, "/v1/completions", &body).await.json();
    assert_eq!(completion["choices"][0]["text"], "hi");
    assert_eq!(completion["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn log_probabilities_are_told_where_they_are_asked_for() {
    let (address, ..) = start(2, 8).await;
    let fields = json!({ "logprobs": true, "top_logprobs": 2 });
    let answer = post(
        address,
        "/v1/chat/completions",
        &chat("echo:hé\0", fields.clone()),
    )
    .await;
    assert_eq!(stable(&answer.text()), include_str!("golden/chat-logprobs.txt"));
    let body = json!({ "prompt": "echo:hi\0", "stream": true, "temperature": 0, "logprobs": 2 });
    let answer = post(address, "/v1/completions", &body).await;
    assert_eq!(
        stable(&answer.text()),
        include_str!("golden/completion-logprobs.txt")
    );
    let mut whole = chat("echo:hé\0", fields);
    whole["stream"] = false.into();
    let whole = post(address, "/v1/chat/completions", &whole).await.json();
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(
        content.len() as u64,
        whole["usage"]["completion_tokens"].as_u64().unwrap()
    );
    assert_eq!(content[0]["token"], "h");
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn no_event_holds_half_a_character() {
    let (address, ..) = start(2, 8).await;
    let text = "naïve 東京 🦀!";
    let fields = json!({ "stream_options": { "include_usage": true } });
    let answer = post(
        address,
        "/v1/chat/completions",
        &chat(&format!("echo:{text}\0"), fields),
    )
    .await;
    let mut pieces = Vec::new();
    let mut generated = None;
    for data in answer.data().iter().filter(|data| *data != "[DONE]") {
        let chunk = ChunkRef::parse(data.as_bytes()).unwrap();
        generated = generated.or(chunk.usage.and_then(|usage| usage.completion_tokens));
        let deltas = chunk
            .choices()
            .filter_map(|choice| choice.delta.as_ref()?.content.as_ref());
        pieces.extend(
            deltas
                .map(|content| content.0.clone().into_owned())
                .filter(|piece| !piece.is_empty()),
        );
    }
    assert_eq!(pieces, text.chars().map(String::from).collect::<Vec<_>>());
    assert_eq!(
        generated,
        Some(text.len() as u64 + 1),
        "every byte is a token, and so is the end"
    );
}

#[tokio::test]
async fn refusals_have_the_apis_shape() {
    let (address, ..) = start(2, 8).await;
    let long = "x".repeat(130);
    let cases = [
        (
            chat("a", json!({ "model": "other" })),
            404,
            json!("model"),
            json!("model_not_found"),
        ),
        (chat("a", json!({ "n": 2 })), 400, json!("n"), Value::Null),
        (
            chat("a", json!({ "tools": [{}] })),
            400,
            json!("tools"),
            Value::Null,
        ),
        (
            chat("a", json!({ "max_tokens": 128 })),
            400,
            json!("messages"),
            json!("context_length_exceeded"),
        ),
        (
            chat(&long, json!({})),
            400,
            json!("messages"),
            json!("context_length_exceeded"),
        ),
        (chat("", json!({})), 400, json!("messages"), Value::Null),
        (
            json!({ "messages": [{ "role": "user" }] }),
            400,
            json!("messages"),
            Value::Null,
        ),
        (json!([1]), 400, Value::Null, Value::Null),
    ];
    for (body, status, param, code) in cases {
        let answer = post(address, "/v1/chat/completions", &body).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["param"], &error["code"]),
            (status, &param, &code),
            "{body}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let tokens = post(address, "/v1/completions", &json!({ "prompt": [5, 999] })).await;
    assert_eq!(tokens.json()["error"]["param"], "prompt");
    assert_eq!(
        ask(address, "POST", "/v1/chat/completions", "{").await.status,
        400
    );
    assert_eq!(
        ask(
            address,
            "POST",
            "/v1/completions",
            &" ".repeat(routes::BODY_LIMIT + 1)
        )
        .await
        .status,
        413
    );
    assert_eq!(get(address, "/v1/chat/completions").await.status, 405);
    assert_eq!(
        get(address, "/nowhere").await.json()["error"]["type"],
        "invalid_request_error"
    );
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let (address, hold, server) = start(1, 1).await;
    hold.close();
    let body = chat("a", json!({ "max_tokens": 1 }));
    let (first, second) = (body.to_string(), body.to_string());
    let first = tokio::spawn(async move { ask(address, "POST", "/v1/chat/completions", &first).await });
    let second = tokio::spawn(async move { ask(address, "POST", "/v1/chat/completions", &second).await });
    until("two requests are in", async || {
        server.metrics.prompt_tokens.get() == 2
    })
    .await;
    let third = post(address, "/v1/chat/completions", &body).await;
    assert_eq!((third.status, third.retry_after.as_deref()), (429, Some("1")));
    hold.open();
    assert_eq!(
        (first.await.unwrap().status, second.await.unwrap().status),
        (200, 200)
    );
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_slot() {
    let (address, hold, _) = start(1, 8).await;
    for _ in 0..20 {
        let body = chat("a", json!({ "max_tokens": 120 })).to_string();
        hold.close();
        let response = send(address, "POST", "/v1/chat/completions", &body)
            .await
            .unwrap();
        let mut body = response.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        hold.open();
        until("the slot is free", async || hold.slots_in_use() == 0).await;
    }
    let metrics = get(address, "/metrics").await.text();
    assert!(metrics.contains("loadtest_requests_running 0\n"), "{metrics}");
}

/// What `/metrics` says of requests that run and wait.
async fn gauges(address: SocketAddr) -> (i64, i64) {
    let text = get(address, "/metrics").await.text();
    let gauge = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    };
    (
        gauge("loadtest_requests_running "),
        gauge("loadtest_requests_waiting "),
    )
}

#[tokio::test]
async fn the_gauges_say_what_runs_and_waits_also_during_a_step() {
    let (address, hold, _) = start(4, 8).await;
    hold.close();
    let body = chat("a", json!({ "max_tokens": 100, "ignore_eos": true })).to_string();
    let mut open = Vec::new();
    for _ in 0..9 {
        let path = "/v1/chat/completions";
        open.push(send(address, "POST", path, &body).await.unwrap());
    }
    // The first step may have begun before all were there, but no request is ever left out.
    let (running, waiting) = gauges(address).await;
    assert_eq!(running + waiting, 9);
    assert!((1..=4).contains(&running), "{running}");
    hold.one_step();
    until("the slots are taken", async || gauges(address).await == (4, 5)).await;
    // In the order in which they came: one that runs and two that wait go away; one that waits gets the slot.
    for gone in [7, 6, 0] {
        drop(open.remove(gone));
    }
    until("those that went away are forgotten", async || {
        hold.one_step();
        gauges(address).await == (4, 2)
    })
    .await;
    hold.open();
    for response in open {
        assert!(response.into_body().collect().await.is_ok());
    }
    until("nothing runs or waits", async || gauges(address).await == (0, 0)).await;
}

#[tokio::test]
async fn health_waits_for_the_model() {
    let server = Server::loading(vec!["fake".into()]);
    let address = listen(Arc::clone(&server)).await;
    assert_eq!(get(address, "/health").await.status, 503);
    assert_eq!(get(address, "/props").await.status, 503);
    assert_eq!(
        post(address, "/v1/chat/completions", &chat("a", json!({})))
            .await
            .status,
        503
    );
    assert_eq!(get(address, "/v1/models").await.json()["data"][0]["id"], "fake");
    let limits = Limits {
        parallel: 1,
        context: 64,
        queue: 1,
        prefill_chunk: 16,
    };
    let (scheduler, _worker, _) = crate::fake::scheduler(limits, Arc::clone(&server.metrics));
    server.ready(Arc::new(scheduler));
    let health = get(address, "/health").await;
    assert_eq!((health.status, health.json()), (200, json!({ "status": "ok" })));
}

#[tokio::test]
async fn the_server_tells_its_settings_and_counts() {
    let (address, ..) = start(3, 8).await;
    let props = get(address, "/props").await.json();
    assert_eq!(
        (&props["engine"], &props["parallel"], &props["context"]),
        (&json!("fake"), &json!(3), &json!(128))
    );
    assert_eq!(props["kv_bytes_bound"], 3 * 128 * 10);
    let tokens = post(address, "/tokenize", &json!({ "content": "ab" }))
        .await
        .json();
    assert_eq!(tokens, json!({ "tokens": [97, 98] }));
    post(address, "/v1/chat/completions", &chat("echo:hi\0", json!({}))).await;
    post(address, "/v1/chat/completions", &chat("hi", json!({ "n": 3 }))).await;
    let metrics = get(address, "/metrics").await.text();
    for line in [
        "loadtest_requests_total{outcome=\"stop\"} 1",
        "loadtest_requests_total{outcome=\"refused\"} 1",
        "loadtest_prompt_tokens_total 8",
        "loadtest_generated_tokens_total 3",
        "loadtest_kv_bound_bytes 3840",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }
}
