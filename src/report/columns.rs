//! The columns of the table: what each shows of a step, and which end of it is the good one.

use crate::measure::result::StepResult;

/// Which value of a column is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Best {
    High,
    Low,
    /// Neither: the column describes.
    Neither,
}

/// The half of a table that a column belongs to when the whole is too wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Both,
    Throughput,
    Latency,
}

/// One column.
pub(super) struct Column {
    /// Two lines: the metric, and its percentile or unit.
    pub head: [&'static str; 2],
    pub part: Part,
    pub best: Best,
    pub show: Show,
}

/// What a column takes out of a step.
pub(super) enum Show {
    Number(fn(&StepResult) -> Option<f64>),
    Text(fn(&StepResult) -> String),
}

impl Column {
    pub fn number(
        head: [&'static str; 2],
        part: Part,
        best: Best,
        value: fn(&StepResult) -> Option<f64>,
    ) -> Column {
        Column {
            head,
            part,
            best,
            show: Show::Number(value),
        }
    }

    pub fn text(head: [&'static str; 2], part: Part, value: fn(&StepResult) -> String) -> Column {
        Column {
            head,
            part,
            best: Best::Neither,
            show: Show::Text(value),
        }
    }

    /// The number that the column compares, if it compares.
    pub fn value(&self, step: &StepResult) -> Option<f64> {
        match self.show {
            Show::Number(value) => value(step),
            Show::Text(_) => None,
        }
    }

    pub fn cell(&self, step: &StepResult) -> String {
        match self.show {
            Show::Number(value) => value(step).map_or_else(|| "-".to_owned(), significant),
            Show::Text(text) => text(step),
        }
    }
}

/// A number with three significant digits at least: 0.00123, 1.23, 12.3, 123, 12345.
pub(super) fn significant(x: f64) -> String {
    let size = x.abs();
    let decimals = match size {
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        s if s >= 0.0995 || s == 0.0 => 2,
        _ => 4,
    };
    if size == 0.0 {
        "0".to_owned()
    } else {
        format!("{x:.decimals$}")
    }
}

fn errors(step: &StepResult) -> String {
    if step.errors.is_empty() {
        return "0".to_owned();
    }
    let named = |(kind, n): (_, &u64)| format!("{} {n}", super::words::snake(kind));
    step.errors.iter().map(named).collect::<Vec<_>>().join("\n")
}

/// Whether some of these steps differ in this.
fn varies(steps: &[StepResult], of: fn(&StepResult) -> (u32, u32)) -> bool {
    steps.windows(2).any(|w| of(&w[0]) != of(&w[1]))
}

/// The columns that tell the rows apart.
pub(super) fn naming(steps: &[StepResult]) -> Vec<Column> {
    use Part::Both;
    let mut columns = vec![
        Column::text(["engine", ""], Both, |s| s.facts.engine.clone()),
        Column::text(["users", ""], Both, |s| s.facts.users.to_string()),
    ];
    if varies(steps, |s| (s.facts.isl.mean, s.facts.osl.mean)) {
        columns.push(Column::text(["ISL", "/OSL"], Both, |s| {
            format!("{}/{}", s.facts.isl.mean, s.facts.osl.mean)
        }));
    }
    if steps.iter().any(|s| s.facts.repeat > 0) {
        columns.push(Column::text(["rep", ""], Both, |s| {
            (s.facts.repeat + 1).to_string()
        }));
    }
    columns
}

/// The columns for these steps: those that would say the same in every row are left out.
pub(super) fn columns(steps: &[StepResult]) -> Vec<Column> {
    use {Best::*, Part::*};
    let mut columns = naming(steps);
    columns.extend([
        Column::number(["req/s", ""], Throughput, High, |s| Some(s.request_rps)),
        Column::number(["tok/s", ""], Throughput, High, |s| Some(s.output_tps)),
        Column::number(["TTFT", "p50 ms"], Latency, Low, |s| s.ttft_ms.p50),
        Column::number(["TTFT", "p90 ms"], Latency, Low, |s| s.ttft_ms.p90),
        Column::number(["TTFT", "p99 ms"], Latency, Low, |s| s.ttft_ms.p99),
        Column::number(["client", "±p99 ms"], Latency, Neither, |s| {
            s.client.error_p99_ms
        }),
        Column::number(["ITL", "p50 ms"], Latency, Low, |s| s.itl_ms.p50),
        Column::number(["ITL", "p99 ms"], Latency, Low, |s| s.itl_ms.p99),
        Column::number(["E2EL", "p50 ms"], Latency, Low, |s| s.e2el_ms.p50),
        Column::number(["E2EL", "p99 ms"], Latency, Low, |s| s.e2el_ms.p99),
        Column::text(["errors", ""], Throughput, errors),
        Column::number(["in", "flight"], Throughput, Neither, |s| {
            Some(s.concurrency.observed)
        }),
    ]);
    if varies(steps, |s| (s.facts.users, 0)) {
        columns.push(Column::number(["scale", "x"], Throughput, Neither, |s| {
            s.scaling.map(|x| x.factor)
        }));
        columns.push(Column::number(["eff.", "%"], Throughput, Neither, |s| {
            s.scaling.map(|x| 100.0 * x.efficiency)
        }));
    }
    if steps.iter().any(|s| s.cost.is_some()) {
        columns.push(Column::number(["cost", "/M tok"], Throughput, Low, |s| {
            s.cost.and_then(|cost| cost.per_million_output_tokens)
        }));
        columns.push(Column::number(["req", "/h"], Throughput, High, |s| {
            s.cost.map(|cost| cost.requests_per_hour)
        }));
    }
    if steps
        .iter()
        .any(|s| s.cost.is_some_and(|cost| cost.of_baseline.is_some()))
    {
        columns.push(Column::number(["of base", "cost %"], Throughput, Neither, |s| {
            s.cost
                .and_then(|cost| cost.of_baseline)
                .map(|ratio| 100.0 * ratio)
        }));
    }
    columns
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::servers;
    use super::*;
    use crate::measure::definition::explain;
    use crate::measure::fill_cost;
    use crate::measure::fixture::finished_run;
    use crate::measure::result::Price;

    #[test]
    fn what_stands_above_a_column_can_be_looked_up() {
        let mut run = finished_run();
        run.price = Some(Price {
            per_hour: 2.5,
            baseline: Some("candle".to_owned()),
        });
        fill_cost(&mut run);
        let mut told = BTreeSet::new();
        for column in columns(&run.steps).iter().chain(&servers::columns(&run.steps)) {
            let head = column.head.join(" ").trim().to_owned();
            if ["engine", "users", "rep", "ISL /OSL"].contains(&head.as_str()) {
                continue;
            }
            told.insert(match explain(&head) {
                Ok(definition) => format!("{head}: {}", definition.id),
                Err(error) => panic!("{error}"),
            });
        }
        insta::assert_snapshot!(told.into_iter().collect::<Vec<_>>().join("\n"));
    }
}
