//! The run's clock.

/// CLOCK_MONOTONIC, counted from the start of the run.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin_ns: u64,
}

impl Clock {
    /// A clock that reads 0 now.
    pub fn start() -> Self {
        Self {
            origin_ns: read(libc::CLOCK_MONOTONIC),
        }
    }

    /// CLOCK_MONOTONIC at the start of the run, to compare with other processes of this machine.
    pub fn origin_ns(&self) -> u64 {
        self.origin_ns
    }

    /// Nanoseconds since the start of the run.
    pub fn now_ns(&self) -> u64 {
        read(libc::CLOCK_MONOTONIC).saturating_sub(self.origin_ns)
    }
}

/// The wall clock, CLOCK_REALTIME, in nanoseconds since 1970.
pub(super) fn wall_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec to write to; both clocks exist on every system this builds for.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
