//! How a server came up and how it ended, as `run.json` holds it.

use super::step::{Bench, Toll};
use crate::engine::{Exit, Load, Recipe};
use crate::measure::result::{EngineFailure, LoadTime};
use crate::report::users;

/// What a reader must know of a server that would not go.
pub fn not_stopped(recipe: &Recipe) -> String {
    format!(
        "{} was still there {} s after SIGTERM, when it was to stop, and was killed (stop_grace_s in its engine.toml)",
        recipe.name,
        recipe.ready.stop_grace().as_secs()
    )
}

/// A server that ended by itself while the run needed it.
pub fn death(bench: &Bench<'_>, recipe: &Recipe, exit: &Exit, toll: Option<&Toll>) -> EngineFailure {
    let ago = exit.at.map_or(0.0, |at| at.elapsed().as_secs_f64());
    let at_s = (bench.clock.now_ns() as f64 / 1e9 - ago).max(0.0);
    let at_s = (at_s * 10.0).round() / 10.0;
    let mut message = format!("{} died during the run, {exit}, {at_s} s into it", recipe.name);
    if let Some(toll) = toll {
        let plural = if toll.requests == 1 { "" } else { "s" };
        message += &format!(
            ", under {}; it took {} request{plural} down (server_exit)",
            users(toll.users),
            toll.requests
        );
    }
    message += exit.memory();
    EngineFailure {
        message,
        exit: Some(exit.to_string()),
        at_s: Some(at_s),
        step: toll.map(|toll| toll.step),
        requests_lost: toll.map(|toll| toll.requests),
        log_tail: exit.log_tail.lines().map(str::to_owned).collect(),
    }
}

/// How long a start took, as `run.json` holds it.
pub fn load_time(load: Load) -> LoadTime {
    let ready = load.ready.unwrap_or_default();
    LoadTime {
        ready_s: load.ready.map(|ready| ready.as_secs_f64()),
        first_token_s: load.first_token.saturating_sub(ready).as_secs_f64(),
    }
}
