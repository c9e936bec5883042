//! What holds for any bytes. Each function panics where it does not; `tests/fuzzed.rs` and the fuzzer call them.
//!
//! The first byte of the input says how the rest is cut into pieces.

use loadtest::client::http::{Body, Head, HttpError, MAX_HEAD, Piece};
use loadtest::client::offline::Reader;
use loadtest::client::sse::Splitter;
use loadtest::measure::{Event, Outcome};
use loadtest_protocol::{Chunk, ChunkReader, ChunkRef};

/// Bytes in pieces of lengths that `seed` decides on.
struct Pieces<'a> {
    bytes: &'a [u8],
    seed: u64,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // Constants of a 64-bit linear congruential generator (Knuth, MMIX).
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let longest = [1, 3, 20, 400][(self.seed >> 40) as usize % 4];
        let take = 1 + (self.seed >> 33) as usize % longest;
        let (piece, rest) = self.bytes.split_at_checked(take).unwrap_or((self.bytes, &[]));
        self.bytes = rest;
        (!piece.is_empty()).then_some(piece)
    }
}

/// An input: its bytes, and the ways in which they are cut: whole, byte by byte, and by the input's first byte.
type Input<'a> = (&'a [u8], [Vec<&'a [u8]>; 3]);

fn cuts(data: &[u8]) -> Option<Input<'_>> {
    let (&seed, bytes) = data.split_first()?;
    let seed = u64::from(seed);
    Some((
        bytes,
        [
            vec![bytes],
            bytes.chunks(1).collect(),
            Pieces { bytes, seed }.collect(),
        ],
    ))
}

/// The longest event taken by the splitter under test: short, so that a fuzzer reaches it.
const LIMIT: usize = 200;

/// Any cut of a stream gives the same events and the same end, no event is longer than the limit, and no more than the
/// stream has bytes.
pub fn sse(data: &[u8]) {
    let Some((bytes, cuts)) = cuts(data) else { return };
    let results = cuts.map(|pieces| {
        let mut splitter = Splitter::new(LIMIT);
        let mut events = Vec::new();
        let fed = pieces.into_iter().try_for_each(|piece| {
            let fed = splitter.feed(piece, |event| events.push((event.data.to_vec(), event.is_error)));
            assert!(splitter.memory() <= 4 * LIMIT + 2 * piece.len() + 64);
            fed
        });
        (events, fed)
    });
    let [(events, _), ..] = &results;
    assert!(events.iter().all(|(data, _)| data.len() <= LIMIT));
    assert!(events.iter().map(|(data, _)| data.len()).sum::<usize>() <= bytes.len());
    same(&results);
}

/// Any cut of a response gives the same head and the same body.
pub fn http(data: &[u8]) {
    let Some((bytes, cuts)) = cuts(data) else { return };
    let head = Head::read(bytes);
    let read = cuts.clone().map(|pieces| {
        let mut came = 0;
        pieces.into_iter().find_map(|piece| {
            came += piece.len();
            Head::read(&bytes[..came]).transpose()
        })
    });
    same(&read);
    if bytes.len() > MAX_HEAD {
        assert_ne!(head, Ok(None), "there is an end to waiting for a head");
    }
    let Ok(Some(head)) = head else { return };
    assert!(head.len <= bytes.len() && head.status >= 200);
    body(&head.body, &bytes[head.len..]);
    for framing in [Body::chunked(), Body::sized(100), Body::until_close()] {
        body(&framing, &bytes[head.len..]);
    }
}

/// What a body came to: its bytes, those behind it if it ended, and whether the connection may end here.
type Decoded = Result<(Vec<u8>, Option<usize>, bool), HttpError>;

fn decode<'a>(mut body: Body, pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let (mut data, mut left, mut over) = (Vec::new(), 0, false);
    // A body may be over before its first byte.
    for mut piece in pieces.chain([&[][..]]) {
        while !over {
            assert!(body.boundary() > 0, "there is always something to read");
            match body.next(&mut piece)? {
                Piece::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    data.extend_from_slice(bytes);
                }
                Piece::More => break,
                Piece::End => over = true,
            }
        }
        left += piece.len();
    }
    Ok((data, over.then_some(left), body.may_end()))
}

