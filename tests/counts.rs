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
