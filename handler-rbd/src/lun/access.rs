//! READ, WRITE, COMPARE AND WRITE, PRE-FETCH, SYNCHRONIZE CACHE: extents become byte ranges.
//!
//! The length that the CDB implies and the length of the data buffer come from different hands and are both
//! checked before anything is touched. A buffer shorter than what the CDB moves is refused, and so is a
//! longer one with data for the disk, as the kernel does for its own backstores (`target_cmd_size_check`).
//! The sense is INVALID FIELD IN COMMAND INFORMATION UNIT: the CDB is right, the transport's length is not.
//! tcmu-runner called it a hardware error, which initiators take for a broken disk. A longer buffer for a
//! READ gets the blocks that the CDB names, and the initiator a residual.

use super::pieces::Pieces;
use super::{Job, LogicalUnit, Outcome, Step, Transfer, exchange};
use crate::block::{ByteRange, Limits, Op};
use crate::scsi::{Extent, Sense};

pub(super) fn read(unit: &LogicalUnit, extent: Extent, transfer: Transfer) -> Result<Step, Sense> {
    let range = unit.locate(extent)?;
    if range.len > transfer.bytes() {
        return Err(Sense::TRANSFER_LENGTH);
    }
    // SBC-3, "READ (10) command": no blocks, no error.
    if range.len == 0 {
        return Ok(Step::Done(Outcome::Good));
    }
    // FUA needs no care: a read never comes from a volatile cache here.
    Ok(Step::Run(Job::one(Op::Read(range))))
}

pub(super) fn write(unit: &LogicalUnit, extent: Extent, transfer: Transfer) -> Result<Step, Sense> {
    let range = unit.locate(extent)?;
    if range.len != transfer.bytes() {
        return Err(Sense::TRANSFER_LENGTH);
    }
    if range.len == 0 {
        return Ok(Step::Done(Outcome::Good));
    }
    // FUA needs no care: every write is durable when it completes.
    Ok(Step::Run(Job::one(Op::Write(range))))
}

pub(super) fn compare_and_write(
    unit: &LogicalUnit,
    extent: Extent,
    transfer: Transfer,
) -> Result<Step, Sense> {
    let max = unit.max_compare_and_write();
    if max == 0 {
        return Err(Sense::INVALID_OPCODE);
    }
    if extent.blocks.0 > u64::from(max) {
        // SBC-3, "COMPARE AND WRITE command": more than MAXIMUM COMPARE AND WRITE LENGTH.
        return Err(Sense::invalid_cdb_field(13, Some(7)));
    }
    let range = unit.locate(extent)?;
    // The blocks to compare with, then those to write. A NUMBER OF LOGICAL BLOCKS that does not go with the
    // data is pointed at, as one that is too large: it has one byte, and libiscsi's suite (1.19) asks for 256
    // blocks, which makes 0, and expects INVALID FIELD IN CDB. No standard says which it must be.
    if range.len.checked_mul(2) != Some(transfer.bytes()) {
        return Err(Sense::invalid_cdb_field(13, Some(7)));
    }
    if range.len == 0 {
        return Ok(Step::Done(Outcome::Good));
    }
    if !unit.is_atomic(range) {
        return Err(Sense::invalid_cdb_field(13, Some(7)));
    }
    Ok(Step::Run(exchange::job(range, None)))
}

/// One operation of storage on one object, which storage does whole or not at all.
///
/// The Block Limits page promises no more than what holds wherever a write lies: ranges of exactly one length, at
/// multiples of it, which divides objects. With a larger maximum an initiator could form a range across two objects,
/// also by joining two (Linux does), that would have to be refused. A longer range within one object is more than was
/// promised, and just as atomic.
pub(super) fn write_atomic(unit: &LogicalUnit, extent: Extent, transfer: Transfer) -> Result<Step, Sense> {
    let atomic = unit.atomic_write();
    if atomic == 0 {
        return Err(Sense::INVALID_OPCODE);
    }
    let range = unit.locate(extent)?;
    if range.len != transfer.bytes() {
        return Err(Sense::TRANSFER_LENGTH);
    }
    // SBC-4, "WRITE ATOMIC (16) command": no blocks, no error.
    if range.len == 0 {
        return Ok(Step::Done(Outcome::Good));
    }
    // Same clause: ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY are to be kept to.
    if !range.offset.is_multiple_of(atomic) {
        return Err(Sense::invalid_cdb_field(2, Some(7)));
    }
    if !range.len.is_multiple_of(atomic) || !Pieces::new(range, unit.limits.object_size).is_one() {
        return Err(Sense::invalid_cdb_field(12, Some(7)));
    }
    Ok(Step::Run(Job::one(Op::Write(range))))
}

/// Fetches nothing: there is no cache, and GOOD (not CONDITION MET) says that the blocks have no room in it (SBC-3,
/// "PRE-FETCH (10) command").
pub(super) fn pre_fetch(unit: &LogicalUnit, extent: Extent) -> Result<Step, Sense> {
    unit.locate(extent)?;
    Ok(Step::Done(Outcome::Good))
}

/// Flushes the whole image, which includes the extent. IMMED or not, the status waits for it: that is late
/// for IMMED = 1, but never a promise not kept.
pub(super) fn synchronize_cache(unit: &LogicalUnit, extent: Extent) -> Result<Step, Sense> {
    unit.locate(extent)?;
    Ok(Step::Run(Job::one(Op::Flush)))
}

/// The length of an atomic write in bytes, if nothing stands against it: a page of InnoDB.
const ATOMIC_WRITE: u64 = 16 << 10;

impl LogicalUnit {
    /// The bytes that can be written atomically at any multiple of their number; 0 if not even one block can.
    pub(super) fn atomic_write(&self) -> u64 {
        let (block, object) = (u64::from(self.block_size), self.limits.object_size);
        let most = match self.max_transfer {
            0 => u64::MAX, // no limit
            blocks => u64::from(blocks).saturating_mul(block),
        };
        let fits = |len: &u64| {
            len.is_multiple_of(block) && object.is_multiple_of(*len) && *len <= object && *len <= most
        };
        [ATOMIC_WRITE, object.min(ATOMIC_WRITE), block].into_iter().find(fits).unwrap_or(0)
    }

    /// MAXIMUM COMPARE AND WRITE LENGTH, in blocks: what the command's length field can hold and one operation of
    /// storage carries; none where that is less than a block.
    ///
    /// SBC-3 has this as the largest NUMBER OF LOGICAL BLOCKS that is accepted, and no field for where a range may
    /// begin. Of several blocks those that storage keeps together can be compared and written atomically; a
    /// range across such a line is refused, never compared and written in two parts.
    pub(super) fn max_compare_and_write(&self) -> u8 {
        let block = u64::from(self.block_size);
        let Limits { compare_and_write, object_size, .. } = self.limits;
        // Any one block must do.
        if !compare_and_write.is_multiple_of(block) || !object_size.is_multiple_of(block) {
            return 0;
        }
        u8::try_from(compare_and_write.min(object_size) / block).unwrap_or(u8::MAX)
    }

    /// Whether storage compares and writes this range, which is not empty, in one operation.
    fn is_atomic(&self, range: ByteRange) -> bool {
        let Limits { compare_and_write, object_size, .. } = self.limits;
        let within = |line| Pieces::new(range, line).is_one();
        within(compare_and_write) && within(object_size)
    }
}

impl Transfer {
    pub(super) fn bytes(self) -> u64 {
        u64::try_from(self.len).unwrap_or(u64::MAX)
    }
}
