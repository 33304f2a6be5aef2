//! Commands as values, and how they are read from a command descriptor block.
//!
//! [`decode`] gives each of the 256 opcodes and each service action an answer and never panics. It checks
//! what a CDB can tell alone; what depends on the disk (capacity, block size, data buffer) is left to `lun`.

use super::cdb::{CDB_MAX, Cdb};
use super::opcode::lookup;
use super::sense::Sense;
use super::{Blocks, Extent, Lba};

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense {
        /// DESC: in descriptor format.
        descriptor: bool,
        /// ALLOCATION LENGTH.
        allocation: u8,
    },
    /// INQUIRY.
    Inquiry {
        /// PAGE CODE if EVPD = 1; otherwise the standard data is asked for.
        page: Option<u8>,
        /// ALLOCATION LENGTH.
        allocation: u16,
    },
    /// MODE SENSE(6) and (10).
    ModeSense(ModeSense),
    /// START STOP UNIT with POWER CONDITION = START_VALID and START = 1; all else is refused.
    StartUnit,
    /// READ CAPACITY(10).
    ReadCapacity10,
    /// READ CAPACITY(16).
    ReadCapacity16 {
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    /// READ(6), (10), (12), (16).
    Read(Extent),
    /// WRITE(6), (10), (12), (16).
    Write(Extent),
    /// COMPARE AND WRITE.
    CompareAndWrite(Extent),
    /// SYNCHRONIZE CACHE(10) and (16); zero blocks mean all to the end.
    SynchronizeCache(Extent),
    /// WRITE SAME(10) and (16).
    WriteSame {
        /// Where to; zero blocks mean all to the end, if that were allowed.
        extent: Extent,
        /// UNMAP.
        unmap: bool,
        /// NDOB: there is no data; zeros are meant.
        no_data: bool,
        /// Where NUMBER OF LOGICAL BLOCKS is in the CDB, for the field pointer.
        blocks_at: u16,
    },
    /// UNMAP.
    Unmap {
        /// PARAMETER LIST LENGTH.
        list: u16,
    },
    /// REPORT SUPPORTED OPERATION CODES.
    ReportSupportedOperationCodes {
        /// Which of them.
        selection: Selection,
        /// RCTD: with command timeouts descriptors.
        timeouts: bool,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    /// REPORT TARGET PORT GROUPS.
    ReportTargetPortGroups {
        /// PARAMETER DATA FORMAT 001b: with the extended header.
        extended: bool,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
}

/// What MODE SENSE asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// The 10-byte command, which has the longer header.
    pub long: bool,
    /// PAGE CONTROL.
    pub control: PageControl,
    /// PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// ALLOCATION LENGTH.
    pub allocation: u16,
}

/// PAGE CONTROL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// 00b.
    Current,
    /// 01b: a mask of what MODE SELECT can change.
    Changeable,
    /// 10b.
    Default,
    /// 11b.
    Saved,
}

/// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 000b: all commands.
    All,
    /// 001b: an opcode that has no service actions.
    Opcode(u8),
    /// 010b: an opcode that has, and one of them.
    ServiceAction(u8, u16),
    /// 011b: an opcode and a service action, which is zero where there are none.
    Either(u8, u16),
}

/// What a command's data buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPhase {
    /// Nothing.
    None,
    /// A reply, which ends after this many bytes at the latest.
    In {
        /// ALLOCATION LENGTH, or the fixed length of the reply.
        allocation: u32,
    },
    /// Logical blocks to the initiator.
    BlocksIn(Blocks),
    /// Logical blocks from the initiator.
    BlocksOut(Blocks),
    /// A parameter list from the initiator.
    ParameterList {
        /// PARAMETER LIST LENGTH.
        len: u32,
    },
}

/// Reads a CDB. What follows its length, which the opcode's group gives, is ignored.
pub fn decode(cdb: &[u8]) -> Result<Command, Sense> {
    let Some(bytes) = cdb.first_chunk() else { return decode_short(cdb) };
    let cdb = Cdb::new(*bytes);
    lookup(cdb)?.parse(cdb)
}

fn decode_short(cdb: &[u8]) -> Result<Command, Sense> {
    let mut padded = [0; CDB_MAX];
    for (to, from) in padded.iter_mut().zip(cdb) {
        *to = *from;
    }
    if cdb.is_empty() {
        return Err(Sense::INVALID_OPCODE);
    }
    let padded = Cdb::new(padded);
    let row = lookup(padded)?;
    if cdb.len() < row.usage().len() {
        // Cannot come from the kernel, which takes the length from the opcode too. The first byte missing
        // is the one at fault.
        return Err(Sense::invalid_cdb_field(u16::try_from(cdb.len()).unwrap_or(0), None));
    }
    row.parse(padded)
}

