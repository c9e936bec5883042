//! How likely a chosen token was, and the likeliest in its place: computed only for requests that ask for it.

use loadtest_protocol::{Likely, TokenLogprob};

use crate::text::TextModel;

/// A token chosen out of a row of logits, and the likeliest tokens of the row, with their log probabilities.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Likeliest {
    chosen: (u32, f64),
    /// Likeliest first, of equals the one with the lower number, as the greedy choice has it.
    top: Vec<(u32, f64)>,
}

impl Likeliest {
    /// The logarithm of the softmax, at temperature 1 and before anything is left out: what the model itself holds likely,
    /// however the token was sampled.
    pub fn of(logits: &[f32], chosen: u32, wanted: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits
            .iter()
            .map(|logit| f64::from((logit - largest).exp()))
            .sum();
        let log_sum = f64::from(largest) + sum.ln();
        let logprob = |token: u32| {
            let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            (f64::from(logit) - log_sum).max(LEAST)
        };
        let top = top(logits, wanted).into_iter();
        Self {
            chosen: (chosen, logprob(chosen)),
            top: top.map(|token| (token, logprob(token))).collect(),
        }
    }

    /// As the API tells it.
    pub fn told(self, text: &dyn TextModel) -> TokenLogprob {
        let likely = |(token, logprob)| {
            let bytes = text.token_bytes(token);
            Likely {
                token: String::from_utf8_lossy(bytes).into_owned(),
                logprob,
                bytes: Some(bytes.to_vec()),
            }
        };
        TokenLogprob {
            token: likely(self.chosen),
            top_logprobs: self.top.into_iter().map(likely).collect(),
        }
    }
}

/// Stands for the logarithm of 0, which JSON does not have; OpenAI's API does the same.
const LEAST: f64 = -9999.0;

/// The tokens with the highest logits, highest first. Few are wanted of many: one pass, and a short list kept in order.
fn top(logits: &[f32], wanted: usize) -> Vec<u32> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(wanted + 1);
    for (token, logit) in (0..).zip(logits.iter().copied()) {
        let full = best.len() == wanted;
        if logit.is_nan() || full && best.last().is_none_or(|(least, _)| logit <= *least) {
            continue;
        }
        let at = best.partition_point(|(kept, _)| *kept >= logit);
        best.insert(at, (logit, token));
        best.truncate(wanted);
    }
    best.into_iter().map(|(_, token)| token).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_top_is_that_of_a_full_sort(logits in prop::collection::vec(-9_i8..9, 1..200), wanted in 0_usize..20) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            order.truncate(wanted);
            prop_assert_eq!(top(&logits, wanted), order);
        }

        #[test]
        fn probabilities_sum_to_one(logits in prop::collection::vec(-8.0_f32..8.0, 1..200)) {
            let all = Likeliest::of(&logits, 0, logits.len());
            let sum: f64 = all.top.iter().map(|(_, logprob)| logprob.exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            prop_assert_eq!(all.top.iter().find(|(token, _)| *token == 0), Some(&all.chosen));
        }
    }

    #[test]
    fn what_is_no_number_is_no_candidate() {
        let found = Likeliest::of(&[f32::NAN, f32::NEG_INFINITY, 1.0, 1.0], 2, 2);
        assert_eq!(top(&[f32::NAN, 1.0], 2), [1]);
        assert_eq!(
            found.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(),
            [2, 3]
        );
        let impossible = Likeliest::of(&[0.0, f32::NEG_INFINITY], 1, 0);
        assert_eq!((impossible.chosen, impossible.top), ((1, LEAST), vec![]));
    }
}
