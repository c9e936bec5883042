//! The verdict in words: which engine for which use, what limited the run, what to do next. The rules stand in
//! `results/README.md`; each says no more than its figures carry, and none speaks of steps that failed or whose latencies
//! are the client's.

mod choice;
mod limit;
mod objectives;

pub(super) use choice::{choices, difference};
pub(super) use objectives::StepObjectives;

use crate::measure::result::{Load, RunResult, StepResult, Verdict};
use crate::measure::{is_spoilt_by_client, load_of};
use crate::report::words::users;

/// A larger share of failed requests keeps a step out of the verdict.
const FAILED: f64 = 0.01;

/// The verdict on a run, a sentence a line. Empty where nothing was measured.
pub(super) fn conclusions(run: &RunResult) -> Vec<String> {
    [choices(run), reasons(run)].concat()
}

/// Where each engine's knee lies and what held it back: the part of the verdict that explains the other.
pub(super) fn reasons(run: &RunResult) -> Vec<String> {
    [knees(run), limit::limits(run)].concat()
}

/// Whether a step's figures can be believed.
pub(super) fn is_sound(step: &StepResult) -> bool {
    let (failed, sent) = (step.requests.failed as f64, step.requests.sent as f64);
    failed <= FAILED * sent && !step.verdicts.contains(&Verdict::NoSamples) && !is_spoilt_by_client(step)
}

/// Steps whose figures can be believed.
fn sound(run: &RunResult) -> impl Iterator<Item = &StepResult> {
    run.steps.iter().filter(|step| is_sound(step))
}

/// Engines that have sound steps, in the order of the run.
fn engines(run: &RunResult) -> Vec<&str> {
    let measured = |name: &&str| sound(run).any(|step| step.facts.engine == *name);
    run.engines
        .iter()
        .map(|engine| engine.name.as_str())
        .filter(measured)
        .collect()
}

/// The load with the most users under which each of these engines has a sound step.
fn common_load(run: &RunResult, engines: &[&str]) -> Option<Load> {
    let shared = |load: &Load| {
        engines
            .iter()
            .all(|engine| sound(run).any(|step| step.facts.engine == *engine && load_of(step) == *load))
    };
    sound(run)
        .map(load_of)
        .filter(shared)
        .max_by_key(|load| load.users)
}

/// The sound steps of an engine under a load: one, or one for each repeat.
fn at<'a>(run: &'a RunResult, engine: &'a str, load: &'a Load) -> impl Iterator<Item = &'a StepResult> {
    sound(run).filter(move |step| step.facts.engine == engine && load_of(step) == *load)
}

