//! The picture: progress, a row of sparklines for each engine, finished steps, messages.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Gauge, Paragraph, Row, Sparkline, Table};

use super::state::{EngineState, Finished, State, Tick};
use crate::report::Live;
use crate::report::columns::significant;

pub(super) const LEAST_WIDTH: u16 = 60;
pub(super) const LEAST_HEIGHT: u16 = 16;

/// Rows of an engine: its figures, and its sparklines below.
const ENGINE_HEIGHT: u16 = 3;
const NAME_WIDTH: u16 = 14;

/// What a sparkline shows of a second.
type Figure = fn(&Tick) -> Option<f64>;

const SPARKLINES: [(&str, &str, Color, Figure); 3] = [
    ("tok/s", "", Color::Green, |tick| Some(tick.tokens_per_s)),
    ("TTFT p50", " ms", Color::Yellow, |tick| {
        tick.second.ttft_p50_ns.map(|ns| ns as f64 / 1e6)
    }),
    ("ITL p50", " ms", Color::Cyan, |tick| {
        tick.second.itl_p50_ns.map(|ns| ns as f64 / 1e6)
    }),
];

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, now: Instant) {
    let engines = state.engines.len() as u16 * ENGINE_HEIGHT;
    let fixed = 7;
    let room = frame.area().height.saturating_sub(fixed);
    let [title, gauge, now_line, rule, grid, steps, messages, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(engines.min(room * 2 / 3)),
        Constraint::Fill(2),
        Constraint::Max(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Line::styled(state.overview.title.as_str(), bold), title);
    frame.render_widget(progress(state, now), gauge);
    frame.render_widget(Paragraph::new(doing(state)), now_line);
    frame.render_widget(Block::new().borders(Borders::TOP), rule);
    draw_engines(frame, state, grid);
    draw_finished(frame, &state.finished, steps);
    let kept = state.messages.len().saturating_sub(usize::from(messages.height));
    let last: Vec<Line<'_>> = state
        .messages
        .iter()
        .skip(kept)
        .map(|m| Line::raw(m.as_str()))
        .collect();
    frame.render_widget(Paragraph::new(last), messages);
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(
        Line::styled("q stops the run; what was measured is saved and reported", dim),
        foot,
    );
}

fn progress(state: &State, now: Instant) -> Gauge<'static> {
    let elapsed = clock(now.saturating_duration_since(state.since));
    let left = state
        .left()
        .map_or_else(String::new, |left| format!(", {} left", clock(left)));
    let number = state.step.map_or(0, |(number, _)| number + 1);
    let label = format!(
        "step {number} of {}, {elapsed} so far{left}",
        state.overview.steps
    );
    Gauge::default()
        .ratio(state.done().clamp(0.0, 1.0))
        .label(label)
        .gauge_style(Style::new().fg(Color::Blue).bg(Color::Black))
}

/// What goes on, and what both sides make of it.
fn doing(state: &State) -> Vec<Line<'static>> {
    let step = state.current().zip(state.step).map(|(live, (_, index))| {
        let name = &state.engines[index].name;
        vec![
            Line::raw(format!("{name}: {}", live.text())),
            Line::raw(both_sides(live)),
        ]
    });
    let task = || vec![Line::raw(state.task.clone().unwrap_or_default())];
    step.unwrap_or_else(task)
}

