//! From a device's name to a running device thread: storage first, the ring last.
//!
//! The order is what keeps the kernel safe: a device that cannot be served is refused before its ring is
//! ever mapped (an error answer to a mapped device is a kernel oops waiting to happen), and a predecessor's
//! client is fenced before the first command is read.

use super::timeouts;
use super::{Settings, StorageKind, identity};
use crate::block::{Backend, BackendError, memory};
use crate::cfgstring::{self, CfgError, CfgString};
use crate::device::{Exit, Handle, News, Noted, Served};
use crate::kernel::DeviceName;
use crate::kernel::configfs::Backstore;
use crate::kernel::file::FileError;
use crate::kernel::uio::{UioDevice, UioError};
use crate::log::Chain;
use crate::lun::{Geometry, LogicalUnit};
use crate::rbd::{
    Cluster, ClusterConfig, CommandError, ConnectError, Image, Lock, NOTE_KEY, OpenError, Owner,
    ServiceStatus, TimeOuts,
};
use crate::records::{DeviceKey, Record, RecordError, Records};
use nix::errno::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uio_ring::{AttachError, Doorbell, Mapping, Recovered, Ring};

/// How long the ring's file may stay busy or absent: a predecessor is being torn down, or udev is late.
const UIO_PATIENCE: Duration = Duration::from_secs(5);

/// Why a device cannot be served. Each is one sentence that names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration string is malformed.
    #[error(transparent)]
    Config(#[from] CfgError),
    /// The cluster cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The image cannot be opened or used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The process that died cannot be fenced.
    #[error(
        "cannot fence {addresses}, the client of the process that died; the user needs the cap mon 'profile rbd'"
    )]
    Fence {
        /// Addresses of the client.
        addresses: String,
        /// Why not.
        source: CommandError,
    },
    /// The client's own addresses, or the lock's owner, cannot be asked for.
    #[error("cannot {action}: {error}")]
    Ask {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        error: String,
    },
    /// The note that is kept with the image cannot be read.
    #[error("cannot read whether the image is being erased")]
    Note(#[source] BackendError),
    /// The image is not as large as the device.
    #[error("the device has {device} bytes and RBD image {image} has {actual}: create it with size={actual}")]
    Size {
        /// `pool/image`.
        image: String,
        /// Size of the device, in bytes.
        device: u64,
        /// Size of the image, in bytes.
        actual: u64,
    },
    /// An attribute cannot be read or written.
    #[error(transparent)]
    Attribute(#[from] FileError),
    /// The image was replaced by another one.
    #[error(
        "RBD image {image} is another one than the device was made for; delete the device and create it anew"
    )]
    Other {
        /// `pool/image`.
        image: String,
    },
    /// Our own addresses cannot be recorded.
    #[error("cannot keep the record that lets a successor fence this client (--run-dir)")]
    Record(#[source] io::Error),
    /// Nothing is opened any more.
    #[error("the daemon is stopping")]
    Stopping,
    /// The UIO device cannot be found or opened.
    #[error(transparent)]
    Uio(#[from] UioError),
    /// The UIO device cannot be mapped.
    #[error("cannot map /dev/uio{minor}")]
    Map {
        /// N of `/dev/uioN`.
        minor: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The ring is not one this program can use.
    #[error(transparent)]
    Ring(#[from] AttachError),
    /// It took too long.
    #[error("the image is not open after {} s, giving up: is the cluster healthy (ceph -s)?", .0.as_secs())]
    Late(Duration),
    /// Threads, memory or files are short.
    #[error("cannot start the device's thread")]
    Thread(#[source] io::Error),
}

impl From<RecordError> for SetupError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Stopping => Self::Stopping,
            RecordError::File(error) => Self::Record(error),
        }
    }
}

impl SetupError {
    /// The errno that the administrator's command fails with.
    pub fn errno(&self) -> Errno {
        let of = |error: &io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        match self {
            Self::Config(CfgError::Subtype { .. }) => Errno::ENOENT,
            Self::Uio(UioError::Gone(_)) => Errno::ENODEV,
            Self::Uio(UioError::Busy { .. }) => Errno::EBUSY,
            Self::Uio(_) => Errno::EIO,
            Self::Config(_) | Self::Size { .. } | Self::Other { .. } => Errno::EINVAL,
            Self::Connect(error) => Errno::from_raw(error.errno()),
            Self::Open(error) => Errno::from_raw(error.errno()),
            Self::Fence { source, .. } => Errno::from_raw(source.errno),
            Self::Ask { .. } => Errno::EIO,
            Self::Note(error) => match error.errno {
                0 => Errno::EIO,
                errno => Errno::from_raw(errno),
            },
            Self::Late(_) => Errno::ETIMEDOUT,
            Self::Stopping => Errno::EAGAIN,
            Self::Attribute(error) => error.errno().map_or(Errno::EIO, Errno::from_raw),
            Self::Map { source, .. } | Self::Record(source) | Self::Thread(source) => of(source),
            Self::Ring(_) => Errno::ENOTSUP,
        }
    }
}

/// How the image's size must stand to the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeRule {
    /// A new device: anything but equal is the administrator's mistake.
    Equal,
    /// A device that was served before: its image may have grown since.
    AtLeast,
}

