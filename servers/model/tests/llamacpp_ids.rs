//! Token ids against llama.cpp's on a corpus of prose, digits, code, many scripts, white space and special tokens.
//!
//! The model comes from `LOADTEST_TEST_MODEL` (Gemma: `LOADTEST_TEST_GEMMA`), else from loadtest's model cache, where
//! `scripts/test` puts it.

use loadtest_model::{ModelText, Special};
use std::path::PathBuf;

fn model(variable: &str, name: &str) -> ModelText {
    let cached = || {
        let root = std::env::var_os("LOADTEST_CACHE").map(PathBuf::from);
        let root = root.or_else(|| Some(dirs::cache_dir()?.join("loadtest")))?;
        Some(root.join("models").join(format!("{name}.gguf")))
    };
    let path = std::env::var_os(variable)
        .map(PathBuf::from)
        .or_else(cached)
        .expect("a cache folder");
    assert!(
        path.is_file(),
        "{} is missing: run scripts/test, or set {variable} to the {name} GGUF",
        path.display()
    );
    ModelText::open(&path).expect("a whole model file")
}

/// The corpus with the ids under `column`.
fn cases(column: &str) -> Vec<(String, Vec<u32>)> {
    let fixture: serde_json::Value =
        serde_json::from_str(include_str!("llamacpp_ids.json")).expect("the fixture");
    let cases = fixture["cases"].as_array().expect("cases");
    let ids = |case: &serde_json::Value| serde_json::from_value(case[column].clone()).expect("ids");
    cases
        .iter()
        .map(|case| (case["text"].as_str().expect("text").to_owned(), ids(case)))
        .collect()
}

fn check(model: &ModelText, column: &str) {
    let cases = cases(column);
    assert!(cases.len() > 40);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(text, theirs)| {
            let ours = model.encode(text, Special::Parse).expect("encodes");
            (&ours != theirs).then(|| format!("{text:?}\n  ours   {ours:?}\n  theirs {theirs:?}"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn smollm2() {
    let model = model("LOADTEST_TEST_MODEL", "smollm2-135m-instruct");
    check(&model, "smollm2");

    assert_eq!(
        (model.vocabulary(), model.context_length(), model.bos()),
        (49_152, Some(8_192), None)
    );
    assert!(
        model.is_end(2) && !model.is_end(1),
        "end ids: {:?}",
        model.end_ids()
    );
    let text = "Plain text, 42 🙂\n\n  indented";
    assert_eq!(model.decode(&model.encode(text, Special::Plain).unwrap()), text);
    assert_eq!(
        model.decode(&model.encode("<|im_end|>", Special::Plain).unwrap()),
        "<|im_end|>"
    );
    let prompt = model
        .chat_prompt(&[serde_json::json!({"role": "user", "content": "Hi"})])
        .unwrap();
    assert!(
        prompt.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        "{prompt}"
    );
}

#[test]
#[ignore = "fetches 250 MB: loadtest --model gemma-3-270m puts it in place"]
fn gemma3() {
    let model = model("LOADTEST_TEST_GEMMA", "gemma-3-270m");
    check(&model, "gemma3");

    assert_eq!((model.vocabulary(), model.bos()), (262_144, Some(2)));
    assert!(!model.has_chat_template());
    let text = "Plain text, 42 🙂\n\n  indented";
    assert_eq!(model.decode(&model.encode(text, Special::Plain).unwrap()), text);
}
