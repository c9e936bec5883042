//! A fixed pool of threads for many short parallel loops.
//!
//! One token of a small model is some 150 parallel loops of 20 to 100 µs each, so what counts is the price of starting
//! and ending one. The calling thread works as well; the others spin for some microseconds between two loops and
//! sleep when none comes. A loop ends when its tasks are done, whether or not a sleeping thread woke in time to help.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::{self, JoinHandle, Thread};

/// How often a thread looks for a new loop before it sleeps: about 20 µs. More would steal the cores from whoever
/// sends us requests.
const SPINS: u32 = 400;

/// While this bit of `Shared::state` is set, threads may join the loop.
const OPEN: u64 = 1 << 31;
/// The lower bits count the threads that are inside the loop; those above `OPEN` number the loops.
const INSIDE: u64 = OPEN - 1;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Job {
    task: *const Task<'static>,
    tasks: usize,
}

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    failed: AtomicBool,
    stop: AtomicBool,
    parked: Vec<AtomicBool>,
}

// SAFETY: `job` is written only while the loop is closed and nobody is inside, and read only from inside an open one;
// `state` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed while `Pool::run`, which owns the borrow, waits for all to leave.
unsafe impl Send for Shared {}

/// Threads that run one parallel loop at a time.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
}

impl Pool {
    /// A pool in which `threads` threads compute, the caller of [`run`](Self::run) among them.
    ///
    /// # Errors
    /// If the system starts no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let helpers = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job {
                task: &|_, _| (),
                tasks: 0,
            }),
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
        });
        let threads = (0..helpers)
            .map(|index| {
                let shared = shared.clone();
                thread::Builder::new()
                    .name(format!("compute-{}", index + 1))
                    .spawn(move || shared.work(index))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let handles = threads.iter().map(|thread| thread.thread().clone()).collect();
        Ok(Self {
            shared,
            threads,
            handles,
        })
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `task(thread, index)` for each index below `tasks`, spread over the threads; returns when all are done.
    /// `thread` is below [`threads`](Self::threads) and tells apart the calls that run at the same time.
    ///
    /// # Panics
    /// If a task does.
    pub fn run(&mut self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if tasks <= 1 || self.handles.is_empty() {
            (0..tasks).for_each(|index| task(0, index));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: no loop is open and nobody inside: the one before waited for that, and `&mut self` lets in only one.
        // The lifetime may be erased because `Leave` waits, also on unwinding, until nobody can follow the pointer.
        unsafe {
            let task: *const Task<'static> = std::mem::transmute(task as *const Task<'_>);
            *shared.job.get() = Job { task, tasks };
        }
        shared.next.store(0, Relaxed);
        let number = (shared.state.load(Relaxed) >> 32) + 1;
        shared.state.store(number << 32 | OPEN, SeqCst);
        for (thread, parked) in self.handles.iter().zip(&shared.parked).take(tasks - 1) {
            if parked.load(SeqCst) {
                thread.unpark();
            }
        }
        {
            let _leave = Leave(shared);
            loop {
                let index = shared.next.fetch_add(1, Relaxed);
                if index >= tasks {
                    break;
                }
                task(0, index);
            }
        }
        assert!(!shared.failed.swap(false, Relaxed), "a compute thread panicked");
    }
}

/// Closes the loop and waits until every other thread has left it.
struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, AcqRel);
        let mut spins = 0;
        while self.0.state.load(Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < 10 * SPINS {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.handles.iter().for_each(Thread::unpark);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        while let Some(number) = self.join(index, seen) {
            seen = number;
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // SAFETY: we are inside an open loop (`join` counted us in), so the job stays as it is until we leave.
                let (task, tasks) = unsafe { (&*(*self.job.get()).task, (*self.job.get()).tasks) };
                loop {
                    let task_index = self.next.fetch_add(1, Relaxed);
                    if task_index >= tasks {
                        break;
                    }
                    task(index + 1, task_index);
                }
            }));
            if done.is_err() {
                self.failed.store(true, Relaxed);
            }
            self.state.fetch_sub(1, AcqRel);
        }
    }

    /// Waits for a loop other than `seen`, enters it and says its number; none if the pool ends.
    fn join(&self, index: usize, seen: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            let state = self.state.load(SeqCst);
            if state & OPEN != 0 && state >> 32 != seen {
                if self
                    .state
                    .compare_exchange(state, state + 1, AcqRel, Relaxed)
                    .is_ok()
                {
                    return Some(state >> 32);
                }
                continue;
            }
            if self.stop.load(SeqCst) {
                return None;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            self.parked[index].store(true, SeqCst);
            let state = self.state.load(SeqCst);
            if !(state & OPEN != 0 && state >> 32 != seen || self.stop.load(SeqCst)) {
                thread::park();
            }
            self.parked[index].store(false, SeqCst);
            spins = 0;
        }
    }
}

/// A slice that the tasks of a loop share, each writing a part of its own.
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out only parts that `part`'s callers keep disjoint.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Shares out `slice`.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: std::marker::PhantomData,
        }
    }

    /// The `len` elements from `start` on.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    ///
    /// # Panics
    /// If the part is not inside the slice.
    #[allow(clippy::mut_from_ref)] // what this type is for; the contract above keeps it sound
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "part {start}+{len} of a slice of {}",
            self.len
        );
        // SAFETY: inside the slice, and disjoint from the other parts by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_in_each_of_many_loops() {
        let mut pool = Pool::new(4).unwrap();
        for tasks in (0..200).chain([1000]) {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, &|thread, index| {
                assert!(thread < 4);
                counts[index].fetch_add(1, Relaxed);
            });
            assert!(
                counts.iter().all(|count| count.load(Relaxed) == 1),
                "{tasks} tasks"
            );
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        for bad in [0, 7, 63] {
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(64, &|_, index| assert_ne!(index, bad));
            }));
            assert!(run.is_err());
        }
        let sum = AtomicUsize::new(0);
        pool.run(10, &|_, index| {
            sum.fetch_add(index, Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}
