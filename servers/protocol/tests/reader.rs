//! Chunks read one after the other say what each of them says alone.

use loadtest_protocol::{Chunk, ChunkReader, ChunkRef};
use proptest::prelude::*;

/// What a chunk says, and its texts.
fn alone(payload: &[u8]) -> Option<(Chunk<'_>, String)> {
    let chunk = ChunkRef::parse(payload).ok()?;
    let texts = chunk.texts().collect();
    Some((Chunk::from(chunk), texts))
}

#[track_caller]
fn same(payloads: &[Vec<u8>]) {
    let mut reader = ChunkReader::default();
    for payload in payloads {
        let mut texts = Vec::new();
        let chunk = reader.read_text(payload, Some(&mut texts)).ok();
        assert_eq!(
            chunk.map(|chunk| (chunk, String::from_utf8(texts).expect("text"))),
            alone(payload),
            "{}",
            String::from_utf8_lossy(payload)
        );
    }
}

/// Texts of a JSON string, and bytes that end it or are none.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(&b"a"[..]),
        1 => Just(&b" "[..]),
        1 => Just("é😀".as_bytes()),
        1 => Just(&b"\\n"[..]),
        1 => Just(&b"\\\""[..]),
        1 => Just(&b"\\u00e9"[..]),
        1 => Just(&b"\\ud800"[..]),
        1 => Just(&b"\\x"[..]),
        1 => Just(&b"\\"[..]),
        1 => Just(&b"\""[..]),
        1 => Just(&b"\","[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b"\xc3"[..]),
        1 => Just(&b"\"}}],\"error\":{\"message\":\"no"[..]),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// What stands around a text.
fn frame() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop_oneof![
        Just((
            r#"{"id":"a","choices":[{"index":0,"delta":{"content":""#,
            r#""}}]}"#
        )),
        Just((
            r#"{"id":"b","choices":[{"index":0,"delta":{"content":""#,
            r#""}}]}"#
        )),
        Just((
            r#"{"choices":[{"delta":{"content":""#,
            r#""},"finish_reason":"stop"}]}"#
        )),
        Just((
            r#"{"choices":[{"delta":{"reasoning":""#,
            r#"","content":""}}],"usage":{"completion_tokens":3}}"#
        )),
        Just((r#"{"choices":[{"text":""#, r#"","finish_reason":null}]}"#)),
        Just((r#"{"choices":[{"delta":{"role":""#, r#"","content":"b"}}]}"#)),
        Just((
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":""#,
            r#""}}]}}]}"#
        )),
        Just((
            r#"{"choices":[{"delta":{"content":""#,
            r#""}},{"delta":{"content":"c"}}]}"#
        )),
        Just((
            r#"{"choices":[{"delta":{"reasoning":"d","reasoning_content":""#,
            r#"","content":null}}]}"#
        )),
        Just((r#"{"choices":[{"delta":{"content":""#, "")),
    ]
}

proptest! {
    #[test]
    fn a_chunk_says_the_same_after_any_others(
        chunks in prop::collection::vec((frame(), text()), 1..12),
    ) {
        let payloads: Vec<_> = chunks
            .into_iter()
            .map(|((before, after), text)| [before.as_bytes(), &text, after.as_bytes()].concat())
            .collect();
        same(&payloads);
    }
}

#[test]
fn recorded_streams_say_the_same() {
    for stream in [
        include_str!("streams/xllamacpp.txt"),
        include_str!("streams/transformers-serve.txt"),
        include_str!("streams/transformers-serve-cb.txt"),
    ] {
        let payloads: Vec<_> = stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|payload| payload.as_bytes().to_vec())
            .collect();
        same(&payloads);
    }
}
