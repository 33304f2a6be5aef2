//! The image of a device: opened once whoever had it before is fenced, closed before its record is erased.

use super::error::SetupError;
use super::{Settings, StorageKind, timeouts};
use crate::block::{Backend, BackendError, memory};
use crate::cfgstring::{self, CfgString};
use crate::clock::since_boot;
use crate::device::Noted;
use crate::kernel::DeviceName;
use crate::kernel::configfs::Backstore;
use crate::rbd::{Cluster, ClusterConfig, Image, Lock, Owner, ServiceStatus, Taken, TimeOuts, is_prompt};
use crate::records::{DeviceKey, Record, Records};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two tries to shut a client out.
const SHUT_OUT_PAUSE: Duration = Duration::from_secs(5);

/// How the image's size must stand to the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeRule {
    /// A new device: anything but equal is the administrator's mistake.
    Equal,
    /// A device that was served before: its image may have grown since.
    AtLeast,
}

/// An open image. Dropping it closes the image, unless its device is still served or somebody is asking it something; whoever
/// closes it erases the record.
pub(super) struct Storage {
    backend: Arc<dyn Backend>,
    record: Option<Arc<Record>>,
    /// The image's id, which another image of the same name does not have.
    id: String,
    /// Of an erasure that is not over.
    note: Noted,
    /// If nobody but this device's clients can have written to the image since the one before ended: its mark from when that
    /// was seen.
    tenure: Option<String>,
    time_outs: TimeOuts,
    /// Writes of this client timed out and may still happen.
    in_doubt: bool,
}

impl Storage {
    /// Opens the image that `name` is configured for and fences whoever served the device before.
    pub(super) fn open(
        settings: &Settings,
        records: &Arc<Records>,
        name: &DeviceName,
    ) -> Result<Self, SetupError> {
        let config = cfgstring::parse_dev_config(&name.config)?;
        for skipped in &config.skipped {
            tracing::warn!(device = %name, "ignored in the configuration string: {skipped}");
        }
        match settings.storage {
            StorageKind::Rbd => Self::open_image(settings, records, name, &config),
            StorageKind::Memory => {
                let size = Backstore::new(&settings.sys, name).dev_size()?;
                let backend = Arc::new(memory::Memory::new(size));
                Ok(Self {
                    tenure: backend.tenure(),
                    backend,
                    record: None,
                    id: String::new(),
                    note: Noted::default(),
                    time_outs: TimeOuts::default(),
                    in_doubt: false,
                })
            }
        }
    }

