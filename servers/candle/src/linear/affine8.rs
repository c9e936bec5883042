//! Weights as unsigned bytes, packed for integer products of many rows at once.
//!
//! Every ggml type of up to eight bits is `w = scale * q + min` in blocks of 16 or 32, so the bytes `q` lose nothing
//! of the file's numbers. They lie in panels of 32 columns in the order in which the kernels read them:
//!
//! ```text
//! panel:  for each 32 of k
//!           for each block (one of 32, or two of 16)
//!             for each 4 of k      64 bytes: columns 0-15 x 4 k,  64 bytes: columns 16-31 x 4 k
//!             scales of 32 columns (f32), minima of 32 columns (f32, if the format has them)
//! ```
//!
//! `x * w = Σ_blocks sx * (scale * Σ qx q + min * Σ qx)`, with `sx`, `qx` the activations as in
//! [`Activations`]. The integer sums are exact, so all kernels agree to the last bit.

use super::activations::{Activations, BLOCK};
use super::tensor::kind;
use super::{Kernel, scalar};
use crate::pool::{Disjoint, Pool};
use candle_core::quantized::{GgmlDType, QTensor};
use loadtest_weights::blocks::{self, Format, Row};
use loadtest_weights::tensor::Kind;

/// Columns of a panel.
pub const PANEL: usize = 32;
/// Rows that a kernel takes at once.
pub const TILE: usize = 6;

/// 64 bytes of a panel: a cache line, and a register of AVX-512.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

impl Line {
    /// The line as the scales or minima of 16 columns.
    pub fn floats(&self) -> [f32; 16] {
        let mut floats = [0.0; 16];
        for (float, bytes) in floats.iter_mut().zip(self.0.as_chunks::<4>().0) {
            *float = f32::from_ne_bytes(*bytes);
        }
        floats
    }

    fn set_float(&mut self, column: usize, value: f32) {
        self.0[column * 4..][..4].copy_from_slice(&value.to_ne_bytes());
    }
}

/// What a kernel multiplies rows with.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    /// As laid out above.
    pub lines: &'a [Line],
    /// How the numbers are grouped.
    pub format: Format,
}

/// Lines that 32 of k take in a panel.
pub fn lines_per_unit(format: Format) -> usize {
    let blocks = BLOCK / format.block;
    BLOCK / 4 * 2 + blocks * if format.zero.is_some() { 2 } else { 4 }
}

/// The products of up to [`TILE`] rows with the columns of one panel.
pub type Products = [[f32; PANEL]; TILE];

/// Columns that have one format: what was one tensor in the file.
struct Part {
    format: Format,
    columns: usize,
    first_column: usize,
    first_panel: usize,
    lines: Vec<Line>,
}

/// A matrix of `inputs` x `outputs`, perhaps put together from several (query, key and value).
pub struct Affine8 {
    inputs: usize,
    outputs: usize,
    panels: usize,
    parts: Vec<Part>,
    bias: Option<Vec<f32>>,
}

/// What becomes of the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// They replace what is in the output.
    Store,
    /// They are added to it.
    Add,
}

impl Affine8 {
    /// Packs matrices with the same inputs, side by side. A type without such a form (f32, f16, Q2_K, ...) is
    /// quantised to Q8_0 first.
    ///
    /// # Errors
    /// If a tensor is not a matrix or its inputs are no multiple of 32.
    pub fn pack(tensors: &[QTensor], pool: &mut Pool) -> candle_core::Result<Self> {
        let mut matrix = Self {
            inputs: 0,
            outputs: 0,
            panels: 0,
            parts: Vec::new(),
            bias: None,
        };
        for tensor in tensors {
            let (columns, inputs) = tensor.shape().dims2()?;
            if inputs % BLOCK != 0 || (!matrix.parts.is_empty() && inputs != matrix.inputs) {
                candle_core::bail!(
                    "a matrix with {inputs} inputs cannot be packed: not a multiple of {BLOCK}"
                );
            }
            let part = match packed_kind(tensor) {
                Some((kind, format)) => pack_part(tensor, kind, format, pool)?,
                None => {
                    let dense = tensor.dequantize(&tensor.device())?;
                    let tensor = QTensor::quantize(&dense, GgmlDType::Q8_0)?;
                    let (kind, format) = packed_kind(&tensor).expect("Q8_0 has a format");
                    pack_part(&tensor, kind, format, pool)?
                }
            };
            matrix.inputs = inputs;
            matrix.parts.push(Part {
                first_column: matrix.outputs,
                first_panel: matrix.panels,
                ..part
            });
            matrix.outputs += columns;
            matrix.panels += columns.div_ceil(PANEL);
        }
        Ok(matrix)
    }

    /// Adds `bias` to every row of products that replaces what is in the output.
    ///
    /// # Panics
    /// If it has not one number a column.
    pub fn with_bias(mut self, bias: Vec<f32>) -> Self {
        assert_eq!(bias.len(), self.outputs);
        self.bias = Some(bias);
        self
    }

