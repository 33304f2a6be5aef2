//! Devices that exist already when the daemon starts, or whose thread has failed.
//!
//! A predecessor stopped in order, or died with commands consumed and writes on their way. Per device, all devices in
//! parallel, by the first of these that is safe (docs/recovery.md):
//!
//! 1. **Handed over**: its journal says that nothing was in progress. The ring is gone on with.
//! 2. **Journal**: its RADOS client is fenced, so that none of its writes lands any more, and the image's lock is taken
//!    over. If nobody else can have had it in between, what was in progress is begun again and the ring gone on with.
//! 3. **Reset**: on any doubt. `block_dev=1`, so that whatever comes gets BUSY, which initiators retry; the predecessor is
//!    fenced; the image opened; `reset_ring=1`, so that what was on the ring gets BUSY too, not before the fence, or a
//!    retry could be served before the original's late write lands; the ring is served; `block_dev=0`.
//!
//! While the cluster is away the device is blocked, so that its initiators wait rather than fail, and opening is tried
//! again for ever, with growing pauses.

use super::journal;
use super::open::{Attached, Shape, claim_ring};
use super::registry::Claim;
use super::storage::{SizeRule, Storage};
use super::{Daemon, SetupError};
use crate::cfgstring::SUBTYPE;
use crate::kernel::DeviceName;
use crate::kernel::configfs::ResetKind;
use crate::kernel::uio::{self, UioDevice, UioError};
use crate::log::Chain;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Who has been sent a command waits for an answer for so long; Linux does for half a minute.
const SHORT_WAIT: Duration = Duration::from_secs(10);
/// What was in progress is kept so long for when the cluster is back; then it gets BUSY. As long as an operation is
/// waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a device is still to be taken on.
enum There {
    Yes,
    No,
    /// It cannot be looked at just now.
    Unknown,
}

/// A device that is there and attached to, to be served.
struct Taken {
    claim: Claim,
    shape: Shape,
    attached: Attached,
    /// For the log.
    how: String,
}

impl Daemon {
    /// Takes on every device of ours that is there and not served. Returns at once.
    pub fn adopt_all(self: &Arc<Self>) {
        let devices = match uio::scan(&self.settings.sys) {
            Ok(devices) => devices,
            Err(error) => {
                let pause = LONGEST_PAUSE.as_secs();
                tracing::error!("cannot look for existing devices, again in {pause} s: {}", Chain(&error));
                return self.later(LONGEST_PAUSE, Self::adopt_all);
            }
        };
        if !self.has_looked.swap(true, Ordering::Relaxed) {
            // Only at start: later a device may be served that this look has missed.
            self.records.keep_journals(&devices.iter().map(journal::key).collect::<Vec<_>>());
        }
        for uio in devices.into_iter().filter(|uio| uio.name.subtype() == SUBTYPE) {
            self.adopt_one(uio);
        }
    }

    /// Takes on a device that is there, unless it is served. Returns at once.
    pub(super) fn adopt_one(self: &Arc<Self>, uio: UioDevice) {
        let Some(claim) = self.registry.begin(uio.instance) else { return };
        self.registry.board().enter(&uio);
        let (daemon, minor) = (self.clone(), uio.minor);
        let adopt = move || daemon.adopt(claim, &uio);
        if let Err(error) = std::thread::Builder::new().name(format!("adopt-uio{minor}")).spawn(adopt) {
            tracing::error!(minor, %error, "no thread to take on an existing device with; restart the daemon");
        }
    }

    /// Does something after a pause. Returns at once.
    pub(super) fn later(self: &Arc<Self>, pause: Duration, act: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let daemon = self.clone();
        let wait = move || {
            std::thread::sleep(pause);
            act(&daemon);
        };
        if let Err(error) = std::thread::Builder::new().name("later".into()).spawn(wait) {
            tracing::error!(%error, "no thread to take devices on with; restart the daemon");
        }
    }

    fn adopt(self: &Arc<Self>, claim: Claim, uio: &UioDevice) {
        self.adopt_until_gone(claim, uio);
        // Between two tries the device is nobody's, and whoever stops all of them passes it by.
        if self.is_stopping()
            && uio.open(Duration::ZERO).is_ok()
            && let Err(error) = self.backstore(&uio.name).block(false)
        {
            tracing::warn!(device = %uio.name, "cannot unblock the device: {}", Chain(&error));
        }
    }

