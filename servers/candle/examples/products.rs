//! Tokens a second that the matrix products of SmolLM2-135M alone allow, for each form of weights.
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use loadtest_candle::linear::Kernel;
use loadtest_candle::linear::activations::{Activations, RowMut};
use loadtest_candle::linear::affine8::{Affine8, Into};
use loadtest_candle::pool::Pool;
use std::time::Instant;

fn main() {
    let mut pool = Pool::new(2).unwrap();
    let shapes = [(576, 960, 30), (576, 576, 30), (576, 3072, 30), (1536, 576, 30), (576, 49152, 1)];
    for dtype in [GgmlDType::Q4_1, GgmlDType::Q8_0] {
        let weights: Vec<_> = shapes.iter().map(|&(k, n, count)| {
            let copies = if count > 1 { 30 } else { 1 };
            let t = QTensor::quantize(&Tensor::randn(0f32, 1.0, (n, k), &Device::Cpu).unwrap(), dtype).unwrap();
            let ws: Vec<_> = (0..copies).map(|_| Affine8::pack(std::slice::from_ref(&t), &mut pool).unwrap()).collect();
            (k, n, ws)
        }).collect();
        for kernel in Kernel::available().into_iter().take(2) {
            for rows in [1, 2, 4, 6, 16, 64, 128] {
                let mut total = 0.0; let mut parts = vec![];
                for (k, n, ws) in &weights {
                    let x = vec![0.3f32; rows * k];
                    let mut a = Activations::default(); a.resize(rows, *k);
                    RowMut { q: &mut a.q, scale: &mut a.scale, sum: &mut a.sum }.quantise(&x);
                    let mut y = vec![0.0; rows * n];
                    let mut best = f64::MAX;
                    for _ in 0..5 {
                        let t = Instant::now();
                        for w in ws { w.multiply(&a, &mut y, Into::Store, kernel, &mut pool); }
                        best = best.min(t.elapsed().as_secs_f64());
                    }
                    total += best; parts.push((best * 1e5).round() / 1e2);
                }
                println!("{dtype:?} {kernel:?} rows {rows}: {:.0} tok/s {parts:?} ms", rows as f64 / total);
            }
        }
    }
}
