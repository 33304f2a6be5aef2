//! What each device is doing, for people to see: one state machine per device, as a value.
//!
//! ```text
//!   Opening --opened--> Ready(epoch) <--answered-- Recovering(epoch)     stopping: -> Draining
//!                        |   ^  `----timed out---->  |                   ended:    -> Gone
//!                        |   `--opened, epoch + 1--. |
//!                        `-------fenced-----------> Fenced(epoch)
//! ```
//!
//! The epoch counts the RADOS clients that have served the device in this process. Whoever looks gets copies: the
//! lock is held for as long as copying takes and nothing is waited for under it.

use crate::kernel::uio::{Instance, UioDevice};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a device that is gone is still shown.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How far a device has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its image is being opened, perhaps for the umpteenth time.
    Opening,
    /// It is served.
    Ready {
        /// The how-manieth client serves it.
        epoch: u64,
    },
    /// It is served, but an operation timed out and none has been answered since.
    Recovering {
        /// The how-manieth client serves it.
        epoch: u64,
    },
    /// Its client was shut out of the cluster, and a new one is being made.
    Fenced {
        /// The how-manieth client it was.
        epoch: u64,
    },
    /// It ends when what is in progress is done.
    Draining,
    /// It is not served any more.
    Gone,
}

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A client has opened the image and serves it.
    Opened,
    /// An operation was not answered in time.
    TimedOut,
    /// Operations are answered again.
    Answered,
    /// The client was shut out.
    Fenced,
    /// It was told to stop.
    Stopping,
    /// Its thread has ended.
    Ended,
}

impl State {
    /// The state after an event; the same if the event means nothing in it.
    pub(super) fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Opening, Event::Opened) => Self::Ready { epoch: 1 },
            (Self::Ready { epoch }, Event::TimedOut) => Self::Recovering { epoch },
            (Self::Recovering { epoch }, Event::Answered) => Self::Ready { epoch },
            (Self::Ready { epoch } | Self::Recovering { epoch }, Event::Fenced) => Self::Fenced { epoch },
            (Self::Fenced { epoch }, Event::Opened) => Self::Ready { epoch: epoch + 1 },
            (Self::Gone, _) | (_, Event::Ended) => Self::Gone,
            (_, Event::Stopping) => Self::Draining,
            _ => self,
        }
    }

    /// Its name, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Ready { .. } => "ready",
            Self::Recovering { .. } => "recovering",
            Self::Fenced { .. } => "fenced",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }

    /// The how-manieth client serves it or did last; 0 before the first.
    pub fn epoch(self) -> u64 {
        match self {
            Self::Ready { epoch } | Self::Recovering { epoch } | Self::Fenced { epoch } => epoch,
            Self::Opening | Self::Draining | Self::Gone => 0,
        }
    }
}

/// A device as it is seen from outside.
#[derive(Clone, Debug)]
pub struct Lun {
    /// `user_N/NAME`.
    pub device: String,
    /// Its configuration string.
    pub config: String,
    /// N of `/dev/uioN`.
    pub minor: u32,
    /// How far it has come.
    pub state: State,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// The last thing that was worth telling about it, in one sentence.
    pub reason: String,
    /// Its size in bytes; 0 until it is known.
    pub size: u64,
    /// Nobody works on it any more, since then.
    left: Option<Instant>,
}

/// The devices of this host, as they are seen from outside.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<HashMap<Instance, Lun>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<Instance, Lun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device has appeared.
    pub(super) fn enter(&self, uio: &UioDevice) {
        let lun = Lun {
            device: uio.name.to_string(),
            config: uio.name.config.clone(),
            minor: uio.minor,
            state: State::Opening,
            since: SystemTime::now(),
            reason: "its image is being opened".to_owned(),
            size: 0,
            left: None,
        };
        self.enter_as(uio.instance, lun);
    }

    fn enter_as(&self, instance: Instance, lun: Lun) {
        let mut luns = self.lock();
        luns.retain(|_, lun| lun.left.is_none_or(|left| left.elapsed() < REMEMBERED));
        luns.insert(instance, lun);
    }

    /// Somebody goes on with a device that was left: another attempt to open it, or a device whose thread failed.
    pub(super) fn resume(&self, instance: Instance) {
        if let Some(lun) = self.lock().get_mut(&instance)
            && lun.left.take().is_some()
            && lun.state == State::Gone
        {
            (lun.state, lun.since) = (State::Opening, SystemTime::now());
        }
    }

    /// Nobody works on a device any more, for now or for ever.
    pub(super) fn leave(&self, instance: Instance) {
        if let Some(lun) = self.lock().get_mut(&instance) {
            lun.left = Some(Instant::now());
            if lun.state != State::Opening {
                lun.enter(lun.state.after(Event::Ended));
            }
        }
    }

    /// Something happened to a device, and why.
    pub(super) fn tell(&self, instance: Instance, event: Event, reason: impl Into<String>) {
        if let Some(lun) = self.lock().get_mut(&instance) {
            lun.enter(lun.state.after(event));
            lun.reason = reason.into();
        }
    }

    /// There is something to say of a device, whatever its state.
    pub(super) fn remark(&self, instance: Instance, reason: impl Into<String>) {
        if let Some(lun) = self.lock().get_mut(&instance) {
            lun.reason = reason.into();
        }
    }

    /// A device has this size.
    pub(super) fn sized(&self, instance: Instance, size: u64) {
        if let Some(lun) = self.lock().get_mut(&instance) {
            lun.size = size;
        }
    }

    /// A copy of all that is to be seen, in the order of names.
    pub(super) fn luns(&self) -> Vec<Lun> {
        let mut luns: Vec<_> = self.lock().values().filter(|lun| lun.is_shown()).cloned().collect();
        luns.sort_by(|a, b| a.device.cmp(&b.device).then(a.since.cmp(&b.since)));
        luns
    }
}

