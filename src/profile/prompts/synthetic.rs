//! Prompts made to a wanted number of tokens.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::Item;
use super::nonce::{self, Nonces};
use crate::profile::words::Vocabulary;
use crate::profile::{Error, Length, Step};

/// Prompts in the pool of one step, at most.
const POOL: usize = 1024;
/// Tokens in the pool of one step, at most (but at least [`POOL_MIN`] prompts): it bounds the time the tokenizer takes.
const POOL_TOKENS: usize = 1 << 17;
/// Prompts in the pool of one step, at least.
const POOL_MIN: usize = 16;

/// Makes synthetic prompts.
pub struct Writer<'a> {
    pub vocabulary: Vocabulary,
    /// The tokenizer.
    pub count: &'a dyn Fn(&str) -> usize,
    pub rng: ChaCha8Rng,
}

impl Writer<'_> {
    /// Words of the nonces: as many as fit beside at least one token of text, but one at least.
    pub fn nonce_words(&self, isl: Length, shared: u32) -> u32 {
        let room = isl
            .mean
            .saturating_sub(shared)
            .saturating_sub(self.vocabulary.first as u32);
        (room / self.vocabulary.next.max(1) as u32).clamp(1, nonce::WORDS)
    }

    /// The pool of a step.
    pub fn items(&mut self, step: &Step, shared: u32, nonces: &Nonces) -> Result<Vec<Item>, Error> {
        let prefix = self.shared_prefix(shared)?;
        let size = (POOL_TOKENS / step.isl.mean.max(1) as usize).clamp(POOL_MIN, POOL);
        let shortest =
            shared + (self.vocabulary.first + self.vocabulary.next * (nonces.words as usize - 1)) as u32;
        (0..size)
            .map(|_| {
                let wanted = match step.isl.stddev {
                    0 => step.isl.mean,
                    _ => step.isl.draw(&mut self.rng).max(shortest),
                };
                let head = format!("{prefix}{}", nonces.text(self.rng.random()));
                let tail = self.fill(&head, wanted)?;
                Ok(Item {
                    messages: vec![json!({"role": "user", "content": format!("{prefix}{tail}")})],
                    at: (0, prefix.len()),
                    osl: step.osl.draw(&mut self.rng),
                })
            })
            .collect()
    }

    /// The text that all prompts start with, ending in a space.
    fn shared_prefix(&mut self, tokens: u32) -> Result<String, Error> {
        match tokens {
            0 => Ok(String::new()),
            _ => self.fill("", tokens).map(|text| text + " "),
        }
    }

    /// A text that makes `head` exactly `wanted` tokens long, as the tokenizer counts the two together without a
    /// space at the end. `head` is empty or ends in a space.
    fn fill(&mut self, head: &str, wanted: u32) -> Result<String, Error> {
        let target = wanted as usize;
        let mut words: Vec<&str> = Vec::new();
        let mut ending = String::new();
        // A guess from the cost of one word is right for most tokenizers at once; the rest is found by trying.
        for _ in 0..64 {
            let text = words.join(" ") + &ending;
            let have = (self.count)(format!("{head}{text}").trim_end());
            if have == target {
                return Ok(text);
            }
            let step = have.abs_diff(target) / self.vocabulary.next.max(1);
            if have > target {
                ending.clear();
                words.truncate(words.len().saturating_sub(step.max(1)));
            } else if step > 0 {
                ending.clear();
                let more = (0..step)
                    .map(|_| self.vocabulary.words[self.rng.random_range(0..self.vocabulary.words.len())]);
                words.extend(more.collect::<Vec<_>>());
            } else {
                ending.push_str(["a", ".", "o", "!", "e"][self.rng.random_range(0..5)]);
            }
        }
        let least = (self.count)(head.trim_end());
        Err(Error::Length {
            wanted,
            reason: format!(
                "what makes it unique takes {least} tokens, and words can't make up the rest exactly"
            ),
        })
    }
}
