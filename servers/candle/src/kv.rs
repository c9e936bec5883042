//! Keys and values of the sequences: one reservation for all slots, made before the first step.
//!
//! Each layer and head of a slot has its keys and then its values side by side, as half floats: keys in blocks of 16
//! positions with one number of all 16 together (so that a query meets 16 keys at once), values row by row. The
//! system puts memory behind the reservation as positions are first written; what a sequence leaves is overwritten by
//! the next in its slot.

use crate::pool::Disjoint;
use anyhow::Context;
use half::f16;
use memmap2::MmapMut;

/// Positions in a block of keys.
pub const BLOCK: usize = 16;
/// Slots hold a multiple of so many positions, so that blocks may be read in pairs.
const UNIT: usize = 2 * BLOCK;

/// What a slot keeps for each position.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Layers of the model.
    pub layers: usize,
    /// Heads that keep keys and values.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Layout {
    /// Bytes that a position takes.
    pub fn bytes_per_token(self) -> u64 {
        (self.layers * self.heads * self.head_dim * 2 * size_of::<f16>()) as u64
    }
}

/// The memory of all slots.
pub struct KvMemory {
    layout: Layout,
    /// Positions of a slot.
    positions: usize,
    /// Positions that hold tokens, of each slot.
    lens: Vec<usize>,
    memory: MmapMut,
}

impl KvMemory {
    /// Reserves memory for `slots` sequences of up to `context` positions.
    ///
    /// # Errors
    /// If the system does not give it.
    pub fn new(layout: Layout, slots: usize, context: usize) -> anyhow::Result<Self> {
        let positions = context.next_multiple_of(UNIT);
        let bytes = (layout.bytes_per_token() as usize)
            .checked_mul(slots)
            .and_then(|bytes| bytes.checked_mul(positions))
            .context("the KV memory is larger than can be addressed")?;
        // An empty mapping is not possible everywhere.
        let memory = MmapMut::map_anon(bytes.max(1))
            .with_context(|| format!("the system does not give {bytes} bytes of KV memory"))?;
        Ok(Self {
            layout,
            positions,
            lens: vec![0; slots],
            memory,
        })
    }

    /// Positions that a slot holds; none if there is no such slot.
    pub fn len(&self, slot: usize) -> Option<usize> {
        self.lens.get(slot).copied()
    }

    /// Makes a slot `len` positions long.
    pub fn resize(&mut self, slot: usize, len: usize) {
        self.lens[slot] = len;
    }

    /// Forgets what a slot holds.
    pub fn free(&mut self, slot: usize) {
        if let Some(len) = self.lens.get_mut(slot) {
            *len = 0;
        }
    }

    /// The memory of every slot, for the tasks of a step to share.
    pub fn share(&mut self) -> Shared<'_> {
        // SAFETY: any 16 bits are a half float.
        let (_, numbers, _) = unsafe { self.memory.align_to_mut::<f16>() };
        Shared {
            layout: self.layout,
            positions: self.positions,
            numbers: Disjoint::new(numbers),
        }
    }
}

/// The memory of every slot.
pub struct Shared<'a> {
    layout: Layout,
    positions: usize,
    numbers: Disjoint<'a, f16>,
}

impl Shared<'_> {
    /// What one layer's head of one sequence remembers.
    ///
    /// # Safety
    /// No other head of the same slot, layer and number may be alive.
    pub unsafe fn head(&self, slot: usize, layer: usize, head: usize) -> Head<'_> {
        let Layout {
            layers,
            heads,
            head_dim,
        } = self.layout;
        let len = self.positions * head_dim;
        let start = ((slot * layers + layer) * heads + head) * 2 * len;
        // SAFETY: parts of different heads do not overlap, and of this one there is none, as the caller promises.
        unsafe {
            Head {
                keys: self.numbers.part(start, len),
                values: self.numbers.part(start + len, len),
                head_dim,
            }
        }
    }
}

/// Keys and values of one head.
pub struct Head<'a> {
    keys: &'a mut [f16],
    values: &'a mut [f16],
    head_dim: usize,
}

impl Head<'_> {
    /// Writes the key and value of a position.
    #[inline(always)]
    pub fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let (block, row) = (position / BLOCK, position % BLOCK);
        let block = &mut self.keys[block * BLOCK * self.head_dim..][..BLOCK * self.head_dim];
        for (numbers, key) in block.as_chunks_mut::<BLOCK>().0.iter_mut().zip(key) {
            numbers[row] = f16::from_f32(*key);
        }
        for (number, value) in self.values[position * self.head_dim..].iter_mut().zip(value) {
            *number = f16::from_f32(*value);
        }
    }

    /// The keys of `blocks` blocks from `block` on, each `head_dim` times the same number of 16 positions.
    #[inline(always)]
    pub fn keys(&self, block: usize, blocks: usize) -> &[f16] {
        &self.keys[block * BLOCK * self.head_dim..][..blocks * BLOCK * self.head_dim]
    }

    /// The values of `blocks` blocks from `block` on, row by row.
    #[inline(always)]
    pub fn values(&self, block: usize, blocks: usize) -> &[f16] {
        &self.values[block * BLOCK * self.head_dim..][..blocks * BLOCK * self.head_dim]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        layers: 2,
        heads: 3,
        head_dim: 16,
    };

    #[test]
    fn every_position_of_every_head_has_its_own_place() {
        let (slots, context) = (3, 50);
        let mut memory = KvMemory::new(LAYOUT, slots, context).unwrap();
        let shared = memory.share();
        let heads = || {
            (0..slots * 6 * context).map(|i| {
                let (slot, layer) = (i % slots, i / slots % 2);
                (i, slot, layer, i / slots / 2 % 3, i / slots / 6)
            })
        };
        for (i, slot, layer, head, position) in heads() {
            let key = [(i % 2000) as f32; 16];
            // SAFETY: one head at a time.
            unsafe { shared.head(slot, layer, head) }.write(position, &key, &key.map(|x| -x));
        }
        for (i, slot, layer, head, position) in heads() {
            // SAFETY: one head at a time.
            let head = unsafe { shared.head(slot, layer, head) };
            let (block, row) = (position / BLOCK, position % BLOCK);
            for d in 0..16 {
                let expected = (i % 2000) as f32;
                assert_eq!(head.keys(block, 1)[d * BLOCK + row].to_f32(), expected);
                assert_eq!(head.values(block, 1)[row * 16 + d].to_f32(), -expected);
            }
        }
    }

    #[test]
    fn more_than_can_be_addressed_is_an_error() {
        for slots in [usize::MAX, 1 << 40] {
            assert!(KvMemory::new(LAYOUT, slots, 1 << 20).is_err());
        }
    }
}
