//! The duty to answer one event.
//!
//! Each event comes with one [`Responder`]. [`Responder::done`] consumes it; dropped unanswered
//! (a panic, a forgotten path) it answers -EIO and says so in the log. So the kernel hears exactly
//! one answer, of the right type, whatever happens. A positive status, which the kernel would take
//! for success of a write, cannot be expressed.

use super::event::{DeviceId, Done, Event};
use super::netlink::NetlinkError;
use nix::errno::Errno;
use std::fmt;
use std::sync::Arc;

/// Where answers go: the kernel, or a test's notebook.
pub trait Answers: Send + Sync + fmt::Debug {
    /// Gives the kernel one answer.
    fn answer(&self, done: Done, device_id: DeviceId, status: Result<(), Errno>) -> Result<(), NetlinkError>;
}

/// An answer that is owed. It can be sent to another thread.
#[must_use = "the kernel waits for the answer"]
#[derive(Debug)]
pub struct Responder {
    answers: Arc<dyn Answers>,
    done: Done,
    device_id: DeviceId,
    device: String,
    answered: bool,
}

impl Responder {
    /// The duty that comes with `event`.
    pub fn new(event: &Event, answers: Arc<dyn Answers>) -> Self {
        Responder {
            answers,
            done: event.done(),
            device_id: event.device_id,
            device: event.device.to_string(),
            answered: false,
        }
    }

    /// Answers: success, or the errno that the administrator's command fails with.
    pub fn done(mut self, status: Result<(), Errno>) {
        self.send(status);
    }

    fn send(&mut self, status: Result<(), Errno>) {
        self.answered = true;
        let Responder { answers, done, device_id, device, .. } = self;
        match answers.answer(*done, *device_id, status) {
            Ok(()) => {}
            // The task was freed by a reset, or the device was made while nobody answered events.
            Err(NetlinkError::Refused { errno: Errno::ENODEV, .. }) => {
                tracing::debug!(%device, ?done, "nobody waits for the answer");
            }
            Err(error) => tracing::error!(
                %device,
                ?done,
                error = &error as &dyn std::error::Error,
                "the kernel did not take the answer: the command that waits for it needs a restart of this daemon"
            ),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            tracing::error!(device = %self.device, done = ?self.done, "an event was left unanswered; answering EIO");
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
    use crate::kernel::event::EventKind;
    use std::sync::Mutex;

    type Answer = (Done, DeviceId, Result<(), Errno>);

    /// Writes answers down.
    #[derive(Debug, Default)]
    pub(crate) struct Notebook(pub(crate) Mutex<Vec<Answer>>);

    impl Answers for Notebook {
        fn answer(
            &self,
            done: Done,
            device_id: DeviceId,
            status: Result<(), Errno>,
        ) -> Result<(), NetlinkError> {
            self.0.lock().unwrap().push((done, device_id, status));
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
        Responder::new(&event(EventKind::Added), notebook.clone()).done(Ok(()));
        Responder::new(&event(EventKind::Removed), notebook.clone()).done(Err(Errno::ENOENT));
        assert_eq!(
            *notebook.0.lock().unwrap(),
            [(Done::Added, DeviceId(7), Ok(())), (Done::Removed, DeviceId(7), Err(Errno::ENOENT))]
        );
    }

    #[test]
    fn dropped_is_answered_with_eio() {
        let notebook = Arc::new(Notebook::default());
        drop(Responder::new(&event(EventKind::Removed), notebook.clone()));
        assert_eq!(*notebook.0.lock().unwrap(), [(Done::Removed, DeviceId(7), Err(Errno::EIO))]);
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
        assert_eq!(*notebook.0.lock().unwrap(), [(Done::Added, DeviceId(7), Err(Errno::EIO))]);
    }

    #[test]
    fn status_is_never_positive() {
        assert_eq!(wire_status(Ok(())), 0);
        assert_eq!(wire_status(Err(Errno::ENOENT)), -2);
        assert_eq!(wire_status(Err(Errno::UnknownErrno)), -5);
    }
}
