//! Engines that fail are results: what was measured is saved, the run goes on, and the exit code says so.
#![cfg(target_os = "linux")]

mod support;

use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::Value;
use support::{House, nothing_left, reference_program, stderr};

/// A recipe that starts the reference server with more arguments.
fn recipe(name: &str, more: &[&str]) -> String {
    let more: Vec<String> = more.iter().map(|word| format!("{word:?}")).collect();
    let program = reference_program().display().to_string();
    format!(
        "name = {name:?}\ntitle = {name:?}\nkind = \"spawned\"\ndescription = \"the reference server\"\n\
         formats = [\"gguf\"]\n[find]\nprograms = [{program:?}]\n[serve]\n\
         args = [\"--port\", \"{{port}}\", \"--model-name\", \"{{model_name}}\", {}]\n\
         [ready]\npath = \"/health\"\ntimeout_s = 3\nstop_grace_s = 2\n",
        more.join(", ")
    )
}

/// Runs one engine after another on the tiny model.
fn run(house: &House, engines: &str) -> (Option<i32>, Value, String) {
    run_with(house, engines, &[])
}

/// The same with more flags.
fn run_with(house: &House, engines: &str, more: &[&str]) -> (Option<i32>, Value, String) {
    let model = house.tiny_model();
    let args = [
        "--engine",
        engines,
        "--model",
        model.to_str().expect("UTF-8"),
        "--users",
        "2",
    ];
    let short = [
        "--duration",
        "1s",
        "--warmup",
        "0s",
        "--osl",
        "5",
        "--isl",
        "40",
        "--format",
        "json",
        "--no-progress",
        "--no-calibrate",
    ];
    let output = house
        .command()
        .args(args)
        .args(short)
        .args(more)
        .output()
        .expect("loadtest starts");
    let summary =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (output.status.code(), summary, stderr(&output))
}

/// The tables of the only run, as people read them.
fn tables(house: &House, format: &str) -> String {
    let shown = house.run(&["report", "last", "--format", format]);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    String::from_utf8(shown.stdout).expect("UTF-8")
}

#[test]
fn an_engine_that_dies_while_loading_takes_nothing_else_with_it() {
    let house = House::new();
    house.engine("dying", &recipe("dying", &["--die-while-loading"]));
    house.engine("fine", &recipe("fine", &["--seed", "4711001"]));
    let (code, summary, _) = run(&house, "dying,fine");
    assert_eq!(code, Some(1), "{summary:#}");
    let failure = &summary["engines"][0]["failure"];
    assert!(
        failure["message"]
            .as_str()
            .expect("words")
            .contains("died while loading"),
        "{failure:#}"
    );
    assert_eq!(failure["exit"], "exit code 1");
    assert!(failure["log_tail"].to_string().contains("as told"), "{failure:#}");
    assert_eq!(summary["steps"][0]["engine"], "fine");
    assert!(summary["steps"][0]["requests"]["ok"].as_u64() > Some(0));
    let table = tables(&house, "table");
    assert!(
        table.contains("\n dying  | died while loading, exit code 1  "),
        "{table}"
    );
    nothing_left("--seed 4711001");
}

#[test]
fn interleaved_engines_take_turns_and_one_that_fails_has_no_other() {
    let house = House::new();
    house.engine("one", &recipe("one", &["--seed", "4711002"]));
    house.engine("dying", &recipe("dying", &["--die-while-loading"]));
    house.engine("two", &recipe("two", &[]));
    let flags = ["--repeat", "2", "--order", "interleaved", "--cool-down", "1ms"];
    let (code, summary, told) = run_with(&house, "one,dying,two", &flags);
    assert_eq!(code, Some(1), "{summary:#}");
    let steps = summary["steps"].as_array().expect("a list");
    let turns: Vec<_> = steps
        .iter()
        .map(|step| (step["engine"].as_str().expect("a name"), step["repeat"].as_u64()))
        .collect();
    let wanted = [
        ("one", Some(0)),
        ("two", Some(0)),
        ("one", Some(1)),
        ("two", Some(1)),
    ];
    assert_eq!(turns, wanted);
    let engines = &summary["engines"];
    assert_eq!([&engines[0]["starts"], &engines[1]["starts"]], [2, 0]);
    assert_eq!(told.matches("resting for 1ms").count(), 5, "{told}");
    let log = house.run_dir().join("engine-one-2.log");
    assert!(log.is_file());
    nothing_left("--seed 4711002");
}