/// What the server's processes use, and how late the client is.
fn both_sides(live: &Live) -> String {
    let mut parts = Vec::new();
    if let Some(server) = live.server {
        parts.push(format!(
            "server {} cores, {} MB",
            significant(server.cpu_cores),
            server.rss_bytes / 1_000_000
        ));
        parts.extend(server.gpu_pct.map(|busy| format!("GPU {busy:.0} %")));
    }
    parts.extend(live.read_lag_p99.map(|late| {
        format!(
            "client late by {} ms at p99",
            significant(late.as_secs_f64() * 1e3)
        )
    }));
    parts.join(", ")
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// As many engines as there is room for; the one under way is among them.
fn draw_engines(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let fit = usize::from(area.height / ENGINE_HEIGHT).max(1);
    let under_way = state.step.map_or(0, |(_, index)| index);
    let first = (under_way + 1).saturating_sub(fit);
    let shown = state.engines.iter().enumerate().skip(first).take(fit);
    let rows = Layout::vertical(vec![Constraint::Length(ENGINE_HEIGHT); fit]).split(area);
    for ((index, engine), row) in shown.zip(rows.iter()) {
        draw_engine(frame, engine, index == under_way, *row);
    }
}

fn draw_engine(frame: &mut Frame<'_>, engine: &EngineState, under_way: bool, area: Rect) {
    let [name, charts] =
        Layout::horizontal([Constraint::Length(NAME_WIDTH), Constraint::Fill(1)]).areas(area);
    let style = match under_way {
        true => Style::new().add_modifier(Modifier::BOLD),
        false => Style::new(),
    };
    let requests = engine
        .live
        .map_or_else(String::new, |live| format!("{} ok", live.ok));
    let failed = engine
        .live
        .filter(|live| live.failed > 0)
        .map_or_else(String::new, |live| format!("{} failed", live.failed));
    let lines = vec![
        Line::styled(engine.name.as_str(), style),
        Line::raw(requests),
        Line::styled(failed, Style::new().fg(Color::Red)),
    ];
    frame.render_widget(Paragraph::new(lines), name);
    let areas = Layout::horizontal([Constraint::Fill(1); SPARKLINES.len()])
        .spacing(2)
        .split(charts);
    for ((title, unit, color, figure), area) in SPARKLINES.into_iter().zip(areas.iter()) {
        let newest = engine.ticks.iter().rev().find_map(figure);
        let value = newest.map_or_else(|| "-".to_owned(), significant);
        let [head, chart] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(*area);
        frame.render_widget(Line::raw(format!("{title} {value}{unit}")), head);
        // The newest seconds, as many as there are columns; thousandths, because a sparkline takes whole numbers.
        let skipped = engine.ticks.len().saturating_sub(usize::from(chart.width));
        let data = engine.ticks.iter().skip(skipped);
        let data = data.map(|tick| figure(tick).map(|value| (value * 1e3) as u64));
        frame.render_widget(
            Sparkline::default().data(data).style(Style::new().fg(color)),
            chart,
        );
    }
}

fn draw_finished(frame: &mut Frame<'_>, finished: &[Finished], area: Rect) {
    if finished.is_empty() || area.height < 2 {
        return;
    }
    let room = usize::from(area.height) - 1;
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), significant);
    let rows = finished
        .iter()
        .skip(finished.len().saturating_sub(room))
        .map(|step| {
            Row::new([
                step.name.clone(),
                significant(step.tokens_per_s),
                number(step.ttft_ms[0]),
                number(step.ttft_ms[1]),
                number(step.itl_ms),
                step.failed.to_string(),
                number(step.client_ms),
            ])
        });
    let widths = [
        Constraint::Fill(3),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ];
    let head = [
        "finished",
        "tok/s",
        "TTFT p50",
        "p99 ms",
        "ITL p50",
        "failed",
        "client ±",
    ];
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::Overview;
    use super::*;
    use crate::measure::LatestSecond;
    use crate::measure::fixture::finished_run;
    use crate::report::{Phase, ServerNow};

    fn live(second: u64) -> Live {
        let ms = |ms: u64| ms * 1_000_000;
        Live {
            phase: Phase::Measure,
            elapsed: Duration::from_secs(second),
            total: Some(Duration::from_secs(60)),
            users: 64,
            in_flight: 63,
            tokens_per_s: 300.0 + 20.0 * (second % 7) as f64,
            ttft_p50: Some(Duration::from_millis(182)),
            ok: 12 * second,
            failed: second / 20,
            second: Some(LatestSecond {
                at_s: second,
                ttft_p50_ns: Some(ms(150 + 10 * (second % 1_000))),
                itl_p50_ns: (second % 1_000 != 25).then_some(ms(20 + second % 3)),
                read_lag_p99_ns: None,
            }),
            server: Some(ServerNow {
                cpu_cores: 1.87,
                rss_bytes: 412_000_000,
                gpu_pct: None,
            }),
            read_lag_p99: Some(Duration::from_micros(52)),
        }
    }

    fn state() -> State {
        let run = finished_run();
        let mut state = State::new(Overview {
            title: "loadtest: profile sustained-64, model smollm2".into(),
            engines: vec!["candle".into(), "llamacpp".into(), "pytorch".into()],
            steps: 6,
            step_time: Some(Duration::from_secs(80)),
        });
        for (number, engine) in [(0, "candle"), (1, "candle"), (2, "llamacpp")] {
            state.begins(number, engine);
            (0..40).for_each(|second| state.goes(&live(1_000 * number as u64 + second)));
            if number < 2 {
                state.ended(&run.steps[number]);
            }
        }
        let mut last = live(2_040);
        last.elapsed = Duration::from_secs(40);
        state.goes(&last);
        state.say("resting for 10s");
        state
    }

    fn picture(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let now = state.since + Duration::from_secs(204);
        terminal.draw(|frame| draw(frame, state, now)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_run_under_way() {
        insta::assert_snapshot!("wide", picture(&state(), 110, 30));
    }

    #[test]
    fn a_small_terminal_shows_the_engine_under_way() {
        let text = picture(&state(), LEAST_WIDTH, LEAST_HEIGHT);
        assert!(text.contains("llamacpp"), "{text}");
        insta::assert_snapshot!("small", text);
    }

    #[test]
    fn before_the_first_step_the_task_is_told() {
        let mut state = State::new(state().overview);
        state.task(Some("candle: loading the model".into()));
        assert!(picture(&state, 100, 24).contains("candle: loading the model"));
        assert_eq!(state.done(), 0.0);
        assert_eq!(state.left(), Some(Duration::from_secs(480)));
    }

    #[test]
    fn times_read_as_on_a_clock() {
        let shown = [0, 61, 3_725].map(|s| clock(Duration::from_secs(s)));
        assert_eq!(shown, ["0:00", "1:01", "1:02:05"]);
    }
}
