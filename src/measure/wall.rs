//! How the kernel's wall-clock stamps are brought onto the run's clock, also when the wall clock is set meanwhile.

use super::clock::{Clock, wall_ns};

/// How long a sampled offset between the two clocks is trusted.
const RESAMPLE_AFTER_NS: u64 = 100_000_000;

/// How far a stamp may lie outside its bounds, and the clocks apart from what was sampled, before it is taken for a step
/// of the wall clock. Covers the slew between two samples and the error of a sample.
const TOLERANCE_NS: u64 = 100_000;

/// The fastest that the kernel slews the wall clock: 500 ppm.
const SLEW_PER_NS: u64 = 2_000;

/// Readings of a sample: few, unless the thread is interrupted in all of them.
const READINGS: std::ops::Range<u32> = 3..10;

/// A bracket this narrow needs no further reading.
const NARROW_NS: u64 = 20_000;

/// The two clocks, read one after the other.
pub trait Clocks {
    /// The run's clock, in nanoseconds.
    fn run_ns(&self) -> u64;
    /// The wall clock, in nanoseconds.
    fn wall_ns(&self) -> u64;
}

impl Clocks for Clock {
    fn run_ns(&self) -> u64 {
        self.now_ns()
    }

    fn wall_ns(&self) -> u64 {
        wall_ns()
    }
}

/// Converts wall-clock stamps (CLOCK_REALTIME) to the run's clock.
///
/// The offset is sampled again as the run goes on. Whoever converts a stamp also compares the clocks: when they are
/// further apart than the offset says, the wall clock was set, and the offset is sampled at once. A stamp from before
/// such a step is converted by the offset from before it.
#[derive(Debug, Clone)]
pub struct WallOffset<C = Clock> {
    clocks: C,
    /// Wall clock minus run clock.
    offset_ns: u64,
    /// The same before the last step of the wall clock.
    before_step_ns: Option<u64>,
    sampled_ns: u64,
    widest_ns: u64,
    fastest_ns: u64,
    steps: u32,
}

impl<C: Clocks> WallOffset<C> {
    /// Samples the offset between the clocks.
    pub fn new(clocks: C) -> Self {
        let mut offset = Self {
            clocks,
            offset_ns: 0,
            before_step_ns: None,
            sampled_ns: 0,
            widest_ns: 0,
            fastest_ns: 0,
            steps: 0,
        };
        offset.sample();
        offset
    }

    /// The instant of a wall-clock stamp, which must lie between `floor_ns` and `now_ns`, the present; nothing if no
    /// offset explains it.
    pub fn instant(&mut self, wall_ns: u64, floor_ns: u64, now_ns: u64) -> Option<u64> {
        self.check(now_ns);
        let by = |offset: u64| within(wall_ns.wrapping_sub(offset), floor_ns, now_ns);
        by(self.offset_ns).or_else(|| by(self.before_step_ns?))
    }

    /// Compares the clocks at `now_ns`, the present, and samples their offset again if it is old, or wrong.
    pub fn check(&mut self, now_ns: u64) {
        let expected = now_ns.wrapping_add(self.offset_ns);
        let old = now_ns.saturating_sub(self.sampled_ns) > RESAMPLE_AFTER_NS;
        if old || self.clocks.wall_ns().abs_diff(expected) > TOLERANCE_NS {
            self.resample();
        }
    }

    /// How often the wall clock was set so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// How far a converted stamp may have been off so far, in nanoseconds: half of the widest bracket that a sample was
    /// taken from, and as much as the wall clock was slewed, at its fastest, while a sample was trusted.
    pub fn error_ns(&self) -> u64 {
        self.widest_ns + self.fastest_ns
    }

    fn resample(&mut self) {
        let (offset, sampled) = (self.offset_ns, self.sampled_ns);
        let width = self.sample();
        let (moved, passed) = (self.offset_ns.abs_diff(offset), self.sampled_ns - sampled);
        if moved > TOLERANCE_NS + width + passed / SLEW_PER_NS {
            self.before_step_ns = Some(offset);
            self.steps += 1;
        } else if let Some(slewed) = (moved * RESAMPLE_AFTER_NS.min(passed)).checked_div(passed) {
            self.fastest_ns = self.fastest_ns.max(slewed);
        }
    }

    /// Takes the tightest of a few readings of the wall clock between two of the run's. Returns their distance.
    fn sample(&mut self) -> u64 {
        let mut width = u64::MAX;
        for reading in 0..READINGS.end {
            if reading >= READINGS.start && width <= NARROW_NS {
                break;
            }
            let before = self.clocks.run_ns();
            let wall = self.clocks.wall_ns();
            let after = self.clocks.run_ns();
            if after - before < width {
                width = after - before;
                self.offset_ns = wall.wrapping_sub(before + width / 2);
                self.sampled_ns = after;
            }
        }
        self.widest_ns = self.widest_ns.max(width.div_ceil(2));
        width
    }
}

