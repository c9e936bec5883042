//! Charts with a point for each step: how throughput and latency go with the load.

use super::chart::{Axis, Chart, Kind, Plot, Point, Scale, Section, Style};
use crate::measure::result::{Latency, ScalingFit, StepResult};
use crate::report::loads::{Loads, Varies};

/// Points that a fitted line is drawn through.
const LAW_POINTS: u32 = 32;

/// A figure of a step with its 95 % interval, if it has one.
type Figure = (Option<f64>, Option<[f64; 2]>);

/// The charts of a sweep; none when the run has one load only.
pub(super) fn charts(loads: &Loads<'_>) -> Vec<Chart> {
    let label = match loads.varies() {
        Varies::Nothing => return Vec::new(),
        Varies::Users => "users",
        Varies::Rate => "requests/s asked for",
        Varies::Input => "prompt tokens",
        Varies::Output => "answer tokens",
    };
    let interval = match loads.repeated() {
        true => "Marks are means over the repeats, bars span them all.",
        false => "Bars are 95 % intervals.",
    };
    let x = |scale| Axis::new(label, "", scale);
    let mut charts = vec![
        Chart {
            id: "throughput",
            section: Section::Sweep,
            title: "Throughput",
            hint: format!("Output tokens per second of all users together: higher is better. {interval}"),
            kind: Kind::Lines,
            x: x(Scale::Points),
            y: Axis::new("tokens/s", "tok/s", Scale::Linear),
            panels: vec![drawn(loads, &[("", Style::Marked, &tps)]).panel(Vec::new())],
        },
        latency(
            loads,
            ("ttft", "Time to first token", "ttft"),
            x(Scale::Points),
            interval,
            |s| &s.ttft_ms,
        ),
        latency(
            loads,
            ("itl", "Inter-token latency", "itl"),
            x(Scale::Points),
            interval,
            |s| &s.itl_ms,
        ),
    ];
    if loads.varies() == Varies::Users {
        charts.insert(2, scaling(loads, x(Scale::LogPoints)));
    }
    charts.retain(|chart| chart.panels.iter().any(|panel| !panel.series.is_empty()));
    charts
}

fn tps(step: &StepResult) -> Figure {
    (Some(step.output_tps), step.output_tps_ci95)
}

