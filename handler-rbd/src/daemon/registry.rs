//! Which devices there are and how far each has come. One lock, held for look-ups only.
//!
//! A device is `Opening` until its image is open, then `Attaching` while its ring is mapped, then `Serving`.
//! Opening can be given up at any time (the administrator's command timed out, the device was removed):
//! whoever opens must ask for the next state and is told if nobody wants the device any more. From
//! `Attaching` on there is no way back but to serve and stop. Minors are reused by the kernel, so every
//! tenure of one has a number of its own.

use crate::device::Handle;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// One tenure of a minor: N of `/dev/uioN`, and which device of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tenant {
    /// N of `/dev/uioN`.
    pub(super) minor: u32,
    number: u64,
}

#[derive(Debug)]
enum State {
    Opening,
    Attaching,
    Serving(Arc<Handle>),
}

#[derive(Debug, Default)]
struct Devices {
    number: u64,
    by_minor: HashMap<u32, (u64, State)>,
}

/// The devices of this host.
#[derive(Debug, Default)]
pub(super) struct Registry {
    devices: Mutex<Devices>,
    changed: Condvar,
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

    /// A new device that is to be opened. It replaces one of the same minor that was still opening.
    /// `None`: the minor is being served already.
    pub(super) fn begin(&self, minor: u32) -> Option<Tenant> {
        let mut devices = self.lock();
        if let Some((_, State::Attaching | State::Serving(_))) = devices.by_minor.get(&minor) {
            return None;
        }
        devices.number += 1;
        let number = devices.number;
        devices.by_minor.insert(minor, (number, State::Opening));
        Some(Tenant { minor, number })
    }

    /// The image is open: may the device be attached? False if it was given up meanwhile.
    pub(super) fn attach(&self, tenant: Tenant) -> bool {
        match self.lock().by_minor.get_mut(&tenant.minor) {
            Some((number, state @ State::Opening)) if *number == tenant.number => {
                *state = State::Attaching;
                true
            }
            _ => false,
        }
    }

    /// The device could not be attached and is to be tried again.
    pub(super) fn retreat(&self, tenant: Tenant) {
        if let Some((number, state @ State::Attaching)) = self.lock().by_minor.get_mut(&tenant.minor)
            && *number == tenant.number
        {
            *state = State::Opening;
        }
        self.changed.notify_all();
    }

    /// The device's thread runs.
    pub(super) fn serve(&self, tenant: Tenant, handle: Handle) {
        if let Some((number, state)) = self.lock().by_minor.get_mut(&tenant.minor)
            && *number == tenant.number
        {
            *state = State::Serving(Arc::new(handle));
        }
        self.changed.notify_all();
    }

    /// The device has ended, or could not be attached.
    pub(super) fn end(&self, tenant: Tenant) {
        let mut devices = self.lock();
        if devices.by_minor.get(&tenant.minor).is_some_and(|(number, _)| *number == tenant.number) {
            devices.by_minor.remove(&tenant.minor);
        }
        self.changed.notify_all();
    }

    /// Gives a device up that is still opening. False if it is past that.
    pub(super) fn give_up(&self, tenant: Tenant) -> bool {
        let mut devices = self.lock();
        match devices.by_minor.get(&tenant.minor) {
            Some((number, State::Opening)) if *number == tenant.number => {
                devices.by_minor.remove(&tenant.minor);
                true
            }
            _ => false,
        }
    }

    /// Whether a device is still waited for.
    pub(super) fn is_opening(&self, tenant: Tenant) -> bool {
        matches!(self.lock().by_minor.get(&tenant.minor), Some((number, State::Opening)) if *number == tenant.number)
    }

    /// Takes a device out of opening, or says how to reach it. Waits until an attaching one serves.
    pub(super) fn depart(&self, minor: u32) -> Departure {
        let mut devices = self.lock();
        loop {
            match devices.by_minor.get(&minor) {
                None => return Departure::Unknown,
                Some((_, State::Serving(handle))) => return Departure::Serving(handle.clone()),
                Some((_, State::Opening)) => {
                    devices.by_minor.remove(&minor);
                    return Departure::GivenUp;
                }
                Some((_, State::Attaching)) => {
                    devices = self.changed.wait(devices).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The device of `minor`, if it is served.
    pub(super) fn serving(&self, minor: u32) -> Option<Arc<Handle>> {
        match self.lock().by_minor.get(&minor) {
            Some((_, State::Serving(handle))) => Some(handle.clone()),
            _ => None,
        }
    }

    /// The minors of all devices.
    pub(super) fn minors(&self) -> Vec<u32> {
        self.lock().by_minor.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_given_up_is_not_attached() {
        let registry = Registry::default();
        let tenant = registry.begin(3).unwrap();
        assert!(registry.is_opening(tenant));
        assert!(registry.give_up(tenant));
        assert!(!registry.attach(tenant));
        assert!(matches!(registry.depart(3), Departure::Unknown));
    }

    #[test]
    fn an_attaching_device_cannot_be_given_up() {
        let registry = Registry::default();
        let tenant = registry.begin(3).unwrap();
        assert!(registry.attach(tenant));
        assert!(!registry.give_up(tenant));
        assert!(registry.begin(3).is_none());
        registry.end(tenant);
        assert!(matches!(registry.depart(3), Departure::Unknown));
    }

    #[test]
    fn a_device_that_could_not_be_attached_can_be_given_up_again() {
        let registry = Registry::default();
        let tenant = registry.begin(3).unwrap();
        assert!(registry.attach(tenant));
        registry.retreat(tenant);
        assert!(matches!(registry.depart(3), Departure::GivenUp));
        registry.retreat(tenant);
        assert!(!registry.is_opening(tenant));
    }

    #[test]
    fn a_reused_minor_is_another_device() {
        let registry = Registry::default();
        let first = registry.begin(0).unwrap();
        assert!(matches!(registry.depart(0), Departure::GivenUp));
        let second = registry.begin(0).unwrap();
        assert!(!registry.attach(first));
        registry.end(first);
        assert!(registry.attach(second));
    }
}
