//! A timerfd in the I/O runtime: wakes to the microsecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::io::unix::AsyncFd;

use super::now;

/// One timerfd that wakes whoever's time has come.
pub struct Clock {
    timer: AsyncFd<OwnedFd>,
    sleepers: Mutex<BinaryHeap<Reverse<Sleeper>>>,
}

/// A task and when it wants to be woken.
struct Sleeper {
    due: u64,
    waker: Waker,
}

impl Clock {
    /// A clock, and the task that runs it on the current runtime.
    ///
    /// # Errors
    /// If the system has no timer to give.
    pub fn start() -> io::Result<Arc<Self>> {
        // SAFETY: a system call without pointers.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, nobody else has it, and it stays the same while it is owned here.
        let timer = unsafe { AsyncFd::register(OwnedFd::from_raw_fd(fd)) }.map_err(io::Error::from)?;
        let clock = Arc::new(Self {
            timer,
            sleepers: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&clock).run());
        Ok(clock)
    }

    /// Returns at `due` (as [`now`] counts) or as soon after as the system schedules us.
    pub async fn sleep_until(&self, due: u64) {
        let mut enlisted = false;
        std::future::poll_fn(|cx| {
            if now() >= due {
                return Poll::Ready(());
            }
            // A task that is polled early, by another event, is in the list already.
            if !enlisted {
                enlisted = true;
                self.enlist(Sleeper {
                    due,
                    waker: cx.waker().clone(),
                });
            }
            Poll::Pending
        })
        .await;
        tokio::task::consume_budget().await;
    }

    fn enlist(&self, sleeper: Sleeper) {
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_next = sleepers.peek().is_none_or(|Reverse(next)| sleeper.due < next.due);
        if is_next {
            self.arm(sleeper.due);
        }
        sleepers.push(Reverse(sleeper));
    }

    fn arm(&self, due: u64) {
        let value = libc::timespec {
            tv_sec: (due / 1_000_000_000) as _,
            tv_nsec: (due % 1_000_000_000) as _,
        };
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        let fd = self.timer.get_ref().as_raw_fd();
        // SAFETY: the descriptor is our timer, the pointer is to a value of our own, null is allowed for the old one.
        unsafe { libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &spec, std::ptr::null_mut()) };
    }

    async fn run(self: Arc<Self>) {
        let mut due_now = Vec::new();
        while let Ok(mut ready) = self.timer.readable().await {
            let mut expirations = 0_u64;
            let fd = ready.get_inner().as_raw_fd();
            // SAFETY: a timerfd is read by 8 bytes, and there is room for 8.
            unsafe { libc::read(fd, (&raw mut expirations).cast(), 8) };
            ready.clear_ready();
            let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
            let time = now();
            while sleepers.peek().is_some_and(|Reverse(next)| next.due <= time) {
                due_now.extend(sleepers.pop());
            }
            if let Some(Reverse(next)) = sleepers.peek() {
                self.arm(next.due);
            }
            drop(sleepers);
            due_now
                .drain(..)
                .for_each(|Reverse(sleeper)| sleeper.waker.wake());
        }
    }
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Sleeper {}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
