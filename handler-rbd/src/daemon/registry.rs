//! Which devices there are and how far each has come. One lock, held for look-ups only.
//!
//! A device is `Opening` until its image is open, then `Attaching` while its ring is mapped, then `Serving`.
//! Opening can be given up at any time (the administrator's command timed out, the device was removed):
//! whoever opens must ask for the next state and is told if nobody wants the device any more. From
//! `Attaching` on there is no way back but to serve and stop.
//!
//! The kernel reuses minors at once, also while an old device of the same minor is still being closed; so
//! devices are told apart by [`Instance`].

use super::state::{Board, Event};
use crate::device::{Handle, Message};
use crate::kernel::uio::Instance;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
enum State {
    Opening,
    Attaching {
        /// It was removed meanwhile.
        departed: bool,
    },
    Serving {
        name: String,
        handle: Arc<Handle>,
    },
}

#[derive(Debug, Default)]
struct Devices {
    number: u64,
    closed: bool,
    by_instance: HashMap<Instance, (u64, State)>,
}

impl Devices {
    fn state_of(&mut self, ticket: Ticket) -> Option<&mut State> {
        let (number, state) = self.by_instance.get_mut(&ticket.instance)?;
        (*number == ticket.number).then_some(state)
    }
}

/// The devices of this host.
#[derive(Debug, Default)]
pub(super) struct Registry {
    devices: Mutex<Devices>,
    board: Board,
}

/// The task of bringing one device into service. Dropped, by a failure, a panic or the device's end, the
/// device is no longer there.
#[derive(Debug)]
pub(super) struct Claim {
    registry: Arc<Registry>,
    ticket: Ticket,
}

/// Which claim a device is served under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    instance: Instance,
    number: u64,
}

/// How to stop a device.
#[derive(Debug)]
pub(super) enum Departure {
    /// It is not known.
    Unknown,
    /// It was still opening; whoever opens it will find that nobody wants it.
    GivenUp,
    /// It is served: stop it.
    Serving(Arc<Handle>),
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be seen of the devices from outside.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// A device that is to be opened. `None`: somebody is at it already, or will be after our end.
    pub(super) fn begin(self: &Arc<Self>, instance: Instance) -> Option<Claim> {
        let mut devices = self.lock();
        if devices.closed || devices.by_instance.contains_key(&instance) {
            return None;
        }
        devices.number += 1;
        let number = devices.number;
        devices.by_instance.insert(instance, (number, State::Opening));
        drop(devices);
        self.board.resume(instance);
        Some(Claim { registry: self.clone(), ticket: Ticket { instance, number } })
    }

    /// The device's thread runs. Void if it has ended already; if the device was removed meanwhile, the
    /// thread is told.
    pub(super) fn serve(&self, ticket: Ticket, name: String, handle: Handle) {
        if let Some(state) = self.lock().state_of(ticket) {
            if matches!(state, State::Attaching { departed: true }) {
                handle.send(Message::Stop);
            }
            *state = State::Serving { name, handle: Arc::new(handle) };
        }
    }

    /// Gives a device up that is still opening. False if it is past that.
    pub(super) fn give_up(&self, instance: Instance) -> bool {
        let mut devices = self.lock();
        let opening = matches!(devices.by_instance.get(&instance), Some((_, State::Opening)));
        if opening {
            devices.by_instance.remove(&instance);
            self.board.leave(instance);
        }
        opening
    }

    /// Takes a device out of opening, or says how to reach it. Does not wait: whoever attaches it may itself
    /// wait for the removal that this is for (`rmdir` holds the directory of the files it reads).
    pub(super) fn depart(&self, instance: Instance) -> Departure {
        let mut devices = self.lock();
        match devices.by_instance.get_mut(&instance) {
            None => Departure::Unknown,
            Some((_, State::Serving { handle, .. })) => {
                self.board.tell(
                    instance,
                    Event::Stopping,
                    "waits for commands in progress, then its image is closed",
                );
                Departure::Serving(handle.clone())
            }
            Some((_, State::Attaching { departed })) => {
                *departed = true;
                Departure::GivenUp
            }
            Some((_, State::Opening)) => {
                devices.by_instance.remove(&instance);
                self.board.leave(instance);
                Departure::GivenUp
            }
        }
    }

    /// The device, if it is served.
    pub(super) fn serving(&self, instance: Instance) -> Option<Arc<Handle>> {
        match self.lock().by_instance.get(&instance) {
            Some((_, State::Serving { handle, .. })) => Some(handle.clone()),
            _ => None,
        }
    }

    /// How often the thread of each device that is served has come round; and how many are not open yet. One whose image is
    /// being closed waits for its cluster, and is not stuck: else the watchdog would end the daemon, and with it all others.
    pub(super) fn beats(&self) -> (Vec<(String, u64)>, usize) {
        let (mut beats, mut others) = (Vec::new(), 0);
        for (_, state) in self.lock().by_instance.values() {
            match state {
                State::Serving { handle, .. } if handle.is_closing() => {}
                State::Serving { name, handle } => beats.push((name.clone(), handle.beats())),
                State::Opening | State::Attaching { .. } => others += 1,
            }
        }
        (beats, others)
    }

