//! The shapes of `s1` to `s6` in one run: one table, and what a token of the prompt costs.

mod support;

use support::{House, Reference, stderr};

/// A line of the table with its measured figures masked, or a sentence.
fn masked(line: &str) -> String {
    let figures = |text: &str| {
        let words = text.split_whitespace();
        let mask = |word: &str| match word.contains(|c: char| c.is_ascii_digit()) {
            true => "#".to_owned(),
            false => word.to_owned(),
        };
        words.map(mask).collect::<Vec<_>>().join(" ")
    };
    if !line.contains('|') {
        return figures(line);
    }
    let cells = line.split('|').enumerate();
    let cell = |(column, text): (usize, &str)| match column {
        0..3 => text.trim().to_owned(),
        _ => figures(text),
    };
    cells.map(cell).collect::<Vec<_>>().join(" | ")
}

#[test]
fn all_shapes_stand_in_one_table() {
    let house = House::new();
    let server = Reference::start(&["--ttft-ms", "2", "--itl-ms", "1"]);
    let output = house.run(&[
        "--url",
        &server.url,
        "--profile",
        "s1-s6",
        "--repeat",
        "2",
        "--warmup-requests",
        "1",
        "--no-calibrate",
        "--no-progress",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // How steady a machine is, is its own.
    let lines = text.lines().skip(1).filter(|line| {
        let of_the_table = !line.starts_with(['!', '>']) && !line.starts_with("results/");
        of_the_table && !line.is_empty() && !line.starts_with("--")
    });
    insta::assert_snapshot!(lines.map(masked).collect::<Vec<_>>().join("\n"));

    let run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(house.run_dir().join("run.json")).expect("a run"))
            .expect("JSON");
    let steps = run["steps"].as_array().expect("steps");
    assert_eq!(
        (steps.len(), run["repeats"].as_array().map(Vec::len)),
        (12, Some(6))
    );
    let of_s6 = &steps[10];
    assert_eq!(
        (&of_s6["isl"]["mean"], &of_s6["tokens"]["output"]),
        (&64.into(), &512.into())
    );
}
