//! The one connection of a user: opened ahead of its first request, opened again when it was closed.

use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConnection;
use tokio::net::{TcpStream, lookup_host};

use super::stamped::{Arrival, Bite, Got, Records, StampedTcp};
use super::{Failure, Target};
use crate::measure::{Clock, Outcome};

/// An open connection, with or without TLS.
pub(super) struct Connection {
    tcp: StampedTcp,
    tls: Option<Box<Tls>>,
}

struct Tls {
    session: ClientConnection,
    records: Records,
}

/// The memory of whoever reads connections one after the other.
pub(super) struct Buffers {
    bytes: Box<[u8]>,
    /// Bytes as they come off the wire, under TLS.
    sealed: Box<[u8]>,
}

impl Default for Buffers {
    fn default() -> Self {
        const SIZE: usize = 64 * 1024;
        Self {
            bytes: vec![0; SIZE].into(),
            sealed: vec![0; SIZE].into(),
        }
    }
}

impl Buffers {
    /// The first bytes of the latest read.
    pub fn bytes(&self, count: usize) -> &[u8] {
        &self.bytes[..count]
    }
}

/// What one read of a connection brought.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    /// So many bytes, maybe none under TLS, and whether more will be announced.
    Bytes(Got),
    /// The end.
    End,
}

impl Connection {
    /// Resolves, connects and shakes hands within `limit`.
    pub async fn open(target: &Target, clock: Clock, limit: Duration) -> Result<Self, Failure> {
        let opening = Self::open_unlimited(target, clock);
        tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
            Err(Failure::new(
                Outcome::Connect,
                format!("no connection within {limit:?}"),
            ))
        })
    }

    async fn open_unlimited(target: &Target, clock: Clock) -> Result<Self, Failure> {
        let refused = |error: io::Error| {
            Failure::new(
                Outcome::Connect,
                format!("connecting to {}:{}: {error}", target.host, target.port),
            )
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(refused)?
        {
            match TcpStream::connect(address)
                .await
                .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            {
                Ok(tcp) => return Self::secure(target, tcp, clock).await,
                Err(error) => last = error,
            }
        }
        Err(refused(last))
    }

    async fn secure(target: &Target, tcp: TcpStream, clock: Clock) -> Result<Self, Failure> {
        let failed = |outcome, error: io::Error| {
            Failure::new(outcome, format!("connecting to {}: {error}", target.host))
        };
        let (tcp, session) = match &target.tls {
            None => (tcp, None),
            Some((connector, name)) => {
                let shaken = connector.connect(name.clone(), tcp).await;
                let (tcp, session) = shaken.map_err(|error| failed(Outcome::Tls, error))?.into_inner();
                (tcp, Some(session))
            }
        };
        let tcp = tcp.into_std().map_err(|error| failed(Outcome::Connect, error))?;
        Ok(Self {
            tcp: StampedTcp::new(mio::net::TcpStream::from_std(tcp), clock),
            tls: session.map(|mut session| {
                session.set_buffer_limit(None);
                Box::new(Tls {
                    session,
                    records: Records::default(),
                })
            }),
        })
    }

    pub fn kernel_stamps(&self) -> bool {
        self.tcp.kernel_stamps()
    }

    pub fn stamp_error_ns(&self) -> Option<u64> {
        self.tcp.stamp_error_ns()
    }

    pub fn last_arrival(&self) -> Arrival {
        self.tcp.last_arrival()
    }

    /// Whether the idle connection must not be used again. Under TLS, bytes may be session tickets.
    pub fn is_stale(&self) -> bool {
        self.tcp.is_stale(self.tls.is_none())
    }

    /// The socket, to be waited for.
    pub fn socket(&mut self) -> &mut mio::net::TcpStream {
        self.tcp.socket()
    }

    /// Reads what has arrived, or a bite of it, into `buffers`.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has; else what broke the connection.
    pub fn read(&mut self, buffers: &mut Buffers, bite: Bite) -> io::Result<Piece> {
        let Some(tls) = &mut self.tls else {
            let got = self.tcp.receive(&mut buffers.bytes, bite)?;
            return Ok(if got.bytes == 0 {
                Piece::End
            } else {
                Piece::Bytes(got)
            });
        };
        // As much as its plain text has room for.
        let got = self.tcp.receive(&mut buffers.sealed, tls.records.bite())?;
        if got.bytes == 0 {
            return Ok(Piece::End);
        }
        let sealed = &buffers.sealed[..got.bytes];
        tls.records.follow(sealed);
        let Some(bytes) = tls.open(sealed, &mut buffers.bytes)? else {
            return Ok(Piece::End);
        };
        if tls.session.wants_write() {
            // What TLS answers on its own account can wait for the next flush; the plain text read cannot.
            let _ = tls.session.write_tls(self.tcp.socket());
        }
        Ok(Piece::Bytes(Got { bytes, ..got }))
    }

    /// A request was written.
    pub fn asked(&mut self) {
        self.tcp.asked();
    }

    /// Hands over as much of `bytes` as is taken; nothing is left of it once TLS has it.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is taken now; else what broke the connection.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.socket().write(bytes),
            Some(tls) => tls.session.writer().write(bytes),
        }
    }

    /// Whether TLS keeps nothing back.
    pub fn is_flushed(&self) -> bool {
        !self.tls.as_ref().is_some_and(|tls| tls.session.wants_write())
    }

    /// Sends what TLS has been handed.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.session.wants_write() {
            tls.session.write_tls(self.tcp.socket())?;
        }
        Ok(())
    }
}

impl Tls {
    /// Takes bytes off the wire and writes their plain text to the beginning of `out`. Returns how long it is; nothing
    /// if the server has ended the session.
    fn open(&mut self, mut sealed: &[u8], out: &mut [u8]) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while !sealed.is_empty() {
            self.session.read_tls(&mut sealed)?;
            self.session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            loop {
                match self.session.reader().read(&mut out[filled..]) {
                    Ok(0) if filled == out.len() => break,
                    Ok(0) => return Ok(Some(filled).filter(|&filled| filled > 0)),
                    Ok(bytes) => filled += bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Some(filled))
    }
}

/// Ends what users wait for, at the drain deadline or when the run is interrupted.
#[derive(Debug)]
pub struct Cut {
    cut: std::sync::atomic::AtomicBool,
    /// Of each user's task.
    wakers: Vec<futures::task::AtomicWaker>,
}

impl Cut {
    /// For so many users.
    pub fn new(users: usize) -> Self {
        Self {
            cut: false.into(),
            wakers: (0..users).map(|_| futures::task::AtomicWaker::new()).collect(),
        }
    }

    /// Ends every wait, now and from now on.
    pub fn cut(&self) {
        self.cut.store(true, std::sync::atomic::Ordering::SeqCst);
        self.wakers.iter().for_each(futures::task::AtomicWaker::wake);
    }

    /// Whether [`cut`](Self::cut) was called.
    pub fn is_cut(&self) -> bool {
        self.cut.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// To be asked by `user` before it waits: whether it must not, having left its waker if it may.
    pub fn forbids_waiting(&self, user: usize, cx: &Context<'_>) -> bool {
        self.wakers[user].register(cx.waker());
        self.is_cut()
    }

    /// Waits for `future` as `user`; nothing if the wait was cut.
    pub async fn unless_cut<F: Future>(&self, user: usize, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.forbids_waiting(user, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}
