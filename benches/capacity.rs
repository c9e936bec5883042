//! What an event costs this client, against a minimal epoll reader that stands below: turn by turn against the same
//! reference server, so that both meet the same machine. And what a stream costs in memory, with 10,000 of them.
//!
//! `cargo bench --bench capacity [-- SECONDS]`, where SECONDS is the length of a turn.

#[cfg(target_os = "linux")]
#[path = "capacity/minimal.rs"]
mod minimal;

#[cfg(target_os = "linux")]
#[path = "capacity/many.rs"]
mod many;

#[cfg(target_os = "linux")]
mod turns {
    use std::path::Path;
    use std::time::Duration;

    use loadtest::calibrate::{Load, Reference, measure};
    use loadtest::load::Stop;

    use super::minimal;

    /// Turns of each reader.
    const TURNS: usize = 3;

    /// Of `users` streams, each with `rate` events a second and 200 of them to an answer.
    fn load(users: u32, rate: f64, duration: Duration) -> Load {
        Load {
            users,
            rate,
            duration,
            isl: 64,
            osl: Some(200),
            event_bytes: 0,
            stall: None,
            cpus: None,
        }
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// CPU per event, and events per second, of both readers.
    fn compare(name: &str, load: &Load) {
        let reference =
            Reference::start(Path::new(env!("CARGO_BIN_EXE_loadtest"))).expect("the reference server");
        let (mut floor, mut ours) = (Vec::new(), Vec::new());
        let (mut floor_rate, mut rate) = (Vec::new(), Vec::new());
        let mut wrong = 0;
        for _ in 0..TURNS {
            let read = minimal::read(reference.base_url(), load);
            floor.push(read.cpu_us_per_event);
            floor_rate.push(read.events_per_s);
            let measured = measure(&reference, load, &Stop::default())
                .expect("the load runs")
                .expect("nobody stops it");
            wrong += measured.events_lost + measured.events_doubled + measured.requests_failed;
            ours.push(measured.cpu_us_per_event.expect("events came"));
            rate.push(measured.events_per_s);
        }
        let (floor, ours) = (median(floor), median(ours));
        let (floor_rate, rate) = (median(floor_rate), median(rate));
        println!(
            "| {name} | {floor_rate:.0} | {rate:.0} | {:.2} | {floor:.2} | {ours:.2} | {:.2} | {wrong} |",
            rate / floor_rate,
            ours / floor
        );
    }

    pub fn run(duration: Duration) {
        println!(
            "| streams x events/s | events/s, minimal | ours | ratio | CPU us an event, minimal | ours | ratio | lost, doubled or failed |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        compare("64 x 100", &load(64, 100.0, duration));
        compare("1000 x 15", &load(1000, 15.0, duration));
        let burst = Load {
            osl: Some(8_000),
            ..load(16, 50_000.0, duration)
        };
        compare("16 x as fast as it can", &burst);
    }
}

#[cfg(target_os = "linux")]
fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok());
    turns::run(std::time::Duration::from_secs_f64(seconds.unwrap_or(6.0)));
    many::run();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this bench reads with epoll: it runs on Linux");
}
