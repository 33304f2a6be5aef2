//! Why a device cannot be served.

use crate::block::BackendError;
use crate::cfgstring::CfgError;
use crate::kernel::file::FileError;
use crate::kernel::uio::UioError;
use crate::rbd::{CommandError, ConnectError, OpenError};
use crate::records::RecordError;
use nix::errno::Errno;
use std::io;
use std::time::Duration;
use uio_ring::AttachError;

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
    /// Not one block fits the device.
    #[error(
        "the device has {device} bytes, less than one block of {block}: make the image and the device larger"
    )]
    NoBlock {
        /// Size of the device, in bytes.
        device: u64,
        /// Length of a block, in bytes.
        block: u32,
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
            Self::Config(_) | Self::Size { .. } | Self::NoBlock { .. } | Self::Other { .. } => Errno::EINVAL,
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
