//! The highest rate that this machine holds: doubled until it is missed, then narrowed down.

use std::time::{Duration, Instant};

use super::{CalibrateError, Load, Reference, Stop, measure};
use crate::measure::calibration::{BOUND_MS, Calibration, Capacity, Limit, Tried};

/// Length of the window at each rate.
const WINDOW: Duration = Duration::from_millis(1500);

/// No new rate is tried after this.
const TIME: Duration = Duration::from_secs(60);

/// A rate that was held and one that was missed are near enough at this ratio.
const NEAR: f64 = 1.15;

/// Rates that are asked of one stream, in events per second.
const RATES: std::ops::RangeInclusive<f64> = 1.0..=20_000.0;

/// Tries rates of `load` (its users and sizes), beginning with its own, and says which one was held with every error's
/// p99 within [`BOUND_MS`] and no loss. Tells `progress` about every rate. Nothing if `stop` ended it early.
///
/// # Errors
/// When the server or the load fails as a whole.
pub fn search(
    reference: &Reference,
    load: &Load,
    stop: &Stop,
    progress: &dyn Fn(&Tried),
) -> Result<Option<Capacity>, CalibrateError> {
    let begun = Instant::now();
    let mut range = Range::from(load.rate);
    let mut tried = Vec::new();
    while let Some(rate) = range.next()
        && begun.elapsed() < TIME
    {
        let load = Load {
            rate,
            duration: WINDOW,
            ..load.clone()
        };
        let mut outcome = None;
        // One hiccup of a machine that does other things too must not decide: a rate is missed when it is so twice.
        for _ in 0..2 {
            let Some(result) = measure(reference, &load, stop)? else {
                return Ok(None);
            };
            let one = judge(&load, &result);
            progress(&one);
            tried.push(one);
            outcome = one.missed;
            if outcome.is_none() {
                break;
            }
        }
        range.learn(rate, outcome.is_none());
    }
    Ok(Some(capacity(tried, &range)))
}

/// What is to be tried next.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: f64,
    held: Option<f64>,
    missed: Option<f64>,
}

impl Range {
    fn from(rate: f64) -> Range {
        Range {
            first: rate.clamp(*RATES.start(), *RATES.end()),
            held: None,
            missed: None,
        }
    }

    fn learn(&mut self, rate: f64, was_held: bool) {
        let side = if was_held {
            &mut self.held
        } else {
            &mut self.missed
        };
        *side = Some(rate);
    }

    fn next(&self) -> Option<f64> {
        let rate = match (self.held, self.missed) {
            (None, None) => self.first,
            (Some(held), None) => held * 2.0,
            (None, Some(missed)) => missed / 2.0,
            (Some(held), Some(missed)) if missed / held > NEAR => {
                (held * missed * 100.0).sqrt().round() / 10.0
            }
            (Some(_), Some(_)) => return None,
        };
        RATES.contains(&rate).then_some(rate)
    }
}

fn judge(load: &Load, result: &Calibration) -> Tried {
    let kept_up = |share: f64| result.events_per_s >= share * load.planned_events_per_s();
    let error_p99_ms = result.error_p99_ms();
    let missed = if !result.is_whole() {
        Some(Limit::Loss)
    } else if result.sent_rate.is_none_or(|sent| sent < 0.95 * load.rate) {
        Some(Limit::Server)
    } else if error_p99_ms.is_none_or(|error| error > BOUND_MS) {
        Some(Limit::Error)
    } else if !kept_up(0.9) {
        Some(Limit::Client)
    } else {
        None
    };
    Tried {
        users: load.users,
        rate: load.rate,
        events_per_s: result.events_per_s,
        error_p99_ms,
        cpu_us_per_event: result.cpu_us_per_event,
        missed,
    }
}

fn capacity(tried: Vec<Tried>, range: &Range) -> Capacity {
    let held = tried.iter().filter(|one| one.missed.is_none());
    let best = held.max_by(|a, b| a.rate.total_cmp(&b.rate)).copied();
    let limit = tried
        .iter()
        .rfind(|one| Some(one.rate) == range.missed)
        .and_then(|one| one.missed);
    Capacity {
        held: best,
        limit,
        tried,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_search_closes_in_on_what_is_held(first in 1.0f64..20_000.0, truth in 1.0f64..20_000.0) {
            let mut range = Range::from(first);
            let mut tries = 0;
            while let Some(rate) = range.next() {
                range.learn(rate, rate <= truth);
                tries += 1;
                prop_assert!(tries < 30);
            }
            match (range.held, range.missed) {
                (Some(held), Some(missed)) => prop_assert!(held <= truth && truth < missed && missed / held <= NEAR),
                (Some(held), None) => prop_assert!(held <= truth && held * 2.0 > *RATES.end()),
                (None, missed) => prop_assert!(missed.is_some_and(|missed| missed > truth && missed / 2.0 < *RATES.start())),
            }
        }
    }
}
