//! A comparison in tables: for a terminal, and for a pull request.

use std::fmt::Write;

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::columns::significant;
use crate::compare::{Cell, Comparison, Condition, Differs, Figure, Held, Pair, Row, Ruling, Test};
use crate::measure::{Metric, P99_REQUESTS, Unit};

/// Fewer requests than this make a cell's latencies doubtful.
const FEW: u64 = 100;

const HEAD: [&str; 7] = [
    "metric",
    "baseline",
    "candidate",
    "difference",
    "ratio",
    "p",
    "verdict",
];

/// For a terminal.
pub fn comparison(found: &Comparison) -> String {
    let mut out = String::new();
    for pair in &found.pairs {
        let _ = writeln!(out, "baseline   {}\ncandidate  {}", pair.baseline, pair.candidate);
        for line in remarks(pair) {
            let _ = writeln!(out, "! {line}");
        }
        for cell in &pair.cells {
            let mut table = table(cell).build();
            table
                .with(Style::psql())
                .modify(Columns::new(1..6), Alignment::right());
            let _ = writeln!(out, "\n{}\n{table}", heading(cell));
            for line in doubts(cell) {
                let _ = writeln!(out, "! {line}");
            }
        }
        out.push('\n');
    }
    for line in footing(found) {
        let _ = writeln!(out, "{line}");
    }
    for held in &found.gates {
        let _ = writeln!(out, "{}", gate(held));
    }
    out
}

/// For a pull request.
pub fn comparison_markdown(found: &Comparison) -> String {
    let mut out = String::new();
    for held in &found.gates {
        let _ = writeln!(out, "- {}", gate(held));
    }
    for pair in &found.pairs {
        let _ = writeln!(out, "\n**{}** against **{}**\n", pair.candidate, pair.baseline);
        for line in remarks(pair) {
            let _ = writeln!(out, "- {line}");
        }
        for cell in &pair.cells {
            let mut table = table(cell).build();
            table
                .with(Style::markdown())
                .modify(Columns::new(1..6), Alignment::right());
            let _ = writeln!(out, "\n{}\n\n{table}\n", heading(cell));
            for line in doubts(cell) {
                let _ = writeln!(out, "- {line}");
            }
        }
    }
    for line in footing(found) {
        let _ = writeln!(out, "\n{line}");
    }
    out.trim_start().to_owned()
}

/// Conditions that differ, a line each.
pub fn conditions(all: &[Condition]) -> String {
    all.iter()
        .map(|condition| format!("  {}\n", condition_line(condition)))
        .collect()
}

fn condition_line(condition: &Condition) -> String {
    let kind = match condition.kind {
        Differs::Load => "load",
        Differs::Model => "model",
        Differs::Machine => "machine",
        Differs::Version => "version",
        Differs::Server => "server",
    };
    format!(
        "{kind}: {} {} -> {}",
        condition.name, condition.baseline, condition.candidate
    )
}

fn remarks(pair: &Pair) -> Vec<String> {
    let differs = pair.differs.iter().map(condition_line);
    differs.chain(pair.alone.iter().cloned()).collect()
}

fn heading(cell: &Cell) -> String {
    let mut text = cell.load.to_string();
    if cell.repeats != [1, 1] {
        let _ = write!(text, ", {} and {} repeats", cell.repeats[0], cell.repeats[1]);
    }
    text
}

fn doubts(cell: &Cell) -> Vec<String> {
    let few = cell.fewest_requests < FEW;
    let line = format!(
        "latencies rest on {} requests; {FEW} are needed: measure longer",
        cell.fewest_requests
    );
    few.then_some(line).into_iter().collect()
}

fn table(cell: &Cell) -> Builder {
    let mut table = Builder::default();
    table.push_record(HEAD);
    for row in &cell.rows {
        let unit = Metric::find(row.metric).map_or(Unit::Milliseconds, |metric| metric.unit);
        table.push_record([
            format!("{}{}", row.metric, suffix(unit)),
            figure(&row.baseline, unit),
            figure(&row.candidate, unit),
            signed(row.difference, unit),
            ratio(row),
            p(row),
            verdict(row, unit),
        ]);
    }
    table
}

/// What a unit adds to the name of a metric.
fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::Milliseconds => ", ms",
        Unit::Share | Unit::Percent => ", %",
        Unit::Bytes => ", MB",
        Unit::Watts => ", W",
        Unit::JoulesPerToken => ", J",
        Unit::TokensPerSecond | Unit::RequestsPerSecond => "",
    }
}

fn scaled(x: f64, unit: Unit) -> f64 {
    match unit {
        Unit::Share => 100.0 * x,
        Unit::Bytes => x / 1e6,
        _ => x,
    }
}

fn figure(figure: &Figure, unit: Unit) -> String {
    let shown = |x: f64| significant(scaled(x, unit));
    match figure.ci95 {
        Some([low, high]) => format!("{} [{}, {}]", shown(figure.value), shown(low), shown(high)),
        None => shown(figure.value),
    }
}

fn signed(x: f64, unit: Unit) -> String {
    let text = significant(scaled(x, unit));
    match x > 0.0 {
        true => format!("+{text}"),
        false => text,
    }
}

fn ratio(row: &Row) -> String {
    let shown = |x: f64| format!("{x:.3}");
    match (row.ratio, row.ratio_ci95) {
        (Some(ratio), Some([low, high])) => format!("{} [{}, {}]", shown(ratio), shown(low), shown(high)),
        (Some(ratio), None) => shown(ratio),
        (None, _) => "-".to_owned(),
    }
}

fn p(row: &Row) -> String {
    match row.p_corrected {
        Some(p) if p < 0.001 => "< 0.001".to_owned(),
        Some(p) => format!("{p:.3}"),
        None => "-".to_owned(),
    }
}

