//! What can go wrong with a ring: never a command's fault, always the ring's as a whole.

use crate::journal::JournalError;
use crate::mapping::OutOfBounds;
use std::io;

/// The ring cannot be used (further). No answer may be published on it after any of these but
/// [`RingError::Kick`]. Each says its cause itself, so none has a `source` that would say it once more.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// An offset found in shared memory leads outside the mapping.
    #[error("ring is broken: {0}")]
    OutOfBounds(OutOfBounds),
    /// An entry that the kernel cannot have written.
    #[error("ring is broken: entry at {ring_offset:#x}: {what}")]
    Malformed {
        /// Where the entry starts, from the start of the command ring.
        ring_offset: u32,
        /// What is wrong with it.
        what: Malformed,
    },
    /// `cmd_head` or `cmd_tail` is not where only we or the kernel can have put it.
    #[error("ring is broken: {cursor} is {value:#x} in a ring of {cmdr_size:#x} bytes")]
    Cursor {
        /// Which of the two.
        cursor: &'static str,
        /// Its value.
        value: u32,
        /// Length of the ring.
        cmdr_size: u32,
    },
    /// A cursor was taken back under us: somebody wrote to the device's `action/reset_ring`. Every command
    /// consumed before is void, its id and its pages may already be another command's.
    #[error(
        "ring was reset from outside: cmd_tail is {found:#x}, we published {published:#x}; \
         cmd_head is {head:#x}, we consumed up to {consumed:#x}, and other entries may be there now"
    )]
    Reset {
        /// What we last stored as `cmd_tail`.
        published: u32,
        /// What is there now.
        found: u32,
        /// Where we were to go on consuming.
        consumed: u32,
        /// The kernel's `cmd_head`, which cannot be before that.
        head: u32,
    },
    /// The doorbell could not be rung.
    #[error("device is gone: {0}")]
    Kick(io::Error),
}

impl From<OutOfBounds> for RingError {
    fn from(error: OutOfBounds) -> Self {
        Self::OutOfBounds(error)
    }
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its length is zero, unaligned, too small for its kind, or reaches past the producer's cursor.
    #[error("length {0}")]
    Length(u32),
    /// Its iovecs do not fit into it.
    #[error("{0} iovecs")]
    IovCount(usize),
    /// An iovec leads outside the data area.
    #[error("iovec of {len} bytes at {base:#x}")]
    Iov {
        /// Offset from the start of the mapping.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Its CDB lies outside the entry.
    #[error("CDB at {0:#x}")]
    CdbOffset(u64),
    /// Its command ids do not fit into it.
    #[error("{0} command ids")]
    IdCount(usize),
}

/// Why a device cannot be attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The mailbox says another version than 2.
    #[error("the kernel's ring has mailbox version {0}; this program knows version 2 only")]
    Version(u16),
    /// Out-of-order completion is not offered.
    #[error(
        "the kernel does not offer out-of-order completion (mailbox flags {0:#x}); Linux 4.6 or newer is needed"
    )]
    NoOutOfOrder(u16),
    /// Ring offset or size make no sense in a mapping of this size.
    #[error("mailbox describes a ring of {cmdr_size:#x} bytes at {cmdr_off:#x} in a mapping of {mapped:#x}")]
    Geometry {
        /// Start of the command ring.
        cmdr_off: u32,
        /// Length of the command ring.
        cmdr_size: u32,
        /// Length of the mapping.
        mapped: usize,
    },
    /// A cursor or entry in it is broken.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl From<OutOfBounds> for AttachError {
    fn from(error: OutOfBounds) -> Self {
        Self::Ring(error.into())
    }
}

/// Why a ring cannot be gone on with where a predecessor stopped.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It cannot be attached to at all.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It must be reset.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
