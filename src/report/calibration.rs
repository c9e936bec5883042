//! A calibration in words: whole for `loadtest calibrate`, in a line for a run's report.

use std::fmt::Write;

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::columns::significant;
use super::words::users;
use crate::measure::calibration::{BOUND_MS, Calibration, Calibrations, Capacity, Limit, Tried};
use crate::measure::result::Stamp;

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |ms| format!("{} ms", significant(ms)))
}

/// What `loadtest calibrate` prints.
pub fn calibration(c: &Calibration) -> String {
    let mut text = String::new();
    let load = &c.load;
    let mut line = |words: String| writeln!(text, "{words}").expect("writing to a String cannot fail");
    line(format!(
        "{} x {} events/s against the built-in reference server, {} s",
        users(load.users),
        significant(load.rate),
        significant(c.window_s)
    ));
    if let Some(stall) = &load.stall {
        line(format!("the client's threads were stalled on purpose: {stall}"));
    }
    line(format!("\n{}\n", errors(c)));
    line(format!(
        "{} events of {} requests compared: {} lost, {} doubled; {} requests failed",
        c.events, c.requests, c.events_lost, c.events_doubled, c.requests_failed
    ));
    let cpu = c
        .cpu_us_per_event
        .map_or("unknown".into(), |us| format!("{} us", significant(us)));
    line(format!(
        "{} events/s arrived; CPU of the client {cpu} an event",
        significant(c.events_per_s)
    ));
    for remark in remarks(c) {
        line(remark);
    }
    if let Some(capacity) = &c.capacity {
        line(held(capacity));
    }
    text
}

fn errors(c: &Calibration) -> String {
    let mut table = Builder::default();
    table.push_record(["", "p50 ms", "p99 ms", "max ms", "n"]);
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), significant);
    for (name, error) in [
        ("TTFT error", c.ttft_error_ms),
        ("ITL error", c.itl_error_ms),
        ("arrival error", c.arrival_error_ms),
    ] {
        let row = [
            cell(error.p50),
            cell(error.p99),
            cell(error.max),
            error.n.to_string(),
        ];
        table.push_record([name.to_owned()].into_iter().chain(row));
    }
    for (name, lag) in [("read lag", c.read_lag_ms), ("send lag", c.send_lag_ms)] {
        let row = [cell(lag.p50), cell(lag.p99), cell(lag.max), String::new()];
        table.push_record([name.to_owned()].into_iter().chain(row));
    }
    table
        .build()
        .with(Style::psql())
        .modify(Columns::new(1..), Alignment::right())
        .to_string()
}

/// What must be said of the figures.
fn remarks(c: &Calibration) -> Vec<String> {
    let mut remarks = Vec::new();
    if c.stamp == Stamp::Read {
        remarks.push("this system stamps no arrivals: they are the instants of the reads".into());
    }
    if c.read_lag_ms.p99.is_some_and(|lag| lag > BOUND_MS) {
        let stamps = match c.stamp {
            Stamp::Kernel => "; arrivals are the kernel's, so that the errors above are what remains",
            Stamp::Read => "",
        };
        remarks.push(format!(
            "! the reader was late: p99 {}, at most {}{stamps}",
            ms(c.read_lag_ms.p99),
            ms(c.read_lag_ms.max)
        ));
    }
    if !c.is_whole() {
        remarks.push("! the client's counts are wrong: they differ from what the server sent".into());
    }
    if let Some(error) = c.error_p99_ms().filter(|error| *error > BOUND_MS) {
        remarks.push(format!(
            "! the client's error is above {} ms: p99 {}",
            BOUND_MS,
            ms(Some(error))
        ));
    }
    remarks
}

fn held(capacity: &Capacity) -> String {
    let rate = |one: &Tried| {
        format!(
            "{} x {} events/s ({} events/s)",
            users(one.users),
            significant(one.rate),
            significant(one.events_per_s)
        )
    };
    let held = match &capacity.held {
        Some(held) => format!(
            "held within {} ms of error: {}, CPU {} us an event",
            BOUND_MS,
            rate(held),
            held.cpu_us_per_event.map_or("unknown".into(), significant)
        ),
        None => format!("no rate was held within {} ms of error", BOUND_MS),
    };
    let above = |one: &&Tried| capacity.held.is_none_or(|held| one.rate > held.rate);
    let missed = capacity.tried.iter().filter(above);
    let lowest = missed.min_by(|a, b| a.rate.total_cmp(&b.rate));
    match lowest {
        Some(one) => format!("{held}; not {}: {}", rate(one), missed_because(one)),
        None => format!("{held}; nothing higher was tried"),
    }
}

/// A rate of the search, in words.
pub fn tried(one: &Tried) -> String {
    let outcome = match one.missed {
        None => "held".to_owned(),
        Some(_) => format!("missed, {}", missed_because(one)),
    };
    format!(
        "{} x {} events/s: {outcome} (error p99 {}, {} events/s)",
        users(one.users),
        significant(one.rate),
        ms(one.error_p99_ms),
        significant(one.events_per_s)
    )
}

