//! JUnit XML, so that a build server shows a load test among its tests.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::measure::result::{EngineResult, RunResult, StepResult, Verdict};
use crate::report::verdict::verdict;

/// What each step is held to: the name of the test case, and the verdicts that fail it.
const GATES: [(&str, &[Verdict]); 3] = [
    ("requests succeed", &[Verdict::NoSamples, Verdict::Errors]),
    ("the client is in time", &[Verdict::ClientLimited]),
    ("answers are as long as asked for", &[Verdict::ShortOutput]),
];

/// A suite for each engine, and in it a case for each gate of each step.
pub(super) fn text(run: &RunResult) -> String {
    let mut report = Report::new(run.profile_name().unwrap_or("loadtest"));
    for engine in &run.engines {
        report.add_test_suite(suite(run, engine));
    }
    report
        .to_string()
        .expect("texts are made fit for XML by quick-junit")
}

fn suite(run: &RunResult, engine: &EngineResult) -> TestSuite {
    let mut suite = TestSuite::new(&engine.name);
    let mut runs = TestCase::new("the engine runs", TestCaseStatus::success());
    if let Some(failure) = &engine.failure {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(failure.message.as_str());
        runs.status = status;
        runs.set_system_out(failure.log_tail.join("\n"));
    }
    suite.add_test_case(runs);
    let steps = run.steps.iter().filter(|step| step.facts.engine == engine.name);
    suite.add_test_cases(steps.flat_map(cases));
    suite
}

fn cases(step: &StepResult) -> impl Iterator<Item = TestCase> {
    GATES.into_iter().map(|(gate, verdicts)| {
        let found = verdicts.iter().find(|gate| step.verdicts.contains(gate));
        let status = found.map_or_else(TestCaseStatus::success, |found| {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(verdict(*found, step));
            status
        });
        TestCase::new(format!("{}: {gate}", super::title(step)), status)
    })
}
