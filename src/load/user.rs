//! One user: asks, notes how it went, and asks again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::conduct::Requests;
use super::control::{Control, Stop};
use super::counting::Uncounted;

use crate::client::{Client, Failure, Reader};
use crate::measure::{Outcome, Recorder, RequestId, Sink};

/// What the users of one shard share.
pub(super) struct Shard {
    pub reader: Arc<Reader>,
    pub control: Arc<Control>,
    pub stop: Stop,
    pub requests: Arc<dyn Requests>,
    pub sink: Sink,
    /// Locked once a request, by users of one thread.
    pub recorder: Mutex<Recorder>,
    /// Where requests go whose output the server did not count, if there is a tokenizer.
    pub uncounted: Option<Uncounted>,
    pub engine: u16,
    pub step: u16,
    pub backoff: Duration,
    /// Number of the first user of this shard.
    pub first_user: u32,
}

/// A request that is over, as goose's rows want it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub took: Duration,
    pub ok: bool,
    pub status: Option<u16>,
}

/// The state of one user.
pub(super) struct User {
    shard: Arc<Shard>,
    client: Client,
    number: u32,
    due_ns: u64,
    asked: u64,
    body: Vec<u8>,
}

impl User {
    /// The user who is number `index` of its shard, with its connection open if the server lets it.
    pub async fn start(shard: Arc<Shard>, index: u32) -> Self {
        let number = shard.first_user + index;
        let mut client = Client::new(shard.reader.clone(), number as usize);
        // If this fails, the first request meets the same and is counted.
        let _ = client.open().await;
        if client.kernel_stamps() == Some(false) {
            lock(&shard.recorder).without_kernel_stamps();
        }
        let due_ns = shard.reader.shared().clock.now_ns();
        shard.reader.shared().live.user_started();
        shard.control.user_started(due_ns);
        Self {
            shard,
            client,
            number,
            due_ns,
            asked: 0,
            body: Vec::new(),
        }
    }

    /// One request, from due to done; nothing if none may be sent any more.
    pub async fn ask(&mut self) -> Option<Ended> {
        let Self { shard, client, .. } = self;
        if shard.control.is_over() {
            return None;
        }
        let id = shard.control.next_id();
        self.body.clear();
        shard.requests.body(id, &mut self.body);
        let result = client
            .ask(id, &self.body, |sent_ns| shard.control.admit(sent_ns))
            .await?;
        if let Err(failure) = &result {
            self.back_off(failure).await;
        }
        let ended = self.note(id, result);
        self.due_ns = self.shard.reader.shared().clock.now_ns();
        Some(ended)
    }

    /// Waits as the profile says, and until it is known whether a server that broke off is still there.
    async fn back_off(&self, failure: &Failure) {
        let Shard {
            control,
            stop,
            backoff,
            ..
        } = &*self.shard;
        let pause = async {
            if !control.is_over() {
                let pause = tokio::time::sleep(*backoff);
                control.cut.unless_cut(self.number as usize, pause).await;
            }
        };
        let known = async {
            if matches!(failure.outcome, Outcome::Connect | Outcome::Truncated) {
                stop.server_looked_after().await;
            }
        };
        tokio::join!(pause, known);
    }

    fn note(&mut self, id: u64, result: Result<(), Failure>) -> Ended {
        let Self {
            shard,
            client,
            number,
            due_ns,
            asked,
            ..
        } = self;
        let (mut outcome, error) = match result {
            Ok(()) => (Outcome::Ok, None),
            Err(failure) => (failure.outcome, Some(failure.message())),
        };
        let broken = matches!(
            outcome,
            Outcome::Connect | Outcome::Truncated | Outcome::Cancelled
        );
        if broken && shard.stop.is_server_gone() {
            outcome = Outcome::ServerExit;
        }
        let id = RequestId {
            id,
            engine: shard.engine,
            step: shard.step,
            user: *number,
        };
        let trace = client.trace();
        let sample = trace.sample(id, *due_ns, outcome, error);
        let left = match &shard.uncounted {
            Some(uncounted) => uncounted.take(sample, trace),
            None => Some(sample),
        };
        if let Some(sample) = left {
            lock(&shard.recorder).fold(&sample, trace, shard.control.window());
            shard.sink.send(sample, trace.events());
        }
        let ended = Ended {
            took: Duration::from_nanos(
                trace
                    .end_ns
                    .unwrap_or(0)
                    .saturating_sub(trace.sent_ns.unwrap_or(*due_ns)),
            ),
            ok: outcome == Outcome::Ok,
            status: trace.status,
        };
        *asked += 1;
        shard.control.request_ended(*asked);
        ended
    }
}

fn lock(recorder: &Mutex<Recorder>) -> std::sync::MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}