fn latency(
    loads: &Loads<'_>,
    (id, title, metric): (&'static str, &'static str, &str),
    x: Axis,
    interval: &str,
    of: fn(&StepResult) -> &Latency,
) -> Chart {
    let p50 = move |s: &StepResult| (of(s).p50, of(s).ci95.p50);
    let p99 = move |s: &StepResult| (of(s).p99, None);
    let of: [Drawn<'_>; 2] = [("p50", Style::Marked, &p50), ("p99", Style::Dashed, &p99)];
    Chart {
        id,
        section: Section::Sweep,
        title,
        hint: format!(
            "Lower is better. Solid: the median; dashed: p99, one in a hundred is worse. {interval} `loadtest explain {metric}` defines it."
        ),
        kind: Kind::Lines,
        x,
        y: Axis::new(title, "ms", Scale::Log),
        panels: vec![drawn(loads, &of).panel(Vec::new())],
    }
}

/// Throughput over that of the fewest users, beside the ideal and the fitted law.
fn scaling(loads: &Loads<'_>, x: Axis) -> Chart {
    let factor = |s: &StepResult| (s.scaling.map(|scaling| scaling.factor), None);
    let mut plot = drawn(loads, &[("", Style::Marked, &factor)]);
    let bases = loads
        .run
        .steps
        .iter()
        .filter_map(|step| step.scaling.map(|s| s.base_users));
    if let (Some(base), false) = (bases.min(), plot.is_empty()) {
        let users = loads.run.steps.iter().map(|step| f64::from(step.facts.users));
        let ideal = users.map(|users| Point::new(users, users / f64::from(base)));
        plot.add(None, "ideal", Style::Dashed, ideal);
    }
    for fit in &loads.run.scaling {
        add_law(loads, fit, &mut plot);
    }
    Chart {
        id: "scaling",
        section: Section::Sweep,
        title: "Scaling",
        hint: "Throughput over that of the fewest users; both axes by powers. On the ideal line each user more adds as \
               much as the first. Dotted: the Universal Scalability Law fitted to the engine, where it could be."
            .to_owned(),
        kind: Kind::Lines,
        x,
        y: Axis::new("times the throughput of the fewest users", "×", Scale::Log),
        panels: vec![plot.panel(Vec::new())],
    }
}

/// The law that was fitted to an engine's throughput, in the unit of the chart.
fn add_law(loads: &Loads<'_>, fit: &ScalingFit, plot: &mut Plot) {
    let (Some(law), Some(engine)) = (
        &fit.law,
        loads.engines.iter().position(|name| *name == fit.engine),
    ) else {
        return;
    };
    let own = |step: &&StepResult| {
        step.facts.engine == fit.engine && step.facts.isl == fit.isl && step.facts.osl == fit.osl
    };
    let base_tps = loads.run.steps.iter().filter(own).find_map(|step| {
        let factor = step.scaling?.factor;
        (factor > 0.0).then_some(step.output_tps / factor)
    });
    let (Some(base_tps), Some(&first), Some(&last)) = (base_tps, fit.users.first(), fit.users.last()) else {
        return;
    };
    let (first, last) = (f64::from(first.max(1)), f64::from(last));
    let users = (0..=LAW_POINTS).map(|i| first * (last / first).powf(f64::from(i) / f64::from(LAW_POINTS)));
    let point = |users: f64| {
        let (sigma, kappa) = (law.sigma.value, law.kappa.value);
        let slowed = 1.0 + sigma * (users - 1.0) + kappa * users * (users - 1.0);
        Point::new(users, law.lambda.value * users / slowed / base_tps)
    };
    plot.add(
        Some(engine),
        format!("{} fitted", fit.engine),
        Style::Fitted,
        users.map(point),
    );
}

/// A figure of a step: its name, how it is drawn, and its value.
type Drawn<'a> = (&'a str, Style, &'a dyn Fn(&StepResult) -> Figure);

/// A series for each engine, sweep and figure; repeats of a step make one point.
fn drawn(loads: &Loads<'_>, of: &[Drawn<'_>]) -> Plot {
    let mut plot = Plot::default();
    for (engine, name) in loads.engines.iter().enumerate() {
        for (shared, sweep) in loads.sweeps() {
            for (figure, style, of) in of {
                let point = |&load: &usize| {
                    let figures: Vec<Figure> = loads.repeats(engine, load).into_iter().map(of).collect();
                    point(loads.x(load), &figures)
                };
                let words = [name, shared.as_str(), figure];
                let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
                plot.add(
                    Some(engine),
                    words.join(" "),
                    *style,
                    sweep.iter().filter_map(point),
                );
            }
        }
    }
    plot
}

/// One figure as it stands; several as their mean and span.
fn point(x: f64, figures: &[Figure]) -> Option<Point> {
    let values: Vec<f64> = figures.iter().filter_map(|(value, _)| *value).collect();
    let (&first, rest) = values.split_first()?;
    let interval = match rest {
        [] => figures.iter().find_map(|(_, interval)| *interval),
        _ => Some([
            values.iter().copied().fold(f64::INFINITY, f64::min),
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ]),
    };
    let mean = match rest {
        [] => first,
        _ => values.iter().sum::<f64>() / values.len() as f64,
    };
    Some(Point {
        interval,
        ..Point::new(x, mean)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn a_sweep_draws_throughput_latency_and_scaling() {
        let run = finished_run();
        let charts = charts(&Loads::of(&run));
        let ids: Vec<&str> = charts.iter().map(|chart| chart.id).collect();
        assert_eq!(ids, ["throughput", "ttft", "scaling", "itl"]);
        let throughput = &charts[0].panels[0];
        assert_eq!(throughput.x, [4.0, 64.0]);
        assert_eq!(throughput.series.len(), 2);
        assert_eq!(throughput.series[0].low.len(), 2);
        let ideal = charts[2].panels[0].series.last().unwrap();
        assert_eq!((ideal.engine, ideal.y[1]), (None, Some(16.0)));
    }

    #[test]
    fn one_load_is_no_sweep() {
        let mut run = finished_run();
        run.steps.retain(|step| step.facts.users == 4);
        assert!(charts(&Loads::of(&run)).is_empty());
    }

    #[test]
    fn repeats_make_one_point_that_spans_them() {
        let point = point(
            4.0,
            &[(Some(1.0), None), (Some(3.0), Some([0.0, 9.0])), (None, None)],
        )
        .unwrap();
        assert_eq!((point.y, point.interval), (2.0, Some([1.0, 3.0])));
    }
}
