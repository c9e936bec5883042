//! A model's text side from GGUF metadata.

use crate::gguf::{Gguf, Value};
use crate::table::{Spelling, TokenTable};
use crate::template::ChatTemplate;
use crate::{ModelError, ModelText, bpe, ends_an_answer, sentencepiece};
use std::path::Path;
use std::sync::OnceLock;
use tokenizers::{AddedToken, Tokenizer};

/// What a vocabulary entry is, by its number in `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
}

impl Kind {
    fn of(number: u64) -> Self {
        match number {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            _ => Kind::Normal, // also unused and single-byte entries: their spelling says it all
        }
    }
}

/// The vocabulary as the metadata has it.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<Kind>,
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &'a Gguf) -> Result<Self, ModelError> {
        let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
        let kinds = match gguf.array("tokenizer.ggml.token_type") {
            Some(kinds) => kinds
                .iter()
                .map(|kind| Kind::of(kind.as_u64().unwrap_or(1)))
                .collect(),
            None => vec![Kind::Normal; tokens.len()],
        };
        same_length("token_type", kinds.len(), tokens.len())?;
        Ok(Self { tokens, kinds })
    }

    fn entries(&self) -> impl Iterator<Item = (&'a str, Kind)> {
        self.tokens.iter().copied().zip(self.kinds.iter().copied())
    }

    fn text(&self, id: Option<u32>) -> Option<&'a str> {
        self.tokens.get(id? as usize).copied()
    }

    fn add_special(&self, tokenizer: &mut Tokenizer) {
        let added = |wanted: Kind, special: bool| -> Vec<AddedToken> {
            let chosen = self.entries().filter(|(_, kind)| *kind == wanted);
            chosen
                .map(|(text, _)| AddedToken::from(text, special).normalized(false))
                .collect()
        };
        tokenizer.add_special_tokens(&added(Kind::Control, true));
        tokenizer.add_tokens(&added(Kind::UserDefined, false));
    }

    fn table(&self, spelling: Spelling) -> TokenTable {
        let mut table = TokenTable::default();
        for (text, kind) in self.entries() {
            match kind {
                Kind::Control | Kind::Unknown => table.push(b""),
                // User-defined tokens of a byte-level vocabulary are written as they are.
                Kind::UserDefined if spelling == Spelling::ByteLevel => table.push(text.as_bytes()),
                Kind::UserDefined | Kind::Normal => table.push(&spelling.bytes(text)),
            }
        }
        table
    }

    fn end_ids(&self, gguf: &Gguf) -> Vec<u32> {
        let named = ["eos", "eot", "eom"]
            .iter()
            .filter_map(|name| special_id(gguf, name));
        let known = (0..).zip(self.entries());
        let known = known
            .filter(|(_, (text, kind))| *kind == Kind::Control && ends_an_answer(text))
            .map(|(id, _)| id);
        let mut ids: Vec<u32> = named.chain(known).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

pub(crate) fn open(path: &Path) -> Result<ModelText, ModelError> {
    let gguf = match Gguf::open(path) {
        // A file that does not claim to be GGUF by its name is more likely the wrong path than a broken model.
        Err(ModelError::NotGguf { .. })
            if path.extension().is_none_or(|e| !e.eq_ignore_ascii_case("gguf")) =>
        {
            return Err(ModelError::NotAModel {
                path: path.to_owned(),
            });
        }
        gguf => gguf?,
    };
    text_of(&gguf)
}

fn text_of(gguf: &Gguf) -> Result<ModelText, ModelError> {
    let vocabulary = Vocabulary::read(gguf)?;
    let (mut tokenizer, spelling, adds_bos) = match gguf.text("tokenizer.ggml.model") {
        Some("gpt2") => {
            let family = bpe::Family::of(gguf.text("tokenizer.ggml.pre").unwrap_or("default"))?;
            let merges = texts(gguf, "tokenizer.ggml.merges")?;
            (
                bpe::tokenizer(family, &vocabulary.tokens, &merges)?,
                Spelling::ByteLevel,
                family.adds_bos(),
            )
        }
        Some("llama") => (from_scores(gguf, &vocabulary)?, Spelling::SentencePiece, true),
        other => {
            return Err(ModelError::Unsupported {
                what: "tokenizer.ggml.model",
                found: other.unwrap_or("(none)").to_owned(),
                known: "gpt2, llama".to_owned(),
            });
        }
    };
    vocabulary.add_special(&mut tokenizer);
    let bos = special_id(gguf, "bos");
    let template = match gguf.text("tokenizer.chat_template") {
        Some(source) => {
            let text = |name| {
                vocabulary
                    .text(special_id(gguf, name))
                    .unwrap_or_default()
                    .to_owned()
            };
            Some(ChatTemplate::new(source.to_owned(), text("bos"), text("eos"))?)
        }
        None => None,
    };
    let context_key = format!("{}.context_length", gguf.architecture().unwrap_or_default());
    Ok(ModelText {
        tokenizer,
        plain: OnceLock::new(),
        table: vocabulary.table(spelling),
        bos: if gguf.bool("tokenizer.ggml.add_bos_token").unwrap_or(adds_bos) {
            bos
        } else {
            None
        },
        end: vocabulary.end_ids(gguf),
        template,
        context_length: gguf.unsigned(&context_key).and_then(|n| usize::try_from(n).ok()),
        name: gguf.text("general.name").map(str::to_owned),
        architecture: gguf.architecture().map(str::to_owned),
    })
}

fn from_scores(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, ModelError> {
    let scores = gguf
        .array("tokenizer.ggml.scores")
        .ok_or_else(|| missing("tokenizer.ggml.scores"))?;
    let scores: Vec<f64> = scores.iter().filter_map(Value::as_f64).collect();
    same_length("scores", scores.len(), vocabulary.tokens.len())?;
    let unknown = vocabulary.text(special_id(gguf, "unknown"));
    let space_prefix = gguf.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    sentencepiece::tokenizer(&vocabulary.tokens, &scores, unknown, space_prefix)
}

fn special_id(gguf: &Gguf, name: &str) -> Option<u32> {
    gguf.unsigned(&format!("tokenizer.ggml.{name}_token_id"))
        .and_then(|id| u32::try_from(id).ok())
}

fn texts<'a>(gguf: &'a Gguf, key: &str) -> Result<Vec<&'a str>, ModelError> {
    let items = gguf.array(key).ok_or_else(|| missing(key))?;
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    texts.ok_or_else(|| ModelError::Tokenizer(format!("{key} is not an array of strings")))
}

fn missing(key: &str) -> ModelError {
    ModelError::Tokenizer(format!("the model file has no `{key}`"))
}

fn same_length(what: &str, found: usize, tokens: usize) -> Result<(), ModelError> {
    if found == tokens {
        return Ok(());
    }
    Err(ModelError::Tokenizer(format!(
        "tokenizer.ggml.{what} has {found} entries for {tokens} tokens"
    )))
}
