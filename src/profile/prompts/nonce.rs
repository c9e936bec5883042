//! What makes a prompt unique.

use rand::Rng;

use crate::profile::words::Vocabulary;

/// Words of a nonce, where a prompt is long enough.
pub const WORDS: u32 = 4;

/// Words that number the requests, so that no two prompts start alike.
#[derive(Debug, Clone)]
pub struct Nonces {
    pub vocabulary: Vocabulary,
    /// Words of each.
    pub words: u32,
    factor: u64,
    offset: u64,
}

impl Nonces {
    /// Nonces of [`WORDS`] words.
    pub fn new(vocabulary: Vocabulary, rng: &mut impl Rng) -> Self {
        Self {
            vocabulary,
            words: WORDS,
            factor: rng.random::<u64>() | 1,
            offset: rng.random(),
        }
    }

    /// How many nonces there are.
    pub fn space(&self) -> u64 {
        1u64.checked_shl(self.words * self.vocabulary.bits())
            .unwrap_or(u64::MAX)
    }

    /// Writes nonce number `seq`, each word with a space after it. An odd factor permutes the numbers modulo a power
    /// of two, and its lowest bits choose the first word, so neighbours differ from their first word on.
    pub fn write(&self, seq: u64, out: &mut Vec<u8>) {
        let bits = self.vocabulary.bits();
        let mut number = seq.wrapping_mul(self.factor).wrapping_add(self.offset);
        for _ in 0..self.words {
            let word = self.vocabulary.words[(number & ((1 << bits) - 1)) as usize];
            out.extend_from_slice(word.as_bytes());
            out.push(b' ');
            number >>= bits;
        }
    }

    /// Nonce number `seq`.
    pub fn text(&self, seq: u64) -> String {
        let mut out = Vec::new();
        self.write(seq, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}
