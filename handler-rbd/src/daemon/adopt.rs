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
use super::registry::Tenant;
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
            let Some(tenant) = self.registry.begin(uio.minor) else { continue };
            let daemon = self.clone();
            let name = format!("adopt-uio{}", uio.minor);
            if let Err(error) =
                std::thread::Builder::new().name(name).spawn(move || daemon.adopt(tenant, &uio))
            {
                tracing::error!(minor = tenant.minor, %error, "no thread to take on an existing device with");
                self.registry.end(tenant);
            }
        }
    }

    fn adopt(self: &Arc<Self>, tenant: Tenant, uio: &UioDevice) {
        let device = &uio.name;
        let mut pause = FIRST_PAUSE;
        // Once it is no longer opening, it is served, or was removed.
        while self.registry.is_opening(tenant) {
            let Err(error) = self.try_adopt(tenant, uio) else { return };
            tracing::error!(
                %device,
                config = device.config,
                "cannot take the device on, its initiators get BUSY, trying again in {} s: {}",
                pause.as_secs(),
                Chain(&error)
            );
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            if !UioDevice::by_minor(&self.settings.sys, uio.minor).is_ok_and(|now| now.name == uio.name) {
                // The kernel sends no event for a device whose removal was not announced.
                self.registry.end(tenant);
                return tracing::info!(%device, "the device is gone");
            }
        }
    }

    fn try_adopt(self: &Arc<Self>, tenant: Tenant, uio: &UioDevice) -> Result<(), SetupError> {
        let device = &uio.name;
        let backstore = Backstore::new(&self.settings.sys, device);
        backstore.block(true)?;
        let storage = Storage::open(&self.settings, device)?;
        let shape = Shape::read(&backstore)?;
        storage.check_size(device, shape.size, SizeRule::AtLeast)?;
        if !self.registry.attach(tenant) {
            return Ok(()); // removed meanwhile
        }
        let served = backstore
            .reset_ring(ResetKind::Busy)
            .map_err(SetupError::from)
            .and_then(|()| self.serve(tenant, uio, shape, storage));
        if served.is_err() {
            self.registry.retreat(tenant);
            return served;
        }
        tracing::info!(%device, minor = uio.minor, config = device.config, "device taken on");
        // From here on the device is served, whatever comes of this.
        if let Err(error) = backstore.block(false) {
            tracing::error!(%device, "cannot unblock the device, its initiators get BUSY: {}", Chain(&error));
        }
        Ok(())
    }
}
