//! One function per row of the opcode table: from a CDB to a command.
//!
//! The row's usage data has been enforced before and bytes past the CDB are zero.

use super::cdb::Cdb;
use super::command::{ByteCheck, Command, ModeSense, PageControl, Selection};
use super::extended_copy::CopyResults;
use super::format::FormatHeader;
use super::sanitize::{Sanitize, Service};
use super::sense::Sense;
use super::{Blocks, Extent, Lba};

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
    // SBC-3, "START STOP UNIT command": POWER CONDITION, and if it is START_VALID also START.
    match (cdb.byte::<4>() >> 4, cdb.byte::<4>() & 0x01) {
        (START_VALID, 1) | (ACTIVE, _) => Ok(Command::StartUnit),
        // One initiator must not stop a unit that others use through this or other gateways.
        (START_VALID, _) => Err(Sense::invalid_cdb_field(4, Some(0))),
        // The other power conditions are not supported.
        _ => Err(Sense::invalid_cdb_field(4, Some(7))),
    }
}

const START_VALID: u8 = 0x0;
const ACTIVE: u8 = 0x1;

pub(super) fn mode_select_6(cdb: Cdb) -> Parsed {
    mode_select(cdb, false, cdb.byte::<4>().into())
}

pub(super) fn mode_select_10(cdb: Cdb) -> Parsed {
    mode_select(cdb, true, cdb.u16::<7>())
}

fn mode_select(cdb: Cdb, long: bool, list: u16) -> Parsed {
    if cdb.byte::<1>() & 0x10 == 0 && list > 0 {
        // PF = 0: not mode pages but something vendor specific, which there is not.
        return Err(Sense::invalid_cdb_field(1, Some(4)));
    }
    Ok(Command::ModeSelect { long, list })
}

pub(super) fn log_sense(cdb: Cdb) -> Parsed {
    // PC chooses between values that a list of pages does not have.
    Ok(Command::LogSense {
        page: cdb.byte::<2>() & 0x3f,
        subpage: cdb.byte::<3>(),
        pointer: cdb.u16::<5>(),
        allocation: cdb.u16::<7>(),
    })
}

pub(super) fn prevent_allow_medium_removal(_: Cdb) -> Parsed {
    Ok(Command::PreventAllowMediumRemoval)
}

pub(super) fn pre_fetch_10(cdb: Cdb) -> Parsed {
    Ok(Command::PreFetch(extent_10(cdb)))
}

pub(super) fn pre_fetch_16(cdb: Cdb) -> Parsed {
    Ok(Command::PreFetch(extent_16(cdb)))
}

pub(super) fn read_defect_data_10(cdb: Cdb) -> Parsed {
    read_defect_data(false, cdb.byte::<2>(), 2, cdb.u16::<7>().into())
}

/// ADDRESS DESCRIPTOR INDEX makes no difference to an empty list.
pub(super) fn read_defect_data_12(cdb: Cdb) -> Parsed {
    read_defect_data(true, cdb.byte::<1>(), 1, cdb.u32::<6>())
}

fn read_defect_data(long: bool, lists_and_format: u8, at: u16, allocation: u32) -> Parsed {
    if lists_and_format & 0x07 == 0x07 {
        // DEFECT LIST FORMAT 111b is reserved.
        return Err(Sense::invalid_cdb_field(at, Some(2)));
    }
    Ok(Command::ReadDefectData { long, lists_and_format, allocation })
}

pub(super) fn report_supported_task_management_functions(cdb: Cdb) -> Parsed {
    let allocation = cdb.u32::<6>();
    if allocation < 4 {
        // SPC-4, the command's clause: fewer than four bytes are an error here.
        return Err(Sense::invalid_cdb_field(6, Some(7)));
    }
    let extended = cdb.byte::<2>() & 0x80 != 0;
    Ok(Command::ReportSupportedTaskManagementFunctions { extended, allocation })
}

pub(super) fn extended_copy(cdb: Cdb) -> Parsed {
    Ok(Command::ExtendedCopy { list: cdb.u32::<10>() })
}

pub(super) fn receive_copy_status(cdb: Cdb) -> Parsed {
    Ok(receive_copy_results(cdb, CopyResults::Status(cdb.byte::<2>())))
}

/// The parameters are no copy's: LIST IDENTIFIER makes no difference.
pub(super) fn receive_copy_operating_parameters(cdb: Cdb) -> Parsed {
    Ok(receive_copy_results(cdb, CopyResults::OperatingParameters))
}

pub(super) fn receive_copy_failure_details(cdb: Cdb) -> Parsed {
    Ok(receive_copy_results(cdb, CopyResults::FailedSegmentDetails(cdb.byte::<2>())))
}

