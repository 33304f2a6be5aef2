//! The ABI of Linux `target_core_user`, as `include/uapi/linux/target_core_user.h` writes it down.
//!
//! Layout and numbers only: no logic beyond the header's own inline functions. The structs in
//! [`bindings`] are bindgen's output, checked in so that no user needs libclang;
//! `tests/bindings.rs` compares them with the installed header and `tests/layout.rs` compares the
//! offsets with a C compiler's.
//!
//! Nothing here may be used to make a reference into ring memory: the kernel writes there. The
//! offsets below are for copying fields out one by one.
#![cfg_attr(not(test), no_std)]

#[allow(missing_docs, missing_debug_implementations, non_camel_case_types, unreachable_pub, unsafe_code)]
#[allow(clippy::all, clippy::pedantic, clippy::restriction)]
#[rustfmt::skip]
pub mod bindings;

pub mod genl;
pub mod paths;

use bindings as b;
use core::mem::{align_of, offset_of, size_of};

/// Mailbox version this crate describes (`TCMU_MAILBOX_VERSION`).
pub const MAILBOX_VERSION: u16 = 2;

/// Size of the mailbox in bytes; the kernel sets `cmdr_off` to it.
pub const MAILBOX_SIZE: usize = size_of::<b::tcmu_mailbox>();

/// Capability bits in the mailbox's `flags`.
pub mod cap {
    /// Commands may be completed out of order.
    pub const OUT_OF_ORDER: u16 = 1 << 0;
    /// `READ_LEN` is honoured in responses to reads.
    pub const READ_LEN: u16 = 1 << 1;
    /// Task management entries appear on the ring when `tmr_notification` is set.
    pub const TMR: u16 = 1 << 2;
    /// A command can be answered while its data area is kept.
    pub const KEEP_BUF: u16 = 1 << 3;
}

/// Byte offsets of the mailbox's fields, from the start of the mapping.
pub mod mailbox {
    use super::{b, offset_of};
    /// `u16`, written by the kernel.
    pub const VERSION: usize = offset_of!(b::tcmu_mailbox, version);
    /// `u16` of [`cap`](super::cap) bits, written by the kernel.
    pub const FLAGS: usize = offset_of!(b::tcmu_mailbox, flags);
    /// `u32`: where the command ring starts, written by the kernel.
    pub const CMDR_OFF: usize = offset_of!(b::tcmu_mailbox, cmdr_off);
    /// `u32`: length of the command ring in bytes, written by the kernel.
    pub const CMDR_SIZE: usize = offset_of!(b::tcmu_mailbox, cmdr_size);
    /// `u32`: offset in the ring of the next entry the kernel will produce.
    pub const CMD_HEAD: usize = offset_of!(b::tcmu_mailbox, cmd_head);
    /// `u32`: offset in the ring of the oldest entry user space has not released. Ours to write.
    pub const CMD_TAIL: usize = offset_of!(b::tcmu_mailbox, cmd_tail);
}

/// Byte offsets in a ring entry, from the entry's start.
pub mod entry {
    use super::{b, offset_of, size_of};
    /// `u32`: length (multiple of 8) or'ed with the [`op`](super::op).
    pub const LEN_OP: usize = offset_of!(b::tcmu_cmd_entry_hdr, len_op);
    /// `u16`: id of the command; unique among the commands not yet completed.
    pub const CMD_ID: usize = offset_of!(b::tcmu_cmd_entry_hdr, cmd_id);
    /// `u8` of [`uflag`](super::uflag) bits, written by user space.
    pub const UFLAGS: usize = offset_of!(b::tcmu_cmd_entry_hdr, uflags);
    /// Size of the header, the only part a PAD entry has.
    pub const HEADER_SIZE: usize = size_of::<b::tcmu_cmd_entry_hdr>();
    /// Smallest size of a CMD entry: a response always fits (kernel `tcmu_cmd_get_base_cmd_size`).
    pub const CMD_SIZE: usize = size_of::<b::tcmu_cmd_entry>();

