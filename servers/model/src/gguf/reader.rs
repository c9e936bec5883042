//! The bytes of a GGUF file, from its start to the end of the tensor table.

use super::{Gguf, Tensor, Value, Weights};
use crate::ModelError;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Arrays of arrays are legal, but no model has them deeper than this.
const MAX_DEPTH: usize = 4;

/// Elements and bytes of one block of a tensor type, by its number in the format; `None` for a type unknown here,
/// of which only the start is then checked.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),      // F32, I32
        1 | 25 | 30 => (1, 2), // F16, I16, BF16
        2 | 20 => (32, 18),    // Q4_0, IQ4_NL
        3 => (32, 20),         // Q4_1
        6 => (32, 22),         // Q5_0
        7 => (32, 24),         // Q5_1
        8 => (32, 34),         // Q8_0
        9 => (32, 36),         // Q8_1
        10 => (256, 84),       // Q2_K
        11 | 21 => (256, 110), // Q3_K, IQ3_S
        12 => (256, 144),      // Q4_K
        13 => (256, 176),      // Q5_K
        14 => (256, 210),      // Q6_K
        15 => (256, 292),      // Q8_K
        16 | 35 => (256, 66),  // IQ2_XXS, TQ2_0
        17 => (256, 74),       // IQ2_XS
        18 => (256, 98),       // IQ3_XXS
        19 => (256, 50),       // IQ1_S
        22 => (256, 82),       // IQ2_S
        23 => (256, 136),      // IQ4_XS
        24 => (1, 1),          // I8
        27 | 28 => (1, 8),     // I64, F64
        29 => (256, 56),       // IQ1_M
        34 => (256, 54),       // TQ1_0
        39 => (32, 17),        // MXFP4
        _ => return None,
    })
}

/// A file that is read from its start on.
pub(super) struct Reader<'a, R> {
    input: R,
    path: &'a Path,
    size: u64,
    position: u64,
}

impl<'a, R: Read> Reader<'a, R> {
    /// A file at `path` with `size` bytes.
    pub fn new(input: R, path: &'a Path, size: u64) -> Self {
        Self {
            input,
            path,
            size,
            position: 0,
        }
    }

