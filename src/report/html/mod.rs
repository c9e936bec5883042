//! `report.html`: one file that holds everything, works offline, and prints.
//!
//! The words and the table are made here; the pictures are drawn by the page's own script, out of figures that are
//! aggregated here, by uPlot (`page/uplot`, MIT licence), which is part of the file.

mod chart;
mod decode;
mod findings;
mod glance;
mod heat;
mod lengths;
mod requests;
mod seconds;
mod subject;
mod sweep;
mod tail;

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::{Environment, context};
use serde::Serialize;

use super::columns::{Best, columns};
use super::conclusions::{StepObjectives, choices, reasons};
use super::failed::{self, Failed};
use super::loads::{Load, Loads};
use super::picks::{Pick, picks};
use super::{table, words};
use crate::measure::read_timeline;
use crate::measure::result::RunResult;
use chart::Chart;
use glance::Glance;

/// Name of the page in a run's folder.
pub const FILE: &str = "report.html";

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPTS: [&str; 4] = [
    include_str!("page/numbers.js"),
    include_str!("page/plots.js"),
    include_str!("page/data.js"),
    include_str!("page/page.js"),
];
const UPLOT: &str = include_str!("page/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("page/uplot/uPlot.min.css");

/// What the page's script works on.
#[derive(Debug, Serialize)]
struct Data<'a> {
    engines: &'a [&'a str],
    loads: Vec<Load>,
    picks: &'a [Pick],
    glances: Vec<Glance>,
    charts: Vec<Chart>,
    /// Pictures that could not be drawn, and why.
    missing: Vec<String>,
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    engine: usize,
    load: usize,
    cells: Vec<Cell>,
}

/// The row of an engine that failed.
#[derive(Debug, Serialize)]
struct FailedRow {
    engine: usize,
    name: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Cell {
    text: String,
    best: bool,
}

/// The page of a run whose files lie in `dir`; without it, what `run.json` alone tells.
pub(super) fn page(run: &RunResult, dir: Option<&Path>) -> String {
    let loads = Loads::of(run);
    let (charts, missing) = charts(&loads, dir);
    let picks = picks(&loads);
    let data = Data {
        engines: &loads.engines,
        loads: loads.labels(),
        picks: &picks,
        glances: glance::all(&loads),
        charts,
        missing,
    };
    let columns = columns(&run.steps);
    let heads: Vec<String> = columns
        .iter()
        .map(|column| column.head.join(" ").trim().to_owned())
        .collect();
    let mut environment = Environment::new();
    environment
        .add_template("page.html", PAGE)
        .expect("the template is part of the program");
    let page = environment.get_template("page.html").and_then(|template| {
        template.render(context! {
            subject => subject::of(&loads),
            ended => words::ended(run),
            picks,
            limits => StepObjectives::of(run).meaning(),
            verdict => choices(run),
            reasons => reasons(run),
            heads,
            rows => rows(&loads),
            failed => failed_rows(&loads),
            compared => columns.iter().any(|column| column.best != Best::Neither) && run.steps.len() > 1,
            findings => findings::of(run),
            style => STYLE,
            uplot => UPLOT,
            uplot_style => UPLOT_STYLE,
            scripts => SCRIPTS.join("\n"),
            data => embedded(&data),
        })
    });
    page.expect("the template knows all that it is given")
}

/// JSON that can stand in a page's script element: no text in it can end the element.
fn embedded(data: &impl Serialize) -> String {
    serde_json::to_string(data)
        .expect("keys are text")
        .replace('<', "\\u003c")
}

fn charts(loads: &Loads<'_>, dir: Option<&Path>) -> (Vec<Chart>, Vec<String>) {
    let mut charts = sweep::charts(loads);
    let Some(dir) = dir else {
        return (charts, Vec::new());
    };
    let mut missing = Vec::new();
    let path = dir.join("timeline.csv");
    let rows = read_timeline(&path).unwrap_or_else(|error| {
        missing.push(format!("Seconds are missing: {}: {error}.", path.display()));
        BTreeMap::new()
    });
    let path = dir.join("requests.jsonl");
    let requests =
        requests::read(&path, loads.run, |step| rows.contains_key(&step)).unwrap_or_else(|error| {
            missing.push(format!(
                "Single requests are missing: {}: {error}.",
                path.display()
            ));
            BTreeMap::new()
        });
    charts.extend(tail::charts(loads, dir));
    charts.extend(heat::charts(loads, &requests));
    charts.extend(decode::chart(loads));
    match lengths::chart(loads, &requests) {
        Ok(chart) => charts.push(chart),
        Err(why) => missing.push(format!("TTFT against prompt length is not drawn: {why}.")),
    }
    let seen = seconds::Seen {
        rows: &rows,
        requests: &requests,
    };
    charts.extend(seconds::charts(loads, &seen));
    (charts, missing)
}

fn rows(loads: &Loads<'_>) -> Vec<Row> {
    let steps = &loads.run.steps;
    let columns = columns(steps);
    let row = |step| Row {
        engine: loads.engine(step),
        load: loads.load(step),
        cells: columns
            .iter()
            .map(|column| Cell {
                text: column.cell(step),
                best: !table::star(column, step, steps).is_empty(),
            })
            .collect(),
    };
    steps.iter().map(row).collect()
}

fn failed_rows(loads: &Loads<'_>) -> Vec<FailedRow> {
    let number = |of: &str| loads.engines.iter().position(|name| *name == of);
    let row = |Failed { engine, why }: Failed<'_>| FailedRow {
        engine: number(engine).unwrap_or(0),
        name: engine.to_owned(),
        why,
    };
    failed::all(loads.run).into_iter().map(row).collect()
}

/// A name as it stands in `run.json`.
fn words_of(variant: impl Serialize) -> String {
    words::snake(variant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn texts_of_servers_stay_texts() {
        let mut run = finished_run();
        let evil = "</script><script>alert(1)</script><i>&";
        run.engines[0].name = evil.to_owned();
        run.steps[0].facts.engine = evil.to_owned();
        run.model.name = evil.to_owned();
        run.notes.push(evil.to_owned());
        run.engines[1]
            .failure
            .as_mut()
            .unwrap()
            .log_tail
            .push(evil.to_owned());
        let page = page(&run, None);
        assert!(!page.contains("alert(1)</script>") && !page.contains("<i>&"));
        // The style and script elements that are ours: nothing closes one early, nothing opens another.
        assert_eq!(page.matches("</script").count(), page.matches("<script").count());
        assert_eq!(page.matches("<script").count(), 3);
    }

    #[test]
    fn nothing_is_fetched() {
        let page = page(&finished_run(), None);
        let mut parts = page.split("src=").skip(1).chain(page.split("href=\"").skip(1));
        assert!(parts.all(|rest| !rest.starts_with("\"http") && !rest.starts_with("http")));
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn a_run_without_steps_is_a_page() {
        let mut run = finished_run();
        run.steps.clear();
        let page = page(&run, Some(Path::new("/nowhere")));
        assert!(page.contains("timeline.csv") && page.contains("the server died in step 3"));
    }
}
