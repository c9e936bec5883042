//! Sleeping to the microsecond on an I/O runtime, whose own timer counts in milliseconds.

#[cfg(not(target_os = "linux"))]
mod coarse;
#[cfg(target_os = "linux")]
mod timerfd;

#[cfg(not(target_os = "linux"))]
pub use coarse::Clock;
#[cfg(target_os = "linux")]
pub use timerfd::Clock;

/// CLOCK_MONOTONIC now, in nanoseconds.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec of our own.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
