//! The requests of a step: prepared before the load with the tokenizer, rendered during it without.
//!
//! A synthetic prompt is a shared prefix (if wanted), a *nonce* of a few words that no other request has, and a text
//! out of a pool. All words are chosen so that each costs the same number of tokens, so every nonce does too, and a
//! prompt keeps its exact length whichever nonce it gets. Lengths count the text of the user's message alone: without
//! what a chat template puts around it, and without begin- or end-of-text tokens.

mod nonce;
mod render;
mod synthetic;

use std::io::Write;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use super::words::Vocabulary;
use super::{Error, Length, Requests, Source, Step, dataset};
use nonce::Nonces;
use render::{Rendered, render};
use synthetic::Writer;

/// How an engine wants to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Dialect {
    /// Name of the model in the request.
    pub model: String,
    /// Field that bounds the output, `max_tokens` or `max_completion_tokens`.
    pub max_tokens: String,
    /// Field that makes the engine generate past its end token; absent if it has none.
    pub ignore_eos: Option<String>,
    /// What that field is set to.
    pub ignore_eos_value: Value,
    /// Field of the sampling temperature; absent if it has none, as the next three.
    pub temperature: Option<String>,
    /// Field of nucleus sampling's share.
    pub top_p: Option<String>,
    /// Whether a `top_p` of 1 is sent; else it is left out.
    pub top_p_of_one: bool,
    /// Field of the number of tokens sampled from.
    pub top_k: Option<String>,
    /// Field of the seed.
    pub seed: Option<String>,
    /// Whether the engine takes `stream_options.include_usage`.
    pub include_usage: bool,
    /// More fields of every request that does not set them otherwise.
    pub extra: Map<String, Value>,
}

impl Dialect {
    /// What most servers take, with this model's name.
    pub fn openai(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            max_tokens: "max_tokens".into(),
            ignore_eos: Some("ignore_eos".into()),
            ignore_eos_value: true.into(),
            temperature: Some("temperature".into()),
            top_p: Some("top_p".into()),
            top_p_of_one: true,
            top_k: Some("top_k".into()),
            seed: Some("seed".into()),
            include_usage: true,
            extra: Map::new(),
        }
    }
}

/// The requests of one step, by number. The same profile, step, tokenizer and seed give the same prompts, whatever
/// the engine.
#[derive(Debug, Clone)]
pub struct Prompts {
    pool: Vec<Rendered>,
    nonces: Nonces,
    /// Whether the first pass through the pool goes without nonces: prompts of a dataset are sent as they are once.
    plain_first_pass: bool,
    seed: u64,
    counted: bool,
}

/// A text, where its nonce goes, and how many tokens are asked for.
struct Item {
    messages: Vec<Value>,
    /// Which message takes the nonce, and after how many bytes of its text.
    at: (usize, usize),
    osl: u32,
}

impl Prompts {
    /// Prepares the requests of a step. `count` is the model's tokenizer (tokens of a text, nothing added); without
    /// it a word counts as a token, and [`counted`](Self::counted) says so.
    ///
    /// # Errors
    /// If a dataset is not readable, no prompt of the length wanted can be made, or the engine does not take what
    /// the profile asks for.
    pub fn prepare(
        requests: &Requests,
        step: &Step,
        dialect: &Dialect,
        count: Option<&dyn Fn(&str) -> usize>,
    ) -> Result<Self, Error> {
        let words = |text: &str| text.split_whitespace().count();
        let counter = count.unwrap_or(&words);
        let wanted = step.isl.mean;
        let vocabulary = Vocabulary::choose(counter).ok_or_else(|| Error::Length {
            wanted,
            reason: "it counts no two words alike".into(),
        })?;
        let mut rng = ChaCha8Rng::seed_from_u64(requests.seed);
        let mut nonces = Nonces::new(vocabulary, &mut rng);
        let items = match requests.source {
            Source::Synthetic => {
                let mut writer = Writer {
                    vocabulary: nonces.vocabulary.clone(),
                    count: counter,
                    rng,
                };
                nonces.words = writer.nonce_words(step.isl, requests.shared_prefix);
                writer.items(step, requests.shared_prefix, &nonces)?
            }
            _ => dataset_items(&requests.source, step.osl, &mut rng)?,
        };
        let pool = items
            .iter()
            .map(|item| render(item, requests, dialect))
            .collect::<Result<_, _>>()?;
        let plain_first_pass = requests.source != Source::Synthetic;
        Ok(Self {
            pool,
            nonces,
            plain_first_pass,
            seed: requests.seed,
            counted: count.is_some(),
        })
    }

    /// Whether lengths were counted with a tokenizer; else they are words.
    pub fn counted(&self) -> bool {
        self.counted
    }

    /// How many requests there are before one repeats.
    pub fn distinct(&self) -> u64 {
        let fresh = if self.plain_first_pass {
            self.pool.len() as u64
        } else {
            0
        };
        self.nonces.space().saturating_add(fresh)
    }

