//! Every way in which a server can fail a request lands under its own name, with an exit code, and saved.

mod support;

use std::io::{BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use serde_json::Value;
use support::{House, Reference, read_request};

/// Of `localhost`, signed by itself.
const CERTIFICATE: &[u8] = include_bytes!("data/localhost.crt.der");

/// One way to fail, and what must be known of it.
struct Case {
    /// What the server does wrong.
    fault: &'static str,
    /// The failure's name.
    kind: &'static str,
    /// Flags that bring it about.
    flags: &'static [&'static str],
    /// The instants reached besides `due_ns` and `end_ns`.
    reached: &'static [&'static str],
}

const SENT: &[&str] = &["sent_ns"];
const ANSWERED: &[&str] = &["sent_ns", "headers_ns"];
const STREAMED: &[&str] = &["sent_ns", "headers_ns", "first_ns", "last_ns"];

/// The order in which instants are reached.
const INSTANTS: [&str; 6] = ["due_ns", "sent_ns", "headers_ns", "first_ns", "last_ns", "end_ns"];

const fn case(
    fault: &'static str,
    kind: &'static str,
    flags: &'static [&'static str],
    reached: &'static [&'static str],
) -> Case {
    Case {
        fault,
        kind,
        flags,
        reached,
    }
}

/// Every kind of failure that a server can bring about while it lives.
const CASES: &[Case] = &[
    case("http_401", "http_4xx", &[], ANSWERED),
    case("http_404", "http_4xx", &[], ANSWERED),
    case("http_429", "http_429", &[], ANSWERED),
    case("http_500", "http_5xx", &[], ANSWERED),
    case("html", "malformed", &[], ANSWERED),
    case("malformed:after=2", "malformed", &[], STREAMED),
    case("cut:after=3", "truncated", &[], STREAMED),
    case("truncate:after=3", "truncated", &[], STREAMED),
    case("truncate:after=0", "truncated", &[], ANSWERED),
    case("error_event", "server_error_event", &[], ANSWERED),
    case("error_event:after=2", "server_error_event", &[], STREAMED),
    case("empty", "empty", &[], ANSWERED),
    case(
        "no_headers",
        "timeout_first",
        &["--first-token-timeout", "200ms"],
        SENT,
    ),
    case(
        "hang",
        "timeout_first",
        &["--first-token-timeout", "1s"],
        ANSWERED,
    ),
    case("stall:after=3", "stalled", &["--stall-timeout", "1s"], STREAMED),
    case("itl=1000", "timeout_total", &["--timeout", "1s"], STREAMED),
];

/// Loads the server at `url`: 2 users and 4 requests in the window, unless there is `more`. Returns the step, and a line
/// for each request.
fn load(house: &House, url: &str, model: &str, more: &[&str]) -> (Value, Vec<Value>) {
    let mut args = vec!["--model", model, "--osl", "8"];
    for usual in [["--users", "2"], ["--num-prompts", "4"], ["--backoff", "0s"]] {
        let ends = usual[0] == "--num-prompts" && more.contains(&"--duration");
        if !more.contains(&usual[0]) && !ends {
            args.extend(usual);
        }
    }
    args.extend(more);
    let (code, summary) = house.load(url, &args);
    assert_eq!(code, Some(0), "a failed request is data: {summary:#}");
    (summary["steps"][0].clone(), saved(house, &summary))
}

/// The lines of `requests.jsonl`, once it is sure that what was printed is saved.
fn saved(house: &House, summary: &Value) -> Vec<Value> {
    let dir = house.run_dir();
    let run: Value =
        serde_json::from_slice(&std::fs::read(dir.join("run.json")).expect("run.json")).expect("JSON");
    let (step, saved) = (&summary["steps"][0], &run["steps"][0]);
    for key in ["errors", "ttft_ms", "ttft_with_failures_ms", "resent"] {
        assert_eq!(saved[key], step[key], "{key} is saved as it is printed");
    }
    let text = std::fs::read_to_string(dir.join("requests.jsonl")).expect("requests.jsonl");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(Some(lines.len() as u64), step["requests_all"]["sent"].as_u64());
    lines
}

/// The request reached these instants, `due_ns` and `end_ns`, no others, and one after the other.
#[track_caller]
fn reaches(line: &Value, reached: &[&str]) {
    let mut last = 0;
    for name in INSTANTS {
        let wanted = ["due_ns", "end_ns"].contains(&name) || reached.contains(&name);
        assert_eq!(line[name].is_u64(), wanted, "{name}: {line:#}");
        if let Some(at) = line[name].as_u64() {
            assert!(at >= last, "{name} is before what comes before it: {line:#}");
            last = at;
        }
    }
}

