//! What stands below the table of steps: repeats with their spread, and how each engine scales.

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

use super::columns::significant;
use super::single;
use super::words::users;
use crate::measure::result::{Law, Parameter, Repeats, RunResult, ScalingFit, SequenceLength, Spread};

/// Fewer requests than this make a repeat's latencies doubtful.
const FEW: u64 = 100;

/// The columns of the table of repeats.
const SHOWN: [(&str, &str); 4] = [
    ("output_tps", "tok/s"),
    ("ttft_p50", "TTFT p50 ms"),
    ("ttft_p99", "TTFT p99 ms"),
    ("itl_p50", "ITL p50 ms"),
];

/// The table over repeats, one row for each load that was repeated.
pub(super) fn repeats(run: &RunResult, markdown: bool) -> Option<String> {
    if run.repeats.is_empty() {
        return None;
    }
    let shapes = shapes(run.repeats.iter().map(|r| (r.load.isl, r.load.osl)));
    let mut table = Builder::default();
    let mut head = vec!["engine", "users", "n"];
    head.extend(SHOWN.map(|(_, name)| name));
    table.push_record(head);
    for repeats in &run.repeats {
        let mut row = vec![
            format!(
                "{}{}",
                repeats.engine,
                shape(shapes, repeats.load.isl, repeats.load.osl)
            ),
            repeats.load.users.to_string(),
            repeats.n.to_string(),
        ];
        row.extend(SHOWN.map(|(id, _)| repeats.metrics.get(id).map_or_else(|| "-".to_owned(), spread)));
        table.push_record(row);
    }
    let mut table = table.build();
    table.modify(Columns::new(1..), Alignment::right());
    match markdown {
        true => table.with(Style::markdown()),
        false => table.with(Style::psql()).with(Padding::new(1, 1, 0, 0)),
    };
    Some(format!(
        "Over repeats: median (min to max), coefficient of variation\n{}{table}\n",
        if markdown { "\n" } else { "" }
    ))
}

fn spread(spread: &Spread) -> String {
    let cv = spread
        .cv
        .map_or_else(String::new, |cv| format!(", {} %", significant(100.0 * cv)));
    format!(
        "{} ({} to {}){cv}",
        significant(spread.median),
        significant(spread.min),
        significant(spread.max)
    )
}

/// Whether lengths differ, so that rows must say theirs.
fn shapes(mut all: impl Iterator<Item = (SequenceLength, SequenceLength)>) -> bool {
    let first = all.next();
    all.any(|shape| Some(shape) != first)
}

fn shape(said: bool, isl: SequenceLength, osl: SequenceLength) -> String {
    match said {
        true => format!(" {}/{}", isl.mean, osl.mean),
        false => String::new(),
    }
}

/// What repeats and sweeps must be known by, in words.
pub(super) fn findings(run: &RunResult) -> Vec<String> {
    let mut lines: Vec<String> = match single::sums_up(run) {
        true => Vec::new(),
        false => run.repeats.iter().flat_map(of_repeats).collect(),
    };
    let said = shapes(run.scaling.iter().map(|fit| (fit.isl, fit.osl)));
    lines.extend(run.scaling.iter().map(|fit| format!("- {}", scaling(fit, said))));
    lines
}

fn of_repeats(repeats: &Repeats) -> Vec<String> {
    let name = format!("{}, {}", repeats.engine, repeats.load);
    let mut lines = Vec::new();
    if !repeats.unsteady.is_empty() {
        let named = |id: &String| {
            let cv = repeats.metrics.get(id).and_then(|spread| spread.cv);
            cv.map_or_else(|| id.clone(), |cv| format!("{id} {} %", significant(100.0 * cv)))
        };
        let named: Vec<String> = repeats.unsteady.iter().map(named).collect();
        lines.push(format!(
            "! {name}: its {} repeats differ by more than a coefficient of variation of 5 % ({}): quieten the machine, or \
             measure longer",
            repeats.n,
            named.join(", ")
        ));
    }
    if repeats.fewest_requests < FEW {
        lines.push(format!(
            "! {name}: a repeat rests on {} requests; {FEW} are needed: measure longer",
            repeats.fewest_requests
        ));
    }
    lines
}

fn scaling(fit: &ScalingFit, said: bool) -> String {
    let most = fit.users.last().copied().unwrap_or(0);
    let mut text = format!(
        "{}{}: linear up to {}, knee at {}",
        fit.engine,
        shape(said, fit.isl, fit.osl),
        users(fit.linear_up_to),
        fit.knee_users
    );
    text += &match &fit.law {
        Some(law) => format!("; {}", of_law(law, most)),
        None => format!(
            "; a law of scaling needs throughput at 4 numbers of users or more, here are {}",
            fit.users.len()
        ),
    };
    text
}

fn of_law(law: &Law, most: u32) -> String {
    let with = |name: &str, p: Parameter| {
        format!(
            "{name} {} [{}, {}]",
            small(p.value),
            small(p.ci95[0]),
            small(p.ci95[1])
        )
    };
    let peak = match law.peak_users {
        Some(p) => {
            let beyond = if p.value > f64::from(most) {
                ", beyond what was measured"
            } else {
                ""
            };
            format!(
                "throughput peaks at {:.0} users [{:.0}, {:.0}]{beyond}",
                p.value, p.ci95[0], p.ci95[1]
            )
        }
        None => "no peak can be told".to_owned(),
    };
    format!(
        "Universal Scalability Law: {}, {}, {peak}, off by {} %",
        with("contention", law.sigma),
        with("coherency", law.kappa),
        significant(100.0 * law.residual)
    )
}

/// Two significant digits of a share.
fn small(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        size if size >= 0.01 => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::new_run;
    use crate::measure::result::Load;

    #[test]
    fn repeats_and_scaling_in_words() {
        let mut run = new_run();
        let isl = SequenceLength { mean: 128, stddev: 0 };
        let one = |median: f64, cv: f64| Spread {
            median,
            mean: median,
            min: 0.9 * median,
            max: 1.1 * median,
            sd: Some(cv * median),
            cv: Some(cv),
            ci95: None,
        };
        run.repeats = vec![Repeats {
            engine: "candle".to_owned(),
            load: Load {
                users: 16,
                rate: None,
                isl,
                osl: isl,
            },
            n: 5,
            fewest_requests: 80,
            metrics: [("output_tps", 342.0, 0.012), ("ttft_p50", 385.0, 0.081)]
                .map(|(id, median, cv)| (id.to_owned(), one(median, cv)))
                .into(),
            unsteady: vec!["ttft_p50".to_owned()],
        }];
        let parameter = |value: f64| Parameter {
            value,
            ci95: [0.8 * value, 1.3 * value],
        };
        let law = Law {
            lambda: parameter(72.0),
            sigma: parameter(0.05),
            kappa: parameter(0.0004),
            peak_users: Some(parameter(48.7)),
            peak_tps: Some(500.0),
            residual: 0.021,
        };
        let fit = |engine: &str, law: Option<Law>| ScalingFit {
            engine: engine.to_owned(),
            isl,
            osl: isl,
            users: if law.is_some() {
                vec![1, 8, 16, 32]
            } else {
                vec![1, 8, 16]
            },
            linear_up_to: 8,
            knee_users: 16,
            law,
        };
        run.scaling = vec![fit("candle", Some(law)), fit("llamacpp", None)];
        let text = format!("{}\n{}", repeats(&run, false).unwrap(), findings(&run).join("\n"));
        insta::assert_snapshot!(text);
    }
}