    fn open_image(
        settings: &Settings,
        records: &Arc<Records>,
        name: &DeviceName,
        config: &CfgString,
    ) -> Result<Self, SetupError> {
        let cluster = Cluster::connect(&ClusterConfig {
            id: config.id.clone(),
            conf: config.conf.clone(),
            op_timeout: config.osd_op_timeout,
            connect_timeout: timeouts::connect(settings.open_timeout),
            zero_copy_writes: settings.zero_copy_writes,
        })?;
        let cluster = Arc::new(cluster);
        let ask = |action: &'static str, error: &dyn std::error::Error| SetupError::Ask {
            action,
            error: error.to_string(),
        };
        let device = DeviceKey::new(name.hba, &name.name);
        let predecessors = records.predecessors(&device);
        // Invariant "no late write": a client that did not end in order may have writes under way. From here
        // on the cluster refuses them; our own operations carry the map that says so.
        for addresses in &predecessors {
            tracing::info!(device = %name, addresses, "fencing a client that did not end in order");
            let fence = |source| SetupError::Fence { addresses: addresses.clone(), source };
            cluster.blocklist(addresses).map_err(fence)?;
        }
        uio_ring::crash_point!("adopt-fenced");
        // Before the image is opened and the lock is taken: should we die with it, the next one must know us. And should
        // we fail, the image is closed before the record is erased.
        let addresses = cluster.addresses().map_err(|error| ask("learn this client's addresses", &error))?;
        let record = Arc::new(records.begin(&device, &addresses)?);
        let mut image = Image::open(cluster.clone(), &config.pool, &config.image)?;
        image.keep(record.clone());
        let tenure = match image.lock() {
            None => None,
            Some(lock) => match follow(&lock, records, &device, &predecessors) {
                None if !predecessors.is_empty() => succeed(&lock, records, &device, &predecessors)?,
                mark => mark,
            },
        };
        // Only now: until a predecessor is fenced it may still store one.
        let (owner, text) = image.note_and_owner().map_err(SetupError::Note)?;
        let note = Noted { ours: predecessors.contains(&owner), text };
        // Not before: another try must still know whose note it is.
        records.fenced(&device, &predecessors);
        cluster.service_register(&config.pool, &config.image, image.id());
        cluster.service_status(&ServiceStatus::default());
        let id = image.id().to_owned();
        let time_outs = cluster.time_outs();
        Ok(Self {
            backend: Arc::new(image),
            record: Some(record),
            id,
            note,
            tenure,
            time_outs,
            in_doubt: false,
        })
    }

    /// Whether what was on the ring before this may still be carried out, writes too. May block: it is looked anew, since
    /// whoever else has the image open may have taken the lock meanwhile.
    pub(super) fn is_seamless(&self) -> bool {
        self.tenure.is_some() && self.backend.tenure() == self.tenure
    }

    pub(super) fn note(&self) -> &Noted {
        &self.note
    }

    pub(super) fn time_outs(&self) -> TimeOuts {
        self.time_outs
    }

    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    pub(super) fn image_id(&self) -> &str {
        &self.id
    }

    /// Leaves the record behind: storage may still be at work for this client.
    pub(super) fn abandon(&self) {
        if let Some(record) = &self.record {
            record.keep();
        }
    }

    /// Everything that this client had accepted is answered; `since` is the backend's mark of when it accepted no more.
    pub(super) fn leave(&self, since: &str) {
        if let Some(record) = &self.record
            && !self.backend.has_note()
            && !self.in_doubt
        {
            record.leave(self.backend.leave(since).as_deref());
        }
    }

    /// The same for one that was opened and not used.
    pub(super) fn leave_as_found(&self) {
        if let Some(tenure) = &self.tenure {
            self.leave(tenure);
        }
    }

    /// Compares the image's size with the device's.
    pub(super) fn check_size(
        &self,
        name: &DeviceName,
        device: u64,
        rule: SizeRule,
    ) -> Result<(), SetupError> {
        let actual = self.backend.limits().size;
        if actual == device || (rule == SizeRule::AtLeast && actual > device) {
            return Ok(());
        }
        let image = name.config.split_once('/').map_or("", |(_, image)| image).to_owned();
        Err(SetupError::Size { image, device, actual })
    }
}

/// Takes the lock, if nobody has had it since the device's last client left the image, with everything answered. The image's
/// mark, if nobody can have had it before this client either.
///
/// Taken here and not with the first write, or that could come after whatever another gateway has done meanwhile.
fn follow(lock: &Lock<'_>, records: &Records, device: &DeviceKey, predecessors: &[String]) -> Option<String> {
    let left = records.left(device)?;
    let start = since_boot();
    let take = || {
        let alone = lock.is_alone(predecessors)?;
        if lock.mark()? != Some(left) {
            return Ok(None);
        }
        uio_ring::crash_point!("adopt-as-left");
        // Should we die before it is known, the next one finds that we have the lock, and must not think that we had it all
        // the time.
        if let Err(error) = records.begin_gap(device) {
            tracing::warn!(%error, "what waits on the ring gets BUSY, since no note can be made");
            return Ok(None);
        }
        let taken = lock.take_over(predecessors)?;
        Ok(taken.filter(|taken| is_prompt(since_boot() - start, alone && taken.alone)))
    };
    let taken = take().unwrap_or_else(|error: BackendError| {
        tracing::warn!("cannot tell whether somebody else has had the image's lock: {error}");
        None
    })?;
    records.end_gap(device);
    Some(taken.mark)
}

