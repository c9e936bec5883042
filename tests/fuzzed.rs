//! What the fuzzer looks for, without a fuzzer: its targets over the corpus, and over each seed with bytes changed at
//! random, the same ones every time.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Changed copies of each seed.
const COPIES: usize = 300;

/// Bytes that mean something to one of the parsers.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n\n",
    b"\r",
    b"data: ",
    b"event: error\n",
    b"data: [DONE]\n\n",
    b"\xef\xbb\xbf",
    b"0\r\n\r\n",
    b"\"",
    b"\\",
    b"null",
    b"{\"error\":\"x\"}",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"content-length: 7\r\n",
    b"transfer-encoding: chunked\r\n",
    b"\xff",
];

/// Cuts, doubles, overwrites or inserts at a random place.
fn change(seed: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=seed.len());
    let to = (at + rng.random_range(1..20)).min(seed.len());
    match rng.random_range(0..4) {
        0 => drop(seed.drain(at..to)),
        1 => {
            let again = seed[at..to].to_vec();
            seed.splice(at..at, again);
        }
        2 => seed[at..to]
            .iter_mut()
            .take(1)
            .for_each(|byte| *byte = rng.random()),
        _ => {
            let word = WORDS.choose(rng).copied().unwrap_or_default();
            seed.splice(at..at, word.iter().copied());
        }
    }
}

fn over_the_corpus(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let files = std::fs::read_dir(&folder).expect("the target's corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for path in paths {
        let seed = std::fs::read(&path).expect("a seed");
        target(&seed);
        for _ in 0..COPIES {
            let mut copy = seed.clone();
            for _ in 0..rng.random_range(1..6) {
                change(&mut copy, &mut rng);
            }
            target(&copy);
        }
    }
}

#[test]
fn streams() {
    over_the_corpus("sse", targets::sse);
}

#[test]
fn responses() {
    over_the_corpus("http", targets::http);
}

#[test]
fn answers() {
    over_the_corpus("answer", targets::answer);
}

#[test]
fn chunks() {
    over_the_corpus("chunk", targets::chunk);
}
