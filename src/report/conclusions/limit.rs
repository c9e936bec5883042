//! What limited the run, and what to do next.

use super::engines;
use crate::measure::is_spoilt_by_client;
use crate::measure::result::{EngineResult, RunResult, StepResult, Verdict};
use crate::report::columns::significant;
use crate::report::words::users;

/// A server that uses this share of its threads, or of a GPU, is limited by them.
const BUSY: f64 = 0.9;

/// A hypervisor that takes this share of the processors holds a server back.
const STOLEN: f64 = 0.1;

/// For each engine, what held it back under its largest load.
pub(super) fn limits(run: &RunResult) -> Vec<String> {
    let mut lines = Vec::new();
    let spoilt = run.steps.iter().filter(|step| is_spoilt_by_client(step)).count();
    if spoilt > 0 {
        lines.push(format!(
            "The client limited {spoilt} of {} steps, and the verdict leaves them out: give it processors of its own \
             (--client-cpus), or a machine of its own",
            run.steps.len()
        ));
    }
    for engine in engines(run) {
        let steps = run.steps.iter().filter(|step| step.facts.engine == engine);
        let Some(step) = steps
            .filter(|step| !is_spoilt_by_client(step))
            .max_by_key(|step| step.facts.users)
        else {
            continue;
        };
        let known = run.engines.iter().find(|known| known.name == engine);
        lines.extend(limit(step, known));
    }
    lines
}

fn limit(step: &StepResult, engine: Option<&EngineResult>) -> Option<String> {
    let (name, users) = (&step.facts.engine, users(step.facts.users));
    let setting = |key: &str| engine?.setting(key)?.as_f64();
    // Where there is one for each user, requests wait for something else: to be taken in between two steps, or for memory.
    let slots_for_all = setting("parallel").is_some_and(|slots| slots >= f64::from(step.facts.users));
    if step.verdicts.contains(&Verdict::Queued) && !slots_for_all {
        return Some(format!(
            "{name} at {users} was limited by its slots: requests waited in its queue (--parallel gives it more)"
        ));
    }
    let server = step.server.as_ref()?;
    let gpu = server
        .its_gpus()
        .iter()
        .filter_map(|gpu| gpu.utilisation_pct)
        .fold(None, |most: Option<f64>, pct| {
            Some(most.map_or(pct, |most| most.max(pct)))
        });
    if let Some(pct) = gpu.filter(|pct| *pct >= 100.0 * BUSY) {
        return Some(format!(
            "{name} at {users} was limited by its GPU, which was busy {pct:.0} % of the window"
        ));
    }
    let threads = setting("threads")?;
    let window_s = step.window_s.max(f64::MIN_POSITIVE);
    let cores = server.cpu_s? / window_s;
    let stolen = step.client.steal_s.unwrap_or(0.0) / window_s;
    let held_back = match stolen >= STOLEN {
        true => format!(
            ", while the hypervisor took {} % of the machine's processors away: what else held it back",
            significant(100.0 * stolen)
        ),
        false => ": what held it back".to_owned(),
    };
    Some(match cores >= BUSY * threads {
        true => format!(
            "{name} at {users} was limited by its processors: it kept {} of {} threads busy",
            significant(cores),
            significant(threads)
        ),
        false => format!(
            "{name} at {users} kept {} of {} threads busy{held_back} is not to be seen from outside",
            significant(cores),
            significant(threads)
        ),
    })
}
