//! One user at a time: what a prompt costs, and how fast tokens are decoded, over the runs of each pair of lengths.

use std::collections::BTreeMap;

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::columns::significant;
use super::failed;
use crate::measure::result::{GpuResult, RunResult, SequenceLength, StepResult};
use crate::stats::{Spread, line};

/// A spread between runs above this share of the mean is said.
const STEADY: f64 = 0.05;

/// The runs of one engine with one pair of lengths.
type Runs<'a> = BTreeMap<(&'a str, SequenceLength, SequenceLength), Vec<&'a StepResult>>;

/// Whether the run is of that kind: every step had one user.
pub(super) fn applies(run: &RunResult) -> bool {
    !run.steps.is_empty() && run.steps.iter().all(|step| step.facts.users == 1)
}

/// Whether the table says all of a run: each pair of lengths ran several times.
pub(super) fn sums_up(run: &RunResult) -> bool {
    applies(run) && runs(run).values().all(|steps| steps.len() > 1)
}

/// The table, and below it what a token of the prompt costs. Where it says all of a run, engines that failed have a row.
pub(super) fn text(run: &RunResult, markdown: bool) -> String {
    let runs = runs(run);
    let cards = runs.values().any(|steps| gpu_mb(steps).is_some());
    let mut table = Builder::default();
    let mut head = vec![
        "engine",
        "ISL/OSL",
        "runs",
        "TTFT ms",
        "prefill tok/s",
        "decode tok/s",
        "decode CV %",
        "peak RSS MB",
    ];
    head.extend(cards.then_some("GPU mem MB"));
    table.push_record(head);
    for ((engine, isl, osl), steps) in &runs {
        let decode = spread(steps, decode_tps);
        let cv = decode.and_then(|spread| spread.cv());
        let mut row = vec![
            (*engine).to_owned(),
            format!("{}/{}", isl.mean, osl.mean),
            steps.len().to_string(),
            median_and_sd(spread(steps, |step| step.ttft_ms.p50)),
            median_and_sd(spread(steps, prefill_tps)),
            median_and_sd(decode),
            cv.map_or_else(|| "-".into(), |cv| significant(100.0 * cv)),
            rss_mb(steps).map_or_else(|| "-".into(), significant),
        ];
        row.extend(cards.then(|| gpu_mb(steps).map_or_else(|| "-".into(), significant)));
        table.push_record(row);
    }
    let failed = match sums_up(run) {
        true => failed::all(run),
        false => Vec::new(),
    };
    if markdown {
        failed::below_in_markdown(&mut table, &failed);
    }
    let styled = |rows: Builder| {
        let mut table = rows.build();
        match markdown {
            true => table.with(Style::markdown()),
            false => table.with(Style::psql()),
        };
        table.modify(Columns::new(1..), Alignment::right());
        table
    };
    let table = match markdown {
        true => styled(table),
        false => failed::below(table, &failed, 1, styled),
    };
    let gap = if markdown { "\n" } else { "" };
    format!(
        "One user: median ± standard deviation over runs\n{gap}{table}\n{gap}{}",
        findings(&runs, if markdown { "- " } else { "! " })
    )
}

fn runs(run: &RunResult) -> Runs<'_> {
    let mut runs = Runs::new();
    for step in &run.steps {
        let facts = &step.facts;
        runs.entry((&facts.engine, facts.isl, facts.osl))
            .or_default()
            .push(step);
    }
    runs
}

fn findings(runs: &Runs<'_>, warning: &str) -> String {
    let mut text = String::new();
    for ((engine, isl, osl), steps) in runs {
        let figures = [
            ("TTFT", spread(steps, |step| step.ttft_ms.p50)),
            ("decoding", spread(steps, decode_tps)),
        ];
        let varied: Vec<String> = figures
            .into_iter()
            .filter_map(|(name, spread)| Some((name, spread?.cv().filter(|cv| *cv > STEADY)?)))
            .map(|(name, cv)| format!("{name} by {} %", significant(100.0 * cv)))
            .collect();
        if !varied.is_empty() {
            text += &format!(
                "{warning}{engine}, {}/{}: varied from run to run by more than 5 %: {}; a quiet machine and more runs \
                 (--repeat) make it a figure\n",
                isl.mean,
                osl.mean,
                varied.join(", ")
            );
        }
    }
    let mut engines: Vec<&str> = runs.keys().map(|(engine, ..)| *engine).collect();
    engines.dedup();
    for engine in engines {
        let steps = runs.iter().filter(|((name, ..), _)| *name == engine);
        let points: Vec<_> = steps
            .flat_map(|(_, steps)| steps)
            .filter_map(|step| input_tokens(step).zip(step.ttft_ms.p50))
            .collect();
        let Some(fit) = line(&points) else { continue };
        let interval = fit.slope_ci95.map_or_else(String::new, |[low, high]| {
            format!(" (95 %: {} to {})", significant(low), significant(high))
        });
        text += &format!(
            "- {engine}: a token of the prompt costs {} ms{interval}, and a request {} ms besides\n",
            significant(fit.slope),
            significant(fit.intercept)
        );
    }
    text
}

