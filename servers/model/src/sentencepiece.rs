//! SentencePiece BPE tokenizers (`tokenizer.ggml.model = llama`, Gemma too) from GGUF metadata.

use crate::ModelError;
use std::collections::HashMap;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};
use tokenizers::tokenizer::Tokenizer;

/// Builds the tokenizer, without its special tokens. `space_prefix` puts a space in front of each text.
pub(crate) fn tokenizer(
    vocabulary: &[&str],
    scores: &[f64],
    unknown: Option<&str>,
    space_prefix: bool,
) -> Result<Tokenizer, ModelError> {
    let failed = |e: tokenizers::Error| ModelError::Tokenizer(e.to_string());
    let ids: Vocab = (0..)
        .zip(vocabulary)
        .map(|(id, token)| ((*token).to_owned(), id))
        .collect();
    let mut bpe = BPE::builder()
        .vocab_and_merges(ids, merges(vocabulary, scores))
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some(unknown) = unknown {
        bpe = bpe.unk_token(unknown.to_owned());
    }
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(failed)?);
    let mut normalizers: Vec<NormalizerWrapper> = vec![Replace::new(" ", "▁").map_err(failed)?.into()];
    if space_prefix {
        normalizers.insert(0, Prepend::new("▁".to_owned()).into());
    }
    tokenizer.with_normalizer(Some(Sequence::new(normalizers)));
    Ok(tokenizer)
}

/// SentencePiece joins the neighbours whose union scores highest, the leftmost of equals first. BPE has ranks in place
/// of scores: every way to put a token together, ordered by the token's score. Among equals the longest token comes
/// first, which lets a run (of spaces, say) grow from its left end as "leftmost first" does.
fn merges(vocabulary: &[&str], scores: &[f64]) -> Vec<(String, String)> {
    let known: HashMap<&str, f64> = vocabulary.iter().copied().zip(scores.iter().copied()).collect();
    let mut ranked = Vec::new();
    for (token, score) in vocabulary.iter().zip(scores) {
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if known.contains_key(left) && known.contains_key(right) {
                ranked.push((*score, left, right));
            }
        }
    }
    ranked.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then_with(|| (b.1.len() + b.2.len()).cmp(&(a.1.len() + a.2.len())))
    });
    ranked
        .into_iter()
        .map(|(_, left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str, space_prefix: bool) -> Vec<u32> {
        let vocabulary = [
            "<unk>",
            "<0xC3>",
            "<0xA9>",
            "▁",
            "▁▁",
            "▁▁▁",
            "a",
            "b",
            "ab",
            "▁a",
            "▁ab",
        ];
        let scores = [0.0, 0.0, 0.0, -9.0, -8.0, -8.0, -9.0, -9.0, -1.0, -2.0, -3.0];
        let tokenizer = tokenizer(&vocabulary, &scores, Some("<unk>"), space_prefix).unwrap();
        tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn the_highest_score_is_merged_first() {
        assert_eq!(ids("ab a", false), [8, 9]);
        assert_eq!(ids(" ab", false), [10]);
    }

    #[test]
    fn a_space_goes_in_front_only_where_the_model_wants_it() {
        assert_eq!(ids("ab", true), [10]);
        assert_eq!(ids("ab", false), [8]);
    }

    #[test]
    fn runs_of_equal_score_grow_from_the_left() {
        assert_eq!(ids("    ", false), [5, 3]);
        assert_eq!(ids("     ", false), [5, 4]);
    }

    #[test]
    fn a_character_outside_the_vocabulary_becomes_its_bytes() {
        assert_eq!(ids("é", false), [1, 2]);
    }
}
