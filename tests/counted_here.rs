//! A server that tells no usage: the text of its answers is counted by the tokenizer given, and events where there is none.

mod support;

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::{House, read_request};

/// Each is two tokens of `tiny.gguf`, which has one for every byte: as it is, escaped, and of one character.
const TEXTS: [&str; 3] = ["ab", r"\n!", "é"];

const OSL: usize = 32;

/// Answers every request with so many events, 2 ms apart.
fn answer(tcp: TcpStream, events: usize) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut tcp = BufReader::new(tcp);
    let body: Vec<String> = (0..events)
        .map(|number| {
            let text = TEXTS[number % TEXTS.len()];
            format!("data: {{\"choices\":[{{\"index\":0,\"text\":\"{text}\"}}]}}\n\n")
        })
        .chain(["data: [DONE]\n\n".to_owned()])
        .collect();
    let length: usize = body.iter().map(String::len).sum();
    while read_request(&mut tcp) {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n");
        tcp.get_mut().write_all(head.as_bytes())?;
        for event in &body {
            tcp.get_mut().write_all(event.as_bytes())?;
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// The address of a server whose answers have so many events.
fn serve(events: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            // Whoever hangs up is not waited for.
            thread::spawn(move || answer(tcp, events));
        }
    });
    url
}

/// Loads a server of so many events to an answer; returns the step.
fn load(house: &House, events: usize, more: &[&str]) -> Value {
    let osl = OSL.to_string();
    let mut args = "--model any --users 2 --num-prompts 6 --isl 40 --endpoint completions"
        .split(' ')
        .collect::<Vec<_>>();
    args.extend(["--osl", &osl]);
    args.extend(more);
    let (code, summary) = house.load(&serve(events), &args);
    let step = summary["steps"][0].clone();
    assert_eq!(
        (code, &step["requests"]["ok"]),
        (Some(0), &6.into()),
        "{summary:#}"
    );
    step
}

fn has(step: &Value, verdict: &str) -> bool {
    let verdicts = step["verdicts"].as_array().expect("a list");
    verdicts.iter().any(|said| said == verdict)
}

/// The lines of `requests.jsonl`, of which there is one for every request.
fn lines(house: &House, step: &Value) -> Vec<Value> {
    let text = std::fs::read_to_string(house.run_dir().join("requests.jsonl")).expect("requests.jsonl");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(Some(lines.len() as u64), step["requests_all"]["sent"].as_u64());
    lines
}

#[test]
fn the_tokenizer_counts_what_the_server_does_not() {
    let house = House::new();
    let tokenizer = house.tiny_model();
    let flags = ["--tokenizer", tokenizer.to_str().expect("UTF-8")];
    let step = load(&house, OSL / 2, &flags);
    assert_eq!(
        step["tokens"],
        serde_json::json!({ "input": 0, "output": 6 * OSL, "source": "tokenizer" })
    );
    assert!(has(&step, "tokens_counted_here"), "{step:#}");
    assert!(!has(&step, "short_output") && !has(&step, "tokens_are_events"));
    let all = OSL as u64 * step["requests_all"]["sent"].as_u64().expect("a count");
    assert_eq!(
        (&step["output_tokens_all"], &step["events"]),
        (&all.into(), &(all / 2).into())
    );
    // Each event but the first brings two tokens.
    assert_eq!(step["itl_ms"]["n"], 6 * (OSL - 2));

    let start = step["window_start_ns"].as_u64().expect("a window");
    let at = |line: &Value, name: &str| line[name].as_u64().expect("reached");
    let mut tpot = Vec::new();
    for line in lines(&house, &step) {
        assert_eq!(
            (&line["token_source"], &line["n_out"], &line["events"]),
            (&"tokenizer".into(), &OSL.into(), &(OSL / 2).into())
        );
        if at(&line, "sent_ns") >= start {
            tpot.push((at(&line, "last_ns") - at(&line, "first_ns")) as f64 / 1e6 / (OSL - 2) as f64);
        }
    }
    let mean = tpot.iter().sum::<f64>() / tpot.len() as f64;
    let told = step["tpot_ms"]["mean"].as_f64().expect("a mean");
    assert!(
        (told / mean - 1.0).abs() < 0.01,
        "{told} is not {mean}, of {} requests",
        tpot.len()
    );
}

#[test]
fn an_answer_that_stops_early_is_told_though_the_server_counts_nothing() {
    let house = House::new();
    let tokenizer = house.tiny_model();
    let flags = ["--tokenizer", tokenizer.to_str().expect("UTF-8")];
    let step = load(&house, OSL / 4, &flags);
    assert_eq!(step["tokens"]["output"], 6 * OSL / 2);
    assert!(has(&step, "short_output"), "{step:#}");
    let report = house.run(&["report", "last"]);
    let said = String::from_utf8_lossy(&report.stdout)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for words in [
        "answers were shorter than asked: 16.0 tokens on average, 32 wanted",
        "output tokens were counted here, by a tokenizer",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn without_a_tokenizer_events_stand_for_tokens() {
    let house = House::new();
    let step = load(&house, OSL / 2, &[]);
    assert_eq!(
        (&step["tokens"]["output"], &step["tokens"]["source"]),
        (&(6 * OSL / 2).into(), &"events".into())
    );
    assert!(has(&step, "tokens_are_events") && !has(&step, "short_output"));
    assert!(
        lines(&house, &step)
            .iter()
            .all(|line| line["token_source"] == "events")
    );
}