fn spread(steps: &[&StepResult], of: impl Fn(&StepResult) -> Option<f64>) -> Option<Spread> {
    let values: Vec<f64> = steps.iter().filter_map(|step| of(step)).collect();
    Spread::of(&values)
}

fn median_and_sd(spread: Option<Spread>) -> String {
    let Some(spread) = spread else {
        return "-".into();
    };
    let sd = spread
        .sd
        .map_or_else(String::new, |sd| format!(" ± {}", significant(sd)));
    format!("{}{sd}", significant(spread.median))
}

/// Input tokens of a request, on average.
fn input_tokens(step: &StepResult) -> Option<f64> {
    let requests = step.requests.ok;
    (requests > 0 && step.tokens.input > 0).then(|| step.tokens.input as f64 / requests as f64)
}

/// Input tokens over the median TTFT.
fn prefill_tps(step: &StepResult) -> Option<f64> {
    let ttft_s = step.ttft_ms.p50.filter(|ms| *ms > 0.0)? / 1e3;
    Some(input_tokens(step)? / ttft_s)
}

/// `1000 / TPOT`, of the median.
fn decode_tps(step: &StepResult) -> Option<f64> {
    step.tpot_ms.p50.filter(|ms| *ms > 0.0).map(|ms| 1e3 / ms)
}

/// The most memory of the cards of any run.
fn gpu_mb(steps: &[&StepResult]) -> Option<f64> {
    let of = |gpu: &GpuResult| gpu.memory_peak_bytes.map(|bytes| bytes as f64 / 1e6);
    let peaks = steps.iter().filter_map(|step| step.server.as_ref()?.gpu_sum(of));
    peaks.reduce(f64::max)
}

fn rss_mb(steps: &[&StepResult]) -> Option<f64> {
    let peaks = steps.iter().filter_map(|step| step.server.as_ref());
    peaks
        .filter_map(|server| server.rss_peak_bytes)
        .max()
        .map(|bytes| bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    /// Two engines, three lengths of prompts, five runs: a prompt costs 2 ms a token and 10 ms besides.
    fn run() -> RunResult {
        let mut run = finished_run();
        let step = run.steps[0].clone();
        run.steps.clear();
        for (engine, steady) in [("candle", true), ("llamacpp", false)] {
            for isl in [10, 50, 200] {
                for repeat in 0..5 {
                    let mut step = step.clone();
                    step.facts.engine = engine.into();
                    (step.facts.users, step.facts.repeat) = (1, repeat);
                    step.facts.isl.mean = isl;
                    step.tokens.input = step.requests.ok * u64::from(isl);
                    step.ttft_ms.p50 = Some(10.0 + 2.0 * f64::from(isl) + 0.1 * f64::from(repeat));
                    step.tpot_ms.p50 = Some(if steady {
                        20.0
                    } else {
                        20.0 + 2.0 * f64::from(repeat)
                    });
                    run.steps.push(step);
                }
            }
        }
        run
    }

    #[test]
    fn the_table_and_what_it_says() {
        assert!(applies(&run()) && sums_up(&run()));
        insta::assert_snapshot!(text(&run(), false));
        insta::assert_snapshot!("the_table_in_markdown", text(&run(), true));
        let mut once = run();
        once.steps.retain(|step| step.facts.repeat == 0);
        assert!(applies(&once) && !sums_up(&once));
    }

    #[test]
    fn a_run_of_many_users_is_another_kind() {
        assert!(!applies(&finished_run()));
    }
}
