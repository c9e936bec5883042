//! Text and tokens: what the scheduler asks of a model's tokenizer, and tokens turned back into text.

use loadtest_model::{ModelText, Special};
use serde_json::Value;

/// The text side of a model.
pub trait TextModel: Send + Sync + 'static {
    /// The tokens of a text; `special` says whether `<|name|>` in it means the special token.
    ///
    /// # Errors
    /// If the tokenizer cannot encode it.
    fn encode(&self, text: &str, special: bool) -> anyhow::Result<Vec<u32>>;

    /// The token that begins every sequence, if the model wants one.
    fn bos(&self) -> Option<u32>;

    /// A conversation as the model was trained to read it, up to where the assistant speaks.
    ///
    /// # Errors
    /// If the model has no chat template, or its template refuses the messages.
    fn chat_prompt(&self, messages: &[Value]) -> anyhow::Result<String>;

    /// The bytes a token stands for; a character may be spread over several tokens.
    fn token_bytes(&self, token: u32) -> &[u8];

    /// The tokens by which the model ends its output, in ascending order.
    fn end_tokens(&self) -> &[u32];
}

impl TextModel for ModelText {
    fn encode(&self, text: &str, special: bool) -> anyhow::Result<Vec<u32>> {
        Ok(self.encode(text, if special { Special::Parse } else { Special::Plain })?)
    }

    fn bos(&self) -> Option<u32> {
        self.bos()
    }

    fn chat_prompt(&self, messages: &[Value]) -> anyhow::Result<String> {
        Ok(self.chat_prompt(messages)?)
    }

    fn token_bytes(&self, token: u32) -> &[u8] {
        self.token_bytes(token)
    }

    fn end_tokens(&self) -> &[u32] {
        self.end_ids()
    }
}

/// Turns the bytes of tokens into text that can be shown: whole characters, nothing of a stop text.
#[derive(Debug, Default)]
pub struct Detokenizer {
    /// The start of a character that is not complete.
    bytes: Vec<u8>,
    /// Text that may be the start of a stop text.
    held: String,
    stop: Vec<String>,
}

impl Detokenizer {
    /// For an output that the `stop` texts end.
    pub fn new(stop: Vec<String>) -> Self {
        Self {
            bytes: Vec::new(),
            held: String::new(),
            stop,
        }
    }

    /// Takes a token's bytes in; returns the text that is certain now, and whether a stop text was met, in which
    /// case that text is the last. `may_stop` false lets stop texts pass.
    pub fn push(&mut self, bytes: &[u8], may_stop: bool) -> (String, bool) {
        self.bytes.extend_from_slice(bytes);
        self.take_characters();
        if self.stop.is_empty() || !may_stop {
            return (std::mem::take(&mut self.held), false);
        }
        if let Some(at) = self
            .stop
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min()
        {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let tail = self.held.split_off(self.held.len() - self.possible_stop());
        (std::mem::replace(&mut self.held, tail), false)
    }

    /// What is left when the output ends; an incomplete character shows as U+FFFD.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&self.bytes));
        self.bytes.clear();
        text
    }

    /// Moves complete characters from `bytes` to `held`; bytes that can never be one become U+FFFD.
    fn take_characters(&mut self) {
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(text) => {
                    self.held.push_str(text);
                    self.bytes.clear();
                    return;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    self.held.push_str(&String::from_utf8_lossy(&self.bytes[..valid]));
                    let Some(invalid) = error.error_len() else {
                        self.bytes.drain(..valid);
                        return;
                    };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    self.bytes.drain(..valid + invalid);
                }
            }
        }
    }

    /// Length of the longest end of `held` that begins a stop text.
    fn possible_stop(&self) -> usize {
        let begins = |tail: &str| self.stop.iter().any(|stop| stop.starts_with(tail));
        let starts = self.held.char_indices().map(|(at, _)| at);
        starts
            .map(|at| &self.held[at..])
            .find(|tail| begins(tail))
            .map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text that comes out piece by piece, and whether a stop text ended it.
    fn run(text: &[u8], cuts: &[usize], stop: &[&str]) -> (Vec<String>, bool) {
        let mut detokenizer = Detokenizer::new(stop.iter().map(|stop| (*stop).to_owned()).collect());
        let mut pieces = Vec::new();
        let mut rest = text;
        for cut in cuts.iter().copied().chain([text.len()]) {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            rest = tail;
            let (piece, stopped) = detokenizer.push(head, true);
            pieces.push(piece);
            if stopped {
                return (pieces, true);
            }
        }
        pieces.push(detokenizer.finish());
        (pieces, false)
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_text(text in "[abé東🦀]{0,24}", cuts in prop::collection::vec(0_usize..4, 0..40)) {
            let (pieces, stopped) = run(text.as_bytes(), &cuts, &[]);
            prop_assert!(!stopped);
            prop_assert_eq!(pieces.concat(), text);
        }

        #[test]
        fn output_ends_where_a_stop_text_begins(
            text in "[abé]{0,24}",
            cuts in prop::collection::vec(1_usize..4, 24..40),
            stop in "[abé]{1,3}",
        ) {
            let (pieces, stopped) = run(text.as_bytes(), &cuts, &[&stop]);
            let expected = text.split(stop.as_str()).next().unwrap_or_default();
            prop_assert_eq!(pieces.concat(), expected);
            prop_assert_eq!(stopped, text.contains(&stop));
        }
    }

    #[test]
    fn half_a_character_is_held_back() {
        let (pieces, _) = run("é!".as_bytes(), &[1, 1], &[]);
        assert_eq!(pieces, ["", "é", "!", ""]);
    }

    #[test]
    fn broken_bytes_become_replacement_characters() {
        assert_eq!(
            run(b"a\xffb\xe6\x9d", &[1, 1, 1, 1], &[]).0.concat(),
            "a\u{fffd}b\u{fffd}"
        );
    }

    #[test]
    fn what_may_become_a_stop_text_is_held_back() {
        let (pieces, stopped) = run(b"one END", &[5, 1], &["END", "E!"]);
        assert_eq!((pieces.concat().as_str(), stopped), ("one ", true));
        let (pieces, stopped) = run(b"one EN", &[5, 1], &["END"]);
        assert_eq!(pieces, ["one ", "", "", "EN"]);
        assert!(!stopped);
    }
}
