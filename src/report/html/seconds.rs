//! Charts over the time of a step: second 0 is where the measurement window opens, so that engines lie over each other.

use std::collections::BTreeMap;

use super::chart::{Axis, Chart, Kind, Panel, Plot, Point, Scale, Section, Style};
use super::requests::StepRequests;
use super::words_of;
use crate::measure::StepRows;
use crate::measure::result::StepResult;
use crate::report::loads::Loads;

/// Points of a line at most, and of a line of every step together; longer steps show some seconds together.
const POINTS: usize = 600;
const POINTS_OF_ALL: usize = 24_000;

const NS: f64 = 1e9;

/// How seconds that share a point are told as one.
#[derive(Clone, Copy)]
enum Together {
    Mean,
    Worst,
}

/// A column of `timeline.csv` as it is drawn.
struct Line {
    column: &'static str,
    name: &'static str,
    style: Style,
    together: Together,
    /// What a value is multiplied with to have the chart's unit.
    times: f64,
}

const fn line(column: &'static str, name: &'static str, style: Style, together: Together) -> Line {
    Line {
        column,
        name,
        style,
        together,
        times: 1.0,
    }
}

const fn gib(column: &'static str) -> Line {
    Line {
        times: 1.0 / (1 << 30) as f64,
        ..line(column, "", Style::Line, Together::Mean)
    }
}

/// A chart over time.
struct Shape {
    id: &'static str,
    title: &'static str,
    hint: &'static str,
    unit: &'static str,
    scale: Scale,
    lines: &'static [Line],
}

const SHAPES: &[Shape] = &[
    Shape {
        id: "tokens-over-time",
        title: "Tokens per second",
        hint: "Output tokens of each second. Level over the white part: the step was steady.",
        unit: "tok/s",
        scale: Scale::Linear,
        lines: &[line("output_tps", "", Style::Line, Together::Mean)],
    },
    Shape {
        id: "ttft-over-time",
        title: "Time to first token, second by second",
        hint: "Of the first tokens that arrived in each second; solid: the median, faint: p99. A line that climbs is a queue that grows.",
        unit: "ms",
        scale: Scale::Log,
        lines: &[
            line("ttft_p99_ms", "p99", Style::Faint, Together::Worst),
            line("ttft_p50_ms", "p50", Style::Line, Together::Mean),
        ],
    },
    Shape {
        id: "itl-over-time",
        title: "Gaps between output events, second by second",
        hint: "Of the gaps that ended in each second; solid: the median, faint: p99.",
        unit: "ms",
        scale: Scale::Log,
        lines: &[
            line("itl_p99_ms", "p99", Style::Faint, Together::Worst),
            line("itl_p50_ms", "p50", Style::Line, Together::Mean),
        ],
    },
    Shape {
        id: "in-flight",
        title: "Requests in flight",
        hint: "Solid: sent and not ended; faint: past their first token. The room between the two waits.",
        unit: "",
        scale: Scale::Linear,
        lines: &[
            line("streaming", "streaming", Style::Faint, Together::Mean),
            line("in_flight", "in flight", Style::Line, Together::Mean),
        ],
    },
    Shape {
        id: "server-cpu",
        title: "Server: processors busy",
        hint: "Of the server's process and its children.",
        unit: "cores",
        scale: Scale::Linear,
        lines: &[line("server_cpu_cores", "", Style::Line, Together::Mean)],
    },
    Shape {
        id: "server-rss",
        title: "Server: memory",
        hint: "Resident set of the server's process and its children. A line that climbs without end is a leak.",
        unit: "GiB",
        scale: Scale::Linear,
        lines: &[gib("server_rss_bytes")],
    },
    Shape {
        id: "gpu",
        title: "GPU: utilisation",
        hint: "Mean over its GPUs.",
        unit: "%",
        scale: Scale::Linear,
        lines: &[line("gpu_utilisation_pct", "", Style::Line, Together::Mean)],
    },
    Shape {
        id: "gpu-memory",
        title: "GPU: memory",
        hint: "Used on its GPUs.",
        unit: "GiB",
        scale: Scale::Linear,
        lines: &[gib("gpu_memory_bytes")],
    },
    Shape {
        id: "gpu-power",
        title: "GPU: power",
        hint: "Drawn by its GPUs.",
        unit: "W",
        scale: Scale::Linear,
        lines: &[line("gpu_power_w", "", Style::Line, Together::Mean)],
    },
];

/// What is known of the steps besides their results.
pub(super) struct Seen<'a> {
    pub rows: &'a BTreeMap<u16, StepRows>,
    pub requests: &'a BTreeMap<u16, StepRequests>,
}

