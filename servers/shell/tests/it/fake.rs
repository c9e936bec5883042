//! A tiny engine whose output is known, and which checks how it is driven.

use std::sync::{Arc, Condvar, Mutex};

use loadtest_shell::{Engine, EngineInfo, Limits, Metrics, Rows, Scheduler, TextModel, Worker};
use serde_json::Value;

/// One token a byte, and the one that ends.
pub const END: u32 = 256;
const VOCABULARY: usize = 257;

/// Tokens are bytes.
pub struct Bytes {
    table: Vec<u8>,
}

impl TextModel for Bytes {
    fn encode(&self, text: &str, _special: bool) -> anyhow::Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn bos(&self) -> Option<u32> {
        None
    }

    fn chat_prompt(&self, messages: &[Value]) -> anyhow::Result<String> {
        messages
            .iter()
            .map(|m| m["content"].as_str().map(str::to_owned))
            .collect::<Option<String>>()
            .ok_or_else(|| anyhow::anyhow!("a message has no content"))
    }

    fn token_bytes(&self, token: u32) -> &[u8] {
        self.table
            .get(token as usize..)
            .and_then(|rest| rest.get(..1))
            .unwrap_or_default()
    }

    fn end_tokens(&self) -> &[u32] {
        &[END]
    }
}

/// What the engine has seen.
#[derive(Default)]
pub struct Seen {
    /// The tokens in each slot's memory.
    pub slots: Vec<Vec<u32>>,
    pub steps: usize,
    pub most_rows: usize,
    /// Slots in the order in which they got their first row.
    pub started: Vec<Vec<u32>>,
    closed: bool,
    /// Steps that may still be computed while it is closed.
    allowed: usize,
    fail_next: bool,
}

/// The test's hold on the engine.
#[derive(Clone, Default)]
pub struct Hold(Arc<(Mutex<Seen>, Condvar)>);

impl Hold {
    pub fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.0.lock().unwrap())
    }

    /// Steps wait from now on.
    pub fn close(&self) {
        self.look(|seen| seen.closed = true);
    }

    /// Steps go on.
    pub fn open(&self) {
        self.look(|seen| seen.closed = false);
        self.0.1.notify_all();
    }

    /// One step goes on although steps wait.
    pub fn one_step(&self) {
        self.look(|seen| seen.allowed += 1);
        self.0.1.notify_all();
    }

    pub fn fail_next(&self) {
        self.look(|seen| seen.fail_next = true);
    }

    pub fn slots_in_use(&self) -> usize {
        self.look(|seen| seen.slots.iter().filter(|slot| !slot.is_empty()).count())
    }
}

/// After `echo:TEXT` and a NUL byte it says TEXT and ends; after anything else, letters without end.
pub fn next_token(history: &[u32]) -> u32 {
    let nul = history.iter().position(|token| *token == 0);
    let prefix: Vec<u32> = "echo:".bytes().map(u32::from).collect();
    match nul {
        Some(nul) if history.starts_with(&prefix) => {
            let generated = history.len() - nul - 1;
            history[prefix.len()..nul].get(generated).copied().unwrap_or(END)
        }
        _ => {
            let sum: u32 = history.iter().sum();
            u32::from(b'a') + (sum + 7 * history.len() as u32) % 26
        }
    }
}

struct FakeEngine(Hold);

impl Engine for FakeEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "fake".into(),
            version: "1".into(),
            model: "fake".into(),
            weights: "none".into(),
            weights_bytes: 0,
            kv_bytes_per_token: 10,
            max_context: 4096,
            vocabulary: VOCABULARY,
            device: "cpu".into(),
            threads: 1,
        }
    }

    fn prepare(&mut self, parallel: usize, _context: usize) -> anyhow::Result<()> {
        self.0.look(|seen| seen.slots = vec![Vec::new(); parallel]);
        Ok(())
    }

    fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()> {
        let (lock, opened) = &*self.0.0;
        let mut seen = opened
            .wait_while(lock.lock().unwrap(), |seen| seen.closed && seen.allowed == 0)
            .unwrap();
        seen.allowed = seen.allowed.saturating_sub(1);
        anyhow::ensure!(!std::mem::take(&mut seen.fail_next), "told to fail");
        seen.steps += 1;
        seen.most_rows = seen
            .most_rows
            .max(batch.iter().map(|rows| rows.tokens.len()).sum());
        let mut slots: Vec<_> = batch.iter().map(|rows| rows.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), batch.len(), "two entries of a batch are in one slot");
        for rows in batch {
            if rows.position == 0 {
                seen.started.push(rows.tokens.to_vec());
            }
            let slot = &mut seen.slots[rows.slot];
            assert_eq!(
                slot.len(),
                rows.position,
                "slot {} holds another sequence",
                rows.slot
            );
            slot.extend(rows.tokens);
            if rows.logits {
                let next = next_token(slot) as usize;
                logits.extend((0..VOCABULARY).map(|token| if token == next { 1.0 } else { 0.0 }));
            }
        }
        Ok(())
    }

    fn free(&mut self, slot: usize) {
        self.0.look(|seen| seen.slots[slot].clear());
    }
}

/// A scheduler over the engine; its worker is still to be run.
pub fn scheduler(limits: Limits, metrics: Arc<Metrics>) -> (Scheduler, Worker, Hold) {
    try_scheduler(limits, metrics).unwrap()
}

/// The same, for limits that may be refused.
pub fn try_scheduler(limits: Limits, metrics: Arc<Metrics>) -> anyhow::Result<(Scheduler, Worker, Hold)> {
    let hold = Hold::default();
    let text = Arc::new(Bytes {
        table: (0..=255).collect(),
    });
    let (scheduler, worker) = Scheduler::new(Box::new(FakeEngine(hold.clone())), text, limits, metrics)?;
    Ok((scheduler, worker, hold))
}
