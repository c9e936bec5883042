//! Whether engines give the same answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Greedy answers of every engine to a fixed set of prompts, and how they agree with those of one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// Prompts asked, one at a time, before any load.
    pub prompts: u32,
    /// Most tokens of an answer.
    pub max_tokens: u64,
    /// The engine that the others are held against; absent while none has answered.
    pub reference: Option<String>,
    /// A first difference counts as a near tie when one engine prefers its own token over the other's by no more than this,
    /// in natural logarithms of probability.
    pub near_tie: f64,
    /// The engines that were asked, in the order in which they were.
    pub engines: Vec<EngineAnswers>,
}

/// What one engine answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineAnswers {
    /// The engine's name.
    pub engine: String,
    /// Whether it told log probabilities.
    pub logprobs: bool,
    /// Answers with log probabilities that were not understood, and are as if it had told none.
    #[serde(default)]
    pub unread: u32,
    /// Its answers in the order of the prompts.
    pub answers: Vec<KeptAnswer>,
    /// How they agree with the reference's; absent for the reference itself, and where one of the two did not answer.
    pub agreement: Option<Agreement>,
    /// Its count of output tokens against the model's tokenizer; absent where one of the two is not known.
    pub counts: Option<TokenCounts>,
    /// Why it could not be asked, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeptAnswer {
    /// The text; absent where there was no answer.
    pub text: Option<String>,
    /// Why it ended, as the server says.
    pub finish_reason: Option<String>,
    /// Tokens of the prompt, chat template included, as the server counts them.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, as the server counts them.
    pub output_tokens: Option<u64>,
    /// What went wrong, if there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How the answers of an engine agree with the reference's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// Prompts that both answered.
    pub compared: u32,
    /// Answers that are the same text.
    pub same: u32,
    /// Answers that differ first where the two tokens are about equally likely.
    pub near_ties: u32,
    /// Answers that differ first where they are not.
    pub apart: u32,
    /// Answers that differ, and no engine told how likely its tokens were.
    pub unknown: u32,
    /// Tokens before the first difference, the mean over all answers; the whole answer where there is none.
    pub common_prefix_mean: f64,
    /// Tokens of the reference's answers, the mean.
    pub tokens_mean: f64,
    /// Normalised Levenshtein similarity of the texts, the mean over all answers: 1 less the fewest changes of a character
    /// that make one of the other, over the characters of the longer. 1 is the same text.
    pub similarity_mean: f64,
    /// Where answers differ.
    pub differences: Vec<Difference>,
}

/// The first difference between two answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Which prompt, from 0.
    pub prompt: u32,
    /// Which token differs first, from 0: as many are the same.
    pub token: u32,
    /// The reference's token there; empty where its answer ended.
    pub reference: String,
    /// The other's.
    pub other: String,
    /// By how much the reference holds its own token likelier than the other's.
    pub reference_gap: Option<Gap>,
    /// By how much the other holds its own token likelier than the reference's.
    pub other_gap: Option<Gap>,
    /// Normalised Levenshtein similarity of the two texts.
    pub similarity: f64,
    /// What is made of it.
    pub cause: Cause,
}

/// How much likelier one token is than another: a difference of natural logarithms of probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The difference.
    pub nats: f64,
    /// The true one is larger: the other token is not among those that the server told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

/// What is made of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The two tokens are about equally likely: rounding decides.
    NearTie,
    /// They are not.
    Apart,
    /// No engine told how likely they were.
    Unknown,
}

/// An engine's count of its output tokens against the model's tokenizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCounts {
    /// Answers counted.
    pub answers: u32,
    /// Answers whose counts differ by more than one token, which an end token explains.
    pub differing: u32,
    /// Output tokens as the server told them.
    pub told: u64,
    /// Tokens of the same texts by the model's tokenizer.
    pub counted: u64,
}

/// Prompts of the verification that were asked again, all at once, while a step's users were all asking, before its window opened.
/// None of them is in any other figure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnderLoad {
    /// Prompts asked.
    pub asked: u32,
    /// Answers that are what the same engine answered alone.
    pub same: u32,
    /// Answers that differ first at a near tie.
    pub near_ties: u32,
    /// Answers that differ otherwise.
    pub garbled: u32,
    /// Prompts without an answer.
    pub failed: u32,
    /// Prompts whose answers the window could not wait for: the warm-up had lasted as long as it may.
    #[serde(default)]
    pub late: u32,
    /// Where answers differ; `reference` is the answer given alone.
    pub differences: Vec<Difference>,
    /// Why there was no answer, for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

impl UnderLoad {
    /// Prompts that were answered.
    pub fn answered(&self) -> u32 {
        self.same + self.near_ties + self.garbled
    }
}
