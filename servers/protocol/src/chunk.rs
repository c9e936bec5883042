//! One streamed chunk, read by borrowing from the bytes of its event.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Text of a chunk: borrowed from the event unless it holds JSON escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// What a load generator wants to know of one `data:` payload of a stream, chat or completions.
///
/// Every field may be missing or null, fields that are not named here are skipped. With one choice and text
/// free of escapes, parsing allocates nothing.
#[derive(Debug, Default, Deserialize)]
pub struct ChunkRef<'a> {
    #[serde(borrow, default)]
    choices: Option<Choices<'a>>,
    /// Tokens so far, or of the whole request on its last chunk.
    #[serde(default)]
    pub usage: Option<UsageRef>,
    /// The server's word that it failed mid-stream.
    #[serde(borrow, default)]
    pub error: Option<ErrorRef<'a>>,
}

/// One choice of a chunk.
#[derive(Debug, Default, Deserialize)]
pub struct ChoiceRef<'a> {
    /// What this chunk adds (chat).
    #[serde(borrow, default)]
    pub delta: Option<DeltaRef<'a>>,
    /// What this chunk adds (completions).
    #[serde(borrow, default)]
    pub text: Option<Text<'a>>,
    /// `stop`, `length`, ... on the choice's last chunk.
    #[serde(borrow, default)]
    pub finish_reason: Option<Text<'a>>,
}

/// What a chat chunk adds to its choice.
#[derive(Debug, Default, Deserialize)]
pub struct DeltaRef<'a> {
    /// Who speaks; usually on the first chunk alone.
    #[serde(borrow, default)]
    pub role: Option<Text<'a>>,
    /// Visible output.
    #[serde(borrow, default)]
    pub content: Option<Text<'a>>,
    /// Reasoning, as DeepSeek, SGLang and llama.cpp name it.
    #[serde(borrow, default)]
    pub reasoning_content: Option<Text<'a>>,
    /// Reasoning, as OpenRouter, Ollama and newer vLLM name it.
    #[serde(borrow, default)]
    pub reasoning: Option<Text<'a>>,
    /// The model's refusal.
    #[serde(borrow, default)]
    pub refusal: Option<Text<'a>>,
    /// Calls of tools, in pieces.
    #[serde(borrow, default)]
    pub tool_calls: Option<Vec<ToolCallRef<'a>>>,
}

/// A piece of a tool call.
#[derive(Debug, Default, Deserialize)]
pub struct ToolCallRef<'a> {
    /// The function and its arguments.
    #[serde(borrow, default)]
    pub function: Option<FunctionRef<'a>>,
}

/// A piece of a tool call's function.
#[derive(Debug, Default, Deserialize)]
pub struct FunctionRef<'a> {
    /// A piece of the arguments' JSON text.
    #[serde(borrow, default)]
    pub arguments: Option<Text<'a>>,
}

/// The token counts of a chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct UsageRef {
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: Option<u64>,
    /// Tokens generated.
    #[serde(default)]
    pub completion_tokens: Option<u64>,
}

/// An error inside a stream. Servers send an object with a message, or a bare string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorRef<'a> {
    /// What went wrong, in the server's words; empty if it gave none.
    pub message: Text<'a>,
}

impl<'a> ChunkRef<'a> {
    /// Reads the payload of one `data:` event (not `[DONE]`, which is no JSON).
    ///
    /// # Errors
    /// If it is not a JSON object, or a field read here has another type than the API gives it.
    pub fn parse(payload: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// The chunk's choices: none on a usage-only chunk, else nearly always one.
    pub fn choices(&self) -> impl Iterator<Item = &ChoiceRef<'a>> {
        self.choices
            .iter()
            .flat_map(|choices| choices.first.iter().chain(&choices.rest))
    }

    /// Whether this event carries generated output: non-empty text, reasoning, refusal or tool-call arguments
    /// of any choice, or a usage that counts generated tokens on a choice that goes on (a token that completes
    /// no character).
    ///
    /// A role-only chunk, an empty delta, a chunk that only finishes and a usage-only chunk carry none.
    pub fn carries_output(&self) -> bool {
        let counted = self
            .usage
            .and_then(|usage| usage.completion_tokens)
            .is_some_and(|tokens| tokens > 0);
        self.choices()
            .any(|choice| choice.has_text() || (counted && choice.finish_reason.is_none()))
    }