    fn adopt_until_gone(self: &Arc<Self>, claim: Claim, uio: &UioDevice) {
        let device = &uio.name;
        let (mut pause, start) = (FIRST_PAUSE, Instant::now());
        let mut waits = self.has_journal(uio);
        let mut claim = Some(claim);
        loop {
            match self.is_there(claim.as_ref(), uio) {
                There::No => break,
                There::Unknown => {
                    std::thread::sleep(pause);
                    continue;
                }
                There::Yes => {}
            }
            let Err(error) = self.try_adopt(&mut claim, uio, waits) else { return };
            if matches!(error, SetupError::Stopping) {
                return; // our successor will
            }
            if claim.is_none() {
                claim = self.registry.begin(uio.instance);
            }
            // Its directory may be another device's by now, or the one that a removal is waiting for us with.
            match self.is_there(claim.as_ref(), uio) {
                There::No => break,
                There::Unknown => continue,
                There::Yes => {}
            }
            self.registry.board().remark(uio.instance, Chain(&error).to_string());
            tracing::error!(
                %device,
                config = device.config,
                "cannot take the device on, its initiators get BUSY, trying again in {} s: {}",
                pause.as_secs(),
                Chain(&error)
            );
            let gives_up = waits && start.elapsed() >= PATIENCE;
            match self.hold_off(uio, gives_up) {
                Ok(()) => waits &= !gives_up,
                Err(error) => {
                    tracing::warn!(%device, "its initiators get no answer meanwhile: {}", Chain(&error));
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        tracing::info!(%device, "the device is gone");
    }

    /// Has initiators get BUSY for what comes, and for what was in progress too if it is given up.
    fn hold_off(&self, uio: &UioDevice, give_up: bool) -> Result<(), SetupError> {
        let _ours = uio.open(Duration::ZERO)?; // else it is another handler's
        self.block(&uio.name)?;
        if give_up {
            // It stays blocked until the predecessor is fenced, so no retry is served before that.
            self.empty_ring(uio)?;
        }
        Ok(())
    }

    /// Has initiators get BUSY for what comes. Not once the daemon stops: then the device must stay unblocked, so that what
    /// comes waits for the successor.
    pub(super) fn block(&self, device: &DeviceName) -> Result<(), SetupError> {
        let stopping = self.stopping.read().unwrap_or_else(PoisonError::into_inner);
        if *stopping {
            return Err(SetupError::Stopping);
        }
        Ok(self.backstore(device).block(true)?)
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the device is still wanted: once it is not, it was removed; once it is another one there is no event to
    /// tell.
    fn is_there(&self, claim: Option<&Claim>, uio: &UioDevice) -> There {
        if !claim.is_some_and(Claim::is_wanted) {
            return There::No;
        }
        match UioDevice::by_minor(&self.settings.sys, uio.minor) {
            Ok(now) if now.instance == uio.instance => There::Yes,
            Ok(_) | Err(UioError::Gone(_)) => There::No,
            // For want of a file descriptor, perhaps.
            Err(error) => {
                tracing::error!(device = %uio.name, "cannot look at the device: {}", Chain(&error));
                There::Unknown
            }
        }
    }

    fn try_adopt(
        self: &Arc<Self>,
        claim: &mut Option<Claim>,
        uio: &UioDevice,
        has_journal: bool,
    ) -> Result<(), SetupError> {
        let device = &uio.name;
        // Held from here on: another handler that serves the device keeps us from touching it.
        let file = claim_ring(uio)?;
        if !has_journal {
            self.block(device)?;
        }
        let mut turn = self.turn(device, SHORT_WAIT);
        let is_wanted = || claim.as_ref().is_some_and(Claim::is_wanted);
        if turn.is_none() && is_wanted() {
            self.block(device)?;
            turn = self.turn(device, Duration::MAX);
        }
        if !is_wanted() {
            self.forget_removed(uio);
            return Ok(());
        }
        let storage = self.open_image(turn, device)?;
        let taken = self.take_on(claim, uio, file, has_journal, &storage);
        let Ok(Some(Taken { claim, shape, attached, how })) = taken else {
            storage.leave_as_found(); // not served: for the next try, or for our successor
            return taken.map(|_| self.forget_removed(uio));
        };
        self.serve(claim, uio, shape, attached, storage)?;
        tracing::info!(%device, minor = uio.minor, config = device.config, "device taken on ({how})");
        // From here on the device is served, whatever comes of this.
        self.unblock(uio.clone());
        Ok(())
    }

    /// A device is not wanted any more: it was removed, unless the daemon stops and leaves it to its successor.
    fn forget_removed(&self, uio: &UioDevice) {
        if !self.is_stopping() {
            self.forget_own_journal(uio);
        }
    }

    /// Attaches to the ring of a device whose image is open. None if it was removed meanwhile: then its directory must not
    /// be looked at.
    fn take_on(
        &self,
        claim: &mut Option<Claim>,
        uio: &UioDevice,
        file: OwnedFd,
        has_journal: bool,
        storage: &Storage,
    ) -> Result<Option<Taken>, SetupError> {
        if !claim.as_ref().is_some_and(Claim::is_wanted) {
            return Ok(None);
        }
        let shape = Shape::read(&self.backstore(&uio.name))?;
        storage.check_size(&uio.name, shape.size, SizeRule::AtLeast)?;
        let Some(claim) = claim.take().filter(Claim::attach) else { return Ok(None) };
        let (attached, how) = if has_journal {
            match self.go_on(uio, file, storage)? {
                Ok(attached) if attached.recovered.is_empty() => (attached, "handed over".to_owned()),
                Ok(attached) => {
                    let how = format!("journal, {} commands begun again", attached.recovered.len());
                    (attached, how)
                }
                Err(doubt) => {
                    (self.reset(uio, claim_ring(uio)?)?, format!("reset: {}", journal::reason(&doubt)))
                }
            }
        } else {
            (self.reset(uio, file)?, "reset".to_owned())
        };
        Ok(Some(Taken { claim, shape, attached, how }))
    }

    /// Throws away what is on the ring, with BUSY, and attaches to it.
    fn reset(&self, uio: &UioDevice, file: OwnedFd) -> Result<Attached, SetupError> {
        self.block(&uio.name)?;
        self.empty_ring(uio)?;
        self.attach(uio, file)
    }

    /// BUSY for what is on the ring of a blocked device, in progress or not.
    fn empty_ring(&self, uio: &UioDevice) -> Result<(), SetupError> {
        // First: what is queued from here on has the ids of what the journal says.
        self.records.forget_journal(&journal::key(uio));
        Ok(self.backstore(&uio.name).reset_ring(ResetKind::Busy)?)
    }

    /// Has a device that is served get commands again. Tried until it is gone.
    fn unblock(self: &Arc<Self>, uio: UioDevice) {
        let Err(error) = self.backstore(&uio.name).block(false) else { return };
        tracing::error!(device = %uio.name, "cannot unblock the device, its initiators get BUSY: {}", Chain(&error));
        self.later(FIRST_PAUSE, move |daemon| {
            if daemon.registry.serving(uio.instance).is_some() {
                daemon.unblock(uio);
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::daemon::{Daemon, Settings, SetupError, StorageKind};
    use crate::kernel::{DeviceName, Sys};
    use crate::records::Records;
    use std::fs;
    use std::time::Duration;

    /// Else the device would stay blocked until somebody starts the daemon again.
    #[test]
    fn nothing_is_blocked_any_more_once_the_daemon_stops() {
        let (root, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = DeviceName::parse(b"tcm-user/0/d0/rbd/p/i").unwrap();
        let sys = Sys::at(root.path());
        let file = root.path().join("sys/kernel/config/target/core/user_0/d0/action/block_dev");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "0").unwrap();
        let daemon = Daemon::new(
            Settings {
                sys: sys.clone(),
                open_timeout: Duration::from_secs(5),
                drain_timeout: Duration::from_secs(5),
                zero_copy_writes: false,
                storage: StorageKind::Memory,
            },
            Records::load(run.path()).unwrap(),
        );
        daemon.block(&name).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        fs::write(&file, "0").unwrap();
        daemon.shut_down();
        assert!(matches!(daemon.block(&name), Err(SetupError::Stopping)));
        assert_eq!(fs::read_to_string(&file).unwrap(), "0");
    }
}
