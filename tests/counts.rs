//! Requests, events and tokens in `run.json` equal what the server says it sent, to the last one.

mod support;

use std::collections::HashSet;

use support::{House, Reference};

#[test]
fn counts_agree_with_the_server_and_with_goose() {
    let server = Reference::start(&["--ttft-ms", "3", "--itl-ms", "1", "--jitter-ms", "1"]);
    let house = House::new();
    let args = [
        "--model",
        "reference",
        "--users",
        "2,8",
        "--num-prompts",
        "60",
        "--osl",
        "10",
        "--isl",
        "20",
    ];
    let (code, summary) = house.load(&server.url, &args);
    assert_eq!(code, Some(0));

    let steps = summary["steps"].as_array().expect("steps");
    let sum = |key: &str, inner: &str| -> u64 {
        let value = |step: &serde_json::Value| match inner {
            "" => step[key].as_u64(),
            inner => step[key][inner].as_u64(),
        };
        steps.iter().map(|step| value(step).expect("a count")).sum()
    };
    let totals = server.totals();
    assert_eq!(totals["requests"], sum("requests_all", "sent"), "{totals:#}");
    assert_eq!(totals["tokens"], sum("output_tokens_all", ""), "{totals:#}");
    assert_eq!(totals["events"], sum("events", ""), "{totals:#}");
    assert_eq!(totals["open_streams"], 0);
    for step in steps {
        assert_eq!(step["goose"]["ok"], step["requests_all"]["ok"]);
        assert_eq!(step["goose"]["failed"], step["requests_all"]["failed"]);
        assert_eq!(
            (&step["requests"]["sent"], &step["requests"]["ok"]),
            (&60.into(), &60.into())
        );
        assert_eq!(step["tokens"]["output"], 600);
    }

    let lines = std::fs::read_to_string(house.run_dir().join("requests.jsonl")).expect("requests.jsonl");
    let ids: HashSet<u64> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"]
                .as_u64()
                .expect("an id")
        })
        .collect();
    assert_eq!(
        (ids.len(), lines.lines().count() as u64),
        (lines.lines().count(), sum("requests_all", "sent"))
    );
    for file in ["run.json", "timeline.csv", "hdr"] {
        assert!(house.run_dir().join(file).exists(), "{file}");
    }
}

/// More events than the client keeps of one request: they are folded as they come, and none is lost.
#[test]
fn a_stream_of_200_000_events_is_counted_to_the_last_one() {
    let server = Reference::start(&["--ttft-ms", "1", "--itl-ms", "0"]);
    let house = House::new();
    let args = [
        "--model",
        "reference",
        "--users",
        "1",
        "--warmup-requests",
        "0",
        "--num-prompts",
        "1",
        "--osl",
        "200000",
        "--isl",
        "8",
        "--drain",
        "10m",
    ];
    let (code, summary) = house.load(&server.url, &args);
    assert_eq!(code, Some(0), "{summary:#}");
    let step = &summary["steps"][0];
    assert_eq!(
        (&step["requests"]["ok"], &step["tokens"]["output"]),
        (&1.into(), &200_000.into()),
        "{step:#}"
    );
    assert_eq!(
        (&step["icl_ms"]["n"], &step["itl_ms"]["n"]),
        (&199_999.into(), &199_999.into())
    );
    // A user asks as soon as it has started, which may be before the window opens.
    let all = 200_000 * step["requests_all"]["sent"].as_u64().expect("a count");
    assert_eq!(step["events"], all, "{step:#}");
    let timeline = std::fs::read_to_string(house.run_dir().join("timeline.csv")).expect("timeline.csv");
    let mut rows = timeline.lines().map(|row| row.split(',').collect::<Vec<_>>());
    let head = rows.next().expect("a head");
    let column = head.iter().position(|name| *name == "events").expect("a column");
    let events: u64 = rows.map(|row| row[column].parse::<u64>().expect("a count")).sum();
    assert_eq!(events, all);
}

#[test]
fn one_slot_and_the_users_who_wait_for_it_are_told() {
    let server = Reference::start(&["--ttft-ms", "5", "--itl-ms", "2", "--slots", "1"]);
    let args = [
        "--model",
        "reference",
        "--users",
        "8",
        "--duration",
        "3s",
        "--osl",
        "10",
        "--isl",
        "8",
    ];
    let (code, summary) = House::new().load(&server.url, &args);
    assert_eq!(code, Some(0), "{summary:#}");
    let (step, seen) = (&summary["steps"][0], &summary["steps"][0]["concurrency"]);
    assert_eq!((&seen["claimed"], &seen["streaming_p95"]), (&8.into(), &1.into()));
    let number = |key: &str| seen[key].as_f64().expect("a number");
    assert!(number("streaming") <= 1.0, "{seen:#}");
    assert!(
        number("server_running") <= 1.0 && number("server_waiting") > 5.0,
        "{seen:#}"
    );
    let verdicts = step["verdicts"].as_array().expect("a list");
    assert!(verdicts.iter().any(|verdict| verdict == "queued"), "{verdicts:?}");
}
