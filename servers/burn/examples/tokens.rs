//! Tokens a second of whole steps on the CPU.
//!
//! `RAYON_NUM_THREADS=2 cargo run --release --example tokens -- MODEL.gguf`

use loadtest_burn::engine::{Burn, Options};
use loadtest_conformance::speed;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).expect("the path of a model");
    let options = Options {
        dtype: None,
        device: "cpu".into(),
        threads: 0,
    };
    speed::head();
    speed::line(&mut Burn::load(path.as_ref(), "model", &options)?);
    Ok(())
}
