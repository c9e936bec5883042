//! `hdr/*.hlog`: a step's histograms in the interval-log format of HdrHistogram, one tagged line per metric.
//!
//! Values are nanoseconds; the column for people, `Interval_Max`, is in milliseconds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use super::folder::file_safe;
use super::result::StepFacts;
use super::{Latencies, StepRecord};

/// Name of the log of a step.
pub fn file_name(facts: &StepFacts) -> String {
    format!(
        "{:03}-{}-{}u.hlog",
        facts.step,
        file_safe(&facts.engine),
        facts.users
    )
}

fn named(l: &Latencies) -> [(&'static str, &Histogram<u64>); 9] {
    [
        ("ttft", &l.ttft),
        ("ttft_from_due", &l.ttft_from_due),
        ("ttfo", &l.ttfo),
        ("ttst", &l.ttst),
        ("itl", &l.itl),
        ("icl", &l.icl),
        ("tpot", &l.tpot),
        ("e2el", &l.e2el),
        ("connect", &l.connect),
    ]
}

/// Writes the log of a step whose run began at `started_at`. The interval is the measurement window.
pub(super) fn write(path: &Path, started_at: DateTime<Utc>, record: &StepRecord) -> io::Result<()> {
    let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let (start, end) = (
        Duration::from_nanos(record.window.start_ns),
        Duration::from_nanos(record.window.end_ns),
    );
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histograms of loadtest, in nanoseconds]")
        .with_base_time(started_at.into())
        .with_start_time(started_at.into())
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut text, &mut serializer)?;
    let lags = [
        ("read_lag", &record.read_lag),
        ("send_lag", &record.send_lag),
        ("sending", &record.sending),
        ("shared_stamps", &record.shared_stamps),
    ];
    for (name, histogram) in named(&record.latencies).into_iter().chain(lags) {
        log.write_histogram(histogram, start, end.saturating_sub(start), Tag::new(name))
            .map_err(|e| io::Error::other(e.to_string()))?;
    }
    fs::write(path, text)
}

/// Reads a log: the histograms by metric, in nanoseconds. Intervals of the same metric are added up.
///
/// # Errors
/// When the file cannot be read or is no interval log.
pub fn read(path: &Path) -> io::Result<BTreeMap<String, Histogram<u64>>> {
    let invalid =
        |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
    let text = fs::read(path)?;
    let (mut found, mut deserializer) = (BTreeMap::<String, Histogram<u64>>::new(), Deserializer::new());
    for entry in IntervalLogIterator::new(&text) {
        let LogEntry::Interval(interval) = entry.map_err(|e| invalid(format!("{e:?}")))? else {
            continue;
        };
        let name = interval.tag().map_or("", |tag| tag.as_str()).to_owned();
        let bytes = BASE64_STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|e| invalid(e.to_string()))?;
        let histogram = deserializer
            .deserialize(&mut bytes.as_slice())
            .map_err(|e| invalid(e.to_string()))?;
        match found.get_mut(&name) {
            Some(sum) => sum.add(&histogram).map_err(|e| invalid(e.to_string()))?,
            None => drop(found.insert(name, histogram)),
        }
    }
    Ok(found)
}
