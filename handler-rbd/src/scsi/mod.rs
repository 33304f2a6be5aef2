//! Bytes to values and back: command descriptor blocks, sense data, reply pages, parameter lists.
//!
//! Pure functions. Knows nothing of the ring, of I/O or of Ceph, and needs no unsafe. Names are those of
//! SPC-4 and SBC-3. Clauses are cited by title: numbers change from revision to revision.

pub mod alua;
mod bytes;
pub mod capacity;
mod cdb;
pub mod command;
pub mod defects;
pub mod extended_copy;
pub mod format;
pub mod identity;
pub mod inquiry;
pub mod lba_status;
pub mod log_pages;
pub mod mode;
pub mod mode_select;
pub mod opcode;
mod parse;
pub mod sanitize;
pub mod sense;
pub mod supported;
pub mod task_management;
pub mod unmap;
pub mod variable;
pub mod vpd;

pub use command::{Command, DataPhase, decode};
pub use sense::Sense;

/// A logical block address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lba(pub u64);

/// A number of logical blocks. Sixty-four bits, so that sums of what CDBs can say do not wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocks(pub u64);

/// Consecutive logical blocks, as asked for: not yet checked against any capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub lba: Lba,
    /// How many.
    pub blocks: Blocks,
}
