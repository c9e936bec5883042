//! How long this process had to wait for a processor: others' load is part of the client's own error.

use serde::Serialize;

/// Waiting for a processor, summed up so far; the difference of two readings is what an interval cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Contention {
    /// Nanoseconds that this process's living threads were ready to run and did not.
    pub run_queue_ns: u64,
    /// Nanoseconds that they ran.
    pub running_ns: u64,
    /// Milliseconds that the hypervisor took from all processors together.
    pub steal_ms: u64,
}

impl Contention {
    /// Reads the counters; `None` where the system has none.
    #[cfg(target_os = "linux")]
    pub fn read() -> Option<Contention> {
        use procfs::CurrentSI;

        let threads = procfs::process::Process::myself().ok()?.tasks().ok()?;
        let mut sum = Contention::default();
        for counters in threads.flatten().filter_map(|thread| thread.schedstat().ok()) {
            sum.run_queue_ns += counters.run_delay;
            sum.running_ns += counters.sum_exec_runtime;
        }
        sum.steal_ms = procfs::KernelStats::current().ok()?.total.steal_ms().unwrap_or(0);
        Some(sum)
    }

    /// Unknown on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn read() -> Option<Contention> {
        None
    }

    /// What was added since `earlier`. Threads that ended in between take their share with them.
    pub fn since(self, earlier: Contention) -> Contention {
        Contention {
            run_queue_ns: self.run_queue_ns.saturating_sub(earlier.run_queue_ns),
            running_ns: self.running_ns.saturating_sub(earlier.running_ns),
            steal_ms: self.steal_ms.saturating_sub(earlier.steal_ms),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn running_is_counted() {
        let before = Contention::read().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // The kernel may bring its counters up to date late.
        while Contention::read().unwrap().since(before).running_ns == 0 {
            assert!(
                std::time::Instant::now() < deadline,
                "ten seconds of work were not counted"
            );
        }
    }
}