impl Command {
    /// What the data buffer is for.
    pub fn data(&self) -> DataPhase {
        match *self {
            Self::TestUnitReady | Self::StartUnit | Self::SynchronizeCache(_) => DataPhase::None,
            Self::RequestSense { allocation, .. } => DataPhase::In { allocation: allocation.into() },
            Self::Inquiry { allocation, .. } => DataPhase::In { allocation: allocation.into() },
            Self::ModeSense(ask) => DataPhase::In { allocation: ask.allocation.into() },
            Self::ReadCapacity10 => DataPhase::In { allocation: 8 },
            Self::ReadCapacity16 { allocation }
            | Self::ReportSupportedOperationCodes { allocation, .. }
            | Self::ReportTargetPortGroups { allocation, .. } => DataPhase::In { allocation },
            Self::Read(extent) => DataPhase::BlocksIn(extent.blocks),
            Self::Write(extent) => DataPhase::BlocksOut(extent.blocks),
            // What to compare with, then what to write.
            Self::CompareAndWrite(extent) => DataPhase::BlocksOut(Blocks(extent.blocks.0.saturating_mul(2))),
            Self::WriteSame { no_data: true, .. } => DataPhase::None,
            Self::WriteSame { no_data: false, .. } => DataPhase::BlocksOut(Blocks(1)),
            Self::Unmap { list } => DataPhase::ParameterList { len: list.into() },
        }
    }
}

// One function per row of the opcode table. The row's usage data has been enforced before and bytes past
// the CDB are zero.

type Parsed = Result<Command, Sense>;

pub(super) fn test_unit_ready(_: Cdb) -> Parsed {
    Ok(Command::TestUnitReady)
}

pub(super) fn request_sense(cdb: Cdb) -> Parsed {
    Ok(Command::RequestSense { descriptor: cdb.byte::<1>() & 0x01 != 0, allocation: cdb.byte::<4>() })
}

pub(super) fn inquiry(cdb: Cdb) -> Parsed {
    let allocation = cdb.u16::<3>();
    match (cdb.byte::<1>() & 0x01 != 0, cdb.byte::<2>()) {
        (true, page) => Ok(Command::Inquiry { page: Some(page), allocation }),
        (false, 0) => Ok(Command::Inquiry { page: None, allocation }),
        // SPC-4, "INQUIRY command": EVPD = 0 with a page code.
        (false, _) => Err(Sense::invalid_cdb_field(2, Some(7))),
    }
}

pub(super) fn mode_sense_6(cdb: Cdb) -> Parsed {
    Ok(mode_sense(cdb, false, cdb.byte::<4>().into()))
}

pub(super) fn mode_sense_10(cdb: Cdb) -> Parsed {
    Ok(mode_sense(cdb, true, cdb.u16::<7>()))
}

fn mode_sense(cdb: Cdb, long: bool, allocation: u16) -> Command {
    let control = match cdb.byte::<2>() >> 6 {
        0 => PageControl::Current,
        1 => PageControl::Changeable,
        2 => PageControl::Default,
        _ => PageControl::Saved,
    };
    // DBD and LLBAA make no difference: there are no block descriptors.
    Command::ModeSense(ModeSense {
        long,
        control,
        page: cdb.byte::<2>() & 0x3f,
        subpage: cdb.byte::<3>(),
        allocation,
    })
}

pub(super) fn start_stop_unit(cdb: Cdb) -> Parsed {
    if cdb.byte::<4>() & 0xf0 != 0 {
        // SBC-3, "START STOP UNIT command": power conditions are not supported.
        return Err(Sense::invalid_cdb_field(4, Some(7)));
    }
    if cdb.byte::<4>() & 0x01 == 0 {
        // One initiator must not stop a unit that others use through this or other gateways.
        return Err(Sense::invalid_cdb_field(4, Some(0)));
    }
    Ok(Command::StartUnit)
}

pub(super) fn read_capacity_10(_: Cdb) -> Parsed {
    Ok(Command::ReadCapacity10)
}

pub(super) fn read_capacity_16(cdb: Cdb) -> Parsed {
    Ok(Command::ReadCapacity16 { allocation: cdb.u32::<10>() })
}

