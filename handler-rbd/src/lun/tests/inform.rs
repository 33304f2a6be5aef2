//! Commands that only tell something, through the whole path from CDB to reply.

use super::*;

fn reply(cdb: &[u8]) -> Vec<u8> {
    match run(cdb, 0) {
        End::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn inquiry(evpd: u8, page: u8, allocation: u8) -> [u8; 6] {
    [0x12, evpd, page, 0, allocation, 0]
}

#[test]
fn ready() {
    assert_eq!(run(&[0x00, 0, 0, 0, 0, 0], 0), End::Good);
    assert_eq!(run(&[0x1b, 0, 0, 0, 1, 0], 0), End::Good);
    assert_eq!(reply(&[0x03, 0, 0, 0, 252, 0])[..3], [0x70, 0, 0]);
    assert_eq!(reply(&[0x03, 1, 0, 0, 252, 0]), [0x72, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn standard_inquiry() {
    let data = reply(&inquiry(0, 0, 96));
    assert_eq!(data[..8], [0, 0, 5, 2, 0x45, 0x18, 0, 2]);
    assert_eq!(&data[8..36], b"LIO-ORG TCMU device     0002");
    assert_eq!(data.len(), 74);
}

#[test]
fn pages() {
    assert_eq!(reply(&inquiry(1, 0x00, 255)), [0, 0, 0, 7, 0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
    assert_eq!(reply(&inquiry(1, 0x80, 255)).len(), 41);
    assert_eq!(reply(&inquiry(1, 0x83, 255)).len(), 230);
    assert_eq!(reply(&inquiry(1, 0xb1, 255))[..6], [0, 0xb1, 0, 0x3c, 0, 0]);
    assert_eq!(reply(&inquiry(1, 0xb2, 255)), [0, 0xb2, 0, 4, 0, 0xe4, 0, 0]);
    let extended = reply(&inquiry(1, 0x86, 255));
    assert_eq!(extended[..8], [0, 0x86, 0, 0x3c, 0, 0x01, 0, 0]); // SIMPSUP
    assert_eq!(extended[8..], [0; 56]);
    assert_eq!(run(&inquiry(1, 0x87, 255), 255), BAD_FIELD);
}

#[test]
fn block_limits_are_those_of_the_incumbent() {
    let mut expected = [0; 64];
    expected[..8].copy_from_slice(&[0, 0xb0, 0, 0x3c, 0x01, 0x01, 0, 0]);
    expected[8..16].copy_from_slice(&[0, 0, 4, 0, 0, 0, 4, 0]); // 1024 blocks
    expected[20..28].copy_from_slice(&[0, 0, 0x80, 0, 0, 0, 0, 4]); // 32768 blocks, 4 descriptors
    expected[28..36].copy_from_slice(&[0, 0, 0, 128, 0x80, 0, 0, 128]);
    expected[36..44].copy_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    // What it did not have: 32 blocks are written atomically.
    expected[44..56].copy_from_slice(&[0, 0, 0, 32, 0, 0, 0, 32, 0, 0, 0, 32]);
    assert_eq!(reply(&inquiry(1, 0xb0, 255)), expected);
}

#[test]
fn replies_end_with_the_allocation_length() {
    assert_eq!(reply(&inquiry(0, 0, 5)), [0, 0, 5, 2, 0x45]);
    assert_eq!(reply(&inquiry(0, 0, 0)), [0_u8; 0]);
    assert_eq!(reply(&inquiry(1, 0x83, 4)), [0, 0x83, 0, 0xe2]); // the length is the whole page's
    assert_eq!(reply(&[0x1a, 0, 0x3f, 0, 4, 0]), [0x2f, 0, 0x10, 0]);
    assert_eq!(reply(&[0x1a, 0, 0x3f, 0, 1, 0]), [0x2f]);
    assert_eq!(reply(&[0x03, 0, 0, 0, 3, 0]), [0x70, 0, 0]);
    assert_eq!(reply(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]), [0, 0, 1, 0x98]);
    assert_eq!(reply(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]), [0, 0, 0, 12]);
}

#[test]
fn capacity() {
    assert_eq!(reply(&cdb_10(0x25, 0, 0, 0)), [0x00, 0x01, 0xff, 0xff, 0, 0, 2, 0]);
    let long = reply(&cdb_16(0x9e, 0x10, 0, 32));
    assert_eq!(long[..16], [0, 0, 0, 0, 0, 0x01, 0xff, 0xff, 0, 0, 2, 0, 0, 0, 0xc0, 0]);
    assert_eq!(long.len(), 32);
    assert_eq!(reply(&cdb_16(0x9e, 0x10, 0, 12)), long[..12]);
}

#[test]
fn target_port_groups() {
    let groups = [0x00, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
    let short = reply(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(short[..4], [0, 0, 0, 12]);
    assert_eq!(short[4..], groups);
    let extended = reply(&[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(extended[..8], [0, 0, 0, 16, 0x10, 45, 0, 0]);
    assert_eq!(extended[8..], groups);
}

#[test]
fn mode_pages_and_their_refusals() {
    assert_eq!(reply(&[0x1a, 0, 0x08, 0, 255, 0]).len(), 24);
    assert_eq!(run(&[0x1a, 0, 0xff, 0, 255, 0], 255), End::Check(0x05, 0x39, 0x00));
    assert_eq!(run(&[0x1a, 0, 0x1c, 0, 255, 0], 255), BAD_FIELD);
}

/// Starts a command with the identity given.
fn start(cdb: &[u8], identity: Option<&Identity>) -> End {
    let command = decode(cdb).unwrap();
    let mut reply = Vec::new();
    match unit().start(&command, &Transfer { len: 255 }, identity, &[], &mut reply) {
        Step::Done(outcome) => end_of(outcome),
        Step::Reply => End::Reply(reply),
        other => panic!("{other:?}"),
    }
}

const REPORT_GROUPS: [u8; 12] = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

#[test]
fn a_disk_without_a_port_has_no_asymmetric_access() {
    let identity = Identity { port: None, ..identity() };
    let End::Reply(data) = start(&inquiry(0, 0, 36), Some(&identity)) else { panic!() };
    assert_eq!(data[5], 0x08);
    let End::Reply(data) = start(&inquiry(1, 0x83, 255), Some(&identity)) else { panic!() };
    assert_eq!(data[..4], [0, 0x83, 0, 0x6a]);
    assert_eq!(start(&REPORT_GROUPS, Some(&identity)), End::Check(0x05, 0x20, 0x00));
}

#[test]
fn identity_is_wanted_where_it_is_used() {
    for (cdb, needs) in [
        (&inquiry(0, 0, 36)[..], true),
        (&inquiry(1, 0x80, 255), true),
        (&inquiry(1, 0x83, 255), true),
        (&REPORT_GROUPS, true),
        (&inquiry(1, 0x00, 255), false),
        (&inquiry(1, 0xb0, 255), false),
        (&inquiry(1, 0xb1, 255), false),
        (&inquiry(1, 0xb2, 255), false),
    ] {
        assert_eq!(LogicalUnit::needs_identity(&decode(cdb).unwrap()), needs, "{cdb:02x?}");
        let failed = start(cdb, None) == End::Check(0x04, 0x44, 0x00);
        assert_eq!(failed, needs, "{cdb:02x?}");
    }
    assert!(!LogicalUnit::needs_identity(&decode(&cdb_10(0x28, 0, 0, 1)).unwrap()));
}

#[test]
fn every_command_that_decodes_can_be_started() {
    for first in 0..=255 {
        for second in 0..=255 {
            let mut cdb = [0; 32];
            cdb[..2].copy_from_slice(&[first, second]);
            let _ = run(&cdb, 512);
        }
    }
}

#[test]
fn what_there_is_not() {
    assert_eq!(reply(&cdb_10(0x4d, 0, 0, 64)), [0, 0, 0, 1, 0]);
    assert_eq!(reply(&cdb_10(0x37, 0, 0x1800_0000, 64)), [0, 0x18, 0, 0]);
    assert_eq!(reply(&[0xb7, 0x10, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0]), [0, 0x10, 0, 0, 0]);
    assert_eq!(reply(&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]), [0x88, 0, 0, 0]);
    assert_eq!(run(&[0x1e, 0, 0, 0, 1, 0], 0), End::Good);
}

#[test]
fn mode_select_changes_nothing() {
    let caching = [0, 0, 0, 0, 0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let select = [0x15, 0x10, 0, 0, 24, 0];
    assert_eq!(run_on(&mut unit(), &select, &caching), End::Good);
    assert_eq!(run_on(&mut unit(), &[0x15, 0x10, 0, 0, 0, 0], &[]), End::Good);
    assert_eq!(run_on(&mut unit(), &select, &caching[..23]), BAD_LIST_LENGTH);
    let mut cached = caching;
    cached[6] = 0x04; // WCE
    assert_eq!(run_on(&mut unit(), &select, &cached), BAD_LIST);
    let long = [&[0; 8], &caching[4..]].concat();
    assert_eq!(run_on(&mut unit(), &cdb_10(0x55, 0x10, 0, 28), &long), End::Good);
    assert_eq!(run_on(&mut unit(), &cdb_10(0x55, 0x10, 0, 7), &long), BAD_LIST_LENGTH);
}
