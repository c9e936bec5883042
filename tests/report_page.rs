//! `report.html`: of a sweep over three engines, of a run that was killed, and in a real browser.
#![cfg(target_os = "linux")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{House, reference_program, stderr};

/// Slots of the reference server that plays three engines.
const ENGINES: [(&str, &str); 3] = [("slots-8", "8"), ("slots-20", "20"), ("slots-100", "100")];

/// Measures a sweep over the three, and returns its folder.
fn sweep(house: &House, users: &str, seconds: &str) -> PathBuf {
    let program = reference_program().display().to_string();
    for (name, slots) in ENGINES {
        let recipe = format!(
            "name = {name:?}\ntitle = {name:?}\nkind = \"spawned\"\ndescription = \"the reference server\"\n\
             formats = [\"gguf\"]\n[find]\nprograms = [{program:?}]\n[serve]\nargs = [\"--port\", \"{{port}}\", \
             \"--model-name\", \"{{model_name}}\", \"--slots\", {slots:?}, \"--itl-ms\", \"8\", \"--jitter-ms\", \
             \"3\"]\n[ready]\npath = \"/health\"\n"
        );
        house.engine(name, &recipe);
    }
    let model = house.tiny_model();
    let names = ENGINES.map(|(name, _)| name).join(",");
    let words = [
        "--engine",
        &names,
        "--users",
        users,
        "--duration",
        seconds,
        "--isl",
        "96,20",
        "--osl",
        "40",
        "--warmup",
        "500ms",
        "--ramp",
        "0s",
        "--no-progress",
        "--no-calibrate",
        "--quiet",
    ];
    let mut command = house.command();
    let output = command.args(words).arg("--model").arg(model).output();
    let output = output.expect("loadtest starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    house.run_dir()
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
    let dir = sweep(&house, "4,16", "1s");
    let output = house.run(&["report", "last", "--format", "html"]);
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

    let output = house.run(&["report", "last", "--format", "csv", "-o", "steps.csv"]);
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
    let dir = sweep(&house, "4,16", "1s");
    // As a power cut leaves it: no summary, no seconds, half a line.
    std::fs::remove_file(dir.join("run.json")).expect("it is there");
    std::fs::remove_file(dir.join("timeline.csv")).expect("it is there");
    let lines = std::fs::read(dir.join("requests.jsonl")).expect("it is there");
    std::fs::write(dir.join("requests.jsonl"), &lines[..lines.len() / 2]).expect("written");
    let output = house.run(&["report", "last", "--format", "html"]);
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

/// A run of two engines under 64 users for 5 minutes, 50,000 requests each, out of a step of the sweep.
fn large(house: &House) {
    let dir = sweep(house, "4", "1s");
    let path = dir.join("run.json");
    let mut run: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    let steps = run["steps"].as_array().expect("steps");
    let of = |engine: usize| {
        let name = &run["engines"][engine]["name"];
        let mut step = steps
            .iter()
            .find(|step| step["engine"] == *name)
            .expect("a step")
            .clone();
        step["step"] = engine.into();
        step["users"] = 64.into();
        step["window_start_ns"] = 5_000_000_000_u64.into();
        step["window_s"] = 300.into();
        step
    };
    let (first, second) = (of(0), of(1));
    let names = [first["engine"].clone(), second["engine"].clone()];
    run["steps"] = vec![first, second].into();
    std::fs::write(&path, serde_json::to_vec(&run).expect("JSON")).expect("written");

    let mut lines =
        std::io::BufWriter::new(std::fs::File::create(dir.join("requests.jsonl")).expect("a file"));
    for i in 0..100_000_u64 {
        let (step, sent) = (i % 2, i * 3_050_000);
        let first = sent + (20 + i * 7_919 % 400) * 1_000_000;
        let last = first + 2_000_000_000;
        let line = serde_json::json!({
            "engine": names[step as usize], "id": i, "step": step, "user": i % 64, "due_ns": sent, "sent_ns": sent,
            "headers_ns": first, "first_ns": first, "second_ns": first + 1, "first_visible_ns": first, "last_ns": last,
            "end_ns": last, "connect_ns": null, "events": 100, "n_in": 50 + i % 500, "n_out": 100,
            "token_source": "usage", "outcome": if i % 1_000 == 0 { "stalled" } else { "ok" }, "status": 200,
            "error": null,
        });
        writeln!(lines, "{line}").expect("written");
    }
    let text = std::fs::read_to_string(dir.join("timeline.csv")).expect("read");
    let mut rows = text.lines().next().expect("a head").to_owned();
    let cells = text
        .lines()
        .nth(1)
        .expect("a row")
        .splitn(5, ',')
        .last()
        .expect("cells")
        .to_owned();
    for i in 0..620 {
        rows += &format!(
            "\n{},{},0,{},{cells}",
            names[i % 2].as_str().unwrap(),
            i % 2,
            i / 2
        );
    }
    std::fs::write(dir.join("timeline.csv"), rows).expect("written");
}

#[test]
fn a_hundred_thousand_requests_are_a_page_under_8_mb_and_took_under_500_mb() {
    let house = House::new();
    large(&house);
    let output = house.run(&["report", "last", "--format", "html"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.len() < 8_000_000, "{} bytes", output.stdout.len());
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    let found = charts(&page);
    for id in ["ttft-heat", "ttft-prompt", "tokens-over-time", "errors"] {
        assert!(
            found.iter().any(|chart| chart == id),
            "no chart {id} in {found:?}"
        );
    }
    // The largest of the processes that this test program has waited for.
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the struct that it is given.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    assert!(
        usage.ru_maxrss * unit < 500_000_000,
        "{} bytes",
        usage.ru_maxrss * unit
    );
}

/// The browser to test in.
fn browser() -> PathBuf {
    std::env::var_os("LOADTEST_BROWSER")
        .map(PathBuf::from)
        .expect("LOADTEST_BROWSER names a chromium")
}

/// Opens the page so many pixels wide, uses it, and returns what was seen. A frame holds it, because a window cannot be
/// as narrow as a telephone.
fn opened(house: &House, page: &Path, width: u32, dark: bool) -> Value {
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
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!dark)
        ))
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
            !painted.is_empty() && painted.iter().all(|share| share.as_f64() > Some(0.001)),
            "blank: {figure}"
        );
    }
}

