//! The system calls below [`StampedTcp`](super::stamped::StampedTcp): receiving with the kernel's timestamp.

use std::io;
use std::os::fd::AsRawFd;

use mio::net::TcpStream;

/// What one read brought.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Bytes; 0 at the end of the stream.
    pub bytes: usize,
    /// CLOCK_REALTIME in nanoseconds at which the last of their segments had arrived, if the kernel said so.
    pub wall_ns: Option<u64>,
}

/// Room for one control message with a timespec, aligned as the kernel writes it.
#[cfg(target_os = "linux")]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Has the kernel stamp every segment it receives. Says whether it will.
#[cfg(target_os = "linux")]
pub fn enable_stamps(tcp: &TcpStream) -> bool {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as `tcp` lives, and the option's value is an int of the size given.
    let status = unsafe {
        libc::setsockopt(
            tcp.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    status == 0
}

/// This system does not stamp TCP segments.
#[cfg(not(target_os = "linux"))]
pub fn enable_stamps(_: &TcpStream) -> bool {
    false
}

/// Has the kernel acknowledge what was read, and hold back the acknowledgement of what has not been.
///
/// See [`Acknowledge`](super::stamped::Acknowledge) for why.
#[cfg(target_os = "linux")]
pub fn acknowledge_read(tcp: &TcpStream) {
    // 2: now, and no quick ones after it. 0: no quick ones, also if there was nothing to acknowledge.
    for mode in [2, 0] {
        let mode: libc::c_int = mode;
        // SAFETY: the descriptor is open as long as `tcp` lives, and the option's value is an int of the size given.
        unsafe {
            libc::setsockopt(
                tcp.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_QUICKACK,
                (&raw const mode).cast(),
                size_of_val(&mode) as libc::socklen_t,
            )
        };
    }
}

/// Without stamps there is nothing to keep apart.
#[cfg(not(target_os = "linux"))]
pub fn acknowledge_read(_: &TcpStream) {}

/// Bytes that lie in the socket.
pub fn pending(tcp: &TcpStream) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and FIONREAD writes one int.
    match unsafe { libc::ioctl(tcp.as_raw_fd(), libc::FIONREAD, &raw mut bytes) } {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives into `buf`, with the stamp of the last segment that was read from.
pub fn receive(tcp: &TcpStream, buf: &mut [u8]) -> io::Result<Received> {
    let mut piece = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    #[cfg(target_os = "linux")]
    let mut control = Control([0; 64]);
    // SAFETY: a msghdr of zeros is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    #[cfg(target_os = "linux")]
    {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
    }
    // SAFETY: the descriptor is open; `message` points to `piece` and `control`, which outlive the call, and `piece`
    // describes `buf`.
    let bytes = unsafe { libc::recvmsg(tcp.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if bytes < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Received {
        bytes: bytes as usize,
        wall_ns: stamp(&message),
    })
}

#[cfg(target_os = "linux")]
fn stamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel filled `message`; the CMSG functions walk its control buffer, which is aligned and alive,
    // and the timespec is read unaligned from a message whose type says that it holds one.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                return Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
fn stamp(_: &libc::msghdr) -> Option<u64> {
    None
}

/// Bytes that could be read now without reading them (at most 1), 0 at the end of the stream or after an error;
/// nothing while there is nothing to read.
pub fn peek(tcp: &TcpStream) -> Option<usize> {
    let mut byte = [0_u8; 1];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open and the buffer is one byte long.
    let bytes = unsafe { libc::recv(tcp.as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags) };
    match usize::try_from(bytes) {
        Ok(bytes) => Some(bytes),
        Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => None,
        Err(_) => Some(0),
    }
}
