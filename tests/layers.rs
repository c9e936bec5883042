//! Keeps the house's import table true: data flows one way, and only one file knows `goose`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, and the modules of this crate that it may name.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("profile", &[]),
    ("model", &[]),
    ("telemetry", &[]),
    ("engine", &["telemetry"]),
    ("stats", &[]),
    ("measure", &["profile", "stats"]),
    ("client", &["measure", "profile"]),
    ("load", &["client", "measure", "profile", "telemetry"]),
    ("calibrate", &["client", "engine", "load", "measure", "profile"]),
    ("verify", &["engine", "load", "measure"]),
    ("compare", &["measure", "stats"]),
    ("report", &["compare", "measure", "profile", "stats"]),
    ("cli", &["profile"]),
];

/// The pages on which everything meets: they may name every module, and none may name them.
const PAGES: [&str; 2] = ["run", "commands"];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The first segments after `crate::` in `text`, comments and tests left out; `crate::{a::b, c}` names `a` and `c`.
fn crate_imports(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: String = text
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and `my_crate::` are other things.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0usize;
                let mut name = String::new();
                let mut at_name = true;
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            found.insert(std::mem::take(&mut name));
                            at_name = true;
                        }
                        ':' if depth == 0 => at_name = false,
                        c if at_name && depth == 0 && (c.is_alphanumeric() || c == '_') => name.push(c),
                        _ => {}
                    }
                }
                found.insert(name);
            }
            None => {
                found.insert(
                    rest.chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect(),
                );
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn a_group_of_imports_is_read_like_single_ones() {
    let names = crate_imports(
        "use crate::{a::{x, y}, b, c::Z};\nuse crate::d::E; // crate::f\n//! crate::g\n$crate::h",
    );
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d", "f"]);
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let modules: Vec<&str> = MAY_IMPORT.iter().map(|(m, _)| *m).collect();
    let mut broken = Vec::new();
    for (module, allowed) in MAY_IMPORT {
        let mut files = Vec::new();
        let dir = source().join(module);
        if dir.is_dir() {
            files.extend(rust_files(&dir));
        }
        let file = source().join(format!("{module}.rs"));
        if file.is_file() {
            files.push(file);
        }
        assert!(
            !files.is_empty(),
            "the table names `{module}`, which has no source"
        );
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            for name in crate_imports(&text) {
                if name != *module
                    && (modules.contains(&name.as_str()) || PAGES.contains(&name.as_str()))
                    && !allowed.contains(&name.as_str())
                {
                    broken.push(format!("{}: `{module}` must not import `{name}`", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_stands_in_the_table() {
    let lib = fs::read_to_string(source().join("lib.rs")).expect("lib.rs");
    let declared: BTreeSet<&str> = lib
        .lines()
        .filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|m| !PAGES.contains(m))
        .collect();
    let table: BTreeSet<&str> = MAY_IMPORT.iter().map(|(m, _)| *m).collect();
    assert_eq!(declared, table);
}

#[test]
fn only_the_program_knows_the_serving_shell() {
    for file in rust_files(&source()) {
        let text = fs::read_to_string(&file).expect("a source file");
        assert!(
            !text.contains("loadtest_shell") || file.ends_with("src/main.rs"),
            "{} names the serving shell: a server is a process of its own",
            file.display()
        );
    }
}

#[test]
fn only_one_file_knows_goose() {
    for file in rust_files(&source()) {
        let text = fs::read_to_string(&file).expect("a source file");
        let uses = text.contains("use goose") || text.contains("goose::");
        assert!(
            !uses || file.ends_with("load/attack.rs"),
            "{} names goose",
            file.display()
        );
    }
}
