//! The bytes that each token adds to the text.

/// Bytes of every token, in one allocation.
#[derive(Debug, Default)]
pub(crate) struct TokenTable {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl TokenTable {
    pub(crate) fn push(&mut self, token: &[u8]) {
        self.bytes.extend_from_slice(token);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of token `id`; empty for an id outside the table.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }
}

/// How the text of a vocabulary entry stands for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// GPT-2's alphabet: one printable character a byte.
    ByteLevel,
    /// SentencePiece: `▁` is a space, `<0x0A>` a single byte.
    SentencePiece,
}

impl Spelling {
    /// The bytes that an ordinary token spelled `text` adds.
    pub(crate) fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => byte_level(text),
            Spelling::SentencePiece => match byte_token(text) {
                Some(byte) => vec![byte],
                None => text.replace('▁', " ").into_bytes(),
            },
        }
    }
}

/// The byte that `<0xNN>` stands for.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

fn byte_level(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// GPT-2's alphabet read backwards: printable Latin-1 characters stand for themselves, the 68 other bytes are
/// numbered from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_alphabet_is_the_one_of_the_tokenizers_crate() {
        let alphabet = ByteLevel::alphabet();
        let bytes: HashSet<u8> = alphabet
            .iter()
            .map(|&c| byte_of(c).expect("a letter of the alphabet"))
            .collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
        assert_eq!(Spelling::ByteLevel.bytes("ĠhelloĊ"), b" hello\n");
    }

    #[test]
    fn sentencepiece_spells_spaces_and_single_bytes() {
        assert_eq!(Spelling::SentencePiece.bytes("▁a▁▁"), b" a  ");
        assert_eq!(Spelling::SentencePiece.bytes("<0xE2>"), [0xE2]);
        assert_eq!(Spelling::SentencePiece.bytes("<0xE2"), b"<0xE2");
    }

    #[test]
    fn an_id_outside_the_table_has_no_bytes() {
        let mut table = TokenTable::default();
        table.push(b"a");
        table.push(b"");
        table.push(b"bc");
        let all: Vec<&[u8]> = (0..4).map(|id| table.get(id)).collect();
        assert_eq!(all, [&b"a"[..], b"", b"bc", b""]);
    }
}
