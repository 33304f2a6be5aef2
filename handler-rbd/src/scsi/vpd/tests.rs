//! Pages against what tcmu-runner answered for the same disk, byte by byte.

use super::*;
use crate::scsi::identity::PortGroup;

fn identity() -> Identity {
    Identity {
        unit_serial: "f8cc0e02-e1d0-403a-907b-2f3e44e14bd0".into(),
        config: "rbd/rbd/disk_1;osd_op_timeout=30".into(),
        port: Some(TargetPort {
            protocol: 5,
            relative_id: 1,
            group_id: 1,
            tpgt: 1,
            wwn: "iqn.2003-01.com.redhat.iscsi-gw:iscsi-igw".into(),
        }),
        groups: vec![PortGroup { id: 1, ports: vec![1], ..PortGroup::default() }],
        implicit_trans_secs: 45,
        write_exclusive: false,
        read_only: false,
    }
}

fn identification(identity: &Identity) -> Vec<u8> {
    let mut out = Vec::new();
    device_identification(identity, &mut out);
    out
}

/// `sg_inq -H -p 0x83` of tcmu-runner's disk.
#[rustfmt::skip]
const INCUMBENT_83: [u8; 230] = [
    0x00, 0x83, 0x00, 0xe2, 0x02, 0x01, 0x00, 0x2d, 0x4c, 0x49, 0x4f, 0x2d, 0x4f, 0x52, 0x47, 0x20,
    0x66, 0x38, 0x63, 0x63, 0x30, 0x65, 0x30, 0x32, 0x2d, 0x65, 0x31, 0x64, 0x30, 0x2d, 0x34, 0x30,
    0x33, 0x61, 0x2d, 0x39, 0x30, 0x37, 0x62, 0x2d, 0x32, 0x66, 0x33, 0x65, 0x34, 0x34, 0x65, 0x31,
    0x34, 0x62, 0x64, 0x30, 0x00, 0x01, 0x03, 0x00, 0x10, 0x60, 0x01, 0x40, 0x5f, 0x8c, 0xc0, 0xe0,
    0x2e, 0x1d, 0x04, 0x03, 0xa9, 0x07, 0xb2, 0xf3, 0xe4, 0x02, 0x00, 0x00, 0x21, 0x72, 0x62, 0x64,
    0x2f, 0x72, 0x62, 0x64, 0x2f, 0x64, 0x69, 0x73, 0x6b, 0x5f, 0x31, 0x3b, 0x6f, 0x73, 0x64, 0x5f,
    0x6f, 0x70, 0x5f, 0x74, 0x69, 0x6d, 0x65, 0x6f, 0x75, 0x74, 0x3d, 0x33, 0x30, 0x00, 0x51, 0x94,
    0x00, 0x04, 0x00, 0x00, 0x00, 0x01, 0x51, 0x95, 0x00, 0x04, 0x00, 0x00, 0x00, 0x01, 0x53, 0x98,
    0x00, 0x34, 0x69, 0x71, 0x6e, 0x2e, 0x32, 0x30, 0x30, 0x33, 0x2d, 0x30, 0x31, 0x2e, 0x63, 0x6f,
    0x6d, 0x2e, 0x72, 0x65, 0x64, 0x68, 0x61, 0x74, 0x2e, 0x69, 0x73, 0x63, 0x73, 0x69, 0x2d, 0x67,
    0x77, 0x3a, 0x69, 0x73, 0x63, 0x73, 0x69, 0x2d, 0x69, 0x67, 0x77, 0x2c, 0x74, 0x2c, 0x30, 0x78,
    0x30, 0x30, 0x30, 0x31, 0x00, 0x00, 0x53, 0xa8, 0x00, 0x2c, 0x69, 0x71, 0x6e, 0x2e, 0x32, 0x30,
    0x30, 0x33, 0x2d, 0x30, 0x31, 0x2e, 0x63, 0x6f, 0x6d, 0x2e, 0x72, 0x65, 0x64, 0x68, 0x61, 0x74,
    0x2e, 0x69, 0x73, 0x63, 0x73, 0x69, 0x2d, 0x67, 0x77, 0x3a, 0x69, 0x73, 0x63, 0x73, 0x69, 0x2d,
    0x69, 0x67, 0x77, 0x00, 0x00, 0x00,
];

#[test]
fn device_identification_is_what_tcmu_runner_answered() {
    assert_eq!(identification(&identity()), INCUMBENT_83);
}

#[test]
fn without_a_port_three_designators_remain() {
    let page = identification(&Identity { port: None, ..identity() });
    assert_eq!(page[..4], [0x00, 0x83, 0x00, 0x6a]); // 49 + 20 + 37 bytes
    assert_eq!(page[4..], INCUMBENT_83[4..110]);
}

