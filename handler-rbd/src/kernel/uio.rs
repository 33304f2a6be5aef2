//! TCMU's UIO devices: finding them in sysfs, opening their nodes.
//!
//! Minor numbers are reused, and a device can go while it is looked at: what vanished is skipped,
//! never an error. Opening waits, up to a deadline, for two conditions that end by themselves:
//! the node appears late (udev, or a bind-mounted `/dev` in a container), and EBUSY lasts until
//! the predecessor's descriptors and mappings are gone.

use super::device_name::{DeviceName, NameError};
use super::{Sys, file, file::FileError};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tcmu_sys::paths::{NAME_PREFIX, UIO_CLASS};

/// How often a node that is missing or busy is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// What a minor number stands for right now. The kernel gives a minor away again at once, but never the
/// inode of the directory in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    /// N of `/dev/uioN`.
    pub minor: u32,
    /// Inode of `/sys/class/uio/uioN/`.
    pub inode: u64,
}

/// A TCMU device that the kernel shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UioDevice {
    /// N of `/dev/uioN`.
    pub minor: u32,
    /// Which device of that minor.
    pub instance: Instance,
    /// Which backstore it is.
    pub name: DeviceName,
    /// Length to map, exactly.
    pub map_size: usize,
    /// The device node.
    pub dev: PathBuf,
    class: PathBuf,
}

