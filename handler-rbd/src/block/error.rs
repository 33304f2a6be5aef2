//! Why an operation failed: small kinds that decisions are made on, and the errno for the log.

use std::fmt;

/// What a failure means to whoever asked. `lun::outcome` is the only map from this to SCSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// This client was shut out of the cluster (blocklisted, or lost the image's exclusive lock).
    Fenced,
    /// No answer within the operation time-out. The operation may still have happened or happen.
    TimedOut,
    /// Pool or cluster is full, or over quota.
    NoSpace,
    /// The image may not be written to.
    ReadOnly,
    /// Memory or another local resource is short; trying again may help.
    NoResource,
    /// The arguments were refused.
    Invalid,
    /// The range is not within the image, which is smaller than the disk.
    PastEnd,
    /// The image, its pool or its data is gone.
    Gone,
    /// COMPARE AND WRITE found a difference, first at this byte of the range.
    Miscompare {
        /// Offset in the compared range, in bytes.
        offset: u64,
    },
    /// Storage failed in another way.
    Io,
}

/// A failed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendError {
    /// For decisions.
    pub kind: ErrorKind,
    /// The storage library's errno, positive, for the log; 0 if there is none.
    pub errno: i32,
}

impl BackendError {
    /// An error of `kind` that no errno stands behind.
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, errno: 0 }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if self.errno != 0 {
            write!(f, " ({})", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for BackendError {}