    /// Header, pairs and tensor table.
    pub fn gguf(mut self) -> Result<Gguf, ModelError> {
        self.magic()?;
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            let found = format!("version {version}; versions 2 and 3 in little-endian order are known");
            return Err(ModelError::NotGguf {
                path: self.path.to_owned(),
                found,
            });
        }
        let tensors = self.u64()?;
        let pairs = self.u64()?;
        let mut metadata = HashMap::new();
        for _ in 0..pairs {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            metadata.insert(key, value);
        }
        let alignment = metadata
            .get("general.alignment")
            .and_then(Value::as_u64)
            .unwrap_or(DEFAULT_ALIGNMENT);
        if alignment == 0 {
            return Err(self.damaged("general.alignment is 0"));
        }
        let (data_bytes, weights, mut table) = self.tensor_table(tensors)?;
        let data = self
            .position
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| self.damaged("general.alignment is impossible"))?;
        let expected_bytes = match data_bytes {
            0 => self.position,
            _ => data.saturating_add(data_bytes),
        };
        if expected_bytes > self.size {
            return Err(self.cut_short(expected_bytes));
        }
        // The table counts from where the data begin. Nothing overflows: the file is at least that long.
        for bytes in table.values_mut().filter_map(|tensor| tensor.bytes.as_mut()) {
            *bytes = data + bytes.start..data + bytes.end;
        }
        Ok(Gguf {
            metadata,
            table,
            expected_bytes,
            weights,
        })
    }

    fn magic(&mut self) -> Result<(), ModelError> {
        if self.size < 4 {
            return Err(self.cut_short(4));
        }
        let found = self.bytes::<4>()?;
        if &found == MAGIC {
            return Ok(());
        }
        let found = format!("it begins with `{}`, not `GGUF`", found.escape_ascii());
        Err(ModelError::NotGguf {
            path: self.path.to_owned(),
            found,
        })
    }

    /// Reads the tensor table and returns the bytes of tensor data that it implies, what is in them, and itself.
    fn tensor_table(&mut self, tensors: u64) -> Result<(u64, Weights, HashMap<String, Tensor>), ModelError> {
        let mut data_bytes = 0;
        let mut table = HashMap::new();
        let mut weights = Weights {
            elements: 0,
            bytes: Some(0),
        };
        for _ in 0..tensors {
            let name = self.text()?;
            let mut dimensions = Vec::new();
            for _ in 0..self.u32()? {
                dimensions.push(self.u64()?);
            }
            let elements = dimensions
                .iter()
                .fold(1u64, |n, &length| n.saturating_mul(length));
            let kind = self.u32()?;
            let offset = self.u64()?;
            let known =
                block(kind).map(|(per_block, bytes)| elements.div_ceil(per_block).saturating_mul(bytes));
            weights.elements = weights.elements.saturating_add(elements);
            weights.bytes = weights
                .bytes
                .zip(known)
                .map(|(sum, bytes)| sum.saturating_add(bytes));
            let bytes = known.unwrap_or(1);
            let Some(end) = offset.checked_add(bytes) else {
                return Err(self.damaged(format!("tensor `{name}` has an impossible size")));
            };
            data_bytes = data_bytes.max(end);
            let tensor = Tensor {
                kind,
                dimensions,
                bytes: known.map(|_| offset..end),
            };
            if table.insert(name.clone(), tensor).is_some() {
                return Err(self.damaged(format!("there are two tensors `{name}`")));
            }
        }
        Ok((data_bytes, weights, table))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, ModelError> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.bytes()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.bytes()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.bytes()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.bytes()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Bool(self.bytes::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => self.array(depth)?,
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.bytes()?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            _ => return Err(self.damaged(format!("metadata value of unknown type {kind}"))),
        })
    }

    fn array(&mut self, depth: usize) -> Result<Value, ModelError> {
        if depth == MAX_DEPTH {
            return Err(self.damaged("arrays nested too deeply"));
        }
        let kind = self.u32()?;
        let length = self.u64()?;
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            _ => 12,
        };
        self.must_hold(length.saturating_mul(least))?;
        // Not reserved up front: a value takes more memory than the bytes that were checked.
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(self.value(kind, depth + 1)?);
        }
        Ok(Value::Array(items))
    }

    fn text(&mut self) -> Result<String, ModelError> {
        let length = self.u64()?;
        self.must_hold(length)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        self.must_hold(N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ModelError> {
        let io = |source| ModelError::Io {
            path: self.path.to_owned(),
            source,
        };
        self.input.read_exact(bytes).map_err(io)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Fails unless at least `bytes` more are in the file.
    fn must_hold(&self, bytes: u64) -> Result<(), ModelError> {
        let expected = self.position.saturating_add(bytes);
        if expected > self.size {
            Err(self.cut_short(expected))
        } else {
            Ok(())
        }
    }

    fn cut_short(&self, expected: u64) -> ModelError {
        ModelError::CutShort {
            path: self.path.to_owned(),
            expected,
            found: self.size,
        }
    }

    fn damaged(&self, what: impl Into<String>) -> ModelError {
        ModelError::Damaged {
            path: self.path.to_owned(),
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(out: &mut Vec<u8>, s: &str) {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    }

    /// A whole file: three pairs, one Q8_0 tensor of 64 elements.
    fn sample() -> Vec<u8> {
        let mut out = Vec::from(*MAGIC);
        out.extend(3u32.to_le_bytes());
        out.extend(1u64.to_le_bytes());
        out.extend(3u64.to_le_bytes());
        text(&mut out, "general.architecture");
        out.extend(8u32.to_le_bytes());
        text(&mut out, "llama");
        text(&mut out, "llama.context_length");
        out.extend(4u32.to_le_bytes());
        out.extend(8192u32.to_le_bytes());
        text(&mut out, "tokenizer.ggml.tokens");
        out.extend(9u32.to_le_bytes());
        out.extend(8u32.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        text(&mut out, "a");
        text(&mut out, "b");
        text(&mut out, "w");
        out.extend(2u32.to_le_bytes());
        out.extend(32u64.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        out.extend(8u32.to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.resize(out.len().next_multiple_of(32) + 2 * 34, 0);
        out
    }

    fn read(bytes: &[u8]) -> Result<Gguf, ModelError> {
        Reader::new(bytes, Path::new("m.gguf"), bytes.len() as u64).gguf()
    }

    #[test]
    fn reads_pairs_and_the_expected_size() {
        let bytes = sample();
        let gguf = read(&bytes).unwrap();
        assert_eq!(gguf.architecture(), Some("llama"));
        assert_eq!(gguf.unsigned("llama.context_length"), Some(8192));
        assert_eq!(gguf.array("tokenizer.ggml.tokens").map(<[Value]>::len), Some(2));
        assert_eq!((gguf.tensors(), gguf.expected_bytes()), (1, bytes.len() as u64));
        let end = bytes.len() as u64;
        let tensor = Tensor {
            kind: 8,
            dimensions: vec![32, 2],
            bytes: Some(end - 68..end),
        };
        assert_eq!(gguf.table().collect::<Vec<_>>(), [("w", &tensor)]);
        // Q8_0: 32 weights of a byte and one scale of two bytes.
        assert_eq!(gguf.bits_per_weight(), Some(8.5));
    }

    #[test]
    fn a_cut_in_the_tensor_data_names_both_sizes() {
        let bytes = sample();
        let error = read(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
        let sizes = format!("expected {} bytes, found {}", bytes.len(), bytes.len() - 1);
        assert!(error.contains(&sizes), "{error}");
    }

    #[test]
    fn another_format_is_named_by_its_first_bytes() {
        let error = read(b"PK\x03\x04 and more").unwrap_err().to_string();
        assert!(
            error.contains("not a GGUF file") && error.contains(r"PK\x03\x04"),
            "{error}"
        );
    }

    #[test]
    fn an_absurd_length_is_refused_before_it_is_allocated() {
        let mut bytes = sample();
        bytes[24..32].copy_from_slice(&(u64::MAX / 2).to_le_bytes()); // length of the first key
        assert!(matches!(read(&bytes), Err(ModelError::CutShort { .. })));
    }

    proptest! {
        #[test]
        fn every_truncation_is_an_error(keep in 0..sample().len()) {
            prop_assert!(read(&sample()[..keep]).is_err());
        }

        #[test]
        fn damage_never_panics(at in 0..sample().len(), byte: u8) {
            let mut bytes = sample();
            bytes[at] = byte;
            let _ = read(&bytes);
        }
    }
}