    /// Replaces `out` by the JSON body of request number `seq` of the step.
    pub fn body(&self, seq: u64, out: &mut Vec<u8>) {
        out.clear();
        let item = &self.pool[(seq % self.pool.len() as u64) as usize];
        out.extend_from_slice(&item.before_nonce);
        if !self.plain_first_pass || seq >= self.pool.len() as u64 {
            self.nonces.write(seq, out);
        }
        out.extend_from_slice(&item.after_nonce);
        if item.seeded {
            // Writing to a Vec cannot fail. Seeds stay within 31 bits, which every server takes.
            let _ = write!(out, "{}", self.seed.wrapping_add(seq) & 0x7fff_ffff);
        }
        out.push(b'}');
    }
}

/// The entries of a dataset in an order that the seed decides.
fn dataset_items(source: &Source, osl: Length, rng: &mut ChaCha8Rng) -> Result<Vec<Item>, Error> {
    let mut entries = dataset::entries(source)?;
    entries.shuffle(rng);
    let item = |entry: dataset::Entry| {
        let message = entry.user_text().map_or(0, |(i, _)| i);
        Item {
            messages: entry.messages,
            at: (message, 0),
            osl: entry.max_tokens.unwrap_or_else(|| osl.draw(rng)),
        }
    };
    Ok(entries.into_iter().map(item).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::profile::{Endpoint, Profile, Settings};

    /// A tokenizer as vocabularies have them: pieces of at most six letters, a space joined to the word behind it.
    fn pieces(text: &str) -> usize {
        text.split_whitespace().map(|word| word.len().div_ceil(6)).sum()
    }

    fn requests(change: impl FnOnce(&mut Settings)) -> Requests {
        let mut flags = Settings::default();
        change(&mut flags);
        Profile::load(Some("quick"), &flags).unwrap().requests
    }

    fn step(isl: u32) -> Step {
        Step {
            users: 1,
            isl: Length::fixed(isl),
            osl: Length::fixed(32),
        }
    }

    /// Prompts of `isl` tokens, counted.
    fn counted(isl: u32, change: impl FnOnce(&mut Settings)) -> Prompts {
        let dialect = Dialect::openai("m");
        Prompts::prepare(&requests(change), &step(isl), &dialect, Some(&pieces)).unwrap()
    }

    fn body(prompts: &Prompts, seq: u64) -> Value {
        let mut out = b"left over".to_vec();
        prompts.body(seq, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    fn text(prompts: &Prompts, seq: u64) -> String {
        body(prompts, seq)["messages"][0]["content"]
            .as_str()
            .unwrap()
            .to_string()
    }

    #[test]
    fn prompts_past_the_pool_are_unique_and_exact() {
        let prompts = counted(40, |_| ());
        let mut texts = HashSet::new();
        for seq in 0..3000 {
            let text = text(&prompts, seq);
            assert_eq!(pieces(&text), 40, "{text}");
            assert!(texts.insert(text));
        }
        assert!(prompts.distinct() > 1 << 30);
        assert!(prompts.counted());
    }

    #[test]
    fn neighbours_differ_from_their_first_word_on() {
        let prompts = counted(40, |_| ());
        let first: HashSet<String> = (0..200)
            .map(|seq| text(&prompts, seq).split(' ').next().unwrap().to_string())
            .collect();
        assert_eq!(first.len(), 200);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_length_is_exact_and_the_seed_decides(isl in 1u32..300, seed: u64, seq in 0u64..1_000_000) {
            let make = |seed| counted(isl, |flags| flags.requests.seed = Some(seed));
            let (one, same) = (make(seed), make(seed));
            prop_assert_eq!(pieces(&text(&one, seq)), isl as usize);
            prop_assert_eq!(body(&one, seq), body(&same, seq));
        }

        #[test]
        fn a_shared_prefix_is_shared_and_no_more(shared in 1u32..100, more in 2u32..100) {
            let prompts = counted(shared + more, |flags| {
                flags.requests.isl = Some(vec![Length::fixed(shared + more)]);
                flags.requests.shared_prefix = Some(shared);
            });
            let words = |seq| text(&prompts, seq).split(' ').map(String::from).collect::<Vec<_>>();
            let (a, b) = (words(0), words(1));
            let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(same, shared as usize);
            prop_assert_eq!(pieces(&text(&prompts, 1)), (shared + more) as usize);
        }
    }

    #[test]
    fn another_engine_gets_the_same_prompt_by_its_own_fields() {
        let requests = requests(|flags| {
            flags.requests.temperature = Some(0.5);
            flags.requests.top_p = Some(0.9);
        });
        let mut other = Dialect::openai("dir@main");
        other.max_tokens = "max_completion_tokens".into();
        other.include_usage = false;
        other.top_p = Some("nucleus".into());
        other.seed = None;
        other.extra.insert("cache_prompt".into(), false.into());
        other.extra.insert("top_k".into(), 0.into());
        let step = step(20);
        let a = Prompts::prepare(&requests, &step, &Dialect::openai("m"), None).unwrap();
        let b = Prompts::prepare(&requests, &step, &other, None).unwrap();
        assert_eq!(text(&a, 7), text(&b, 7));
        assert!(!a.counted());
        let (mut a, mut b) = (body(&a, 7), body(&b, 7));
        for body in [&mut a, &mut b] {
            body.as_object_mut().unwrap().remove("messages");
        }
        assert_eq!(
            a,
            json!({"model": "m", "max_tokens": 32, "stream": true, "stream_options": {"include_usage": true},
                   "temperature": 0.5, "top_p": 0.9, "ignore_eos": true, "seed": 7})
        );
        assert_eq!(
            b,
            json!({"model": "dir@main", "max_completion_tokens": 32, "stream": true, "temperature": 0.5,
                   "nucleus": 0.9, "ignore_eos": true, "cache_prompt": false, "top_k": 0})
        );
    }

    #[test]
    fn sampling_is_that_of_the_comparisons_plan_unless_told_otherwise() {
        let fields = |change: fn(&mut Settings)| {
            let prompts =
                Prompts::prepare(&requests(change), &step(20), &Dialect::openai("m"), None).unwrap();
            let body = body(&prompts, 3);
            ["temperature", "top_p", "top_k", "seed"].map(|field| body[field].clone())
        };
        assert_eq!(fields(|_| ()), [json!(0.8), json!(0.95), Value::Null, json!(3)]);
        let other = fields(|flags| {
            flags.requests.top_k = Some(40);
            flags.requests.top_p = Some(1.0);
            flags.requests.seed = Some(10);
        });
        assert_eq!(other, [json!(0.8), json!(1.0), json!(40), json!(13)]);
        // Nothing is drawn where the likeliest token is taken.
        let greedy = fields(|flags| flags.requests.temperature = Some(0.0));
        assert_eq!(greedy, [json!(0.0), Value::Null, Value::Null, json!(3)]);
    }

    #[test]
    fn a_top_p_of_one_is_left_out_where_it_is_refused() {
        let told = |top_p, top_p_of_one| {
            let requests = requests(|flags| flags.requests.top_p = Some(top_p));
            let dialect = Dialect {
                top_p_of_one,
                ..Dialect::openai("m")
            };
            let prompts = Prompts::prepare(&requests, &step(20), &dialect, None).unwrap();
            body(&prompts, 0).get("top_p").cloned()
        };
        assert_eq!((told(1.0, true), told(1.0, false)), (Some(json!(1.0)), None));
        assert_eq!(told(0.9, false), Some(json!(0.9)));
    }

    #[test]
    fn what_an_engine_does_not_take_is_refused() {
        let dialect = Dialect {
            ignore_eos: None,
            ..Dialect::openai("m")
        };
        let error = Prompts::prepare(&requests(|_| ()), &step(20), &dialect, None).unwrap_err();
        insta::assert_snapshot!(error);
    }

    #[test]
    fn a_dataset_is_sent_as_it_is_once_and_unique_after() {
        let requests = requests(|flags| {
            flags.requests.dataset = Some("questions".into());
            flags.requests.endpoint = Some(Endpoint::Completions);
        });
        let prompts = Prompts::prepare(&requests, &step(0), &Dialect::openai("m"), None).unwrap();
        let n = prompts.pool.len() as u64;
        let prompt = |seq| body(&prompts, seq)["prompt"].as_str().unwrap().to_string();
        let known: HashSet<String> = dataset::entries(&Source::Questions)
            .unwrap()
            .iter()
            .map(|e| e.user_text().unwrap().1.into())
            .collect();
        assert_eq!((0..n).map(prompt).collect::<HashSet<_>>(), known);
        assert_eq!((0..4 * n).map(prompt).collect::<HashSet<_>>().len() as u64, 4 * n);
        assert!(prompt(n + 3).ends_with(&prompt(3)));
    }

    #[test]
    fn a_conversation_keeps_its_other_messages() {
        let item = Item {
            messages: vec![
                json!({"role": "system", "content": "Be \"brief\"."}),
                json!({"role": "user", "content": "One\ntwo"}),
                json!({"role": "assistant", "content": "three"}),
            ],
            at: (1, 0),
            osl: 5,
        };
        let rendered = render(&item, &requests(|_| ()), &Dialect::openai("m")).unwrap();
        let whole = [&rendered.before_nonce[..], b"sun ", &rendered.after_nonce, b"1}"].concat();
        let body: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(body["messages"][0], item.messages[0]);
        assert_eq!(
            body["messages"][1],
            json!({"role": "user", "content": "sun One\ntwo"})
        );
        assert_eq!(body["messages"][2], item.messages[2]);
    }
}
