//! Commands about single blocks, through the whole device thread: what they find and do is on the disk.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, identity, model, verdict};
use handler_rbd::block::{BackendError, ErrorKind, Op};
use std::sync::Arc;
use uio_ring::mock::{Direction, MockConfig};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);

fn rig() -> Rig {
    Rig::with(MockConfig { data_bytes: 16 << 20, ..model() }, Arc::new(|| Ok(identity("x"))))
}

/// A 16-byte CDB with LBA and a four-byte field behind it.
fn cdb_16(opcode: u8, byte_1: u8, lba: u64, field: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..2].copy_from_slice(&[opcode, byte_1]);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&field.to_be_bytes());
    cdb
}

/// WRITE(16) of this.
fn write(rig: &Rig, lba: u64, data: &[u8]) {
    let blocks = u32::try_from(data.len() / 512).unwrap();
    assert_eq!(verdict(&rig.ask(&cdb_16(0x8a, 0, lba, blocks), Direction::Out(data.to_vec()))), GOOD);
}

/// GET LBA STATUS(16).
fn lba_status(lba: u64, allocation: u32) -> [u8; 16] {
    cdb_16(0x9e, 0x12, lba, allocation)
}

#[test]
fn lba_status_says_what_is_on_the_disk() {
    let rig = rig();
    // The model tells of 4 KiB at a time, from the first block asked about: 8 to 15 and 600 to 607.
    write(&rig, 9, &[1; 512]);
    write(&rig, 606, &[1; 1024]);
    let got = rig.ask(&lba_status(0, 104), Direction::In(104));
    let mut expected = vec![0, 0, 0, 84, 0, 0, 0, 0];
    for (lba, blocks, status) in [(0, 8, 1), (8, 8, 0), (16, 584, 1), (600, 8, 0), (608, 7584, 1)] {
        expected.extend_from_slice(&u64::to_be_bytes(lba));
        expected.extend_from_slice(&u32::to_be_bytes(blocks));
        expected.extend_from_slice(&[status, 0, 0, 0]);
    }
    assert_eq!((verdict(&got), got.data.unwrap()), (GOOD, expected));
    // Unmapped, a block is not there any more.
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]);
    assert_eq!(verdict(&rig.ask(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Direction::Out(list))), GOOD);
    let got = rig.ask(&lba_status(0, 24), Direction::In(24)).data.unwrap();
    assert_eq!(got, [0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x58, 1, 0, 0, 0]);
    assert_eq!(verdict(&rig.ask(&lba_status(8192, 24), Direction::In(24))), (2, [5, 0x21, 0]));
    rig.clean();
}

#[test]
fn lba_status_without_an_answer_from_storage() {
    let rig = rig();
    let asked = |op: &Op| matches!(op, Op::Extents(_));
    rig.disk.fail(BackendError::new(ErrorKind::Invalid), asked);
    let got = rig.ask(&lba_status(8191, 24), Direction::In(24));
    let mapped = vec![0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!((verdict(&got), got.data.unwrap()), (GOOD, mapped));
    rig.disk.fail(BackendError::new(ErrorKind::Fenced), asked);
    assert_eq!(verdict(&rig.ask(&lba_status(0, 24), Direction::In(24))), (8, [0, 0, 0]));
    rig.clean();
}
