//! A TCP socket that knows when the bytes it reads had arrived.

use std::io;

use mio::net::TcpStream;

use super::recv::{self, Acknowledging};
use crate::measure::{Clock, WallOffset};

/// When bytes came: arrival at this host, and the read that fetched them. Nanoseconds on the run's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The kernel's receive timestamp of the last segment read, or `read_ns` where there is none.
    pub at_ns: u64,
    /// When the read had returned.
    pub read_ns: u64,
}

impl Arrival {
    /// Nanoseconds from the kernel's stamp to the read, at most 4 s; 0 where there is no stamp.
    pub fn lag_ns(self) -> u32 {
        u32::try_from(self.read_ns - self.at_ns).unwrap_or(u32::MAX)
    }
}

/// How much of a backlog one read may take, so that bytes of different arrivals do not share one stamp.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bite {
    /// An amount up to which what lies in the socket is one arrival.
    pub usual: usize,
    /// Bytes to read at once when more than `usual` lies there.
    pub backlog: usize,
}

impl Bite {
    /// Everything, whenever it came.
    pub const ALL: Self = Self {
        usual: usize::MAX,
        backlog: usize::MAX,
    };
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Got {
    /// Bytes at the beginning of the buffer; 0 at the end of the stream.
    pub bytes: usize,
    /// Nothing was left: what comes from here on is announced anew.
    pub drained: bool,
}

/// How many bites of a backlog are taken at once: one while they came at different times, more and more while they came
/// together, as from a server that sends as fast as it can.
#[derive(Debug, Default)]
struct Stride {
    doublings: u32,
    /// The arrival and the amount of what was read since the last decision.
    since_ns: u64,
    bytes: usize,
}

impl Stride {
    /// Arrivals that lie no further apart than this share a stamp.
    const TOGETHER_NS: u64 = 20_000;
    const MAX_DOUBLINGS: u32 = 8;
    /// An event is taken to have so many bytes as long as none was seen.
    const LEAST: usize = 512;

    fn limit(&self, bite: Bite) -> usize {
        let more = bite.usual.saturating_mul((1 << self.doublings) - 1);
        bite.backlog.saturating_add(more)
    }

    fn read(&mut self, bytes: usize, at_ns: u64, bite: Bite) {
        self.bytes += bytes;
        if at_ns.abs_diff(self.since_ns) > Self::TOGETHER_NS {
            *self = Self {
                since_ns: at_ns,
                ..Self::default()
            };
        } else if self.bytes > 2 * bite.usual.max(Self::LEAST) {
            self.doublings = (self.doublings + 1).min(Self::MAX_DOUBLINGS);
            self.since_ns = at_ns;
            self.bytes = 0;
        }
    }
}

/// Keeps the stamps of segments that lie unread apart.
///
/// Linux merges neighbouring segments in the receive queue, and their stamps with them, once they are acknowledged (on
/// loopback and veth, where the sender's copy pins them until then). In a conversation, as it calls one in which both
/// sides speak, it acknowledges with every second read, or 40 ms after a segment came: stamps stay apart as long as the
/// reader is no later than some 30 ms. Outside of one it acknowledges segments when they come. So it is told that this
/// is a conversation, when a request is sent and after a pause, in which it forgets. And since it also acknowledges when
/// more lies unacknowledged than the largest segment that it has seen, what precedes the first output must not add to
/// that: the first segments of a response are acknowledged when they are read.
///
/// A server that sends only when it was acknowledged waits 40 ms in a conversation. That is so with any client that
/// keeps its connection; but on a new one the first segments would be acknowledged at once, and are here, when read.
#[derive(Debug)]
struct Acknowledge {
    at_once: u8,
}

impl Acknowledge {
    /// Segments that Linux acknowledges at once at the start.
    const QUICK: u8 = 16;
    /// Segments before the first output: the head and the event that names the role.
    const BEGINNING: u8 = 2;
    /// Shorter than the least retransmission timeout, the pause after which it does so again.
    const PAUSE_NS: u64 = 150_000_000;

    fn new(tcp: &TcpStream) -> Self {
        recv::acknowledge(tcp, Acknowledging::Later);
        Self { at_once: Self::QUICK }
    }

    /// A request was sent.
    fn asked(&mut self, tcp: &TcpStream) {
        self.at_once = self.at_once.max(Self::BEGINNING);
        recv::acknowledge(tcp, Acknowledging::Later);
    }