/// Takes over the lock from fenced predecessors, if one of them has it. The image's mark, if it has passed from the one to
/// the other without a gap in which somebody else can have had it.
fn succeed(
    lock: &Lock<'_>,
    records: &Records,
    device: &DeviceKey,
    predecessors: &[String],
) -> Result<Option<String>, SetupError> {
    let failed = |error: BackendError| SetupError::Ask {
        action: "take over the lock of a dead client",
        error: error.to_string(),
    };
    let start = since_boot();
    let held = match lock.owner(predecessors).map_err(failed)? {
        Owner::Predecessor(owner) => {
            // Should we die in between, the next one finds no owner, or us, and must know why.
            let note = if lock.is_alone(predecessors).map_err(failed)? {
                records.begin_breaking(device)
            } else {
                records.begin_gap(device)
            };
            note.map_err(SetupError::Record)?;
            lock.break_of(&owner).map_err(failed)?;
            uio_ring::crash_point!("adopt-broken");
            true
        }
        Owner::Nobody => records.was_breaking(device),
        Owner::Other => false,
    };
    let taken = if held { lock.take_over(predecessors).map_err(failed)? } else { None };
    let seamless =
        |taken: &Taken| taken.alone && is_prompt(since_boot() - start, true) && !records.has_gap(device);
    let tenure = taken.filter(seamless).map(|taken| taken.mark);
    if held && tenure.is_none() {
        records.begin_gap(device).map_err(SetupError::Record)?;
    }
    uio_ring::crash_point!("adopt-locked");
    records.end_breaking(device);
    Ok(tenure)
}

/// Closes an image once its client is shut out; tried for as long as the process lives.
fn close_later(backend: Arc<dyn Backend>) {
    let open = backend.clone();
    let close = move || {
        while backend.shut_out().is_err() {
            std::thread::sleep(SHUT_OUT_PAUSE);
        }
    };
    if std::thread::Builder::new().name("close-later".into()).spawn(close).is_err() {
        std::mem::forget(open);
    }
}

impl Drop for Storage {
    /// An erasure that is not over is gone on with by whoever fences this client first: then nobody else can be at it.
    /// Invariant "no late write": closing an image does not end a write that timed out, and gives its lock to others.
    fn drop(&mut self) {
        if self.in_doubt
            && let Err(error) = self.backend.shut_out()
        {
            tracing::error!(
                "a write of a client timed out and may still happen, and the client cannot be fenced yet: its image stays \
                 open and locked until it can ({error})"
            );
            close_later(self.backend.clone());
        }
        if self.backend.has_note() || self.in_doubt {
            self.abandon();
        }
    }
}

/// The storage of a device that is served; none once that has ended.
pub(super) struct Slot {
    storage: Mutex<Option<Storage>>,
    replacing: Mutex<()>,
}

