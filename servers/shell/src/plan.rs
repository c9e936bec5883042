//! Which rows a step computes. Pure: the scheduler's fairness is decided, and tested, here.

/// What a running sequence waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Its next token: one row.
    Decode,
    /// So many tokens of its prompt, at least one.
    Prefill(usize),
}

/// Rows of the next step for each of `needs`, which stand in the order in which they came.
///
/// Every decoding sequence gets its row. Prompts share at most `chunk` rows, first come, first served; so a step
/// has at most `needs.len() + chunk` rows, and a prompt waits only for those before it.
pub(crate) fn rows(needs: impl IntoIterator<Item = Need>, chunk: usize) -> impl Iterator<Item = usize> {
    let mut left = chunk.max(1);
    needs.into_iter().map(move |need| match need {
        Need::Decode => 1,
        Need::Prefill(tokens) => {
            let taken = tokens.min(left);
            left -= taken;
            taken
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn need() -> impl Strategy<Value = Need> {
        prop_oneof![Just(Need::Decode), (1_usize..600).prop_map(Need::Prefill)]
    }

    proptest! {
        #[test]
        fn a_step_is_bounded_and_fair(needs in prop::collection::vec(need(), 0..80), chunk in 1_usize..512) {
            let planned: Vec<_> = rows(needs.iter().copied(), chunk).collect();
            prop_assert_eq!(planned.len(), needs.len());
            let mut prefill = 0;
            let mut starved = false;
            for (need, rows) in needs.iter().zip(&planned) {
                match need {
                    Need::Decode => prop_assert_eq!(*rows, 1),
                    Need::Prefill(tokens) => {
                        prop_assert!(rows <= tokens);
                        prop_assert!(!starved || *rows == 0, "a later prompt went before an earlier one");
                        starved |= rows < tokens;
                        prefill += rows;
                    }
                }
            }
            prop_assert!(prefill <= chunk);
            prop_assert!(!starved || prefill == chunk, "rows were left although a prompt waited");
        }

        #[test]
        fn every_prompt_is_read(prompts in prop::collection::vec(1_usize..600, 1..20), chunk in 1_usize..512) {
            let mut left = prompts.clone();
            let steps = prompts.iter().sum::<usize>().div_ceil(chunk);
            for _ in 0..steps {
                let needs = left.iter().map(|tokens| if *tokens > 0 { Need::Prefill(*tokens) } else { Need::Decode });
                let planned: Vec<_> = rows(needs, chunk).collect();
                for (tokens, rows) in left.iter_mut().zip(planned) {
                    *tokens = tokens.saturating_sub(rows);
                }
            }
            prop_assert!(left.iter().all(|tokens| *tokens == 0));
        }
    }
}
