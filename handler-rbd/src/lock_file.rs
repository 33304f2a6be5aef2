//! One daemon per host: the lock file that the incumbent takes too, so the two exclude each other.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where tcmu-runner keeps its lock.
pub const DEFAULT_PATH: &str = "/run/tcmu.lock";

/// The lock, held until drop or death of the process.
#[derive(Debug)]
pub struct LockFile(#[allow(dead_code, reason = "held for its lock")] File);

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else serves this host.
    #[error("tcmu-runner is already running (it or another tcmu-rbd holds {}); stop it first", .0.display())]
    Held(PathBuf),
    /// The file cannot be made or locked.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl LockFile {
    /// Takes the lock, without waiting.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let io = |source: std::io::Error| LockError::Io { path: path.to_owned(), source };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
        let whole_file = libc::flock { l_type: F_WRLCK, l_whence: SEEK_SET, l_start: 0, l_len: 0, l_pid: 0 };
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file)) {
            Ok(_) => Ok(Self(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(LockError::Held(path.to_owned())),
            Err(errno) => Err(io(errno.into())),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "constants of struct flock's own fields")]
const F_WRLCK: libc::c_short = libc::F_WRLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation, reason = "constants of struct flock's own fields")]
const SEEK_SET: libc::c_short = libc::SEEK_SET as libc::c_short;
