//! Commands that only tell something: their replies.

use super::{Identity, LogicalUnit, MAX_UNMAP_DESCRIPTORS, copy};
use crate::scsi::opcode::Need;
use crate::scsi::{
    Command, DataPhase, Sense, alua, capacity, defects, inquiry, log_pages, mode, supported, task_management,
    vpd,
};

/// MAXIMUM UNMAP LBA COUNT covers this many objects.
const MAX_UNMAP_OBJECTS: u64 = 4;

pub(super) fn needs_identity(command: &Command) -> bool {
    match *command {
        Command::Inquiry { page: None, .. }
        | Command::ExtendedCopy { .. }
        | Command::ReportTargetPortGroups { .. } => true,
        Command::ReportSupportedOperationCodes { selection, .. } => {
            supported::depends_on(selection, Need::Port)
        }
        Command::Inquiry { page: Some(page), .. } => {
            matches!(page, vpd::UNIT_SERIAL_NUMBER | vpd::DEVICE_IDENTIFICATION)
        }
        _ => command.writes_without_data(),
    }
}

/// Writes the reply to a command, cut to its allocation length (SPC-4, "Allocation length").
pub(super) fn reply(
    unit: &LogicalUnit,
    command: &Command,
    identity: Option<&Identity>,
    reply: &mut Vec<u8>,
) -> Result<(), Sense> {
    reply.clear();
    // Without an identity the kernel's configuration could not be read. That is ours to fail at, and better
    // than a wrong name.
    let identity = || identity.ok_or(Sense::INTERNAL_FAILURE);
    match *command {
        Command::Inquiry { page: None, .. } => inquiry::standard(identity()?.port.is_some(), reply),
        Command::Inquiry { page: Some(page), .. } => match page {
            vpd::SUPPORTED_PAGES => vpd::supported_pages(reply),
            vpd::UNIT_SERIAL_NUMBER => vpd::unit_serial_number(identity()?, reply),
            vpd::DEVICE_IDENTIFICATION => vpd::device_identification(identity()?, reply),
            vpd::EXTENDED_INQUIRY_DATA => vpd::extended_inquiry_data(reply),
            vpd::BLOCK_LIMITS => vpd::block_limits(&unit.block_limits(), reply),
            vpd::BLOCK_DEVICE_CHARACTERISTICS => {
                vpd::block_device_characteristics(unit.limits.solid_state, reply);
            }
            vpd::LOGICAL_BLOCK_PROVISIONING => vpd::logical_block_provisioning(reply),
            _ => return Err(Sense::invalid_cdb_field(2, Some(7))),
        },
        Command::ModeSense(ask) => mode::sense(&ask, reply)?,
        Command::LogSense { page, subpage, pointer, .. } => log_pages::sense(page, subpage, pointer, reply)?,
        Command::ReadDefectData { long, lists_and_format, .. } => {
            defects::none(long, lists_and_format, reply);
        }
        Command::ReportSupportedTaskManagementFunctions { extended, .. } => {
            task_management::supported(extended, reply);
        }
        Command::ReadCapacity10 => capacity::capacity_10(unit.blocks, unit.block_size, reply),
        Command::ReadCapacity16 { .. } => capacity::capacity_16(unit.blocks, unit.block_size, reply),
        Command::ReportSupportedOperationCodes { selection, timeouts, .. } => {
            let port = match supported::depends_on(selection, Need::Port) {
                true => identity()?.port.is_some(),
                false => false,
            };
            supported::report(selection, timeouts, &|need| unit.has(need, port), reply)?;
        }
        Command::ReceiveCopyResults { ask, .. } => copy::results(unit, ask, reply)?,
        Command::ReportTargetPortGroups { extended, .. } => {
            let identity = identity()?;
            if identity.port.is_none() {
                // TPGS = 00b: there is no asymmetric access here and hence no such command.
                return Err(Sense::INVALID_OPCODE);
            }
            alua::report_groups(identity, extended, reply);
        }
        // The others have no reply.
        _ => return Err(Sense::INTERNAL_FAILURE),
    }
    if let DataPhase::In { allocation } = command.data() {
        truncate(reply, allocation);
    }
    Ok(())
}

/// Writes the reply to REQUEST SENSE.
pub(super) fn request_sense(sense: Sense, descriptor: bool, allocation: u8, reply: &mut Vec<u8>) {
    reply.clear();
    if descriptor {
        sense.descriptor(reply);
    } else {
        sense.fixed(reply);
    }
    truncate(reply, allocation.into());
}

fn truncate(reply: &mut Vec<u8>, allocation: u32) {
    reply.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
}

impl LogicalUnit {
    fn block_limits(&self) -> vpd::BlockLimits {
        vpd::BlockLimits {
            max_compare_and_write: self.max_compare_and_write(),
            max_transfer: self.max_transfer,
            max_unmap: self.max_unmap(),
            max_unmap_descriptors: u32::try_from(MAX_UNMAP_DESCRIPTORS).unwrap_or(u32::MAX),
            unmap_granularity: self.in_blocks(self.limits.discard_granularity),
            atomic_write: u32::try_from(self.atomic_write() / u64::from(self.block_size)).unwrap_or(0),
        }
    }

    /// Whether commands that need this are there; `port` is whether there is a target port.
    pub(super) fn has(&self, need: Need, port: bool) -> bool {
        match need {
            Need::Nothing => true,
            Need::CompareAndWrite => self.max_compare_and_write() > 0,
            Need::AtomicWrite => self.atomic_write() > 0,
            Need::Port => port,
        }
    }

    /// MAXIMUM UNMAP LBA COUNT.
    pub(super) fn max_unmap(&self) -> u32 {
        self.in_blocks(self.limits.object_size.saturating_mul(MAX_UNMAP_OBJECTS))
    }

    fn in_blocks(&self, bytes: u64) -> u32 {
        u32::try_from(bytes / u64::from(self.block_size)).unwrap_or(u32::MAX).max(1)
    }
}
