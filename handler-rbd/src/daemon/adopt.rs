//! Devices that exist already when the daemon starts: the safe restart.
//!
//! A predecessor may have died with commands consumed and writes on their way, having completed out of
//! order, so what is left on the ring cannot be trusted (docs/ring.md). In this order, per device, all
//! devices in parallel:
//!
//! 1. `block_dev=1`: whatever comes from now on gets BUSY, which initiators retry.
//! 2. The predecessor's RADOS client is fenced: none of its writes lands any more.
//! 3. The image is opened.
//! 4. `reset_ring=1`: what was on the ring gets BUSY too. Not before step 2, or a retry could be served
//!    before the original's late write lands.
//! 5. The ring is mapped and served.
//! 6. `block_dev=0`.
//!
//! While the cluster is away, steps 2 and 3 are tried again for ever, with growing pauses; the device stays
//! blocked, so its initiators wait rather than fail.

use super::open::{Shape, SizeRule, Storage};
use super::registry::Claim;
use super::{Daemon, SetupError};
use crate::cfgstring::SUBTYPE;
use crate::kernel::configfs::{Backstore, ResetKind};
use crate::kernel::uio::{self, UioDevice};
use crate::log::Chain;
use std::sync::Arc;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Daemon {
    /// Takes on every device of ours that is there and not served. Returns at once.
    pub fn adopt_all(self: &Arc<Self>) {
        let devices = match uio::scan(&self.settings.sys) {
            Ok(devices) => devices,
            Err(error) => {
                tracing::error!("cannot look for existing devices: {}", Chain(&error));
                return;
            }
        };
        for uio in devices.into_iter().filter(|uio| uio.name.subtype() == SUBTYPE) {
            let Some(claim) = self.registry.begin(uio.instance) else { continue };
            self.registry.board().enter(&uio);
            let (daemon, minor) = (self.clone(), uio.minor);
            let adopt = move || daemon.adopt(claim, &uio);
            if let Err(error) = std::thread::Builder::new().name(format!("adopt-uio{minor}")).spawn(adopt) {
                tracing::error!(minor, %error, "no thread to take on an existing device with");
            }
        }
    }

    fn adopt(self: &Arc<Self>, mut claim: Claim, uio: &UioDevice) {
        let device = &uio.name;
        let mut pause = FIRST_PAUSE;
        // Once it is no longer wanted it was removed; once it is another device there is no event to tell.
        while claim.is_wanted() && self.exists(uio) {
            let Err(error) = self.try_adopt(claim, uio) else { return };
            self.registry.board().remark(uio.instance, Chain(&error).to_string());
            let Some(next) = self.registry.begin(uio.instance) else { return };
            claim = next;
            tracing::error!(
                %device,
                config = device.config,
                "cannot take the device on, its initiators get BUSY, trying again in {} s: {}",
                pause.as_secs(),
                Chain(&error)
            );
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        tracing::info!(%device, "the device is gone");
    }

    fn exists(&self, uio: &UioDevice) -> bool {
        UioDevice::by_minor(&self.settings.sys, uio.minor).is_ok_and(|now| now.instance == uio.instance)
    }

    fn try_adopt(self: &Arc<Self>, claim: Claim, uio: &UioDevice) -> Result<(), SetupError> {
        let device = &uio.name;
        let backstore = Backstore::new(&self.settings.sys, device);
        backstore.block(true)?;
        let storage = Storage::open(&self.settings, &self.records, device)?;
        if !claim.is_wanted() {
            return Ok(()); // removed meanwhile: its directory must not be looked at
        }
        let shape = Shape::read(&backstore)?;
        storage.check_size(device, shape.size, SizeRule::AtLeast)?;
        if !claim.attach() {
            return Ok(()); // removed meanwhile
        }
        backstore.reset_ring(ResetKind::Busy)?;
        self.serve(claim, uio, shape, storage)?;
        tracing::info!(%device, minor = uio.minor, config = device.config, "device taken on");
        // From here on the device is served, whatever comes of this.
        if let Err(error) = backstore.block(false) {
            tracing::error!(%device, "cannot unblock the device, its initiators get BUSY: {}", Chain(&error));
        }
        Ok(())
    }
}
