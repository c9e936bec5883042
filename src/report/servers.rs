//! What the servers cost: their processes, the graphics cards, and how long they took to load.

use super::columns::{Best, Column, Part, naming, significant};
use crate::measure::result::{EngineResult, GpuResult, ServerResult, StepResult};

const MIB: f64 = 1024.0 * 1024.0;

/// The columns of these steps; none if nothing was seen of any server.
pub(super) fn columns(steps: &[StepResult]) -> Vec<Column> {
    use {Best::*, Part::Both};
    let servers = || steps.iter().filter_map(|step| step.server.as_ref());
    if servers().next().is_none() {
        return Vec::new();
    }
    let mut columns = naming(steps);
    if servers().any(|server| server.cpu_s.is_some()) {
        columns.extend([
            Column::number(["CPU", "cores"], Both, Neither, |s| s.server.as_ref()?.cpu_cores),
            Column::number(["CPU", "ms/tok"], Both, Low, |s| {
                let tokens = s.output_tps * s.window_s;
                (tokens > 0.0).then_some(s.server.as_ref()?.cpu_s? * 1e3 / tokens)
            }),
            Column::number(["peak RSS", "MiB"], Both, Low, |s| {
                s.server.as_ref()?.rss_peak_bytes.map(|bytes| bytes as f64 / MIB)
            }),
            Column::text(["threads", ""], Both, |s| count(s, |server| server.threads_peak)),
            Column::text(["disk", "faults"], Both, |s| {
                count(s, |server| server.major_faults)
            }),
        ]);
    }
    if servers().any(|server| !server.gpu.is_empty()) {
        columns.extend([
            Column::number(["GPU", "%"], Both, Neither, |s| {
                s.server.as_ref()?.gpu_utilisation_pct()
            }),
            Column::number(["GPU mem", "MiB"], Both, Low, |s| {
                let of = |gpu: &GpuResult| gpu.memory_peak_bytes.map(|bytes| bytes as f64 / MIB);
                s.server.as_ref()?.gpu_sum(of)
            }),
            Column::number(["GPU", "W"], Both, Neither, |s| {
                s.server.as_ref()?.gpu_sum(|gpu| gpu.power_w)
            }),
            Column::number(["GPU", "J/tok"], Both, Low, StepResult::joules_per_token),
        ]);
    }
    columns
}

fn count(step: &StepResult, of: fn(&ServerResult) -> Option<u64>) -> String {
    let count = step.server.as_ref().and_then(of);
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// How long the engines took to load, in a line; nothing where none was started.
pub(super) fn loading(engines: &[EngineResult]) -> Option<String> {
    let told: Vec<String> = engines.iter().filter_map(load).collect();
    (!told.is_empty()).then(|| format!("loading: {}", told.join("; ")))
}

fn load(engine: &EngineResult) -> Option<String> {
    let first = engine.loads.first()?;
    let total = |load: &crate::measure::result::LoadTime| load.ready_s.unwrap_or(0.0) + load.first_token_s;
    let parts = first.ready_s.map_or_else(String::new, |ready| {
        format!(
            " (ready {}, first token {} later)",
            significant(ready),
            significant(first.first_token_s)
        )
    });
    let totals = || engine.loads.iter().map(total);
    let starts = match (totals().reduce(f64::min), totals().reduce(f64::max)) {
        (Some(least), Some(most)) if engine.loads.len() > 1 => format!(
            ", {} starts from {} to {} s",
            engine.loads.len(),
            significant(least),
            significant(most)
        ),
        _ => String::new(),
    };
    Some(format!(
        "{} {} s{parts}{starts}",
        engine.name,
        significant(total(first))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::result::LoadTime;

    #[test]
    fn load_times_are_told_by_engine_with_their_parts_and_spread() {
        let engine = |name: &str, loads: &[(Option<f64>, f64)]| EngineResult {
            name: name.into(),
            loads: loads
                .iter()
                .map(|&(ready_s, first_token_s)| LoadTime {
                    ready_s,
                    first_token_s,
                })
                .collect(),
            ..EngineResult::default()
        };
        let engines = [
            engine("a", &[(Some(1.25), 0.5), (Some(2.0), 0.5)]),
            engine("b", &[(None, 30.0)]),
            engine("attach", &[]),
        ];
        assert_eq!(
            loading(&engines).as_deref(),
            Some(
                "loading: a 1.75 s (ready 1.25, first token 0.50 later), 2 starts from 1.75 to 2.50 s; b 30.0 s"
            )
        );
        assert_eq!(loading(&engines[2..]), None);
    }
}
