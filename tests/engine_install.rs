//! Engines that Go builds: with a stand-in for Go, in folders of loadtest's own.
#![cfg(unix)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use support::{House, stderr};

const RECIPE: &str = r#"
name = "gopher"
title = "a gopher"
kind = "spawned"
description = "a module of Go"
[find]
get = "type `what only a user can`"
[install]
go = "example.com/gopher/cmd/server@v1.2.3"
program = ["{dir}/bin/server", "--quiet"]
takes = "a second"
[install.env]
CGO_CFLAGS = "-O3"
[serve]
args = ["{port}"]
"#;

/// Writes its arguments and folders to `GO_LOG`; `server` is what it builds, unless the file `fails` is there.
const GO: &str = r#"#!/bin/sh
case "$1" in
install)
  echo "$* GOBIN=$GOBIN GOPATH=$GOPATH GOCACHE=$GOCACHE CGO_CFLAGS=$CGO_CFLAGS" >> "$GO_LOG"
  mkdir -p "$GOPATH" "$GOCACHE" "$GOBIN"
  if [ -e "$GO_LOG.fails" ]; then echo 'cgo: C compiler "gcc" not found' >&2; exit 1; fi
  echo example.com/gopher/part >&2
  echo '#!/bin/sh' > "$GOBIN/server"; chmod +x "$GOBIN/server" ;;
version)
  printf '%s/server: go1.24\n\tpath\texample.com/gopher/cmd/server\n\tmod\texample.com/gopher\tv1.2.3\th1:x=\n' "$3" ;;
esac
"#;

/// A house with the recipe, and with this Go on its `PATH`.
fn house(go: Option<&str>) -> House {
    let house = House::new();
    house.engine("gopher", RECIPE);
    let folder = house.dir.path().join("go/bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    if let Some(script) = go {
        let program = folder.join("go");
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    house
}

fn engines(house: &House, args: &[&str]) -> Output {
    let root = house.dir.path();
    // The scripts' own tools, and no Go of the machine's.
    let tools = root.join("tools");
    if !tools.exists() {
        std::fs::create_dir(&tools).expect("a folder");
        for tool in ["mkdir", "chmod"] {
            let found = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(tool));
            let found = found.iter().find(|path| path.exists()).expect("a usual tool");
            std::os::unix::fs::symlink(found, tools.join(tool)).expect("linked");
        }
    }
    let path = std::env::join_paths([root.join("go/bin"), tools]).expect("a path");
    let mut command = house.command();
    command.env("PATH", path).env("GO_LOG", root.join("go.log"));
    command.env("LOADTEST_HOME", root.join("ours"));
    command
        .arg("engines")
        .args(args)
        .output()
        .expect("loadtest starts")
}

#[test]
fn go_builds_into_a_folder_of_ours_and_leaves_no_scratch() {
    let house = house(Some(GO));
    let ours = house.dir.path().join("ours/engines/gopher");
    std::fs::create_dir_all(ours.join("models")).expect("a folder");
    let output = engines(&house, &["install", "gopher"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).starts_with("installing a gopher: a second\n"),
        "{}",
        stderr(&output)
    );
    let log = std::fs::read_to_string(house.dir.path().join("go.log")).expect("Go ran");
    let wanted = format!(
        "install -v -modcacherw example.com/gopher/cmd/server@v1.2.3 GOBIN={0}/build/bin GOPATH={0}/build/modules \
         GOCACHE={0}/build/cache CGO_CFLAGS=-O3\n",
        ours.display()
    );
    assert_eq!(log, wanted);
    assert!(ours.join("bin/server").is_file() && ours.join("models").is_dir());
    assert!(!ours.join("build").exists());

    let again = engines(&house, &["install", "gopher"]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(
        std::fs::read_to_string(house.dir.path().join("go.log")).expect("a log"),
        wanted
    );
    let listed = engines(&house, &["--format", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let row = rows
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["name"] == "gopher")
        .expect("its row");
    assert_eq!(
        (&row["state"], &row["version"]),
        (&"ready".into(), &"v1.2.3".into())
    );
}

#[test]
fn what_it_costs_is_said_once_before_each_part() {
    let house = house(Some(GO));
    let converting = r#"formats = ["safetensors"]
[convert]
to = "text"
takes = "a moment"
command = ["/bin/sh", "-c", 'test -f "$0" && echo x > "$1/x"', "{model}", "{out}"]
[find]
"#;
    house.engine("gopher", &RECIPE.replace("[find]\n", converting));
    let model = house.tiny_model();
    let install = ["install", "gopher", "--model", model.to_str().expect("UTF-8")];
    let costs = [
        "installing a gopher: a second",
        "converting tiny.gguf to text for a gopher, once: a moment",
    ];
    let said = |output: &Output| {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
        let said = stderr(output);
        costs.map(|cost| said.lines().filter(|line| *line == cost).count())
    };
    assert_eq!(said(&engines(&house, &install)), [1, 1]);
    assert_eq!(said(&engines(&house, &install)), [0, 0]);
}

#[test]
fn a_build_that_fails_shows_what_go_said_and_is_no_installation() {
    let house = house(Some(GO));
    std::fs::write(house.dir.path().join("go.log.fails"), "").expect("written");
    let output = engines(&house, &["install", "gopher"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("`go install") && said.contains("C compiler \"gcc\" not found"),
        "{said}"
    );
    let listed = engines(&house, &["--format", "json"]);
    assert!(
        String::from_utf8_lossy(&listed.stdout).contains("type `loadtest engines install gopher` (a second)")
    );
}

#[test]
fn without_go_the_user_is_told_how_else() {
    let house = house(None);
    let output = engines(&house, &["install", "gopher"]);
    assert_eq!(output.status.code(), Some(1));
    let both = "type `what only a user can`; or put `go` on PATH and type `loadtest engines install gopher` (a second)";
    assert!(stderr(&output).contains(both), "{}", stderr(&output));
}
