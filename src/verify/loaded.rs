//! Asking while users load the server.

use std::time::Duration;

use futures::future::join_all;

use super::prompts;
use crate::engine::Answer;
use crate::load::Gate;

/// Prompts asked again in each step: enough to meet a server that mixes its streams up, few enough to be no load of their
/// own.
const PROMPTS: usize = 4;

/// What became of a prompt that was asked under load.
#[derive(Debug, PartialEq)]
pub enum Reply {
    /// It was answered.
    Answer(Answer),
    /// It was not, and why.
    Failed(String),
    /// The window had to open before its answer was whole.
    Late,
}

/// Which prompt was asked under load, and what became of it.
pub type Loaded = (usize, Reply);

/// How often the gate is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until every user of the step asks, then asks a few of the prompts in `answered` at once by `ask`, and waits for
/// their answers until the window must open. Different steps take different prompts. What the end of the step cuts off is
/// left out.
pub async fn ask_under_load<F>(
    ask: impl Fn(&'static str) -> F,
    gate: &Gate,
    answered: &[usize],
    step: usize,
) -> Vec<Loaded>
where
    F: Future<Output = Result<Answer, String>>,
{
    until(|| gate.is_loaded() || gate.is_over()).await;
    if gate.is_over() {
        return Vec::new();
    }
    let all = prompts();
    let chosen = answered.iter().cycle().skip(step * PROMPTS);
    let chosen = chosen.take(PROMPTS.min(answered.len()));
    let asked = chosen
        .filter_map(|&number| Some((number, *all.get(number)?)))
        .map(async |(number, prompt)| {
            let reply = tokio::select! {
                biased;
                answer = ask(prompt) => Some(answer.map_or_else(Reply::Failed, Reply::Answer)),
                () = until(|| gate.is_late() || gate.is_over()) => (!gate.is_over()).then_some(Reply::Late),
            };
            reply.map(|reply| (number, reply))
        });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Returns when this is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use tokio::sync::Barrier;

    use super::*;

    const ANSWERED: [usize; 6] = [0, 2, 3, 5, 7, 11];

    fn loaded() -> Gate {
        let gate = Gate::default();
        gate.all_ask();
        gate
    }

    fn numbers(asked: &[Loaded]) -> Vec<usize> {
        asked.iter().map(|(number, _)| *number).collect()
    }

    #[tokio::test]
    async fn four_are_asked_at_once_and_others_in_the_next_step() {
        let gate = loaded();
        let all = Barrier::new(4);
        let ask = async |_| {
            all.wait().await;
            Ok(Answer::default())
        };
        let asked = ask_under_load(ask, &gate, &ANSWERED, 0).await;
        assert_eq!(numbers(&asked), [0, 2, 3, 5]);
        let whole = |(_, reply): &Loaded| *reply == Reply::Answer(Answer::default());
        assert!(asked.iter().all(whole));
        assert_eq!(
            numbers(&ask_under_load(ask, &gate, &ANSWERED, 1).await),
            [7, 11, 0, 2]
        );
    }

    #[tokio::test]
    async fn what_is_not_answered_when_the_window_must_open_is_late_and_no_failure() {
        let gate = loaded();
        let left = Cell::new(4);
        let ask = async |prompt| {
            left.set(left.get() - 1);
            if left.get() == 0 {
                gate.hurry();
            }
            match prompt == prompts()[2] {
                true => Err("refused".to_owned()),
                false => pending().await,
            }
        };
        let asked = ask_under_load(ask, &gate, &ANSWERED, 0).await;
        let late = |number| (number, Reply::Late);
        assert_eq!(
            asked,
            [late(0), (2, Reply::Failed("refused".into())), late(3), late(5)]
        );
    }

    #[tokio::test]
    async fn what_the_end_of_the_step_cuts_off_is_left_out() {
        let gate = loaded();
        let ask = async |_| {
            gate.close();
            pending().await
        };
        assert_eq!(ask_under_load(ask, &gate, &ANSWERED, 0).await, []);
        let never_loaded = Gate::default();
        never_loaded.close();
        let ask = |_| ready(Ok(Answer::default()));
        assert_eq!(ask_under_load(ask, &never_loaded, &ANSWERED, 0).await, []);
    }
}