    /// Everything that had come was read at `read_ns`; what was read before it, at `before_ns`.
    fn drained(&mut self, tcp: &TcpStream, before_ns: u64, read_ns: u64) {
        let at_once = self.at_once > 0;
        if at_once {
            self.at_once -= 1;
            recv::acknowledge(tcp, Acknowledging::Read);
        }
        if at_once || read_ns - before_ns > Self::PAUSE_NS {
            recv::acknowledge(tcp, Acknowledging::Later);
        }
    }
}

/// A connected socket whose reads carry their arrival.
#[derive(Debug)]
pub(super) struct StampedTcp {
    tcp: TcpStream,
    clock: Clock,
    wall: WallOffset,
    kernel_stamps: bool,
    acknowledge: Acknowledge,
    stride: Stride,
    last: Arrival,
}

impl StampedTcp {
    /// Asks the kernel to stamp what `tcp` receives. If it does not, arrivals are the instants of the reads.
    pub fn new(tcp: TcpStream, clock: Clock) -> Self {
        Self {
            kernel_stamps: recv::enable_stamps(&tcp),
            acknowledge: Acknowledge::new(&tcp),
            tcp,
            clock,
            wall: WallOffset::new(clock),
            stride: Stride::default(),
            last: Arrival::default(),
        }
    }

    /// Whether arrivals are the kernel's.
    pub fn kernel_stamps(&self) -> bool {
        self.kernel_stamps
    }

    /// How far arrivals may be off on the run's clock, in nanoseconds, if they are the kernel's.
    pub fn stamp_error_ns(&self) -> Option<u64> {
        self.kernel_stamps.then(|| self.wall.error_ns())
    }

    /// When the bytes of the latest read came.
    pub fn last_arrival(&self) -> Arrival {
        self.last
    }

    /// Whether the peer has closed, or sent what nobody asked for (`unasked`), while the connection was idle.
    pub fn is_stale(&self, unasked: bool) -> bool {
        recv::peek(&self.tcp).is_some_and(|bytes| bytes == 0 || unasked)
    }

    /// A request was sent.
    pub fn asked(&mut self) {
        self.acknowledge.asked(&self.tcp);
    }

