//! An engine of a source checkout is built by cargo on its first use, with progress, and its errors are shown.
#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use loadtest::engine::{self, Availability, EngineError, Program, Recipe};
use support::{House, stderr};

const RECIPE: &str = r#"
name = "tiny"
title = "a tiny engine"
kind = "embedded"
description = "a package without dependencies"
[build]
manifest = "Cargo.toml"
binary = "loadtest-test-tiny"
takes = "a second"
[serve]
args = ["{port}"]
"#;

const MANIFEST: &str = "[package]\nname = \"loadtest-test-tiny\"\nedition = \"2024\"\n[workspace]\n";

fn build(dir: &Path, source: &str) -> (Result<Program, EngineError>, Vec<String>) {
    fs::create_dir_all(dir.join("src")).unwrap();
    fs::write(dir.join("Cargo.toml"), MANIFEST).unwrap();
    fs::write(dir.join("src/main.rs"), source).unwrap();
    let recipe = Recipe::parse(RECIPE, "engine.toml", Some(dir)).unwrap();
    assert!(matches!(
        recipe.availability().unwrap(),
        Availability::Ready(_) | Availability::Buildable { .. }
    ));
    let said = Mutex::new(Vec::new());
    let program = engine::ensure(&recipe, None, &|status: &str| {
        said.lock().unwrap().push(status.to_owned())
    });
    (program, said.into_inner().unwrap())
}

#[test]
fn cargo_builds_it_and_tells_why_it_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let (program, said) = build(dir.path(), "fn main() { println!(\"tiny\"); }");
    let program = program.unwrap();
    assert!(
        said.iter()
            .any(|status| status.starts_with("building a tiny engine")),
        "{said:?}"
    );
    let output = std::process::Command::new(&program.argv[0]).output().unwrap();
    assert_eq!(output.stdout, b"tiny\n");

    let (program, _) = build(dir.path(), "fn main() { no_such_function(); }");
    let message = program.unwrap_err().to_string();
    assert!(
        message.contains("no_such_function") && message.contains("cargo build"),
        "{message}"
    );
}

/// Puts a server where cargo would, and says so as cargo does.
const CARGO: &str = r#"#!/bin/sh
while [ "$1" != --target-dir ]; do shift; done
mkdir -p "$2/release"
echo '#!/bin/sh' > "$2/release/loadtest-test-built"
printf '{"target":{"name":"loadtest-test-built"},"executable":"%s"}\n' "$2/release/loadtest-test-built"
"#;

#[test]
fn what_it_costs_is_said_before_the_first_build_and_for_a_device() {
    let house = House::new();
    let root = house.dir.path();
    house.engine(
        "built",
        "name = \"built\"\ntitle = \"Built\"\nkind = \"embedded\"\ndescription = \"x\"\nformats = [\"gguf\"]\n\
         [build]\nmanifest = \"engine.toml\"\nbinary = \"loadtest-test-built\"\ntakes = \"half an hour\"\n\
         device_features = [\"cuda\"]\n[serve]\nargs = [\"{port}\"]\ndevice_args = [\"{device}\"]\n\
         [ready]\npath = \"/health\"\n",
    );
    let cargo = root.join("cargo");
    fs::write(&cargo, CARGO).expect("written");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("executable");
    let model = house.tiny_model();
    let said = |args: &[&str]| {
        let mut command = house.command();
        command
            .env("CARGO", &cargo)
            .env("CARGO_TARGET_DIR", root.join("target"));
        let output = command.args(args).output().expect("loadtest starts");
        let said = stderr(&output);
        let costs = said.lines().filter(|line| line.contains("half an hour"));
        costs.map(str::to_owned).collect::<Vec<_>>()
    };
    let install = ["engines", "install", "built"];
    assert_eq!(said(&install), ["building Built, once: half an hour"]);
    assert_eq!(said(&install), [""; 0]);
    // Its server ends at once; what it costs was said by then.
    let model = model.to_str().expect("UTF-8");
    let serve = [
        "serve", "built", "--device", "cuda", "--port", "0", "--model", model,
    ];
    assert_eq!(
        said(&serve),
        ["building Built for cuda: half an hour, unless it was built for that before"]
    );
}
