//! What each figure means: one table, for `loadtest explain`, for reports and for exports.

mod all;

use all::COLUMNS;
pub use all::DEFINITIONS;

/// The definition of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The name by which results refer to it.
    pub id: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// Its unit; empty for a pure number.
    pub unit: &'static str,
    /// What it is, exactly.
    pub meaning: &'static str,
    /// How other tools read the same name; empty where the field agrees.
    pub elsewhere: &'static str,
}

/// There is no metric of this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no metric `{name}`{hint}; there are {known}")]
pub struct UnknownMetric {
    name: String,
    hint: String,
    known: String,
}

/// The definition of a metric, by its id, its name, or the head of its column in a table, with or without the percentile and
/// the unit that stand there.
///
/// # Errors
/// If there is none; the message has the nearest one.
pub fn explain(metric: &str) -> Result<&'static Definition, UnknownMetric> {
    let wanted = metric.to_lowercase().replace([' ', '-'], "_");
    let id = bare(&wanted);
    let id = COLUMNS
        .iter()
        .find(|(head, _)| *head == id || *head == wanted)
        .map_or(id, |(_, id)| id);
    let by_id = DEFINITIONS
        .iter()
        .find(|definition| definition.id == id || definition.id == wanted);
    let by_name = || {
        DEFINITIONS.iter().find(|definition| {
            let name = definition.name.to_lowercase().replace([' ', '-'], "_");
            name == id || name == wanted
        })
    };
    by_id.or_else(by_name).ok_or_else(|| {
        let ids = DEFINITIONS.iter().map(|definition| definition.id);
        UnknownMetric {
            name: metric.into(),
            hint: nearest(id, ids.clone()),
            known: ids.collect::<Vec<_>>().join(", "),
        }
    })
}

/// What a column's head says of its metric: `ttft` of `ttft_p99_ms`.
fn bare(head: &str) -> &str {
    let head = ["_ms", "_mib", "_mb"]
        .iter()
        .find_map(|unit| head.strip_suffix(unit))
        .unwrap_or(head);
    ["_p50", "_p90", "_p99"]
        .iter()
        .find_map(|percentile| head.strip_suffix(percentile))
        .unwrap_or(head)
}

fn nearest(wrong: &str, ids: impl Iterator<Item = &'static str>) -> String {
    ids.map(|id| (strsim::jaro_winkler(wrong, id), id))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, id)| format!(" (did you mean `{id}`?)"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_found_by_id_and_by_name() {
        for definition in DEFINITIONS {
            assert_eq!(explain(definition.id), Ok(definition));
            assert_eq!(explain(&definition.name.to_uppercase()), Ok(definition));
        }
        assert_eq!(explain("TTFT").map(|definition| definition.id), Ok("ttft"));
        assert_eq!(explain("ttft_ms").map(|definition| definition.id), Ok("ttft"));
    }

    #[test]
    fn ids_are_unique() {
        let ids: BTreeSet<_> = DEFINITIONS.iter().map(|definition| definition.id).collect();
        assert_eq!(ids.len(), DEFINITIONS.len());
    }

    #[test]
    fn an_unknown_metric_names_the_nearest() {
        insta::assert_snapshot!(explain("tftt").unwrap_err());
    }
}
