//! Whether engines give the same answers, against stand-ins whose answers are known.
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{House, stderr};

/// An engine that is the stand-in, with these arguments.
fn engine(house: &House, name: &str, more: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/answers.py");
    let words = [&[script.to_str().expect("UTF-8"), "--port", "{port}"], more].concat();
    let text = format!(
        "name = {name:?}\ntitle = {name:?}\nkind = 'spawned'\ndescription = 'x'\n[find]\nprograms = ['python3']\n\
         [serve]\nargs = {words:?}\n[ready]\npath = '/health'\n[dialect]\nignore_eos = false\n"
    );
    house.engine(name, &text);
}

fn run(house: &House, engines: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let model = house.tiny_model();
    let fixed = [
        "--engine",
        engines,
        "--model",
        model.to_str().expect("UTF-8"),
        "--no-progress",
        "--no-calibrate",
    ];
    let output = house
        .command()
        .args(fixed)
        .args(more)
        .output()
        .expect("loadtest starts");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), stdout, stderr(&output))
}

fn saved(house: &House) -> Value {
    let text = std::fs::read(house.run_dir().join("run.json")).expect("run.json");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn first_differences_are_told_apart() {
    let house = House::new();
    engine(&house, "one", &[]);
    engine(&house, "near", &["--differ-at", "5", "--gap", "0.3"]);
    engine(&house, "far", &["--differ-at", "3", "--gap", "5"]);
    engine(&house, "mute", &["--differ-at", "2", "--mute"]);
    engine(&house, "double", &["--count", "2"]);
    engine(
        &house,
        "logits",
        &["--differ-at", "4", "--gap", "0.4", "--logits"],
    );
    let flags = ["--verify=only", "--format", "markdown"];
    let (code, text, told) = run(&house, "one,near,far,mute,double,logits", &flags);
    assert_eq!(code, Some(0), "{told}");
    // How long the servers took to start is another matter, and another time each run.
    let steady: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("- loading: "))
        .collect();
    insta::assert_snapshot!(steady.join("\n"));
    let run = saved(&house);
    assert_eq!(
        (&run["status"], &run["steps"]),
        (&"done".into(), &Value::Array(vec![]))
    );
    let found = &run["verification"];
    assert_eq!(
        (&found["prompts"], &found["reference"]),
        (&20.into(), &"one".into())
    );
    let of = |engine: usize| &found["engines"][engine]["agreement"];
    assert_eq!((&of(0)["same"], &of(4)["same"]), (&Value::Null, &20.into()));
    assert_eq!(
        [&of(1)["near_ties"], &of(2)["apart"], &of(3)["near_ties"]],
        [20, 20, 20]
    );
    let gaps = &of(5)["differences"][0];
    assert_eq!(
        (&gaps["reference_gap"]["nats"], &gaps["other_gap"]["nats"]),
        (&0.05.into(), &0.4.into()),
        "logits are read as such: {gaps:#}"
    );
    let first = &of(2)["differences"][0];
    assert_eq!((&first["token"], &first["cause"]), (&3.into(), &"apart".into()));
    assert_eq!(
        (&first["reference_gap"]["nats"], &first["other_gap"]["nats"]),
        (&0.05.into(), &5.0.into())
    );
    let answer = &found["engines"][3]["answers"][0];
    assert!(
        answer["text"]
            .as_str()
            .is_some_and(|text| text.split(' ').count() == 33),
        "{answer:#}"
    );
}

#[test]
fn the_reference_may_be_named_and_two_that_do_not_tell_are_not_judged() {
    let house = House::new();
    engine(&house, "one", &["--mute"]);
    engine(&house, "two", &["--mute", "--differ-at", "2"]);
    let flags = ["--verify=only", "--verify-against", "two", "--format", "json"];
    let (code, text, told) = run(&house, "one,two", &flags);
    assert_eq!(code, Some(0), "{told}");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let found = &found["verification"];
    assert_eq!(found["reference"], "two");
    let one = &found["engines"][0];
    assert_eq!(
        (&one["logprobs"], &one["agreement"]["unknown"]),
        (&false.into(), &20.into())
    );
}

#[test]
fn answers_that_change_under_load_are_caught() {
    let house = House::new();
    engine(&house, "fine", &[]);
    engine(&house, "mixes", &["--garble-above", "1", "--gap", "5"]);
    let load =
        "--verify --users 3 --osl 8 --isl 40 --num-prompts 60 --warmup 0s --ramp 0s --strict --format json";
    let (code, text, told) = run(&house, "fine,mixes", &load.split(' ').collect::<Vec<_>>());
    assert_eq!(code, Some(3), "{told}");
    let run: Value = serde_json::from_str(&text).expect("JSON");
    let (fine, mixes) = (&run["steps"][0], &run["steps"][1]);
    assert_eq!(
        (&fine["verified"]["asked"], &fine["verified"]["same"]),
        (&4.into(), &4.into()),
        "{fine:#}"
    );
    assert_eq!(mixes["verified"]["garbled"], 4, "{:#}", mixes["verified"]);
    let has = |step: &Value| {
        step["verdicts"]
            .as_array()
            .expect("a list")
            .contains(&"garbled".into())
    };
    assert!(!has(fine) && has(mixes));
    // What was asked to verify is in no figure: every request that counts asked for 8 tokens.
    let lines = std::fs::read_to_string(house.run_dir().join("requests.jsonl")).expect("lines");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let sent = [fine, mixes].map(|step| step["requests_all"]["sent"].as_u64().expect("a count"));
    assert_eq!(lines.len() as u64, sent[0] + sent[1]);
    assert!(lines.iter().all(|line| line["n_out"] == 8));
    // The table says it in words.
    let report = house.run(&["report", "last"]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.contains("garbled under load: 4 of 4"), "{report}");
    assert!(report.contains("same under load"), "{report}");
}

#[test]
fn the_window_waits_for_no_answer_longer_than_for_the_warm_up() {
    let house = House::new();
    engine(&house, "slow", &["--hold-after", "20"]);
    let load = "--verify --users 2 --osl 8 --isl 40 --duration 1s --warmup 0s --ramp 0s";
    let (code, text, told) = run(&house, "slow", &load.split(' ').collect::<Vec<_>>());
    assert_eq!(code, Some(0), "{told}");
    assert!(
        text.contains(
            "4 of 4 prompts to be verified under load were not answered within the longest warm-up"
        ),
        "{text}"
    );
    let step = &saved(&house)["steps"][0];
    let found = &step["verified"];
    assert_eq!([&found["asked"], &found["late"]], [4, 4], "{found:#}");
    assert_eq!([&found["garbled"], &found["failed"]], [0, 0], "{found:#}");
    assert!(
        step["requests"]["ok"].as_u64().is_some_and(|ok| ok > 0),
        "{step:#}"
    );
    let garbled = &Value::from("garbled");
    assert!(!step["verdicts"].as_array().expect("a list").contains(garbled));
}
