//! What the client notes of the request at hand: reused from request to request, so that an event costs no memory.

use super::arrivals::Folded;
use super::text::AnswerText;
use super::{Outcome, Sample, TokenSource, Window};

/// An event that carried output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its arrival, in nanoseconds since the start of the run.
    pub at_ns: u64,
    /// Nanoseconds from arrival to read, at most 4 s; 0 where the kernel did not stamp the event, and its arrival is the
    /// instant of its read.
    pub lag_ns: u32,
    /// Output tokens of the request so far, by the server's word; 0 where the event does not say.
    pub tokens: u32,
}

/// Events that a trace has room for (256 KiB) before they must be folded.
const ROOM: usize = 1 << 14;

/// Room left for what one read may bring: more events than its bytes can hold.
const ONE_READ: usize = 1 << 12;

/// One request in the making. Instants are nanoseconds since the start of the run.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// See [`Sample::connect_ns`].
    pub connect_ns: Option<u64>,
    /// See [`Sample::sent_ns`].
    pub sent_ns: Option<u64>,
    /// Right before the first write of the request.
    pub writing_ns: Option<u64>,
    /// See [`Sample::headers_ns`].
    pub headers_ns: Option<u64>,
    /// See [`Sample::first_visible_ns`].
    pub first_visible_ns: Option<u64>,
    /// See [`Sample::end_ns`].
    pub end_ns: Option<u64>,
    /// See [`Sample::status`].
    pub status: Option<u16>,
    /// How far the kernel's stamps may be off on the run's clock, in nanoseconds ([`WallOffset::error_ns`]); nothing
    /// where the kernel does not stamp.
    ///
    /// [`WallOffset::error_ns`]: super::WallOffset::error_ns
    pub stamp_error_ns: Option<u64>,
    /// Input tokens, by the server's word.
    pub n_in: Option<u32>,
    /// Output tokens, by the server's word.
    pub n_out: Option<u32>,
    /// The server closed the kept-alive connection before a byte of an answer, and the request was sent again on a new
    /// one; `sent_ns` is that of the second time.
    pub resent: bool,
    events: Vec<Event>,
    /// What stood in `events` before, of a request with very many; kept from request to request.
    folded: Option<Box<Folded>>,
    count: u32,
    first: Option<Event>,
    second_ns: Option<u64>,
    last_ns: Option<u64>,
    /// Events that do not say how many tokens there are so far.
    untold: u32,
    /// What the answer says, if it is kept.
    text: Option<AnswerText>,
}

impl Trace {
    /// Keeps the text of answers from now on, so that their tokens can be counted where the server does not tell them.
    pub fn keep_text(&mut self) {
        self.text.get_or_insert_default();
    }

    /// Where the text of an event of so many bytes goes, before the event is pushed; nowhere if no text is kept, or too
    /// much came.
    pub fn room_for_text(&mut self, bytes: usize) -> Option<&mut Vec<u8>> {
        self.text.as_mut()?.room_for(bytes)
    }

    /// Whether the server did not say how many tokens there are, and they can be counted.
    pub fn is_countable(&self) -> bool {
        let whole = self.text.as_ref().is_some_and(AnswerText::is_whole);
        whole && self.n_out.is_none() && self.count > 0
    }

    /// Counts the answer's tokens, if they [can be](Self::is_countable), into the request's record.
    pub fn count_tokens(&mut self, sample: &mut Sample, count: &dyn Fn(&str) -> Option<u32>) {
        let text = self.text.as_ref().filter(|_| self.is_countable());
        if let Some(tokens) = text.and_then(|text| text.count(count)) {
            sample.n_out = Some(tokens.all);
            sample.token_source = TokenSource::Tokenizer;
            if let Some(first) = &mut self.first {
                first.tokens = tokens.first;
            }
        }
    }

