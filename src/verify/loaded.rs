//! Asking while users load the server.

use std::time::Duration;

use super::prompts;
use crate::engine::{Answer, Questioner};
use crate::load::Gate;

/// Prompts asked again in each step: enough to meet a server that mixes its streams up, few enough not to hold up the load.
const PROMPTS: usize = 4;

/// Which prompt was asked under load, and its answer.
pub type Loaded = (usize, Result<Answer, String>);

/// How often the gate is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until every user of the step asks, then asks a few of the prompts in `answered` one after another, and lets the
/// window open. Different steps take different prompts.
pub async fn ask_under_load(
    questioner: &Questioner,
    gate: &Gate,
    answered: &[usize],
    step: usize,
) -> Vec<Loaded> {
    let mut asked = Vec::new();
    let all = prompts();
    let chosen = answered.iter().cycle().skip(step * PROMPTS);
    for number in chosen.take(PROMPTS.min(answered.len())) {
        while !gate.is_loaded() && !gate.is_over() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let Some(prompt) = all.get(*number).filter(|_| !gate.is_over()) else {
            break;
        };
        let answer = tokio::select! {
            answer = questioner.ask(prompt) => answer,
            () = over(gate) => break,
        };
        asked.push((*number, answer));
    }
    gate.let_open();
    asked
}

/// Returns when the step is over.
async fn over(gate: &Gate) {
    while !gate.is_over() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
