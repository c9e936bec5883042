//! When the bytes of a request came: the kernel's word where it gives one.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;

use super::clock::now;

/// Has the kernel stamp what arrives. Where it refuses, arrivals are the instants of the reads.
pub fn stamp(stream: &TcpStream) {
    // Nothing to be done about a refusal.
    let _ = setsockopt(stream, sockopt::ReceiveTimestampns, &true);
}

/// Reads into `buf`. Returns how many bytes, and when the last of them came, on CLOCK_MONOTONIC in nanoseconds.
pub fn receive(stream: &TcpStream, buf: &mut [u8]) -> io::Result<(usize, u64)> {
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut pieces = [IoSliceMut::new(buf)];
    let received = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut pieces,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let read = now();
    let stamped = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(wall) => Some(wall),
        _ => None,
    });
    let ago = stamped
        .zip(clock_gettime(ClockId::CLOCK_REALTIME).ok())
        .map_or(0, |(then, wall)| {
            let ns = |time: nix::sys::time::TimeSpec| time.tv_sec() * 1_000_000_000 + time.tv_nsec();
            // A wall clock that was set in between is no reason to count backwards.
            u64::try_from(ns(wall) - ns(then)).unwrap_or(0)
        });
    Ok((received.bytes, read.saturating_sub(ago)))
}