/// An open image. Dropping it closes the image, unless its device is still served, and then erases the
/// record. The order of the fields is the order of that.
pub(super) struct Storage {
    backend: Arc<dyn Backend>,
    record: Option<Record>,
    /// The image's id, which another image of the same name does not have.
    id: String,
    /// Of an erasure that is not over.
    note: Noted,
    /// Whether nobody but this device's clients can have written to the image since the dead one's last write.
    seamless: bool,
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
                    backend,
                    record: None,
                    id: String::new(),
                    note: Noted::default(),
                    seamless: true,
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
        let record = records.begin(&device, &addresses)?;
        let image = Image::open(cluster.clone(), &config.pool, &config.image)?;
        let seamless = match image.lock() {
            Some(lock) if !predecessors.is_empty() => succeed(&lock, records, &device, &predecessors)?,
            _ => false,
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
            seamless,
            time_outs,
            in_doubt: false,
        })
    }

    /// Whether what a dead client had accepted may still be carried out, writes too.
    pub(super) fn is_seamless(&self) -> bool {
        self.seamless
    }

    pub(super) fn note(&self) -> Noted {
        self.note.clone()
    }

    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    pub(super) fn image_id(&self) -> &str {
        &self.id
    }

    /// Leaves the record behind: storage may still be at work for this client.
    fn abandon(&mut self) {
        if let Some(record) = self.record.take() {
            record.keep();
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

/// Takes over the lock from fenced predecessors, if one of them has it. Whether it has passed from the one to the other
/// without a gap in which somebody else can have had it.
fn succeed(
    lock: &Lock<'_>,
    records: &Records,
    device: &DeviceKey,
    predecessors: &[String],
) -> Result<bool, SetupError> {
    let failed = |error: BackendError| SetupError::Ask {
        action: "take over the lock of a dead client",
        error: error.to_string(),
    };
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
    let seamless = held && lock.take_over(predecessors).map_err(failed)? && !records.has_gap(device);
    if held && !seamless {
        records.begin_gap(device).map_err(SetupError::Record)?;
    }
    uio_ring::crash_point!("adopt-locked");
    records.end_breaking(device);
    Ok(seamless)
}

impl Drop for Storage {
    /// An erasure that is not over is gone on with by whoever fences this client first: then nobody else can be at it.
    /// Invariant "no late write": closing an image does not end a write that timed out.
    fn drop(&mut self) {
        if self.backend.has_note() || self.in_doubt {
            self.abandon();
        }
    }
}

/// The storage of a device that is served; none once that has ended.
pub(super) struct Slot(Mutex<Option<Storage>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Storage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Puts another storage in, for the same device; the one before is closed. Without a device any more, the other
    /// is.
    pub(super) fn put(&self, storage: Storage) {
        let mut slot = self.lock();
        let old = if slot.is_some() { slot.replace(storage) } else { Some(storage) };
        drop(slot);
        drop(old);
    }
}

/// What a device looks like from configfs, read once: none of it changes while the device lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) size: u64,
    block_size: u32,
    max_sectors: u32,
}

impl Shape {
    pub(super) fn read(backstore: &Backstore) -> Result<Self, SetupError> {
        Ok(Self {
            size: backstore.dev_size()?,
            block_size: backstore.block_size()?,
            max_sectors: backstore.max_sectors()?,
        })
    }
}

/// Opens a device's UIO file, which only one process can have open.
pub(super) fn claim_ring(uio: &UioDevice) -> Result<OwnedFd, SetupError> {
    Ok(uio.open(UIO_PATIENCE)?)
}

/// Maps a device's ring.
pub(super) fn map(uio: &UioDevice, file: OwnedFd) -> Result<(Doorbell, Mapping), SetupError> {
    let mapping = Mapping::new(&file, uio.map_size);
    let mapping = mapping.map_err(|source| SetupError::Map { minor: uio.minor, source })?;
    Ok((Doorbell::new(file), mapping))
}

/// A ring, and what its predecessor had consumed.
pub(super) struct Attached {
    pub(super) ring: Ring,
    pub(super) recovered: Vec<Recovered>,
}

/// Starts the thread of a device whose ring is attached; on it `news` is told what becomes of storage, and `ended` is
/// called after ring and image are closed.
pub(super) fn serve(
    settings: &Settings,
    uio: &UioDevice,
    shape: Shape,
    Attached { ring, recovered }: Attached,
    storage: Storage,
    news: impl Fn(&Arc<Slot>, News) + Send + 'static,
    ended: impl FnOnce(&Exit) + Send + 'static,
) -> Result<Handle, SetupError> {
    let minor = uio.minor;
    let limits = storage.backend.limits();
    let geometry =
        Geometry { block_size: shape.block_size, size: shape.size, max_sectors: shape.max_sectors, limits };
    let with = if storage.note.ours { LogicalUnit::with_note } else { LogicalUnit::with_foreign_note };
    let lun = with(geometry, &storage.note.text);
    tell_of_note(&uio.name, &storage.note, lun.needs_intervention());
    let backstore = Backstore::new(&settings.sys, &uio.name);
    let config = uio.name.config.clone();
    let check = timeouts::check(settings, uio, storage.time_outs);
    let identity = move || {
        check();
        identity::read(&backstore, &config).map_err(|error| Chain(&error).to_string())
    };
    let served = Served::new(ring, lun, storage.backend.clone(), Arc::new(identity))
        .map_err(|errno| SetupError::Thread(errno.into()))?;
    let slot = Arc::new(Slot(Mutex::new(Some(storage))));
    let of_news = slot.clone();
    let served = served.with_recovered(recovered).on_news(move |what| news(&of_news, what));
    let ended = move |exit: &Exit| {
        let storage = slot.lock().take();
        if let Some(mut storage) = storage
            && matches!(exit, Exit::Failed(_))
        {
            storage.abandon();
        }
        ended(exit);
    };
    Handle::spawn(&format!("uio{minor}"), served, ended).map_err(SetupError::Thread)
}

/// Says why a disk is not ready.
fn tell_of_note(device: &DeviceName, Noted { text, ours }: &Noted, unclear: bool) {
    let note = String::from_utf8_lossy(text);
    let image = device.config.split_once('/').map_or("", |(_, image)| image);
    let image = image.split_once(';').map_or(image, |(image, _)| image);
    let key = NOTE_KEY.to_string_lossy();
    if unclear {
        tracing::error!(
            %device,
            note = &*note,
            "refusing medium access: the image was being erased in a way that this version does not know; \
             serve it with the version that began, or write the image off as erased in part: \
             'rbd image-meta remove {image} {key}', then restart"
        );
    } else if !note.is_empty() && !ours {
        tracing::error!(
            %device,
            note = &*note,
            "refusing medium access: another gateway was or is erasing the image; once it is done, restart, or send a new \
             FORMAT UNIT or SANITIZE; if nobody erases it any more and the data is wanted: \
             'rbd image-meta remove {image} {key}', then restart"
        );
    } else if !note.is_empty() {
        tracing::warn!(%device, note = &*note, "going on with an erasure that was interrupted");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Closing an image does not end a write that timed out: only the fence does.
    #[test]
    fn a_client_that_is_closed_in_doubt_leaves_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        let device = DeviceKey::new(0, "a");
        for (in_doubt, left) in [(false, 0), (true, 1)] {
            let storage = Storage {
                backend: Arc::new(memory::Memory::new(512)),
                record: Some(records.begin(&device, "10.0.0.1:0/1").unwrap()),
                id: String::new(),
                note: Noted::default(),
                seamless: false,
                time_outs: TimeOuts::default(),
                in_doubt: false,
            };
            let slot = Slot(Mutex::new(Some(storage)));
            if in_doubt {
                slot.doubt();
            }
            drop(slot);
            assert_eq!(records.predecessors(&device).len(), left, "in doubt: {in_doubt}");
        }
    }
}