    /// All devices, to be ended. None begins any more: whoever were to take one on now would leave it to nobody.
    pub(super) fn close(&self) -> Vec<Instance> {
        let mut devices = self.lock();
        devices.closed = true;
        devices.by_instance.keys().copied().collect()
    }
}

impl Claim {
    fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.registry.lock().state_of(self.ticket).map(change)
    }

    /// Whether the device is still waited for.
    pub(super) fn is_wanted(&self) -> bool {
        self.with_state(|_| ()).is_some()
    }

    /// The image is open: may the device be attached? False if it was given up meanwhile.
    pub(super) fn attach(&self) -> bool {
        self.with_state(|state| *state = State::Attaching { departed: false }).is_some()
    }

    /// What to enter the device's thread under, which the claim itself goes to.
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let instance = self.ticket.instance;
        let mut devices = self.registry.lock();
        if devices.state_of(self.ticket).is_some() {
            devices.by_instance.remove(&instance);
        }
        // Not if somebody else has begun with it since.
        if !devices.by_instance.contains_key(&instance) {
            self.registry.board.leave(instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Backend;
    use crate::block::memory::Memory;
    use crate::device::{Exit, Served};
    use crate::lun::{Geometry, LogicalUnit};
    use std::time::Duration;
    use uio_ring::mock::{MockConfig, MockKernel};
    use uio_ring::{Doorbell, Mapping, Ring};

    const FIRST: Instance = Instance { minor: 3, inode: 100 };

    #[test]
    fn a_device_that_was_given_up_is_not_attached() {
        let registry = Arc::new(Registry::default());
        let claim = registry.begin(FIRST).unwrap();
        assert!(claim.is_wanted());
        assert!(registry.give_up(FIRST));
        assert!(!claim.is_wanted());
        assert!(!claim.attach());
        assert!(matches!(registry.depart(FIRST), Departure::Unknown));
    }

    #[test]
    fn an_attaching_device_cannot_be_given_up_but_can_fail() {
        let registry = Arc::new(Registry::default());
        let claim = registry.begin(FIRST).unwrap();
        assert!(claim.attach());
        assert!(!registry.give_up(FIRST));
        assert!(registry.begin(FIRST).is_none());
        drop(claim);
        assert!(matches!(registry.depart(FIRST), Departure::Unknown));
    }

    /// Whoever attaches may wait for the very removal.
    #[test]
    fn a_removal_does_not_wait_for_an_attaching_device() {
        let registry = Arc::new(Registry::default());
        let claim = registry.begin(FIRST).unwrap();
        assert!(claim.attach());
        assert!(matches!(registry.depart(FIRST), Departure::GivenUp));
        drop(claim);
        assert!(matches!(registry.depart(FIRST), Departure::Unknown));
    }

    /// The kernel gives a minor away while the old device is still being closed.
    #[test]
    fn a_reused_minor_is_another_device() {
        let registry = Arc::new(Registry::default());
        let first = registry.begin(FIRST).unwrap();
        assert!(first.attach());
        let second = registry.begin(Instance { minor: 3, inode: 101 }).unwrap();
        drop(first);
        assert!(second.is_wanted());
        assert_eq!(registry.close(), [Instance { minor: 3, inode: 101 }]);
        assert!(registry.begin(FIRST).is_none(), "the end has begun");
    }

    /// An OSD that is away keeps an image from being closed for a minute. The watchdog is more impatient.
    #[test]
    fn a_device_whose_image_is_being_closed_is_not_stuck() {
        let kernel = MockKernel::new(MockConfig::default()).unwrap();
        let side = kernel.user_side().unwrap();
        let mapping = Mapping::new(&side.memory, side.len).unwrap();
        let ring = Ring::attach(Doorbell::new(side.doorbell), mapping).unwrap();
        let disk = Arc::new(Memory::new(1 << 20));
        let geometry = Geometry { block_size: 512, size: 1 << 20, max_sectors: 128, limits: disk.limits() };
        let served =
            Served::new(ring, LogicalUnit::with_note(geometry, &[]), disk, Arc::new(|| Err(String::new())));
        let (close, closes) = crossbeam_channel::bounded::<()>(0);
        let ended = move |_: &Exit| assert!(closes.recv().is_err());
        let handle = Handle::spawn("device", served.unwrap(), ended).unwrap();
        let registry = Arc::new(Registry::default());
        let claim = registry.begin(FIRST).unwrap();
        assert!(claim.attach());
        registry.serve(claim.ticket(), "user_0/a".into(), handle);
        assert_eq!((registry.beats().0.len(), registry.beats().1), (1, 0));
        let Departure::Serving(handle) = registry.depart(FIRST) else { panic!("it is served") };
        handle.send(Message::Stop);
        while !handle.is_closing() {
            std::thread::yield_now();
        }
        assert_eq!(registry.beats(), (vec![], 0));
        assert!(!handle.wait(Duration::ZERO), "but it has not ended");
        drop(close);
        assert!(handle.wait(Duration::from_secs(30)));
    }

    #[test]
    fn a_late_claim_does_not_end_its_successor() {
        let registry = Arc::new(Registry::default());
        let late = registry.begin(FIRST).unwrap();
        assert!(registry.give_up(FIRST));
        let next = registry.begin(FIRST).unwrap();
        drop(late);
        assert!(next.attach());
    }
}
