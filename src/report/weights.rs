//! On which weights the engines computed: a conversion of the model's file, and the form that they keep in memory.

use serde_json::Value;

use super::columns::significant;
use crate::measure::result::{EngineResult, RunResult};

/// The engines that were given a conversion of the model: their weights are not those of the others.
pub(super) fn conversions(run: &RunResult) -> Vec<String> {
    run.engines
        .iter()
        .filter_map(|engine| conversion(run, engine))
        .collect()
}

fn conversion(run: &RunResult, engine: &EngineResult) -> Option<String> {
    let given = engine.converted.as_ref()?;
    let has = given
        .bits_per_weight
        .map(bits)
        .map_or_else(String::new, |bits| format!(", {bits}"));
    Some(format!(
        "- {} ran a conversion of the model: {}{has}{}",
        engine.name,
        given.format,
        the_file(run)
    ))
}

/// Each engine's form of the weights in memory; nothing where all that tell theirs have the same.
pub(super) fn forms(run: &RunResult) -> Option<String> {
    let mut forms = Vec::new();
    let mut words = Vec::new();
    for engine in &run.engines {
        let Some(told) = engine.setting("weights").and_then(Value::as_str) else {
            continue;
        };
        // What stands in brackets is how they are multiplied.
        let form = told.split(" (").next().unwrap_or(told);
        let bytes = engine.setting("weights_bytes").and_then(Value::as_u64);
        let size = bytes.map_or_else(String::new, |bytes| {
            format!(" ({} MB)", significant(bytes as f64 / 1e6))
        });
        forms.push(form);
        words.push(format!("{} {form}{size}", engine.name));
    }
    forms.dedup();
    (forms.len() > 1).then(|| format!("{}{}", words.join(", "), the_file(run)))
}

fn the_file(run: &RunResult) -> String {
    let bits = run.model.bits_per_weight.map(bits);
    bits.map_or_else(String::new, |bits| format!("; the file has {bits}"))
}

fn bits(bits: f64) -> String {
    format!("{} bits per weight", (bits * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn forms_are_told_where_they_differ() {
        let mut run = finished_run();
        let mut keep = |engine: usize, form: &str| {
            run.engines[engine]
                .effective
                .insert("weights".into(), form.into());
            forms(&run)
        };
        assert_eq!(keep(0, "affine8 (AVX-512 VNNI)"), None, "the other tells nothing");
        assert_eq!(keep(1, "affine8"), None);
        assert_eq!(keep(1, "Q4_1").unwrap(), "candle affine8, llamacpp Q4_1");
        run.engines[0]
            .effective
            .insert("weights_bytes".into(), 164_560_896.into());
        run.model.bits_per_weight = Some(5.7437);
        assert_eq!(
            forms(&run).unwrap(),
            "candle affine8 (165 MB), llamacpp Q4_1; the file has 5.7 bits per weight"
        );
        let lines = crate::report::words::findings(&run);
        let told = lines
            .iter()
            .filter(|line| line.contains("different forms of the weights"));
        assert_eq!(told.count(), 1, "{lines:#?}");
    }
}