/// Where more users stop to pay, for each engine of a sweep.
fn knees(run: &RunResult) -> Vec<String> {
    let known = engines(run);
    let of_sweep = run
        .scaling
        .iter()
        .filter(|fit| known.contains(&fit.engine.as_str()) && fit.users.len() >= 3);
    of_sweep
        .filter_map(|fit| {
            let most = *fit.users.last()?;
            let (engine, knee) = (&fit.engine, fit.knee_users);
            Some(match knee < most {
                true => format!(
                    "{engine} has its knee at {}: beyond it, more users add more latency than throughput",
                    users(knee)
                ),
                false => format!(
                    "{engine} has its knee at {most} users or beyond: only a sweep that goes on would find it"
                ),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::across_steps;
    use crate::measure::fixture::finished_run;

    /// The shared fixture: at 4 users the client limited both, and at 64 requests of llamacpp failed.
    #[test]
    fn steps_with_failures_or_a_limited_client_have_no_say() {
        let run = finished_run();
        assert_eq!(engines(&run), ["candle"]);
        insta::assert_snapshot!("spoilt", conclusions(&run).join("\n"));
    }

    fn sweep() -> RunResult {
        let mut run = finished_run();
        let base = run.steps[0].clone();
        run.steps.clear();
        run.engines.iter_mut().for_each(|engine| {
            engine.failure = None;
            engine.effective.insert("threads".into(), 2.into());
        });
        for (engine, most, memory, ttft) in [("candle", 560.0, 900_u64, 4.0), ("llamacpp", 140.0, 300, 60.0)]
        {
            for users in [1_u32, 4, 16, 64] {
                let mut step = base.clone();
                step.facts.step = run.steps.len() as u16;
                step.facts.engine = engine.into();
                (step.facts.users, step.concurrency.claimed) = (users, users);
                let n = f64::from(users);
                step.output_tps = most * n / (n + 8.0);
                step.output_tps_ci95 = Some([step.output_tps * 0.98, step.output_tps * 1.02]);
                step.ttft_ms.p50 = Some(20.0 + ttft * n);
                step.ttft_ms.p99 = Some(40.0 + 1.5 * ttft * n);
                step.tpot_ms.p50 = Some(1e3 * n / step.output_tps);
                step.server = Some(crate::measure::result::ServerResult {
                    cpu_s: Some(1.95 * step.window_s),
                    rss_peak_bytes: Some(memory << 20),
                    ..Default::default()
                });
                step.verdicts.clear();
                step.client.error_p99_ms = Some(0.1);
                run.steps.push(step);
            }
        }
        across_steps(&mut run);
        run
    }

    #[test]
    fn a_sweep_of_two_engines() {
        insta::assert_snapshot!("sweep", conclusions(&sweep()).join("\n"));
    }

    #[test]
    fn engines_that_do_not_differ_are_not_told_apart() {
        let mut run = sweep();
        for step in &mut run.steps {
            step.output_tps = 100.0 * f64::from(step.facts.users).ln_1p();
            step.output_tps_ci95 = Some([step.output_tps * 0.8, step.output_tps * 1.2]);
        }
        across_steps(&mut run);
        let said = conclusions(&run).join("\n");
        assert!(said.contains("cannot be told apart"), "{said}");
    }

    #[test]
    fn a_late_client_spoils_a_step_only_by_the_latencies_it_moved() {
        let mut step = sweep().steps.remove(0);
        step.ttft_ms.p50 = Some(7606.0);
        step.client.error_p99_ms = Some(1.14);
        step.verdicts = vec![Verdict::ClientLimited];
        assert!(is_sound(&step));
        step.ttft_ms.p50 = Some(20.0);
        assert!(!is_sound(&step));
    }

    #[test]
    fn a_server_without_processors_is_not_a_riddle() {
        let mut run = sweep();
        for step in &mut run.steps {
            step.client.steal_s = Some(0.4 * step.window_s);
            step.server.as_mut().unwrap().cpu_s = Some(0.5 * step.window_s);
        }
        let said = conclusions(&run).join("\n");
        assert!(
            said.contains("0.50 of 2.00 threads busy, while the hypervisor took 40.0 %"),
            "{said}"
        );
    }

    #[test]
    fn requests_wait_for_a_slot_only_where_there_are_fewer_slots_than_users() {
        let mut run = sweep();
        let largest = run.steps.iter_mut().filter(|step| step.facts.users == 64);
        largest.for_each(|step| step.verdicts.push(Verdict::Queued));
        let mut told = |slots: u32| {
            for engine in &mut run.engines {
                engine.effective.insert("parallel".into(), slots.into());
            }
            reasons(&run).join("\n")
        };
        assert!(told(16).contains("candle at 64 users was limited by its slots"));
        assert!(told(64).contains("candle at 64 users was limited by its processors"));
    }

    #[test]
    fn an_engine_is_not_judged_by_a_load_without_valid_figures() {
        let mut run = sweep();
        for step in run
            .steps
            .iter_mut()
            .filter(|step| step.facts.engine == "llamacpp")
        {
            step.ttft_ms.p99 = Some(5_000.0);
            if step.facts.users == 1 {
                step.client.error_p99_ms = Some(1_000.0);
            }
        }
        let said = conclusions(&run).join("\n");
        assert!(said.contains("llamacpp not even with 4"), "{said}");
    }

    #[test]
    fn one_engine_is_not_compared() {
        let mut run = sweep();
        run.steps.retain(|step| step.facts.engine == "candle");
        let said = conclusions(&run).join("\n");
        assert!(!said.contains("llamacpp") && !said.contains("Batch"), "{said}");
    }

    #[test]
    fn nothing_measured_says_nothing() {
        let mut run = finished_run();
        run.steps.clear();
        across_steps(&mut run);
        assert!(conclusions(&run).is_empty());
    }
}
