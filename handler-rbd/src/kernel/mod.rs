//! LIO's control surface: sysfs, configfs and generic netlink, as typed values.
//!
//! Nothing here knows SCSI, the command ring or Ceph, and nothing here decides: these modules say
//! what the kernel said and do what they are told. All paths hang below one [`Sys`], so tests run
//! on a directory of their own. Reading configfs can block for as long as an administrator's
//! command does, so no thread that must answer quickly may call [`configfs`] or [`alua`].

mod access;
pub mod alua;
pub mod configfs;
pub mod device_name;
pub mod event;
pub mod file;
pub mod module;
pub mod netlink;
pub mod netlink_thread;
pub mod responder;
pub mod uio;

use std::path::{Path, PathBuf};

pub use device_name::DeviceName;

/// Where `/sys` and `/dev` are found: the machine's own, or a directory that stands for `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sys {
    root: PathBuf,
}

impl Sys {
    /// The machine's own file system.
    pub fn host() -> Self {
        Sys { root: PathBuf::from("/") }
    }

    /// A directory that holds `sys/` and `dev/`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Sys { root: root.into() }
    }

    /// Where the absolute path `absolute` is found below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }
}

impl Default for Sys {
    fn default() -> Self {
        Sys::host()
    }
}