pub(super) fn read_6(cdb: Cdb) -> Parsed {
    Ok(Command::Read(extent_6(cdb)))
}

pub(super) fn read_10(cdb: Cdb) -> Parsed {
    Ok(Command::Read(extent_10(cdb)))
}

pub(super) fn read_12(cdb: Cdb) -> Parsed {
    Ok(Command::Read(extent_12(cdb)))
}

pub(super) fn read_16(cdb: Cdb) -> Parsed {
    Ok(Command::Read(extent_16(cdb)))
}

pub(super) fn write_6(cdb: Cdb) -> Parsed {
    Ok(Command::Write(extent_6(cdb)))
}

pub(super) fn write_10(cdb: Cdb) -> Parsed {
    Ok(Command::Write(extent_10(cdb)))
}

pub(super) fn write_12(cdb: Cdb) -> Parsed {
    Ok(Command::Write(extent_12(cdb)))
}

pub(super) fn write_16(cdb: Cdb) -> Parsed {
    Ok(Command::Write(extent_16(cdb)))
}

pub(super) fn compare_and_write(cdb: Cdb) -> Parsed {
    Ok(Command::CompareAndWrite(Extent { lba: Lba(cdb.u64::<2>()), blocks: Blocks(cdb.byte::<13>().into()) }))
}

pub(super) fn synchronize_cache_10(cdb: Cdb) -> Parsed {
    Ok(Command::SynchronizeCache(extent_10(cdb)))
}

pub(super) fn synchronize_cache_16(cdb: Cdb) -> Parsed {
    Ok(Command::SynchronizeCache(extent_16(cdb)))
}

pub(super) fn write_same_10(cdb: Cdb) -> Parsed {
    let unmap = cdb.byte::<1>() & 0x08 != 0;
    Ok(Command::WriteSame { extent: extent_10(cdb), unmap, no_data: false, blocks_at: 7 })
}

pub(super) fn write_same_16(cdb: Cdb) -> Parsed {
    let (unmap, no_data) = (cdb.byte::<1>() & 0x08 != 0, cdb.byte::<1>() & 0x01 != 0);
    Ok(Command::WriteSame { extent: extent_16(cdb), unmap, no_data, blocks_at: 10 })
}

pub(super) fn unmap(cdb: Cdb) -> Parsed {
    Ok(Command::Unmap { list: cdb.u16::<7>() })
}

pub(super) fn report_target_port_groups(cdb: Cdb) -> Parsed {
    Ok(Command::ReportTargetPortGroups { extended: cdb.byte::<1>() & 0x20 != 0, allocation: cdb.u32::<6>() })
}

pub(super) fn report_supported_operation_codes(cdb: Cdb) -> Parsed {
    let (opcode, action) = (cdb.byte::<3>(), cdb.u16::<4>());
    let selection = match cdb.byte::<2>() & 0x07 {
        0 => Selection::All,
        1 => Selection::Opcode(opcode),
        2 => Selection::ServiceAction(opcode, action),
        3 => Selection::Either(opcode, action),
        _ => return Err(Sense::invalid_cdb_field(2, Some(2))),
    };
    let (timeouts, allocation) = (cdb.byte::<2>() & 0x80 != 0, cdb.u32::<6>());
    Ok(Command::ReportSupportedOperationCodes { selection, timeouts, allocation })
}

fn extent_6(cdb: Cdb) -> Extent {
    let lba = u32::from_be_bytes([0, cdb.byte::<1>() & 0x1f, cdb.byte::<2>(), cdb.byte::<3>()]);
    // SBC-3, "READ (6) command": zero means 256 blocks, here and in WRITE (6) and nowhere else.
    let blocks = if cdb.byte::<4>() == 0 { 256 } else { cdb.byte::<4>().into() };
    Extent { lba: Lba(lba.into()), blocks: Blocks(blocks) }
}

fn extent_10(cdb: Cdb) -> Extent {
    Extent { lba: Lba(cdb.u32::<2>().into()), blocks: Blocks(cdb.u16::<7>().into()) }
}

fn extent_12(cdb: Cdb) -> Extent {
    Extent { lba: Lba(cdb.u32::<2>().into()), blocks: Blocks(cdb.u32::<6>().into()) }
}

fn extent_16(cdb: Cdb) -> Extent {
    Extent { lba: Lba(cdb.u64::<2>()), blocks: Blocks(cdb.u32::<10>().into()) }
}

#[cfg(test)]
mod tests;
