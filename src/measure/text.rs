//! The text of an answer, kept so that it can be counted once the request is over.

/// The most text of one answer that is kept, in bytes: some 200,000 tokens.
const MOST: usize = 1 << 20;

/// The text of one answer. Its memory is reused from request to request.
#[derive(Debug, Clone, Default)]
pub(super) struct AnswerText {
    bytes: Vec<u8>,
    /// Bytes that the first event with output brought.
    first: usize,
    /// There was more than is kept.
    is_cut: bool,
}

/// Tokens of an answer, as a tokenizer counts its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub all: u32,
    /// Those of the first event with output.
    pub first: u32,
}

impl AnswerText {
    /// Forgets the answer; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.first, self.is_cut) = (0, false);
    }

    /// Where the text of an event of so many bytes goes, if there is room for it.
    pub fn room_for(&mut self, bytes: usize) -> Option<&mut Vec<u8>> {
        self.is_cut |= self.bytes.len() + bytes > MOST;
        (!self.is_cut).then_some(&mut self.bytes)
    }

    /// What is here came with the first event with output.
    pub fn first_event(&mut self) {
        self.first = self.bytes.len();
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it can be counted: there is some, and none is missing.
    pub fn is_whole(&self) -> bool {
        !self.is_cut && !self.bytes.is_empty()
    }

    /// Its tokens by `count`, unless that refuses the text.
    pub fn count(&self, count: &dyn Fn(&str) -> Option<u32>) -> Option<Counted> {
        let tokens = |bytes| count(&String::from_utf8_lossy(bytes));
        let all = tokens(&self.bytes).filter(|_| self.is_whole())?;
        let first = tokens(&self.bytes[..self.first]).unwrap_or(1);
        (all > 0).then(|| Counted {
            all,
            first: first.clamp(1, all),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<u32> {
        (!text.contains('?')).then(|| text.split_whitespace().count() as u32)
    }

    fn said(events: &[&str]) -> AnswerText {
        let mut text = AnswerText::default();
        for (number, event) in events.iter().enumerate() {
            if let Some(room) = text.room_for(event.len()) {
                room.extend_from_slice(event.as_bytes());
            }
            if number == 0 {
                text.first_event();
            }
        }
        text
    }

    #[test]
    fn the_tokens_of_the_first_event_are_told_apart() {
        let counted = said(&["two words", " and three more"]).count(&words);
        assert_eq!(counted, Some(Counted { all: 5, first: 2 }));
        // An event that completes no word still is one token.
        assert_eq!(
            said(&[" ", "word"]).count(&words),
            Some(Counted { all: 1, first: 1 })
        );
    }

    #[test]
    fn what_is_not_whole_or_refused_is_not_counted() {
        assert_eq!(said(&["what", "?"]).count(&words), None);
        assert_eq!(said(&[]).count(&words), None);
        let half = "a ".repeat(MOST / 4 + 1);
        let mut long = said(&[&half, &half, "b"]);
        assert_eq!((long.is_whole(), long.count(&words)), (false, None));
        assert!(long.len() <= MOST);
        long.clear();
        assert!(!long.is_whole() && long.room_for(MOST).is_some());
    }
}