#[test]
#[ignore = "needs chromium: scripts/test runs it"]
fn every_chart_is_drawn_in_a_browser() {
    let house = House::new();
    let dir = sweep(&house, "10,40,70", "2s");
    let output = house.run(&["report", "last", "--format", "html"]);
    let ids = charts(&String::from_utf8(output.stdout).expect("UTF-8"));
    for (width, dark) in [(1280, false), (400, true)] {
        let seen = opened(&house, &dir.join("report.html"), width, dark);
        assert_eq!(seen["failures"], Value::Array(Vec::new()), "at {width} pixels");
        all_drawn(&seen["first"], &ids);
        let loads = seen["loads"].as_object().expect("loads");
        assert!(loads.len() == 3 && loads.contains_key("40 users"), "{loads:?}");
        loads.values().for_each(|figures| all_drawn(figures, &ids));
        assert_eq!(seen["overflow"], 0, "wider than {width} pixels");
        // What WCAG 2.1 asks of text, and of graphics.
        let contrast = |of: &str| seen["contrasts"][of].as_f64();
        assert!(
            seen["dark"] == dark && contrast("text") >= Some(4.5) && contrast("engines") >= Some(3.0),
            "{seen:#}"
        );
        let picks = seen["picks"].as_array().expect("picks");
        assert!(
            picks.len() == 3 && picks[1].as_str().is_some_and(|text| text.contains("40 users")),
            "{picks:?}"
        );
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
