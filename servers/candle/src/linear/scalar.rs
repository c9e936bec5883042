//! The product in plain Rust: for processors without a kernel of their own, and the oracle of the others' tests.

use super::activations::{Activations, BLOCK};
use super::affine8::{PANEL, Panel, Products, lines_per_unit};

/// Multiplies `rows` rows of `x` from `first` on with a panel.
pub fn tile(panel: Panel<'_>, x: &Activations, first: usize, rows: usize, products: &mut Products) {
    let block = panel.format.block;
    let lines_per_block = lines_per_unit(panel.format) * block / BLOCK;
    for (r, products) in products[..rows].iter_mut().enumerate() {
        let row = first + r;
        *products = [0.0; PANEL];
        for (index, lines) in panel.lines.chunks_exact(lines_per_block).enumerate() {
            let (bytes, floats) = lines.split_at(block / 2);
            let k = row * x.width + index * block;
            let (q, scale) = (&x.q[k..k + block], x.scale[k / BLOCK]);
            let sum: i32 = x.sum[k / 16..(k + block) / 16].iter().sum();
            for half in 0..2 {
                let mut products_of_block = [panel.format.zero.map_or(0, |zero| -i32::from(zero) * sum); 16];
                for (four, q) in q.as_chunks::<4>().0.iter().enumerate() {
                    let weights = bytes[four * 2 + half].0.as_chunks::<4>().0;
                    for (product, weights) in products_of_block.iter_mut().zip(weights) {
                        *product += q
                            .iter()
                            .zip(weights)
                            .map(|(&q, &w)| i32::from(q) * i32::from(w))
                            .sum::<i32>();
                    }
                }
                let (scales, products) = (floats[half].floats(), &mut products[half * 16..][..16]);
                for (lane, product) in products.iter_mut().enumerate() {
                    *product = (products_of_block[lane] as f32).mul_add(scales[lane] * scale, *product);
                }
                if panel.format.zero.is_none() {
                    let (minima, sum) = (floats[2 + half].floats(), scale * sum as f32);
                    for (lane, product) in products.iter_mut().enumerate() {
                        *product = minima[lane].mul_add(sum, *product);
                    }
                }
            }
        }
    }
}
