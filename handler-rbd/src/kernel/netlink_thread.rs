//! The thread that hears the kernel's events.
//!
//! Nothing else runs on it, so no device's slowness delays another's events. The handler must hand
//! slow work elsewhere and return; it gets each event once, with the duty to answer it. A handler
//! that panics costs its event an EIO and nothing more.
//!
//! When events were lost, or one cannot be answered, somebody in the kernel may wait for ever. Then
//! the thread blocks the interface, resets it, forgets every event so far ([`Requests::forget`]),
//! calls `rescan` to look at the devices anew, and unblocks. Answers still owed are void then: an
//! addition in progress has failed, whatever its worker finds.

use super::event::{Event, EventError};
use super::module::Module;
use super::netlink::{NetlinkError, Received, Requests, TcmuNetlink};
use super::responder::{Answers, Responder};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const STOP: u64 = 0;
const EVENTS: u64 = 1;
/// Between attempts to receive on a socket that fails.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// The thread beats at least this often, also when nothing happens.
const BEAT: u16 = 5000; // ms

/// Handle of the thread; dropping it stops the thread.
#[derive(Debug)]
pub struct NetlinkThread {
    stop: Arc<EventFd>,
    beats: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl NetlinkThread {
    /// Joins the event group and starts the thread.
    pub fn spawn<H, R>(link: TcmuNetlink, module: Module, handler: H, rescan: R) -> Result<Self, NetlinkError>
    where
        H: FnMut(Event, Responder) + Send + 'static,
        R: FnMut() + Send + 'static,
    {
        link.join()?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = Arc::new(EventFd::from_flags(flags).map_err(|errno| failed("make a way to stop", errno))?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .and_then(|epoll| {
                epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
                epoll.add(&link, EpollEvent::new(EpollFlags::EPOLLIN, EVENTS))?;
                Ok(epoll)
            })
            .map_err(|errno| failed("poll", errno))?;
        let requests = link.requests();
        let mut dispatch = Dispatch { answers: requests.clone(), handler };
        let mut recovery = Recovery { module, requests, rescan };
        let beats = Arc::new(AtomicU64::new(0));
        let beat = beats.clone();
        let thread = std::thread::Builder::new()
            .name("netlink".to_owned())
            .spawn(move || listen(link, &epoll, &beat, &mut dispatch, &mut recovery))
            .map_err(|source| NetlinkError::Socket { action: "start a thread for", source })?;
        Ok(NetlinkThread { stop, beats, thread: Some(thread) })
    }

    /// How often the thread has come round; goes up every few seconds for as long as events are heard.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Stops the thread and waits for its end. Answers that are still owed can be given afterwards.
    pub fn stop(self) {}
}

impl Drop for NetlinkThread {
    fn drop(&mut self) {
        if let Err(error) = self.stop.write(1) {
            tracing::error!(%error, "cannot stop the netlink thread");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the netlink thread panicked");
        }
    }
}

/// Runs until it is told to stop.
fn listen<H, R>(
    mut link: TcmuNetlink,
    epoll: &Epoll,
    beats: &AtomicU64,
    dispatch: &mut Dispatch<H>,
    recovery: &mut Recovery<R>,
) where
    H: FnMut(Event, Responder),
    R: FnMut(),
{
    let mut ready = [EpollEvent::empty(); 2];
    loop {
        beats.fetch_add(1, Ordering::Relaxed);
        let count = match epoll.wait(&mut ready, EpollTimeout::from(BEAT)) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => {
                tracing::error!(%error, "cannot poll the netlink socket; events are no longer heard");
                return;
            }
        };
        if ready[..count].iter().any(|event| event.data() == STOP) {
            return;
        }
        if count == 0 {
            continue;
        }
        if drain(&mut link, dispatch) {
            recovery.run(&mut link);
        }
    }
}

/// Receives all there is, and says whether events were lost. The kernel reports the next loss only
/// after the queue has been empty.
fn drain<H: FnMut(Event, Responder)>(link: &mut TcmuNetlink, dispatch: &mut Dispatch<H>) -> bool {
    let mut lost = false;
    loop {
        match link.recv() {
            Ok(Received::Events(events)) => lost |= dispatch.events(events),
            Ok(Received::Overrun) => {
                tracing::error!("the kernel's events came faster than they were heard; some are lost");
                lost = true;
            }
            Ok(Received::WouldBlock) => return lost,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot receive events");
                std::thread::sleep(FAILURE_PAUSE);
                return true;
            }
        }
    }
}