fn missed_because(one: &Tried) -> &'static str {
    match one.missed {
        Some(Limit::Loss) => "requests failed or events were lost",
        Some(Limit::Server) => "the server could not send so fast",
        Some(Limit::Error) => "an error was above the bound",
        Some(Limit::Client) => "the client could not take so many events",
        None => "it was held",
    }
}

/// What a run's report says of its calibrations: one line where both were good.
pub(super) fn findings(calibrations: &Calibrations) -> Vec<String> {
    let Calibrations {
        before,
        after,
        failure,
    } = calibrations;
    let mut lines = match (before, after) {
        (Some(before), Some(after)) if is_good(before) && is_good(after) => {
            vec![finding("before and after", &[before, after])]
        }
        _ => [("before", before), ("after", after)]
            .into_iter()
            .filter_map(|(when, c)| Some(finding(when, &[c.as_ref()?])))
            .collect(),
    };
    let failure = failure.iter();
    lines.extend(failure.map(|why| format!("! the client's own error was not measured: {why}")));
    lines
}

fn is_good(c: &Calibration) -> bool {
    c.is_whole() && c.error_p99_ms().is_some_and(|error| error <= BOUND_MS)
}

/// One or more calibrations: the worst of their errors, the sum of their counts.
fn finding(when: &str, found: &[&Calibration]) -> String {
    let worst =
        |error: fn(&Calibration) -> Option<f64>| found.iter().filter_map(|c| error(c)).reduce(f64::max);
    let sum = |count: fn(&Calibration) -> u64| found.iter().map(|c| count(c)).sum::<u64>();
    let mark = if found.iter().all(|c| is_good(c)) {
        "-"
    } else {
        "!"
    };
    let above = match worst(Calibration::error_p99_ms) {
        Some(error) if error > BOUND_MS => format!(", above {BOUND_MS} ms"),
        _ => String::new(),
    };
    let failed = match sum(|c| c.requests_failed) {
        0 => String::new(),
        n => format!(", {n} requests failed"),
    };
    format!(
        "{mark} this machine's client error {when} the run{above}: TTFT p99 {}, ITL p99 {}, arrival p99 {}; of {} events \
         {} lost, {} doubled{failed}",
        ms(worst(|c| c.ttft_error_ms.p99)),
        ms(worst(|c| c.itl_error_ms.p99)),
        ms(worst(|c| c.arrival_error_ms.p99)),
        sum(|c| c.events),
        sum(|c| c.events_lost),
        sum(|c| c.events_doubled)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::calibration::{CalibrationLoad, ErrorMs};
    use crate::measure::result::Lag;

    fn fixture(late_ms: f64) -> Calibration {
        let error = |scale: f64| ErrorMs {
            n: 6_400,
            p50: Some(0.0015 * scale),
            p99: Some(late_ms * scale),
            max: Some(2.0 * late_ms * scale),
        };
        let lag = Lag {
            p50: Some(0.02),
            p99: Some(30.0 * late_ms),
            max: Some(40.0 * late_ms),
        };
        let tried = |rate: f64, missed| Tried {
            users: 64,
            rate,
            events_per_s: 64.0 * rate,
            error_p99_ms: Some(late_ms),
            cpu_us_per_event: Some(8.5),
            missed,
        };
        Calibration {
            load: CalibrationLoad {
                users: 64,
                rate: 100.0,
                isl: 64,
                osl: 100,
                event_bytes: 0,
                stall: None,
            },
            window_s: 10.0,
            requests: 640,
            requests_failed: 0,
            events: 64_000,
            events_lost: 0,
            events_doubled: 0,
            events_per_s: 6_334.0,
            sent_rate: Some(100.0),
            stamp: Stamp::Kernel,
            ttft_error_ms: error(2.0),
            itl_error_ms: error(1.0),
            arrival_error_ms: error(1.0),
            read_lag_ms: lag,
            send_lag_ms: lag,
            cpu_us_per_event: Some(9.32),
            capacity: Some(Capacity {
                held: Some(tried(400.0, None)),
                limit: Some(Limit::Server),
                tried: vec![tried(400.0, None), tried(800.0, Some(Limit::Server))],
            }),
        }
    }

    #[test]
    fn a_good_calibration_in_words() {
        insta::assert_snapshot!(calibration(&fixture(0.02)));
    }

    #[test]
    fn a_bad_calibration_in_words() {
        let mut bad = fixture(5.0);
        (bad.events_lost, bad.requests_failed, bad.capacity) = (3, 1, None);
        bad.load.stall = Some("30ms/100ms".into());
        insta::assert_snapshot!(calibration(&bad));
    }

    #[test]
    fn what_a_run_says_of_them() {
        let both = Calibrations {
            before: Some(fixture(0.02)),
            after: Some(fixture(5.0)),
            failure: Some("after the run: it was not to be".into()),
        };
        let good = Calibrations {
            before: Some(fixture(0.02)),
            after: Some(fixture(0.03)),
            failure: None,
        };
        let lines = [findings(&both), findings(&good)].concat();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
