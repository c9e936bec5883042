//! The client's own error and cost: what its lateness may have done to the figures of a step.

use super::StepRecord;
use super::histogram::{lag, p99_ms, round};
use super::result::{ClientResult, ErrorParts, Stamp};

const NS: f64 = 1e9;

/// The share of events without a stamp of the kernel's above which the p99 of arrivals is not known.
const UNSTAMPED: f64 = 0.01;

/// What a step's record says of the client that made it.
pub(super) fn client(record: &StepRecord) -> ClientResult {
    let events = record.events_in_window;
    let stamped = record.kernel_stamps && record.unstamped_events as f64 <= UNSTAMPED * events as f64;
    let parts = parts(record, stamped);
    let seconds = |ns: Option<u64>| ns.map(|ns| round(ns as f64 / NS));
    ClientResult {
        stamp: if stamped { Stamp::Kernel } else { Stamp::Read },
        read_lag_ms: lag(&record.read_lag),
        send_lag_ms: lag(&record.send_lag),
        sending_ms: lag(&record.sending),
        error_p99_ms: total(&parts),
        error_parts_ms: parts,
        unstamped_events: record.unstamped_events,
        clock_steps: record.clock_steps,
        cpu_s: round(record.client_cpu_ns as f64 / NS),
        cpu_us_per_event: (events > 0).then(|| round(record.client_cpu_ns as f64 / 1e3 / events as f64)),
        threads: record.client_threads,
        run_queue_s: seconds(record.contention.run_queue_ns),
        steal_s: seconds(record.contention.steal_ns),
        cpu_pressure_s: seconds(record.contention.pressure_ns),
    }
}

fn parts(record: &StepRecord, stamped: bool) -> ErrorParts {
    let clock = record.stamp_error_ns.filter(|_| stamped);
    ErrorParts {
        clock: clock.map(|ns| ns as f64 / 1e6),
        shared_stamps: clock.map(|_| shared_stamps_ms(record)),
        sending: p99_ms(&record.sending, record.sending.len()),
        send_lag: p99_ms(&record.send_lag, record.send_lag.len()),
    }
}

/// Nothing is known of the whole where nothing is known of the arrivals.
fn total(parts: &ErrorParts) -> Option<f64> {
    let arrivals = parts.clock? + parts.shared_stamps?;
    Some(round(
        arrivals + parts.sending.unwrap_or(0.0) + parts.send_lag.unwrap_or(0.0),
    ))
}

/// An event that shares its stamp with a later one may have come earlier: by no more than the time since the stamp before
/// them, and by no more than it can have lain unread. The lesser of the two over all events of the window, at p99: a server
/// that puts several events into one segment makes the former large, and a prompt reader keeps the latter small.
fn shared_stamps_ms(record: &StepRecord) -> f64 {
    let moved = p99_ms(&record.shared_stamps, record.events_in_window).unwrap_or(0.0);
    moved.min(lag(&record.read_lag).p99.unwrap_or(0.0))
}
