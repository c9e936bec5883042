//! A model's text side from a Hugging Face folder.

use crate::table::{Spelling, TokenTable};
use crate::template::ChatTemplate;
use crate::{ModelError, ModelText, ends_an_answer};
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;
use tokenizers::Tokenizer;

pub(crate) fn open(folder: &Path) -> Result<ModelText, ModelError> {
    let file = folder.join("tokenizer.json");
    if !file.is_file() {
        return Err(ModelError::NotAModel {
            path: folder.to_owned(),
        });
    }
    let damaged = |what: String| ModelError::Damaged {
        path: file.clone(),
        what,
    };
    let mut tokenizer = Tokenizer::from_file(&file).map_err(|e| damaged(e.to_string()))?;
    // A tokenizer.json may carry the truncation of its training.
    tokenizer
        .with_truncation(None)
        .map_err(|e| damaged(e.to_string()))?;
    tokenizer.with_padding(None);

    let tokens = json(folder, "tokenizer_config.json")?;
    let config = json(folder, "config.json")?;
    let generation = json(folder, "generation_config.json")?;
    let bos = special_text(&tokens["bos_token"]);
    let eos = special_text(&tokens["eos_token"]);
    let template = match template_source(folder, &tokens)? {
        Some(source) => Some(ChatTemplate::new(
            source,
            bos.clone().unwrap_or_default(),
            eos.clone().unwrap_or_default(),
        )?),
        None => None,
    };
    let text_config = if config["text_config"].is_object() {
        &config["text_config"]
    } else {
        &config
    };
    Ok(ModelText {
        table: table(&tokenizer),
        bos: bos.and_then(|bos| wanted_bos(&tokenizer, &bos)),
        end: end_ids(
            &tokenizer,
            eos.as_deref(),
            [&generation["eos_token_id"], &config["eos_token_id"]],
        ),
        plain: OnceLock::new(),
        tokenizer,
        template,
        context_length: text_config["max_position_embeddings"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok()),
        name: config["_name_or_path"]
            .as_str()
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        architecture: config["model_type"].as_str().map(str::to_owned),
    })
}

/// The JSON file `name`, or null where the folder has none.
fn json(folder: &Path, name: &str) -> Result<Value, ModelError> {
    match read(folder, name)? {
        Some(text) => serde_json::from_str(&text).map_err(|e| ModelError::Damaged {
            path: folder.join(name),
            what: e.to_string(),
        }),
        None => Ok(Value::Null),
    }
}

fn read(folder: &Path, name: &str) -> Result<Option<String>, ModelError> {
    let path = folder.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Io { path, source }),
    }
}

/// `chat_template` is one template, or a list of named ones of which `default` is meant.
fn template_source(folder: &Path, tokens: &Value) -> Result<Option<String>, ModelError> {
    if let Some(source) = read(folder, "chat_template.jinja")? {
        return Ok(Some(source));
    }
    let template = match &tokens["chat_template"] {
        Value::Array(named) => named
            .iter()
            .find(|entry| entry["name"] == "default")
            .map(|entry| &entry["template"]),
        single => Some(single),
    };
    Ok(template.and_then(Value::as_str).map(str::to_owned))
}

/// A special token is a string or an object with its `content`.
fn special_text(token: &Value) -> Option<String> {
    token
        .as_str()
        .or_else(|| token["content"].as_str())
        .map(str::to_owned)
}

/// BOS, if the tokenizer's post-processor puts it in front of a text.
fn wanted_bos(tokenizer: &Tokenizer, bos: &str) -> Option<u32> {
    let bos = tokenizer.token_to_id(bos)?;
    let encoding = tokenizer.encode_fast("a", true).ok()?;
    (encoding.get_ids().first() == Some(&bos)).then_some(bos)
}

