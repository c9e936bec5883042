//! `report.html`: of a sweep over three engines, of a run that was killed, and in a real browser.
#![cfg(unix)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{House, stderr};

/// A copy of the run in `tests/data/sweep`: 10 to 100 users on the reference server with 16, 40 and 100 slots.
fn sweep(house: &House) -> PathBuf {
    let to = house.dir.path().join("sweep");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sweep"),
        &to,
    );
    to
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the run").flatten() {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied")),
        }
    }
}

/// What the page's script works on.
fn data(page: &str) -> Value {
    let start = "<script type=\"application/json\" id=\"data\">";
    let rest = page.split_once(start).expect("the page has data").1;
    serde_json::from_str(rest.split_once("</script>").expect("it ends").0).expect("JSON")
}

fn charts(page: &str) -> Vec<String> {
    let data = data(page);
    let charts = data["charts"].as_array().expect("charts");
    charts
        .iter()
        .map(|chart| chart["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn report_writes_the_page_and_prints_it() {
    let house = House::new();
    let dir = sweep(&house);
    let output = house.run(&["report", "sweep", "--format", "html"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(
        std::fs::read_to_string(dir.join("report.html")).expect("written"),
        printed
    );
    let found = charts(&printed);
    for id in [
        "throughput",
        "ttft",
        "scaling",
        "itl",
        "ttft-tail",
        "itl-tail",
        "e2el-tail",
        "ttft-heat",
        "decode-position",
        "ttft-prompt",
        "tokens-over-time",
        "ttft-over-time",
        "itl-over-time",
        "in-flight",
        "server-cpu",
        "server-rss",
    ] {
        assert!(
            found.iter().any(|chart| chart == id),
            "no chart {id} in {found:?}"
        );
    }

    let output = house.run(&["report", "sweep", "--format", "csv", "-o", "steps.csv"]);
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(0), 0),
        "{}",
        stderr(&output)
    );
    let csv = std::fs::read_to_string(house.dir.path().join("steps.csv")).expect("written");
    assert!(csv.starts_with("engine,"));
}

#[test]
fn a_killed_run_is_a_page() {
    let house = House::new();
    let dir = sweep(&house);
    // As a power cut leaves it: no summary, no seconds, half a line.
    std::fs::remove_file(dir.join("run.json")).expect("it is there");
    std::fs::remove_file(dir.join("timeline.csv")).expect("it is there");
    let lines = std::fs::read(dir.join("requests.jsonl")).expect("it is there");
    std::fs::write(dir.join("requests.jsonl"), &lines[..lines.len() / 2]).expect("written");
    let output = house.run(&["report", "sweep", "--format", "html"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    let found = charts(&page);
    for id in [
        "throughput",
        "ttft",
        "ttft-heat",
        "tokens-over-time",
        "ttft-over-time",
    ] {
        assert!(
            found.iter().any(|chart| chart == id),
            "no chart {id} in {found:?}"
        );
    }
    assert!(page.contains("did not come to its end"));
}

/// The browser to test in.
fn browser() -> PathBuf {
    std::env::var_os("LOADTEST_BROWSER")
        .map(PathBuf::from)
        .expect("LOADTEST_BROWSER names a chromium")
}

/// Opens the page so many pixels wide, uses it, and returns what was seen. A frame holds it, because a window cannot be
/// as narrow as a telephone.
fn opened(house: &House, page: &Path, width: u32) -> Value {
    let text = std::fs::read_to_string(page).expect("the page");
    let check = format!("<head><script>{}</script>", include_str!("report_page/check.js"));
    let write = |name: &str, text: String| {
        let path = house.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    write("checked.html", text.replacen("<head>", &check, 1));
    let around = write(
        "around.html",
        format!(
            "<!doctype html><iframe src=checked.html width={width} height=900></iframe><pre id=checked></pre><script>\
             addEventListener('message', (event) => (document.getElementById('checked').textContent = event.data))\
             </script>"
        ),
    );
    let output = Command::new(browser())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!(
            "--user-data-dir={}",
            house.dir.path().join("browser").display()
        ))
        .args(["--window-size=1400,1000", "--enable-logging=stderr"])
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("file://{}", around.display()))
        .output()
        .expect("the browser starts");
    let said = stderr(&output);
    assert!(!said.contains("CONSOLE"), "{said}");
    let dom = String::from_utf8(output.stdout).expect("UTF-8");
    let seen = dom
        .split_once("<pre id=\"checked\">")
        .and_then(|(_, rest)| rest.split_once("</pre>"))
        .filter(|(seen, _)| !seen.is_empty())
        .unwrap_or_else(|| panic!("the page was not checked: {said}"));
    let json = seen
        .0
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&json).expect("JSON")
}

/// Every chart is there, has series, and is painted.
fn all_drawn(figures: &Value, ids: &[String]) {
    let figures = figures.as_array().expect("figures");
    assert_eq!(figures.len(), ids.len());
    for figure in figures {
        assert!(figure["drawn"].as_u64() > Some(0), "not drawn: {figure}");
        let painted = figure["painted"].as_array().expect("canvases");
        assert!(
            !painted.is_empty() && painted.iter().all(|share| share.as_f64() > Some(0.005)),
            "blank: {figure}"
        );
    }
}

#[test]
#[ignore = "needs chromium: scripts/test runs it"]
fn every_chart_is_drawn_in_a_browser() {
    let house = House::new();
    let dir = sweep(&house);
    let output = house.run(&["report", "sweep", "--format", "html"]);
    let ids = charts(&String::from_utf8(output.stdout).expect("UTF-8"));
    for width in [1280, 400] {
        let seen = opened(&house, &dir.join("report.html"), width);
        assert_eq!(seen["failures"], Value::Array(Vec::new()), "at {width} pixels");
        all_drawn(&seen["first"], &ids);
        let loads = seen["loads"].as_object().expect("loads");
        assert!(loads.len() >= 5 && loads.contains_key("40 users"), "{loads:?}");
        loads.values().for_each(|figures| all_drawn(figures, &ids));
        assert_eq!(seen["overflow"], 0, "wider than {width} pixels");
        assert!(seen["cards"].as_u64() >= Some(5));
        let rows = &seen["rows"];
        assert!(
            rows[0] == rows[2] && rows[1].as_u64() < rows[0].as_u64(),
            "{rows}"
        );
        let values = seen["values"].as_array().expect("values");
        assert!(
            values
                .iter()
                .filter(|value| value.as_str().is_some_and(|v| v.contains("tok/s")))
                .count()
                >= 3,
            "{values:?}"
        );
        let data = seen["data"].as_array().expect("rows of data");
        assert!(data.iter().all(|rows| rows.as_u64() > Some(1)), "{data:?}");
        assert_eq!(seen["links"].as_u64(), Some(2 * ids.len() as u64));
    }
}
