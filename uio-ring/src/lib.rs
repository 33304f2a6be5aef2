//! The user-space end of the TCMU command ring, and nothing about SCSI.
//!
//! ```text
//!            mailbox        command ring                                   data area
//!  mapping  |..head..tail..|....[done][ask ][ask ][done].................|..pages of commands..|
//!                               ^published   ^tail      ^next      ^cmd_head
//! ```
//!
//! The kernel appends entries at `cmd_head`; the iterator [`Ring`] copies them out up to there; answers are
//! written, in whatever order commands finish, into the oldest slot that is not answered yet
//! ([`Ring::complete`]); [`Ring::flush`] makes them visible with one store and one kick.
//!
//! # Invariants
//! Each names the kernel function (`drivers/target/target_core_user.c`) that makes it true; docs/ring.md
//! has the lines.
//!
//! * **R1** On the circle: kernel-cleaned <= `cmd_tail` (shared) <= tail (ours) <= next (ours) <= `cmd_head`.
//! * **R2** `cmd_head` is read with Acquire: `queue_cmd_ring` publishes it with `smp_store_release`.
//! * **R3** After an entry was consumed its slot is not ours to read: the answer to another command may be
//!   written there. So header, CDB and iovecs are copied out first. Only a mark in `uflags` is looked at again.
//! * **R4** An answer goes to the slot at tail, with the finished command's id: `tcmu_handle_completions`
//!   finds the command by id, not by position. It always fits (`tcmu_cmd_get_base_cmd_size`).
//! * **R5** PAD and TMR entries are passed over at tail; an unknown entry is marked `UNKNOWN_OP`.
//! * **R6** Each id is answered once: twice is "cmd_id not found, ring is broken".
//! * **R7** Answers become visible by one Release store of `cmd_tail` per batch, then one kick, by the one
//!   thread that owns the ring.
//! * **R8** The data area is a command's between consume and complete; the [`Token`] is the only way to it.
//!
//! # Assumptions
//! One thread owns a [`Ring`]. The kernel is trusted to be the kernel, but nothing read from shared memory
//! is used unchecked: a bad length, offset or count is a [`RingError`], after which nothing is published.
//! Nobody resets the ring of a live process; if somebody does, it is noticed before anything is published.

#[macro_use]
pub mod crash;
mod cursor;
mod doorbell;
mod entry;
mod error;
mod journal;
mod mapping;
#[cfg(feature = "test-utils")]
pub mod mock;
mod ring;
mod segments;
mod token;

/// What `cursor` is compiled with; its test on loom has others.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicU32, Ordering};
}

pub use doorbell::Doorbell;
pub use entry::{CDB_MAX, Cdb, Command, Entry, Tmr};
pub use error::{AttachError, Malformed, ResumeError, RingError};
pub use journal::{JournalError, JournalFile, Stage};
pub use mapping::{IoVec, Mapping, OutOfBounds};
pub use ring::{Features, Recovered, Response, Resumed, Ring};
pub use segments::Segments;
pub use token::{CmdId, Token};
