//! The one connection of a user: opened ahead of its first request, opened again when it was closed.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::client::TlsStream;

use super::stamped::{Arrival, Bite, StampedTcp};
use super::{Failure, Target};
use crate::measure::{Clock, Outcome};

/// An open connection, with or without TLS.
pub(super) enum Connection {
    Plain(StampedTcp),
    Tls(Box<TlsStream<StampedTcp>>),
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
                Ok(tcp) => return Self::secure(target, StampedTcp::new(tcp, clock)).await,
                Err(error) => last = error,
            }
        }
        Err(refused(last))
    }

    async fn secure(target: &Target, tcp: StampedTcp) -> Result<Self, Failure> {
        let Some((connector, name)) = &target.tls else {
            return Ok(Self::Plain(tcp));
        };
        match connector.connect(name.clone(), tcp).await {
            Ok(stream) => Ok(Self::Tls(Box::new(stream))),
            Err(error) => Err(Failure::new(
                Outcome::Tls,
                format!("TLS with {}: {error}", target.host),
            )),
        }
    }

    fn tcp(&self) -> &StampedTcp {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    pub fn kernel_stamps(&self) -> bool {
        self.tcp().kernel_stamps()
    }

    pub fn stamp_error_ns(&self) -> Option<u64> {
        self.tcp().stamp_error_ns()
    }

    pub fn last_arrival(&self) -> Arrival {
        self.tcp().last_arrival()
    }

    /// Whether the idle connection must not be used again. Under TLS, bytes may be session tickets.
    pub fn is_stale(&self) -> bool {
        self.tcp().is_stale(matches!(self, Self::Plain(_)))
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8], bite: Bite) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => tcp.poll_recv(cx, buf, bite),
            Self::Tls(stream) => {
                let mut buf = ReadBuf::new(buf);
                Pin::new(stream)
                    .poll_read(cx, &mut buf)
                    .map_ok(|()| buf.filled().len())
            }
        }
    }

    /// Writes all of `bytes`. The first write happens at the first poll, before anything is waited for; `begins` is called
    /// right before it.
    pub async fn write_all(&mut self, mut bytes: &[u8], begins: impl FnOnce()) -> io::Result<()> {
        begins();
        while !bytes.is_empty() {
            let written = poll_fn(|cx| match self {
                Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
                Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            });
            match written.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        if let Self::Tls(stream) = self {
            poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await?;
        }
        Ok(())
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
