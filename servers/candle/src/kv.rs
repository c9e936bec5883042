//! Keys and values of the sequences: pages of 64 positions, handed out as sequences grow.
//!
//! In a page, each layer and head has its keys and then its values as half floats: keys in blocks of 16 positions
//! with one number of all 16 side by side (so that a query meets 16 keys at once), values row by row.

use crate::pool::Disjoint;
use half::f16;

/// Positions in a page.
pub const PAGE: usize = 64;
/// Positions in a block of keys.
pub const BLOCK: usize = 16;

/// What a page holds.
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
    /// Numbers in a page.
    fn page(self) -> usize {
        self.layers * self.heads * self.head()
    }

    /// Numbers of one layer's head in a page.
    fn head(self) -> usize {
        2 * PAGE * self.head_dim
    }

    /// Bytes that a position takes.
    pub fn bytes_per_token(self) -> u64 {
        (self.page() / PAGE * size_of::<f16>()) as u64
    }
}

/// The memory of all slots.
pub struct KvMemory {
    layout: Layout,
    slots: Vec<Slot>,
    spare: Vec<Box<[f16]>>,
}

#[derive(Default)]
struct Slot {
    len: usize,
    pages: Vec<Box<[f16]>>,
}

impl KvMemory {
    /// Empty memory for `slots` sequences.
    pub fn new(layout: Layout, slots: usize) -> Self {
        Self {
            layout,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            spare: Vec::new(),
        }
    }

    /// Positions that a slot holds; none if there is no such slot.
    pub fn len(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).map(|slot| slot.len)
    }

    /// Makes a slot `len` positions long.
    pub fn resize(&mut self, slot: usize, len: usize) {
        let slot = &mut self.slots[slot];
        while slot.pages.len() < len.div_ceil(PAGE) {
            let page = self.spare.pop();
            slot.pages
                .push(page.unwrap_or_else(|| vec![f16::ZERO; self.layout.page()].into()));
        }
        slot.len = len;
    }

    /// Gives a slot's pages back.
    pub fn free(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.len = 0;
            self.spare.append(&mut slot.pages);
        }
    }

    /// The pages of every slot, for the tasks of a step to share.
    pub fn pages(&mut self) -> Pages<'_> {
        let slots = self.slots.iter_mut();
        let slots = slots.map(|slot| slot.pages.iter_mut().map(|page| Disjoint::new(page)).collect());
        Pages {
            layout: self.layout,
            slots: slots.collect(),
        }
    }
}

/// The pages of every slot.
pub struct Pages<'a> {
    layout: Layout,
    slots: Vec<Vec<Disjoint<'a, f16>>>,
}

impl<'a> Pages<'a> {
    /// What one layer's head of one sequence remembers.
    ///
    /// # Safety
    /// No other head of the same slot, layer and number may be alive.
    pub unsafe fn head(&self, slot: usize, layer: usize, head: usize) -> Head<'_> {
        let start = (layer * self.layout.heads + head) * self.layout.head();
        Head {
            pages: &self.slots[slot],
            start,
            head_dim: self.layout.head_dim,
        }
    }
}

/// Keys and values of one head.
pub struct Head<'a> {
    pages: &'a [Disjoint<'a, f16>],
    start: usize,
    head_dim: usize,
}

impl Head<'_> {
    /// Writes the key and value of a position.
    #[inline(always)]
    pub fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let (page, row) = (&self.pages[position / PAGE], position % PAGE);
        // SAFETY: this head alone uses its part of the page, and `&mut self` nothing else of it now.
        let numbers = unsafe { page.part(self.start, 2 * PAGE * self.head_dim) };
        let (keys, values) = numbers.split_at_mut(PAGE * self.head_dim);
        let block = &mut keys[row / BLOCK * BLOCK * self.head_dim..][..BLOCK * self.head_dim];
        for (numbers, key) in block.as_chunks_mut::<BLOCK>().0.iter_mut().zip(key) {
            numbers[row % BLOCK] = f16::from_f32(*key);
        }
        for (number, value) in values[row * self.head_dim..].iter_mut().zip(value) {
            *number = f16::from_f32(*value);
        }
    }

    /// The keys of block `block`: `head_dim` times the same number of 16 positions.
    #[inline(always)]
    pub fn keys(&self, block: usize) -> &[f16] {
        self.block(block, 0)
    }

    /// The values of block `block`: 16 rows.
    #[inline(always)]
    pub fn values(&self, block: usize) -> &[f16] {
        self.block(block, PAGE * self.head_dim)
    }

    #[inline(always)]
    fn block(&self, block: usize, from: usize) -> &[f16] {
        let (page, block) = (block / (PAGE / BLOCK), block % (PAGE / BLOCK));
        let len = BLOCK * self.head_dim;
        // SAFETY: this head alone uses its part of the page, and writing it needs `&mut self`.
        unsafe { self.pages[page].part(self.start + from + block * len, len) }
    }
}
