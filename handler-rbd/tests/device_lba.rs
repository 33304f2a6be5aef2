//! Commands about single blocks, through the whole device thread: what they find and do is on the disk.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, identity, model, until, verdict};
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

/// ORWRITE(16) of a block that has one bit set.
fn orwrite(lba: u64, bit: usize) -> ([u8; 16], Direction) {
    let mut data = vec![0; 512];
    data[bit / 8] = 1 << (bit % 8);
    (cdb_16(0x8b, 0, lba, 1), Direction::Out(data))
}

/// COMPARE AND WRITE of a block.
fn compare_and_write(lba: u64, old: &[u8], new: &[u8]) -> ([u8; 16], Direction) {
    let mut cdb = cdb_16(0x89, 0, lba, 0);
    cdb[13] = u8::try_from(old.len() / 512).unwrap();
    (cdb, Direction::Out([old, new].concat()))
}

const MISCOMPARE: (u8, [u8; 3]) = (2, [0xe, 0x1d, 0]);

/// Finishes what storage holds in this order of disorder until `done`.
fn shuffle(rig: &Rig, seed: usize, mut done: impl FnMut() -> bool) {
    let mut random = seed;
    until(|| {
        while let held @ 1.. = rig.disk.held() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rig.disk.release((random >> 33) % held);
        }
        done()
    });
}

#[test]
fn every_bit_of_a_crowd_is_there() {
    let mut lost = 0;
    for seed in 0..4 {
        let rig = rig();
        write(&rig, 7, &[0; 512]);
        rig.disk.hold();
        let send = |(cdb, data): ([u8; 16], Direction)| rig.send(&cdb, data);
        // Two bits in each of 32 bytes.
        let all: Vec<_> = (0..64).map(|n| send(orwrite(7, n * 4))).collect();
        // Those that compare begin anew each time they lose, from what is on the disk then.
        let mut comparing: Vec<_> = (0..16).map(|n| (n, None)).collect();
        rig.held(64);
        shuffle(&rig, seed, || {
            comparing.retain_mut(|(n, ticket)| {
                let mine = match ticket.map(|ticket| rig.kernel.result(ticket)) {
                    Some(None) => return true,
                    Some(Some(got)) if verdict(&got) == GOOD => return false,
                    Some(Some(got)) => {
                        assert_eq!(verdict(&got), MISCOMPARE);
                        lost += 1;
                        400 + *n
                    }
                    None => 400 + *n,
                };
                let old = rig.disk.snapshot()[7 * 512..8 * 512].to_vec();
                assert_eq!(old[mine], 0, "nobody else sets it");
                let mut new = old.clone();
                new[mine] = 0xff;
                *ticket = Some(send(compare_and_write(7, &old, &new)));
                true
            });
            comparing.is_empty() && all.iter().all(|&ticket| rig.answered(ticket))
        });
        for ticket in all {
            assert_eq!(verdict(&rig.wait(ticket)), GOOD);
        }
        let mut expected = [0; 512];
        expected[..32].fill(0x11);
        expected[400..416].fill(0xff);
        assert_eq!(rig.disk.snapshot()[7 * 512..8 * 512], expected);
        rig.disk.release_all();
        rig.clean();
    }
    assert!(lost > 0, "there was no contention");
}

#[test]
fn orwrite_over_a_long_extent() {
    let rig = rig();
    let old: Vec<u8> = (0..300 * 512).map(|n: usize| n.to_le_bytes()[0]).collect();
    let data: Vec<u8> = (0..300 * 512).map(|n: usize| n.to_le_bytes()[1]).collect();
    write(&rig, 100, &old);
    assert_eq!(verdict(&rig.ask(&cdb_16(0x8b, 0, 100, 300), Direction::Out(data.clone()))), GOOD);
    let ored: Vec<u8> = old.iter().zip(&data).map(|(a, b)| a | b).collect();
    let disk = rig.disk.snapshot();
    assert!(disk[100 * 512..400 * 512] == ored);
    assert!(disk[..100 * 512].iter().chain(&disk[400 * 512..]).all(|&byte| byte == 0));
    // Done again, it writes nothing.
    rig.disk.fail(BackendError::new(ErrorKind::ReadOnly), |op| !matches!(op, Op::Read(_)));
    assert_eq!(verdict(&rig.ask(&cdb_16(0x8b, 0, 100, 300), Direction::Out(data))), GOOD);
    assert_eq!(verdict(&rig.ask(&orwrite(0, 0).0, orwrite(0, 0).1)), (2, [7, 0x27, 0]));
    rig.clean();
}

#[test]
fn eight_blocks_are_compared_and_written_at_once() {
    let rig = rig();
    let (old, mut new) = (vec![0; 4096], vec![7; 4096]);
    let ask = |(cdb, data): ([u8; 16], Direction)| rig.ask(&cdb, data);
    assert_eq!(verdict(&ask(compare_and_write(8, &old, &new))), GOOD);
    assert_eq!(rig.disk.snapshot()[4096..8192], new);
    new[3333] = 8;
    let got = ask(compare_and_write(8, &new, &old));
    assert_eq!((verdict(&got), &got.sense[..7]), (MISCOMPARE, &[0xf0, 0, 0xe, 0, 0, 0x0d, 0x05][..]));
    assert_eq!(verdict(&ask(compare_and_write(9, &new, &old))), (2, [5, 0x24, 0]), "across a line");
    assert_eq!(rig.disk.snapshot()[4096..8192], [7; 4096]);
    rig.clean();
}

#[test]
fn an_atomic_write_reaches_storage_in_one() {
    let rig = rig();
    let write_atomic = |lba, blocks: u32| {
        let data = vec![9; usize::try_from(blocks).unwrap() * 512];
        rig.send(&cdb_16(0x9c, 0, lba, blocks), Direction::Out(data))
    };
    rig.disk.hold();
    // The model's objects are of 256 KiB, 512 blocks.
    let whole = [write_atomic(32, 32), write_atomic(512, 512)];
    rig.held(2);
    rig.disk.release_all();
    for ticket in whole {
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    }
    for (lba, blocks) in [(480, 64), (1024, 544), (1, 32), (1024, 8)] {
        assert_eq!(verdict(&rig.wait(write_atomic(lba, blocks))), (2, [5, 0x24, 0]));
    }
    let disk = rig.disk.snapshot();
    let written = |block: usize| (32..64).contains(&block) || (512..1024).contains(&block);
    for (n, block) in disk.chunks(512).enumerate() {
        assert_eq!(block, [if written(n) { 9 } else { 0 }; 512], "{n}");
    }
    rig.clean();
}
