//! Graphics cards, through a stand-in for NVIDIA's library that the program loads as it would the real one.
#![cfg(target_os = "linux")]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{House, Reference};

/// Builds the stand-in where the dynamic linker will look for it.
fn library(house: &House) -> PathBuf {
    let folder = house.dir.path().join("lib");
    std::fs::create_dir(&folder).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/nvml.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(folder.join("libnvidia-ml.so.1"))
        .arg(source)
        .status()
        .expect("a C compiler");
    assert!(built.success());
    folder
}

fn rows(path: &Path) -> Vec<HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).expect("the file");
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

#[test]
fn cards_are_read_each_second_and_over_the_window() {
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let mut house = House::new();
    let library = library(&house);
    house = house.with_env("LD_LIBRARY_PATH", library);
    let (code, run) = house.load(
        &server.url,
        &["--users", "2", "--osl", "8", "--duration", "2500ms"],
    );
    assert_eq!(code, Some(0), "{run:#}");
    assert_eq!(run["machine"]["gpus"][1], "second card");
    assert_eq!(run["machine"]["gpu_driver"], "580.00.01");
    let step = &run["steps"][0];
    let (first, second) = (&step["server"]["gpu"][0], &step["server"]["gpu"][1]);
    assert_eq!(
        (&first["power_w"], &second["power_w"]),
        (&250.0.into(), &100.0.into())
    );
    assert_eq!(first["memory_peak_bytes"], 1_u64 << 30);
    assert_eq!(
        (&first["sm_clock_mhz"], &first["memory_clock_mhz"]),
        (&1980.0.into(), &2619.0.into())
    );
    assert_eq!(first["pcie_rx_bytes_per_s"], 2048.0 * 1024.0);
    assert_eq!(second["temperature_max_c"], 62.0);
    let window_s = step["window_s"].as_f64().expect("a number");
    for (card, watts) in [(first, 250.0), (second, 100.0)] {
        let joules = card["energy_j"].as_f64().expect("a number");
        assert!((joules / (watts * window_s) - 1.0).abs() < 0.02, "{card:#}");
    }

    let dir = house.run_dir();
    let cards = rows(&dir.join("gpus.csv"));
    assert!(cards.len() >= 6, "two cards, three seconds: {cards:?}");
    let one = cards
        .iter()
        .find(|row| row["gpu"] == "1")
        .expect("the second card");
    assert_eq!(
        (one["utilisation_pct"].as_str(), one["power_w"].as_str()),
        ("50", "100")
    );
    let seconds = rows(&dir.join("timeline.csv"));
    let inside = seconds
        .iter()
        .find(|row| row["in_window"] == "1")
        .expect("a second of the window");
    assert_eq!(
        (
            inside["gpu_utilisation_pct"].as_str(),
            inside["gpu_power_w"].as_str()
        ),
        ("65", "350")
    );
    assert_eq!(inside["gpu_memory_bytes"], (3_u64 << 30).to_string());
    let table = house.run(&["report", dir.to_str().expect("UTF-8")]);
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(
        table.contains("what the servers cost") && table.contains("GPU"),
        "{table}"
    );
}

#[test]
fn a_machine_without_the_library_has_no_cards_and_says_nothing() {
    let server = Reference::start(&[]);
    let house = House::new().with_env("LD_LIBRARY_PATH", PathBuf::from("/nonexistent"));
    if loadtest::telemetry::nvidia().is_some() {
        return;
    }
    let (code, run) = house.load(&server.url, &["--users", "1", "--num-prompts", "2", "--osl", "2"]);
    assert_eq!(code, Some(0), "{run:#}");
    assert!(run["steps"][0]["server"].is_null() && run["machine"]["gpus"] == serde_json::json!([]));
    assert!(!house.run_dir().join("gpus.csv").exists());
}
