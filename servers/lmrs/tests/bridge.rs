//! The bridge as a process, in front of a stand-in for lm.rs's `backend` that misbehaves on request.
#![cfg(target_os = "linux")]

mod fake;
mod harness;

use std::path::PathBuf;
use std::time::Duration;

use harness::{Bridge, alive, command, house, until};
use serde_json::{Value, json};

/// Not a test: what the bridge starts as lm.rs.
#[test]
#[ignore = "the stand-in that other tests start"]
fn fake_backend() {
    fake::serve();
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
