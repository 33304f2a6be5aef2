//! UNMAP and WRITE SAME: giving space back, and filling.
//!
//! What is deallocated here reads as zeros (LBPRZ), and an initiator may rely on that for every block that an
//! UNMAP names, aligned or not. A discard leaves blocks alone that share an allocation unit with others. So
//! UNMAP is "write zeroes": it gives back every whole unit too, and zeroes what lies beside.
//!
//! WRITE SAME is a promise about content: afterwards the extent holds the block given, UNMAP bit or not (SBC-3,
//! "WRITE SAME (10) command"). With UNMAP = 1 space may be given back only if the block is what deallocated
//! blocks read as. Any other block is written.
//!
//! One command may be for the whole disk. Storage gets it in pieces of a few objects, so that one command
//! cannot flood it and other commands come in between.

use super::fill::Fill;
use super::{Job, LogicalUnit, MAX_UNMAP_DESCRIPTORS, Outcome, Step, Transfer};
use crate::block::ByteRange;
use crate::scsi::extended_copy::MAX_LIST;
use crate::scsi::sanitize::{Sanitize, Service};
use crate::scsi::unmap::{descriptor_at, descriptors};
use crate::scsi::{Command, Extent, Sense, format};

/// Objects to fill with one operation.
const PIECE_OBJECTS: u64 = 4;

/// What WRITE SAME asks; see [`Command::WriteSame`].
pub(super) struct WriteSame {
    pub(super) extent: Extent,
    pub(super) unmap: bool,
    pub(super) no_data: bool,
    pub(super) blocks_at: u16,
}

pub(super) fn parameters(command: &Command, block_size: u32) -> usize {
    match *command {
        Command::Unmap { list } | Command::ModeSelect { list, .. } => list.into(),
        Command::ExtendedCopy { list } => usize::try_from(list).unwrap_or(usize::MAX).min(MAX_LIST),
        Command::Sanitize(Sanitize { service: Service::Overwrite { list }, .. }) => list.into(),
        Command::FormatUnit { list: Some(_) } => usize::try_from(format::longest(block_size)).unwrap_or(0),
        Command::WriteSame { unmap: true, no_data: false, .. } => usize::try_from(block_size).unwrap_or(0),
        _ => 0,
    }
}

pub(super) fn write_same(
    unit: &LogicalUnit,
    ask: &WriteSame,
    transfer: Transfer,
    params: &[u8],
) -> Result<Step, Sense> {
    if ask.extent.blocks.0 == 0 {
        // WSNZ = 1 in the Block Limits page: "to the end of the disk" is not supported.
        return Err(Sense::invalid_cdb_field(ask.blocks_at, Some(7)));
    }
    let range = unit.locate(ask.extent)?;
    if ask.no_data {
        // With or without UNMAP the extent reads as zeros after this. Whether blocks stay mapped cannot be
        // seen from outside.
        return Ok(zeroes(unit, range));
    }
    if transfer.bytes() != u64::from(unit.block_size) {
        return Err(Sense::TRANSFER_LENGTH);
    }
    if ask.unmap {
        // Not having been given the block must not look like a block of zeros.
        if u64::try_from(params.len()) != Ok(transfer.bytes()) {
            return Err(Sense::INTERNAL_FAILURE);
        }
        if params.iter().all(|&byte| byte == 0) {
            return Ok(zeroes(unit, range));
        }
    }
    let fill = Fill::pattern(range, unit.block_size, piece(unit));
    Ok(Step::Run(Job::many(fill)))
}

/// An extent that becomes zeros.
fn zeroes(unit: &LogicalUnit, range: ByteRange) -> Step {
    let mut fill = Fill::zeroes(piece(unit));
    fill.push(range);
    Step::Run(Job::many(fill))
}

/// Operations end at multiples of this many bytes.
pub(super) fn piece(unit: &LogicalUnit) -> u64 {
    unit.whole_blocks(unit.limits.object_size.saturating_mul(PIECE_OBJECTS))
}

/// Checks the whole list before it begins: a list with a mistake unmaps nothing.
pub(super) fn unmap(unit: &LogicalUnit, list_len: u16, params: &[u8]) -> Result<Step, Sense> {
    // Fewer parameters than the CDB says is what a data buffer shorter than that gives.
    let list = params.get(..usize::from(list_len)).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let list = descriptors(list)?;
    let mut fill = Fill::zeroes(piece(unit));
    let mut total: u64 = 0;
    let max_total = u64::from(unit.max_unmap());
    if list.len() > MAX_UNMAP_DESCRIPTORS {
        return Err(Sense::invalid_parameter(2));
    }
    for (index, extent) in list.enumerate() {
        // SBC-3, "UNMAP parameter list": MAXIMUM UNMAP LBA COUNT limits the sum over all descriptors. For
        // tcmu-runner it limited each.
        total = total.saturating_add(extent.blocks.0);
        if total > max_total {
            return Err(Sense::invalid_parameter(descriptor_at(index).saturating_add(8)));
        }
        let range = unit.locate(extent)?;
        // SBC-3, same clause: a descriptor for no blocks is not an error.
        if range.len > 0 && !fill.push(range) {
            return Err(Sense::INTERNAL_FAILURE);
        }
    }
    if fill.is_empty() {
        return Ok(Step::Done(Outcome::Good));
    }
    Ok(Step::Run(Job::many(fill)))
}
