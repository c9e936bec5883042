//! `gpus.csv`: a row per second and graphics card of every step, where the machine has cards.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::StepRecord;
use super::result::StepFacts;
use super::timeline::{ServerSecond, cell};

/// A graphics card in one second. What its driver does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GpuSecond {
    /// Its number on the machine.
    pub gpu: u32,
    /// What it is called.
    pub name: String,
    /// Whether a process of the server computed on it.
    pub server: Option<bool>,
    /// Share of the time in which a kernel ran on it, in percent.
    pub utilisation_pct: Option<f64>,
    /// Memory in use, by anyone, in bytes.
    pub memory_bytes: Option<u64>,
    /// Power drawn, in watts.
    pub power_w: Option<f64>,
    /// Temperature in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Clock of its multiprocessors in MHz.
    pub sm_clock_mhz: Option<f64>,
    /// Clock of its memory in MHz.
    pub memory_clock_mhz: Option<f64>,
    /// Bytes per second that it received over PCIe.
    pub pcie_rx_bytes_per_s: Option<f64>,
    /// Bytes per second that it sent over PCIe.
    pub pcie_tx_bytes_per_s: Option<f64>,
}

/// The cards that the server computed on, where the driver tells; else all.
pub(super) fn of_server(cards: &[GpuSecond]) -> Vec<&GpuSecond> {
    let its: Vec<_> = cards.iter().filter(|card| card.server == Some(true)).collect();
    match its.is_empty() {
        true => cards.iter().collect(),
        false => its,
    }
}

/// The file's columns, in order.
const COLUMNS: [&str; 16] = [
    "engine",
    "step",
    "repeat",
    "second",
    "in_window",
    "gpu",
    "name",
    "server",
    "utilisation_pct",
    "memory_bytes",
    "power_w",
    "temperature_c",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "pcie_rx_bytes_per_s",
    "pcie_tx_bytes_per_s",
];

/// Appends the rows of a step; without a card there is no file.
pub(super) fn append(
    path: &Path,
    facts: &StepFacts,
    record: &StepRecord,
    seconds: &[ServerSecond],
) -> io::Result<()> {
    if seconds.iter().all(|second| second.gpus.is_empty()) {
        return Ok(());
    }
    let is_new = !path.exists();
    let mut file = csv::Writer::from_writer(OpenOptions::new().create(true).append(true).open(path)?);
    if is_new {
        file.write_record(COLUMNS)?;
    }
    for second in seconds {
        let in_window = record.window.holds(second.at_s * 1_000_000_000);
        for card in &second.gpus {
            file.write_record([
                facts.engine.clone(),
                facts.step.to_string(),
                facts.repeat.to_string(),
                second.at_s.to_string(),
                u8::from(in_window).to_string(),
                card.gpu.to_string(),
                card.name.clone(),
                cell(card.server.map(u8::from)),
                cell(card.utilisation_pct),
                cell(card.memory_bytes),
                cell(card.power_w),
                cell(card.temperature_c),
                cell(card.sm_clock_mhz),
                cell(card.memory_clock_mhz),
                cell(card.pcie_rx_bytes_per_s),
                cell(card.pcie_tx_bytes_per_s),
            ])?;
        }
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::{facts, record};

    fn card(gpu: u32, server: Option<bool>) -> GpuSecond {
        GpuSecond {
            gpu,
            name: "A".into(),
            server,
            power_w: Some(250.5),
            ..GpuSecond::default()
        }
    }

    #[test]
    fn cards_of_the_server_count_where_they_are_known() {
        let indices = |cards: &[GpuSecond]| of_server(cards).iter().map(|card| card.gpu).collect::<Vec<_>>();
        assert_eq!(indices(&[card(0, Some(false)), card(1, Some(true))]), [1]);
        assert_eq!(indices(&[card(0, Some(false)), card(1, None)]), [0, 1]);
    }

    #[test]
    fn a_row_stands_for_each_second_and_card() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpus.csv");
        append(
            &path,
            &facts(0, "candle", 4),
            &record(4, 20),
            &[ServerSecond::default()],
        )
        .unwrap();
        assert!(!path.exists());
        for step in 0..2 {
            let seconds = [ServerSecond {
                at_s: 7,
                gpus: vec![card(0, Some(true)), card(1, None)],
                ..ServerSecond::default()
            }];
            append(&path, &facts(step, "candle", 4), &record(4, 20), &seconds).unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows[0], COLUMNS.join(","));
        assert_eq!(rows[1], "candle,0,0,7,1,0,A,1,,,250.5,,,,,");
        assert_eq!((rows.len(), rows[4]), (5, "candle,1,0,7,1,1,A,,,,250.5,,,,,"));
    }
}
