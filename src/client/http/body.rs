//! The body of a response: chunks, a length, or whatever comes until the connection ends.

use super::{HttpError, MAX_HEAD};

/// Where a body is between its framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk's size line: the size so far, digits seen, and whether an extension has begun.
    Size {
        size: u64,
        digits: u8,
        extension: bool,
    },
    /// In a chunk's data.
    Data(u64),
    /// After a chunk's data, before its line end.
    DataEnd,
    /// In the trailer after the last chunk; bytes of the line so far.
    Trailer(u32),
    /// In a body of known length.
    Sized(u64),
    UntilClose,
    Done,
}

/// The decoder of one response body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    state: State,
    /// Bytes of the chunk so far, framing included, and of the chunk before it.
    wire: usize,
    before: usize,
}

const SIZE: State = State::Size {
    size: 0,
    digits: 0,
    extension: false,
};

/// An element of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the body.
    Data(&'a [u8]),
    /// All input is used up.
    More,
    /// The body is over; what is left of the input is not part of it.
    End,
}

impl Body {
    fn new(state: State) -> Self {
        Self {
            state,
            wire: 0,
            before: 0,
        }
    }

    /// A chunked body.
    pub fn chunked() -> Self {
        Self::new(SIZE)
    }

    /// A body of `length` bytes.
    pub fn sized(length: u64) -> Self {
        Self::new(if length == 0 {
            State::Done
        } else {
            State::Sized(length)
        })
    }

    /// A body that ends with its connection.
    pub fn until_close() -> Self {
        Self::new(State::UntilClose)
    }

    /// Whether the end of the connection here is the end of the body.
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// How many bytes can be read without crossing the end of the current chunk, at least: whoever reads no more
    /// never reads bytes of two chunks at once.
    pub fn boundary(&self) -> usize {
        match self.state {
            // The shortest chunk with data is 6 bytes, the last one 5.
            State::Size { digits: 0, .. } => 4,
            State::Size { .. } | State::Trailer(_) => 2,
            State::Data(left) => usize::try_from(left).unwrap_or(usize::MAX).saturating_add(2),
            State::DataEnd => 2,
            State::Sized(_) | State::UntilClose | State::Done => 64,
        }
    }

    /// Bytes of the latest whole chunk, framing included; 0 before the first.
    pub fn latest_chunk(&self) -> usize {
        self.before
    }

    /// Takes the next element off `input`.
    ///
    /// # Errors
    /// If the framing is broken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, HttpError> {
        loop {
            if self.state == State::Done {
                return Ok(Piece::End);
            }
            let Some(&byte) = input.first() else {
                return Ok(Piece::More);
            };
            match self.state {
                State::Data(left) => {
                    let (data, left) = split(input, left);
                    self.wire += data.len();
                    self.state = if left == 0 {
                        State::DataEnd
                    } else {
                        State::Data(left)
                    };
                    return Ok(Piece::Data(data));
                }
                State::Sized(left) => {
                    let (data, left) = split(input, left);
                    self.state = if left == 0 {
                        State::Done
                    } else {
                        State::Sized(left)
                    };
                    return Ok(Piece::Data(data));
                }
                State::UntilClose => return Ok(Piece::Data(std::mem::take(input))),
                _ => {
                    *input = &input[1..];
                    self.wire += 1;
                    self.state = self.framing(byte)?;
                }
            }
        }
    }

    /// The state after one byte of framing.
    fn framing(&mut self, byte: u8) -> Result<State, HttpError> {
        Ok(match (self.state, byte) {
            (State::Size { digits: 0, .. }, b'\n') => return Err(HttpError::Chunk),
            (State::Size { size: 0, .. }, b'\n') => State::Trailer(0),
            (State::Size { size, .. }, b'\n') => State::Data(size),
            (State::Size { extension: true, .. }, _) => self.state,
            (
                State::Size {
                    size, digits: 1.., ..
                },
                b';' | b' ' | b'\t' | b'\r',
            ) => State::Size {
                size,
                digits: 1,
                extension: true,
            },
            (State::Size { size, digits, .. }, _) => {
                let digit = (byte as char).to_digit(16).ok_or(HttpError::Chunk)?;
                if digits == 15 {
                    return Err(HttpError::Chunk);
                }
                State::Size {
                    size: size * 16 + u64::from(digit),
                    digits: digits + 1,
                    extension: false,
                }
            }
            (State::DataEnd, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => {
                self.before = std::mem::take(&mut self.wire);
                SIZE
            }
            (State::Trailer(0), b'\n') => State::Done,
            (State::Trailer(_), b'\n') => State::Trailer(0),
            (State::Trailer(seen), b'\r') => State::Trailer(seen),
            (State::Trailer(seen), _) if (seen as usize) < MAX_HEAD => State::Trailer(seen + 1),
            _ => return Err(HttpError::Chunk),
        })
    }
}

/// Splits up to `left` bytes off `input`; also says how many are left after them.
fn split<'a>(input: &mut &'a [u8], left: u64) -> (&'a [u8], u64) {
    let take = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    let (data, rest) = input.split_at(take);
    *input = rest;
    (data, left - take as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `pieces` and returns the body, and what follows it once it is over.
    fn decode(mut body: Body, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), HttpError> {
        let mut data = Vec::new();
        for mut piece in pieces.iter().copied() {
            loop {
                match body.next(&mut piece)? {
                    Piece::Data(bytes) => data.extend_from_slice(bytes),
                    Piece::More => break,
                    Piece::End => return Ok((data, true)),
                }
            }
        }
        Ok((data, false))
    }

    fn chunked(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks {
            wire.extend(format!("{:X};x=1\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        wire.extend(b"0\r\nTrailer: x\r\n\r\n");
        wire
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in ["\r\n", "x\r\n", "1\r\nab", "ffffffffffffffffff\r\n"] {
            assert_eq!(
                decode(Body::chunked(), &[wire.as_bytes()]),
                Err(HttpError::Chunk),
                "{wire:?}"
            );
        }
    }

    #[test]
    fn the_end_of_a_connection_is_an_end_only_where_nothing_is_missing() {
        assert!(Body::until_close().may_end() && Body::sized(0).may_end());
        assert!(!Body::chunked().may_end() && !Body::sized(1).may_end());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_body(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), step in 1..50_usize,
        ) {
            let wire = chunked(&chunks);
            let pieces: Vec<_> = wire.chunks(step).collect();
            prop_assert_eq!(decode(Body::chunked(), &pieces), Ok((chunks.concat(), true)));
        }

        #[test]
        fn a_reader_that_keeps_to_the_boundary_never_reads_two_chunks_at_once(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 1..8),
        ) {
            let mut body = Body::chunked();
            let mut ends = Vec::new();
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
                ends.push(wire.len());
            }
            wire.extend(b"0\r\n\r\n");
            let mut at = 0;
            while body.state != State::Done {
                let next = (at + body.boundary()).min(wire.len());
                prop_assert!(ends.iter().all(|&end| !(at < end && end < next)), "{at}..{next} crosses an end");
                let mut input = &wire[at..next];
                while matches!(body.next(&mut input), Ok(Piece::Data(_))) {}
                at = next;
            }
        }
    }
}
