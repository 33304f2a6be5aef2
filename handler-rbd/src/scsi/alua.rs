//! REPORT TARGET PORT GROUPS data (SPC-4 6.37).

use super::identity::{Identity, PortGroup};

/// Appends the groups, behind the length only or the extended header.
///
/// RETURN DATA LENGTH counts everything behind itself, whatever the allocation length: an initiator learns
/// from it how much to ask for.
pub fn report_groups(identity: &Identity, extended: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    if extended {
        // RETURN DATA FORMAT 001b, IMPLICIT TRANSITION TIME.
        out.extend_from_slice(&[0x10, identity.implicit_trans_secs, 0, 0]);
    }
    for group in &identity.groups {
        push_group(group, out);
    }
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn push_group(group: &PortGroup, out: &mut Vec<u8>) {
    let ports = &group.ports[..group.ports.len().min(MAX_PORTS)];
    let preferred = if group.preferred { 0x80 } else { 0x00 };
    out.extend_from_slice(&[preferred | (group.state & 0x0f), group.supported]);
    out.extend_from_slice(&group.id.to_be_bytes());
    out.extend_from_slice(&[0, group.status, 0, u8::try_from(ports.len()).unwrap_or(u8::MAX)]);
    for port in ports {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&port.to_be_bytes());
    }
}

/// TARGET PORT COUNT is one byte.
const MAX_PORTS: usize = 255;