#[test]
fn an_engine_that_dies_mid_run_leaves_its_exit_and_its_requests() {
    let house = House::new();
    // The readiness probe is a request too.
    house.engine("mortal", &recipe("mortal", &["--faults", "die:from=20"]));
    let (code, summary, _) = run(&house, "mortal");
    assert_eq!(code, Some(1), "{summary:#}");
    let engine = &summary["engines"][0];
    assert!(
        engine["failure"]["message"]
            .as_str()
            .expect("words")
            .contains("died during the run"),
        "{engine:#}"
    );
    assert_eq!(engine["exit"], "SIGABRT");
    let step = &summary["steps"][0];
    assert!(step["requests"]["ok"].as_u64() > Some(0), "{step:#}");
    assert!(step["requests_all"]["failed"].as_u64() > Some(0), "{step:#}");
    let table = tables(&house, "table");
    assert!(
        table.contains("\n mortal | died during the run, SIGABRT, "),
        "what it did not come to is missing, and the table says why: {table}"
    );
}

#[test]
fn an_engine_that_never_gets_ready_is_given_up_and_stopped() {
    let house = House::new();
    house.engine(
        "sleepy",
        &recipe("sleepy", &["--never-ready", "--seed", "4711002"]),
    );
    let (code, summary, _) = run(&house, "sleepy");
    assert_eq!(code, Some(1), "{summary:#}");
    let failure = summary["engines"][0]["failure"]["message"]
        .as_str()
        .expect("words")
        .to_owned();
    assert!(failure.contains("did not answer within 3 s"), "{failure}");
    nothing_left("--seed 4711002");
}