/// The charts over time; one that no step has values for is left out.
pub(super) fn charts(loads: &Loads<'_>, seen: &Seen<'_>) -> Vec<Chart> {
    let mut charts: Vec<Chart> = SHAPES.iter().map(|shape| chart(loads, seen, shape)).collect();
    charts.push(errors(loads, seen));
    charts.retain(|chart| !chart.panels.is_empty());
    charts
}

/// Second of the run at which a step's window opened.
pub(super) fn opened_s(step: &StepResult) -> f64 {
    (step.facts.window_start_ns.unwrap_or(0) as f64 / NS).floor()
}

fn chart(loads: &Loads<'_>, seen: &Seen<'_>, shape: &Shape) -> Chart {
    let panel = |load| {
        let mut plot = Plot::default();
        for (engine, step) in loads.under(load) {
            for line in shape.lines {
                let points = points(step, seen, line, room(loads));
                plot.add(Some(engine), named(loads, step, line.name), line.style, points);
            }
        }
        (!plot.is_empty()).then(|| over_time(loads, load, plot))
    };
    Chart {
        id: shape.id,
        section: Section::Time,
        title: shape.title,
        hint: shape.hint.to_owned(),
        kind: Kind::Lines,
        x: Axis::new("time", "s", Scale::Time),
        y: Axis::new(shape.title, shape.unit, shape.scale),
        panels: (0..loads.count()).filter_map(panel).collect(),
    }
}

fn over_time(loads: &Loads<'_>, load: usize, plot: Plot) -> Panel {
    let window_s = loads
        .under(load)
        .map(|(_, step)| step.window_s)
        .fold(f64::INFINITY, f64::min);
    Panel {
        window_s: Some(window_s),
        ..plot.panel(vec![load])
    }
}

/// Name of a line: engine, repeat where there are some, and what is drawn.
pub(super) fn named(loads: &Loads<'_>, step: &StepResult, line: &str) -> String {
    let mut name = step.facts.engine.clone();
    if loads.repeated() {
        name += &format!(" #{}", step.facts.repeat + 1);
    }
    if !line.is_empty() {
        name += &format!(" {line}");
    }
    name
}

/// Points of a line in a run of so many steps.
fn room(loads: &Loads<'_>) -> f64 {
    (POINTS_OF_ALL / loads.run.steps.len().max(1)).clamp(60, POINTS) as f64
}

fn points(step: &StepResult, seen: &Seen<'_>, line: &Line, room: f64) -> Vec<Point> {
    let values: Vec<(f64, f64)> = match seen.rows.get(&step.facts.step) {
        Some(rows) => {
            let Some(column) = rows.column(line.column) else {
                return Vec::new();
            };
            let seconds = rows.second.iter().zip(column);
            seconds
                .filter_map(|(&second, value)| Some((second as f64, (*value)? * line.times)))
                .collect()
        }
        None => lost(step, seen, line.column),
    };
    let opened = opened_s(step);
    let relative = values.into_iter().map(|(second, value)| (second - opened, value));
    together(relative.collect(), line.together, room)
}

/// What requests alone tell of a step without rows.
fn lost(step: &StepResult, seen: &Seen<'_>, column: &str) -> Vec<(f64, f64)> {
    let Some(lost) = seen
        .requests
        .get(&step.facts.step)
        .and_then(|requests| requests.lost.as_ref())
    else {
        return Vec::new();
    };
    let ttft = |quantile: f64| {
        let of = |(&second, values): (&u64, &Vec<f32>)| (second as f64, at_quantile(values, quantile));
        lost.ttft.iter().map(of).collect()
    };
    match column {
        "output_tps" => lost.tokens.iter().map(|(&s, &t)| (s as f64, t)).collect(),
        "ttft_p50_ms" => ttft(0.5),
        "ttft_p99_ms" => ttft(0.99),
        _ => Vec::new(),
    }
}

/// The value of this quantile, by rank.
pub(super) fn at_quantile(values: &[f32], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank = (quantile * sorted.len() as f64 - 1e-9).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().map_or(f64::NAN, f64::from)
}