fn body(framing: &Body, bytes: &[u8]) {
    let whole = decode(framing.clone(), std::iter::once(bytes));
    let results = [
        decode(framing.clone(), bytes.chunks(1)),
        decode(framing.clone(), bytes.chunks(7)),
        whole,
    ];
    same(&results);
    if let Ok((data, left, _)) = &results[0] {
        assert!(data.len() + left.unwrap_or(0) <= bytes.len());
    }
}

/// What a response came to.
#[derive(Debug, PartialEq)]
struct Answered {
    outcome: Outcome,
    message: String,
    over: bool,
    status: Option<u16>,
    events: Vec<u32>,
    tokens: (Option<u32>, Option<u32>),
    visible: bool,
}

/// Any cut of a response gives the same outcome and the same events, and its instants come one after the other.
pub fn answer(data: &[u8]) {
    let Some((_, cuts)) = cuts(data) else { return };
    // One reader for all, as a user has one for all its requests.
    let mut reader = Reader::default();
    let results = cuts.map(|pieces| {
        reader.clear();
        answered(&mut reader, &pieces)
    });
    same(&results);
}

fn answered(reader: &mut Reader, pieces: &[&[u8]]) -> Answered {
    let mut at_ns = 0;
    let mut ended = Ok(false);
    for piece in pieces {
        at_ns += 1;
        ended = reader.read(piece, at_ns);
        if !matches!(ended, Ok(false)) {
            break;
        }
    }
    let over = matches!(ended, Ok(true));
    let result = match ended {
        Ok(true) => Ok(()),
        Ok(false) => reader.close(at_ns + 1),
        Err(failure) => Err(failure),
    };
    let trace = &reader.trace;
    let instants = [trace.headers_ns, trace.first_ns(), trace.last_ns(), trace.end_ns];
    assert!(
        instants.iter().flatten().is_sorted(),
        "instants out of order: {instants:?}"
    );
    assert!(trace.events().is_sorted_by_key(|event| event.at_ns));
    assert!(
        result.is_err() || (trace.count() > 0 && instants.iter().all(Option::is_some)),
        "a good answer has every instant"
    );
    assert_eq!(trace.count() as usize, trace.events().len());
    let (outcome, message) = match result {
        Ok(()) => (Outcome::Ok, String::new()),
        Err(failure) => (failure.outcome, failure.message()),
    };
    Answered {
        outcome,
        message,
        over,
        status: trace.status,
        events: trace
            .events()
            .iter()
            .map(|Event { tokens, .. }| *tokens)
            .collect(),
        tokens: (trace.n_in, trace.n_out),
        visible: trace.first_visible_ns.is_some(),
    }
}

/// A chunk, a line each, says the same whatever was read before it, and only what JSON says.
pub fn chunk(data: &[u8]) {
    let mut reader = ChunkReader::default();
    for payload in data.split(|&byte| byte == b'\n') {
        let alone = ChunkRef::parse(payload);
        if let Ok(chunk) = &alone {
            assert!(
                chunk.carries_output() || !chunk.carries_visible_output(),
                "what is visible is output"
            );
        }
        let said = alone
            .as_ref()
            .map_or(String::new(), |chunk| chunk.texts().collect());
        let alone = alone.ok().map(Chunk::from);
        for time in ["first", "second"] {
            let mut texts = Vec::new();
            let chunk = reader.read_text(payload, Some(&mut texts)).ok();
            assert_eq!(
                (chunk, texts),
                (alone.clone(), said.clone().into_bytes()),
                "the {time} time"
            );
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(results: &[T]) {
    assert!(
        results.windows(2).all(|two| two[0] == two[1]),
        "the cut makes a difference: {results:#?}"
    );
}
