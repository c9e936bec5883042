//! A TCP socket that knows when the bytes it reads had arrived.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::recv;
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
pub struct Bite {
    /// An amount up to which what lies in the socket is one arrival.
    pub usual: usize,
    /// Bytes to read at once when more than `usual` lies there.
    pub backlog: usize,
}

/// A backlog beyond this is not read bite by bite any more: the reader must catch up first.
const HOPELESS: usize = 256 * 1024;

/// Keeps the stamps of segments that lie unread apart, at the price of a few system calls where it is needed.
///
/// Linux merges neighbouring segments in the receive queue, and their stamps with them, once they are acknowledged (on
/// loopback and veth, where the sender's copy pins them until then). Usually it acknowledges what was read when it is
/// read, or at the latest 40 ms after it came: a reader who is later than that finds stamps merged. But at the start of
/// a connection and after a pause it acknowledges sixteen segments the moment they come. There each read acknowledges
/// for itself instead (which uses the sixteen up), and what comes after it must wait. A server that sends only when it
/// was acknowledged is thus never made to wait for longer than by any other client.
#[derive(Debug)]
pub(super) struct Acknowledge {
    at_once: u8,
}

impl Acknowledge {
    /// Segments that Linux acknowledges at once at the start and after a pause.
    const QUICK: u8 = 16;
    /// Shorter than the least retransmission timeout, the pause after which they are renewed.
    const PAUSE_NS: u64 = 150_000_000;

    fn new(tcp: &TcpStream) -> Self {
        recv::acknowledge_read(tcp);
        Self { at_once: Self::QUICK }
    }

    /// Everything that had come was read at `read_ns`; what was read before it, at `before_ns`.
    fn drained(&mut self, tcp: &TcpStream, before_ns: u64, read_ns: u64) {
        if read_ns - before_ns > Self::PAUSE_NS {
            self.at_once = Self::QUICK;
        }
        if let Some(left) = self.at_once.checked_sub(1) {
            self.at_once = left;
            recv::acknowledge_read(tcp);
        }
    }
}

/// A connected socket whose reads carry their arrival.
#[derive(Debug)]
pub struct StampedTcp {
    tcp: TcpStream,
    clock: Clock,
    wall: WallOffset,
    kernel_stamps: bool,
    acknowledge: Acknowledge,
    last: Arrival,
    records: Records,
}

impl StampedTcp {
    /// Asks the kernel to stamp what `tcp` receives. If it does not, arrivals are the instants of the reads.
    pub fn new(tcp: TcpStream, clock: Clock) -> Self {
        let kernel_stamps = recv::enable_stamps(&tcp);
        Self {
            kernel_stamps,
            acknowledge: Acknowledge::new(&tcp),
            tcp,
            clock,
            wall: WallOffset::new(clock),
            last: Arrival::default(),
            records: Records::default(),
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

    /// Reads what has arrived, or a bite of it. 0 bytes are the end of the stream.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>, buf: &mut [u8], bite: Bite) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            let mut received = None;
            let outcome = self.tcp.try_io(Interest::READABLE, || {
                let pending = recv::pending(&self.tcp)?;
                let limit = match pending {
                    0 => buf.len(),
                    1..=HOPELESS if pending > bite.usual => bite.backlog.min(pending),
                    _ => pending,
                };
                let limit = limit.min(buf.len());
                let got = recv::receive(&self.tcp, &mut buf[..limit])?;
                let drained =
                    got.bytes > 0 && (got.bytes >= pending || got.bytes < limit) && got.bytes < buf.len();
                received = Some((got, drained));
                // Nothing is left, so readiness is over: saying so saves the read that would only find that out.
                // What arrives from here on raises readiness anew.
                if drained {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match (received, outcome) {
                (Some((got, drained)), _) => {
                    let before_ns = self.last.read_ns;
                    self.stamp(got.wall_ns);
                    if drained {
                        self.acknowledge.drained(&self.tcp, before_ns, self.last.read_ns);
                    }
                    return Poll::Ready(Ok(got.bytes));
                }
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => {}
            }
        }
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
struct Records {
    header: [u8; 5],
    seen: usize,
    left: usize,
    longest: usize,
}

impl Records {
    fn bite(&self) -> Bite {
        let backlog = if self.left > 0 { self.left } else { 5 - self.seen };
        Bite {
            usual: self.longest,
            backlog,
        }
    }

    fn follow(&mut self, mut bytes: &[u8]) {
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

impl AsyncRead for StampedTcp {
    /// Reads as a TLS session does: in a backlog, no further than the end of the current record.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let bite = this.records.bite();
        let bytes = ready!(this.poll_recv(cx, buf.initialize_unfilled(), bite))?;
        this.records.follow(&buf.initialize_unfilled()[..bytes]);
        buf.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StampedTcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

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

    /// Writes events 2 ms apart, and only then reads them. Also says how long that took, in nanoseconds.
    #[cfg(target_os = "linux")]
    async fn stall(events: usize) -> (Vec<Event>, u64) {
        let clock = Clock::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound"))
            .await
            .expect("listening");
        let (mut server, _) = listener.accept().await.expect("connected");
        server.set_nodelay(true).expect("a TCP socket");
        let mut client = StampedTcp::new(client, clock);
        assert!(client.kernel_stamps());
        let mut writes = Vec::new();
        for _ in 0..events {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let before = clock.now_ns();
            server.write_all(&[b'x'; 250]).await.expect("room in the socket");
            writes.push(before..=clock.now_ns());
        }
        let bite = Bite {
            usual: 250,
            backlog: 250,
        };
        let mut buf = [0; 4096];
        let mut read = Vec::new();
        for write in writes {
            let bytes = poll_fn(|cx| client.poll_recv(cx, &mut buf, bite))
                .await
                .expect("connected");
            read.push(Event {
                write,
                bytes,
                arrival: client.last_arrival(),
            });
        }
        let took_ns = clock.now_ns() - read[0].write.start();
        (read, took_ns)
    }

    /// The reader is stalled while events queue up; each must still be read with its own stamp, as long as the kernel
    /// holds acknowledgements back.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_stalled_reader_sees_every_arrival() {
        // Half of the least time between two events.
        const TOLERANCE_NS: u64 = 1_000_000;
        for _ in 0..200 {
            let (events, took_ns) = stall(8).await;
            // The kernel keeps segments apart for 40 ms: a trial that took longer says nothing.
            if took_ns > 38_000_000 {
                continue;
            }
            for (index, event) in events.iter().enumerate() {
                let Arrival { at_ns, read_ns } = event.arrival;
                assert_eq!(event.bytes, 250, "event {index}");
                assert!(read_ns >= at_ns);
                let (from, to) = (
                    event.write.start() - TOLERANCE_NS,
                    event.write.end() + TOLERANCE_NS,
                );
                assert!(
                    (from..=to).contains(&at_ns),
                    "event {index}, written at {:?}, arrived at {at_ns}",
                    event.write
                );
            }
            return;
        }
        panic!("no trial was done within 38 ms");
    }
}
