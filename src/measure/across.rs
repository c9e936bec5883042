//! Sets what several steps say together: scaling, repeats, and the law over a sweep.

use super::histogram::round;
use super::metric::METRICS;
use super::price::fill_cost;
use super::result::{Law, Load, Parameter, Repeats, RunResult, ScalingFit, Spread, StepResult};
use super::summary::fill_scaling;
use crate::stats;

/// The coefficient of variation over repeats above which a figure is called unsteady.
const STEADY: f64 = 0.05;

/// The figures that the rule is about.
const WATCHED: [&str; 3] = ["output_tps", "ttft_p50", "itl_p50"];

/// Sets everything in a run that rests on more than one step.
pub fn across_steps(run: &mut RunResult) {
    fill_scaling(&mut run.steps);
    run.repeats = repeats(&run.steps);
    run.scaling = scaling(&run.steps);
    fill_cost(run);
}

/// The load of a step.
pub fn load_of(step: &StepResult) -> Load {
    let facts = &step.facts;
    Load {
        users: facts.users,
        rate: facts.rate,
        isl: facts.isl,
        osl: facts.osl,
    }
}

/// The steps of each engine under each load, in the order in which they were planned.
pub fn cells(steps: &[StepResult]) -> Vec<Vec<&StepResult>> {
    let mut cells: Vec<Vec<&StepResult>> = Vec::new();
    let mut in_order: Vec<&StepResult> = steps.iter().collect();
    in_order.sort_by_key(|step| step.facts.step);
    for step in in_order {
        let same = |cell: &&mut Vec<&StepResult>| {
            cell[0].facts.engine == step.facts.engine && load_of(cell[0]) == load_of(step)
        };
        match cells.iter_mut().find(same) {
            Some(cell) => cell.push(step),
            None => cells.push(vec![step]),
        }
    }
    cells
}

fn repeats(steps: &[StepResult]) -> Vec<Repeats> {
    let cells = cells(steps);
    let repeated = cells.into_iter().filter(|cell| cell.len() > 1);
    repeated.map(|cell| of_cell(&cell)).collect()
}

fn of_cell(cell: &[&StepResult]) -> Repeats {
    let spread = |metric: &super::Metric| {
        let values: Vec<f64> = cell.iter().filter_map(|step| metric.value(step)).collect();
        let whole = values.len() == cell.len();
        let spread = stats::Spread::of(&values).filter(|_| whole)?;
        Some((metric.id.to_owned(), shown(&spread)))
    };
    let metrics: std::collections::BTreeMap<_, _> = METRICS.iter().filter_map(spread).collect();
    let unsteady = |id: &&str| {
        metrics
            .get(*id)
            .and_then(|spread| spread.cv)
            .is_some_and(|cv| cv > STEADY)
    };
    Repeats {
        engine: cell[0].facts.engine.clone(),
        load: load_of(cell[0]),
        n: u32::try_from(cell.len()).unwrap_or(u32::MAX),
        fewest_requests: cell.iter().map(|step| step.requests.ok).min().unwrap_or(0),
        unsteady: WATCHED
            .iter()
            .filter(|id| unsteady(id))
            .map(|id| (*id).to_owned())
            .collect(),
        metrics,
    }
}

fn shown(spread: &stats::Spread) -> Spread {
    Spread {
        median: round(spread.median),
        mean: round(spread.mean),
        min: round(spread.min),
        max: round(spread.max),
        sd: spread.sd.map(round),
        cv: spread.cv().map(round),
        ci95: spread.ci95.map(|ends| ends.map(round)),
    }
}

fn scaling(steps: &[StepResult]) -> Vec<ScalingFit> {
    let mut sweeps: Vec<Vec<Vec<&StepResult>>> = Vec::new();
    for cell in cells(steps) {
        let shape = |step: &StepResult| {
            let load = load_of(step);
            (
                step.facts.engine.clone(),
                load.isl,
                load.osl,
                load.rate.map(f64::to_bits),
            )
        };
        match sweeps
            .iter_mut()
            .find(|sweep| shape(sweep[0][0]) == shape(cell[0]))
        {
            Some(sweep) => sweep.push(cell),
            None => sweeps.push(vec![cell]),
        }
    }
    sweeps.iter().filter_map(|sweep| of_sweep(sweep)).collect()
}