/// Failure to find or open a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UioError {
    /// A file in sysfs is not as expected.
    #[error("cannot look at UIO devices")]
    File(#[from] FileError),
    /// Its name is not a TCMU device's.
    #[error("uio{minor} is not usable")]
    Name {
        /// N of `/dev/uioN`.
        minor: u32,
        /// What is wrong with the name.
        source: NameError,
    },
    /// The device was removed.
    #[error("uio{0} has been removed")]
    Gone(u32),
    /// The node did not appear.
    #[error("{} did not appear within {waited:?}; in a container, bind-mount the host's /dev", path.display())]
    NoNode {
        /// The node.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Another process has it open.
    #[error("{} is still open elsewhere after {waited:?}; stop the other handler (`fuser {}`)", path.display(), path.display())]
    Busy {
        /// The node.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The node cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// All TCMU devices, by minor number. One that cannot be understood is logged and left out.
pub fn scan(sys: &Sys) -> Result<Vec<UioDevice>, UioError> {
    let names = match file::entries(&sys.path(UIO_CLASS)) {
        // No UIO driver has ever been loaded.
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        names => names?,
    };
    let minors = names.iter().filter_map(|name| name.strip_prefix("uio")?.parse().ok());
    let mut devices = Vec::new();
    for minor in minors {
        match UioDevice::read(sys, minor) {
            Ok(device) => devices.extend(device),
            Err(error) => {
                tracing::warn!(minor, error = &error as &dyn std::error::Error, "a UIO device is left out");
            }
        }
    }
    devices.sort_by_key(|device: &UioDevice| device.minor);
    Ok(devices)
}

impl UioDevice {
    /// The device of an event.
    pub fn by_minor(sys: &Sys, minor: u32) -> Result<Self, UioError> {
        Self::read(sys, minor)?.ok_or(UioError::Gone(minor))
    }

    /// `None` if it has gone or is another driver's.
    fn read(sys: &Sys, minor: u32) -> Result<Option<Self>, UioError> {
        let class = sys.path(UIO_CLASS).join(format!("uio{minor}"));
        let name = match file::bytes(&class.join("name")) {
            // EINVAL: it is unregistered but its directory is still there (`name_show` in uio.c).
            Err(error) if error.is_missing() || error.errno() == Some(libc::EINVAL) => return Ok(None),
            name => name?,
        };
        if !name.starts_with(NAME_PREFIX.as_bytes()) {
            return Ok(None);
        }
        let name = DeviceName::parse(&name).map_err(|source| UioError::Name { minor, source })?;
        let map_size = match map_size(&class.join("maps/map0/size")) {
            Err(error) if error.is_missing() => return Ok(None),
            size => size?,
        };
        let Ok(directory) = class.metadata() else { return Ok(None) };
        let instance = Instance { minor, inode: directory.ino() };
        let dev = sys.path(format!("/dev/uio{minor}"));
        Ok(Some(UioDevice { minor, instance, name, map_size, dev, class }))
    }

    /// Opens the node, waiting up to `patience` for it to appear and to be free.
    pub fn open(&self, patience: Duration) -> Result<OwnedFd, UioError> {
        let start = Instant::now();
        loop {
            // std adds O_CLOEXEC.
            let opened =
                File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&self.dev);
            let source = match opened {
                Ok(file) => return Ok(file.into()),
                Err(error) => error,
            };
            let path = self.dev.clone();
            let errno = source.raw_os_error();
            // EINVAL as above, in `uio_open`.
            if matches!(errno, Some(libc::ENODEV | libc::ENXIO | libc::EINVAL)) || !self.class.exists() {
                return Err(UioError::Gone(self.minor));
            }
            if !matches!(errno, Some(libc::ENOENT | libc::EBUSY | libc::EINTR)) {
                return Err(UioError::Open { path, source });
            }
            let waited = start.elapsed();
            if waited >= patience {
                return Err(match errno {
                    Some(libc::ENOENT) => UioError::NoNode { path, waited },
                    _ => UioError::Busy { path, waited },
                });
            }
            std::thread::sleep(RETRY.min(patience - waited));
        }
    }
}

/// Reads `0x%016x`.
fn map_size(path: &Path) -> Result<usize, FileError> {
    let text = file::text(path)?;
    let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
    digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).ok_or_else(|| FileError::Content {
        path: path.to_owned(),
        found: text,
        wanted: "a hexadecimal size",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("dev")).unwrap();
            Machine(root)
        }

        fn sys(&self) -> Sys {
            Sys::at(self.0.path())
        }

        fn class(&self, minor: u32) -> PathBuf {
            self.0.path().join(format!("sys/class/uio/uio{minor}"))
        }

        fn node(&self, minor: u32) -> PathBuf {
            self.0.path().join(format!("dev/uio{minor}"))
        }

        fn add(&self, minor: u32, name: &[u8]) {
            let class = self.class(minor);
            fs::create_dir_all(class.join("maps/map0")).unwrap();
            fs::write(class.join("name"), name).unwrap();
            fs::write(class.join("maps/map0/size"), "0x0000000040800000\n").unwrap();
        }
    }

    #[test]
    fn scan_finds_tcmu_devices_in_order() {
        let machine = Machine::new();
        machine.add(10, b"tcm-user/1/d10/rbd/p/ten\n");
        machine.add(2, b"tcm-user/0/d2/rbd/p/two\n");
        machine.add(3, b"uio_pci_generic\n");
        machine.add(4, b"tcm-user/x/bad/name\n");
        fs::create_dir_all(machine.class(5)).unwrap();

        let devices = scan(&machine.sys()).unwrap();

        let found: Vec<_> = devices.iter().map(|d| (d.minor, d.name.name.as_str(), d.map_size)).collect();
        assert_eq!(found, [(2, "d2", 0x4080_0000), (10, "d10", 0x4080_0000)]);
        assert_eq!(devices[0].dev, machine.node(2));
    }

    #[test]
    fn no_uio_class_means_no_devices() {
        assert_eq!(scan(&Machine::new().sys()).unwrap(), []);
    }

    #[test]
    fn a_minor_that_is_not_there_has_gone() {
        let machine = Machine::new();
        let error = UioDevice::by_minor(&machine.sys(), 7).unwrap_err();
        assert!(matches!(error, UioError::Gone(7)), "{error}");
    }

    #[test]
    fn open_waits_for_a_late_node() {
        let machine = Machine::new();
        machine.add(0, b"tcm-user/0/d/rbd/p/i");
        let device = UioDevice::by_minor(&machine.sys(), 0).unwrap();
        let node = machine.node(0);
        let udev = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(60));
            fs::write(node, "").unwrap();
        });
        device.open(Duration::from_secs(20)).unwrap();
        udev.join().unwrap();
    }

    #[test]
    fn open_gives_up_at_the_deadline() {
        let machine = Machine::new();
        machine.add(0, b"tcm-user/0/d/rbd/p/i");
        let device = UioDevice::by_minor(&machine.sys(), 0).unwrap();
        let error = device.open(Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, UioError::NoNode { .. }), "{error}");

        fs::remove_dir_all(machine.class(0)).unwrap();
        let error = device.open(Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, UioError::Gone(0)), "{error}");
    }

    #[test]
    fn sizes_are_hexadecimal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("size");
        for (text, want) in
            [("0x0000000000500000\n", Some(0x50_0000)), ("500000", None), ("0x", None), ("0x+1", None)]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(map_size(&path).ok(), want);
        }
    }
}
