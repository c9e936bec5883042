//! What a prompt's length costs: TTFT against input tokens.

use std::collections::BTreeMap;

use super::chart::{Axis, Chart, Kind, Panel, Plot, Point, Scale, Section, Style};
use super::requests::StepRequests;
use super::seconds::at_quantile;
use crate::report::loads::Loads;

/// Groups of requests of about one length, at most.
const GROUPS: usize = 24;

/// A median of fewer requests than this says more of chance than of their length.
const GROUP: usize = 20;

/// So many lengths are shown one by one, however few their requests: they were asked for.
const FEW: usize = 4;

/// Prompts whose longest is not this much longer than the shortest say nothing about length.
const SPREAD: f64 = 1.2;

/// The chart, or why there is none.
pub(super) fn chart(loads: &Loads<'_>, requests: &BTreeMap<u16, StepRequests>) -> Result<Chart, String> {
    let lengths = || {
        requests
            .values()
            .flat_map(|step| step.pairs.iter().map(|pair| pair.0))
    };
    let (Some(shortest), Some(longest)) = (lengths().min(), lengths().max()) else {
        return Err("no request that succeeded has a known prompt length".to_owned());
    };
    if !varied(loads, requests) {
        return Err(match shortest == longest {
            true => format!("all prompts had {shortest} tokens"),
            false => format!("all prompts had {shortest} to {longest} tokens"),
        });
    }
    Ok(Chart {
        id: "ttft-prompt",
        section: Section::Requests,
        title: "Time to first token against prompt length",
        hint: "Marks are medians of requests of about one length, bars span 10 to 90 % of them. The slope is the time that \
               a prompt token takes (prefill)."
            .to_owned(),
        kind: Kind::Lines,
        x: Axis::new("prompt tokens", "", Scale::Linear),
        y: Axis::new("TTFT", "ms", Scale::Linear),
        panels: panels(loads, requests),
    })
}

/// Whether an engine met prompts of different lengths: engines that count the same prompt differently say nothing.
fn varied(loads: &Loads<'_>, requests: &BTreeMap<u16, StepRequests>) -> bool {
    (0..loads.engines.len()).any(|engine| {
        let steps = loads.run.steps.iter().filter(|step| loads.engine(step) == engine);
        let pairs = steps
            .filter_map(|step| requests.get(&step.facts.step))
            .flat_map(|step| &step.pairs);
        let (shortest, longest) = pairs.fold((u32::MAX, 0), |(low, high), pair| {
            (low.min(pair.0), high.max(pair.0))
        });
        longest > 0 && f64::from(longest) >= SPREAD * f64::from(shortest)
    })
}

/// A panel for each number of users: loads that differ in their lengths alone belong together here.
fn panels(loads: &Loads<'_>, requests: &BTreeMap<u16, StepRequests>) -> Vec<Panel> {
    let mut by_users: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (load, of) in loads.labels().iter().enumerate() {
        by_users.entry(of.users).or_default().push(load);
    }
    let panel = |of: Vec<usize>| {
        let mut plot = Plot::default();
        for (engine, name) in loads.engines.iter().enumerate() {
            let steps = of.iter().flat_map(|&load| loads.repeats(engine, load));
            let pairs = steps.filter_map(|step| requests.get(&step.facts.step));
            let pairs: Vec<(u32, f32)> = pairs.flat_map(|step| step.pairs.iter().copied()).collect();
            plot.add(Some(engine), *name, Style::Marked, groups(pairs));
        }
        (!plot.is_empty()).then(|| plot.panel(of))
    };
    by_users.into_values().filter_map(panel).collect()
}

/// Requests by length: a group for each length, or of so many neighbours each where there are too many lengths, or too few
/// requests of each.
fn groups(mut pairs: Vec<(u32, f32)>) -> Vec<Point> {
    pairs.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let exact: Vec<&[(u32, f32)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
    let most = (pairs.len() / GROUP).clamp(1, GROUPS);
    let groups: Vec<&[(u32, f32)]> = match exact.len() > most.max(FEW) {
        true => pairs.chunks(pairs.len().div_ceil(most)).collect(),
        false => exact,
    };
    let point = |group: &[(u32, f32)]| {
        let length = group.iter().map(|pair| f64::from(pair.0)).sum::<f64>() / group.len() as f64;
        let ttft: Vec<f32> = group.iter().map(|pair| pair.1).collect();
        Point {
            interval: Some([at_quantile(&ttft, 0.1), at_quantile(&ttft, 0.9)]),
            ..Point::new(length, at_quantile(&ttft, 0.5))
        }
    };
    groups.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    fn of(pairs: Vec<(u32, f32)>) -> BTreeMap<u16, StepRequests> {
        let mut step = StepRequests::default();
        step.pairs = pairs;
        BTreeMap::from([(0, step)])
    }

    #[test]
    fn prompts_of_one_length_are_said_to_be() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let one = chart(&loads, &of(vec![(64, 1.0), (66, 2.0)])).unwrap_err();
        assert_eq!(one, "all prompts had 64 to 66 tokens");
        assert!(chart(&loads, &BTreeMap::new()).is_err());
    }

    #[test]
    fn engines_that_count_one_prompt_differently_are_not_lengths() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let step = |tokens| of(vec![(tokens, 1.0)]).remove(&0).unwrap();
        let engines: Vec<usize> = run.steps.iter().map(|step| loads.engine(step)).collect();
        let other = engines.iter().position(|engine| *engine != engines[0]).unwrap();
        let numbers = [run.steps[0].facts.step, run.steps[other].facts.step];
        let requests = BTreeMap::from([(numbers[0], step(17)), (numbers[1], step(38))]);
        assert!(chart(&loads, &requests).is_err());
    }

    #[test]
    fn many_lengths_are_grouped() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let pairs = (100..1_100)
            .map(|tokens| (tokens, tokens as f32 / 10.0))
            .collect();
        let panel = &chart(&loads, &of(pairs)).unwrap().panels[0];
        let series = &panel.series[0];
        assert!(panel.x.len() <= GROUPS && panel.x.len() > GROUPS / 2);
        for (x, y) in panel.x.iter().zip(&series.y) {
            assert!((y.unwrap() - x / 10.0).abs() < 1.0, "{x}: {y:?}");
        }
        let exact = groups(vec![(10, 1.0), (20, 5.0), (10, 3.0), (10, 2.0)]);
        assert_eq!((exact.len(), exact[0].y, exact[1].y), (2, 2.0, 5.0));
    }
}
