//! The engine's thread: sequences join and leave between steps, and every step computes one batch of all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use rayon::prelude::*;

use crate::logprobs::Likeliest;
use crate::plan;
use crate::sequence::{Job, Sequence};
use crate::text::TextModel;
use crate::{Counted, Engine, EngineInfo, Event, Limits, Metrics};

/// Where the engine works.
pub struct Worker {
    engine: Box<dyn Engine>,
    text: Arc<dyn TextModel>,
    jobs: Receiver<Job>,
    waiting: VecDeque<Job>,
    /// In the order in which they came.
    running: Vec<Sequence>,
    free_slots: Vec<usize>,
    limits: Limits,
    vocabulary: usize,
    kv_bytes_per_token: u64,
    end_tokens: Vec<u32>,
    logits: Vec<f32>,
    metrics: Arc<Metrics>,
}

impl Worker {
    /// An engine that was made ready for `limits`.
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        text: Arc<dyn TextModel>,
        jobs: Receiver<Job>,
        info: &EngineInfo,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            engine,
            end_tokens: text.end_tokens().to_vec(),
            text,
            jobs,
            waiting: VecDeque::new(),
            running: Vec::with_capacity(limits.parallel),
            free_slots: (0..limits.parallel).rev().collect(),
            limits,
            vocabulary: info.vocabulary,
            kv_bytes_per_token: info.kv_bytes_per_token,
            logits: Vec::new(),
            metrics,
        }
    }

    /// Serves until the scheduler is gone and every request is over.
    pub fn run(mut self) {
        while self.take_in() {
            self.drop_cancelled();
            self.admit();
            if !self.running.is_empty() {
                self.step();
            }
            self.tell_kv_memory();
        }
    }

    /// Takes new requests in; waits for one if there is nothing else to do. False when there will be none.
    fn take_in(&mut self) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            match self.jobs.recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => return false,
            }
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    return !(self.running.is_empty() && self.waiting.is_empty());
                }
            }
        }
    }

    /// Forgets the requests whose client went away.
    fn drop_cancelled(&mut self) {
        self.waiting.retain(|job| !job.events.is_closed());
        for sequence in &mut self.running {
            sequence.over |= sequence.job.events.is_closed();
        }
        self.free_what_is_over();
    }

    fn admit(&mut self) {
        while let Some(slot) = self.free_slots.pop() {
            let Some(job) = self.waiting.pop_front() else {
                self.free_slots.push(slot);
                return;
            };
            self.running
                .push(Sequence::new(job, slot, Counted::new(&self.metrics.running)));
        }
    }

    /// Computes one batch and hands its tokens out.
    fn step(&mut self) {
        let needs: Vec<_> = self.running.iter().map(Sequence::need).collect();
        let mut logits_rows = 0;
        for (sequence, rows) in self
            .running
            .iter_mut()
            .zip(plan::rows(needs, self.limits.prefill_chunk))
        {
            sequence.rows = rows;
            let complete = sequence.computed + rows == sequence.tokens.len();
            sequence.row_of_logits = complete.then_some(logits_rows);
            logits_rows += usize::from(complete);
        }
        let batch: Vec<_> = self.running.iter().filter_map(Sequence::rows_of_step).collect();
        let started = Instant::now();
        self.logits.clear();
        let result = self.engine.step(&batch, &mut self.logits);
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.busy_seconds.inc_by(seconds);
        self.metrics.step_seconds.observe(seconds);
        self.metrics.step_sequences.observe(batch.len() as f64);
        self.metrics
            .step_rows
            .observe(batch.iter().map(|rows| rows.tokens.len()).sum::<usize>() as f64);
        drop(batch);
        let expected = logits_rows * self.vocabulary;
        match result {
            Ok(()) if self.logits.len() == expected => self.advance(),
            Ok(()) => self.fail(&format!(
                "The engine gave {} logits instead of {expected}.",
                self.logits.len()
            )),
            Err(error) => self.fail(&format!("The engine failed: {error:#}")),
        }
        self.free_what_is_over();
    }

    /// Chooses the next token of each sequence whose logits are there, all at once, and tells them.
    fn advance(&mut self) {
        let (logits, vocabulary, end_tokens) = (&self.logits, self.vocabulary, &self.end_tokens);
        self.running.par_iter_mut().for_each(|sequence| {
            sequence.computed += sequence.rows;
            if let Some(row) = sequence.row_of_logits {
                let masked = if sequence.may_end() { &[][..] } else { end_tokens };
                let row = &logits[row * vocabulary..][..vocabulary];
                sequence.next = sequence.job.sampler.sample(row, masked);
                let wanted = sequence.job.logprobs;
                sequence.likeliest = wanted.map(|n| Likeliest::of(row, sequence.next, n));
            }
        });
        for sequence in self
            .running
            .iter_mut()
            .filter(|sequence| sequence.row_of_logits.is_some())
        {
            self.metrics.generated_tokens.inc();
            sequence.accept(&*self.text);
        }
    }

    /// Fails the sequences of the step; the others go on.
    fn fail(&mut self, message: &str) {
        for sequence in self.running.iter_mut().filter(|sequence| sequence.rows > 0) {
            sequence.tell(Event::Failed(message.to_owned()));
            sequence.over = true;
        }
    }

    fn free_what_is_over(&mut self) {
        let (engine, free_slots) = (&mut self.engine, &mut self.free_slots);
        self.running.retain(|sequence| {
            if sequence.over {
                engine.free(sequence.slot);
                free_slots.push(sequence.slot);
            }
            !sequence.over
        });
    }

    fn tell_kv_memory(&self) {
        let tokens: usize = self.running.iter().map(|sequence| sequence.computed).sum();
        self.metrics
            .kv_bytes
            .set((tokens as u64 * self.kv_bytes_per_token) as i64);
    }
}
