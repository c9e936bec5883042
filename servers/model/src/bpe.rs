//! Byte-level BPE tokenizers (`tokenizer.ggml.model = gpt2`) from GGUF metadata.

use crate::ModelError;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{SplitDelimiterBehavior, Tokenizer};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut before BPE, and what else differs between the models: one entry a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// GPT-2's pattern alone.
    Gpt2,
    /// Each digit by itself, then GPT-2's pattern.
    Digits,
    /// Llama 3's pattern; a word that is in the vocabulary is taken whole.
    Llama3,
    /// Qwen 2's pattern after NFC normalisation.
    Qwen2,
}

/// Values of `tokenizer.ggml.pre`, by family.
const FAMILIES: &[(&str, Family)] = &[
    ("default", Family::Gpt2),
    ("gpt-2", Family::Gpt2),
    ("phi-2", Family::Gpt2),
    ("smollm", Family::Digits),
    ("starcoder", Family::Digits),
    ("refact", Family::Digits),
    ("command-r", Family::Digits),
    ("llama-bpe", Family::Llama3),
    ("llama3", Family::Llama3),
    ("llama-v3", Family::Llama3),
    ("qwen2", Family::Qwen2),
    ("deepseek-r1-qwen", Family::Qwen2),
];

impl Family {
    pub(crate) fn of(pre: &str) -> Result<Self, ModelError> {
        let known = FAMILIES.iter().find(|(name, _)| *name == pre);
        known
            .map(|(_, family)| *family)
            .ok_or_else(|| ModelError::Unsupported {
                what: "tokenizer.ggml.pre",
                found: pre.to_owned(),
                known: FAMILIES
                    .iter()
                    .map(|(name, _)| *name)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Whether models of this family want BOS where their metadata does not say.
    pub(crate) fn adds_bos(self) -> bool {
        self == Family::Llama3
    }

    fn pre_tokenizer(self) -> Result<Sequence, ModelError> {
        let pattern = match self {
            Family::Gpt2 => return Ok(Sequence::new(vec![gpt2()])),
            Family::Digits => return Ok(Sequence::new(vec![Digits::new(true).into(), gpt2()])),
            Family::Llama3 => LLAMA3,
            Family::Qwen2 => QWEN2,
        };
        let pattern = SplitPattern::Regex(pattern.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        Ok(Sequence::new(vec![
            split.into(),
            ByteLevel::new(false, true, false).into(),
        ]))
    }
}

fn gpt2() -> PreTokenizerWrapper {
    ByteLevel::new(false, true, true).into()
}

/// Builds the tokenizer, without its special tokens.
pub(crate) fn tokenizer(
    family: Family,
    vocabulary: &[&str],
    merges: &[&str],
) -> Result<Tokenizer, ModelError> {
    let ids: Vocab = (0..)
        .zip(vocabulary)
        .map(|(id, token)| ((*token).to_owned(), id))
        .collect();
    let merges = merges
        .iter()
        .map(|merge| pair(merge))
        .collect::<Result<Vec<_>, _>>()?;
    let bpe = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(family == Family::Llama3)
        .build()
        .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(family.pre_tokenizer()?));
    if family == Family::Qwen2 {
        tokenizer.with_normalizer(Some(NFC));
    }
    Ok(tokenizer)
}

fn pair(merge: &str) -> Result<(String, String), ModelError> {
    match merge.split_once(' ') {
        Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
        None => Err(ModelError::Tokenizer(format!(
            "merge `{merge}` is not two tokens with a space between"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces that `family` cuts `text` into, spelled as text again.
    fn pieces(family: Family, text: &str) -> Vec<String> {
        use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
        let mut string = PreTokenizedString::from(text);
        family.pre_tokenizer().unwrap().pre_tokenize(&mut string).unwrap();
        let splits = string.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits
            .into_iter()
            .map(|(_, (start, end), _)| text[start..end].to_owned())
            .collect()
    }

    #[test]
    fn digits_are_cut_as_each_family_does() {
        let text = "in 2024, it's";
        assert_eq!(pieces(Family::Gpt2, text), ["in", " 2024", ",", " it", "'s"]);
        assert_eq!(
            pieces(Family::Digits, text),
            ["in", " ", "2", "0", "2", "4", ",", " it", "'s"]
        );
        assert_eq!(
            pieces(Family::Llama3, text),
            ["in", " ", "202", "4", ",", " it", "'s"]
        );
        assert_eq!(
            pieces(Family::Qwen2, text),
            ["in", " ", "2", "0", "2", "4", ",", " it", "'s"]
        );
    }

    #[test]
    fn an_unknown_family_is_named_with_those_known() {
        let error = Family::of("klingon").unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.ggml.pre `klingon`") && error.contains("smollm, "),
            "{error}"
        );
    }

    #[test]
    fn merges_apply_in_order() {
        let vocabulary = ["a", "b", "c", "ab", "bc"];
        let built = tokenizer(Family::Gpt2, &vocabulary, &["b c", "a b"]).unwrap();
        assert_eq!(built.encode_fast("abc", false).unwrap().get_ids(), [0, 4]);
        assert!(tokenizer(Family::Gpt2, &vocabulary, &["ab"]).is_err());
    }
}
