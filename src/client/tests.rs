//! One request against a server that plays a script, for every way it can end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::measure::{Clock, Live, LiveShards, Trace};
use crate::profile::Timeouts;

/// What the server does after it has read a request.
#[derive(Clone)]
enum Play {
    Send(String),
    Wait(u64),
    /// Keep the connection open and say nothing.
    Hang,
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const END: &str = "0\r\n\r\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn event(json: &str) -> String {
    chunk(&format!("data: {json}\n\n"))
}

fn token(text: &str) -> String {
    event(&format!(
        r#"{{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
    ))
}

fn finish() -> String {
    event(r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#)
}

fn usage(n_in: u32, n_out: u32) -> String {
    event(&format!(
        r#"{{"choices":[],"usage":{{"prompt_tokens":{n_in},"completion_tokens":{n_out}}}}}"#
    ))
}

pub(super) fn whole() -> String {
    [HEAD, &token("a"), &token("b"), &finish(), &event("[DONE]"), END].concat()
}

pub(super) async fn read_request(tcp: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.ends_with(b"\r\n\r\n{}") {
        match tcp.read(&mut buffer).await {
            Ok(bytes) if bytes > 0 => seen.extend_from_slice(&buffer[..bytes]),
            _ => return false,
        }
    }
    true
}

/// Serves connection after connection; each request gets the next script, the last one again and again. After a
/// script that is marked so, the connection is closed.
async fn serve(listener: TcpListener, scripts: Vec<(Vec<Play>, bool)>) {
    let mut next = 0;
    while let Ok((mut tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).expect("a TCP socket");
        while read_request(&mut tcp).await {
            let (script, close) = scripts[next.min(scripts.len() - 1)].clone();
            next += 1;
            for play in script {
                match play {
                    Play::Send(text) => tcp.write_all(text.as_bytes()).await.expect("the client reads"),
                    Play::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    Play::Hang => {
                        let _ = tcp.read(&mut [0; 16]).await;
                    }
                }
            }
            if close {
                break;
            }
        }
    }
}

pub(super) fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(5),
        first_token: Duration::from_secs(10),
        stall: Duration::from_secs(10),
        total: Duration::from_secs(60),
    }
}

pub(super) struct Bench {
    pub client: Client,
    live: Arc<Live>,
    cut: Arc<Cut>,
}

impl Bench {
    fn for_address(address: String, timeouts: Timeouts) -> Self {
        let target =
            Target::new(&format!("http://{address}"), "/v1/chat/completions", None, &[]).expect("valid");
        Self::for_target(target, timeouts)
    }

    pub(super) fn for_target(target: Target, timeouts: Timeouts) -> Self {
        let live = LiveShards::new(1).shard(0);
        let cut = Arc::new(Cut::new(1));
        let clock = Clock::start();
        let shared = Shared {
            target: Arc::new(target),
            timeouts,
            clock,
            cut: cut.clone(),
            window: Arc::default(),
            live: live.clone(),
            keep_text: true,
        };
        Self {
            client: Client::new(
                Arc::new(Reader::start("read", shared, None, || {}).expect("a thread")),
                0,
            ),
            live,
            cut,
        }
    }

    async fn with(scripts: Vec<(Vec<Play>, bool)>, timeouts: Timeouts) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(serve(listener, scripts));
        Self::for_address(address, timeouts)
    }

    pub(super) async fn ask(&mut self) -> Result<(), Outcome> {
        let asked = self.client.ask(1, b"{}", |_| true).await.expect("admitted");
        asked.map_err(|failure| failure.outcome)
    }
}

/// Every instant of a good answer is there, one after the other.
pub(super) fn assert_in_order(trace: &Trace) {
    let instants = [
        trace.sent_ns,
        trace.headers_ns,
        trace.first_ns(),
        trace.last_ns(),
        trace.end_ns,
    ];
    assert!(
        instants.iter().all(Option::is_some) && instants.is_sorted(),
        "{instants:?}"
    );
}

async fn outcome(script: Vec<Play>, close: bool) -> (Result<(), Outcome>, Bench) {
    let mut bench = Bench::with(vec![(script, close)], timeouts()).await;
    (bench.ask().await, bench)
}

async fn outcome_of(text: String) -> Result<(), Outcome> {
    outcome(vec![Play::Send(text)], true).await.0
}

