//! `timeline.csv`: a row per second of every step, ramp and drain too.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::gpus::{self, GpuSecond};
use super::result::StepFacts;
use super::{Second, StepRecord};

/// The columns of the file.
const COLUMNS: [&str; 25] = [
    "engine",
    "step",
    "repeat",
    "second",
    "in_window",
    "users",
    "in_flight",
    "streaming",
    "output_tps",
    "events",
    "sent",
    "ok",
    "failed",
    "ttft_p50_ms",
    "ttft_p99_ms",
    "itl_p50_ms",
    "itl_p99_ms",
    "server_cpu_cores",
    "server_rss_bytes",
    "server_threads",
    "server_minor_faults",
    "server_major_faults",
    "gpu_utilisation_pct",
    "gpu_memory_bytes",
    "gpu_power_w",
];

/// What the server used in one second. What was out of sight is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerSecond {
    /// Start of the second, in whole seconds since the start of the run.
    pub at_s: u64,
    /// CPU cores busy, on average.
    pub cpu_cores: Option<f64>,
    /// Resident set in bytes, at the second's end.
    pub rss_bytes: Option<u64>,
    /// Threads, at the second's end.
    pub threads: Option<u64>,
    /// Page faults answered from memory.
    pub minor_faults: Option<u64>,
    /// Page faults that needed the disk.
    pub major_faults: Option<u64>,
    /// The machine's graphics cards.
    pub gpus: Vec<GpuSecond>,
}

impl ServerSecond {
    /// Mean utilisation, in percent, of the cards that the server computed on, where that is known; else of all.
    pub fn gpu_utilisation_pct(&self) -> Option<f64> {
        let busy: Vec<f64> = gpus::of_server(&self.gpus)
            .iter()
            .filter_map(|card| card.utilisation_pct)
            .collect();
        (!busy.is_empty()).then(|| busy.iter().sum::<f64>() / busy.len() as f64)
    }
}

/// Starts the file.
pub(super) fn create(path: &Path) -> io::Result<()> {
    let mut file = csv::Writer::from_path(path)?;
    file.write_record(COLUMNS)?;
    file.flush()
}

/// Appends the rows of a step. A cell is empty where nothing was measured.
pub(super) fn append(
    path: &Path,
    facts: &StepFacts,
    record: &StepRecord,
    server: &[ServerSecond],
) -> io::Result<()> {
    let server: BTreeMap<u64, &ServerSecond> = server.iter().map(|second| (second.at_s, second)).collect();
    let mut file = csv::Writer::from_writer(OpenOptions::new().append(true).open(path)?);
    for second in &record.seconds {
        let start_ns = second.at_s * 1_000_000_000;
        let in_window = (record.window.start_ns..record.window.end_ns).contains(&start_ns);
        let cells = [
            facts.engine.clone(),
            facts.step.to_string(),
            facts.repeat.to_string(),
            second.at_s.to_string(),
            u8::from(in_window).to_string(),
            second.users.to_string(),
            second.in_flight.to_string(),
            second.streaming.to_string(),
            second.output_tokens.to_string(),
            second.events.to_string(),
            second.sent.to_string(),
            second.ok.to_string(),
            second.failed.to_string(),
        ];
        let used = server.get(&second.at_s).map_or_else(
            || vec![String::new(); SERVER_COLUMNS],
            |server| server_cells(server),
        );
        file.write_record(
            cells
                .into_iter()
                .chain(latencies_ms(second).map(cell))
                .chain(used),
        )?;
    }
    file.flush()
}

/// The columns of the server and of its cards.
const SERVER_COLUMNS: usize = 8;

fn server_cells(server: &ServerSecond) -> Vec<String> {
    let cards = gpus::of_server(&server.gpus);
    let sum = |value: fn(&GpuSecond) -> Option<f64>| {
        let known = cards.iter().copied().filter_map(value);
        known.reduce(|sum, value| sum + value)
    };
    vec![
        cell(server.cpu_cores.map(|cores| format!("{cores:.3}"))),
        cell(server.rss_bytes),
        cell(server.threads),
        cell(server.minor_faults),
        cell(server.major_faults),
        cell(server.gpu_utilisation_pct()),
        cell(sum(|card| card.memory_bytes.map(|bytes| bytes as f64))),
        cell(sum(|card| card.power_w)),
    ]
}

/// TTFT p50 and p99, ITL p50 and p99 of a second, in milliseconds.
fn latencies_ms(second: &Second) -> [Option<f64>; 4] {
    let ms = |ns: u64| ns as f64 / 1e6;
    let pair = |latency: Option<(u64, u64)>| [latency.map(|l| ms(l.0)), latency.map(|l| ms(l.1))];
    let ([ttft_p50, ttft_p99], [itl_p50, itl_p99]) = (pair(second.ttft_ns), pair(second.itl_ns));
    [ttft_p50, ttft_p99, itl_p50, itl_p99]
}

pub(super) fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}
