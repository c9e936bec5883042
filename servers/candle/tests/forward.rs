//! The two forward passes on tiny random models.

use loadtest_candle::Forward;
use loadtest_candle::engine::{Candle, Options, WeightsForm};
use loadtest_candle::forward_cpu::CpuForward;
use loadtest_candle::linear::Kernel;
use loadtest_conformance::{sequences, tiny};
use loadtest_shell::{Engine, Rows};
use loadtest_weights::source::Source;
use safetensors::Dtype;
use std::path::Path;

fn load(folder: &Path, weights: WeightsForm) -> Candle {
    let options = Options {
        weights,
        dtype: None,
        device: candle_core::Device::Cpu,
        threads: 2,
    };
    Candle::load(folder, "tiny", options).unwrap()
}

#[test]
fn both_forward_passes_agree() {
    let dtypes = [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::BF16];
    for (kind, dtype) in tiny::KINDS.into_iter().zip(dtypes) {
        let folder = tempfile::tempdir().unwrap();
        tiny::write(folder.path(), kind, dtype);
        let prompt = tiny::tokens(3, 50);
        let batch = [Rows {
            slot: 0,
            position: 0,
            tokens: &prompt,
            logits: true,
        }];
        let mut all = Vec::new();
        for form in [WeightsForm::Dense, WeightsForm::Q8] {
            let mut model = load(folder.path(), form);
            model.prepare(1, 64).unwrap();
            all.push(sequences::step(&mut model, &batch).remove(0));
        }
        let source = Source::open(folder.path()).unwrap();
        for kernel in Kernel::available() {
            let mut model = CpuForward::load(&source, kernel, 2).unwrap();
            model.prepare(1, 64).unwrap();
            let mut logits = Vec::new();
            model.step(&batch, &mut logits).unwrap();
            all.push(logits);
        }
        for other in &all[1..] {
            // What remains is the eight bits of weights and activations, through six layers.
            let distance = sequences::distance(&all[0], other);
            assert!(distance < 0.08, "{kind}: {distance}");
        }
    }
}

#[test]
fn sequences_compute_what_they_do_alone() {
    for kind in tiny::KINDS {
        let folder = tempfile::tempdir().unwrap();
        tiny::write(folder.path(), kind, Dtype::F32);
        // affine8 sums in the same order whatever the batch; candle's products split theirs by the size of the matrix.
        for (form, bound) in [
            (WeightsForm::Affine8, 1e-6),
            (WeightsForm::Dense, 1e-4),
            (WeightsForm::Q8, 0.02),
        ] {
            sequences::check(
                &mut load(folder.path(), form),
                &format!("{kind}, {form:?}"),
                bound,
            );
        }
    }
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cut.gguf");
    std::fs::write(&file, b"GGUF\x03\0\0\0").unwrap();
    for path in [&file, folder.path(), &folder.path().join("missing.gguf")] {
        let error = Source::open(path)
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