    /// Columns of the matrix, the width of the product's rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Memory that the packed weights take.
    pub fn bytes(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| size_of_val(&part.lines[..]) as u64)
            .sum()
    }

    /// Multiplies all rows of `x`; `y` has as many rows, [`outputs`](Self::outputs) wide.
    ///
    /// # Panics
    /// If a width does not fit.
    pub fn multiply(&self, x: &Activations, y: &mut [f32], into: Into, kernel: Kernel, pool: &mut Pool) {
        assert_eq!((x.width, y.len()), (self.inputs, x.rows * self.outputs));
        let chunk = self
            .panels
            .div_ceil(pool.threads() * 8)
            .max(if x.rows <= 4 { 4 } else { 1 });
        let y = Disjoint::new(y);
        pool.run(self.panels.div_ceil(chunk), &|_, task| {
            for panel in task * chunk..((task + 1) * chunk).min(self.panels) {
                self.multiply_panel(panel, x, &y, into, kernel);
            }
        });
    }

    fn multiply_panel(
        &self,
        panel: usize,
        x: &Activations,
        y: &Disjoint<'_, f32>,
        into: Into,
        kernel: Kernel,
    ) {
        let (part, column) = self.locate(panel);
        let width = (part.columns - column).min(PANEL);
        let panel = part.panel(column / PANEL, self.inputs);
        let mut products: Products = [[0.0; PANEL]; TILE];
        for row in (0..x.rows).step_by(TILE) {
            let rows = (x.rows - row).min(TILE);
            match kernel {
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512Vnni(cpu) => super::avx512::tile(cpu, panel, x, row, rows, &mut products),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2(cpu) => super::avx2::tile(cpu, panel, x, row, rows, &mut products),
                Kernel::Scalar => scalar::tile(panel, x, row, rows, &mut products),
            }
            for (r, products) in products[..rows].iter().enumerate() {
                // SAFETY: these columns belong to this panel, and a panel to one task.
                let y = unsafe { y.part((row + r) * self.outputs + part.first_column + column, width) };
                match into {
                    Into::Store => {
                        y.copy_from_slice(&products[..width]);
                        if let Some(bias) = &self.bias {
                            let bias = &bias[part.first_column + column..];
                            y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
                        }
                    }
                    Into::Add => y.iter_mut().zip(products).for_each(|(y, product)| *y += product),
                }
            }
        }
    }

    /// The part that a panel belongs to and its first column there.
    fn locate(&self, panel: usize) -> (&Part, usize) {
        let part = self
            .parts
            .iter()
            .rfind(|part| part.first_panel <= panel)
            .expect("the first part starts at 0");
        (part, (panel - part.first_panel) * PANEL)
    }

    /// Writes the weights of column `column` to `out`: a row of the file's tensor, as for an embedding.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        let part = self
            .parts
            .iter()
            .rfind(|part| part.first_column <= column)
            .expect("the first part starts at 0");
        let (format, column) = (part.format, column - part.first_column);
        let (half, lane) = (column % PANEL / 16, column % 16);
        let blocks = part
            .panel(column / PANEL, self.inputs)
            .lines
            .chunks_exact(lines_per_unit(format) * format.block / BLOCK);
        for (lines, out) in blocks.zip(out.chunks_exact_mut(format.block)) {
            let (bytes, floats) = lines.split_at(format.block / 2);
            let scale = floats[half].floats()[lane];
            let min = match format.zero {
                Some(zero) => -scale * f32::from(zero),
                None => floats[2 + half].floats()[lane],
            };
            for (k, out) in out.iter_mut().enumerate() {
                *out = scale.mul_add(f32::from(bytes[k / 4 * 2 + half].0[lane * 4 + k % 4]), min);
            }
        }
    }
}

impl Part {
    fn panel(&self, index: usize, inputs: usize) -> Panel<'_> {
        let lines = inputs / BLOCK * lines_per_unit(self.format);
        Panel {
            lines: &self.lines[index * lines..][..lines],
            format: self.format,
        }
    }
}

/// The kind and format of a tensor's blocks, if they can be packed as they are.
fn packed_kind(tensor: &QTensor) -> Option<(Kind, Format)> {
    let kind = kind(tensor.dtype())?;
    Some((kind, blocks::format(kind)?))
}

fn pack_part(tensor: &QTensor, kind: Kind, format: Format, pool: &mut Pool) -> candle_core::Result<Part> {
    let (columns, inputs) = tensor.shape().dims2()?;
    let dtype = tensor.dtype();
    let data = tensor.data()?;
    let row_bytes = inputs / dtype.block_size() * dtype.type_size();
    let panel_lines = inputs / BLOCK * lines_per_unit(format);
    let mut lines = vec![Line([0; 64]); columns.div_ceil(PANEL) * panel_lines];
    let shared = Disjoint::new(&mut lines);
    pool.run(columns.div_ceil(PANEL), &|_, panel| {
        // SAFETY: each task writes its own panel.
        let lines = unsafe { shared.part(panel * panel_lines, panel_lines) };
        let mut row = Row::default();
        for column in panel * PANEL..((panel + 1) * PANEL).min(columns) {
            blocks::unpack(kind, &data[column * row_bytes..][..row_bytes], &mut row);
            pack_column(&row, format, column % PANEL, lines);
        }
    });
    Ok(Part {
        format,
        columns,
        first_column: 0,
        first_panel: 0,
        lines,
    })
}