    /// `u32`: iovecs of the data buffer (request).
    pub const IOV_CNT: usize = HEADER_SIZE;
    /// `u32`: iovecs of the second, Data-In buffer of a bidirectional command (request).
    pub const IOV_BIDI_CNT: usize = HEADER_SIZE + 4;
    /// `u64`: where the CDB starts, from the start of the mapping (request).
    pub const CDB_OFF: usize = HEADER_SIZE + 16;
    /// Array of `{u64 offset from the start of the mapping, u64 length}` (request).
    pub const IOV: usize = HEADER_SIZE + 40;
    /// Size of one element of that array.
    pub const IOV_SIZE: usize = 16;

    /// `u8`: SAM status (response).
    pub const RSP_STATUS: usize = HEADER_SIZE;
    /// `u32`: valid bytes of a read, with `READ_LEN` (response).
    pub const RSP_READ_LEN: usize = HEADER_SIZE + 4;
    /// 96 bytes of sense (response).
    pub const RSP_SENSE: usize = HEADER_SIZE + 8;

    /// `u8`: type of a task management entry (see [`tmr`](super::tmr)).
    pub const TMR_TYPE: usize = offset_of!(b::tcmu_tmr_entry, tmr_type);
    /// `u32`: number of command ids in a task management entry.
    pub const TMR_CMD_CNT: usize = offset_of!(b::tcmu_tmr_entry, cmd_cnt);
    /// `u16` array of command ids in a task management entry.
    pub const TMR_CMD_IDS: usize = offset_of!(b::tcmu_tmr_entry, cmd_ids);
}

/// Bytes of sense data the kernel copies out of a response (`TCMU_SENSE_BUFFERSIZE`).
pub const SENSE_SIZE: usize = b::TCMU_SENSE_BUFFERSIZE as usize;

/// Entry opcodes (`enum tcmu_opcode`).
pub mod op {
    /// Filler up to the end of the ring.
    pub const PAD: u32 = super::b::TCMU_OP_PAD;
    /// A SCSI command.
    pub const CMD: u32 = super::b::TCMU_OP_CMD;
    /// A task management notification.
    pub const TMR: u32 = super::b::TCMU_OP_TMR;
}

/// Response flags (`TCMU_UFLAG_*`).
pub mod uflag {
    /// The entry's opcode is not known to user space.
    pub const UNKNOWN_OP: u8 = 0x1;
    /// `read_len` is valid.
    pub const READ_LEN: u8 = 0x2;
    /// Keep the command's id and data area after this completion.
    pub const KEEP_BUF: u8 = 0x4;
}

/// Types of task management entries (`TCMU_TMR_*`).
pub mod tmr {
    /// ABORT TASK.
    pub const ABORT_TASK: u8 = 1;
    /// LOGICAL UNIT RESET.
    pub const LUN_RESET: u8 = 5;
    /// Reset caused by PERSISTENT RESERVE OUT, PREEMPT AND ABORT.
    pub const LUN_RESET_PRO: u8 = 128;
}

/// The opcode in a header's `len_op` (kernel `tcmu_hdr_get_op`).
#[inline]
pub const fn hdr_op(len_op: u32) -> u32 {
    len_op & b::TCMU_OP_MASK
}

/// The entry's length in a header's `len_op` (kernel `tcmu_hdr_get_len`).
#[inline]
pub const fn hdr_len(len_op: u32) -> u32 {
    len_op & !b::TCMU_OP_MASK
}

/// Entries start and end on multiples of this (`TCMU_OP_ALIGN_SIZE`).
pub const OP_ALIGN: u32 = 8;

// The numbers that user space and kernel must share, as gcc computes them from the header.
const _: () = {
    assert!(MAILBOX_SIZE == 128 && align_of::<b::tcmu_mailbox>() == 64);
    assert!(mailbox::CMD_HEAD == 12 && mailbox::CMD_TAIL == 64);
    assert!(entry::HEADER_SIZE == 8 && entry::CMD_SIZE == 112 && SENSE_SIZE == 96);
    assert!(entry::CDB_OFF == 24 && entry::IOV == 48 && entry::RSP_SENSE == 16);
    assert!(entry::TMR_CMD_CNT == 12 && entry::TMR_CMD_IDS == 32);
    assert!(MAILBOX_VERSION as u32 == b::TCMU_MAILBOX_VERSION);
};