/// Seconds that share a point: as many as it takes to need no more than `room` points.
fn together(seconds: Vec<(f64, f64)>, how: Together, room: f64) -> Vec<Point> {
    let (Some(first), Some(last)) = (seconds.first(), seconds.last()) else {
        return Vec::new();
    };
    let width = ((last.0 - first.0 + 1.0) / room).ceil().max(1.0);
    let mut bins: BTreeMap<i64, (f64, f64, f64)> = BTreeMap::new();
    for (second, value) in seconds {
        let bin = bins
            .entry((second / width).floor() as i64)
            .or_insert((0.0, 0.0, f64::NEG_INFINITY));
        *bin = (bin.0 + 1.0, bin.1 + value, bin.2.max(value));
    }
    let point = |(bin, (n, sum, worst)): (i64, (f64, f64, f64))| {
        let value = match how {
            Together::Mean => sum / n,
            Together::Worst => worst,
        };
        Point::new(bin as f64 * width, value)
    };
    bins.into_iter().map(point).collect()
}

/// Failed requests of each second, by kind.
fn errors(loads: &Loads<'_>, seen: &Seen<'_>) -> Chart {
    let panel = |load| {
        let mut plot = Plot::default();
        for (engine, step) in loads.under(load) {
            let Some(requests) = seen.requests.get(&step.facts.step) else {
                continue;
            };
            let mut kinds: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
            for (&(kind, second), &n) in &requests.failed {
                let at = second as f64 - opened_s(step);
                kinds.entry(kind).or_default().push((at, f64::from(n)));
            }
            for (kind, seconds) in kinds {
                let points = together(with_zeros(seconds), Together::Mean, room(loads));
                let name = named(loads, step, &words_of(kind));
                plot.add(Some(engine), name, Style::Line, points);
            }
        }
        (!plot.is_empty()).then(|| over_time(loads, load, plot))
    };
    Chart {
        id: "errors",
        section: Section::Time,
        title: "Failed requests",
        hint: "By kind, in the second in which they ended.".to_owned(),
        kind: Kind::Lines,
        x: Axis::new("time", "s", Scale::Time),
        y: Axis::new("failed requests", "/s", Scale::Linear),
        panels: (0..loads.count()).filter_map(panel).collect(),
    }
}

/// A second without failures is one with none of them: the line comes down again.
fn with_zeros(seconds: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let (Some(&(first, _)), Some(&(last, _))) = (seconds.first(), seconds.last()) else {
        return seconds;
    };
    let known: BTreeMap<i64, f64> = seconds.iter().map(|&(at, n)| (at as i64, n)).collect();
    (first as i64 - 1..=last as i64 + 1)
        .map(|at| (at as f64, known.get(&at).copied().unwrap_or(0.0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;
    use crate::measure::{Outcome, StepRows};

    fn rows(seconds: u64) -> StepRows {
        let column = |of: fn(u64) -> f64| (0..seconds).map(|s| Some(of(s))).collect();
        StepRows {
            second: (0..seconds).collect(),
            columns: BTreeMap::from([
                ("output_tps".to_owned(), column(|s| s as f64)),
                ("server_rss_bytes".to_owned(), column(|_| (1_u64 << 31) as f64)),
            ]),
        }
    }

    #[test]
    fn engines_lie_over_each_other_from_where_their_windows_open() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let rows = BTreeMap::from([(0, rows(24)), (2, rows(5_000))]);
        let requests = BTreeMap::new();
        let charts = charts(
            &loads,
            &Seen {
                rows: &rows,
                requests: &requests,
            },
        );
        let ids: Vec<&str> = charts.iter().map(|chart| chart.id).collect();
        assert_eq!(ids, ["tokens-over-time", "server-rss"]);
        let panel = &charts[0].panels[0];
        assert_eq!((panel.window_s, panel.loads.as_slice()), (Some(20.0), &[0][..]));
        // The window opens in second 2.
        let at = panel.x.iter().position(|x| *x == 0.0).unwrap();
        assert_eq!(panel.series[0].y[at], Some(2.0));
        assert!(panel.series[1].y.iter().flatten().count() <= POINTS + 1);
        assert_eq!(charts[1].panels[0].series[0].y[at], Some(2.0));
    }

    #[test]
    fn errors_come_down_again() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let mut step = StepRequests::default();
        step.failed.insert((Outcome::Http429, 5), 3);
        step.failed.insert((Outcome::Http429, 7), 1);
        let (rows, requests) = (BTreeMap::new(), BTreeMap::from([(3, step)]));
        let charts = charts(
            &loads,
            &Seen {
                rows: &rows,
                requests: &requests,
            },
        );
        let panel = &charts[0].panels[0];
        assert_eq!(panel.series[0].name, "llamacpp http_429");
        assert_eq!(panel.x, [2.0, 3.0, 4.0, 5.0, 6.0]);
        let y: Vec<f64> = panel.series[0].y.iter().flatten().copied().collect();
        assert_eq!(y, [0.0, 3.0, 0.0, 1.0, 0.0]);
    }
}
