//! `tokenizer.bin`, for counting a prompt's tokens as lm.rs counts them: its protocol does not tell.

use std::collections::{BinaryHeap, HashMap};
use std::path::Path;

use anyhow::{Context, ensure};

use crate::model::Family;

/// A token's text and score.
struct Token {
    text: String,
    score: f32,
}

/// The tokens of a model.
pub struct Vocabulary {
    tokens: Vec<Token>,
    ids: HashMap<String, u32>,
}

/// Two neighbours that make a token: the higher score goes first, of equals the one further left.
#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    joined: u32,
    /// The neighbours' tokens; others have come in their place if they differ by now.
    tokens: (u32, u32),
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> std::cmp::Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Vocabulary {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file is not there or not whole.
    pub fn read(path: &Path) -> anyhow::Result<Vocabulary> {
        let shown = path.display();
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        Vocabulary::of(&bytes).with_context(|| format!("{shown} is no tokenizer of lm.rs"))
    }

    fn of(bytes: &[u8]) -> anyhow::Result<Vocabulary> {
        let word = |at: usize| -> anyhow::Result<[u8; 4]> {
            let word = bytes.get(at..at + 4).context("it is cut short")?;
            Ok([word[0], word[1], word[2], word[3]])
        };
        let count = u32::from_le_bytes(word(0)?);
        ensure!(bytes.len() / 8 >= count as usize, "it is cut short");
        let mut tokens = Vec::with_capacity(count as usize);
        // After the count stand the longest length, and the first and the last token of a text.
        let mut at = 16;
        for _ in 0..count {
            let score = f32::from_le_bytes(word(at)?);
            let length = u32::from_le_bytes(word(at + 4)?) as usize;
            let text = bytes.get(at + 8..at + 8 + length).context("it is cut short")?;
            let text = std::str::from_utf8(text)
                .context("a token is no text")?
                .to_owned();
            tokens.push(Token { text, score });
            at += 8 + length;
        }
        let ids = (0..)
            .zip(&tokens)
            .map(|(id, token)| (token.text.clone(), id))
            .collect();
        Ok(Vocabulary { tokens, ids })
    }

    /// The tokens of a plain text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        let mut name = [0; 4];
        for character in text.chars() {
            let character = character.encode_utf8(&mut name);
            match self.ids.get(&*character) {
                Some(id) => tokens.push(*id),
                // The bytes' own tokens follow three special ones.
                None => tokens.extend(character.bytes().map(|byte| u32::from(byte) + 3)),
            }
        }
        self.join(tokens)
    }

    /// Tokens of a prompt: `text` in the chat template of its family, which lm.rs has built in.
    pub fn prompt_tokens(&self, family: Family, text: &str) -> u64 {
        let around = match family {
            Family::Gemma => 9,
            Family::Phi => 10,
            // A system message about the date stands in front; the date's own tokens are those of a text of its length.
            Family::Llama => 30 + self.encode("01 Jan 2025").len(),
        };
        (around + self.encode(text.trim()).len()) as u64
    }

    /// Joins neighbours, best score first, until no two of them make a token.
    fn join(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        const GONE: u32 = u32::MAX;
        let end = tokens.len();
        let mut next: Vec<usize> = (1..=end).collect();
        let mut previous: Vec<usize> = (0..end).map(|at| at.wrapping_sub(1)).collect();
        let pair = |tokens: &[u32], left: usize, right: usize| {
            let (a, b) = (tokens[left], tokens[right]);
            let text = |id: u32| self.tokens.get(id as usize).map(|token| token.text.as_str());
            let joined = *self.ids.get(&[text(a)?, text(b)?].concat())?;
            let score = self.tokens[joined as usize].score;
            Some(Pair {
                score,
                left,
                right,
                joined,
                tokens: (a, b),
            })
        };
        let mut pairs: BinaryHeap<Pair> = (1..end).filter_map(|at| pair(&tokens, at - 1, at)).collect();
        while let Some(Pair {
            left,
            right,
            joined,
            tokens: seen,
            ..
        }) = pairs.pop()
        {
            if (tokens[left], tokens[right]) != seen || next[left] != right {
                continue;
            }
            tokens[left] = joined;
            tokens[right] = GONE;
            let after = next[right];
            next[left] = after;
            if after < end {
                previous[after] = left;
                pairs.extend(pair(&tokens, left, after));
            }
            if let Some(before) = Some(previous[left]).filter(|before| *before < end) {
                pairs.extend(pair(&tokens, before, left));
            }
        }
        tokens.retain(|token| *token != GONE);
        tokens
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tokens with these scores, after three special ones and the bytes.
    fn vocabulary(words: &[(&str, f32)]) -> Vocabulary {
        let bytes = (0..256_u32).map(|byte| (format!("<0x{byte:02X}>"), -1e9));
        let special = ["<unk>", "<s>", "</s>"].map(|name| (name.to_owned(), -1e9));
        let words = words.iter().map(|(word, score)| ((*word).to_owned(), *score));
        let all: Vec<(String, f32)> = special.into_iter().chain(bytes).chain(words).collect();
        let mut file = Vec::new();
        for number in [all.len() as u32, 64, 1, 2] {
            file.extend(number.to_le_bytes());
        }
        for (word, score) in all {
            file.extend(score.to_le_bytes());
            file.extend((word.len() as u32).to_le_bytes());
            file.extend(word.as_bytes());
        }
        Vocabulary::of(&file).unwrap()
    }

    fn words(vocabulary: &Vocabulary, text: &str) -> Vec<String> {
        let ids = vocabulary.encode(text);
        ids.iter()
            .map(|id| vocabulary.tokens[*id as usize].text.clone())
            .collect()
    }

    const LETTERS: [(&str, f32); 8] = [
        ("a", -9.0),
        ("b", -9.0),
        ("c", -9.0),
        ("ab", -2.0),
        ("bc", -1.0),
        ("abc", -5.0),
        ("aa", -3.0),
        ("aaa", -3.0),
    ];

    #[test]
    fn the_best_score_is_joined_first() {
        let vocabulary = vocabulary(&LETTERS);
        assert_eq!(words(&vocabulary, "abc"), ["abc"]);
        assert_eq!(words(&vocabulary, "abcb"), ["abc", "b"]);
        assert_eq!(words(&vocabulary, "aaaa"), ["aaa", "a"]);
    }

    #[test]
    fn an_unknown_character_is_its_bytes() {
        assert_eq!(words(&vocabulary(&LETTERS), "é"), ["<0xC3>", "<0xA9>"]);
    }

    #[test]
    fn a_file_that_is_cut_short_is_said_to_be() {
        assert!(Vocabulary::of(&[1, 0, 0]).is_err());
        assert!(Vocabulary::of(&[255; 64]).is_err());
    }

    /// What lm.rs does: looks through all pairs for the best one, again and again.
    fn slowly(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = text.chars().map(|c| vocabulary.ids[&c.to_string()]).collect();
        loop {
            let mut best: Option<(f32, usize, u32)> = None;
            for at in 1..tokens.len() {
                let text = |id: u32| vocabulary.tokens[id as usize].text.clone();
                let joined = text(tokens[at - 1]) + &text(tokens[at]);
                if let Some(id) = vocabulary.ids.get(&joined) {
                    let score = vocabulary.tokens[*id as usize].score;
                    if best.is_none_or(|(best, ..)| score > best) {
                        best = Some((score, at, *id));
                    }
                }
            }
            let Some((_, at, id)) = best else { return tokens };
            tokens[at - 1] = id;
            tokens.remove(at);
        }
    }

    proptest! {
        #[test]
        fn the_tokens_are_those_of_the_slow_way(text in "[abc]{0,40}") {
            let vocabulary = vocabulary(&LETTERS);
            prop_assert_eq!(vocabulary.encode(&text), slowly(&vocabulary, &text));
        }
    }
}