fn receive_copy_results(cdb: Cdb, ask: CopyResults) -> Command {
    Command::ReceiveCopyResults { ask, allocation: cdb.u32::<10>() }
}

pub(super) fn read_capacity_10(_: Cdb) -> Parsed {
    Ok(Command::ReadCapacity10)
}

pub(super) fn read_capacity_16(cdb: Cdb) -> Parsed {
    Ok(Command::ReadCapacity16 { allocation: cdb.u32::<10>() })
}

pub(super) fn get_lba_status_16(cdb: Cdb) -> Parsed {
    Ok(Command::GetLbaStatus { lba: Lba(cdb.u64::<2>()), scan: Blocks(0), allocation: cdb.u32::<10>() })
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

/// ATOMIC BOUNDARY can only be 0: the Block Limits page names none.
pub(super) fn write_atomic_16(cdb: Cdb) -> Parsed {
    if cdb.u16::<10>() != 0 {
        return Err(Sense::invalid_cdb_field(10, Some(7)));
    }
    let blocks = Blocks(cdb.u16::<12>().into());
    Ok(Command::WriteAtomic(Extent { lba: Lba(cdb.u64::<2>()), blocks }))
}

pub(super) fn orwrite_16(cdb: Cdb) -> Parsed {
    Ok(Command::OrWrite(extent_16(cdb)))
}

pub(super) fn synchronize_cache_10(cdb: Cdb) -> Parsed {
    Ok(Command::SynchronizeCache(extent_10(cdb)))
}

pub(super) fn synchronize_cache_16(cdb: Cdb) -> Parsed {
    Ok(Command::SynchronizeCache(extent_16(cdb)))
}

pub(super) fn verify_10(cdb: Cdb) -> Parsed {
    Ok(Command::Verify { extent: extent_10(cdb), check: byte_check(cdb)? })
}

pub(super) fn verify_12(cdb: Cdb) -> Parsed {
    Ok(Command::Verify { extent: extent_12(cdb), check: byte_check(cdb)? })
}

pub(super) fn verify_16(cdb: Cdb) -> Parsed {
    Ok(Command::Verify { extent: extent_16(cdb), check: byte_check(cdb)? })
}

pub(super) fn write_and_verify_10(cdb: Cdb) -> Parsed {
    Ok(Command::WriteAndVerify { extent: extent_10(cdb), check: byte_check(cdb)? })
}

pub(super) fn write_and_verify_12(cdb: Cdb) -> Parsed {
    Ok(Command::WriteAndVerify { extent: extent_12(cdb), check: byte_check(cdb)? })
}

pub(super) fn write_and_verify_16(cdb: Cdb) -> Parsed {
    Ok(Command::WriteAndVerify { extent: extent_16(cdb), check: byte_check(cdb)? })
}

/// BYTCHK. 10b is reserved (SBC-3, "VERIFY (10) command"); WRITE AND VERIFY has no 11b, its usage data see to
/// that.
fn byte_check(cdb: Cdb) -> Result<ByteCheck, Sense> {
    match (cdb.byte::<1>() >> 1) & 0x03 {
        0 => Ok(ByteCheck::Medium),
        1 => Ok(ByteCheck::Blocks),
        2 => Err(Sense::invalid_cdb_field(1, Some(2))),
        _ => Ok(ByteCheck::OneBlock),
    }
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

pub(super) fn format_unit(cdb: Cdb) -> Parsed {
    // SBC-4, "FORMAT UNIT command": without FMTDATA there is no list, and LONGLIST and CMPLST are ignored.
    let header = match cdb.byte::<1>() & 0x30 {
        0x10 => Some(FormatHeader::Short),
        0x30 => Some(FormatHeader::Long),
        _ => None,
    };
    Ok(Command::FormatUnit { list: header })
}

pub(super) fn sanitize_overwrite(cdb: Cdb) -> Parsed {
    Ok(sanitize(cdb, Service::Overwrite { list: cdb.u16::<7>() }))
}

pub(super) fn sanitize_block_erase(cdb: Cdb) -> Parsed {
    Ok(sanitize(cdb, Service::BlockErase))
}

pub(super) fn sanitize_exit_failure_mode(cdb: Cdb) -> Parsed {
    Ok(sanitize(cdb, Service::ExitFailureMode))
}

fn sanitize(cdb: Cdb, service: Service) -> Command {
    let (immediate, unrestricted) = (cdb.byte::<1>() & 0x80 != 0, cdb.byte::<1>() & 0x20 != 0);
    Command::Sanitize(Sanitize { service, immediate, unrestricted })
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
