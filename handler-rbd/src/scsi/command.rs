//! Commands as values, and how they are read from a command descriptor block.
//!
//! [`decode`] gives each of the 256 opcodes and each service action an answer and never panics. It checks
//! what a CDB can tell alone; what depends on the disk (capacity, block size, data buffer) is left to `lun`.

use super::cdb::{CDB_MAX, Cdb};
use super::extended_copy::CopyResults;
use super::format::FormatHeader;
use super::opcode::lookup;
use super::sanitize::{Sanitize, Service};
use super::sense::Sense;
use super::variable;
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
    /// MODE SELECT(6) and (10).
    ModeSelect {
        /// The 10-byte command, whose list has the longer header.
        long: bool,
        /// PARAMETER LIST LENGTH.
        list: u16,
    },
    /// LOG SENSE.
    LogSense {
        /// PAGE CODE.
        page: u8,
        /// SUBPAGE CODE.
        subpage: u8,
        /// PARAMETER POINTER.
        pointer: u16,
        /// ALLOCATION LENGTH.
        allocation: u16,
    },
    /// START STOP UNIT that asks for what is so: START = 1, or the active power condition. All else is refused.
    StartUnit,
    /// PREVENT ALLOW MEDIUM REMOVAL, either way: the medium stays.
    PreventAllowMediumRemoval,
    /// READ CAPACITY(10).
    ReadCapacity10,
    /// READ CAPACITY(16).
    ReadCapacity16 {
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    /// GET LBA STATUS(16) and (32).
    GetLbaStatus {
        /// STARTING LOGICAL BLOCK ADDRESS.
        lba: Lba,
        /// SCAN LENGTH: no more blocks than these; zero sets no bound.
        scan: Blocks,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    /// READ(6), (10), (12), (16).
    Read(Extent),
    /// WRITE(6), (10), (12), (16).
    Write(Extent),
    /// COMPARE AND WRITE.
    CompareAndWrite(Extent),
    /// WRITE ATOMIC(16), without ATOMIC BOUNDARY.
    WriteAtomic(Extent),
    /// ORWRITE(16).
    OrWrite(Extent),
    /// VERIFY(10), (12), (16).
    Verify {
        /// What to read.
        extent: Extent,
        /// BYTCHK.
        check: ByteCheck,
    },
    /// WRITE AND VERIFY(10), (12), (16).
    WriteAndVerify {
        /// Where to.
        extent: Extent,
        /// BYTCHK: not [`ByteCheck::OneBlock`].
        check: ByteCheck,
    },
    /// PRE-FETCH(10) and (16); zero blocks mean all to the end.
    PreFetch(Extent),
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
    /// EXTENDED COPY(LID1).
    ExtendedCopy {
        /// PARAMETER LIST LENGTH.
        list: u32,
    },
    /// RECEIVE COPY RESULTS.
    ReceiveCopyResults {
        /// Which of them.
        ask: CopyResults,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    /// FORMAT UNIT.
    FormatUnit {
        /// FMTDATA and LONGLIST: the parameter list's header, if there is a list.
        list: Option<FormatHeader>,
    },
    /// SANITIZE.
    Sanitize(Sanitize),
    /// READ DEFECT DATA(10) and (12).
    ReadDefectData {
        /// The 12-byte command, whose reply has the longer header.
        long: bool,
        /// REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT, as they stand in the CDB.
        lists_and_format: u8,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ReportSupportedTaskManagementFunctions {
        /// REPD: with the extended part.
        extended: bool,
        /// ALLOCATION LENGTH.
        allocation: u32,
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

/// BYTCHK: what blocks that are read back are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// 00b: with nothing, it is enough that they can be read.
    Medium,
    /// 01b: with the blocks of the data buffer.
    Blocks,
    /// 11b: each with the one block of the data buffer.
    OneBlock,
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
    let fixed = Cdb::new(*bytes);
    match lookup(fixed) {
        Ok(row) => row.parse(fixed),
        Err(_) if bytes[0] == variable::OPCODE => variable::decode(cdb),
        Err(sense) => Err(sense),
    }
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
    if cdb.first() == Some(&variable::OPCODE) {
        return variable::decode(cdb);
    }
    let row = lookup(padded)?;
    if cdb.len() < row.usage().len() {
        // Cannot come from the kernel, which takes the length from the opcode too. The first byte missing
        // is the one at fault.
        return Err(Sense::invalid_cdb_field(u16::try_from(cdb.len()).unwrap_or(0), None));
    }
    row.parse(padded)
}

impl Command {
    /// Whether it overwrites the medium without any data from the initiator.
    pub fn writes_without_data(&self) -> bool {
        match *self {
            Self::FormatUnit { list: None } | Self::WriteSame { no_data: true, .. } => true,
            Self::Sanitize(ask) => !matches!(ask.service, Service::Overwrite { .. }),
            _ => false,
        }
    }

    /// Whether it may change what the medium holds.
    pub fn changes_medium(&self) -> bool {
        matches!(
            self,
            Self::Write(_)
                | Self::CompareAndWrite(_)
                | Self::WriteAtomic(_)
                | Self::OrWrite(_)
                | Self::WriteAndVerify { .. }
                | Self::WriteSame { .. }
                | Self::Unmap { .. }
                | Self::ExtendedCopy { .. }
                | Self::FormatUnit { .. }
                | Self::Sanitize(_)
        )
    }

    /// What the data buffer is for.
    pub fn data(&self) -> DataPhase {
        match *self {
            Self::TestUnitReady
            | Self::StartUnit
            | Self::PreventAllowMediumRemoval
            | Self::PreFetch(_)
            | Self::SynchronizeCache(_) => DataPhase::None,
            Self::RequestSense { allocation, .. } => DataPhase::In { allocation: allocation.into() },
            Self::Inquiry { allocation, .. } => DataPhase::In { allocation: allocation.into() },
            Self::ModeSense(ask) => DataPhase::In { allocation: ask.allocation.into() },
            Self::LogSense { allocation, .. } => DataPhase::In { allocation: allocation.into() },
            Self::ReadCapacity10 => DataPhase::In { allocation: 8 },
            Self::ReadCapacity16 { allocation }
            | Self::ReceiveCopyResults { allocation, .. }
            | Self::GetLbaStatus { allocation, .. }
            | Self::ReadDefectData { allocation, .. }
            | Self::ReportSupportedOperationCodes { allocation, .. }
            | Self::ReportSupportedTaskManagementFunctions { allocation, .. }
            | Self::ReportTargetPortGroups { allocation, .. } => DataPhase::In { allocation },
            Self::Read(extent) => DataPhase::BlocksIn(extent.blocks),
            Self::Write(extent) | Self::WriteAtomic(extent) | Self::OrWrite(extent) => {
                DataPhase::BlocksOut(extent.blocks)
            }
            // What to compare with, then what to write.
            Self::CompareAndWrite(extent) => DataPhase::BlocksOut(Blocks(extent.blocks.0.saturating_mul(2))),
            Self::WriteAndVerify { extent, .. } | Self::Verify { extent, check: ByteCheck::Blocks } => {
                DataPhase::BlocksOut(extent.blocks)
            }
            Self::WriteSame { no_data: true, .. } | Self::Verify { check: ByteCheck::Medium, .. } => {
                DataPhase::None
            }
            Self::WriteSame { no_data: false, .. } => DataPhase::BlocksOut(Blocks(1)),
            Self::Verify { extent, check: ByteCheck::OneBlock } => {
                DataPhase::BlocksOut(extent.blocks.min(Blocks(1)))
            }
            Self::ExtendedCopy { list } => DataPhase::ParameterList { len: list },
            Self::Unmap { list } | Self::ModeSelect { list, .. } => {
                DataPhase::ParameterList { len: list.into() }
            }
            // The CDB does not say how long the list is; it is at least its header.
            Self::FormatUnit { list: Some(header) } => DataPhase::ParameterList { len: header.bytes() },
            Self::FormatUnit { list: None } => DataPhase::None,
            Self::Sanitize(Sanitize { service: Service::Overwrite { list }, .. }) => {
                DataPhase::ParameterList { len: list.into() }
            }
            Self::Sanitize(_) => DataPhase::None,
        }
    }
}

#[cfg(test)]
mod tests;
