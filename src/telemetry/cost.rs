//! What threads of this process cost, and what kept them from running: others' load is part of the client's own error.

/// A thread of this process, for as long as it lives.
#[derive(Debug, Clone, Copy)]
pub struct ThreadId {
    #[cfg(target_os = "linux")]
    tid: i32,
    #[cfg(target_os = "linux")]
    cpu_clock: libc::clockid_t,
}

impl ThreadId {
    /// The calling thread.
    #[cfg(target_os = "linux")]
    pub fn own() -> ThreadId {
        let mut cpu_clock: libc::clockid_t = libc::CLOCK_THREAD_CPUTIME_ID;
        // SAFETY: the calling thread lives, and the pointer is to a live value.
        unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut cpu_clock) };
        ThreadId {
            tid: nix::unistd::gettid().as_raw(),
            cpu_clock,
        }
    }

    /// The calling thread.
    #[cfg(not(target_os = "linux"))]
    pub fn own() -> ThreadId {
        ThreadId {}
    }
}

/// What a set of threads cost up to one instant, in nanoseconds; the difference of two readings is what an interval cost.
/// What the system does not tell is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of the threads; outside Linux, of the whole process.
    pub cpu_ns: u64,
    /// Time in which a thread was ready to run and had no processor, summed over the threads.
    pub run_queue_ns: Option<u64>,
    /// Time that the hypervisor took from a processor of the machine, averaged over all of them.
    pub steal_ns: Option<u64>,
    /// Time in which some task of the machine waited for a processor (PSI).
    pub pressure_ns: Option<u64>,
}

impl Cost {
    /// What was added since `earlier`. Threads that ended in between take their share with them.
    pub fn since(self, earlier: Cost) -> Cost {
        let added = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Cost {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            run_queue_ns: added(self.run_queue_ns, earlier.run_queue_ns),
            steal_ns: added(self.steal_ns, earlier.steal_ns),
            pressure_ns: added(self.pressure_ns, earlier.pressure_ns),
        }
    }
}

/// Reads what a set of threads cost.
#[derive(Debug)]
pub struct Meter(Vec<ThreadId>);

impl Meter {
    /// For these threads.
    pub fn of(threads: Vec<ThreadId>) -> Meter {
        Meter(threads)
    }

    /// The cost so far.
    #[cfg(target_os = "linux")]
    pub fn read(&self) -> Cost {
        use procfs::{Current, CurrentSI};

        let process = procfs::process::Process::myself().ok();
        let delay = |thread: &ThreadId| {
            let task = process.as_ref()?.task_from_tid(thread.tid).ok()?;
            Some(task.schedstat().ok()?.run_delay)
        };
        let steal_ns = |stat: procfs::KernelStats| {
            let processors = stat.cpu_time.len().max(1) as u64;
            Some(stat.total.steal_ms()? * 1_000_000 / processors)
        };
        Cost {
            cpu_ns: self.0.iter().map(|thread| read_clock(thread.cpu_clock)).sum(),
            run_queue_ns: self.0.iter().map(delay).sum(),
            steal_ns: procfs::KernelStats::current().ok().and_then(steal_ns),
            pressure_ns: procfs::CpuPressure::current()
                .ok()
                .map(|pressure| pressure.some.total * 1_000),
        }
    }

    /// The cost so far: this system tells that of the whole process alone.
    #[cfg(not(target_os = "linux"))]
    pub fn read(&self) -> Cost {
        Cost {
            cpu_ns: read_clock(libc::CLOCK_PROCESS_CPUTIME_ID),
            ..Cost::default()
        }
    }
}

/// The clock in nanoseconds; 0 if it cannot be read, as that of a thread that has ended.
fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live value.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
        _ => 0,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_only_that_of_the_threads_named() {
        let (own, none) = (Meter::of(vec![ThreadId::own()]), Meter::of(Vec::new()));
        let (before, before_none) = (own.read(), none.read());
        while own.read().since(before).cpu_ns == 0 {}
        let cost = own.read().since(before);
        assert!(cost.run_queue_ns.is_some() && cost.steal_ns.is_some(), "{cost:?}");
        let others = none.read().since(before_none);
        assert_eq!((others.cpu_ns, others.run_queue_ns), (0, Some(0)));
    }
}
