//! Tokens a second of whole steps on the CPU, for each form of weights and number of sequences.
//!
//! `cargo run --release --example tokens -- MODEL.gguf [THREADS [FORM]]`; without a form, all of them.

use loadtest_candle::engine::{Candle, Options, WeightsForm};
use loadtest_conformance::speed;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("the path of a model");
    let threads = args.next().map_or(Ok(2), |threads| threads.parse())?;
    let forms = match args.next() {
        Some(form) => vec![form.parse()?],
        None => vec![
            WeightsForm::Affine8,
            WeightsForm::Quantized,
            WeightsForm::Q8,
            WeightsForm::Dense,
        ],
    };
    speed::head();
    for weights in forms {
        let options = Options {
            weights,
            dtype: None,
            device: candle_core::Device::Cpu,
            threads,
        };
        speed::line(&mut Candle::load(path.as_ref(), "model", options)?);
    }
    Ok(())
}
