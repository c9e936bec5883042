//! An engine of a source checkout is built by cargo on its first use, with progress, and its errors are shown.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use loadtest::engine::{self, Availability, EngineError, Program, Recipe};

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