/// What the row says, in the words of its metric.
fn verdict(row: &Row, unit: Unit) -> String {
    if row.test.is_none() {
        return "not tested".to_owned();
    }
    if !row.real {
        return "no difference found".to_owned();
    }
    let effect = row.effect.map_or_else(String::new, |g| format!(", g {g:.1}"));
    let word = match row.better {
        Some(true) => "better: ",
        Some(false) => "worse: ",
        None => "",
    };
    format!("{word}{}{effect}", amount(row, unit))
}

fn amount(row: &Row, unit: Unit) -> String {
    let change = row.change_percent.map_or_else(
        || "from 0".to_owned(),
        |percent| significant(percent.abs()) + " %",
    );
    let more = if row.difference > 0.0 { "more" } else { "less" };
    match (unit, row.ratio) {
        (Unit::TokensPerSecond | Unit::RequestsPerSecond, Some(ratio)) => {
            format!("{} times as much", significant(ratio))
        }
        (Unit::Milliseconds, _) => format!("{change} {more} time"),
        (Unit::Bytes, _) => format!("{change} {more} memory"),
        (Unit::Share, _) => format!("{change} {more} of all requests"),
        (Unit::Watts, _) => format!("{change} {more} power"),
        (Unit::JoulesPerToken, _) => format!("{change} {more} energy"),
        (Unit::Percent, _) => format!("{change} {more} busy"),
        (_, None) => format!("{change} {more}"),
    }
}

fn footing(found: &Comparison) -> Vec<String> {
    let rows = || {
        found
            .pairs
            .iter()
            .flat_map(|pair| &pair.cells)
            .flat_map(|cell| &cell.rows)
    };
    let has = |test: Test| rows().any(|row| row.test == Some(test));
    let mut lines = Vec::new();
    if has(Test::WelchT) {
        lines.push(
            "Tested by Welch's t over the repeats; intervals are of their mean; g is Hedges' effect size."
                .to_owned(),
        );
    }
    if has(Test::BlockBootstrap) {
        lines.push(
            "Tested by a block bootstrap within the runs: what differs from one run to the next is not in it; --repeat 3 \
             or more of each side test that too."
                .to_owned(),
        );
    }
    lines.push(format!(
        "Intervals are 95 %; p is corrected for {} comparisons (Holm); a difference is real where it is below 0.05.",
        found.comparisons
    ));
    if rows().any(|row| row.test.is_none()) {
        lines.push(format!(
            "Not tested is what has no interval within a run: too few requests (a p99 takes {P99_REQUESTS}) or seconds, or \
             a figure that each run has once."
        ));
    }
    lines
}

fn gate(held: &Held) -> String {
    let because = held.because.join("; ");
    match held.ruling {
        Ruling::Passed => format!("passed: {}", held.gate),
        Ruling::Failed => format!("FAILED: {}: {because}", held.gate),
        Ruling::Untested | Ruling::Incomparable => format!("not held: {}: it {because}", held.gate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Gate, compare, pair_up};
    use crate::measure::fixture::finished_run;
    use crate::measure::result::RunResult;

    /// The same load twice; the second time TTFT is longer by half, and tokens come as fast.
    fn runs() -> (RunResult, RunResult) {
        let (mut first, mut second, factor) = (finished_run(), finished_run(), 1.5);
        for run in [&mut first, &mut second] {
            run.steps.retain(|step| step.facts.engine == "candle");
            for step in &mut run.steps {
                step.output_tps_ci95 = Some([step.output_tps * 0.98, step.output_tps * 1.02]);
                let ci95 = &mut step.ttft_ms.ci95;
                ci95.blocks = Some(40);
                let around = |x: Option<f64>| x.map(|x| [0.95 * x, 1.05 * x]);
                (ci95.p50, ci95.p90, ci95.mean) = (
                    around(step.ttft_ms.p50),
                    around(step.ttft_ms.p90),
                    around(step.ttft_ms.mean),
                );
                ci95.p99 = None;
            }
        }
        for step in &mut second.steps {
            let ttft = &mut step.ttft_ms;
            for value in [&mut ttft.p50, &mut ttft.p90, &mut ttft.mean] {
                *value = value.map(|x| x * factor);
            }
            for ends in [&mut ttft.ci95.p50, &mut ttft.ci95.p90, &mut ttft.ci95.mean] {
                *ends = ends.map(|ends| ends.map(|x| x * factor));
            }
        }
        (first, second)
    }

    fn found() -> Comparison {
        let (first, second) = runs();
        let (a, b) = ((&first, "A".to_owned(), None), (&second, "B".to_owned(), None));
        let metrics =
            ["output_tps", "ttft_p50", "ttft_p99", "itl_p50"].map(|name| Metric::find(name).unwrap());
        let mut found = compare(&pair_up(&a, Some(&b), &[]).unwrap(), &metrics);
        found.gates = ["ttft_p50 > +20%", "output_tps < -3%", "rss_peak > 5%"]
            .iter()
            .map(|text| text.parse::<Gate>().unwrap().hold(&found))
            .collect();
        found
    }

    #[test]
    fn a_terminal_gets_tables() {
        insta::assert_snapshot!(comparison(&found()));
    }

    #[test]
    fn a_build_server_gets_a_test_for_each_gate() {
        let mut found = found();
        let p99: Gate = "ttft_p99 > +5%".parse().unwrap();
        found.gates.push(p99.hold(&found));
        insta::assert_snapshot!(crate::report::gates_junit(&found));
    }

    #[test]
    fn a_pull_request_gets_markdown() {
        insta::assert_snapshot!(comparison_markdown(&found()));
    }
}
