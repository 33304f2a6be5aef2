//! Target port groups as configfs shows them, and the port through which this host serves.
//!
//! The kernel keeps ALUA state but leaves REPORT TARGET PORT GROUPS to user space, so all of it is
//! read from files. `default_tg_pt_gp` is left out: it says nothing that an operator configured. A
//! group without an id is one that a tool is just making. `members` ends each line with a NUL.

use super::configfs::Backstore;
use super::{file, file::FileError};
use std::path::Path;

const DEFAULT_GROUP: &str = "default_tg_pt_gp";
/// PROTOCOL IDENTIFIER of iSCSI.
const ISCSI: u8 = 5;

/// Asymmetric access state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessState {
    /// Active/optimized.
    ActiveOptimized = 0x0,
    /// Active/non-optimized.
    ActiveNonOptimized = 0x1,
    /// Standby.
    Standby = 0x2,
    /// Unavailable.
    Unavailable = 0x3,
    /// Logical block dependent.
    LbaDependent = 0x4,
    /// Offline.
    Offline = 0xe,
    /// In transition between states.
    Transition = 0xf,
}

/// Why a group has its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessStatus {
    /// Nothing changed it.
    None = 0,
    /// SET TARGET PORT GROUPS changed it.
    Explicit = 1,
    /// The target changed it.
    Implicit = 2,
}

/// Who may change a group's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessType {
    /// Nobody.
    None = 0,
    /// The target.
    Implicit = 1,
    /// Initiators.
    Explicit = 2,
    /// Both.
    ImplicitAndExplicit = 3,
}

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// Its directory's name.
    pub name: String,
    /// TARGET PORT GROUP.
    pub id: u16,
    /// Its state.
    pub state: AccessState,
    /// States it supports, as the second byte of a REPORT TARGET PORT GROUPS descriptor.
    pub supported: u8,
    /// Why it has its state.
    pub status: AccessStatus,
    /// Who may change its state.
    pub access_type: AccessType,
    /// Whether initiators should prefer it.
    pub preferred: bool,
    /// IMPLICIT TRANSITION TIME in seconds.
    pub implicit_trans_secs: u8,
    /// The ports in it.
    pub members: Vec<Member>,
}

/// A port in a group: a LUN of a target portal group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Name of the fabric's directory in configfs.
    pub fabric: String,
    /// Name of the target.
    pub wwn: String,
    /// Tag of the target portal group.
    pub tpgt: u16,
    /// Number of the LUN.
    pub lun: u64,
}

/// The port through which this host serves the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// PROTOCOL IDENTIFIER (5 is iSCSI).
    pub protocol: u8,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_id: u16,
    /// TARGET PORT GROUP of the group it is in.
    pub group_id: u16,
    /// Tag of the target portal group.
    pub tpgt: u16,
    /// Name of the target.
    pub wwn: String,
    /// Name of the fabric's directory in configfs.
    pub fabric: String,
}

/// Attribute and bit of each state a group can support.
const SUPPORTED: [(&str, u8); 7] = [
    ("alua_support_transitioning", 0x80),
    ("alua_support_offline", 0x40),
    ("alua_support_lba_dependent", 0x10),
    ("alua_support_unavailable", 0x08),
    ("alua_support_standby", 0x04),
    ("alua_support_active_nonoptimized", 0x02),
    ("alua_support_active_optimized", 0x01),
];

impl Backstore {
    /// The target port groups that were configured, by directory name.
    pub fn port_groups(&self) -> Result<Vec<PortGroup>, FileError> {
        let alua = self.dir().join("alua");
        let mut groups = Vec::new();
        for name in file::entries(&alua)? {
            if name == DEFAULT_GROUP {
                continue;
            }
            let dir = alua.join(&name);
            match PortGroup::read(&dir, name) {
                // It was removed meanwhile.
                Err(error) if error.is_missing() && !dir.exists() => {}
                group => groups.extend(group?),
            }
        }
        Ok(groups)
    }

    /// The first port whose portal group is enabled on this host. The other gateways' portal groups
    /// are configured here too, but disabled.
    pub fn enabled_port(&self, groups: &[PortGroup]) -> Result<Option<TargetPort>, FileError> {
        for group in groups {
            for member in &group.members {
                match TargetPort::read(self.fabrics(), group.id, member) {
                    // The LUN was unlinked since the group was read.
                    Err(error) if error.is_missing() => {}
                    Ok(None) => {}
                    port => return port,
                }
            }
        }
        Ok(None)
    }
}

