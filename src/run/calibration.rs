//! The client's own error, measured before and after a run.

use std::time::Duration;

use super::step::Bench;
use crate::calibrate::{self, CalibrateError, Load, Reference};
use crate::engine::this_program;
use crate::measure::{Store, StoreError};
use crate::profile::{Cpus, Profile};
use crate::report::users;

/// Length of the window.
const WINDOW: Duration = Duration::from_secs(1);

/// Most streams. More of them tell nothing new of the client's threads, and take longer to start.
const MOST_USERS: u32 = 512;

/// Events per second of a stream, and of all streams, at most: what the engines will do is not known yet.
const MOST_RATE: f64 = 100.0;
const MOST_EVENTS: f64 = 10_000.0;

/// Longest prompt, in words.
const MOST_ISL: u32 = 4096;

/// When a run calibrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The first engine is yet to be started.
    Before,
    /// The last engine is stopped.
    After,
}

/// Measures the client's own error and saves it, unless the profile says not to or the user has interrupted the run.
///
/// # Errors
/// When the result cannot be saved. A calibration that fails is told in the run's report and fails nothing else.
pub fn calibrate(bench: &Bench<'_>, store: &mut Store, when: When) -> Result<(), StoreError> {
    if !bench.profile.calibrate || bench.interrupt.is_set() {
        return Ok(());
    }
    let load = load(bench.profile, bench.cores.client.clone());
    let name = match when {
        When::Before => "before",
        When::After => "after",
    };
    let shown = bench.progress.task(
        &format!(
            "measuring the client's own error {name} the run: {} x {} events/s",
            users(load.users),
            load.rate
        ),
        None,
    );
    let measured = Reference::start(&this_program())
        .map_err(CalibrateError::from)
        .and_then(|reference| calibrate::measure(&reference, &load, bench.interrupt.stop()));
    drop(shown);
    store.calibrated(|found| match (measured, when) {
        (Ok(result), When::Before) => found.before = result,
        (Ok(result), When::After) => found.after = result,
        (Err(error), _) => {
            bench
                .progress
                .status(&format!("the client's own error was not measured: {error}"));
            found.failure = Some(format!("{name} the run: {error}"));
        }
    })
}

/// A load like the largest of the run, as far as it is known.
fn load(profile: &Profile, cpus: Option<Cpus>) -> Load {
    let most = |values: &mut dyn Iterator<Item = u32>| values.max().unwrap_or(1);
    let users = most(&mut profile.users.iter().copied()).clamp(1, MOST_USERS);
    let isl = most(&mut profile.requests.shapes.iter().map(|shape| shape.isl.mean)).clamp(1, MOST_ISL);
    Load {
        users,
        rate: (MOST_EVENTS / f64::from(users)).min(MOST_RATE).round(),
        duration: WINDOW,
        isl,
        osl: None,
        event_bytes: 0,
        stall: None,
        cpus,
    }
}
