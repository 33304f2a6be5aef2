//! How finished requests, from any thread, reach the one thread that owns the device.
//!
//! Producers push and, only if the owner sleeps, ring an eventfd. The hand-shake is Dekker's: the owner
//! announces sleep, then looks again; a producer pushes, then looks whether the owner sleeps. A SeqCst
//! fence between the two steps on both sides makes it impossible that both miss each other.

use super::Request;
use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Wakes a device thread that sleeps on [`Waker::as_fd`]; costs nothing while it is awake.
///
/// Registered edge-triggered, so the eventfd is never read.
pub struct Waker {
    asleep: AtomicBool,
    event: EventFd,
}

impl Waker {
    /// A waker whose owner is awake.
    pub fn new() -> nix::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { asleep: AtomicBool::new(false), event })
    }

    /// For producers, after they have made their news visible.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // Fails only if the counter would overflow, and then the owner has an edge pending already.
            let _ = self.event.write(1);
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

/// The queue of finished requests of one device.
#[derive(Debug)]
pub struct Completions {
    queue: ArrayQueue<Box<Request>>,
    waker: Arc<Waker>,
}

impl Completions {
    /// A queue for a device that never has more than `capacity` requests out.
    pub fn new(capacity: usize, waker: Arc<Waker>) -> Arc<Self> {
        Arc::new(Self { queue: ArrayQueue::new(capacity), waker })
    }

    /// Hands a finished request to the device.
    pub(super) fn push(&self, request: Box<Request>) {
        if let Err(request) = self.queue.push(request) {
            // The device counts its requests against the capacity, so this cannot happen; if it does,
            // losing the box would lose a command, so it is kept and the defect shouted.
            tracing::error!(
                ?request,
                "completion queue overflowed: more requests out than the device allows"
            );
            std::mem::forget(request);
        }
        self.waker.wake();
    }

    /// Takes one finished request.
    pub fn pop(&self) -> Option<Box<Request>> {
        self.queue.pop()
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