/// What is done when events were lost.
#[derive(Debug)]
struct Recovery<R> {
    module: Module,
    requests: Arc<Requests>,
    rescan: R,
}

impl<R: FnMut()> Recovery<R> {
    fn run(&mut self, link: &mut TcmuNetlink) {
        let reset = self.module.block_netlink(true).and_then(|()| self.module.reset_netlink());
        if let Err(error) = reset {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot free those who wait for lost events"
            );
        }
        // While the interface is blocked nobody begins to wait, so all of these are void.
        link.discard();
        self.requests.forget();
        let rescan = &mut self.rescan;
        if catch_unwind(AssertUnwindSafe(rescan)).is_err() {
            tracing::error!("the rescan after lost events panicked");
        }
        if let Err(error) = self.module.block_netlink(false) {
            tracing::error!(error = &error as &dyn std::error::Error, "devices cannot be added");
        }
    }
}

/// What is done with events.
#[derive(Debug)]
struct Dispatch<H> {
    answers: Arc<dyn Answers>,
    handler: H,
}

impl<H: FnMut(Event, Responder)> Dispatch<H> {
    /// Hands events on, and says whether one of them cannot be answered.
    fn events(&mut self, events: Vec<Result<Event, EventError>>) -> bool {
        let mut lost = false;
        for event in events {
            match event {
                Ok(event) => self.event(event),
                Err(error) => lost |= !self.refuse(&error),
            }
        }
        lost
    }

    fn event(&mut self, event: Event) {
        let responder = Responder::new(&event, self.answers.clone());
        let device = event.device.to_string();
        let handler = &mut self.handler;
        if catch_unwind(AssertUnwindSafe(|| handler(event, responder))).is_err() {
            tracing::error!(device, "the handler of an event panicked");
        }
    }

    /// Answers an event that cannot be understood; `false` if it says not whom to answer.
    fn refuse(&mut self, error: &EventError) -> bool {
        tracing::error!(error = error as &dyn std::error::Error, "an event cannot be understood");
        let Some(owed) = error.owed else { return false };
        let answered = self.answers.answer(self.answers.epoch(), owed, Err(Errno::EINVAL));
        if let Err(error) = answered {
            tracing::error!(error = &error as &dyn std::error::Error, "and cannot be answered");
        }
        true
    }
}

fn failed(action: &'static str, errno: Errno) -> NetlinkError {
    NetlinkError::Socket { action, source: io::Error::from(errno) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::DeviceName;
    use crate::kernel::event::{DeviceId, Done, EventKind, Fault, Owed};
    use crate::kernel::responder::tests::Notebook;

    fn event(device_id: u32) -> Event {
        let device = DeviceName { hba: 0, name: "d".into(), config: "rbd/p/i".into() };
        Event { kind: EventKind::Added, device, minor: 3, device_id: DeviceId(device_id) }
    }

    #[test]
    fn each_event_is_answered_even_if_the_handler_panics() {
        let notebook = Arc::new(Notebook::default());
        let handler = |event: Event, responder: Responder| {
            assert_ne!(event.device_id, DeviceId(2), "on purpose");
            assert!(responder.done(Ok(())));
        };
        let mut dispatch = Dispatch { answers: notebook.clone(), handler };

        let lost = dispatch.events(vec![Ok(event(1)), Ok(event(2)), Ok(event(3))]);

        assert!(!lost);

        assert_eq!(
            notebook.answers(),
            [(Done::Added, 1, Ok(())), (Done::Added, 2, Err(Errno::EIO)), (Done::Added, 3, Ok(())),]
        );
    }

    #[test]
    fn broken_events_are_answered_or_reported_as_lost() {
        let notebook = Arc::new(Notebook::default());
        let mut dispatch = Dispatch { answers: notebook.clone(), handler: |_, _| {} };
        let broken = |owed| vec![Err(EventError { owed, fault: Fault::Truncated })];

        let answerable = Owed { done: Done::Removed, device_id: DeviceId(9) };
        assert!(!dispatch.events(broken(Some(answerable))));
        assert!(dispatch.events(broken(None)));

        assert_eq!(notebook.answers(), [(Done::Removed, 9, Err(Errno::EINVAL))]);
    }
}
