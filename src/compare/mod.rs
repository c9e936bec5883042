//! Run against run, or engine against engine: what differs, by how much, and whether that is more than chance.

mod cell;
mod conditions;
mod gate;
mod result;
mod side;

pub use conditions::{Condition, Differs};
pub use gate::{Gate, GateError, Held, Ruling};
pub use result::{Cell, Comparison, Figure, Pair, Row, Test};
pub use side::{Named, Side, SideError, pair_up};

use crate::measure::Metric;
use crate::stats::holm;

/// Compares each pair, the baseline first, at every load that both have. With `metrics` empty, all that both have are
/// compared. The p values are corrected for all comparisons made.
pub fn compare(pairs: &[(Side<'_>, Side<'_>)], metrics: &[&Metric]) -> Comparison {
    let mut pairs: Vec<Pair> = pairs
        .iter()
        .map(|(first, second)| pair(first, second, metrics))
        .collect();
    correct(&mut pairs);
    let compared = rows(&mut pairs).filter(|row| row.p.is_some()).count();
    Comparison {
        pairs,
        comparisons: compared as u64,
        gates: Vec::new(),
    }
}

fn pair(first: &Side<'_>, second: &Side<'_>, metrics: &[&Metric]) -> Pair {
    let (left, right) = (first.loads(), second.loads());
    let mut cells = Vec::new();
    let mut alone = Vec::new();
    for (load, steps) in &left {
        match right.iter().find(|(other, _)| other == load) {
            Some((_, others)) => cells.push(cell::compare(*load, steps, others, metrics)),
            None => alone.push(format!("{load} only in {}", first.label)),
        }
    }
    let missing = right
        .iter()
        .filter(|(load, _)| !left.iter().any(|(other, _)| other == load));
    alone.extend(missing.map(|(load, _)| format!("{load} only in {}", second.label)));
    Pair {
        baseline: first.label.clone(),
        candidate: second.label.clone(),
        differs: conditions::between(first, second),
        alone,
        cells,
    }
}

fn rows(pairs: &mut [Pair]) -> impl Iterator<Item = &mut Row> {
    pairs
        .iter_mut()
        .flat_map(|pair| &mut pair.cells)
        .flat_map(|cell| &mut cell.rows)
}

/// Corrects all p values together, and decides by them.
fn correct(pairs: &mut [Pair]) {
    let p: Vec<f64> = rows(pairs).filter_map(|row| row.p).collect();
    let corrected = holm(&p);
    for (row, p) in rows(pairs).filter(|row| row.p.is_some()).zip(corrected) {
        row.p_corrected = Some(p);
        row.real = p < 0.05;
    }
}
