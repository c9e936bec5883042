//! The forward pass on tiny random models.

use loadtest_burn::engine::{Burn, Options};
use loadtest_conformance::{sequences, tiny};
use safetensors::Dtype;

#[test]
fn sequences_compute_what_they_do_alone() {
    for (kind, dtype) in tiny::KINDS
        .into_iter()
        .zip([Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F32])
    {
        let folder = tempfile::tempdir().unwrap();
        tiny::write(folder.path(), kind, dtype);
        let options = Options {
            dtype: None,
            device: "cpu".into(),
            threads: 2,
        };
        let mut engine = Burn::load(folder.path(), "tiny", &options).unwrap();
        // gemm splits its sums by the size of the matrix.
        sequences::check(&mut engine, kind, 1e-4);
    }
}