    /// The socket, to be waited for and written to.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Reads what has arrived, or a bite of it.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has; else what broke the connection.
    pub fn receive(&mut self, buf: &mut [u8], bite: Bite) -> io::Result<Got> {
        let pending = recv::pending(&self.tcp)?;
        let backlog = pending > bite.usual;
        let limit = match pending {
            0 => buf.len(),
            _ if backlog => self.stride.limit(bite).min(pending),
            _ => pending,
        };
        let limit = limit.min(buf.len());
        let received = loop {
            match recv::receive(&self.tcp, &mut buf[..limit]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        let before = self.last;
        self.stamp(received.wall_ns);
        let bytes = received.bytes;
        let drained = bytes > 0 && bytes < buf.len() && (bytes >= pending || bytes < limit);
        if drained {
            self.acknowledge
                .drained(&self.tcp, before.read_ns, self.last.read_ns);
        }
        if backlog && !drained {
            self.stride.read(bytes, self.last.at_ns, bite);
        } else {
            self.stride = Stride::default();
        }
        Ok(Got { bytes, drained })
    }

    fn stamp(&mut self, wall_ns: Option<u64>) {
        let read_ns = self.clock.now_ns();
        let at_ns = wall_ns
            .filter(|_| self.kernel_stamps)
            .and_then(|wall| self.wall.instant(wall, self.last.at_ns, read_ns))
            .unwrap_or(read_ns);
        self.last = Arrival { at_ns, read_ns };
    }
}

/// Follows the records of a TLS stream, so that a backlog is read record by record.
#[derive(Debug, Default)]
pub(super) struct Records {
    header: [u8; 5],
    seen: usize,
    left: usize,
    longest: usize,
}

impl Records {
    pub fn bite(&self) -> Bite {
        let backlog = if self.left > 0 { self.left } else { 5 - self.seen };
        Bite {
            usual: self.longest,
            backlog,
        }
    }

    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = bytes.len().min(5 - self.seen);
                self.header[self.seen..self.seen + take].copy_from_slice(&bytes[..take]);
                self.seen += take;
                bytes = &bytes[take..];
                if self.seen == 5 {
                    self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                    // Handshake records differ from those of the stream; only application data says what is usual.
                    if self.header[0] == 23 {
                        self.longest = self.longest.max(self.left + 5).min(1024);
                    }
                    self.seen = 0;
                }
            } else {
                let take = bytes.len().min(self.left);
                self.left -= take;
                bytes = &bytes[take..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use std::time::Duration;

    use super::*;

    #[test]
    fn bites_grow_only_while_bytes_come_together() {
        let bite = Bite {
            usual: 300,
            backlog: 240,
        };
        let mut stride = Stride::default();
        for event in 0..50 {
            // Its size line, and the rest of it.
            stride.read(4, event * 10_000_000, bite);
            stride.read(236, event * 10_000_000, bite);
            assert_eq!(stride.limit(bite), 240, "event {event} came alone");
        }
        for _ in 0..20 {
            stride.read(240, 490_000_000, bite);
        }
        assert!(stride.limit(bite) > 1_000);
        stride.read(stride.limit(bite), 500_000_000, bite);
        assert_eq!(stride.limit(bite), 240);
    }

    #[test]
    fn records_are_followed_over_any_cut() {
        let stream = [&[23, 3, 3, 0, 7][..], &[0; 7], &[23, 3, 3, 0, 2], &[0; 2]].concat();
        for step in 1..=stream.len() {
            let mut records = Records::default();
            stream.chunks(step).for_each(|piece| records.follow(piece));
            assert_eq!(
                (records.left, records.seen, records.longest),
                (0, 0, 12),
                "pieces of {step}"
            );
        }
    }

    /// An event as its sender saw it, and as it was read.
    #[cfg(target_os = "linux")]
    struct Event {
        write: std::ops::RangeInclusive<u64>,
        bytes: usize,
        arrival: Arrival,
    }

    /// What is on its way: on a busy machine the kernel may still have it in hand.
    #[cfg(target_os = "linux")]
    fn received(client: &mut StampedTcp, buf: &mut [u8], bite: Bite) -> Got {
        let given_up = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            match client.receive(buf, bite) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(std::time::Instant::now() < given_up, "an event got lost");
                    std::thread::yield_now();
                }
                got => return got.expect("a connection"),
            }
        }
    }

    /// Writes events 2 ms apart, and only then reads them.
    #[cfg(target_os = "linux")]
    fn stall(events: usize) -> Vec<Event> {
        use std::io::Write;

        let clock = Clock::start();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        client.set_nonblocking(true).expect("a TCP socket");
        let (mut server, _) = listener.accept().expect("connected");
        server.set_nodelay(true).expect("a TCP socket");
        let mut client = StampedTcp::new(TcpStream::from_std(client), clock);
        assert!(client.kernel_stamps());
        let mut writes = Vec::new();
        for _ in 0..events {
            std::thread::sleep(Duration::from_millis(2));
            let before = clock.now_ns();
            server.write_all(&[b'x'; 250]).expect("room in the socket");
            writes.push(before..=clock.now_ns());
        }
        let bite = Bite {
            usual: 250,
            backlog: 250,
        };
        let mut buf = [0; 4096];
        let mut read = Vec::new();
        for write in writes {
            let got = received(&mut client, &mut buf, bite);
            read.push(Event {
                write,
                bytes: got.bytes,
                arrival: client.last_arrival(),
            });
        }
        read
    }

    /// The reader is stalled while events queue up; each is still read with its own stamp, as long as the kernel holds
    /// acknowledgements back: up to 40 ms, less on a busy machine, so that some trials may fail.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_stalled_reader_sees_every_arrival() {
        // Half of the least time between two events.
        const TOLERANCE_NS: u64 = 1_000_000;
        let told_apart = (0..200).any(|_| {
            let events = stall(8);
            for (index, event) in events.iter().enumerate() {
                let Arrival { at_ns, read_ns } = event.arrival;
                assert_eq!(event.bytes, 250, "event {index}");
                assert!(read_ns >= at_ns && at_ns + TOLERANCE_NS >= *event.write.start());
            }
            events
                .iter()
                .all(|event| event.arrival.at_ns <= event.write.end() + TOLERANCE_NS)
        });
        assert!(told_apart, "in every trial, stamps were merged");
    }
}
