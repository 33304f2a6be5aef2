//! READ, WRITE, COMPARE AND WRITE, PRE-FETCH, SYNCHRONIZE CACHE: extents become byte ranges.
//!
//! The length that the CDB implies and the length of the data buffer come from different hands and are both
//! checked before anything is touched. A buffer shorter than what the CDB moves is refused, and so is a
//! longer one with data for the disk, as the kernel does for its own backstores (`target_cmd_size_check`).
//! The sense is INVALID FIELD IN COMMAND INFORMATION UNIT: the CDB is right, the transport's length is not.
//! tcmu-runner called it a hardware error, which initiators take for a broken disk. A longer buffer for a
//! READ gets the blocks that the CDB names, and the initiator a residual.

use super::{Job, LogicalUnit, Outcome, Step, Transfer};
use crate::block::Op;
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
    if extent.blocks.0 > u64::from(unit.max_compare_and_write()) {
        // SBC-3, "COMPARE AND WRITE command": more than MAXIMUM COMPARE AND WRITE LENGTH.
        return Err(Sense::invalid_cdb_field(13, Some(7)));
    }
    let range = unit.locate(extent)?;
    // The block to compare with, then the block to write. A NUMBER OF LOGICAL BLOCKS that does not go with the
    // data is pointed at, as one that is too large: it has one byte, and libiscsi's suite (1.19) asks for 256
    // blocks, which makes 0, and expects INVALID FIELD IN CDB. No standard says which it must be.
    if range.len.checked_mul(2) != Some(transfer.bytes()) {
        return Err(Sense::invalid_cdb_field(13, Some(7)));
    }
    if range.len == 0 {
        return Ok(Step::Done(Outcome::Good));
    }
    // Only within one object is storage atomic. With blocks that divide objects this always holds.
    let last = range.offset + (range.len - 1);
    let object = unit.limits.object_size.max(1);
    if range.offset / object != last / object {
        return Err(Sense::INTERNAL_FAILURE);
    }
    Ok(Step::Run(Job::one(Op::CompareAndWrite(range))))
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

impl LogicalUnit {
    /// MAXIMUM COMPARE AND WRITE LENGTH, in blocks: one, as tcmu-runner, or none where storage cannot even
    /// do that atomically.
    pub(super) fn max_compare_and_write(&self) -> u8 {
        u8::from(self.limits.compare_and_write >= u64::from(self.block_size))
    }
}

impl Transfer {
    pub(super) fn bytes(self) -> u64 {
        u64::try_from(self.len).unwrap_or(u64::MAX)
    }
}
