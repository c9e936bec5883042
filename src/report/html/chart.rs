//! What the page's script draws: charts of lines, and heat maps. All numbers are aggregated here; the script only draws.

use serde::Serialize;

/// One picture with its controls.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Chart {
    /// Name within the page.
    pub id: &'static str,
    /// Heading of the charts that belong together.
    pub section: Section,
    pub title: &'static str,
    /// How to read it, in a sentence.
    pub hint: String,
    pub kind: Kind,
    pub x: Axis,
    pub y: Axis,
    /// One plot each, for some of the run's loads.
    pub panels: Vec<Panel>,
}

/// Charts that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Section {
    /// One point a step.
    Sweep,
    /// One load, over the time of its step.
    Time,
    /// One load, its requests.
    Requests,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A line for each series; one panel for each load.
    Lines,
    /// Counts on a grid; one panel for each load and engine.
    Heat,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Axis {
    pub label: String,
    pub unit: &'static str,
    pub scale: Scale,
}

impl Axis {
    pub fn new(label: &str, unit: &'static str, scale: Scale) -> Axis {
        Axis {
            label: label.to_owned(),
            unit,
            scale,
        }
    }
}

/// How an axis spaces its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// Ticks where the points are.
    Points,
    /// The same, by powers.
    LogPoints,
    Log,
    /// Values are `1 / (1 - quantile)`, by powers of ten: each nine takes the same room.
    Tail,
    /// Seconds since the window opened; those before and after the window are shaded.
    Time,
}

/// One plot.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Panel {
    /// The loads that it is shown for, by number; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<usize>,
    /// What all series are drawn against, ascending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub x: Vec<f64>,
    pub series: Vec<Series>,
    /// End of the measurement window, in seconds after its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heat: Option<Heat>,
}

/// A line. `y`, `low` and `high` have a place for each `x` of the panel.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Series {
    /// Number of the engine; none for a line that is no engine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<usize>,
    pub name: String,
    pub style: Style,
    pub y: Vec<Option<f64>>,
    /// Interval around each point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub low: Vec<Option<f64>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub high: Vec<Option<f64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Style {
    Line,
    /// The same with a mark at each point.
    Marked,
    /// Of second rank.
    Faint,
    Dashed,
    /// Of a fitted law.
    Fitted,
}

/// Counts of requests on a grid of time and latency.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Heat {
    pub engine: usize,
    /// Start of the first column in seconds since the window opened, and width of each.
    pub from_s: f64,
    pub column_s: f64,
    pub columns: usize,
    /// Lower bound of the first row in milliseconds, and the ratio of each to the one before.
    pub lowest_ms: f64,
    pub ratio: f64,
    pub rows: usize,
    /// Column, row, requests.
    pub cells: Vec<(usize, usize, u32)>,
}

/// A number with five significant digits: what a screen shows, and half the bytes.
pub(super) fn short(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

/// The series of a panel on a common axis: points given one by one are put in their places.
#[derive(Debug, Default)]
pub(super) struct Plot {
    series: Vec<(Option<usize>, String, Style, Vec<Point>)>,
}

/// A point, with its interval if it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
    pub interval: Option<[f64; 2]>,
}

impl Point {
    pub fn new(x: f64, y: f64) -> Point {
        Point { x, y, interval: None }
    }
}

impl Plot {
    /// Adds a series. Points that are no numbers are left out, and so is a series without points.
    pub fn add(
        &mut self,
        engine: Option<usize>,
        name: impl Into<String>,
        style: Style,
        points: impl IntoIterator<Item = Point>,
    ) {
        let points: Vec<Point> = points
            .into_iter()
            .filter(|point| point.x.is_finite() && point.y.is_finite())
            .collect();
        if !points.is_empty() {
            self.series.push((engine, name.into(), style, points));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The panel for `loads`.
    pub fn panel(self, loads: Vec<usize>) -> Panel {
        let mut x: Vec<f64> = self
            .series
            .iter()
            .flat_map(|(.., points)| points.iter().map(|point| short(point.x)))
            .collect();
        x.sort_by(f64::total_cmp);
        x.dedup();
        let series = self.series.into_iter().map(|(engine, name, style, points)| {
            let mut series = Series {
                engine,
                name,
                style,
                y: vec![None; x.len()],
                low: Vec::new(),
                high: Vec::new(),
            };
            if points.iter().any(|point| point.interval.is_some()) {
                (series.low, series.high) = (vec![None; x.len()], vec![None; x.len()]);
            }
            for point in points {
                let Ok(at) = x.binary_search_by(|other| other.total_cmp(&short(point.x))) else {
                    continue;
                };
                series.y[at] = Some(short(point.y));
                if let Some([low, high]) = point.interval {
                    (series.low[at], series.high[at]) = (Some(short(low)), Some(short(high)));
                }
            }
            series
        });
        Panel {
            loads,
            series: series.collect(),
            x,
            ..Panel::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_meet_on_one_axis() {
        let mut plot = Plot::default();
        plot.add(
            Some(0),
            "a",
            Style::Line,
            [Point::new(1.0, 10.0), Point::new(4.0, 40.0)],
        );
        let with = Point {
            interval: Some([1.0, 3.0]),
            ..Point::new(2.0, 2.0)
        };
        plot.add(
            Some(1),
            "b",
            Style::Line,
            [with, Point::new(f64::NAN, 1.0), Point::new(3.0, f64::NAN)],
        );
        plot.add(None, "nothing", Style::Line, []);
        let panel = plot.panel(vec![0]);
        assert_eq!(panel.x, [1.0, 2.0, 4.0]);
        assert_eq!(panel.series.len(), 2);
        assert_eq!(panel.series[0].y, [Some(10.0), None, Some(40.0)]);
        assert_eq!(panel.series[1].y, [None, Some(2.0), None]);
        assert_eq!(panel.series[1].high, [None, Some(3.0), None]);
    }

    #[test]
    fn five_digits_are_enough() {
        assert_eq!(short(1234.5678), 1234.6);
        assert_eq!(short(0.000_123_456), 0.000_123_46);
        assert_eq!(short(0.0), 0.0);
    }
}
