//! How true the client's figures are: against the built-in reference server at several rates, with a reader that is
//! free and with one whose threads do nothing for 30 ms out of every 100.
//!
//! `cargo bench --bench truth [-- SECONDS]`

use std::path::Path;
use std::time::Duration;

use loadtest::calibrate::{Load, Reference, Stall, measure};
use loadtest::load::Stop;
use loadtest::measure::calibration::Calibration;

/// Users, and events per second of each.
const LOADS: [(u32, f64); 4] = [(1, 100.0), (64, 15.0), (64, 100.0), (500, 15.0)];

const STALL: Stall = Stall {
    blocked: Duration::from_millis(30),
    every: Duration::from_millis(100),
};

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let reference =
        Reference::start(Path::new(env!("CARGO_BIN_EXE_loadtest"))).expect("the reference server");
    println!("errors in ms against the server's own word; stalled: 30 ms out of every 100");
    println!(
        "users x rate | stalled | TTFT p50     p99 | ITL p50     p99 | arrival p50     p99     max | read lag p99 | us/event | lost + doubled of"
    );
    for (users, rate) in LOADS {
        for stall in [None, Some(STALL)] {
            let load = Load {
                users,
                rate,
                duration: Duration::from_secs_f64(seconds.unwrap_or(10.0)),
                isl: 64,
                osl: None,
                event_bytes: 0,
                stall,
                cpus: None,
            };
            match measure(&reference, &load, &Stop::default()) {
                Ok(Some(result)) => println!("{}", row(&result)),
                Ok(None) => return,
                Err(error) => println!("{users} x {rate}: {error}"),
            }
        }
    }
}

fn row(c: &Calibration) -> String {
    let ms = |value: Option<f64>| value.unwrap_or(f64::NAN);
    format!(
        "{:>5} x {:<4} | {:<7} | {:8.4} {:7.4} | {:7.4} {:7.4} | {:11.4} {:7.4} {:7.3} | {:12.3} | {:8.2} | {} of {}{}",
        c.load.users,
        c.load.rate,
        if c.load.stall.is_some() { "yes" } else { "no" },
        ms(c.ttft_error_ms.p50),
        ms(c.ttft_error_ms.p99),
        ms(c.itl_error_ms.p50),
        ms(c.itl_error_ms.p99),
        ms(c.arrival_error_ms.p50),
        ms(c.arrival_error_ms.p99),
        ms(c.arrival_error_ms.max),
        ms(c.read_lag_ms.p99),
        ms(c.cpu_us_per_event),
        c.events_lost + c.events_doubled,
        c.events,
        match c.requests_failed {
            0 => String::new(),
            n => format!(", {n} requests failed"),
        },
    )
}