    /// Whether this event carries output that the user sees: text or a refusal, not reasoning and not a call.
    pub fn carries_visible_output(&self) -> bool {
        self.choices().any(ChoiceRef::has_visible_text)
    }

    /// The text that its choices generated, piece by piece: visible, reasoned, and of tool calls. Reasoning under both of
    /// its names is taken once.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.choices().flat_map(ChoiceRef::texts)
    }

    /// Why the first choice that ended in this chunk ended.
    pub fn finish_reason(&self) -> Option<&str> {
        self.choices()
            .find_map(|choice| choice.finish_reason.as_ref())
            .map(|reason| &*reason.0)
    }
}

impl ChoiceRef<'_> {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let own = self.text.iter().map(|text| &*text.0);
        own.chain(self.delta.iter().flat_map(DeltaRef::texts))
            .filter(|text| !text.is_empty())
    }

    /// Text or a refusal that is not empty.
    fn has_visible_text(&self) -> bool {
        let delta = self.delta.as_ref();
        filled(&self.text) || delta.is_some_and(|delta| filled(&delta.content) || filled(&delta.refusal))
    }

    fn has_text(&self) -> bool {
        self.has_visible_text() || self.delta.as_ref().is_some_and(DeltaRef::has_hidden_text)
    }
}

impl DeltaRef<'_> {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let reasoned = match filled(&self.reasoning_content) {
            true => &self.reasoning_content,
            false => &self.reasoning,
        };
        let calls = self.tool_calls.iter().flatten();
        let arguments = calls.filter_map(|call| call.function.as_ref()?.arguments.as_ref());
        let parts = [reasoned, &self.content, &self.refusal].into_iter().flatten();
        parts.chain(arguments).map(|text| &*text.0)
    }

    /// Reasoning or tool-call arguments that are not empty.
    fn has_hidden_text(&self) -> bool {
        let calls = self
            .tool_calls
            .iter()
            .flatten()
            .filter_map(|call| call.function.as_ref());
        filled(&self.reasoning_content)
            || filled(&self.reasoning)
            || calls.into_iter().any(|function| filled(&function.arguments))
    }
}

fn filled(text: &Option<Text<'_>>) -> bool {
    text.as_ref().is_some_and(|text| !text.0.is_empty())
}

/// The choices of a chunk; the first one inline, so that the usual chunk costs no allocation.
#[derive(Debug, Default)]
struct Choices<'a> {
    first: Option<ChoiceRef<'a>>,
    rest: Vec<ChoiceRef<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ChoicesVisitor)
    }
}

struct ChoicesVisitor;

impl<'de> Visitor<'de> for ChoicesVisitor {
    type Value = Choices<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of choices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices<'de>, A::Error> {
        let first = seq.next_element()?;
        let mut rest = Vec::new();
        while let Some(choice) = seq.next_element()? {
            rest.push(choice);
        }
        Ok(Choices { first, rest })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ErrorRef<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ErrorVisitor)
    }
}

struct ErrorVisitor;

impl<'de> Visitor<'de> for ErrorVisitor {
    type Value = ErrorRef<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error object or a string")
    }

    fn visit_borrowed_str<E>(self, message: &'de str) -> Result<ErrorRef<'de>, E> {
        Ok(ErrorRef {
            message: Text(Cow::Borrowed(message)),
        })
    }

    fn visit_str<E>(self, message: &str) -> Result<ErrorRef<'de>, E> {
        Ok(ErrorRef {
            message: Text(Cow::Owned(message.to_owned())),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ErrorRef<'de>, A::Error> {
        let mut message = None;
        while let Some(Text(key)) = map.next_key()? {
            if key == "message" {
                message = map.next_value::<Option<Text<'de>>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(ErrorRef {
            message: message.unwrap_or_default(),
        })
    }
}