/// All four requests of the window failed in this way and reached these instants.
#[track_caller]
fn fails(step: &Value, lines: &[Value], kind: &str, reached: &[&str]) {
    let errors = serde_json::json!({ kind: 4 });
    assert_eq!(step["errors"], errors, "{lines:#?}");
    assert_eq!(
        (&step["requests"]["ok"], &step["requests"]["failed"]),
        (&0.into(), &4.into())
    );
    let verdicts = step["verdicts"].as_array().expect("a list");
    assert!(verdicts.contains(&"errors".into()), "{verdicts:?}");
    // None succeeded, so that there is no percentile over successes, and with failures every one is infinite.
    assert_eq!(step["ttft_ms"]["n"], 0);
    let with_failures = &step["ttft_with_failures_ms"];
    assert_eq!(
        (&with_failures["n"], &with_failures["p50"]),
        (&4.into(), &Value::Null)
    );
    let failed: Vec<_> = lines.iter().filter(|line| line["outcome"] == kind).collect();
    assert!(failed.len() >= 4);
    for line in failed {
        reaches(line, reached);
        assert!(
            line["error"].as_str().is_some_and(|words| !words.is_empty()),
            "{line:#}"
        );
    }
}

#[test]
fn every_failure_of_a_living_server() {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    for Case {
        fault,
        kind,
        flags,
        reached,
    } in CASES
    {
        println!("{fault}");
        let (step, lines) = load(&House::new(), &server.url, &format!("reference+{fault}"), flags);
        fails(&step, &lines, kind, reached);
    }
}

/// The server aborts at the first request of the two users, which warms them up.
#[test]
fn a_server_that_runs_elsewhere_and_is_gone() {
    let server = Reference::start(&["--faults", "die"]);
    let (step, lines) = load(&House::new(), &server.url, "reference", &[]);
    fails(&step, &lines, "connect", &[]);
}

/// The first to connect, who asks for models, is shaken hands with; everyone after that is told something else.
fn serve_tls_once(listener: TcpListener) {
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

    let certificate = CertificateDer::from(CERTIFICATE);
    let key = PrivatePkcs8KeyDer::from(&include_bytes!("data/localhost.key.der")[..]);
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .expect("the key is the certificate's");
    let (mut first, _) = listener.accept().expect("a connection");
    let mut session = rustls::ServerConnection::new(Arc::new(config)).expect("a session");
    let mut stream = rustls::Stream::new(&mut session, &mut first);
    // It shakes hands on the way.
    let asked = stream.read(&mut [0; 4096]).expect("the certificate is trusted");
    assert!(asked > 0);
    stream
        .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .expect("connected");
    drop(first);
    for tcp in listener.incoming() {
        let _ = tcp
            .expect("a connection")
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    }
}

#[test]
fn a_server_that_speaks_no_tls_any_more() {
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().expect("bound").port()
    );
    std::thread::spawn(move || serve_tls_once(listener));
    let house = House::new();
    let trusted = house.dir.path().join("trusted.pem");
    let text = BASE64_STANDARD.encode(CERTIFICATE);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    std::fs::write(&trusted, pem).expect("written");
    let house = house.with_env("SSL_CERT_FILE", trusted);
    let (step, lines) = load(&house, &url, "reference", &[]);
    fails(&step, &lines, "tls", &[]);
}

/// The window ends while both requests in it stream, and nobody waits for them.
#[test]
fn what_the_end_of_the_run_cuts_off() {
    // At 9 ms a request, the window is open before they fall silent.
    let faults = "stall:after=2:from=100";
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1", "--faults", faults]);
    let flags = ["--duration", "3s", "--drain", "0s"];
    let (step, lines) = load(&House::new(), &server.url, "reference", &flags);
    assert_eq!(step["errors"], serde_json::json!({ "cancelled": 2 }), "{step:#}");
    let cut: Vec<_> = lines
        .iter()
        .filter(|line| line["outcome"] == "cancelled")
        .collect();
    assert_eq!(cut.len(), 2);
    cut.into_iter().for_each(|line| reaches(line, STREAMED));
}

