//! Waking the one thread that owns a device, only if it sleeps.
//!
//! The hand-shake is Dekker's: the owner announces sleep, then looks again; a producer makes its news
//! visible, then looks whether the owner sleeps. A SeqCst fence between the two steps on both sides makes it
//! impossible that both miss each other.

use super::sync::{AtomicBool, Event, Ordering, fence};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

/// Wakes a device thread that sleeps on [`Waker::as_fd`]; costs nothing while it is awake.
///
/// Registered edge-triggered, so the eventfd is never read.
pub struct Waker {
    asleep: AtomicBool,
    event: Event,
}

impl Waker {
    /// A waker whose owner is awake.
    pub fn new() -> nix::Result<Self> {
        Ok(Self { asleep: AtomicBool::new(false), event: Event::new()? })
    }

    /// For producers, after they have made their news visible.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.event.set();
        }
    }

    /// For the owner: announces sleep. It must look for news once more before it sleeps, and call
    /// [`Waker::awake`] afterwards.
    pub fn going_to_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// For the owner: no wake-up is needed until the next announcement.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("asleep", &self.asleep).finish_non_exhaustive()
    }
}
