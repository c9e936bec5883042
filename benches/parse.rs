//! What parsing alone costs: responses in memory, read by this client and by a minimal reader that only counts
//! `"content":"`, in the same run.
//!
//! `cargo bench --bench parse`

use std::hint::black_box;
use std::time::{Duration, Instant};

use loadtest::client::offline::Reader;
use loadtest_protocol::ChunkRef;

/// Events of output in a response.
const EVENTS: usize = 2_000;

/// Bytes of a large read: what the minimal reader of `capacity` takes at once.
const LARGE: usize = 65_536;

/// How long each figure is measured.
const TIME: Duration = Duration::from_millis(400);

/// Streams of real servers, and what the reference server sends.
const STREAMS: [(&str, &str); 4] = [
    (
        "llama.cpp",
        include_str!("../servers/protocol/tests/streams/xllamacpp.txt"),
    ),
    (
        "transformers serve",
        include_str!("../servers/protocol/tests/streams/transformers-serve.txt"),
    ),
    (
        "transformers serve, continuous batching",
        include_str!("../servers/protocol/tests/streams/transformers-serve-cb.txt"),
    ),
    ("reference", include_str!("../fuzz/corpus/sse/good")),
];

/// A response as it comes over the wire.
struct Response {
    head: Vec<u8>,
    /// A chunk for every event.
    chunks: Vec<Vec<u8>>,
}

impl Response {
    /// The recorded stream, with each of its events of output so often that there are enough of them.
    fn of(stream: &str) -> Self {
        let events: Vec<&str> = stream
            .split("\n\n")
            .map(|event| &event[event.find("data: ").unwrap_or(event.len())..])
            .filter(|event| !event.is_empty())
            .collect();
        let carries = |event: &&&str| {
            ChunkRef::parse(&event.as_bytes()["data: ".len()..]).is_ok_and(|chunk| chunk.carries_output())
        };
        let recorded = events.iter().filter(carries).count();
        // One after the other, so that their time of creation passes as it does in a long stream.
        let output = events.iter().filter(carries);
        let output = output
            .flat_map(|event| std::iter::repeat_n(event, EVENTS.div_ceil(recorded)))
            .take(EVENTS);
        let first = events.iter().take_while(|event| !carries(event));
        let last = events.iter().rev().take_while(|event| !carries(event));
        let last: Vec<_> = last.collect();
        let all = first.chain(output).chain(last.into_iter().rev());
        let mut chunks: Vec<_> = all
            .map(|event| format!("{:X}\r\n{event}\n\n\r\n", event.len() + 2).into_bytes())
            .collect();
        chunks.push(b"0\r\n\r\n".to_vec());
        Self {
            head: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
            chunks,
        }
    }

    /// As large reads bring it.
    fn large_reads(&self) -> Vec<Vec<u8>> {
        let bytes = [&self.head[..], &self.chunks.concat()].concat();
        bytes.chunks(LARGE).map(<[u8]>::to_vec).collect()
    }

    /// As reads bring it that find one event each.
    fn event_reads(&self) -> Vec<Vec<u8>> {
        std::iter::once(&self.head).chain(&self.chunks).cloned().collect()
    }
}

/// Seconds that one call takes, the best of several rounds.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let mut best = f64::INFINITY;
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        let round = Instant::now();
        for _ in 0..4 {
            call();
        }
        best = best.min(round.elapsed().as_secs_f64() / 4.0);
    }
    best
}

fn minimal(reads: &[Vec<u8>]) -> usize {
    let finder = memchr::memmem::Finder::new(b"\"content\":\"");
    reads.iter().map(|read| finder.find_iter(read).count()).sum()
}

fn ours(reader: &mut Reader, reads: &[Vec<u8>]) {
    reader.clear();
    for (at_ns, read) in reads.iter().enumerate() {
        reader.read(read, at_ns as u64).expect("a good response");
    }
    assert_eq!(reader.trace.count() as usize, EVENTS);
}

fn main() {
    println!(
        "{:<40} {:<6} {:>9} {:>11} {:>9} {:>9} {:>7}",
        "stream", "reads", "MB/s", "events/s", "ns/event", "minimal", "ratio"
    );
    for (name, stream) in STREAMS {
        let response = Response::of(stream);
        let mut reader = Reader::default();
        for (size, reads) in [
            ("large", response.large_reads()),
            ("event", response.event_reads()),
        ] {
            assert!(
                minimal(&reads) >= EVENTS * 9 / 10,
                "the minimal reader finds the events"
            );
            let floor = seconds(|| {
                black_box(minimal(black_box(&reads)));
            });
            let took = seconds(|| ours(&mut reader, black_box(&reads)));
            let bytes: usize = reads.iter().map(Vec::len).sum();
            println!(
                "{name:<40} {size:<6} {:>9.0} {:>11.0} {:>9.1} {:>9.1} {:>7.2}",
                bytes as f64 / took / 1e6,
                EVENTS as f64 / took,
                took * 1e9 / EVENTS as f64,
                floor * 1e9 / EVENTS as f64,
                floor / took
            );
        }
        let payloads: Vec<_> = response.chunks[1..EVENTS]
            .iter()
            .filter_map(|chunk| Some(&chunk[memchr::memchr(b'{', chunk)?..chunk.len() - 4]))
            .collect();
        let serde = seconds(|| {
            for payload in &payloads {
                black_box(ChunkRef::parse(black_box(payload)).expect("a chunk"));
            }
        });
        println!(
            "{name:<40} JSON alone, every chunk parsed anew: {:.1} ns/event",
            serde * 1e9 / payloads.len() as f64
        );
    }
    println!("ratio: events/s of this client over those of the minimal reader");
}
