//! Byte offsets and numbers of the shared memory, written down a second time.
//!
//! Deliberately not taken from `tcmu-sys`: a model that shares its constants with the code under
//! test agrees with every mistake in them. Source: `include/uapi/linux/target_core_user.h`.

/// `tcmu_mailbox.version`, u16.
pub(super) const MAILBOX_VERSION: usize = 0;
/// `tcmu_mailbox.flags`, u16.
pub(super) const MAILBOX_FLAGS: usize = 2;
/// `tcmu_mailbox.cmdr_off`, u32.
pub(super) const MAILBOX_CMDR_OFF: usize = 4;
/// `tcmu_mailbox.cmdr_size`, u32.
pub(super) const MAILBOX_CMDR_SIZE: usize = 8;
/// `tcmu_mailbox.cmd_head`, u32, the kernel's.
pub(super) const MAILBOX_HEAD: usize = 12;
/// `tcmu_mailbox.cmd_tail`, u32, user space's, alone on its cache line.
pub(super) const MAILBOX_TAIL: usize = 64;
/// `sizeof(struct tcmu_mailbox)`; the ring starts here.
pub(super) const RING: usize = 128;

/// The only mailbox version.
pub(super) const VERSION: u16 = 2;
/// Out-of-order completion allowed.
pub(super) const CAP_OOOC: u16 = 1;
/// `READ_LEN` honoured.
pub(super) const CAP_READ_LEN: u16 = 2;
/// TMR entries possible.
pub(super) const CAP_TMR: u16 = 4;
/// `KEEP_BUF` honoured.
pub(super) const CAP_KEEP_BUF: u16 = 8;

/// Filler up to the end of the ring.
pub(super) const OP_PAD: u32 = 0;
/// A SCSI command.
pub(super) const OP_CMD: u32 = 1;
/// A task management notification.
pub(super) const OP_TMR: u32 = 2;
/// The bits of `len_op` that hold the op; the rest is the length.
pub(super) const OP_MASK: u32 = 7;

/// Bytes of an entry header: `len_op` u32 at 0, `cmd_id` u16 at 4, `kflags` at 6, `uflags` at 7.
pub(super) const HEADER: usize = 8;
/// `hdr.cmd_id`.
pub(super) const CMD_ID: usize = 4;
/// `hdr.kflags`.
pub(super) const KFLAGS: usize = 6;
/// `hdr.uflags`.
pub(super) const UFLAGS: usize = 7;
/// The command was not understood.
pub(super) const UFLAG_UNKNOWN_OP: u8 = 1;
/// `rsp.read_len` is valid.
pub(super) const UFLAG_READ_LEN: u8 = 2;
/// Keep id and data blocks after completion.
pub(super) const UFLAG_KEEP_BUF: u8 = 4;

/// `req.iov_cnt`, u32.
pub(super) const IOV_CNT: usize = 8;
/// `req.iov_bidi_cnt`, u32.
pub(super) const IOV_BIDI_CNT: usize = 12;
/// `req.cdb_off`, u64, from the start of the mapping.
pub(super) const CDB_OFF: usize = 24;
/// `req.iov[0]`; 16 bytes each.
pub(super) const IOV: usize = 48;
/// `rsp.scsi_status`, u8.
pub(super) const STATUS: usize = 8;
/// `rsp.read_len`, u32.
pub(super) const READ_LEN: usize = 12;
/// `rsp.sense_buffer`.
pub(super) const SENSE: usize = 16;
/// `TCMU_SENSE_BUFFERSIZE`.
pub(super) const SENSE_LEN: usize = 96;
/// `sizeof(struct tcmu_cmd_entry)`: the part of a slot a response may overwrite ends here.
pub(super) const CMD_ENTRY: usize = 112;

/// `tmr_type`, u8.
pub(super) const TMR_TYPE: usize = 8;
/// `cmd_cnt`, u32.
pub(super) const TMR_CMD_CNT: usize = 12;
/// `cmd_ids`, u16 each.
pub(super) const TMR_CMD_IDS: usize = 32;

const _: () = assert!(SENSE + SENSE_LEN == CMD_ENTRY);

/// The kernel's `scsi_command_size()`: the bytes it copies to the ring, whatever the initiator sent.
pub(super) fn cdb_len(cdb: &[u8]) -> usize {
    const BY_GROUP: [usize; 8] = [6, 10, 10, 12, 16, 12, 10, 10];
    let byte = |index: usize| cdb.get(index).copied().unwrap_or(0);
    if byte(0) == 0x7f { 8 + usize::from(byte(7)) } else { BY_GROUP[usize::from(byte(0) >> 5)] }
}
