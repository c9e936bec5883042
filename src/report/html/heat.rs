//! TTFT over time as a heat map: what a line of medians hides, such as two kinds of requests, or waves.

use std::collections::BTreeMap;

use super::chart::{Axis, Chart, Heat, Kind, Panel, Scale, Section};
use super::requests::{ROWS_PER_DECADE, StepRequests};
use super::seconds::opened_s;
use crate::measure::result::StepResult;
use crate::report::loads::Loads;

/// Columns at most; longer steps show some seconds together.
const COLUMNS: u64 = 120;

/// The heat maps; a repeated step shows its first repeat.
pub(super) fn charts(loads: &Loads<'_>, requests: &BTreeMap<u16, StepRequests>) -> Vec<Chart> {
    let mut panels = Vec::new();
    for load in 0..loads.count() {
        let steps: Vec<_> = (0..loads.engines.len())
            .filter_map(|engine| {
                let step = *loads.repeats(engine, load).first()?;
                let grid = &requests.get(&step.facts.step)?.grid;
                (!grid.is_empty()).then_some((engine, step, grid))
            })
            .collect();
        // All engines of a load share their axes, or they could not be compared.
        let rows = bounds(steps.iter().flat_map(|(.., grid)| grid.keys().map(|cell| cell.1)));
        let Some(rows) = rows else { continue };
        for (engine, step, grid) in steps {
            panels.push(Panel {
                loads: vec![load],
                window_s: Some(step.window_s),
                heat: Some(heat(engine, step, grid, rows)),
                ..Panel::default()
            });
        }
    }
    let chart = Chart {
        id: "ttft-heat",
        section: Section::Requests,
        title: "Time to first token, request by request",
        hint: "Each cell counts the requests sent in that time with that TTFT: the darker, the more. Two bands are two kinds \
               of requests; a slope is a queue that grows."
            .to_owned(),
        kind: Kind::Heat,
        x: Axis::new("time", "s", Scale::Time),
        y: Axis::new("TTFT", "ms", Scale::Log),
        panels,
    };
    if chart.panels.is_empty() {
        Vec::new()
    } else {
        vec![chart]
    }
}

fn bounds(values: impl Iterator<Item = i32>) -> Option<(i32, i32)> {
    values.fold(None, |bounds, value| match bounds {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

fn heat(engine: usize, step: &StepResult, grid: &BTreeMap<(u64, i32), u32>, rows: (i32, i32)) -> Heat {
    let first = grid.keys().next().map_or(0, |cell| cell.0);
    let last = grid.keys().next_back().map_or(0, |cell| cell.0);
    let width = (last - first + 1).div_ceil(COLUMNS);
    let mut cells: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    for (&(second, row), &n) in grid {
        let column = ((second - first) / width) as usize;
        *cells.entry((column, (row - rows.0) as usize)).or_default() += n;
    }
    Heat {
        engine,
        from_s: first as f64 - opened_s(step),
        column_s: width as f64,
        columns: ((last - first) / width + 1) as usize,
        lowest_ms: 10_f64.powf(f64::from(rows.0) / ROWS_PER_DECADE),
        ratio: 10_f64.powf(1.0 / ROWS_PER_DECADE),
        rows: (rows.1 - rows.0 + 1) as usize,
        cells: cells
            .into_iter()
            .map(|((column, row), n)| (column, row, n))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn no_request_is_lost_when_seconds_share_a_column() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let mut step = StepRequests::default();
        step.grid = (0..1_000_u64)
            .map(|second| ((second, 12 + (second % 3) as i32), 2))
            .collect();
        let mut other = StepRequests::default();
        other.grid.insert((3, 5), 1);
        let charts = charts(&loads, &BTreeMap::from([(0, step), (2, other)]));
        let heats: Vec<&Heat> = charts[0].panels.iter().filter_map(|p| p.heat.as_ref()).collect();
        assert_eq!(heats.len(), 2);
        assert!(heats[0].columns <= COLUMNS as usize);
        assert_eq!(heats[0].cells.iter().map(|cell| cell.2).sum::<u32>(), 2_000);
        assert_eq!((heats[0].rows, heats[1].rows), (10, 10));
        assert_eq!((heats[1].cells[0].1, heats[1].from_s), (0, 1.0));
    }
}
