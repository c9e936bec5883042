//! The chunks of one stream, read one after the other.

use std::borrow::Cow;

use crate::chunk::{ChoiceRef, ChunkRef, ErrorRef, Text, UsageRef};

/// The longest payload that is remembered, in bytes.
const MAX_REMEMBERED: usize = 4096;

/// What a load generator wants to know of one chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// See [`ChunkRef::carries_output`].
    pub output: bool,
    /// See [`ChunkRef::carries_visible_output`].
    pub visible: bool,
    /// Whether a choice ended in it.
    pub finished: bool,
    /// See [`ChunkRef::usage`].
    pub usage: Option<UsageRef>,
    /// See [`ChunkRef::error`].
    pub error: Option<ErrorRef<'a>>,
}

impl<'a> From<ChunkRef<'a>> for Chunk<'a> {
    fn from(chunk: ChunkRef<'a>) -> Self {
        Self {
            output: chunk.carries_output(),
            visible: chunk.carries_visible_output(),
            finished: chunk.finish_reason().is_some(),
            usage: chunk.usage,
            error: chunk.error,
        }
    }
}

/// Reads chunks as [`ChunkRef::parse`] does, and faster: the chunks of a stream differ by little more than their text.
///
/// The bytes before and after the text of the latest chunk that was parsed are remembered. A chunk that has the same
/// bytes around another text says the same, because one JSON string stands in the place of another; it is not parsed.
#[derive(Debug, Default)]
pub struct ChunkReader {
    before: Vec<u8>,
    after: Vec<u8>,
    /// What a chunk between `before` and `after` says, if they were ever seen.
    known: Option<Chunk<'static>>,
}

impl ChunkReader {
    /// Reads the payload of one `data:` event (not `[DONE]`, which is no JSON). Allocates nothing, once the memory has
    /// grown to the chunks of the stream and as long as [`ChunkRef::parse`] does not.
    ///
    /// # Errors
    /// As [`ChunkRef::parse`].
    pub fn read<'a>(&mut self, payload: &'a [u8]) -> Result<Chunk<'a>, serde_json::Error> {
        self.read_text(payload, None)
    }

    /// The same, and appends the chunk's [texts](ChunkRef::texts) to `into`: UTF-8, never longer than the payload.
    ///
    /// # Errors
    /// As [`ChunkRef::parse`].
    pub fn read_text<'a>(
        &mut self,
        payload: &'a [u8],
        into: Option<&mut Vec<u8>>,
    ) -> Result<Chunk<'a>, serde_json::Error> {
        if let Some(known) = &self.known
            && let Some(text) = text_between(payload, &self.before, &self.after)
        {
            if let Some(into) = into {
                unescape(text, into);
            }
            return Ok(known.clone());
        }
        let chunk = ChunkRef::parse(payload)?;
        if let Some(into) = into {
            chunk
                .texts()
                .for_each(|text| into.extend_from_slice(text.as_bytes()));
        }
        let text = place_of_text(&chunk, payload);
        let chunk = Chunk::from(chunk);
        if let Some((from, to)) = text
            && payload.len() <= MAX_REMEMBERED
            && chunk.error.is_none()
        {
            self.before.clear();
            self.before.extend_from_slice(&payload[..from]);
            self.after.clear();
            self.after.extend_from_slice(&payload[to..]);
            self.known = Some(Chunk { error: None, ..chunk });
        }
        Ok(chunk)
    }
}

/// What lies between `before` and `after` in `payload`, if that is text of a JSON string and not empty.
fn text_between<'a>(payload: &'a [u8], before: &[u8], after: &[u8]) -> Option<&'a [u8]> {
    let text = payload.strip_prefix(before)?.strip_suffix(after)?;
    (!text.is_empty() && is_plain(text)).then_some(text)
}

/// Appends what a JSON string of these bytes says, of which [`is_plain`] is true.
fn unescape(mut text: &[u8], into: &mut Vec<u8>) {
    while let Some(at) = text.iter().position(|byte| *byte == b'\\') {
        into.extend_from_slice(&text[..at]);
        let Some(escaped) = text.get(at + 1) else { return };
        into.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            other => *other,
        });
        text = &text[at + 2..];
    }
    into.extend_from_slice(text);
}

/// Whether a JSON string may consist of these bytes: no quote, no control character, and of the escapes the short
/// ones alone.
fn is_plain(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' | 0..=0x1f => return false,
            b'\\' => match bytes.next() {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                _ => return false,
            },
            _ => {}
        }
    }
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// From where to where the first text of the chunk's first choice lies in its payload, if it is the only one and free of
/// escapes.
fn place_of_text(chunk: &ChunkRef<'_>, payload: &[u8]) -> Option<(usize, usize)> {
    let text = chunk.choices().next().and_then(first_text)?;
    if chunk.texts().nth(1).is_some() {
        return None;
    }
    let Cow::Borrowed(text) = text.0 else { return None };
    let from = text.as_ptr().addr().checked_sub(payload.as_ptr().addr())?;
    let to = from.checked_add(text.len())?;
    (!text.is_empty() && to <= payload.len()).then_some((from, to))
}

fn first_text<'c, 'a>(choice: &'c ChoiceRef<'a>) -> Option<&'c Text<'a>> {
    let delta = choice.delta.as_ref();
    let of_delta = delta.into_iter().flat_map(|delta| {
        [
            &delta.content,
            &delta.reasoning_content,
            &delta.reasoning,
            &delta.refusal,
        ]
    });
    std::iter::once(&choice.text)
        .chain(of_delta)
        .flatten()
        .find(|text| !text.0.is_empty())
}
