//! A device whose RADOS client was shut out of the cluster gets a new one, without a restart. So does one whose client
//! has had a write time out, once the cluster answers again (docs/recovery.md, "Time-outs").
//!
//! Somebody has blocklisted the client: another gateway that took the image over, or an administrator. Every
//! operation of it fails from then on and for ever, and its commands get BUSY, which initiators retry. So the
//! image is opened anew, by a new client, in this order:
//!
//! 1. The old client is fenced once more, and its lock broken: nothing of it can land any more (invariant "no late
//!    write"), whoever blocklisted it and for how long.
//! 2. The image is opened. If it is another one of the same name, it is not taken.
//! 3. The device changes over when the old client has returned everything that it had, and the old image is closed.
//!
//! The new client takes the image's lock with its first write, from whoever has it then: as with a new gateway.
//! Tried for ever, with growing pauses, and with a longer first pause if the last time was a moment ago: two
//! gateways that fence each other must not do so as fast as they can.

use super::journal;
use super::state::Event;
use super::storage::Slot;
use super::{Daemon, SetupError};
use crate::device::{Handle, News};
use crate::kernel::DeviceName;
use crate::kernel::uio::UioDevice;
use crate::log::Chain;
use crate::records::DeviceKey;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After so long with a client, the pauses begin anew.
const CALM: Duration = Duration::from_secs(60);

/// When the last recovery of a device ended, and the pause it began with.
pub(super) type Last = Mutex<Option<(Instant, Duration)>>;

/// A write of the device's client may still happen: until that client is fenced nobody else may have the image.
/// Returns at once.
fn hold_on(device: &DeviceName, slot: &Slot) {
    let Some(backend) = slot.backend() else { return };
    let hold_on = move || backend.hold_on();
    let (name, thread) = (device.clone(), std::thread::Builder::new().name("hold-on".into()));
    let thread = thread.spawn(move || {
        if let Err(error) = hold_on() {
            tracing::warn!(device = %name, "cannot keep the image's lock from others: {error}");
        }
    });
    if let Err(error) = thread {
        tracing::warn!(%device, %error, "no thread to keep the image's lock from others with");
    }
}

impl Daemon {
    /// Something happened to a device's storage. Returns at once.
    pub(super) fn heard(self: &Arc<Self>, uio: &UioDevice, slot: &Arc<Slot>, last: &Last, news: News) {
        let (device, board) = (&uio.name, self.registry.board());
        match news {
            News::Fenced => {
                self.recover(
                    uio,
                    slot,
                    last,
                    "the cluster has blocklisted this client, its initiators get BUSY",
                );
            }
            News::TimedOut | News::InDoubt => {
                let what = "the cluster does not answer in time, initiators get BUSY";
                board.tell(uio.instance, Event::TimedOut, what);
                if news == News::TimedOut {
                    tracing::warn!(%device, "{what}; see 'ceph health detail'");
                } else {
                    tracing::warn!(
                        %device,
                        "{what}, and a write may still happen: until that is over the image's lock is kept; \
                         see 'ceph health detail'"
                    );
                    slot.doubt();
                    hold_on(device, slot);
                }
            }
            News::Answered => {
                tracing::info!(%device, "the cluster answers again");
                board.tell(uio.instance, Event::Answered, "the cluster answers again");
            }
            News::Settled => {
                self.recover(
                    uio,
                    slot,
                    last,
                    "the cluster answers again, but writes of this client timed out",
                );
            }
        }
    }

    /// Has a new client made for a device. Returns at once.
    fn recover(self: &Arc<Self>, uio: &UioDevice, slot: &Arc<Slot>, last: &Last, why: &str) {
        let device = &uio.name;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match *last {
            Some((at, pause)) if at.elapsed() < CALM => (pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        *last = Some((Instant::now(), pause));
        tracing::warn!(%device, "{why}; opening the image anew");
        self.registry.board().tell(uio.instance, Event::Fenced, format!("{why}; a new one is being made"));
        let (daemon, uio, slot) = (self.clone(), uio.clone(), slot.clone());
        let reopen = move || daemon.reopen(&uio, &slot, pause);
        if let Err(error) = std::thread::Builder::new().name("reopen".into()).spawn(reopen) {
            tracing::error!(%error, "no thread to open an image anew with; restart the daemon");
        }
    }

    fn reopen(&self, uio: &UioDevice, slot: &Slot, mut pause: Duration) {
        let device = &uio.name;
        while let Some(id) = slot.image_id() {
            std::thread::sleep(pause);
            // Not yet in the registry, or no longer.
            let Some(handle) = self.registry.serving(uio.instance) else { continue };
            // That of the device's next life, whose client is well: the slot was emptied before it began.
            if slot.image_id().is_none() {
                break;
            }
            match self.try_reopen(uio, slot, &id, &handle) {
                Ok(true) => {
                    tracing::info!(%device, "the image is open again");
                    self.registry.board().tell(uio.instance, Event::Opened, "the image is open again");
                    // Its size may have changed while nobody watched it.
                    return self.sizes.signal(uio.instance)();
                }
                Ok(false) => break,
                Err(error) => {
                    pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
                    self.registry.board().remark(uio.instance, Chain(&error).to_string());
                    tracing::error!(
                        %device,
                        config = device.config,
                        "cannot open the image anew, trying again in {} s: {}",
                        pause.as_secs(),
                        Chain(&error)
                    );
                }
            }
        }
        tracing::info!(%device, "the device is gone");
    }

    /// False if the device has ended.
    fn try_reopen(
        &self,
        uio: &UioDevice,
        slot: &Slot,
        id: &str,
        handle: &Handle,
    ) -> Result<bool, SetupError> {
        let device = &uio.name;
        let turn = self.turn(device, Duration::MAX);
        let _alone = slot.replacing();
        if slot.image_id().as_deref() != Some(id) {
            return Ok(false); // that may have taken long, and the device be served by another client by now
        }
        self.records.abandon(&DeviceKey::new(device.hba, &device.name));
        let storage = self.open_image(turn, device)?;
        if storage.image_id() != id {
            let image = device.config.split_once('/').map_or("", |(_, image)| image).to_owned();
            return Err(SetupError::Other { image });
        }
        self.watch(uio, &storage);
        let (backend, note) = (storage.backend(), storage.note().clone());
        // First: what the new client leaves in doubt is its own.
        let old = slot.put(storage);
        let swapped = handle.replace(backend, note);
        drop(old);
        if swapped {
            // What is in progress from here on is of this client.
            self.records.end_gap(&journal::key(uio));
        }
        Ok(swapped)
    }
}
