//! What [`Waker`](super::waker::Waker) is made of. `tests/waker_loom.rs` puts loom's in its place.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};

/// An eventfd that is only ever written; whoever waits on it waits for edges.
pub(super) struct Event(EventFd);

impl Event {
    pub(super) fn new() -> nix::Result<Self> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Self)
    }

    pub(super) fn set(&self) {
        // Fails only if the counter would overflow, and then the owner has an edge pending already.
        let _ = self.0.write(1);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