fn pack_column(row: &Row, format: Format, column: usize, lines: &mut [Line]) {
    let (half, lane) = (column / 16, column % 16);
    let blocks = lines.chunks_exact_mut(lines_per_unit(format) * format.block / BLOCK);
    for ((block, lines), q) in blocks.enumerate().zip(row.q.chunks_exact(format.block)) {
        let (bytes, floats) = lines.split_at_mut(format.block / 2);
        for (k, q) in q.iter().enumerate() {
            bytes[k / 4 * 2 + half].0[lane * 4 + k % 4] = *q;
        }
        floats[half].set_float(lane, row.scale[block]);
        if format.zero.is_none() {
            floats[2 + half].set_float(lane, row.min[block]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::activations::RowMut;
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    fn quantise(x: &[f32], width: usize) -> Activations {
        let mut rows = Activations::default();
        rows.resize(x.len() / width, width);
        RowMut {
            q: &mut rows.q,
            scale: &mut rows.scale,
            sum: &mut rows.sum,
        }
        .quantise(x);
        rows
    }

    fn random(rows: usize, columns: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap()
    }

    const TYPES: [GgmlDType; 9] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
        GgmlDType::F32,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn products_are_those_of_the_dequantised_weights(rows in 1usize..20, columns in 1usize..100, kind in 0usize..9) {
            let (inputs, dtype) = (512, TYPES[kind]);
            let mut pool = Pool::new(2).unwrap();
            let weights = QTensor::quantize(&random(columns, inputs), dtype).unwrap();
            let dense = weights.dequantize(&Device::Cpu).unwrap();
            let matrix = Affine8::pack(&[weights], &mut pool).unwrap();
            let x = random(rows, inputs);
            let xs: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            let expected = x.matmul(&dense.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
            let activations = quantise(&xs, inputs);
            let mut y = vec![f32::NAN; rows * columns];
            matrix.multiply(&activations, &mut y, Into::Store, Kernel::Scalar, &mut pool);
            let dense = dense.to_vec2::<f32>().unwrap();
            for (r, expected) in expected.iter().enumerate() {
                for (c, expected) in expected.iter().enumerate() {
                    // Each activation errs by at most half a step, each weight (only if requantised) by half of its own.
                    let scale = |k: usize| activations.scale[(r * inputs + k) / BLOCK];
                    let mut bound: f32 = (0..inputs).map(|k| scale(k) * 0.501 * dense[c][k].abs()).sum();
                    if dtype == GgmlDType::F32 {
                        bound += (0..inputs).map(|k| 0.02 * xs[r * inputs + k].abs()).sum::<f32>();
                    }
                    let y = y[r * columns + c];
                    prop_assert!((y - expected).abs() <= bound + 1e-3, "{dtype:?} {r},{c}: {y} {expected} ±{bound}");
                }
            }
        }

        #[test]
        fn every_kernel_of_this_cpu_gives_the_same_bits(rows in 1usize..20, columns in 1usize..100, kind in 0usize..9) {
            let (inputs, mut pool) = (256, Pool::new(2).unwrap());
            let weights = |n| QTensor::quantize(&random(n, inputs), TYPES[kind]).unwrap();
            let matrix = Affine8::pack(&[weights(columns), weights(40)], &mut pool).unwrap();
            let x = quantise(&random(rows, inputs).flatten_all().unwrap().to_vec1().unwrap(), inputs);
            let start: Vec<f32> = (0..rows * matrix.outputs()).map(|i| i as f32).collect();
            let mut expected = start.clone();
            matrix.multiply(&x, &mut expected, Into::Add, Kernel::Scalar, &mut pool);
            for kernel in Kernel::available() {
                let mut y = start.clone();
                matrix.multiply(&x, &mut y, Into::Add, kernel, &mut pool);
                prop_assert!(y == expected, "{kernel:?}");
            }
        }

        #[test]
        fn a_column_is_a_row_of_the_tensor(columns in 1usize..100, kind in 0usize..8) {
            let mut pool = Pool::new(1).unwrap();
            let weights = QTensor::quantize(&random(columns, 256), TYPES[kind]).unwrap();
            let dense = weights.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            let matrix = Affine8::pack(&[weights], &mut pool).unwrap();
            let mut row = vec![0.0; 256];
            for (column, expected) in dense.iter().enumerate() {
                matrix.column(column, &mut row);
                for (a, b) in row.iter().zip(expected) {
                    prop_assert!((a - b).abs() < 1e-5, "{a} {b}");
                }
            }
        }
    }
}
