//! REPORT TARGET PORT GROUPS data (SPC-4, "REPORT TARGET PORT GROUPS command").

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

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Identity {
        Identity {
            groups: vec![
                PortGroup { id: 1, state: 0, supported: 0x8f, ports: vec![1], ..PortGroup::default() },
                PortGroup {
                    id: 0x0203,
                    state: 2,
                    supported: 0x0f,
                    status: 2,
                    preferred: true,
                    ports: vec![0x0405, 6],
                },
            ],
            implicit_trans_secs: 45,
            ..Identity::default()
        }
    }

    #[rustfmt::skip]
    const DESCRIPTORS: [u8; 28] = [
        0x00, 0x8f, 0x00, 0x01, 0, 0x00, 0, 1, 0, 0, 0x00, 0x01,
        0x82, 0x0f, 0x02, 0x03, 0, 0x02, 0, 2, 0, 0, 0x04, 0x05, 0, 0, 0x00, 0x06,
    ];

    #[test]
    fn length_only_header() {
        let mut out = Vec::new();
        report_groups(&groups(), false, &mut out);
        assert_eq!(out[..4], [0, 0, 0, 28]);
        assert_eq!(out[4..], DESCRIPTORS);
    }

    #[test]
    fn extended_header_is_counted() {
        // tcmu-runner's length was four too small here.
        let mut out = Vec::new();
        report_groups(&groups(), true, &mut out);
        assert_eq!(out[..8], [0, 0, 0, 32, 0x10, 45, 0, 0]);
        assert_eq!(out[8..], DESCRIPTORS);
    }

    #[test]
    fn port_count_and_ports_agree() {
        let mut identity = groups();
        identity.groups.truncate(1);
        identity.groups[0].ports = (0..300).collect();
        let mut out = Vec::new();
        report_groups(&identity, false, &mut out);
        assert_eq!(out[..4], [0, 0, 0x04, 0x04]); // 8 + 255 * 4
        assert_eq!(out[11], 255);
        assert_eq!(out.len(), 4 + 8 + 255 * 4);
    }
}
