//! The duty to answer one event.
//!
//! Each event comes with one [`Responder`]. [`Responder::done`] consumes it; dropped unanswered
//! (a panic, a forgotten path) it answers -EIO and says so in the log. So the kernel hears exactly
//! one answer, of the right type, whatever happens. A positive status, which the kernel would take
//! for success of a write, cannot be expressed. An answer that was owed when the netlink interface
//! was reset is not sent: the kernel would take it for the answer to a later event.

use super::event::{Event, Owed};
use super::netlink::NetlinkError;
use nix::errno::Errno;
use std::fmt;
use std::sync::Arc;

/// Counts resets of the netlink interface. Answers owed in an earlier epoch are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// Where answers go: the kernel, or a test's notebook.
pub trait Answers: Send + Sync + fmt::Debug {
    /// The present epoch.
    fn epoch(&self) -> Epoch;

    /// Gives the kernel one answer, to an event of `epoch`.
    fn answer(&self, epoch: Epoch, owed: Owed, status: Result<(), Errno>) -> Result<(), NetlinkError>;
}

/// An answer that is owed. It can be sent to another thread.
#[must_use = "the kernel waits for the answer"]
#[derive(Debug)]
pub struct Responder {
    answers: Arc<dyn Answers>,
    epoch: Epoch,
    owed: Owed,
    device: String,
    answered: bool,
}

impl Responder {
    /// The duty that comes with `event`.
    pub fn new(event: &Event, answers: Arc<dyn Answers>) -> Self {
        let epoch = answers.epoch();
        Responder { answers, epoch, owed: event.owed(), device: event.device.to_string(), answered: false }
    }

    /// Answers: success, or the errno that the administrator's command fails with. `false` if nobody
    /// waited for it: then only sysfs says whether an added device exists.
    pub fn done(mut self, status: Result<(), Errno>) -> bool {
        self.send(status)
    }

    fn send(&mut self, status: Result<(), Errno>) -> bool {
        self.answered = true;
        let Responder { answers, epoch, owed, device, .. } = self;
        let done = owed.done;
        match answers.answer(*epoch, *owed, status) {
            Ok(()) => true,
            // A reset freed the task, or the kernel does not wait for answers about this device.
            Err(NetlinkError::Late | NetlinkError::Refused { errno: Errno::ENODEV, .. }) => {
                tracing::debug!(%device, ?done, "nobody waits for the answer");
                false
            }
            Err(error) => {
                tracing::error!(
                    %device,
                    ?done,
                    error = &error as &dyn std::error::Error,
                    "the kernel did not take the answer: a command waits for it until this daemon restarts"
                );
                false
            }
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            tracing::error!(device = %self.device, done = ?self.owed.done, "an event was left unanswered; answering EIO");
            self.send(Err(Errno::EIO));
        }
    }
}

/// The status as the kernel takes it: 0 or a negative errno.
pub(super) fn wire_status(status: Result<(), Errno>) -> i32 {
    match status {
        Ok(()) => 0,
        // nix has a value for "no errno", which must not look like success.
        Err(Errno::UnknownErrno) => -libc::EIO,
        Err(errno) => -(errno as i32),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernel::DeviceName;
    use crate::kernel::event::{DeviceId, Done, EventKind};
    use std::sync::Mutex;

    type Answer = (Done, u32, Result<(), Errno>);

    /// Writes answers down.
    #[derive(Debug, Default)]
    pub(crate) struct Notebook(Mutex<Vec<Answer>>);

    impl Notebook {
        pub(crate) fn answers(&self) -> Vec<Answer> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Answers for Notebook {
        fn epoch(&self) -> Epoch {
            Epoch(0)
        }

        fn answer(&self, _: Epoch, owed: Owed, status: Result<(), Errno>) -> Result<(), NetlinkError> {
            self.0.lock().unwrap().push((owed.done, owed.device_id.0, status));
            Ok(())
        }
    }

    fn event(kind: EventKind) -> Event {
        let device = DeviceName { hba: 0, name: "d".into(), config: "rbd/p/i".into() };
        Event { kind, device, minor: 3, device_id: DeviceId(7) }
    }

    #[test]
    fn answers_once() {
        let notebook = Arc::new(Notebook::default());
        assert!(Responder::new(&event(EventKind::Added), notebook.clone()).done(Ok(())));
        assert!(Responder::new(&event(EventKind::Removed), notebook.clone()).done(Err(Errno::ENOENT)));
        assert_eq!(notebook.answers(), [(Done::Added, 7, Ok(())), (Done::Removed, 7, Err(Errno::ENOENT))]);
    }

    #[test]
    fn dropped_is_answered_with_eio() {
        let notebook = Arc::new(Notebook::default());
        drop(Responder::new(&event(EventKind::Removed), notebook.clone()));
        assert_eq!(notebook.answers(), [(Done::Removed, 7, Err(Errno::EIO))]);
    }

    #[test]
    fn answers_across_threads_and_panics() {
        let notebook = Arc::new(Notebook::default());
        let responder = Responder::new(&event(EventKind::Added), notebook.clone());
        let thread = std::thread::spawn(move || {
            let _held = responder;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(notebook.answers(), [(Done::Added, 7, Err(Errno::EIO))]);
    }

    #[test]
    fn status_is_never_positive() {
        assert_eq!(wire_status(Ok(())), 0);
        assert_eq!(wire_status(Err(Errno::ENOENT)), -2);
        assert_eq!(wire_status(Err(Errno::UnknownErrno)), -5);
    }
}
