//! Whether engines give the same answers: greedy ones to a fixed set of prompts, each engine asked alone, one prompt after
//! another; and whether an engine still gives its own answers while users load it.

mod compare;
mod loaded;

use std::sync::{Mutex, PoisonError};

pub use compare::BETWEEN_ENGINES;
pub use loaded::{Loaded, Reply, ask_under_load};

use crate::engine::{Answer, Questioner};
use crate::measure::result::{EngineAnswers, KeptAnswer, UnderLoad, Verification};

/// Most tokens of an answer.
pub const TOKENS: u64 = 32;

/// The prompts, always the same.
pub fn prompts() -> Vec<&'static str> {
    include_str!("prompts.txt").lines().collect()
}

/// Answers of one engine, in the order of the prompts.
type Answers = Vec<Option<Answer>>;

/// What the engines of a run answered, and what is made of it.
pub struct Verifier {
    /// The engine that the user named as the reference.
    against: Option<String>,
    /// The engines in the order of the profile, and their answers given alone.
    engines: Vec<String>,
    answers: Mutex<Vec<Option<Answers>>>,
}

impl Verifier {
    /// For the engines of a run; `against` is the reference, else it is the first of them that answers.
    pub fn new(engines: Vec<String>, against: Option<String>) -> Self {
        let answers = Mutex::new(vec![None; engines.len()]);
        Self {
            against,
            engines,
            answers,
        }
    }

    /// Whether the engine was asked already.
    pub fn has_asked(&self, engine: usize) -> bool {
        self.answers().get(engine).is_some_and(Option::is_some)
    }

    /// Asks engine number `engine` every prompt, one at a time, and keeps the answers. Stops at the first prompt if that one
    /// has no answer; `told` hears of each prompt before it is asked.
    pub async fn ask(
        &self,
        engine: usize,
        questioner: &Questioner,
        count: Option<compare::Count<'_>>,
        told: impl Fn(usize),
    ) -> EngineAnswers {
        let (mut answers, mut kept) = (Answers::new(), Vec::new());
        let mut failure = None;
        for (number, prompt) in prompts().into_iter().enumerate() {
            told(number);
            let asked = questioner.ask(prompt).await;
            if let (0, Err(why)) = (number, &asked) {
                failure = Some(why.clone());
                break;
            }
            kept.push(keep(&asked));
            answers.push(asked.ok());
        }
        let found = EngineAnswers {
            engine: self.engines.get(engine).cloned().unwrap_or_default(),
            logprobs: answers.iter().flatten().any(|answer| !answer.tokens.is_empty()),
            unread: answers.iter().flatten().filter(|answer| answer.unread).count() as u32,
            answers: kept,
            agreement: None,
            counts: count.and_then(|count| compare::token_counts(&answers, count)),
            failure,
        };
        if let Some(place) = self.answers().get_mut(engine) {
            *place = Some(answers);
        }
        found
    }

    /// Holds every engine that has answered against the reference, if that one has.
    pub fn compare(&self, found: &mut Verification, count: Option<compare::Count<'_>>) {
        let answers = self.answers();
        let has_answered = |engine: usize| {
            answers[engine]
                .as_ref()
                .is_some_and(|all| all.iter().any(Option::is_some))
        };
        let named = |name: &String| self.engines.iter().position(|engine| engine == name);
        let reference = match &self.against {
            Some(name) => named(name).filter(|engine| has_answered(*engine)),
            None => (0..self.engines.len()).find(|engine| has_answered(*engine)),
        };
        found.reference = reference.map(|engine| self.engines[engine].clone());
        for entry in &mut found.engines {
            let own = named(&entry.engine).filter(|own| has_answered(*own) && Some(*own) != reference);
            let pair = reference
                .zip(own)
                .and_then(|(reference, own)| Some((answers[reference].as_ref()?, answers[own].as_ref()?)));
            entry.agreement =
                pair.map(|(reference, own)| compare::agreement(reference, own, count.unwrap_or(&words)));
        }
    }

    /// Holds answers given under load against those that the engine gave alone.
    pub fn under_load(
        &self,
        engine: usize,
        loaded: &[Loaded],
        count: Option<compare::Count<'_>>,
    ) -> Option<UnderLoad> {
        let answers = self.answers();
        let alone = answers.get(engine)?.as_ref()?;
        Some(compare::under_load(alone, loaded, count.unwrap_or(&words)))
    }

    /// The prompts to which the engine gave an answer alone.
    pub fn answered(&self, engine: usize) -> Vec<usize> {
        let answers = self.answers();
        let all = answers.get(engine).and_then(Option::as_ref).into_iter().flatten();
        all.enumerate()
            .filter_map(|(number, answer)| answer.as_ref().map(|_| number))
            .collect()
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Vec<Option<Answers>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where no tokenizer is known, a word counts as a token.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// An answer as `run.json` holds it.
fn keep(asked: &Result<Answer, String>) -> KeptAnswer {
    match asked {
        Ok(answer) => KeptAnswer {
            text: Some(answer.text.clone()),
            finish_reason: answer.finish_reason.clone(),
            prompt_tokens: answer.prompt_tokens,
            output_tokens: answer.output_tokens,
            error: None,
        },
        Err(why) => KeptAnswer {
            error: Some(why.clone()),
            ..KeptAnswer::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompts_are_twenty_and_none_stands_twice() {
        let all = prompts();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (20, 20));
        assert!(all.iter().all(|prompt| !prompt.trim().is_empty()));
    }
}
