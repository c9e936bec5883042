//! Intervals for runs that were saved without them, from their `requests.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use super::latencies::Times;
use super::result::{RunResult, StepResult};
use super::rows::{Row, Rows};
use super::store::StoreError;
use super::{Outcome, Sample, Window, intervals, requests};

/// Computes the intervals of latencies and of failures for the steps that lack them. The file is read line by line; of each
/// request so much is kept as the intervals need. Nothing is done without the file: a saved `run.json` may stand alone.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn refill(dir: &Path, run: &mut RunResult) -> Result<(), StoreError> {
    let path = dir.join("requests.jsonl");
    let lacking = |step: &&mut StepResult| step.requests.ok > 0 && step.ttft_ms.ci95.blocks.is_none();
    let mut found: BTreeMap<u16, (Window, Rows)> = run
        .steps
        .iter_mut()
        .filter(lacking)
        .filter_map(|step| Some((step.facts.step, (window(step)?, Rows::default()))))
        .collect();
    if found.is_empty() || !path.is_file() {
        return Ok(());
    }
    requests::read(&path, |line| {
        if let Some((window, rows)) = found.get_mut(&line.sample.step) {
            take(&line.sample, *window, rows);
        }
    })
    .map_err(|source| StoreError::Read { path, source })?;
    for step in &mut run.steps {
        if let Some((_, rows)) = found.get(&step.facts.step) {
            intervals::of_requests(step, rows);
        }
    }
    Ok(())
}

fn window(step: &StepResult) -> Option<Window> {
    let start_ns = step.facts.window_start_ns?;
    let end_ns = start_ns + (step.window_s * 1e9) as u64;
    Some(Window { start_ns, end_ns })
}

/// As the recorder does it: a request counts where it was sent, or ended if it could not be sent.
fn take(sample: &Sample, window: Window, rows: &mut Rows) {
    if !sample
        .sent_ns
        .or(sample.end_ns)
        .is_some_and(|at| window.holds(at))
    {
        return;
    }
    rows.push(match sample.outcome {
        Outcome::Ok => Row::of(sample, &Times::with_first(sample, 1), false),
        _ => Row::failed(sample),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::{facts, new_run, record, sample};
    use crate::measure::result::{Intervals, Status};
    use crate::measure::{StepContext, Store, open};

    #[test]
    fn a_run_of_an_older_version_gets_its_intervals() {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::create(root.path(), new_run()).unwrap();
        let sink = store.sink().unwrap();
        // 50 a second for 30 s; the window is 20 s from second 2.
        (0..1_500).for_each(|id| sink.send(sample(id, 0, 20 * id), &[]));
        drop(sink);
        store
            .step_done(facts(0, "candle", 4), &record(4, 20), StepContext::default(), &[])
            .unwrap();
        let dir = store.dir().to_owned();
        store.finish(Status::Done).unwrap();

        let mut run = open(&dir).unwrap();
        run.steps[0].ttft_ms.ci95 = Intervals::default();
        refill(&dir, &mut run).unwrap();
        let step = &run.steps[0];
        let [low, high] = step.ttft_ms.ci95.p50.unwrap();
        assert!(
            (low - 20.0).abs() < 0.01 && (high - 20.0).abs() < 0.01,
            "every request took 20 ms: {low} {high}"
        );
        assert_eq!(step.failed_share_ci95.unwrap()[0], 0.0);
        std::fs::remove_file(dir.join("requests.jsonl")).unwrap();
        run.steps[0].ttft_ms.ci95 = Intervals::default();
        refill(&dir, &mut run).unwrap();
        assert_eq!(run.steps[0].ttft_ms.ci95.p50, None);
    }
}