/// `instant` brought between its bounds, if it is no further outside than the tolerance.
fn within(instant: u64, floor: u64, now: u64) -> Option<u64> {
    let plausible = instant <= now + TOLERANCE_NS && instant + TOLERANCE_NS >= floor;
    plausible.then(|| instant.clamp(floor.min(now), now))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    /// Clocks that a test moves. Each look at them takes 30 ns.
    #[derive(Debug, Default)]
    struct Injected {
        run: Cell<u64>,
        offset: Cell<u64>,
    }

    impl Injected {
        fn at(offset: u64) -> Self {
            let clocks = Self::default();
            clocks.offset.set(offset);
            clocks
        }

        fn pass(&self, ns: u64) {
            self.run.set(self.run.get() + ns);
        }

        fn set_wall(&self, by: i64) {
            self.offset.set(self.offset.get().wrapping_add_signed(by));
        }
    }

    impl Clocks for &Injected {
        fn run_ns(&self) -> u64 {
            self.pass(30);
            self.run.get()
        }

        fn wall_ns(&self) -> u64 {
            self.pass(30);
            self.run.get() + self.offset.get()
        }
    }

    /// Bytes arrive now and are read `late` ns later: how far the instant they get is off, if they get one.
    fn arrive(clocks: &Injected, wall: &mut WallOffset<&Injected>, floor: u64, late: u64) -> Option<u64> {
        let (stamp, at) = ((&clocks).wall_ns(), clocks.run.get());
        clocks.pass(late);
        let now = (&clocks).run_ns();
        Some(wall.instant(stamp, floor, now)?.abs_diff(at))
    }

    #[test]
    fn a_fresh_stamp_lands_between_its_readings() {
        let clock = Clock::start();
        let mut offset = WallOffset::new(clock);
        let before = clock.now_ns();
        let wall = wall_ns();
        let after = clock.now_ns();
        let instant = offset.instant(wall, before, after).expect("no step of the clock");
        assert!((before..=after).contains(&instant));
    }

    #[test]
    fn steps_are_seen_at_once_counted_and_survived() {
        let clocks = Injected::at(1_700_000_000 * SECOND);
        let mut wall = WallOffset::new(&clocks);
        let mut steps = 0;
        for step in [3_000, -3_000, 40, -40, 1, -7_200_000] {
            clocks.pass(10 * MS);
            clocks.set_wall(step * MS as i64);
            steps += 1;
            // Nothing came for long, so only the clocks themselves show the step.
            let error = arrive(&clocks, &mut wall, 0, 50_000).expect("a stamp from after the step");
            assert!(error <= wall.error_ns(), "{error} ns after a step of {step} ms");
            assert_eq!(wall.steps(), steps, "after a step of {step} ms");
        }
        assert!(wall.error_ns() < 1_000, "a step is no error: {}", wall.error_ns());
    }

    #[test]
    fn a_stamp_from_before_a_step_is_converted_by_the_offset_from_before_it() {
        for step in [3 * SECOND as i64, -3 * SECOND as i64] {
            let clocks = Injected::at(1_700_000_000 * SECOND);
            let mut wall = WallOffset::new(&clocks);
            clocks.pass(20 * MS);
            let (stamp, at) = ((&&clocks).wall_ns(), clocks.run.get());
            clocks.set_wall(step);
            clocks.pass(MS);
            let now = (&&clocks).run_ns();
            let instant = wall
                .instant(stamp, at - MS, now)
                .expect("the old offset explains it");
            assert!(instant.abs_diff(at) <= wall.error_ns(), "stepped by {step}");
            assert_eq!(wall.steps(), 1);
        }
    }

    #[test]
    fn a_stamp_that_no_offset_explains_is_refused() {
        let clocks = Injected::at(1_700_000_000 * SECOND);
        let mut wall = WallOffset::new(&clocks);
        clocks.pass(SECOND);
        let now = (&&clocks).run_ns();
        let stamp = (&&clocks).wall_ns();
        assert_eq!(wall.instant(stamp - 3 * SECOND, now - MS, now), None);
        assert_eq!(wall.instant(stamp + SECOND, now - MS, now), None);
        assert_eq!(wall.steps(), 0);
        assert_eq!(within(7, 5, 10), Some(7));
        assert_eq!(within(10 + TOLERANCE_NS, 5, 10), Some(10));
    }

    proptest! {
        #[test]
        fn a_slewed_clock_is_followed_within_its_error(
            ppm in -500_i64..=500, every in MS..2 * SECOND, late in 0..30 * MS,
        ) {
            let clocks = Injected::at(1_700_000_000 * SECOND);
            let mut wall = WallOffset::new(&clocks);
            for _ in 0..100 {
                clocks.pass(every);
                clocks.set_wall(every as i64 * ppm / 1_000_000);
                let error = arrive(&clocks, &mut wall, 0, late);
                prop_assert!(error.is_some_and(|error| error <= 60_000), "{error:?}");
            }
            prop_assert_eq!(wall.steps(), 0);
            prop_assert!(wall.error_ns() <= 60_000, "{}", wall.error_ns());
        }
    }
}
