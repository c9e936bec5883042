//! The text side of a language model: GGUF metadata, tokenizer and chat template.
//!
//! [`ModelText::open`] reads a GGUF file or a Hugging Face folder; weights are never loaded. The serving shell turns
//! prompts into tokens with it and tokens into text, the load generator counts tokens.

mod bpe;
mod error;
mod folder;
mod from_gguf;
pub mod gguf;
mod sentencepiece;
mod table;
mod template;

pub use error::ModelError;

use std::path::Path;
use std::sync::OnceLock;
use table::TokenTable;
use template::ChatTemplate;
use tokenizers::Tokenizer;

/// Whether special tokens that are written out in a text become their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `<|im_start|>` is one token: for prompts that a chat template has rendered.
    Parse,
    /// `<|im_start|>` is text like any other.
    Plain,
}

/// Tokenizer, chat template and special tokens of one model.
#[derive(Debug)]
pub struct ModelText {
    tokenizer: Tokenizer,
    /// The same tokenizer blind to special tokens; made when it is first asked for, as few users need it.
    plain: OnceLock<Box<Tokenizer>>,
    table: TokenTable,
    bos: Option<u32>,
    end: Vec<u32>,
    template: Option<ChatTemplate>,
    context_length: Option<usize>,
    name: Option<String>,
    architecture: Option<String>,
}

impl ModelText {
    /// Reads the model at `path`: a `.gguf` file, or a folder with `tokenizer.json` and, where there are any,
    /// `tokenizer_config.json`, `chat_template.jinja`, `config.json` and `generation_config.json`.
    ///
    /// # Errors
    /// If the path is neither, the file is damaged or cut short, or its kind of tokenizer is unknown.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return folder::open(path);
        }
        from_gguf::open(path)
    }

    /// The tokens of `text`. No BOS is added.
    ///
    /// # Errors
    /// If the tokenizer refuses the text: a character that the vocabulary has no token for.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, ModelError> {
        let tokenizer = match special {
            Special::Parse => &self.tokenizer,
            Special::Plain => self.plain.get_or_init(|| {
                let mut plain = self.tokenizer.clone();
                plain.set_encode_special_tokens(true);
                Box::new(plain)
            }),
        };
        let encoding = tokenizer
            .encode_fast(text, false)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The token that the model wants in front of every prompt, if it wants one. A chat template may have written it
    /// already: put it there only if the prompt does not begin with it.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The text of `ids`. Control tokens add nothing; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// The bytes that token `id` adds to the text, possibly a part of a character. Empty for control tokens and for
    /// ids outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.table.get(id)
    }

    /// Whether the model ends its answer with token `id`.
    pub fn is_end(&self, id: u32) -> bool {
        self.end.contains(&id)
    }

    /// The tokens that end an answer (EOS, end of turn), in ascending order.
    pub fn end_ids(&self) -> &[u32] {
        &self.end
    }

    /// The prompt that the model's chat template makes of `messages` (OpenAI message objects; content is a string or
    /// an array of text parts), with the opening of the assistant's turn at its end.
    ///
    /// # Errors
    /// If the model has no template, or the template refuses the messages (some want roles to alternate).
    pub fn chat_prompt(&self, messages: &[serde_json::Value]) -> Result<String, ModelError> {
        self.template
            .as_ref()
            .ok_or(ModelError::NoChatTemplate)?
            .render(messages)
    }

    /// Whether the model has a chat template; base models have none.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Number of tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.table.len()
    }

    /// The longest sequence that the model was trained for, in tokens.
    pub fn context_length(&self) -> Option<usize> {
        self.context_length
    }

    /// The name that the model's author gave it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The architecture, as in `llama` or `gemma3`.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }
}

/// Names of tokens that end an answer or a turn. Models of one family write them alike, and their metadata often names
/// only one of the two that can come.
const END_TOKENS: &[&str] = &[
    "</s>",
    "<eos>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|eot|>",
    "<|return|>",
];

fn ends_an_answer(token: &str) -> bool {
    END_TOKENS.contains(&token)
}
