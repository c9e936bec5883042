//! What the tokens of a step cost, from the price of the server's hour.

use std::collections::BTreeMap;

use super::histogram::round;
use super::result::{Cost, RunResult, StepResult};

/// Sets `cost` of every step from the run's price; without a price there is none. A baseline's repeats count as their
/// mean.
pub fn fill_cost(run: &mut RunResult) {
    let price = run.price.clone();
    let baseline = price.as_ref().and_then(|price| price.baseline.as_deref());
    let mut rates: BTreeMap<_, (f64, u32)> = BTreeMap::new();
    for step in run
        .steps
        .iter()
        .filter(|step| Some(&*step.facts.engine) == baseline)
    {
        let (sum, n) = rates.entry(load(step)).or_default();
        *sum += step.output_tps;
        *n += 1;
    }
    for step in &mut run.steps {
        let base_tps = rates.get(&load(step)).map(|(sum, n)| sum / f64::from(*n));
        step.cost = price.as_ref().map(|price| Cost {
            per_million_output_tokens: (step.output_tps > 0.0)
                .then(|| round(price.per_hour / (step.output_tps * 3_600.0) * 1e6)),
            requests_per_hour: round(step.request_rps * 3_600.0),
            of_baseline: base_tps
                .filter(|base| *base > 0.0 && step.output_tps > 0.0)
                .map(|base| round(base / step.output_tps)),
        });
    }
}

/// What two steps must have in common for their costs to be compared.
fn load(step: &StepResult) -> impl Ord + use<> {
    let facts = &step.facts;
    (facts.users, facts.isl, facts.osl, facts.rate.map(f64::to_bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;
    use crate::measure::result::Price;

    #[test]
    fn a_price_by_the_hour_becomes_one_of_a_million_tokens() {
        let mut run = finished_run();
        let (fast, slow) = (
            run.steps[0].facts.engine.clone(),
            run.steps[2].facts.engine.clone(),
        );
        assert_ne!(fast, slow);
        run.steps[0].output_tps = 500.0;
        run.steps[0].request_rps = 2.5;
        run.steps[2].output_tps = 250.0;
        run.steps[2].facts.users = run.steps[0].facts.users;
        run.price = Some(Price {
            per_hour: 1.8,
            baseline: Some(slow),
        });
        fill_cost(&mut run);
        let cost = run.steps[0].cost.unwrap();
        assert_eq!(cost.per_million_output_tokens, Some(1.0));
        assert_eq!(cost.requests_per_hour, 9_000.0);
        assert_eq!(cost.of_baseline, Some(0.5));
        assert_eq!(run.steps[2].cost.unwrap().of_baseline, Some(1.0));

        run.steps[0].output_tps = 0.0;
        fill_cost(&mut run);
        assert_eq!(run.steps[0].cost.unwrap().per_million_output_tokens, None);
        run.price = None;
        fill_cost(&mut run);
        assert!(run.steps.iter().all(|step| step.cost.is_none()));
    }
}
