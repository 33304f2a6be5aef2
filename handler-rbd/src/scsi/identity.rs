//! Who a logical unit says it is: what INQUIRY and REPORT TARGET PORT GROUPS are made of.
//!
//! Filled from the kernel's configuration by whoever may block; here it is only data.

/// A snapshot of a logical unit's names and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The kernel's `vpd_unit_serial`, normally a UUID. All gateways of an image share it.
    pub unit_serial: String,
    /// The whole configuration string with its options, e.g. `rbd/pool/image;osd_op_timeout=30`.
    pub config: String,
    /// The port this gateway serves the unit through, if one is enabled and in a port group of its own.
    pub port: Option<TargetPort>,
    /// The target port groups.
    pub groups: Vec<PortGroup>,
    /// IMPLICIT TRANSITION TIME in seconds, 0 if unknown.
    pub implicit_trans_secs: u8,
    /// Whether somebody holds a persistent reservation of a Write Exclusive type.
    pub write_exclusive: bool,
    /// Whether some initiator may only read.
    pub read_only: bool,
}

/// A SCSI target port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// PROTOCOL IDENTIFIER (SPC-4, "Protocol specific parameters"): 5 is iSCSI.
    pub protocol: u8,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_id: u16,
    /// The target port group it is in.
    pub group_id: u16,
    /// The target portal group tag.
    pub tpgt: u16,
    /// Name of the target device, e.g. its iqn.
    pub wwn: String,
}

/// A target port group, as the kernel's ALUA configuration describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortGroup {
    /// TARGET PORT GROUP.
    pub id: u16,
    /// ASYMMETRIC ACCESS STATE: 0 active/optimized, 1 active/non-optimized, 2 standby, ...
    pub state: u8,
    /// The supported states, as the bits T_SUP (80h) .. AO_SUP (01h) of the reply.
    pub supported: u8,
    /// STATUS CODE: 0 none, 1 altered by SET TARGET PORT GROUPS, 2 by implicit behaviour.
    pub status: u8,
    /// PREF.
    pub preferred: bool,
    /// Relative identifiers of the ports in it.
    pub ports: Vec<u16>,
}
