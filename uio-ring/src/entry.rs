//! One ring entry, copied out of shared memory and checked.

use crate::error::{Malformed, RingError};
use crate::mapping::Mapping;
use crate::token::{CmdId, Token};
use tcmu_sys::{OP_ALIGN, entry, hdr_len, hdr_op, op};

/// Longest CDB that is copied out. The longest command of a block device has 32 bytes; only the variable
/// length group (7Fh) allows more, and a target must know such a command to answer it otherwise than with
/// INVALID COMMAND OPERATION CODE, for which these bytes are enough.
pub const CDB_MAX: usize = 32;

/// A copy of a command's CDB. The entry does not say how long it is: these are the bytes up to the entry's
/// end, at most [`CDB_MAX`], so zeros of the entry's padding may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; CDB_MAX],
    len: u8,
}

impl Cdb {
    /// A CDB of these bytes; at most [`CDB_MAX`] are taken.
    #[allow(clippy::cast_possible_truncation, reason = "at most CDB_MAX")]
    pub fn new(from: &[u8]) -> Self {
        let len = from.len().min(CDB_MAX);
        let mut bytes = [0; CDB_MAX];
        bytes[..len].copy_from_slice(&from[..len]);
        Self { bytes, len: len as u8 }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What the kernel asked for.
#[derive(Debug)]
pub enum Entry {
    /// A SCSI command, to be answered.
    Command(Command),
    /// A task management function happened: a hint that needs no answer. The listed commands are still to
    /// be completed; an id that is not outstanding is stale.
    Tmr(Tmr),
}

/// A SCSI command.
#[derive(Debug)]
pub struct Command {
    /// What to do.
    pub cdb: Cdb,
    /// The duty to answer, and the data.
    pub token: Token,
}

/// A task management notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmr {
    /// One of [`tcmu_sys::tmr`].
    pub function: u8,
    /// The commands it was about.
    pub commands: Vec<CmdId>,
}

/// A checked entry header: the entry lies in the ring, at its boundary and with a sensible length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Offset of the entry from the start of the mapping.
    pub(crate) at: usize,
    /// Whole length in bytes.
    pub(crate) len: u32,
    pub(crate) op: u32,
    pub(crate) id: CmdId,
}

impl Header {
    /// Reads the header at `ring_offset` of a command ring that starts at `cmdr_off` and in which `limit`
    /// bytes up to the producer's cursor or the ring's end are valid.
    pub(crate) fn read(
        map: &Mapping,
        cmdr_off: usize,
        ring_offset: u32,
        limit: u32,
    ) -> Result<Self, RingError> {
        let at = cmdr_off + ring_offset as usize;
        let bad = |what| RingError::Malformed { ring_offset, what };
        let len_op = u32::from_ne_bytes(map.read(at + entry::LEN_OP)?);
        let id = CmdId(u16::from_ne_bytes(map.read(at + entry::CMD_ID)?));
        let (len, op) = (hdr_len(len_op), hdr_op(len_op));
        // All-zero memory decodes as PAD of length 0, on which a consumer would spin for ever.
        if len == 0 || len % OP_ALIGN != 0 || len > limit {
            return Err(bad(Malformed::Length(len)));
        }
        if op == op::CMD && (len as usize) < entry::CMD_SIZE {
            return Err(bad(Malformed::Length(len)));
        }
        Ok(Self { at, len, op, id })
    }

    /// Copies CDB and iovecs out of a CMD entry. Done before anything is completed on the ring: an answer
    /// to another command may be written over this entry's request at any time after that (invariant R3).
    pub(crate) fn command(
        &self,
        map: &Mapping,
        data_off: usize,
        ring_offset: u32,
        mut segment: impl FnMut(crate::mapping::IoVec),
    ) -> Result<Cdb, RingError> {
        let bad = |what| RingError::Malformed { ring_offset, what };
        let end = self.at + self.len as usize;
        let data = u32::from_ne_bytes(map.read(self.at + entry::IOV_CNT)?) as usize;
        let bidi = u32::from_ne_bytes(map.read(self.at + entry::IOV_BIDI_CNT)?) as usize;
        let iov_len = (data.saturating_add(bidi)).saturating_mul(entry::IOV_SIZE);
        if entry::IOV.saturating_add(iov_len) > self.len as usize {
            return Err(bad(Malformed::IovCount(data.saturating_add(bidi))));
        }
        for i in 0..data {
            let iov = self.at + entry::IOV + i * entry::IOV_SIZE;
            let base = u64::from_ne_bytes(map.read(iov)?);
            let len = u64::from_ne_bytes(map.read(iov + 8)?);
            let (Ok(base), Ok(len)) = (usize::try_from(base), usize::try_from(len)) else {
                return Err(bad(Malformed::Iov { base, len }));
            };
            if base < data_off {
                return Err(bad(Malformed::Iov { base: base as u64, len: len as u64 }));
            }
            segment(map.iovec(base, len)?);
        }
        let cdb_off = u64::from_ne_bytes(map.read(self.at + entry::CDB_OFF)?);
        let cdb_at = usize::try_from(cdb_off).unwrap_or(usize::MAX);
        if cdb_at < self.at + entry::IOV + iov_len || cdb_at >= end {
            return Err(bad(Malformed::CdbOffset(cdb_off)));
        }
        let mut bytes = [0; CDB_MAX];
        let len = (end - cdb_at).min(CDB_MAX);
        map.read_into(cdb_at, &mut bytes[..len])?;
        Ok(Cdb::new(&bytes[..len]))
    }

    /// Copies a TMR entry out.
    pub(crate) fn tmr(&self, map: &Mapping, ring_offset: u32) -> Result<Tmr, RingError> {
        let bad = |what| RingError::Malformed { ring_offset, what };
        if (self.len as usize) < entry::TMR_CMD_IDS {
            return Err(bad(Malformed::Length(self.len)));
        }
        let [function] = map.read(self.at + entry::TMR_TYPE)?;
        let count = u32::from_ne_bytes(map.read(self.at + entry::TMR_CMD_CNT)?) as usize;
        if count > (self.len as usize - entry::TMR_CMD_IDS) / size_of::<u16>() {
            return Err(bad(Malformed::IdCount(count)));
        }
        let ids = self.at + entry::TMR_CMD_IDS;
        let commands = (0..count).map(|i| Ok(CmdId(u16::from_ne_bytes(map.read(ids + 2 * i)?))));
        Ok(Tmr { function, commands: commands.collect::<Result<_, RingError>>()? })
    }
}
