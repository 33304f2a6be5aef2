//! From a device's name to a running device thread: storage first, the ring last.
//!
//! The order is what keeps the kernel safe: a device that cannot be served is refused before its ring is
//! ever mapped (an error answer to a mapped device is a kernel oops waiting to happen), and a predecessor's
//! client is fenced before the first command is read.

use super::error::SetupError;
use super::storage::{Slot, Storage};
use super::{Settings, identity, timeouts};
use crate::device::{Exit, Handle, News, Noted, Served};
use crate::kernel::DeviceName;
use crate::kernel::configfs::Backstore;
use crate::kernel::uio::UioDevice;
use crate::log::Chain;
use crate::lun::{Geometry, LogicalUnit};
use crate::rbd::NOTE_KEY;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use uio_ring::{Doorbell, Mapping, Recovered, Ring};

/// How long the ring's file may stay busy or absent: a predecessor is being torn down, or udev is late.
const UIO_PATIENCE: Duration = Duration::from_secs(5);

/// What a device looks like from configfs, read once: none of it changes while the device lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) size: u64,
    block_size: u32,
    max_sectors: u32,
}

impl Shape {
    pub(super) fn read(backstore: &Backstore) -> Result<Self, SetupError> {
        let (size, block_size) = (backstore.dev_size()?, backstore.block_size()?);
        // READ CAPACITY says the last block: there is no way to say that there is none.
        if size < block_size.into() {
            return Err(SetupError::NoBlock { device: size, block: block_size });
        }
        Ok(Self { size, block_size, max_sectors: backstore.max_sectors()? })
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
    /// When it was known that what is on the ring may be carried out, by [`crate::clock::since_boot`].
    pub(super) known_at: Duration,
}

/// Starts the thread of a device whose ring is attached; on it `news` is told what becomes of storage, and `ended` is
/// called with the storage once the ring is closed.
pub(super) fn serve(
    settings: &Settings,
    uio: &UioDevice,
    shape: Shape,
    Attached { ring, recovered, known_at }: Attached,
    storage: Storage,
    news: impl Fn(&Arc<Slot>, News) + Send + 'static,
    ended: impl FnOnce(&Exit, Option<Storage>) + Send + 'static,
) -> Result<Handle, SetupError> {
    let minor = uio.minor;
    let limits = storage.backend().limits();
    let geometry =
        Geometry { block_size: shape.block_size, size: shape.size, max_sectors: shape.max_sectors, limits };
    let note = storage.note();
    let with = if note.ours { LogicalUnit::with_note } else { LogicalUnit::with_foreign_note };
    let lun = with(geometry, &note.text);
    tell_of_note(&uio.name, note, lun.needs_intervention());
    let backstore = Backstore::new(&settings.sys, &uio.name);
    let config = uio.name.config.clone();
    let check = timeouts::check(settings, uio, storage.time_outs());
    let identity = move || {
        check();
        identity::read(&backstore, &config).map_err(|error| Chain(&error).to_string())
    };
    let served = Served::new(ring, lun, storage.backend(), Arc::new(identity))
        .map_err(|errno| SetupError::Thread(errno.into()))?;
    let slot = Arc::new(Slot::new(storage));
    let of_news = slot.clone();
    let served =
        served.with_recovered(recovered).known_at(known_at).on_news(move |what| news(&of_news, what));
    let ended = move |exit: &Exit| ended(exit, slot.take());
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
    use crate::kernel::Sys;
    use nix::errno::Errno;
    use std::fs;

    #[test]
    fn a_device_without_one_whole_block_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let name = DeviceName { hba: 0, name: "a".into(), config: "rbd/rbd/a".into() };
        let backstore = Backstore::new(&Sys::at(root.path()), &name);
        let attributes = backstore.dir().join("attrib");
        fs::create_dir_all(&attributes).unwrap();
        fs::write(attributes.join("hw_max_sectors"), "128").unwrap();
        for (size, block, fits) in [(0, 512, false), (100, 512, false), (512, 512, true), (512, 4096, false)]
        {
            fs::write(attributes.join("dev_size"), size.to_string()).unwrap();
            fs::write(attributes.join("hw_block_size"), block.to_string()).unwrap();
            match Shape::read(&backstore) {
                Ok(shape) => assert!(fits && shape.size == size, "{size} {block}"),
                Err(error) => {
                    let sentence = format!(
                        "the device has {size} bytes, less than one block of {block}: make the image and the device larger"
                    );
                    assert_eq!((fits, error.to_string(), error.errno()), (false, sentence, Errno::EINVAL));
                }
            }
        }
    }
}