#[test]
fn naa_takes_hexadecimal_digits_only() {
    let expected = [0x60, 0x01, 0x40, 0x5a, 0xbc, 0xde, 0xf0, 0x12, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(naa("A-b_c:zDEf0 12"), expected);
    assert_eq!(naa(""), [0x60, 0x01, 0x40, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// The lengths of the designators of a page, which must fill it exactly.
fn designator_lengths(page: &[u8]) -> Vec<usize> {
    assert_eq!(usize::from(page[2]) << 8 | usize::from(page[3]), page.len() - 4);
    let mut lengths = Vec::new();
    let mut at = 4;
    while at < page.len() {
        let len = usize::from(page[at + 3]);
        lengths.push(len);
        at += 4 + len;
    }
    assert_eq!(at, page.len());
    lengths
}

#[test]
fn names_of_any_length_stay_in_their_designators() {
    // a name of 184 bytes made tcmu-runner write behind its buffer.
    for len in 0..300 {
        let mut identity = identity();
        identity.unit_serial = "e".repeat(len);
        identity.config = "c".repeat(len);
        let port = identity.port.as_mut().unwrap();
        port.wwn = "w".repeat(len);
        let lengths = designator_lengths(&identification(&identity));
        let [t10, naa, vendor, 4, 4, port, device] = lengths[..] else { panic!("{lengths:?}") };
        assert_eq!((t10, naa, vendor), ((8 + len + 1).min(255), 16, (len + 1).min(255)));
        // A multiple of four with at least one zero byte, and ",t,0x0001" whole.
        let whole = |text: usize| (text / 4 * 4 + 4).min(252);
        assert_eq!((port, device), (whole(len + 9), whole(len)), "{len}");
    }
}

#[test]
fn a_cut_port_name_keeps_its_tag() {
    let mut identity = identity();
    identity.port.as_mut().unwrap().wwn = "w".repeat(300);
    let page = identification(&identity);
    let text = String::from_utf8_lossy(&page);
    assert!(text.contains("www,t,0x0001\0"));
}

#[test]
fn serial_number_counts_its_zero_byte() {
    let mut out = Vec::new();
    unit_serial_number(&identity(), &mut out);
    assert_eq!(out[..4], [0x00, 0x80, 0x00, 0x25]);
    assert_eq!(&out[4..], b"f8cc0e02-e1d0-403a-907b-2f3e44e14bd0\0");
}

#[test]
fn supported_pages_are_these() {
    let mut out = Vec::new();
    supported_pages(&mut out);
    assert_eq!(out, [0x00, 0x00, 0x00, 0x07, 0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
}

#[test]
fn block_limits_are_where_the_standard_puts_them() {
    let limits = BlockLimits {
        max_compare_and_write: 1,
        max_transfer: 0x0102_0304,
        max_unmap: 0x0506_0708,
        max_unmap_descriptors: 0x090a_0b0c,
        unmap_granularity: 0x0d0e_0f10,
        atomic_write: 0x1112_1314,
    };
    let mut out = Vec::new();
    block_limits(&limits, &mut out);
    let mut expected = [0; 64];
    expected[..4].copy_from_slice(&[0x00, 0xb0, 0x00, 0x3c]);
    expected[4] = 0x01; // WSNZ
    expected[5] = 0x01; // MAXIMUM COMPARE AND WRITE LENGTH
    expected[8..12].copy_from_slice(&[1, 2, 3, 4]); // MAXIMUM TRANSFER LENGTH
    expected[12..16].copy_from_slice(&[1, 2, 3, 4]); // OPTIMAL TRANSFER LENGTH
    expected[20..24].copy_from_slice(&[5, 6, 7, 8]); // MAXIMUM UNMAP LBA COUNT
    expected[24..28].copy_from_slice(&[9, 10, 11, 12]); // MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT
    expected[28..32].copy_from_slice(&[13, 14, 15, 16]); // OPTIMAL UNMAP GRANULARITY
    expected[32..36].copy_from_slice(&[0x8d, 14, 15, 16]); // UGAVALID, UNMAP GRANULARITY ALIGNMENT
    expected[40..44].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]); // MAXIMUM WRITE SAME LENGTH
    expected[44..48].copy_from_slice(&[17, 18, 19, 20]); // MAXIMUM ATOMIC TRANSFER LENGTH
    expected[48..52].copy_from_slice(&[17, 18, 19, 20]); // ATOMIC ALIGNMENT
    expected[52..56].copy_from_slice(&[17, 18, 19, 20]); // ATOMIC TRANSFER LENGTH GRANULARITY
    assert_eq!(out, expected);
}

#[test]
fn characteristics_and_provisioning() {
    for (solid_state, rotation) in [(false, 0x00), (true, 0x01)] {
        let mut out = Vec::new();
        block_device_characteristics(solid_state, &mut out);
        let mut expected = [0; 64];
        expected[..8].copy_from_slice(&[0x00, 0xb1, 0x00, 0x3c, 0x00, rotation, 0x00, 0x40]); // WABEREQ 01b
        assert_eq!(out, expected);
    }
    let mut out = Vec::new();
    logical_block_provisioning(&mut out);
    assert_eq!(out, [0x00, 0xb2, 0x00, 0x04, 0x00, 0xe4, 0x00, 0x00]);
}
