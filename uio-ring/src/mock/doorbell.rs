//! `/dev/uioN` without the device: a `SOCK_SEQPACKET` pair that moves exactly four bytes.
//!
//! The user end supports what the character device does: `read` of 4 bytes returns the event
//! counter, `write` of 4 bytes kicks, poll and epoll (edge-triggered as well) work. At most one
//! unread message exists, because the model keeps a duplicate of the user end and drains it before
//! it sends the new counter: events coalesce and each one is a fresh edge.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

const KICK: u64 = 0;
const STOP: u64 = 1;

/// The kernel's end of the device file.
#[derive(Debug)]
pub(super) struct Doorbell {
    pair: Option<Pair>,
    events: u32,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct Pair {
    kernel: OwnedFd,
    user: OwnedFd,
}

/// What user space wrote since the last look.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Kicks {
    /// Number of writes.
    pub(super) count: u64,
    /// The length of a write that was not 4 bytes.
    pub(super) odd_len: Option<usize>,
}

impl Doorbell {
    /// A device that nobody has opened.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { pair: None, events: 0, watch: Arc::new(Watch::new()?) })
    }

    /// Opens the device. Events of the past are not reported to the new opener; an earlier opener
    /// sees end of file.
    pub(super) fn open(&mut self) -> io::Result<OwnedFd> {
        let (kernel, user) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        self.watch.epoll.add(&kernel, EpollEvent::new(EpollFlags::EPOLLIN, KICK))?;
        let theirs = user.try_clone()?;
        self.pair = Some(Pair { kernel, user });
        Ok(theirs)
    }

    /// Counts an event and wakes the opener.
    pub(super) fn notify(&mut self) {
        self.events = self.events.wrapping_add(1);
        let Some(pair) = &self.pair else { return };
        drain(&pair.user);
        let sent = send(pair.kernel.as_raw_fd(), &self.events.to_ne_bytes(), MsgFlags::MSG_DONTWAIT);
        sent.expect("one message fits into an empty socket");
    }

    /// Collects the writes of user space.
    pub(super) fn take_kicks(&self) -> Kicks {
        match &self.pair {
            Some(pair) => drain(&pair.kernel),
            None => Kicks::default(),
        }
    }

    /// Events so far.
    pub(super) fn events(&self) -> u32 {
        self.events
    }

    /// Unregisters the device: the opener's descriptor stays open and hangs up.
    pub(super) fn hang_up(&mut self) {
        if let Some(pair) = self.pair.take() {
            drain(&pair.user);
        }
    }

    /// What the pumping thread waits on, whoever opens the device in the meantime.
    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }
}

fn drain(fd: &OwnedFd) -> Kicks {
    let mut kicks = Kicks::default();
    let mut message = [0; 8];
    loop {
        match recv(fd.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(4) => {}
            Ok(0) | Err(Errno::EAGAIN) => return kicks,
            Ok(len) => kicks.odd_len = Some(len),
            Err(Errno::EINTR) => continue,
            Err(error) => panic!("model bug: recv on the doorbell: {error}"),
        }
        kicks.count += 1;
    }
}

/// Lets a thread sleep until user space kicks.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: Epoll,
    stop: EventFd,
}

impl Watch {
    fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        Ok(Self { epoll, stop })
    }

    /// Sleeps for a kick, at most `timeout`; false when the thread is to end.
    pub(super) fn wait(&self, timeout: EpollTimeout) -> bool {
        let mut events = [EpollEvent::empty(); 2];
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => panic!("model bug: epoll_wait on the doorbell: {error}"),
        };
        let stopped = events[..ready].iter().any(|event| event.data() == STOP);
        if stopped {
            self.stop.read().expect("the event that was just reported");
        }
        !stopped
    }

    /// Ends one [`wait`](Self::wait).
    pub(super) fn stop(&self) {
        self.stop.write(1).expect("a counter far from overflow");
    }
}
