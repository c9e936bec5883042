//! Showing it: tables, files and live progress.

mod columns;
mod csv;
mod progress;
mod table;
mod words;

use std::io::{self, Write};
use std::path::Path;

use crate::measure::result::RunResult;

pub use progress::{Live, Phase, Progress, Show, StepProgress, Task};

/// How a run is shown on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tables for people.
    Table,
    /// `run.json`.
    Json,
    /// A row per step, columns named as in `run.json`.
    Csv,
    /// A table for a pull request or a README.
    Markdown,
}

/// Shows a run. `width` is the number of columns that the table may take ([`terminal_width`]); `dir`, where its files
/// are.
pub fn render(run: &RunResult, format: Format, width: usize, dir: Option<&Path>) -> String {
    match format {
        Format::Table => table::text(run, width, dir),
        Format::Json => {
            let json = serde_json::to_string_pretty(run).expect("a RunResult has text keys only");
            format!("{json}\n")
        }
        Format::Csv => csv::text(run),
        Format::Markdown => table::markdown(run),
    }
}

/// Columns of the terminal that stdout goes to; 140 when it goes to none.
pub fn terminal_width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(140, |(width, _)| usize::from(width.0))
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
