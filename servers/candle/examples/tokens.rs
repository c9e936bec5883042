//! Tokens a second of whole steps, at 1, 4, 16 and 64 sequences with 100 to 356 tokens each.
use loadtest_candle::Forward;
use loadtest_candle::{forward_cpu::CpuForward, linear::Kernel, source::Source};
use loadtest_shell::Rows;
use std::time::Instant;
fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap();
    let kernel = Kernel::available()[std::env::args().nth(2).map_or(0, |k| k.parse().unwrap())];
    let t = Instant::now();
    let mut source = Source::open(path.as_ref())?;
    let mut model = CpuForward::load(&mut source, kernel, 2)?;
    println!("loaded in {:?}, {} MB", t.elapsed(), model.weights_bytes() / 1_000_000);
    let mut logits = Vec::new();
    for users in [1, 4, 16, 64] {
        model.prepare(users, 1024)?;
        let prompt: Vec<u32> = (0..100).map(|i| 100 + i * 7).collect();
        let t = Instant::now();
        for slot in 0..users {
            model.step(&[Rows { slot, position: 0, tokens: &prompt, logits: true }], &mut logits)?;
        }
        let prefill = (users * 100) as f64 / t.elapsed().as_secs_f64();
        let t = Instant::now();
        let (mut best, steps) = (f64::MAX, 60);
        for i in 0..steps {
            let s = Instant::now();
            let token = [500 + i as u32];
            let batch: Vec<Rows> = (0..users).map(|slot| Rows { slot, position: 100 + i, tokens: &token, logits: true }).collect();
            model.step(&batch, &mut logits)?;
            best = best.min(s.elapsed().as_secs_f64());
        }
        println!("{users} users: prefill {prefill:.0}, decode {:.0} mean, {:.0} best tok/s", (steps * users) as f64 / t.elapsed().as_secs_f64(), users as f64 / best);
    }
    Ok(())
}
