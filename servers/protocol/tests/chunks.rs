//! Reading the chunks that real servers sent, and odd ones.

use std::borrow::Cow;

use loadtest_protocol::{ChunkRef, UsageRef};

fn payloads(stream: &str) -> Vec<&str> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .collect()
}

fn parse(json: &str) -> ChunkRef<'_> {
    ChunkRef::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

#[test]
fn recorded_streams_read_the_same() {
    let streams = [
        include_str!("streams/xllamacpp.txt"),
        include_str!("streams/transformers-serve.txt"),
        include_str!("streams/transformers-serve-cb.txt"),
    ];
    for stream in streams {
        let chunks: Vec<_> = payloads(stream).into_iter().map(parse).collect();
        let text: String = chunks
            .iter()
            .flat_map(|chunk| chunk.choices())
            .filter_map(|choice| choice.delta.as_ref()?.content.as_ref())
            .map(|content| &*content.0)
            .collect();
        assert_eq!(text, "Hi, welcome to my chat!");
        assert_eq!(chunks.iter().filter(|chunk| chunk.carries_output()).count(), 7);
        assert!(!chunks[0].carries_output(), "the role chunk carries no output");
        assert_eq!(
            chunks
                .iter()
                .filter_map(ChunkRef::finish_reason)
                .collect::<Vec<_>>(),
            ["stop"]
        );
        let usage = chunks.iter().find_map(|chunk| chunk.usage);
        assert_eq!(
            usage,
            Some(UsageRef {
                prompt_tokens: Some(36),
                completion_tokens: Some(8)
            })
        );
    }
}

#[test]
fn plain_text_is_borrowed() {
    let chunk = parse(r#"{"choices":[{"delta":{"content":" naïve"}}]}"#);
    let choice = chunk.choices().next().unwrap();
    assert!(matches!(
        choice.delta.as_ref().unwrap().content.as_ref().unwrap().0,
        Cow::Borrowed(" naïve")
    ));
}

#[test]
fn what_carries_output() {
    let cases = [
        (r#"{"choices":[{"delta":{"content":"a"}}]}"#, true),
        (r#"{"choices":[{"delta":{"content":"\n"}}]}"#, true),
        (r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#, true),
        (r#"{"choices":[{"delta":{"reasoning":"a","content":""}}]}"#, true),
        (r#"{"choices":[{"delta":{"refusal":"a"}}]}"#, true),
        (
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}"#,
            true,
        ),
        (
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"x","function":{"name":"f","arguments":""}}]}}]}"#,
            false,
        ),
        (r#"{"choices":[{"text":"a"}]}"#, true),
        (r#"{"choices":[{"text":""}]}"#, false),
        (
            r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            true,
        ),
        (r#"{"choices":[{"delta":{}},{"delta":{"content":"a"}}]}"#, true),
        (
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            false,
        ),
        (
            r#"{"choices":[{"delta":{"content":""},"finish_reason":null}],"usage":{"completion_tokens":3}}"#,
            true,
        ),
        (
            r#"{"choices":[{"delta":{"content":""}}],"usage":{"completion_tokens":0}}"#,
            false,
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"completion_tokens":3}}"#,
            false,
        ),
        (r#"{"choices":[],"usage":{"completion_tokens":3}}"#, false),
        (r#"{"choices":null,"usage":null,"error":null}"#, false),
        (
            r#"{"choices":[{"delta":null,"text":null,"finish_reason":null}]}"#,
            false,
        ),
        ("{}", false),
    ];
    for (json, expected) in cases {
        assert_eq!(parse(json).carries_output(), expected, "{json}");
    }
}

#[test]
fn reasoning_is_output_but_not_visible() {
    assert!(!parse(r#"{"choices":[{"delta":{"reasoning":"a"}}]}"#).carries_visible_output());
    assert!(parse(r#"{"choices":[{"delta":{"content":"a"}}]}"#).carries_visible_output());
}

#[test]
fn errors_in_either_form() {
    let message = |json| parse(json).error.map(|error| error.message.0.into_owned());
    assert_eq!(
        message(r#"{"error":{"code":500,"message":"out of memory","type":"x"}}"#).unwrap(),
        "out of memory"
    );
    assert_eq!(message(r#"{"error":{"message":null}}"#).unwrap(), "");
    assert_eq!(message(r#"{"error":"boom"}"#).unwrap(), "boom");
    assert_eq!(message(r#"{"choices":[]}"#), None);
}

#[test]
fn no_chunk_is_an_error() {
    for text in [
        "",
        "[DONE]",
        "{",
        r#"{"choices":[{"delta":{"content":"a"}"#,
        "<html>",
        r#"{"choices":7}"#,
    ] {
        assert!(ChunkRef::parse(text.as_bytes()).is_err(), "{text}");
    }
}
