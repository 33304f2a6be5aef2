//! The disk follows its image: `rbd resize` is noticed, and nobody need tell the kernel.
//!
//! librbd's watch says that an image may have changed; its callback only passes on which device's. The size is looked
//! at anew on a thread that may block. If the image has grown, `attrib/dev_size` is written; the kernel then asks
//! whether the device may have that size, as it does when an administrator writes it, and the answer to that
//! ([`Daemon::reconfigured`]) gives the disk its capacity and its initiators their unit attention. While the kernel
//! waits for it the directory cannot be removed, and the answer waits for no directory: so neither waits for the
//! other.
//!
//! A disk is as large as its image, in whole blocks. It cannot be smaller by anybody's wish: a new device of another
//! size is refused, and a smaller `dev_size` too.

use super::{Daemon, SetupError};
use crate::block::ErrorKind;
use crate::device::Handle;
use crate::kernel::uio::{Instance, UioDevice};
use crate::log::Chain;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who is to be looked at, and who is being looked at.
#[derive(Debug)]
pub(super) struct Sizes {
    changed: Sender<Instance>,
    /// Whether a device that a thread looks at has changed once more since.
    busy: Mutex<HashMap<Instance, bool>>,
    /// Devices that are larger than their images.
    smaller: Mutex<HashSet<Instance>>,
}

/// What became of a look.
enum Look {
    Over,
    Again,
}

impl Sizes {
    pub(super) fn new() -> (Self, Receiver<Instance>) {
        let (changed, changes) = unbounded();
        (Self { changed, busy: Mutex::default(), smaller: Mutex::default() }, changes)
    }

    /// What storage calls when a device's image may have changed. Blocks nobody.
    pub(super) fn signal(&self, instance: Instance) -> impl Fn() + Send + Sync + use<> {
        let changed = self.changed.clone();
        move || {
            let _ = changed.send(instance);
        }
    }

    /// True if it is for the caller to look at the device, until [`Sizes::done`] says that it is over.
    fn begin(&self, instance: Instance) -> bool {
        match self.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(instance) {
            Entry::Occupied(mut busy) => {
                busy.insert(true);
                false
            }
            Entry::Vacant(idle) => {
                idle.insert(false);
                true
            }
        }
    }

    /// Notes whether a device's image is smaller than the device, and says whether it was.
    fn is_smaller(&self, instance: Instance, smaller: bool) -> bool {
        let mut set = self.smaller.lock().unwrap_or_else(PoisonError::into_inner);
        if smaller { !set.insert(instance) } else { set.remove(&instance) }
    }

    /// True if nothing has changed since the last look.
    fn done(&self, instance: Instance) -> bool {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = busy.get_mut(&instance).is_some_and(std::mem::take);
        if !changed {
            busy.remove(&instance);
        }
        !changed
    }
}

impl Daemon {
    /// Starts to listen to what storage says.
    pub(super) fn follow_sizes(self: &Arc<Self>, changes: Receiver<Instance>) {
        let daemon = Arc::downgrade(self);
        let listen = move || {
            for instance in changes {
                let Some(daemon) = daemon.upgrade() else { return };
                daemon.look_at_size(instance);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("sizes".into()).spawn(listen) {
            tracing::error!(%error, "no thread to notice 'rbd resize' with; set dev_size by hand");
        }
    }

    /// Looks at a device's image on a thread of its own: one cluster that is away delays no other.
    fn look_at_size(self: &Arc<Self>, instance: Instance) {
        if !self.sizes.begin(instance) {
            return;
        }
        let daemon = self.clone();
        let look = move || {
            let mut pause = FIRST_PAUSE;
            loop {
                match daemon.follow_size(instance) {
                    Look::Again => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Look::Over if daemon.sizes.done(instance) => return,
                    Look::Over => pause = FIRST_PAUSE,
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("size-uio{}", instance.minor));
        if let Err(error) = thread.spawn(look) {
            while !self.sizes.done(instance) {}
            tracing::error!(%error, "no thread to look at an image's size with; set dev_size by hand");
        }
    }

    fn follow_size(&self, instance: Instance) -> Look {
        let Some(handle) = self.registry.serving(instance) else {
            self.sizes.is_smaller(instance, false);
            return Look::Over;
        };
        let board = self.registry.board();
        let device = board.device(instance);
        let image = match handle.image_size() {
            Ok(size) => size,
            // It ended, or there will be another client, and another look.
            Err(error) if matches!(error.kind, ErrorKind::Gone | ErrorKind::Fenced) => return Look::Over,
            Err(error) => {
                tracing::warn!(%device, "cannot look at an image's size: {error}");
                return Look::Again;
            }
        };
        let (disk, block) = (handle.size(), u64::from(handle.block_size()));
        let image = image - image % block;
        let was_smaller = self.sizes.is_smaller(instance, image < disk);
        if image < disk {
            let what = format!(
                "the image was shrunk to {image} bytes and the LUN keeps its {disk}: what lies behind the image's end \
                 is lost, and reading or writing there fails; run 'rbd resize' to make it {disk} again, or delete the \
                 LUN and create it anew"
            );
            tracing::error!(%device, "{what}");
            board.remark(instance, what);
            return Look::Over;
        }
        if was_smaller {
            tracing::info!(%device, "the image is as large as the LUN again");
            board.remark(instance, "the image is as large as the LUN again");
        }
        if image == disk {
            return Look::Over;
        }
        match self.grow(instance, &handle, image) {
            Ok(true) => {
                tracing::info!(
                    %device,
                    from = disk,
                    to = image,
                    "the image has grown and the LUN with it; 'targetcli saveconfig' keeps that for the next boot"
                );
                board.remark(instance, format!("grown from {disk} to {image} bytes with its image"));
                board.sized(instance, image);
                Look::Over
            }
            Ok(false) => Look::Over,
            Err(error) => {
                tracing::warn!(
                    %device,
                    "the image has grown to {image} bytes, but the LUN cannot: {}",
                    Chain(&error)
                );
                Look::Again
            }
        }
    }

    /// Has the kernel give the device this size. False if the device is gone.
    fn grow(&self, instance: Instance, handle: &Handle, size: u64) -> Result<bool, SetupError> {
        let uio = UioDevice::by_minor(&self.settings.sys, instance.minor);
        let Some(uio) = uio.ok().filter(|uio| uio.instance == instance) else { return Ok(false) };
        self.backstore(&uio.name).set_dev_size(size)?;
        if handle.size() < size {
            handle.resize(size); // the kernel did not ask: replies to it are off
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change that comes while one looks must be looked at too.
    #[test]
    fn no_change_is_missed() {
        let (sizes, changes) = Sizes::new();
        let device = Instance { minor: 1, inode: 7 };
        sizes.signal(device)();
        assert_eq!(changes.try_recv(), Ok(device));
        assert!(sizes.begin(device));
        assert!(!sizes.begin(device), "somebody is at it");
        assert!(!sizes.done(device), "once more");
        assert!(sizes.done(device));
        assert!(sizes.begin(device));
    }
}