#[tokio::test]
async fn a_good_answer() {
    let text = whole().replace(&event("[DONE]"), &(usage(7, 3) + &event("[DONE]")));
    let (result, bench) = outcome(vec![Play::Send(text)], false).await;
    assert_eq!(result, Ok(()));
    let trace = bench.client.trace();
    assert_eq!(
        (trace.count(), trace.n_in, trace.n_out, trace.status),
        (2, Some(7), Some(3), Some(200))
    );
    assert_in_order(trace);
    assert!(trace.connect_ns.is_some());
    assert_eq!(
        trace.stamp_error_ns.is_some(),
        bench.client.kernel_stamps() == Some(true)
    );
}

#[tokio::test]
async fn any_cut_of_the_bytes_gives_the_same_answer() {
    let text = whole();
    for cut in [
        1,
        HEAD.len() - 1,
        HEAD.len() + 1,
        HEAD.len() + 20,
        text.len() - END.len() - 1,
        text.len() - 2,
    ] {
        let (before, after) = text.split_at(cut);
        let script = vec![
            Play::Send(before.to_owned()),
            Play::Wait(20),
            Play::Send(after.to_owned()),
        ];
        let (result, bench) = outcome(script, false).await;
        assert_eq!(
            (result, bench.client.trace().count()),
            (Ok(()), 2),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn an_end_without_done() {
    assert_eq!(
        outcome_of([HEAD, &token("a"), &finish(), END].concat()).await,
        Ok(())
    );
    assert_eq!(
        outcome_of([HEAD, &token("a"), END].concat()).await,
        Err(Outcome::Truncated)
    );
    assert_eq!(
        outcome_of([HEAD, &token("a"), &finish()].concat()).await,
        Ok(()),
        "nothing but framing is missing"
    );
    let until_close = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let data = r#"data: {"choices":[{"delta":{"content":"a"}}]}"#;
    assert_eq!(
        outcome_of(format!("{until_close}{data}\n\ndata: [DONE]\n\n")).await,
        Ok(())
    );
    assert_eq!(
        outcome_of(format!("{until_close}{data}\n\n")).await,
        Err(Outcome::Truncated)
    );
}

#[tokio::test]
async fn done_without_an_end_of_the_body() {
    let script = vec![
        Play::Send([HEAD, &token("a"), &event("[DONE]")].concat()),
        Play::Hang,
    ];
    assert_eq!(outcome(script, false).await.0, Ok(()));
}

#[tokio::test]
async fn answers_that_are_no_stream() {
    let answer = |status: &str, kind: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let error = r#"{"error":{"message":"no such model","type":"x"}}"#;
    for (text, expected) in [
        (
            answer("404 Not Found", "application/json", error),
            Outcome::Http4xx,
        ),
        (answer("401 Unauthorized", "text/plain", ""), Outcome::Http4xx),
        (
            answer("429 Too Many Requests", "application/json", error),
            Outcome::Http429,
        ),
        (
            answer("503 Service Unavailable", "text/html", "<html>"),
            Outcome::Http5xx,
        ),
        (answer("302 Found", "text/html", ""), Outcome::Malformed),
        (
            answer("200 OK", "text/html", "<html>hello</html>"),
            Outcome::Malformed,
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), Outcome::Malformed),
        ([HEAD, "zz\r\n"].concat(), Outcome::Malformed),
        ([HEAD, &event("{half")].concat(), Outcome::Malformed),
        ([HEAD, &event(error), END].concat(), Outcome::ServerErrorEvent),
        (
            [HEAD, &chunk("event: error\ndata: out of memory\n\n")].concat(),
            Outcome::ServerErrorEvent,
        ),
        ([HEAD, &finish(), &event("[DONE]"), END].concat(), Outcome::Empty),
        ([HEAD, &token("a"), "40\r\ndata: {"].concat(), Outcome::Truncated),
        (HEAD[..30].to_owned(), Outcome::Truncated),
        (String::new(), Outcome::Truncated),
    ] {
        assert_eq!(outcome_of(text.clone()).await, Err(expected), "{text}");
    }
}

#[tokio::test]
async fn the_servers_words_are_kept() {
    let body = format!(r#"{{"error":{{"message":"no: {}"}}}}"#, "x".repeat(1000));
    let text = format!("HTTP/1.1 400 Bad\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut bench = Bench::with(vec![(vec![Play::Send(text)], false)], timeouts()).await;
    let failure = bench
        .client
        .ask(1, b"{}", |_| true)
        .await
        .expect("admitted")
        .expect_err("a 400");
    assert!(
        failure.message().starts_with("HTTP 400: no: xxx"),
        "{}",
        failure.message()
    );
    assert_eq!(failure.message().len(), MAX_MESSAGE);
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let mut bench = Bench::for_address(address, timeouts());
    assert_eq!(bench.ask().await, Err(Outcome::Connect));
    assert_eq!(
        (
            bench.client.trace().sent_ns,
            bench.client.trace().end_ns.is_some()
        ),
        (None, true)
    );
}

/// Each limit alone is short; the server is silent for as long as it takes.
#[tokio::test]
async fn every_silence_ends_by_its_own_timeout() {
    let short = Duration::from_millis(60);
    let all = timeouts();
    for (script, limits, expected) in [
        (
            vec![Play::Hang],
            Timeouts {
                first_token: short,
                ..all
            },
            Outcome::TimeoutFirst,
        ),
        (
            vec![Play::Send(HEAD.into()), Play::Hang],
            Timeouts {
                first_token: short,
                ..all
            },
            Outcome::TimeoutFirst,
        ),
        (
            vec![Play::Send([HEAD, &token("a")].concat()), Play::Hang],
            Timeouts { stall: short, ..all },
            Outcome::Stalled,
        ),
        (
            vec![Play::Send([HEAD, &token("a")].concat()), Play::Hang],
            Timeouts { total: short, ..all },
            Outcome::TimeoutTotal,
        ),
    ] {
        let mut bench = Bench::with(vec![(script, false)], limits).await;
        let begun = std::time::Instant::now();
        assert_eq!(bench.ask().await, Err(expected));
        assert!(
            begun.elapsed() >= short,
            "{expected:?} after {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn a_slow_stream_is_not_a_stalled_one() {
    let mut script = vec![Play::Send(HEAD.into())];
    for _ in 0..6 {
        script.extend([Play::Send(token("a")), Play::Wait(100)]);
    }
    script.push(Play::Send([finish(), event("[DONE]"), END.into()].concat()));
    let limits = Timeouts {
        stall: Duration::from_millis(400),
        ..timeouts()
    };
    let mut bench = Bench::with(vec![(script, false)], limits).await;
    assert_eq!(bench.ask().await, Ok(()));
    assert_eq!(bench.client.trace().count(), 6);
}

#[tokio::test]
async fn a_cut_ends_a_request_in_flight() {
    let script = vec![Play::Send([HEAD, &token("a")].concat()), Play::Hang];
    let mut bench = Bench::with(vec![(script, false)], timeouts()).await;
    let (cut, live) = (bench.cut.clone(), bench.live.clone());
    let cutter = tokio::spawn(async move {
        let shards = live;
        // The stream has begun once an event was counted.
        while format!("{shards:?}").contains("streaming: 0") {
            tokio::task::yield_now().await;
        }
        cut.cut();
    });
    assert_eq!(bench.ask().await, Err(Outcome::Cancelled));
    cutter.await.expect("no panic");
    assert_eq!(bench.client.trace().count(), 1);
}

#[tokio::test]
async fn a_connection_is_kept_and_opened_again_when_the_server_closed_it() {
    let good = vec![Play::Send(whole())];
    let scripts = vec![(good.clone(), false), (good.clone(), true), (good, false)];
    let mut bench = Bench::with(scripts, timeouts()).await;
    assert_eq!(bench.ask().await, Ok(()));
    assert!(bench.client.trace().connect_ns.is_some());
    assert_eq!(bench.ask().await, Ok(()));
    assert_eq!(bench.client.trace().connect_ns, None);
    // The close must have arrived before the client looks.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.ask().await, Ok(()));
    assert!(bench.client.trace().connect_ns.is_some());
}

#[tokio::test]
async fn what_is_not_admitted_is_not_sent() {
    let mut bench = Bench::with(vec![(vec![Play::Send(whole())], false)], timeouts()).await;
    assert!(bench.client.ask(1, b"{}", |_| false).await.is_none());
    assert_eq!(bench.ask().await, Ok(()));
}