fn of_sweep(sweep: &[Vec<&StepResult>]) -> Option<ScalingFit> {
    let point = |step: &&StepResult| (f64::from(step.facts.users), step.output_tps);
    let all: Vec<(f64, f64)> = sweep
        .iter()
        .flatten()
        .map(point)
        .filter(|(_, tps)| *tps > 0.0)
        .collect();
    // The mean over the repeats of a load.
    let mut means: Vec<(f64, f64)> = sweep
        .iter()
        .map(|cell| {
            let sum: f64 = cell.iter().map(|step| step.output_tps).sum();
            (f64::from(cell[0].facts.users), sum / cell.len() as f64)
        })
        .collect();
    means.sort_by(|a, b| a.0.total_cmp(&b.0));
    if means.len() < 2 {
        return None;
    }
    let facts = &sweep[0][0].facts;
    Some(ScalingFit {
        engine: facts.engine.clone(),
        isl: facts.isl,
        osl: facts.osl,
        users: means.iter().map(|(users, _)| *users as u32).collect(),
        linear_up_to: stats::linear_up_to(&means)? as u32,
        knee_users: stats::knee(&means)? as u32,
        law: stats::fit(&all).map(|fitted| law(&fitted)),
    })
}

fn law(fitted: &stats::Fitted) -> Law {
    // Contention and coherency are small: as many digits as a figure has.
    let digits = |x: f64| (x * 1e9).round() / 1e9;
    let parameter = |p: stats::Parameter| Parameter {
        value: digits(p.value),
        ci95: p.ci95.map(digits),
    };
    Law {
        lambda: parameter(fitted.lambda),
        sigma: parameter(fitted.sigma),
        kappa: parameter(fitted.kappa),
        peak_users: fitted.peak_users.map(parameter),
        peak_tps: fitted.peak_users.map(|peak| round(fitted.throughput(peak.value))),
        residual: digits(fitted.residual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::{facts, finished_run, new_run, record};
    use crate::measure::result::StepFacts;
    use crate::measure::{StepContext, summary::summarise};

    fn step(number: u16, users: u32, repeat: u32, tps: f64) -> StepResult {
        let facts = StepFacts {
            repeat,
            ..facts(number, "candle", users)
        };
        let mut step = summarise(facts, &record(users, 20), StepContext::default());
        step.output_tps = tps;
        step
    }

    #[test]
    fn repeats_are_told_with_their_spread() {
        let mut run = new_run();
        run.steps = vec![step(0, 4, 0, 190.0), step(2, 8, 0, 300.0), step(1, 4, 1, 210.0)];
        across_steps(&mut run);
        assert_eq!(run.repeats.len(), 1, "8 users ran once");
        let repeats = &run.repeats[0];
        assert_eq!(
            (repeats.n, repeats.load.users, repeats.fewest_requests),
            (2, 4, 40)
        );
        let tps = repeats.metrics["output_tps"];
        assert_eq!((tps.median, tps.min, tps.max), (200.0, 190.0, 210.0));
        assert!(tps.cv.unwrap() > 0.05 && repeats.unsteady == ["output_tps"]);
        assert!(!repeats.metrics.contains_key("goodput_rps") && !repeats.metrics.contains_key("rss_peak"));
    }

    #[test]
    fn a_sweep_gets_its_law() {
        let mut run = new_run();
        let law = |n: f64| 50.0 * n / (1.0 + 0.05 * (n - 1.0) + 0.001 * n * (n - 1.0));
        run.steps = [1_u32, 2, 8, 32, 64]
            .iter()
            .zip(0..)
            .map(|(&n, i)| step(i, n, 0, law(f64::from(n))))
            .collect();
        across_steps(&mut run);
        let [fit] = run.scaling.as_slice() else {
            panic!("{:?}", run.scaling)
        };
        assert_eq!((fit.linear_up_to, fit.users.len()), (2, 5));
        let found = fit.law.unwrap();
        assert!((found.sigma.value - 0.05).abs() < 1e-6 && (found.kappa.value - 0.001).abs() < 1e-7);
        assert!((found.peak_users.unwrap().value - 30.82).abs() < 0.01);
    }

    #[test]
    fn two_loads_have_a_knee_and_no_law() {
        let mut run = finished_run();
        across_steps(&mut run);
        assert_eq!(run.scaling.len(), 2);
        assert!(
            run.scaling
                .iter()
                .all(|fit| fit.law.is_none() && fit.users == [4, 64])
        );
    }
}