impl Lun {
    fn enter(&mut self, state: State) {
        if state != self.state {
            (self.state, self.since) = (state, SystemTime::now());
        }
    }

    fn is_shown(&self) -> bool {
        match self.left {
            None => true,
            Some(left) => self.state == State::Gone && left.elapsed() < REMEMBERED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Instance = Instance { minor: 3, inode: 100 };

    fn after(events: &[Event]) -> State {
        events.iter().fold(State::Opening, |state, event| state.after(*event))
    }

    #[test]
    fn a_client_that_is_replaced_begins_an_epoch() {
        use Event::{Answered, Fenced, Opened, TimedOut};
        assert_eq!(after(&[Opened]), State::Ready { epoch: 1 });
        assert_eq!(after(&[Opened, TimedOut]), State::Recovering { epoch: 1 });
        assert_eq!(after(&[Opened, TimedOut, Answered]), State::Ready { epoch: 1 });
        assert_eq!(after(&[Opened, TimedOut, Fenced]), State::Fenced { epoch: 1 });
        assert_eq!(after(&[Opened, Fenced, Opened]), State::Ready { epoch: 2 });
        assert_eq!(after(&[Opened, Fenced, Opened, Fenced, Opened]), State::Ready { epoch: 3 });
    }

    #[test]
    fn an_event_that_comes_too_late_changes_nothing() {
        use Event::{Answered, Ended, Fenced, Opened, Stopping, TimedOut};
        assert_eq!(after(&[TimedOut]), State::Opening);
        assert_eq!(after(&[Opened, Fenced, TimedOut, Answered]), State::Fenced { epoch: 1 });
        for event in [Opened, TimedOut, Answered, Fenced, Stopping] {
            assert_eq!(after(&[Opened, Stopping, event]), State::Draining, "{event:?}");
            assert_eq!(after(&[Opened, Ended, event]), State::Gone, "{event:?}");
        }
        assert_eq!(after(&[Opened, Stopping, Ended]), State::Gone);
    }

    fn board() -> Board {
        let board = Board::default();
        let lun = Lun {
            device: "user_0/a".into(),
            config: "rbd/p/i".into(),
            minor: 3,
            state: State::Opening,
            since: SystemTime::UNIX_EPOCH,
            reason: String::new(),
            size: 0,
            left: None,
        };
        board.enter_as(DEVICE, lun);
        board
    }

    /// Else the time since when a LUN has not come up would begin anew every half minute.
    #[test]
    fn another_attempt_is_the_same_opening() {
        let board = board();
        board.leave(DEVICE);
        assert!(board.luns().is_empty(), "nobody opens it");
        board.remark(DEVICE, "no monitor");
        board.resume(DEVICE);
        let lun = &board.luns()[0];
        assert_eq!((lun.state, lun.since), (State::Opening, SystemTime::UNIX_EPOCH));
        assert_eq!(lun.reason, "no monitor");
    }

    #[test]
    fn a_device_that_ended_is_shown_as_gone_and_may_be_opened_again() {
        let board = board();
        board.tell(DEVICE, Event::Opened, "opened");
        assert!(board.luns()[0].since > SystemTime::UNIX_EPOCH);
        board.leave(DEVICE);
        assert_eq!(board.luns()[0].state, State::Gone);
        board.resume(DEVICE);
        assert_eq!(board.luns()[0].state, State::Opening);
        board.tell(DEVICE, Event::Opened, "opened");
        assert_eq!(board.luns()[0].state, State::Ready { epoch: 1 });
    }
}