    /// Bytes of memory that a clone takes.
    pub fn bytes(&self) -> usize {
        let text = self.text.as_ref().map_or(0, AnswerText::len);
        let folded = self.folded().map_or(0, Folded::bytes);
        size_of::<Self>() + size_of_val(self.events()) + text + folded
    }

    /// Forgets the request; keeps the memory.
    pub fn clear(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let mut folded = self.folded.take();
        if let Some(folded) = &mut folded {
            folded.clear();
        }
        let mut text = self.text.take();
        if let Some(text) = &mut text {
            text.clear();
        }
        *self = Self {
            events,
            folded,
            text,
            ..Self::default()
        };
    }

    /// Notes an event that carried output. Returns the gap to the one before it, in nanoseconds.
    pub fn push(&mut self, event: Event) -> Option<u64> {
        self.events.push(event);
        match self.count {
            0 => {
                self.first = Some(event);
                if let Some(text) = &mut self.text {
                    text.first_event();
                }
            }
            1 => self.second_ns = Some(event.at_ns),
            _ => {}
        }
        self.count += 1;
        self.untold += u32::from(event.tokens == 0);
        let before = self.last_ns.replace(event.at_ns);
        before.map(|before| event.at_ns.saturating_sub(before))
    }

    /// Whether the events must be folded before the next read.
    pub fn is_full(&self) -> bool {
        self.events.len() >= ROOM - ONE_READ
    }

    /// Folds the events into counts and histograms, so that a request of any length takes no more memory. `window` is
    /// the window as known now.
    pub fn fold(&mut self, window: Window) {
        let floor_ns = self.floor_ns();
        let folded = self.folded.get_or_insert_with(|| Box::new(Folded::new()));
        folded.take(&self.events, window, floor_ns);
        self.events.clear();
    }

    /// Arrival of the first event with output.
    pub fn first_ns(&self) -> Option<u64> {
        self.first.map(|event| event.at_ns)
    }

    /// Arrival of the last event with output.
    pub fn last_ns(&self) -> Option<u64> {
        self.last_ns
    }

    /// The events with output that were not folded: the latest ones.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Those that were.
    pub(super) fn folded(&self) -> Option<&Folded> {
        self.folded.as_deref().filter(|folded| folded.events > 0)
    }

    /// No event can have come before this instant.
    pub(super) fn floor_ns(&self) -> u64 {
        self.headers_ns.or(self.sent_ns).unwrap_or(0)
    }

    /// Tokens of the first event; 1 where it does not say.
    pub(super) fn first_tokens(&self) -> u32 {
        self.first.map_or(1, |event| event.tokens.max(1))
    }

    /// Whether every event says how many tokens there are so far.
    pub(super) fn is_told(&self) -> bool {
        self.untold == 0
    }

    /// Number of events with output.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The request's record, once it has ended.
    pub fn sample(&self, id: RequestId, due_ns: u64, outcome: Outcome, error: Option<String>) -> Sample {
        let (n_out, token_source) = match self.n_out {
            Some(tokens) => (tokens, TokenSource::Usage),
            None => (self.count, TokenSource::Events),
        };
        Sample {
            id: id.id,
            engine: id.engine,
            step: id.step,
            user: id.user,
            due_ns,
            sent_ns: self.sent_ns,
            headers_ns: self.headers_ns,
            first_ns: self.first_ns(),
            second_ns: self.second_ns,
            first_visible_ns: self.first_visible_ns,
            last_ns: self.last_ns,
            end_ns: self.end_ns,
            connect_ns: self.connect_ns,
            events: self.count,
            n_in: self.n_in,
            n_out: Some(n_out),
            token_source,
            outcome,
            status: self.status,
            error,
        }
    }
}

/// Which request of a run: see the fields of [`Sample`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// See [`Sample::id`].
    pub id: u64,
    /// See [`Sample::engine`].
    pub engine: u16,
    /// See [`Sample::step`].
    pub step: u16,
    /// See [`Sample::user`].
    pub user: u32,
}
