//! Bad input gets one clear message that names what is wrong and what would be right, and exit code 2.

mod support;

use support::{House, stderr};

/// What `args` are answered with: the exit code, and one message that holds all of `words`.
fn refused(house: &House, args: &[&str], code: i32, words: &[&str]) {
    let output = house.run(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
    for word in words {
        assert!(
            message.contains(word),
            "{args:?} does not say {word:?}:\n{message}"
        );
    }
    assert_eq!(message.matches("error:").count(), 1, "one message: {message}");
}

#[test]
fn an_unknown_profile() {
    refused(
        &House::new(),
        &["--profile", "sustaned-64"],
        2,
        &["sustaned-64", "sustained-64"],
    );
}

#[test]
fn an_unknown_key_in_a_profile() {
    let house = House::new();
    std::fs::write(
        house.dir.path().join("mine.toml"),
        "[load]\nusers = 4\ndurration = \"5s\"\n",
    )
    .expect("written");
    refused(
        &house,
        &["--profile", "mine.toml"],
        2,
        &["mine.toml", "3", "durration", "duration"],
    );
}

#[test]
fn an_unknown_engine() {
    refused(
        &House::new(),
        &["--engine", "lamacpp"],
        2,
        &["lamacpp", "llamacpp"],
    );
}

#[test]
fn an_unknown_model() {
    refused(
        &House::new(),
        &["--model", "smollm2-135m-instrukt"],
        2,
        &["smollm2-135m-instrukt", "smollm2-135m-instruct"],
    );
}

#[test]
fn a_model_that_names_nothing() {
    let house = House::new();
    for name in ["hf:bad", "hf:owner/repo/", "no/such.gguf"] {
        refused(&house, &["--model", name], 2, &["--model", name]);
        refused(&house, &["models", "fetch", name], 2, &["--model", name]);
    }
}

#[test]
fn a_duration_without_a_unit() {
    refused(&House::new(), &["--duration", "30"], 2, &["30", "30s"]);
}

#[test]
fn an_unknown_unit() {
    refused(
        &House::new(),
        &["--duration", "30parsecs"],
        2,
        &["30parsecs", "30s"],
    );
}

#[test]
fn users_that_go_down() {
    refused(&House::new(), &["--users", "100..10"], 2, &["100..10", "10..100"]);
}

#[test]
fn a_url_and_an_engine() {
    refused(
        &House::new(),
        &["--url", "http://127.0.0.1:1", "--engine", "candle"],
        2,
        &["--url", "--engine"],
    );
}

#[test]
fn a_key_in_a_flag_that_does_not_exist() {
    refused(&House::new(), &["--user", "10"], 2, &["--user", "--users"]);
}

#[test]
fn a_model_file_cut_short() {
    let house = House::new();
    let path = house.dir.path().join("short.gguf");
    // A GGUF header that promises one tensor and two keys, and then nothing.
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(2u64.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    refused(
        &house,
        &["--model", path.to_str().expect("UTF-8")],
        1,
        &["short.gguf"],
    );
}

#[test]
fn a_file_that_is_no_model() {
    let house = House::new();
    let path = house.dir.path().join("notes.gguf");
    std::fs::write(&path, "not a model at all, just some text").expect("written");
    refused(
        &house,
        &["--model", path.to_str().expect("UTF-8")],
        1,
        &["notes.gguf"],
    );
}

#[test]
fn a_broken_recipe() {
    let house = House::new();
    house.engine("mine", "name = \"mine\"\nkidn = \"spawned\"\n");
    refused(&house, &["engines"], 1, &["engine.toml", "kidn", "kind"]);
}

#[test]
fn a_run_that_does_not_exist() {
    refused(&House::new(), &["report", "results/never"], 1, &["never"]);
}

#[test]
fn an_unknown_metric() {
    refused(&House::new(), &["explain", "tttf"], 2, &["tttf", "ttft"]);
}

/// Every layer's errors leave their cause to the chain, which is printed as a whole.
#[test]
fn a_cause_is_said_and_said_once() {
    let house = House::new();
    let write = |path: &str, content: &[u8]| {
        let path = house.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, content).expect("written");
    };
    let said = |args: &[&str], code: i32, cause: &str| {
        let mut command = house.command();
        command.env("LOADTEST_CACHE", "notes/cache");
        let output = command.args(args).output().expect("loadtest starts");
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
        assert_eq!(message.matches(cause).count(), 1, "{args:?}: {message}");
    };
    let no_folder = "Not a directory (os error 20)";
    write("notes", b"a file, not a folder");
    write("run/run.json", b"nonsense");
    said(&["--profile", "notes/x.toml"], 2, no_folder);
    said(
        &["--url", "http://127.0.0.1:1", "--output", "notes/x"],
        1,
        no_folder,
    );
    said(&["report", "run"], 1, "line 1 column 2");
    said(&["models", "fetch", "smollm2-135m-instruct"], 1, no_folder);
    write("config/loadtest/servers/mine/engine.toml", b"\xff");
    said(&["engines"], 1, "did not contain valid UTF-8");
}

#[test]
fn processors_that_make_no_set() {
    for set in ["a-b", "3-1", ""] {
        refused(
            &House::new(),
            &["--client-cpus", set],
            2,
            &["--client-cpus", "0,2-3"],
        );
    }
}

#[test]
fn a_processor_that_is_not_there() {
    // The highest number that the system's sets have room for; no machine of tests has it.
    refused(
        &House::new(),
        &["--server-cpus", "1023", "--dry-run"],
        2,
        &["--server-cpus", "1023"],
    );
}

#[test]
fn processors_for_a_server_that_runs_already() {
    refused(
        &House::new(),
        &["--url", "http://127.0.0.1:1", "--server-cpus", "0"],
        2,
        &["--server-cpus", "runs already"],
    );
}
