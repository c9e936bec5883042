//! The run's clock, and how the kernel's wall-clock stamps are brought onto it.

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

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec to write to; both clocks exist on every system this builds for.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How long a sampled offset between the two clocks is trusted: an NTP slew of 500 ppm shifts it by 50 us in this time.
const RESAMPLE_AFTER_NS: u64 = 100_000_000;

/// How far a stamp may lie outside its bounds before it is taken for a step of the wall clock. Covers the slew
/// between two samples and the error of a sample.
const TOLERANCE_NS: u64 = 100_000;

/// Converts wall-clock stamps (CLOCK_REALTIME) to the run's clock.
///
/// The offset is sampled again as the run goes on. A step of the wall clock shows as a stamp that lies in the future
/// or before what is known to have happened earlier; it makes the offset be sampled at once.
#[derive(Debug, Clone)]
pub struct WallOffset {
    clock: Clock,
    /// Wall clock minus run clock.
    offset_ns: u64,
    sampled_ns: u64,
    error_ns: u64,
}

impl WallOffset {
    /// Samples the offset of the wall clock to `clock`.
    pub fn new(clock: Clock) -> Self {
        let mut offset = Self {
            clock,
            offset_ns: 0,
            sampled_ns: 0,
            error_ns: 0,
        };
        offset.sample();
        offset
    }

    /// The instant of a wall-clock stamp, which must lie between `floor_ns` and `now_ns`; nothing if no offset
    /// explains it, as for bytes that were stamped before the wall clock was set and read after.
    pub fn instant(&mut self, wall_ns: u64, floor_ns: u64, now_ns: u64) -> Option<u64> {
        if now_ns.saturating_sub(self.sampled_ns) > RESAMPLE_AFTER_NS {
            self.sample();
        }
        within(wall_ns.wrapping_sub(self.offset_ns), floor_ns, now_ns).or_else(|| {
            self.sample();
            within(wall_ns.wrapping_sub(self.offset_ns), floor_ns, now_ns)
        })
    }

    /// How far the offset may have been off so far, in nanoseconds: half of the widest bracket that a sample was taken
    /// from. The wall clock was read somewhere inside its bracket; a slew between two samples is not part of it.
    pub fn error_ns(&self) -> u64 {
        self.error_ns
    }

    /// Takes the tightest of a few readings of the wall clock between two of the run's.
    fn sample(&mut self) {
        let mut width = u64::MAX;
        for _ in 0..3 {
            let before = self.clock.now_ns();
            let wall = read(libc::CLOCK_REALTIME);
            let after = self.clock.now_ns();
            if after - before < width {
                width = after - before;
                self.offset_ns = wall.wrapping_sub(before + width / 2);
                self.sampled_ns = after;
            }
        }
        self.error_ns = self.error_ns.max(width.div_ceil(2));
    }
}

/// `instant` brought between its bounds, if it is no further outside than the tolerance.
fn within(instant: u64, floor: u64, now: u64) -> Option<u64> {
    let plausible = instant <= now + TOLERANCE_NS && instant + TOLERANCE_NS >= floor;
    plausible.then(|| instant.clamp(floor.min(now), now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_stamp_lands_between_its_readings() {
        let clock = Clock::start();
        let mut offset = WallOffset::new(clock);
        let before = clock.now_ns();
        let wall = read(libc::CLOCK_REALTIME);
        let after = clock.now_ns();
        let instant = offset.instant(wall, before, after).expect("no step of the clock");
        assert!((before..=after).contains(&instant));
    }

    #[test]
    fn the_error_covers_every_sample_so_far() {
        let clock = Clock::start();
        let mut offset = WallOffset::new(clock);
        let mut widest = offset.error_ns();
        for _ in 0..100 {
            let before = clock.now_ns();
            offset.sample();
            let took = clock.now_ns() - before;
            assert!(offset.error_ns() >= widest, "it never shrinks");
            assert!(
                offset.error_ns() <= widest.max(took.div_ceil(2)),
                "a bracket lies inside its sample"
            );
            widest = offset.error_ns();
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_is_seen_in_both_directions() {
        let clock = Clock::start();
        let mut offset = WallOffset::new(clock);
        let true_offset = offset.offset_ns;
        for step in [3_000_000_000_i64, -3_000_000_000] {
            // The offset that was valid before the wall clock was set.
            offset.offset_ns = true_offset.wrapping_add_signed(step);
            let now = clock.now_ns();
            let instant = offset.instant(read(libc::CLOCK_REALTIME), now, clock.now_ns() + 50_000);
            assert!(instant.is_some_and(|at| at >= now), "stepped by {step}");
        }
    }

    #[test]
    fn a_stamp_from_before_the_step_is_refused() {
        let clock = Clock::start();
        let mut offset = WallOffset::new(clock);
        let now = clock.now_ns();
        let stamp = read(libc::CLOCK_REALTIME) - 3_000_000_000;
        assert_eq!(offset.instant(stamp, now, clock.now_ns()), None);
        assert_eq!(within(7, 5, 10), Some(7));
        assert_eq!(within(10 + TOLERANCE_NS, 5, 10), Some(10));
    }
}