impl PortGroup {
    /// `None` if it has no id yet.
    fn read(dir: &Path, name: String) -> Result<Option<Self>, FileError> {
        let id = dir.join("tg_pt_gp_id");
        if file::text(&id)?.is_empty() {
            return Ok(None);
        }
        let id = file::number(&id)?;
        let mut supported = 0;
        for (attribute, bit) in SUPPORTED {
            if file::flag(&dir.join(attribute))? {
                supported |= bit;
            }
        }
        Ok(Some(PortGroup {
            name,
            id,
            state: AccessState::read(&dir.join("alua_access_state"))?,
            supported,
            status: AccessStatus::read(&dir.join("alua_access_status"))?,
            access_type: AccessType::read(&dir.join("alua_access_type"))?,
            preferred: file::flag(&dir.join("preferred"))?,
            implicit_trans_secs: file::number(&dir.join("implicit_trans_secs"))?,
            members: members(&dir.join("members"))?,
        }))
    }
}

impl AccessState {
    fn read(path: &Path) -> Result<Self, FileError> {
        Ok(match file::number::<u8>(path)? {
            0x0 => AccessState::ActiveOptimized,
            0x1 => AccessState::ActiveNonOptimized,
            0x2 => AccessState::Standby,
            0x3 => AccessState::Unavailable,
            0x4 => AccessState::LbaDependent,
            0xe => AccessState::Offline,
            0xf => AccessState::Transition,
            other => return Err(content(path, other.to_string(), "an access state")),
        })
    }
}

impl AccessStatus {
    fn read(path: &Path) -> Result<Self, FileError> {
        Ok(match file::text(path)?.as_str() {
            "None" => AccessStatus::None,
            "Altered by Explicit STPG" => AccessStatus::Explicit,
            "Altered by Implicit ALUA" => AccessStatus::Implicit,
            other => return Err(content(path, other.to_owned(), "an access status")),
        })
    }
}

impl AccessType {
    fn read(path: &Path) -> Result<Self, FileError> {
        Ok(match file::text(path)?.as_str() {
            "None" => AccessType::None,
            "Implicit" => AccessType::Implicit,
            "Explicit" => AccessType::Explicit,
            "Implicit and Explicit" => AccessType::ImplicitAndExplicit,
            other => return Err(content(path, other.to_owned(), "an access type")),
        })
    }
}

impl TargetPort {
    /// `None` if the portal group is disabled.
    fn read(fabrics: &Path, group_id: u16, member: &Member) -> Result<Option<Self>, FileError> {
        let tpg = fabrics.join(&member.fabric).join(&member.wwn).join(format!("tpgt_{}", member.tpgt));
        match file::flag(&tpg.join("enable")) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            // Fabrics without the switch (loopback) are always on.
            Err(error) if error.is_missing() && tpg.exists() => {}
            Err(error) => return Err(error),
        }
        let statistics = tpg.join(format!("lun/lun_{}/statistics", member.lun));
        let relative_id = file::number(&statistics.join("scsi_port/indx"))?;
        let protocol = match file::number(&statistics.join("scsi_transport/proto_id")) {
            // Old kernels do not show it.
            Err(error) if error.is_missing() && member.fabric == "iscsi" => ISCSI,
            protocol => protocol?,
        };
        Ok(Some(TargetPort {
            protocol,
            relative_id,
            group_id,
            tpgt: member.tpgt,
            wwn: member.wwn.clone(),
            fabric: member.fabric.clone(),
        }))
    }
}

/// Lines `fabric/wwn/tpgt_N/lun_M`, each followed by a NUL.
fn members(path: &Path) -> Result<Vec<Member>, FileError> {
    let text = file::text(path)?;
    let lines = text.split(['\n', '\0']).filter(|line| !line.is_empty());
    lines
        .map(|line| member(line).ok_or_else(|| content(path, line.to_owned(), "FABRIC/WWN/tpgt_N/lun_M")))
        .collect()
}

/// Those lines of a group's members that can be understood.
pub(super) fn members_of(text: &str) -> impl Iterator<Item = Member> {
    text.split(['\n', '\0']).filter_map(member)
}

fn member(line: &str) -> Option<Member> {
    let mut parts = line.split('/');
    let fabric = match parts.next()? {
        // The only fabric whose directory is not spelled like its name.
        "iSCSI" => "iscsi",
        fabric => fabric,
    };
    let wwn = parts.next().filter(|wwn| !wwn.is_empty() && *wwn != "..")?;
    let tpgt = parts.next()?.strip_prefix("tpgt_")?.parse().ok()?;
    let lun = parts.next()?.strip_prefix("lun_")?.parse().ok()?;
    let safe = !fabric.is_empty() && fabric != ".." && parts.next().is_none();
    safe.then(|| Member { fabric: fabric.to_owned(), wwn: wwn.to_owned(), tpgt, lun })
}

fn content(path: &Path, found: String, wanted: &'static str) -> FileError {
    FileError::Content { path: path.to_owned(), found, wanted }
}
