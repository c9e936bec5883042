//! Tokens a second of whole steps on the CPU, for each form of weights and number of sequences.
//!
//! `cargo run --release --example tokens -- MODEL.gguf [THREADS [FORM]]`; without a form, all of them. Each sequence
//! holds 64 to 112 tokens. The figure is that of the fastest step, which other work on the machine disturbs least.

use candle_core::{DType, Device};
use loadtest_candle::Forward;
use loadtest_candle::forward_cpu::CpuForward;
use loadtest_candle::forward_tensor::TensorForward;
use loadtest_candle::linear::Kernel;
use loadtest_candle::linear::tensor::Form;
use loadtest_candle::source::Source;
use loadtest_shell::Rows;
use std::time::Instant;

const PROMPT: usize = 64;
const STEPS: usize = 12;
const SEQUENCES: [usize; 4] = [1, 4, 16, 64];

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("the path of a model");
    let threads = args.next().map_or(Ok(2), |threads| threads.parse())?;
    let only = args.next().unwrap_or_default();
    println!(
        "{:<24}{:>8}{:>10}{:>8}{:>8}{:>8}{:>8}",
        "weights", "MB", "prefill", "1", "4", "16", "64"
    );
    let source = || Source::open(path.as_ref());
    for kernel in Kernel::available()
        .into_iter()
        .filter(|kernel| !matches!(kernel, Kernel::Scalar))
    {
        let name = format!("affine8 ({})", kernel.name());
        if name.starts_with(&only) {
            measure(&name, CpuForward::load(&mut source()?, kernel, threads)?)?;
        }
    }
    for (name, form) in [
        ("quantized", Form::Quantized),
        ("q8", Form::Q8),
        ("dense f32", Form::Dense(DType::F32)),
    ] {
        if name.starts_with(&only) {
            measure(name, TensorForward::load(&mut source()?, form, &Device::Cpu)?)?;
        }
    }
    Ok(())
}

fn measure(name: &str, mut model: impl Forward) -> anyhow::Result<()> {
    let most = SEQUENCES[SEQUENCES.len() - 1];
    let mut logits = Vec::new();
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|i| 100 + i * 7).collect();
    let mut prefill = f64::MAX;
    print!("{name:<24}{:>8}", model.weights_bytes() / 1_000_000);
    model.prepare(most, PROMPT + STEPS * SEQUENCES.len())?;
    let mut positions = vec![0; most];
    for (slot, position) in positions.iter_mut().enumerate() {
        let rows = Rows {
            slot,
            position: 0,
            tokens: &prompt,
            logits: true,
        };
        let start = Instant::now();
        model.step(&[rows], &mut logits)?;
        prefill = prefill.min(start.elapsed().as_secs_f64());
        *position = PROMPT;
    }
    print!("{:>10.0}", PROMPT as f64 / prefill);
    for sequences in SEQUENCES {
        let mut best = f64::MAX;
        for _ in 0..STEPS {
            let rows = positions.iter().take(sequences).enumerate();
            let rows = rows.map(|(slot, &position)| Rows {
                slot,
                position,
                tokens: &[500],
                logits: true,
            });
            let batch: Vec<_> = rows.collect();
            let start = Instant::now();
            model.step(&batch, &mut logits)?;
            best = best.min(start.elapsed().as_secs_f64());
            positions
                .iter_mut()
                .take(sequences)
                .for_each(|position| *position += 1);
        }
        print!("{:>8.0}", sequences as f64 / best);
    }
    println!();
    Ok(())
}
