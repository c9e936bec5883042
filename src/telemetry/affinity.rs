//! Which processors a thread or a process may run on. Linux only.

use std::io;

/// Confines the calling thread, and what it starts, to these processors. Allocates nothing, so that it may be called
/// between fork and exec.
///
/// # Errors
/// If the machine has none of them, or the system has no such thing as affinity.
#[cfg(target_os = "linux")]
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(nix::sched::sched_setaffinity(
        nix::unistd::Pid::from_raw(0),
        &set,
    )?)
}

/// This system cannot confine threads.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn pin(_: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The processors that a process (its main thread) may run on, in order; `None` where the system does not tell. The
/// process 0 is the calling thread.
#[cfg(target_os = "linux")]
pub fn of(process: u32) -> Option<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(process.cast_signed())).ok()?;
    let holds = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
    Some((0..nix::sched::CpuSet::count()).filter(holds).collect())
}

/// Unknown on this system.
#[cfg(not(target_os = "linux"))]
pub fn of(_: u32) -> Option<Vec<usize>> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_confined_and_others_are_not() {
        let allowed = of(0).unwrap();
        let last = *allowed.last().unwrap();
        let pinned = std::thread::spawn(move || {
            pin(&[last]).unwrap();
            of(0).unwrap()
        });
        assert_eq!(pinned.join().unwrap(), [last]);
        assert_eq!(of(0).unwrap(), allowed);
        assert!(pin(&[1_000_000]).is_err());
    }
}
