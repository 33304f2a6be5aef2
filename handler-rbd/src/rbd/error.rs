//! What can go wrong: an operation (one map from errno to kind), a connection, an open. The latter two are
//! sentences that name the remedy, and a true errno for the kernel's netlink answer.

use super::ffi::Errno;
use crate::block::{BackendError, ErrorKind};
use std::path::PathBuf;

/// What an errno of an I/O call means. `Miscompare` is COMPARE AND WRITE's own and made in `aio`.
pub(super) fn backend_error(errno: Errno) -> BackendError {
    let kind = match errno.0 {
        // EBLOCKLISTED is ESHUTDOWN; EROFS comes when the exclusive lock was lost to another client.
        libc::ESHUTDOWN | libc::EROFS => ErrorKind::Fenced,
        libc::ETIMEDOUT => ErrorKind::TimedOut,
        libc::ENOSPC | libc::EDQUOT => ErrorKind::NoSpace,
        libc::ENOMEM => ErrorKind::NoResource,
        libc::EINVAL => ErrorKind::Invalid,
        libc::ENOENT => ErrorKind::Gone,
        _ => ErrorKind::Io,
    };
    BackendError { kind, errno: errno.0 }
}

/// Why there is no connection to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configuration file that was asked for cannot be read or parsed.
    #[error("cannot use {}: {}; name a readable, well-formed ceph.conf with conf=", path.display(), Errno(*errno))]
    Conf {
        /// The file.
        path: PathBuf,
        /// What reading it gave.
        errno: i32,
    },
    /// No configuration names a monitor.
    #[error(
        "no monitor address is configured; install /etc/ceph/ceph.conf with mon_host, or name one with conf="
    )]
    NoMonitors,
    /// There is no keyring for the user.
    #[error(
        "no keyring for client.{id} in {searched}; install one there that this program can read, name one \
         with keyring= in the configuration file, or choose another user with id="
    )]
    NoKeyring {
        /// The user, without "client.".
        id: String,
        /// The files that were looked for.
        searched: String,
    },
    /// The keyring has no key for the user, or not the cluster's.
    #[error(
        "client.{id} has no valid key ({}); its keyring must hold what 'ceph auth get client.{id}' prints",
        Errno(*errno)
    )]
    Denied {
        /// The user, without "client.".
        id: String,
        /// EACCES or EPERM.
        errno: i32,
    },
    /// No monitor answered.
    #[error(
        "no monitor of {mon_host} answered in {seconds} s; check that the monitors run and that this host reaches them"
    )]
    Unreachable {
        /// The configured monitors.
        mon_host: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A value in the configuration that librados refuses.
    #[error("librados refuses {option}={value}: {}; correct it where the LUN is configured", Errno(*errno))]
    Option {
        /// Name of the option.
        option: String,
        /// Its value.
        value: String,
        /// The library's errno.
        errno: i32,
    },
    /// Something else.
    #[error("{step}: {}; the monitors' log may say more", Errno(*errno))]
    Other {
        /// What was being done.
        step: &'static str,
        /// The library's errno.
        errno: i32,
    },
}

impl ConnectError {
    /// A positive errno for the answer to the kernel.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Conf { errno, .. }
            | Self::Denied { errno, .. }
            | Self::Option { errno, .. }
            | Self::Other { errno, .. } => *errno,
            Self::NoMonitors | Self::NoKeyring { .. } => libc::ENOENT,
            Self::Unreachable { .. } => libc::ETIMEDOUT,
        }
    }
}