fn end_ids(tokenizer: &Tokenizer, eos: Option<&str>, configured: [&Value; 2]) -> Vec<u32> {
    let configured = configured.into_iter().flat_map(|ids| match ids {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
        id => id.as_u64().into_iter().collect::<Vec<_>>(),
    });
    let mut ids: Vec<u32> = configured.filter_map(|id| u32::try_from(id).ok()).collect();
    ids.extend(eos.and_then(|eos| tokenizer.token_to_id(eos)));
    let added = tokenizer.get_added_tokens_decoder();
    ids.extend(
        added
            .iter()
            .filter(|(_, token)| token.special && ends_an_answer(&token.content))
            .map(|(id, _)| *id),
    );
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn table(tokenizer: &Tokenizer) -> TokenTable {
    let spelling = spelling(tokenizer);
    let added = tokenizer.get_added_tokens_decoder();
    let vocabulary = tokenizer.get_vocab(true);
    let length = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
    let mut texts = vec![""; length];
    for (text, id) in &vocabulary {
        texts[*id as usize] = text;
    }
    let mut table = TokenTable::default();
    for (id, text) in (0..).zip(texts) {
        match added.get(&id) {
            Some(token) if token.special => table.push(b""),
            Some(token) if spelling == Spelling::ByteLevel => table.push(token.content.as_bytes()),
            _ => table.push(&spelling.bytes(text)),
        }
    }
    table
}

/// Byte-level tokenizers say so in their decoder or pre-tokenizer.
fn spelling(tokenizer: &Tokenizer) -> Spelling {
    let names_it = |part: Result<Value, serde_json::Error>| {
        part.is_ok_and(|part| part.to_string().contains("\"ByteLevel\""))
    };
    let byte_level = names_it(serde_json::to_value(tokenizer.get_decoder()))
        || names_it(serde_json::to_value(tokenizer.get_pre_tokenizer()));
    if byte_level {
        Spelling::ByteLevel
    } else {
        Spelling::SentencePiece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Special;
    use serde_json::json;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": [special(0, "<|endoftext|>"), special(1, "<|im_end|>")],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "<|im_end|>": 1, "h": 2, "i": 3, "Ġ": 4, "hi": 5,
                      "<": 6, "|": 7, "m": 8, "_": 9, "e": 10, "n": 11, "d": 12, ">": 13}, "merges": ["h i"]},
        });
        let write =
            |name: &str, value: &Value| std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        write("tokenizer.json", &tokenizer);
        write(
            "tokenizer_config.json",
            &json!({"eos_token": {"content": "<|im_end|>"},
            "chat_template": [{"name": "default", "template": "{{ messages[0].content }}{{ eos_token }}"}]}),
        );
        write(
            "config.json",
            &json!({"model_type": "llama", "max_position_embeddings": 2048, "eos_token_id": [1]}),
        );
        folder
    }

    #[test]
    fn reads_tokenizer_template_and_special_ids() {
        let folder = folder();
        let text = ModelText::open(folder.path()).unwrap();
        assert_eq!(
            text.encode("hi hi<|im_end|>", Special::Parse).unwrap(),
            [5, 4, 5, 1]
        );
        assert_eq!(
            text.encode("hi<|im_end|>", Special::Plain).unwrap(),
            [5, 6, 7, 3, 8, 9, 10, 11, 12, 7, 13]
        );
        assert_eq!(text.decode(&[5, 4, 5, 1]), "hi hi");
        assert_eq!((text.end_ids(), text.bos()), (&[0, 1][..], None));
        assert_eq!(
            (text.context_length(), text.architecture()),
            (Some(2048), Some("llama"))
        );
        let prompt = text
            .chat_prompt(&[json!({"role": "user", "content": "hi"})])
            .unwrap();
        assert_eq!(prompt, "hi<|im_end|>");
    }

    #[test]
    fn a_folder_without_tokenizer_is_no_model() {
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            ModelText::open(empty.path()),
            Err(ModelError::NotAModel { .. })
        ));
    }
}
