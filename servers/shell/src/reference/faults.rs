//! What the reference server does wrong, to whom, and how it is written: `KIND[:KEY=VALUE]...`, comma-separated.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Every kind of fault and what it does.
pub const KINDS: &[(&str, &str)] = &[
    ("refuse", "close the connection at accept"),
    ("http_NNN", "answer with HTTP status NNN and an error body"),
    ("html", "answer 200 with an HTML page"),
    ("no_headers", "never answer"),
    ("slow_headers", "answer after ms=N (1000)"),
    ("hang", "send headers, then nothing"),
    (
        "error_event",
        "after=N (0) output events, an error event, then the end",
    ),
    ("cut", "after=N output events, half an event, then close"),
    ("truncate", "after=N output events, close"),
    ("no_done", "end the stream without [DONE]"),
    ("stall", "after=N output events, nothing more"),
    ("malformed", "after=N output events, one that is no JSON"),
    ("empty", "a stream without output"),
    ("crlf", "CRLF line ends"),
    ("comments", "a comment before every event"),
    ("multiline", "every event's data in two lines"),
    ("utf8", "two writes for an event, cut inside a character"),
    ("batch", "after=N (4) events in one write"),
    ("wrong_usage", "count 7 tokens too many"),
    ("no_usage", "no usage although it was asked for"),
    ("die", "after=N output events, abort the process"),
];

/// One thing to do wrong, and to which requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Its kind; one of [`KINDS`].
    pub kind: &'static str,
    /// The kind as it was written, `http_500` for `http_NNN`.
    pub name: String,
    /// The status of `http_NNN`.
    pub status: u16,
    /// After how many output events.
    pub after: Option<u64>,
    /// Milliseconds, for `slow_headers`.
    pub ms: u64,
    probability: f64,
    every: u64,
    from: u64,
}

/// The faults that a server was started with.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    list: Vec<Fault>,
    seed: u64,
}

impl Fault {
    /// Reads one fault: `stall`, `http_500:0.1` (a probability), `truncate:after=5:every=10`, `die:from=100`.
    ///
    /// # Errors
    /// A message that names what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let status = name.strip_prefix("http_").and_then(|status| status.parse().ok());
        let status = status.filter(|status| (400..600).contains(status));
        let wanted = if status.is_some() { "http_NNN" } else { name };
        let Some(&(kind, _)) = KINDS.iter().find(|(kind, _)| *kind == wanted) else {
            let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
            return Err(format!(
                "there is no fault '{name}'; there are {}",
                kinds.join(", ")
            ));
        };
        let status = status.unwrap_or(500);
        let mut fault = Self {
            kind,
            name: name.to_owned(),
            status,
            after: None,
            ms: 1000,
            probability: 1.0,
            every: 1,
            from: 1,
        };
        for part in parts {
            let bad = |_| format!("'{part}' of fault '{text}' is no number");
            match part.split_once('=') {
                None => fault.probability = part.parse().map_err(|_| bad(()))?,
                Some(("after", value)) => fault.after = Some(value.parse().map_err(|_| bad(()))?),
                Some(("ms", value)) => fault.ms = value.parse().map_err(|_| bad(()))?,
                Some(("every", value)) => fault.every = value.parse().map_err(|_| bad(()))?,
                Some(("from", value)) => fault.from = value.parse().map_err(|_| bad(()))?,
                Some((key, _)) => {
                    return Err(format!(
                        "fault '{text}' has no '{key}'; it has after, ms, every, from"
                    ));
                }
            }
        }
        if fault.every == 0 || !(0.0..=1.0).contains(&fault.probability) {
            return Err(format!(
                "fault '{text}' needs every of at least 1 and a probability from 0 to 1"
            ));
        }
        Ok(fault)
    }

    fn strikes(&self, number: u64, chance: f64) -> bool {
        number >= self.from && number.is_multiple_of(self.every) && chance < self.probability
    }
}

impl Faults {
    /// Reads a comma-separated list. The same seed strikes the same requests.
    ///
    /// # Errors
    /// A message that names what is wrong.
    pub fn parse(text: &str, seed: u64) -> Result<Self, String> {
        let list = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Fault::parse);
        Ok(Self {
            list: list.collect::<Result<_, _>>()?,
            seed,
        })
    }

    /// The fault that strikes request `number`, if one does; the first that is drawn wins.
    pub fn of_request(&self, number: u64) -> Option<&Fault> {
        self.draw(number, false)
    }

    /// Whether connection `number` is refused.
    pub fn refuses(&self, number: u64) -> bool {
        self.draw(number, true).is_some()
    }

    fn draw(&self, number: u64, connection: bool) -> Option<&Fault> {
        // Each number has its own random stream, so that the order in which requests come does not matter.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        self.list
            .iter()
            .filter(|fault| (fault.kind == "refuse") == connection)
            .find(|fault| fault.strikes(number, rng.random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_whom_they_should() {
        let struck = |spec: &str| -> Vec<u64> {
            let faults = Faults::parse(spec, 7).unwrap();
            (1..=12)
                .filter(|number| faults.of_request(*number).is_some())
                .collect()
        };
        assert_eq!(struck("stall:every=5"), [5, 10]);
        assert_eq!(struck("die:from=11"), [11, 12]);
        assert_eq!(struck("refuse"), [0; 0]);
        assert_eq!(struck("html:0"), [0; 0]);
        assert_eq!(struck("html").len(), 12);
    }

    #[test]
    fn chance_is_seeded_and_fair() {
        let faults = Faults::parse("http_503:0.1,stall:0.2", 1).unwrap();
        let of = |kind| {
            (1..=20_000)
                .filter(|n| faults.of_request(*n).is_some_and(|f| f.kind == kind))
                .count()
        };
        // 3.3 standard deviations of the binomial around 2,000, and around 0.9 * 0.2 * 20,000.
        assert!(of("http_NNN").abs_diff(2_000) < 140);
        assert!(of("stall").abs_diff(3_600) < 180);
        let again = Faults::parse("http_503:0.1,stall:0.2", 1).unwrap();
        assert!((1..=1_000).all(|n| faults.of_request(n) == again.of_request(n)));
    }

    #[test]
    fn what_is_no_fault_is_named() {
        for (spec, word) in [
            ("stahl", "stahl"),
            ("stall:after=x", "after=x"),
            ("cut:often=1", "often"),
            ("html:2", "html"),
        ] {
            assert!(Faults::parse(spec, 0).unwrap_err().contains(word), "{spec}");
        }
    }
}
