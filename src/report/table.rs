//! The tables at the end of a run, by `tabled`.

use std::fmt::Write;
use std::path::Path;

use tabled::builder::Builder;
use tabled::settings::formatting::AlignmentStrategy;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

use super::columns::{Best, Column, Part, columns};
use super::conclusions::conclusions;
use super::failed::{self, Failed};
use super::{across, servers, single, verify, words};
use crate::measure::result::{RunResult, StepResult};

/// The tables, what must be known about them, and where the files are.
pub(super) fn text(run: &RunResult, width: usize, dir: Option<&Path>) -> String {
    let mut out = words::heading(run);
    // A row for each of many runs hides the few that were asked for.
    let summed_up = single::sums_up(run);
    if !run.steps.is_empty() {
        out.push('\n');
        if !summed_up {
            out.push_str(&tables(run, width));
            if run.steps.len() > 1 {
                out.push_str("* best of its column, at the same load where engines are compared\n");
            }
        }
        if single::applies(run) {
            out.push_str(if summed_up { "" } else { "\n" });
            out.push_str(&single::text(run, false));
        }
    }
    out.push_str(&what_servers_cost(run, width));
    if let Some(table) = across::repeats(run, false).filter(|_| !summed_up) {
        out.push('\n');
        out.push_str(&table);
    }
    if let Some(answers) = verify::table(run, false) {
        write!(out, "\n{answers}").expect("writing to a String cannot fail");
    }
    for line in conclusions(run) {
        writeln!(out, "> {line}").expect("writing to a String cannot fail");
    }
    for line in words::findings(run) {
        writeln!(out, "{line}").expect("writing to a String cannot fail");
    }
    if let Some(dir) = dir {
        writeln!(out, "\n{}", words::files(dir)).expect("writing to a String cannot fail");
    }
    out
}

/// What the servers cost: its own table, and how long they took to load.
fn what_servers_cost(run: &RunResult, width: usize) -> String {
    let columns = match single::sums_up(run) {
        true => Vec::new(),
        false => servers::columns(&run.steps),
    };
    let mut out = String::new();
    if !columns.is_empty() {
        let wide = table(&run.steps, &columns, &[], 1);
        let fits = wide.lines().all(|line| line.chars().count() <= width);
        let table = if fits {
            wide
        } else {
            table(&run.steps, &columns, &[], 0)
        };
        out = format!("\nwhat the servers cost\n{table}");
    }
    if let Some(line) = servers::loading(&run.engines) {
        out += &format!("{line}\n");
    }
    out
}

/// The tables in Markdown, and the findings below them.
pub(super) fn markdown(run: &RunResult) -> String {
    let answers = verify::table(run, true).unwrap_or_default();
    let lines = listed(run);
    let before = |text: &str| if text.is_empty() { "" } else { "\n" };
    if run.steps.is_empty() {
        return format!("{answers}{}{lines}", before(&answers));
    }
    let mut out = match single::applies(run) {
        true => format!("{}\n", single::text(run, true)),
        false => String::new(),
    };
    if !single::sums_up(run) {
        out += &markdown_table(&run.steps, &columns(&run.steps), &failed::all(run));
        let cost = servers::columns(&run.steps);
        if !cost.is_empty() {
            out += &format!("\n{}", markdown_table(&run.steps, &cost, &[]));
        }
        if let Some(repeats) = across::repeats(run, true) {
            out += &format!("\n{repeats}\n");
        }
    }
    format!("{out}{}{answers}{}{lines}", before(&answers), before(&lines))
}

/// How long the engines took to load, and the findings, as a list.
fn listed(run: &RunResult) -> String {
    let findings = words::findings(run);
    let line = |line: &String| format!("- {}\n", line.trim_start().trim_start_matches("- "));
    servers::loading(&run.engines)
        .iter()
        .chain(&findings)
        .map(line)
        .collect()
}

fn markdown_table(steps: &[StepResult], columns: &[Column], failed: &[Failed<'_>]) -> String {
    let mut builder = Builder::default();
    builder.push_record(columns.iter().map(|c| c.head.join(" ").trim().to_owned()));
    for step in steps {
        let cell = |c: &Column| format!("{}{}", c.cell(step).replace('\n', ", "), star(c, step, steps));
        builder.push_record(columns.iter().map(|c| cell(c).replace('*', " \\*")));
    }
    failed::below_in_markdown(&mut builder, failed);
    let mut table = builder.build();
    table
        .with(Style::markdown())
        .modify(Columns::new(1..), Alignment::right());
    format!("{table}\n")
}

/// All columns side by side where they fit, else throughput above latency. The engines that failed have a row in the first.
fn tables(run: &RunResult, width: usize) -> String {
    let (steps, failed) = (&run.steps, failed::all(run));
    let whole = table(steps, &columns(steps), &failed, 1);
    if whole.lines().all(|line| line.chars().count() <= width) {
        return whole;
    }
    let part = |part, failed| {
        let mut columns = columns(steps);
        columns.retain(|c| c.part == Part::Both || c.part == part);
        table(steps, &columns, failed, 0)
    };
    format!(
        "{}\n{}",
        part(Part::Throughput, &failed),
        part(Part::Latency, &[])
    )
}

fn table(steps: &[StepResult], columns: &[Column], failed: &[Failed<'_>], padding: usize) -> String {
    let mut builder = Builder::default();
    builder.push_record(columns.iter().map(|c| {
        if c.best == Best::Neither {
            c.head.join("\n")
        } else {
            c.head.join(" \n") + " "
        }
    }));
    for step in steps {
        builder.push_record(columns.iter().map(|c| match c.best {
            Best::Neither => c.cell(step),
            _ => format!(
                "{:<1}{}",
                c.cell(step),
                if star(c, step, steps).is_empty() { " " } else { "*" }
            ),
        }));
    }
    let styled = |builder: Builder| {
        let mut table = builder.build();
        table
            .with(Style::psql())
            .with(Padding::new(padding, padding, 0, 0))
            .with(AlignmentStrategy::PerLine)
            .modify(Columns::new(1..), Alignment::right())
            .modify(Columns::first(), Alignment::left());
        table
    };
    format!("{}\n", failed::below(builder, failed, padding, styled))
}

/// Steps are compared at the same load when several engines ran under it, else over the whole column.
pub(super) fn star(column: &Column, step: &StepResult, steps: &[StepResult]) -> &'static str {
    let same = |a: &StepResult, b: &StepResult| {
        let load = |s: &StepResult| {
            (
                s.facts.users,
                s.facts.isl,
                s.facts.osl,
                s.facts.rate.map(f64::to_bits),
            )
        };
        load(a) == load(b)
    };
    let engines_meet = steps.iter().any(|a| {
        steps
            .iter()
            .any(|b| same(a, b) && a.facts.engine != b.facts.engine)
    });
    let rivals = steps.iter().filter(|other| !engines_meet || same(step, other));
    let mut values: Vec<f64> = rivals.filter_map(|other| column.value(other)).collect();
    values.sort_by(f64::total_cmp);
    let best = match column.best {
        Best::High => values.last(),
        Best::Low => values.first(),
        Best::Neither => None,
    };
    let wins = values.len() > 1 && values.first() != values.last() && best.copied() == column.value(step);
    if wins { "*" } else { "" }
}
