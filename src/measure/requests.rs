//! `requests.jsonl`: a line per request, written by a thread of its own so that no stream ever waits for the disk.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Event, Sample};

/// Samples that may wait for the disk; at some 250 bytes each they bound the memory used to 16 MB.
const BACKLOG: usize = 65_536;
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// One line of `requests.jsonl`: a [`Sample`] with the engine's name in place of its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestLine<'a> {
    /// Name of the engine.
    pub engine: Cow<'a, str>,
    /// The request.
    #[serde(flatten)]
    pub sample: Cow<'a, Sample>,
}

/// Calls `each` for every whole line of the file. A line that cannot be read, such as the one that a crash cut off,
/// is skipped and counted; the count is returned.
pub fn read(path: &Path, mut each: impl FnMut(RequestLine<'static>)) -> io::Result<u64> {
    let (mut reader, mut line, mut skipped) = (BufReader::new(File::open(path)?), Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        match serde_json::from_slice(&line) {
            Ok(request) => each(request),
            Err(_) => skipped += 1,
        }
        line.clear();
    }
    Ok(skipped)
}

/// Where the client leaves its samples. Cloning is cheap; sending never blocks.
#[derive(Debug, Clone)]
pub struct Sink {
    sender: Sender,
    lost: Arc<AtomicU64>,
}

/// What a sample takes along.
#[derive(Debug, Clone)]
enum Sender {
    Alone(SyncSender<Sample>),
    WithEvents(SyncSender<(Sample, Vec<Event>)>),
}

impl Sink {
    /// A sink and the end its samples come out of, with room for `capacity` of them in between.
    pub fn new(capacity: usize) -> (Sink, Receiver<Sample>) {
        let (sender, receiver) = sync_channel(capacity);
        (Self::to(Sender::Alone(sender)), receiver)
    }

    /// The same, and every sample comes with all its output events: for calibrations, which hold each of them against
    /// the server's word.
    pub fn with_events(capacity: usize) -> (Sink, Receiver<(Sample, Vec<Event>)>) {
        let (sender, receiver) = sync_channel(capacity);
        (Self::to(Sender::WithEvents(sender)), receiver)
    }

    fn to(sender: Sender) -> Sink {
        Sink {
            sender,
            lost: Arc::default(),
        }
    }

    /// Samples dropped so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Hands over a sample, and its output events if they are wanted. When the disk is so slow that the backlog is full, the line is dropped and counted: a
    /// stream that waited for the disk would be a measuring error.
    pub fn send(&self, sample: Sample, events: &[Event]) {
        let sent = match &self.sender {
            Sender::Alone(sender) => sender.try_send(sample).is_ok(),
            Sender::WithEvents(sender) => sender.try_send((sample, events.to_vec())).is_ok(),
        };
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread that writes the file. It ends when the last [`Sink`] is gone.
#[derive(Debug)]
pub(super) struct Writer {
    sink: Option<Sink>,
    thread: Option<JoinHandle<io::Result<()>>>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    /// Starts writing to `path`; `engines` are the names behind the numbers of the samples.
    pub(super) fn start(path: &Path, engines: Vec<String>) -> io::Result<Writer> {
        let file = File::create_new(path)?;
        let (sink, receiver) = Sink::new(BACKLOG);
        let lost = Arc::clone(&sink.lost);
        let thread = std::thread::Builder::new()
            .name("requests".to_owned())
            .spawn(move || write_all(&receiver, BufWriter::new(file), &engines))?;
        Ok(Writer {
            sink: Some(sink),
            thread: Some(thread),
            lost,
        })
    }

    pub(super) fn sink(&self) -> Option<Sink> {
        self.sink.clone()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written. Every other [`Sink`] must be gone, or this waits for it.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.sink = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread that writes it panicked")),
            None => Ok(()),
        }
    }
}

fn write_all(samples: &Receiver<Sample>, mut file: BufWriter<File>, engines: &[String]) -> io::Result<()> {
    let mut flush_at = Instant::now() + FLUSH_EVERY;
    loop {
        match samples.recv_timeout(flush_at.saturating_duration_since(Instant::now())) {
            Ok(sample) => {
                let engine = engines
                    .get(usize::from(sample.engine))
                    .map_or("unknown", String::as_str);
                let line = RequestLine {
                    engine: Cow::Borrowed(engine),
                    sample: Cow::Borrowed(&sample),
                };
                serde_json::to_writer(&mut file, &line)?;
                file.write_all(b"\n")?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
        if Instant::now() >= flush_at {
            file.flush()?;
            flush_at = Instant::now() + FLUSH_EVERY;
        }
    }
}
