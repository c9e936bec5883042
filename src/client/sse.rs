//! Server-sent events: bytes in any pieces to events, without copying an event that came whole.

use memchr::memchr2;

/// An event or a line of it was longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {limit} bytes")]
pub struct TooLong {
    /// The longest event taken, in bytes.
    pub limit: usize,
}

/// One event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its `data` lines, joined by line feeds.
    pub data: &'a [u8],
    /// Whether it is named `error`.
    pub is_error: bool,
}

/// Splits a stream into events, after the HTML standard's "event stream interpretation": lines end in CRLF, LF or
/// CR, comments and unknown fields are skipped, a blank line completes an event, an event without data is none.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// Data of an event that is not complete.
    data: Vec<u8>,
    has_data: bool,
    is_error: bool,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    first_line: bool,
}

impl Splitter {
    /// A splitter that refuses events longer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            is_error: false,
            after_cr: false,
            first_line: true,
        }
    }

    /// Ready for the next stream; keeps its memory.
    pub fn reset(&mut self) {
        self.line.clear();
        self.data.clear();
        self.has_data = false;
        self.is_error = false;
        self.after_cr = false;
        self.first_line = true;
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.line.capacity() + self.data.capacity()
    }

    /// Takes the next bytes and hands over every event that they complete.
    ///
    /// # Errors
    /// If a line and the data of its event before it are together longer than the limit, wherever the bytes were cut.
    /// The stream cannot be continued after that.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        // Data of one line that lies whole in `bytes`: handed over from where it is, unless more comes to it.
        let mut whole: Option<&[u8]> = None;
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let found = memchr2(b'\n', b'\r', bytes);
            let line = &bytes[..found.unwrap_or(bytes.len())];
            self.check(line, whole)?;
            let Some(end) = found else {
                self.line.extend_from_slice(line);
                break;
            };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if self.line.is_empty() {
                self.take_line(line, &mut whole, &mut each);
            } else {
                // Only the first line of a feed can have begun before it, so `whole` is empty here.
                let mut carried = std::mem::take(&mut self.line);
                carried.extend_from_slice(line);
                let mut data = None;
                self.take_line(&carried, &mut data, &mut each);
                self.keep(data);
                carried.clear();
                self.line = carried;
            }
        }
        self.keep(whole);
        Ok(())
    }

    fn take_line<'a>(
        &mut self,
        line: &'a [u8],
        whole: &mut Option<&'a [u8]>,
        each: &mut impl FnMut(Event<'_>),
    ) {
        let line = match std::mem::take(&mut self.first_line) {
            true => line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            self.complete(whole.take(), each);
        } else if let Some(data) = value(line, b"data") {
            if self.has_data || whole.is_some() {
                self.keep(whole.take());
                self.keep(Some(data));
            } else {
                *whole = Some(data);
            }
        } else if let Some(name) = value(line, b"event") {
            self.is_error = name == b"error";
        }
    }

    /// A blank line: the event is complete, if it has data.
    fn complete(&mut self, whole: Option<&[u8]>, each: &mut impl FnMut(Event<'_>)) {
        let is_error = std::mem::take(&mut self.is_error);
        if let Some(data) = whole {
            each(Event { data, is_error });
        } else if std::mem::take(&mut self.has_data) {
            each(Event {
                data: &self.data,
                is_error,
            });
            self.data.clear();
        }
    }

    /// Copies a line of data, because its event goes on after the bytes at hand.
    fn keep(&mut self, data: Option<&[u8]>) {
        let Some(data) = data else { return };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data);
        self.has_data = true;
    }

    /// Whether `line`, what came of it before, and the data of its event are within the limit.
    fn check(&self, line: &[u8], whole: Option<&[u8]>) -> Result<(), TooLong> {
        let data = self.data.len() + whole.map_or(0, <[u8]>::len);
        match self.line.len() + line.len() + data <= self.limit {
            true => Ok(()),
            false => Err(TooLong { limit: self.limit }),
        }
    }
}

/// The value of a line `field: value`, without the one space that may lead it; a line without a colon has an empty one.
fn value<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(field)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (Vec<u8>, bool);

    fn events(pieces: &[&[u8]]) -> Vec<Owned> {
        let mut splitter = Splitter::new(1 << 16);
        let mut events = Vec::new();
        for piece in pieces {
            splitter
                .feed(piece, |event| events.push((event.data.to_vec(), event.is_error)))
                .expect("short events");
        }
        events
    }

    fn data(stream: &str) -> Vec<String> {
        events(&[stream.as_bytes()])
            .into_iter()
            .map(|(data, _)| String::from_utf8(data).expect("the stream is text"))
            .collect()
    }

    #[test]
    fn line_ends_comments_and_fields() {
        assert_eq!(
            data("data: a\n\ndata: b\r\n\r\ndata: c\r\rdata:d\n\n"),
            ["a", "b", "c", "d"]
        );
        assert_eq!(
            data(": ping\n\nid: 7\nretry: 3\ndata: a\nunknown\n\n: x\n\n"),
            ["a"]
        );
        assert_eq!(data("data: one\ndata:  two\ndata\n\n"), ["one\n two\n"]);
        assert_eq!(data("\u{feff}data: a\n\n\u{feff}data: b\n\n"), ["a"]);
        assert_eq!(data("data: cut short\n"), [""; 0]);
        assert_eq!(data("database: no\n\n"), [""; 0]);
    }

    #[test]
    fn an_error_is_named() {
        let stream = b"event: error\ndata: no\n\nevent: message\ndata: yes\n\n";
        assert_eq!(
            events(&[stream]),
            [(b"no".to_vec(), true), (b"yes".to_vec(), false)]
        );
    }

    #[test]
    fn memory_is_bounded() {
        for line in ["x", "data: x\n"] {
            let mut splitter = Splitter::new(100);
            let fed = (0..1_000).find_map(|_| splitter.feed(line.as_bytes(), |_| {}).err());
            assert_eq!(fed, Some(TooLong { limit: 100 }), "{line:?}");
        }
    }

    #[test]
    fn the_limit_is_the_same_for_an_event_that_came_whole() {
        for (length, taken) in [(94, true), (95, false)] {
            let event = format!("data: {}\n\n", "x".repeat(length));
            for step in [1, 50, event.len()] {
                let mut splitter = Splitter::new(100);
                let fed = event
                    .as_bytes()
                    .chunks(step)
                    .try_for_each(|piece| splitter.feed(piece, |_| {}));
                assert_eq!(fed.is_ok(), taken, "{length} bytes of data in pieces of {step}");
            }
        }
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("data: "),
            Just("data:"),
            Just("event: error"),
            Just("\n"),
            Just("\r"),
            Just("\r\n"),
            Just("\n\n"),
            Just("\r\n\r\n"),
            Just(": comment"),
            Just("{\"a\": \"é😀\"}"),
            Just("[DONE]"),
            Just("\u{feff}"),
            Just("x"),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(stream in stream(), cuts in prop::collection::vec(0..200_usize, 0..12)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            let bytes: Vec<_> = stream.chunks(1).collect();
            let expected = events(&[&stream]);
            prop_assert_eq!(events(&pieces), expected.clone());
            prop_assert_eq!(events(&bytes), expected);
        }
    }
}