/// Why an image could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The pool does not exist.
    #[error("there is no pool {pool}; see 'ceph osd pool ls' and correct the LUN's configuration string")]
    NoPool {
        /// Its name.
        pool: String,
    },
    /// The image does not exist.
    #[error("there is no image {image} in pool {pool}; see 'rbd ls {pool}'")]
    NoImage {
        /// The pool.
        pool: String,
        /// The image's name.
        image: String,
    },
    /// An override turns on a cache that acknowledges writes before they are durable.
    #[error(
        "{option}={value} is set for {level} {of}, and such a cache loses acknowledged writes; run 'rbd config {level} rm {of} {option}' and open again"
    )]
    CacheForced {
        /// `rbd_cache` or `rbd_persistent_cache_mode`.
        option: String,
        /// Its effective value.
        value: String,
        /// "image", "pool" or "global".
        level: &'static str,
        /// The image, pool or user it is set for.
        of: String,
    },
    /// An override lets librbd use the write buffers of a caller without a copy.
    #[error(
        "rbd_disable_zero_copy_writes={value} is set for {level} {of}, and then writes of a fenced client hang; run 'rbd config {level} rm {of} rbd_disable_zero_copy_writes' and open again"
    )]
    ZeroCopyForced {
        /// Its effective value.
        value: String,
        /// "image", "pool" or "global".
        level: &'static str,
        /// The image, pool or user it is set for.
        of: String,
    },
    /// The user lacks capabilities.
    #[error(
        "client.{id} may not open {pool}/{image} ({}); give it the capabilities mon 'profile rbd' osd 'profile rbd pool={pool}'",
        Errno(*errno)
    )]
    Denied {
        /// The user, without "client.".
        id: String,
        /// The pool.
        pool: String,
        /// The image's name.
        image: String,
        /// EACCES or EPERM.
        errno: i32,
    },
    /// The cluster did not answer in time.
    #[error("{pool}/{image} was not opened in time; see 'ceph health detail' for inactive placement groups")]
    TimedOut {
        /// The pool.
        pool: String,
        /// The image's name.
        image: String,
    },
    /// This client is on the cluster's blocklist.
    #[error("this client was blocklisted before it opened {pool}/{image}; connect again with a new client")]
    Fenced {
        /// The pool.
        pool: String,
        /// The image's name.
        image: String,
    },
    /// Something else.
    #[error("{step} of {pool}/{image}: {}; try 'rbd info {pool}/{image}' with the same user", Errno(*errno))]
    Io {
        /// What was being done.
        step: &'static str,
        /// The pool.
        pool: String,
        /// The image's name.
        image: String,
        /// librbd's errno.
        errno: i32,
    },
}

impl OpenError {
    /// A positive errno for the answer to the kernel.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoPool { .. } | Self::NoImage { .. } => libc::ENOENT,
            Self::CacheForced { .. } | Self::ZeroCopyForced { .. } => libc::EINVAL,
            Self::TimedOut { .. } => libc::ETIMEDOUT,
            Self::Fenced { .. } => libc::ESHUTDOWN,
            Self::Denied { errno, .. } | Self::Io { errno, .. } => *errno,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_its_kind() {
        let table = [
            (108, ErrorKind::Fenced),
            (30, ErrorKind::Fenced),
            (110, ErrorKind::TimedOut),
            (28, ErrorKind::NoSpace),
            (122, ErrorKind::NoSpace),
            (12, ErrorKind::NoResource),
            (22, ErrorKind::Invalid),
            (2, ErrorKind::Gone),
            (5, ErrorKind::Io),
            (4242, ErrorKind::Io),
        ];
        for (errno, kind) in table {
            assert_eq!(backend_error(Errno(errno)), BackendError { kind, errno });
        }
    }

    #[test]
    fn sentences_name_the_remedy() {
        let error = OpenError::CacheForced {
            option: "rbd_cache".into(),
            value: "true".into(),
            level: "image",
            of: "rbd/disk".into(),
        };
        assert_eq!(
            error.to_string(),
            "rbd_cache=true is set for image rbd/disk, and such a cache loses acknowledged writes; \
             run 'rbd config image rm rbd/disk rbd_cache' and open again"
        );
        assert_eq!(error.errno(), 22);
        let error = ConnectError::Conf { path: "/etc/ceph/x.conf".into(), errno: 2 };
        assert_eq!(
            error.to_string(),
            "cannot use /etc/ceph/x.conf: No such file or directory (os error 2); \
             name a readable, well-formed ceph.conf with conf="
        );
    }
}
