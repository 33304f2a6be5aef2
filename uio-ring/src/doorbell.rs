//! The UIO file: readable when the kernel has queued something, written to when we have completed something.

use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The open UIO device.
///
/// Register it edge-triggered: every event of the kernel (`uio_event_notify`) is an edge, whether or not
/// the event counter was read in between, so the counter is hardly ever read. After an edge, consume until
/// the ring is empty; an event that comes meanwhile is the next edge. What was queued before the file was
/// opened makes no edge at all: look at the ring once before the first wait.
///
/// Hardly ever: the file is readable while the counter differs from the one read last. It has 32 bits, so
/// an edge would be lost once in 2^32 events. [`Ring`](crate::Ring) reads it long before.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// Takes the open `/dev/uioN`.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Has the kernel process what was published. It copies read data out and frees ring, ids and pages
    /// before the call returns (target_core_user.c, `tcmu_irqcontrol`).
    pub(crate) fn kick(&self) -> io::Result<()> {
        loop {
            match nix::unistd::write(&self.0, &1u32.to_ne_bytes()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Doorbell {
    /// Reads the event counter, without waiting. The edge of an event that came before is lost by this: look
    /// at the ring afterwards.
    pub(crate) fn read(&self) -> io::Result<()> {
        match nix::unistd::read(&self.0, &mut [0; 4]) {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
