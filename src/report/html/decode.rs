//! Decode speed against the position in the answer.

use super::chart::{Axis, Chart, Kind, Panel, Plot, Point, Scale, Section, Style};
use crate::report::loads::Loads;

/// The chart; none for a run whose gaps are not known by position.
pub(super) fn chart(loads: &Loads<'_>) -> Option<Chart> {
    let panels: Vec<Panel> = (0..loads.count()).filter_map(|load| panel(loads, load)).collect();
    (!panels.is_empty()).then(|| Chart {
        id: "decode-position",
        section: Section::Requests,
        title: "Decode speed against position in the answer",
        hint: "Tokens per second of one stream: one over the mean gap before the tokens of that position. A line that falls \
               is decoding that slows down as the context grows."
            .to_owned(),
        kind: Kind::Lines,
        x: Axis::new("token of the answer", "", Scale::Linear),
        y: Axis::new("tokens/s of one user", "tok/s", Scale::Linear),
        panels,
    })
}

fn panel(loads: &Loads<'_>, load: usize) -> Option<Panel> {
    let mut plot = Plot::default();
    for (engine, step) in loads.under(load) {
        let name = super::seconds::named(loads, step, "");
        let points = step.itl_by_position.iter().filter(|part| part.mean_ms > 0.0);
        let points = points.map(|part| {
            let middle = (part.from + part.to) as f64 / 2.0;
            Point::new(middle, 1e3 / part.mean_ms)
        });
        plot.add(Some(engine), name, Style::Marked, points);
    }
    (!plot.is_empty()).then(|| plot.panel(vec![load]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;
    use crate::measure::result::PositionItl;

    #[test]
    fn speed_is_one_over_the_mean_gap() {
        let mut run = finished_run();
        assert!(chart(&Loads::of(&run)).is_none());
        run.steps[0].itl_by_position = vec![PositionItl {
            from: 8,
            to: 9,
            tokens: 100,
            mean_ms: 20.0,
        }];
        let chart = chart(&Loads::of(&run)).unwrap();
        assert_eq!((chart.panels.len(), chart.panels[0].x[0]), (1, 8.5));
        assert_eq!(chart.panels[0].series[0].y, [Some(50.0)]);
    }
}
