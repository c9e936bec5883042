//! The engines that failed, as rows of the tables: the name, and why in one clause.

use tabled::Table;
use tabled::builder::Builder;
use tabled::settings::span::ColumnSpan;
use tabled::settings::{Alignment, Width};

use crate::measure::result::RunResult;

/// The most characters of a clause; the whole sentence stands below the tables.
const LONGEST: usize = 80;

/// An engine that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed<'a> {
    pub engine: &'a str,
    /// What happened, without what to do about it: `is not on this machine`.
    pub why: String,
}

/// The engines that failed, those with steps that were measured before too: some of theirs may be missing.
pub(super) fn all(run: &RunResult) -> Vec<Failed<'_>> {
    let failed = |name, message| Failed {
        engine: name,
        why: clause(name, message),
    };
    let engines = run.engines.iter();
    engines
        .filter_map(|engine| Some(failed(&engine.name, &engine.failure.as_ref()?.message)))
        .collect()
}

/// The first clause of a message, without the engine's name before it: a message says what happened, then the rest.
fn clause(engine: &str, message: &str) -> String {
    let named = message.strip_prefix(engine);
    let unnamed = named.and_then(|rest| rest.strip_prefix(": ").or_else(|| rest.strip_prefix(' ')));
    let message = unnamed.unwrap_or(message);
    let ends = [": ", "; ", "\n"].map(|end| message.find(end));
    let end = ends.into_iter().flatten().min().unwrap_or(message.len());
    let clause = message[..end].trim();
    match clause.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &clause[..cut]),
        None => clause.to_owned(),
    }
}

/// A table with a row for each engine that failed, whose reason reaches from the second column to the end, in lines that
/// make the table no wider. `styled` makes the table, with cells of this padding.
pub(super) fn below(
    mut rows: Builder,
    failed: &[Failed<'_>],
    padding: usize,
    styled: impl Fn(Builder) -> Table,
) -> Table {
    let plain = styled(rows.clone()).to_string();
    let beside = plain.lines().next().and_then(|line| line.split_once('|'));
    let beside = beside.map_or(LONGEST, |(_, rest)| rest.chars().count());
    let room = beside.saturating_sub(2 * padding).max(1);
    let first = rows.count_records();
    for engine in failed {
        rows.push_record([engine.engine, &engine.why]);
    }
    let mut table = styled(rows);
    for row in first..first + failed.len() {
        table
            .modify((row, 1), ColumnSpan::max())
            .modify((row, 1), Alignment::left())
            .modify((row, 1), Width::wrap(room).keep_words(true));
    }
    table
}

/// The same rows for Markdown, whose cells cannot span columns: name and reason stand in the first.
pub(super) fn below_in_markdown(rows: &mut Builder, failed: &[Failed<'_>]) {
    let columns = rows.count_columns();
    for Failed { engine, why } in failed {
        let mut row = vec![format!("{engine}: {}", why.replace('|', "\\|"))];
        row.resize(columns, "-".to_owned());
        rows.push_record(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;
    use crate::measure::result::EngineFailure;
    use crate::profile::Format;
    use crate::report::render;

    #[test]
    fn a_long_reason_makes_no_table_wider() {
        let mut run = finished_run();
        run.engines.iter_mut().for_each(|engine| engine.failure = None);
        let widths = |text: &str| -> Vec<usize> {
            let rules = text.lines().filter(|line| line.starts_with("---"));
            rules.map(|line| line.chars().count()).collect()
        };
        let plain = render(&run, Format::Table, 80, None);
        run.engines[0].failure = Some(EngineFailure {
            message: format!("candle {}: what to do", "cannot be had ".repeat(5).trim_end()),
            ..EngineFailure::default()
        });
        let text = render(&run, Format::Table, 80, None);
        assert_eq!(widths(&text), widths(&plain));
        let first = text.split("\n\n").nth(1).expect("a table");
        let rows: Vec<&str> = first.lines().rev().take(2).map(str::trim_end).collect();
        assert_eq!(
            rows,
            [
                "        |be had cannot be had",
                "candle  |cannot be had cannot be had cannot be had cannot"
            ]
        );
    }

    #[test]
    fn where_all_failed_there_is_no_table_without_figures() {
        let mut run = finished_run();
        run.steps.clear();
        for format in [Format::Table, Format::Markdown] {
            let text = render(&run, format, 80, None);
            assert!(
                !text.contains("req/s") && text.contains("! llamacpp failed"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_row_says_what_happened_and_leaves_out_the_rest() {
        let cases = [
            (
                "ollama is not on this machine: `loadtest engines install ollama`",
                "is not on this machine",
            ),
            (
                "ollama died while loading, exit code 1; its log is /a/b: c",
                "died while loading, exit code 1",
            ),
            ("ollama: the log\nits last lines", "the log"),
            (
                "no server answers at http://127.0.0.1:1: refused",
                "no server answers at http://127.0.0.1:1",
            ),
            ("ollamas are others", "ollamas are others"),
        ];
        for (message, wanted) in cases {
            assert_eq!(clause("ollama", message), wanted);
        }
        let long = clause("ollama", &"ö".repeat(200));
        assert_eq!(long.chars().count(), LONGEST + 1);
    }
}
