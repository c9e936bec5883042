//! Counts the output of answers whose server does not, on a thread that drives no stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::conduct::LoadError;
use super::control::Control;
use crate::measure::{Recorder, Sample, Sink, Trace};
use crate::telemetry::ThreadId;

/// Tokens of a text by a tokenizer; nothing where it refuses the text.
pub type CountTokens = Arc<dyn Fn(&str) -> Option<u32> + Send + Sync>;

/// Bytes of answers that may wait to be counted. What comes when there are more keeps its count of events, because a
/// user who waited would be a measuring error.
const MOST_WAITING: usize = 256 << 20;

/// A request that is over, and how many bytes it takes while it waits.
struct Waiting {
    sample: Sample,
    trace: Trace,
    bytes: usize,
}

/// The way to the thread. Cloning is cheap; handing over never blocks.
#[derive(Clone)]
pub(super) struct Uncounted {
    /// Nothing ends the thread.
    to: Sender<Option<Box<Waiting>>>,
    waiting: Arc<AtomicUsize>,
}

impl Uncounted {
    /// Takes a request whose output can be counted, to be recorded once it is; gives the record of any other back.
    pub fn take(&self, sample: Sample, trace: &Trace) -> Option<Sample> {
        if !trace.is_countable() {
            return Some(sample);
        }
        let bytes = trace.bytes();
        if self.waiting.fetch_add(bytes, SeqCst) + bytes > MOST_WAITING {
            self.waiting.fetch_sub(bytes, SeqCst);
            return Some(sample);
        }
        let trace = trace.clone();
        // If the thread is gone, it has panicked, and the step's end says so.
        let _ = self.to.send(Some(Box::new(Waiting { sample, trace, bytes })));
        None
    }
}

/// The thread of one step.
pub(super) struct Counting {
    uncounted: Uncounted,
    thread: JoinHandle<Recorder>,
    id: ThreadId,
}

impl Counting {
    /// Starts it; `first` is what it does first, which tells its id to `placed`. What it counted goes to `recorder` and to
    /// `sink`.
    ///
    /// # Errors
    /// If the system gives no thread, or not on its processors.
    pub fn start(
        count: CountTokens,
        recorder: Recorder,
        control: Arc<Control>,
        sink: Sink,
        (first, placed): (impl FnOnce() + Send + 'static, Receiver<io::Result<ThreadId>>),
    ) -> Result<Self, LoadError> {
        let (to, requests) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let uncounted = Uncounted {
            to,
            waiting: waiting.clone(),
        };
        let thread = thread::Builder::new().name("count".to_owned()).spawn(move || {
            first();
            record(&requests, &waiting, &*count, recorder, &control, &sink)
        })?;
        let id = placed.recv().map_err(|_| LoadError::Panic)??;
        Ok(Self {
            uncounted,
            thread,
            id,
        })
    }

    /// Whose processor time it is.
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// The way to it.
    pub fn uncounted(&self) -> Uncounted {
        self.uncounted.clone()
    }

    /// What it recorded, once all that was handed over is counted.
    ///
    /// # Errors
    /// If the thread panicked.
    pub fn finish(self) -> Result<Recorder, LoadError> {
        // A thread that is gone has no use for it.
        let _ = self.uncounted.to.send(None);
        self.thread.join().map_err(|_| LoadError::Panic)
    }
}

fn record(
    requests: &Receiver<Option<Box<Waiting>>>,
    waiting: &AtomicUsize,
    count: &dyn Fn(&str) -> Option<u32>,
    mut recorder: Recorder,
    control: &Control,
    sink: &Sink,
) -> Recorder {
    for request in requests.iter().map_while(|request| request) {
        let Waiting {
            mut sample,
            mut trace,
            bytes,
        } = *request;
        trace.count_tokens(&mut sample, count);
        recorder.fold(&sample, &trace, control.window());
        sink.send(sample, trace.events());
        waiting.fetch_sub(bytes, SeqCst);
    }
    recorder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Event, Outcome, RequestId, TokenSource};

    fn answered(text: &str, n_out: Option<u32>) -> (Sample, Trace) {
        let mut trace = Trace::default();
        trace.keep_text();
        let room = trace.room_for_text(text.len()).expect("room");
        room.extend_from_slice(text.as_bytes());
        trace.push(Event {
            at_ns: 7,
            lag_ns: 0,
            tokens: 0,
        });
        trace.n_out = n_out;
        let id = RequestId {
            id: 3,
            engine: 0,
            step: 0,
            user: 0,
        };
        (trace.sample(id, 1, Outcome::Ok, None), trace)
    }

    #[test]
    fn only_what_can_be_counted_and_has_room_is_taken() {
        let (to, requests) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let uncounted = Uncounted {
            to,
            waiting: waiting.clone(),
        };
        let take = |(sample, trace): (Sample, Trace)| uncounted.take(sample, &trace).is_none();
        assert!(take(answered("three words more", None)));
        assert!(!take(answered("three words more", Some(3))), "the server told");
        assert!(!take(answered("", None)), "there is nothing to count");
        let taken = waiting.swap(MOST_WAITING, SeqCst);
        assert!(!take(answered("three words more", None)), "there is no room");
        assert_eq!(waiting.load(SeqCst), MOST_WAITING);

        let Waiting {
            mut sample,
            mut trace,
            bytes,
        } = *requests.try_recv().expect("the first").expect("a request");
        assert_eq!(bytes, taken);
        assert!(requests.try_recv().is_err());
        assert_eq!(
            (sample.n_out, sample.token_source),
            (Some(1), TokenSource::Events)
        );
        trace.count_tokens(&mut sample, &|text| {
            u32::try_from(text.split_whitespace().count()).ok()
        });
        assert_eq!(
            (sample.n_out, sample.token_source),
            (Some(3), TokenSource::Tokenizer)
        );
    }
}
