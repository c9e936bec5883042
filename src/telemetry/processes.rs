//! CPU and memory of a process and everything it started.

use serde::Serialize;

/// Which processes are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The process of this id and all its descendants.
    Tree(u32),
    /// The descendants alone, as they live below a guard.
    Below(u32),
}

/// What a set of processes had used at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// When, on the caller's clock.
    pub at_ns: u64,
    /// CPU seconds since each process started, user and system, with those of children that ended and were waited for.
    /// The kernel counts in ticks of 10 ms.
    pub cpu_s: f64,
    /// Resident memory now. Pages that processes share are counted in each.
    pub rss_bytes: u64,
    /// The sum of each process's own peak (`VmHWM`): at least the peak of the whole.
    pub rss_peak_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Page faults answered from memory since each process started, with those of children that ended and were waited
    /// for.
    pub minor_faults: u64,
    /// The same for page faults that needed the disk.
    pub major_faults: u64,
}

impl Root {
    /// What the processes have used by now; `None` where the system does not tell, or when none is left.
    #[cfg(target_os = "linux")]
    pub fn usage(self, at_ns: u64) -> Option<Usage> {
        let (Root::Tree(root) | Root::Below(root)) = self;
        let root = root.cast_signed();
        let stat = |pid| procfs::process::Process::new(pid).and_then(|process| process.stat());
        let top = stat(root).ok()?;
        let mut processes = below(root);
        let mut usage = Usage {
            at_ns,
            ..Usage::default()
        };
        let mut ticks = 0;
        match self {
            Root::Tree(_) => processes.push(top),
            // A guard does next to nothing itself, but what it waited for is counted at it.
            Root::Below(_) => {
                ticks += u64::try_from(top.cutime + top.cstime).unwrap_or(0);
                usage.minor_faults += top.cminflt;
                usage.major_faults += top.cmajflt;
            }
        }
        if processes.is_empty() {
            return None;
        }
        for process in &processes {
            ticks +=
                process.utime + process.stime + u64::try_from(process.cutime + process.cstime).unwrap_or(0);
            let rss = process.rss * procfs::page_size();
            usage.rss_bytes += rss;
            // The kernel reads the two from different counters, of which that of `rss` is rounded.
            usage.rss_peak_bytes += peak(process.pid).unwrap_or(rss).max(rss);
            usage.threads += u64::try_from(process.num_threads).unwrap_or(0);
            usage.minor_faults += process.minflt + process.cminflt;
            usage.major_faults += process.majflt + process.cmajflt;
        }
        usage.cpu_s = ticks as f64 / procfs::ticks_per_second() as f64;
        Some(usage)
    }

    /// Unknown on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn usage(self, _at_ns: u64) -> Option<Usage> {
        None
    }

    /// The ids of the processes; none where the system does not tell.
    #[cfg(target_os = "linux")]
    pub fn pids(self) -> Vec<u32> {
        let (Root::Tree(root) | Root::Below(root)) = self;
        let own = matches!(self, Root::Tree(_)).then_some(root);
        let below = below(root.cast_signed());
        own.into_iter()
            .chain(below.iter().map(|stat| stat.pid.cast_unsigned()))
            .collect()
    }

    /// Unknown on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn pids(self) -> Vec<u32> {
        Vec::new()
    }
}

/// Peak resident bytes of a process.
#[cfg(target_os = "linux")]
fn peak(pid: i32) -> Option<u64> {
    let status = procfs::process::Process::new(pid).ok()?.status().ok()?;
    status.vmhwm.map(|kib| kib * 1024)
}

/// All descendants of a process; empty if it has none or is gone.
#[cfg(target_os = "linux")]
pub(crate) fn below(root: i32) -> Vec<procfs::process::Stat> {
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    // A process may end between being listed and being read.
    let mut others: Vec<_> = all.flatten().filter_map(|process| process.stat().ok()).collect();
    let mut found: Vec<procfs::process::Stat> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let (children, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|stat| stat.ppid == parent);
        others = rest;
        parents.extend(children.iter().map(|stat| stat.pid));
        found.extend(children);
    }
    found
}

/// Ids of the processes that have this variable in their environment.
#[cfg(target_os = "linux")]
pub(crate) fn marked(name: &str, value: &str) -> Vec<i32> {
    use std::ffi::OsStr;
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    let is_marked = |process: &procfs::process::Process| {
        // Those of others cannot be read.
        let environment = process.environ().unwrap_or_default();
        environment
            .get(OsStr::new(name))
            .is_some_and(|found| found == value)
    };
    all.flatten()
        .filter_map(|process| Some((process.stat().ok()?, process)))
        .filter(|(stat, process)| stat.state != 'Z' && is_marked(process))
        .map(|(stat, _)| stat.pid)
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tree_is_found_with_its_grandchildren() {
        let script = "sleep 60 & sh -c 'sleep 60 & echo ready; wait'";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        // A child may still be on its way from `sh` to `sleep`, or be loading what it needs.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let (found, sleeps) = loop {
            let found = below(shell.id().cast_signed());
            let sleeps = found.iter().filter(|stat| stat.comm == "sleep").count();
            let settled = sleeps == 2 && found.iter().all(|stat| stat.state == 'S');
            if settled || std::time::Instant::now() > deadline {
                break (found, sleeps);
            }
            thread::yield_now();
        };
        let alone = Root::Below(shell.id()).usage(7).unwrap();
        let tree = Root::Tree(shell.id()).usage(7).unwrap();
        for stat in found {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(stat.pid), nix::sys::signal::SIGKILL);
        }
        shell.wait().unwrap();
        assert_eq!(sleeps, 2);
        assert_eq!((tree.at_ns, tree.threads), (7, alone.threads + 1));
        assert!(tree.rss_bytes > alone.rss_bytes && tree.rss_peak_bytes >= tree.rss_bytes);
        assert!(alone.minor_faults > 0 && tree.minor_faults > alone.minor_faults);
        assert_eq!(Root::Tree(shell.id()).usage(7), None);
    }
}
