//! What configfs says about a device, in the terms of the identity pages.

use crate::kernel::alua::{self, TargetPort};
use crate::kernel::configfs::Backstore;
use crate::kernel::file::FileError;
use crate::scsi::identity::{self as scsi, Identity};

/// Reads what INQUIRY and REPORT TARGET PORT GROUPS show. May block for as long as configfs likes.
pub(super) fn read(backstore: &Backstore, config: &str) -> Result<Identity, FileError> {
    let groups = backstore.port_groups()?;
    let port = backstore.enabled_port(&groups)?;
    let of_port = port.as_ref().and_then(|port| groups.iter().find(|group| group.id == port.group_id));
    Ok(Identity {
        unit_serial: backstore.unit_serial()?,
        config: config.to_owned(),
        implicit_trans_secs: of_port.map_or(0, |group| group.implicit_trans_secs),
        groups: groups.iter().map(|found| group(found, port.as_ref())).collect(),
        port: port.map(target_port),
        write_exclusive: backstore.write_exclusive()?,
        read_only: backstore.has_read_only_initiators()?,
    })
}

fn target_port(port: TargetPort) -> scsi::TargetPort {
    scsi::TargetPort {
        protocol: port.protocol,
        relative_id: port.relative_id,
        group_id: port.group_id,
        tpgt: port.tpgt,
        wwn: port.wwn,
    }
}

/// Only our own port is known by its relative identifier: what the other gateways' ports are called there
/// is theirs to say.
fn group(group: &alua::PortGroup, port: Option<&TargetPort>) -> scsi::PortGroup {
    let ours = port.filter(|port| port.group_id == group.id);
    scsi::PortGroup {
        id: group.id,
        state: group.state as u8,
        supported: group.supported,
        status: group.status as u8,
        preferred: group.preferred,
        ports: ours.map(|port| port.relative_id).into_iter().collect(),
    }
}