impl Slot {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage: Mutex::new(Some(storage)), replacing: Mutex::default() }
    }

    /// Held by whoever replaces the storage: the device must have the client whose record is kept.
    pub(super) fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The storage; from now on the device has none.
    pub(super) fn take(&self) -> Option<Storage> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Storage>> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image's id.
    pub(super) fn image_id(&self) -> Option<String> {
        self.lock().as_ref().map(|storage| storage.id.clone())
    }

    /// A write of the client timed out: whoever serves the device next must fence it.
    pub(super) fn doubt(&self) {
        if let Some(storage) = &mut *self.lock() {
            storage.in_doubt = true;
        }
    }

    /// What carries out the device's operations.
    pub(super) fn backend(&self) -> Option<Arc<dyn Backend>> {
        self.lock().as_ref().map(Storage::backend)
    }

    /// Puts another storage in, for the same device. Returns the one before, which is to be kept until the device does not use
    /// it any more; without a device any more, the other.
    pub(super) fn put(&self, storage: Storage) -> Storage {
        match &mut *self.lock() {
            None => storage,
            Some(current) => {
                let mut old = std::mem::replace(current, storage);
                old.in_doubt = false; // its client was fenced before the other's image was opened
                old
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::block::{ErrorKind, Limits, Request};

    /// An image that others have too.
    struct Shared {
        disk: memory::Memory,
        tenure: Option<&'static str>,
        shut_out: fn() -> Result<(), BackendError>,
    }

    fn shared(tenure: Option<&'static str>, shut_out: fn() -> Result<(), BackendError>) -> Arc<Shared> {
        Arc::new(Shared { disk: memory::Memory::new(512), tenure, shut_out })
    }

    impl Backend for Shared {
        fn submit(&self, request: Box<Request>) {
            self.disk.submit(request);
        }
        fn limits(&self) -> Limits {
            self.disk.limits()
        }
        fn refresh(&self) -> Result<u64, BackendError> {
            self.disk.refresh()
        }
        fn tenure(&self) -> Option<String> {
            self.tenure.map(str::to_owned)
        }
        fn shut_out(&self) -> Result<(), BackendError> {
            (self.shut_out)()
        }
        fn note(&self) -> Result<Vec<u8>, BackendError> {
            self.disk.note()
        }
        fn has_note(&self) -> bool {
            self.disk.has_note()
        }
    }

    fn storage(backend: Arc<dyn Backend>, tenure: Option<&str>, record: Option<Arc<Record>>) -> Storage {
        Storage {
            backend,
            record,
            id: String::new(),
            note: Noted::default(),
            tenure: tenure.map(str::to_owned),
            time_outs: TimeOuts::default(),
            in_doubt: false,
        }
    }

    /// Else a write that has waited could land over what came through another gateway while this one opened the image.
    #[test]
    fn whoever_takes_the_lock_while_the_image_is_opened_is_seen() {
        for (then, now, seamless) in [
            (Some("a 7"), Some("a 7"), true),
            (Some("a 7"), Some("a 9"), false), // somebody had it
            (Some("a 7"), None, false),        // somebody has it
            (None, Some("a 7"), false),
            (None, None, false),
        ] {
            let image = shared(now, || Ok(()));
            assert_eq!(storage(image, then, None).is_seamless(), seamless, "{then:?}, now {now:?}");
        }
    }

    /// Closing an image gives its lock away: then it is not closed unless the client is shut out.
    #[test]
    fn an_image_in_doubt_is_given_to_nobody_before_its_client_is_shut_out() {
        let refused: fn() -> Result<(), BackendError> = || Err(BackendError::new(ErrorKind::TimedOut));
        for (in_doubt, shut_out, closed) in
            [(false, refused, true), (true, || Ok(()), true), (true, refused, false)]
        {
            let image = shared(None, shut_out);
            let open = Arc::downgrade(&image);
            let slot = Slot::new(storage(image, None, None));
            if in_doubt {
                slot.doubt();
            }
            drop(slot);
            assert_eq!(open.strong_count() == 0, closed, "in doubt: {in_doubt}");
        }
        // The client of the one that takes its place has fenced it.
        let image = shared(None, refused);
        let open = Arc::downgrade(&image);
        let slot = Slot::new(storage(image, None, None));
        slot.doubt();
        drop(slot.put(storage(shared(None, refused), None, None)));
        assert_eq!(open.strong_count(), 0);
        // What times out from here on is the new one's doing, whether or not the device has changed over.
        slot.doubt();
        assert!(slot.take().unwrap().in_doubt);
    }

    /// Closing an image does not end a write that timed out: only the fence does.
    #[test]
    fn a_client_that_is_closed_in_doubt_leaves_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        let device = DeviceKey::new(0, "a");
        for (in_doubt, left) in [(false, 0), (true, 1)] {
            let record = records.begin(&device, "10.0.0.1:0/1").unwrap();
            let storage = storage(Arc::new(memory::Memory::new(512)), None, Some(Arc::new(record)));
            let slot = Slot::new(storage);
            if in_doubt {
                slot.doubt();
            }
            drop(slot);
            assert_eq!(records.predecessors(&device).len(), left, "in doubt: {in_doubt}");
        }
    }
}