#[test]
fn a_port_in_use() {
    let house = House::new();
    house.engine("fine", &recipe("fine", &[]));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let model = house.tiny_model();
    let output = house.run(&[
        "serve",
        "fine",
        "--model",
        model.to_str().expect("UTF-8"),
        "--port",
        &port,
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("port {port} is in use")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_interrupted_run_reports_what_it_measured() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let house = House::new();
    house.engine("fine", &recipe("fine", &["--seed", "4711003"]));
    let model = house.tiny_model();
    let args = [
        "--engine",
        "fine",
        "--model",
        model.to_str().expect("UTF-8"),
        "--users",
        "2",
        "--osl",
        "5",
        "--isl",
        "40",
    ];
    let mut process = house
        .command()
        .args(args)
        .args([
            "--duration",
            "10m",
            "--warmup",
            "0s",
            "--format",
            "json",
            "--no-progress",
            "--no-calibrate",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("loadtest starts");
    // Requests are on disk while the step runs: wait for the first, then interrupt.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let written = || {
        let results = house.dir.path().join("results");
        let runs = std::fs::read_dir(results).into_iter().flatten().flatten();
        runs.filter_map(|run| std::fs::metadata(run.path().join("requests.jsonl")).ok())
            .any(|file| file.len() > 0)
    };
    while !written() {
        assert!(std::time::Instant::now() < deadline, "no request was written");
        std::thread::yield_now();
    }
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(process.id().cast_signed(), libc::SIGINT) };
    let mut summary = String::new();
    BufReader::new(process.stdout.take().expect("piped"))
        .read_line(&mut summary)
        .expect("a summary begins");
    assert_eq!(process.wait().expect("it ends").code(), Some(130));
    let saved: Value =
        serde_json::from_slice(&std::fs::read(house.run_dir().join("run.json")).expect("run.json"))
            .expect("JSON");
    assert_eq!(saved["status"], "interrupted");
    assert!(
        saved["steps"][0]["requests"]["ok"].as_u64() > Some(0),
        "{saved:#}"
    );
    nothing_left("--seed 4711003");
}

#[cfg(target_os = "linux")]
#[test]
fn each_side_runs_on_the_processors_it_was_given() {
    use loadtest::telemetry::affinity;

    let house = House::new();
    house.engine("mine", &recipe("mine", &[]));
    let model = house.tiny_model();
    let all = affinity::of(0).expect("Linux tells");
    let (first, last) = (all[0].to_string(), all[all.len() - 1].to_string());
    let output = house.run(&[
        "--engine",
        "mine",
        "--model",
        model.to_str().expect("UTF-8"),
        "--users",
        "2",
        "--num-prompts",
        "2",
        "--osl",
        "4",
        "--format",
        "json",
        "--client-cpus",
        &first,
        "--server-cpus",
        &last,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let effective = &summary["engines"][0]["effective"];
    assert_eq!(
        (&effective["client_cpus"], &effective["server_cpus"]),
        (&first.into(), &last.into()),
        "{effective:#}"
    );
}

#[test]
fn an_engine_that_is_not_here_says_what_to_type() {
    let nowhere = |name| PathBuf::from("/nonexistent").join(name);
    let house = House::new()
        .with_env("PATH", nowhere("bin"))
        .with_env("XDG_DATA_HOME", nowhere("data"));
    house.engine("fine", &recipe("fine", &[]));
    let (code, summary, _) = run(&house, "ollama,fine");
    assert_eq!(code, Some(1), "{summary:#}");
    let message = summary["engines"][0]["failure"]["message"].to_string();
    assert!(
        message.contains("ollama is not on this machine")
            && message.contains("`loadtest engines install ollama`"),
        "{message}"
    );
    assert_eq!(summary["steps"][0]["engine"], "fine");
    let table = tables(&house, "table");
    let row = table
        .lines()
        .find(|line| line.starts_with(" ollama |"))
        .expect(&table);
    assert_eq!(row.trim_end(), " ollama | is not on this machine");
    assert!(
        table.contains("! ollama failed: ollama is not on this machine: "),
        "{table}"
    );
    let markdown = tables(&house, "markdown");
    assert!(
        markdown.contains("| ollama: is not on this machine | ")
            && markdown.contains("`loadtest engines install ollama`"),
        "{markdown}"
    );
    let page = tables(&house, "html");
    assert!(page.contains(">is not on this machine</td>"));
    let csv = tables(&house, "csv");
    assert!(
        csv.lines().count() == 2 && !csv.contains("ollama"),
        "a row per step: {csv}"
    );
    let notes = summary["notes"].to_string();
    assert!(!notes.contains("fine cannot go on"), "{notes}");
}

#[test]
fn a_model_in_a_form_that_an_engine_does_not_read_is_refused() {
    let house = House::new();
    house.engine(
        "folders",
        &recipe("folders", &[]).replace("\"gguf\"", "\"safetensors\""),
    );
    let (code, summary, _) = run(&house, "folders");
    assert_eq!(code, Some(1), "{summary:#}");
    let message = summary["engines"][0]["failure"]["message"].to_string();
    assert!(
        message.contains("folders takes only safetensors: ") && message.contains("is a GGUF file"),
        "{message}"
    );
}

/// A server that must be told of its model while it runs, and reads a file of ours: the stand-in's own program.
#[test]
fn a_model_is_made_in_a_server_that_runs() {
    let house = House::new();
    let made = house.dir.path().join("made");
    let program = reference_program().display().to_string();
    let script = format!(
        "case $1 in serve) exec '{program}' --port $2 --model-name $3;; make) cat $2 > '{}';; esac",
        made.display()
    );
    let text = format!(
        "name = 'two'\ntitle = 'two'\nkind = 'spawned'\ndescription = 'x'\n[find]\nprograms = ['/bin/sh']\n[serve]\n\
         args = ['-c', {script:?}, 'two', 'serve', '{{port}}', '{{model_name}}']\n\
         prepare = [['-c', {script:?}, 'two', 'make', '{{log}}.file']]\nfiles = {{ '{{log}}.file' = 'FROM {{model}}' }}\n\
         [ready]\npath = '/health'\n[dialect]\nignore_eos = false\n"
    );
    house.engine("two", &text);
    let (code, summary, stderr) = run(&house, "two");
    assert_eq!(code, Some(0), "{summary:#} {stderr}");
    let made = std::fs::read_to_string(made).expect("the preparation ran");
    assert!(
        made.starts_with("FROM /") && made.ends_with("tiny.gguf"),
        "{made}"
    );
    assert!(
        summary["notes"].to_string().contains("two cannot go on past"),
        "{:#}",
        summary["notes"]
    );
}

#[test]
fn all_engines_are_listed_for_a_program_too() {
    let house = House::new();
    let output = house.run(&["engines", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<&str> = all
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    for name in [
        "candle",
        "mistralrs",
        "llamacpp",
        "vllm",
        "sglang",
        "tgi",
        "ollama",
        "lmstudio",
        "uzu",
        "command",
        "attach",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(
        all.as_array()
            .expect("a list")
            .iter()
            .all(|row| row["what_to_do"] != ""),
        "{all:#}"
    );
}

#[test]
fn an_engine_at_its_usual_address_is_asked_for_a_model_that_it_lists() {
    let house = House::new();
    let server = support::Reference::start(&["--model-name", "its-own"]);
    let text = format!(
        "name = 'usual'\ntitle = 'usual'\nkind = 'attach'\ndescription = 'x'\nurl = {:?}\n",
        server.url
    );
    house.engine("usual", &text);
    let short = [
        "--engine",
        "usual",
        "--num-prompts",
        "2",
        "--osl",
        "3",
        "--no-calibrate",
        "--format",
        "json",
    ];
    let output = house.run(&short);
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let message = summary["engines"][0]["failure"]["message"].to_string();
    assert!(
        message.contains("name one of these with --model: its-own"),
        "{message}"
    );
    let named = house.run(&[&short[..], &["--model", "its-own"]].concat());
    assert_eq!(named.status.code(), Some(0), "{}", stderr(&named));
    let checked = house.run(&["engines", "check", "usual", "--model", "its-own"]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains("max_tokens") && text.contains("honoured"), "{text}");
}
