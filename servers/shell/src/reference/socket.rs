//! A socket that stamps each write with the events it carried.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use crate::frames::Kind;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

#[cfg(target_os = "linux")]
use super::arrival;
use super::clock::now;
use super::faults::Faults;
use super::log::{Log, Shared, lock};

/// What the next write carries.
pub enum Mark {
    /// An event of a request, with its tokens.
    Event(Shared, Kind, u64),
    /// The end of a request's answer.
    End(Shared),
}

/// The side of a connection that request handlers see.
#[derive(Clone)]
pub struct Peer(Arc<Connection>);

struct Connection {
    log: Arc<Log>,
    last_came: AtomicU64,
    marks: Mutex<Vec<Mark>>,
}

impl Peer {
    /// When the last bytes of this connection came, by the kernel's stamp where there is one, else by the read.
    pub fn last_came(&self) -> u64 {
        self.0.last_came.load(Ordering::Relaxed)
    }

    /// The bytes that are rendered now, for the next write, are an event or an end.
    pub fn mark(&self, mark: Mark) {
        lock(&self.0.marks).push(mark);
    }
}

/// Accepts connections, and refuses those that the faults say.
pub struct StampedListener {
    /// Where connections come in.
    pub listener: TcpListener,
    /// Where they are counted.
    pub log: Arc<Log>,
    /// Which of them are refused.
    pub faults: Arc<Faults>,
    /// How many came.
    pub accepted: u64,
}

impl Listener for StampedListener {
    type Io = StampedSocket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (StampedSocket, SocketAddr) {
        loop {
            // axum's own accept retries what can be retried.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            self.accepted += 1;
            if self.faults.refuses(self.accepted) {
                self.log.refused();
                continue;
            }
            // Fails only on a socket that is closed already, which the first read tells as well.
            let _ = stream.set_nodelay(true);
            #[cfg(target_os = "linux")]
            arrival::stamp(&stream);
            self.log.connection(true);
            let log = Arc::clone(&self.log);
            let connection = Connection {
                log,
                last_came: AtomicU64::new(now()),
                marks: Mutex::default(),
            };
            return (
                StampedSocket {
                    stream,
                    peer: Peer(Arc::new(connection)),
                },
                address,
            );
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, StampedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, StampedListener>) -> Self {
        stream.io().peer.clone()
    }
}

/// A TCP stream whose reads and writes are stamped.
pub struct StampedSocket {
    stream: TcpStream,
    peer: Peer,
}

impl StampedSocket {
    /// Reads, and says when what was read had come.
    #[cfg(target_os = "linux")]
    fn receive(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<u64>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let read = self.stream.try_io(Interest::READABLE, || {
                arrival::receive(&self.stream, buf.initialize_unfilled())
            });
            match read {
                Ok((bytes, came)) => {
                    buf.advance(bytes);
                    return Poll::Ready(Ok(came));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads, and says when.
    #[cfg(not(target_os = "linux"))]
    fn receive(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<u64>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(Ok(now()))
    }

    /// Settles the marks of a write of `wanted` bytes. One that was cut short settles nothing: its events are
    /// complete only with the next.
    fn wrote(&self, wanted: usize, result: &Poll<io::Result<usize>>, before: u64) {
        let Poll::Ready(Ok(written)) = result else { return };
        let after = now();
        if *written < wanted {
            return;
        }
        let log = &self.peer.0.log;
        for mark in lock(&self.peer.0.marks).drain(..) {
            match mark {
                Mark::Event(record, kind, tokens) => log.sent(&record, kind, tokens, before, after),
                Mark::End(record) => log.settled(&record, Some(after)),
            }
        }
    }
}

impl Drop for StampedSocket {
    fn drop(&mut self) {
        let log = &self.peer.0.log;
        for mark in lock(&self.peer.0.marks).drain(..) {
            if let Mark::End(record) = mark {
                log.settled(&record, None);
            }
        }
        log.connection(false);
    }
}

impl AsyncRead for StampedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let came = ready!(self.receive(cx, buf))?;
        self.peer.0.last_came.store(came, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StampedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let before = now();
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(buf.len(), &result, before);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = now();
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(bufs.iter().map(|buf| buf.len()).sum(), &result, before);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