/// An engine of ours that dies: what broke off because of it is not called by another name.
#[test]
#[cfg(target_os = "linux")]
fn the_death_of_an_engine() {
    let house = House::new();
    let program = support::reference_program().display().to_string();
    house.engine(
        "mortal",
        &format!(
            "name = \"mortal\"\ntitle = \"mortal\"\nkind = \"spawned\"\ndescription = \"dies\"\n\
             formats = [\"gguf\"]\n[find]\nprograms = [{program:?}]\n[serve]\n\
             args = [\"--port\", \"{{port}}\", \"--model-name\", \"{{model_name}}\", \"--itl-ms\", \"1\", \
             \"--faults\", \"die:after=3:from=100\"]\n[ready]\npath = \"/health\"\n"
        ),
    );
    let model = house.dir.path().join("tiny.gguf");
    std::fs::write(&model, include_bytes!("data/tiny.gguf")).expect("written");
    let flags = "--engine mortal --users 2 --isl 40 --osl 8 --warmup 0s --ramp 0s --duration 10m --backoff 0s \
                 --format json --no-progress";
    let mut args: Vec<_> = flags.split(' ').collect();
    args.extend(["--model", model.to_str().expect("UTF-8")]);
    let output = house.run(&args);
    assert_eq!(output.status.code(), Some(1), "{}", support::stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary");
    let lines = saved(&house, &summary);
    let failed: Vec<_> = lines.iter().filter(|line| line["outcome"] != "ok").collect();
    assert!(!failed.is_empty());
    for line in &failed {
        assert_eq!(line["outcome"], "server_exit", "{line:#}");
        let instants = INSTANTS.iter().filter_map(|name| line[*name].as_u64());
        assert!(instants.is_sorted(), "{line:#}");
    }
    assert!(
        failed.iter().any(|line| line["sent_ns"].is_u64()),
        "the request at which it died: {failed:#?}"
    );
    let errors = summary["steps"][0]["errors"].as_object().expect("counts");
    assert!(errors.keys().eq(["server_exit"]), "{errors:?}");
}

/// Answers the first request of every connection, keeps it open, and closes it at the second.
fn close_at_the_second_request(listener: TcpListener) {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 61\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n";
    for tcp in listener.incoming() {
        let mut tcp = BufReader::new(tcp.expect("a connection"));
        std::thread::spawn(move || {
            if read_request(&mut tcp) {
                tcp.get_mut().write_all(ANSWER.as_bytes()).expect("connected");
                read_request(&mut tcp);
            }
        });
    }
}

#[test]
fn nothing_is_sent_again_in_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || close_at_the_second_request(listener));
    let (step, _) = load(&House::new(), &url, "any", &[]);
    // All but the first of each user, in the window or before it.
    let sent = step["requests_all"]["sent"].as_u64().expect("a count");
    assert_eq!(
        (&step["requests_all"]["failed"], step["resent"].as_u64()),
        (&0.into(), Some(sent - 2)),
        "{step:#}"
    );
    let verdicts = step["verdicts"].as_array().expect("a list");
    assert!(verdicts.contains(&"resent".into()), "{verdicts:?}");
}

#[test]
fn what_was_heard_of_is_not_sent_again() {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let (step, _) = load(&House::new(), &server.url, "reference+truncate:after=0", &[]);
    assert_eq!(
        (&step["resent"], &step["errors"]["truncated"]),
        (&0.into(), &4.into())
    );
}

#[test]
fn a_user_whose_request_failed_backs_off() {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let backoff_ns = 150_000_000;
    let flags = ["--backoff", "150ms", "--users", "1"];
    let (_, lines) = load(&House::new(), &server.url, "reference+http_503", &flags);
    assert!(lines.len() >= 4);
    for pair in lines.windows(2) {
        let (end, due) = (pair[0]["end_ns"].as_u64(), pair[1]["due_ns"].as_u64());
        let waited = due.expect("due") - end.expect("ended");
        assert!(waited >= backoff_ns, "{waited} ns between {pair:#?}");
    }
}

/// Half of the requests fail: percentiles over successes stay, those with failures are infinite from there on.
#[test]
fn percentiles_stand_over_successes_and_with_failures() {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1", "--faults", "http_503:every=2"]);
    let house = House::new();
    let flags = ["--users", "1", "--num-prompts", "20"];
    let (step, _) = load(&house, &server.url, "reference", &flags);
    let (alone, with) = (&step["ttft_ms"], &step["ttft_with_failures_ms"]);
    assert_eq!((&alone["n"], &with["n"]), (&10.into(), &20.into()));
    assert!(alone["p99"].as_f64() > Some(2.0), "{alone:#}");
    assert_eq!((&with["p90"], &with["p99"]), (&Value::Null, &Value::Null));
    assert!(
        with["p50"].is_number() && step["e2el_with_failures_ms"]["p50"].is_number(),
        "{with:#}"
    );
}

/// The server does something unusual that is no fault.
fn succeeds_with(quirk: &str) -> Value {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let (step, _) = load(&House::new(), &server.url, &format!("reference+{quirk}"), &[]);
    assert_eq!(
        (&step["requests"]["ok"], &step["requests"]["failed"]),
        (&4.into(), &0.into()),
        "{quirk}: {step:#}"
    );
    step
}

#[test]
fn unusual_streams_are_understood() {
    for quirk in [
        "crlf",
        "comments",
        "multiline",
        "utf8",
        "batch",
        "slow_headers:ms=20",
    ] {
        let step = succeeds_with(quirk);
        assert_eq!(step["tokens"]["output"], 32, "{quirk}: 4 requests of 8 tokens");
    }
}

#[test]
fn without_usage_events_are_counted_and_it_is_said() {
    let step = succeeds_with("no_usage");
    assert_eq!(
        (&step["tokens"]["output"], &step["tokens"]["source"]),
        (&32.into(), &"events".into())
    );
    assert!(
        step["verdicts"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|verdict| verdict == "tokens_are_events")
    );
}

#[test]
fn a_server_that_is_gone() {
    let house = House::new();
    let server = Reference::start(&[]);
    let url = server.url.clone();
    drop(server);
    let output = house.run(&[
        "--url",
        &url,
        "--model",
        "reference",
        "--duration",
        "1s",
        "--no-calibrate",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", support::stderr(&output));
    assert!(
        support::stderr(&output).contains("no server answers"),
        "{}",
        support::stderr(&output)
    );
}
