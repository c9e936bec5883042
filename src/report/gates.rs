//! What the gates of a comparison say, as JUnit XML for a build server.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::compare::{Comparison, Held, Ruling};

/// A suite with a case for each gate.
pub fn gates_junit(found: &Comparison) -> String {
    let pairs = found.pairs.iter();
    let pairs: Vec<String> = pairs
        .map(|pair| format!("{} against {}", pair.candidate, pair.baseline))
        .collect();
    let mut suite = TestSuite::new(pairs.join(", "));
    suite.add_test_cases(found.gates.iter().map(case));
    let mut report = Report::new("loadtest compare");
    report.add_test_suite(suite);
    report
        .to_string()
        .expect("texts are made fit for XML by quick-junit")
}

fn case(held: &Held) -> TestCase {
    let mut status = match held.ruling {
        Ruling::Passed => TestCaseStatus::success(),
        Ruling::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Ruling::Untested => TestCaseStatus::skipped(),
        Ruling::Incomparable => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if held.ruling != Ruling::Passed {
        status.set_message(held.because.join("; "));
    }
    TestCase::new(held.gate.as_str(), status)
}
