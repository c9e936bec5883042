//! Showing it: tables, files and live progress.

mod across;
mod calibration;
mod columns;
mod compare;
mod conclusions;
mod csv;
mod dashboard;
mod export;
mod failed;
mod gates;
mod html;
mod leads;
mod loads;
mod picks;
mod progress;
mod servers;
mod single;
mod table;
mod verdict;
mod verify;
mod weights;
mod words;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::measure::result::RunResult;
use crate::profile::Format;

pub use calibration::{calibration, tried};
pub use compare::{comparison, comparison_markdown, conditions};
pub use dashboard::{Dashboard, Overview, leave};
pub use export::export;
pub use gates::gates_junit;
pub use progress::{Live, Phase, Progress, ServerNow, Show, StepProgress, Task};
pub use words::users;

/// Shows a run. `width` is the number of columns that the table may take ([`terminal_width`]); `dir`, where its files
/// are.
pub fn render(run: &RunResult, format: Format, width: usize, dir: Option<&Path>) -> String {
    let listed = &listed(run);
    match format {
        Format::Table => table::text(listed, width, dir),
        Format::Json => {
            let json = serde_json::to_string_pretty(run).expect("a RunResult has text keys only");
            format!("{json}\n")
        }
        Format::Csv => csv::text(listed),
        Format::Markdown => table::markdown(listed),
        Format::Html => html::page(listed, dir),
    }
}

/// Writes the run's page into its folder, as `report.html`; returns the file. A reader sees the old page or the new one,
/// never half of one.
///
/// # Errors
/// When it cannot be written.
pub fn write_page(run: &RunResult, dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join(html::FILE);
    let part = dir.join("report.html.part");
    fs::write(&part, render(run, Format::Html, 0, Some(dir)))?;
    fs::rename(&part, &path)?;
    Ok(path)
}

/// The run with its steps engine by engine, in whichever order they ran.
fn listed(run: &RunResult) -> RunResult {
    let mut run = run.clone();
    run.steps.sort_by_key(|step| step.facts.step);
    run
}

/// Columns of the terminal that stdout goes to; 200 when it goes to none.
pub fn terminal_width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(200, |(width, _)| usize::from(width.0))
}

/// Writes to stdout. A reader that went away (`loadtest report last | head`) is no error.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn wide_table() {
        let text = render(
            &finished_run(),
            Format::Table,
            160,
            Some(Path::new("results/20260301T123000Z-sustained-64")),
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_narrow_terminal_gets_two_tables_that_fit() {
        let text = render(&finished_run(), Format::Table, 80, None);
        let tables = text
            .lines()
            .filter(|line| line.contains('|') && !line.starts_with("    |"));
        assert!(
            tables.clone().count() >= 8 && tables.clone().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn markdown() {
        insta::assert_snapshot!(render(&finished_run(), Format::Markdown, 80, None));
    }

    #[test]
    fn csv_has_a_row_per_step_and_the_keys_of_run_json() {
        let text = render(&finished_run(), Format::Csv, 80, None);
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        let head = reader.headers().unwrap().clone();
        assert_eq!(
            head.iter().take(4).collect::<Vec<_>>(),
            ["engine", "repeat", "step", "users"]
        );
        let column = head.iter().position(|name| name == "ttft_ms.p50").unwrap();
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 4);
        assert!(
            rows[0][column]
                .parse::<f64>()
                .is_ok_and(|p50| (20.0..25.0).contains(&p50))
        );
    }

    #[test]
    fn json_is_the_run_and_nothing_else() {
        let run = finished_run();
        let value: serde_json::Value = serde_json::from_str(&render(&run, Format::Json, 80, None)).unwrap();
        assert_eq!(value, serde_json::to_value(&run).unwrap());
    }
}
