//! EXTENDED COPY through the ring: what is copied, what is asked about it, and how it ends early.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, identity, model, until, verdict};
use handler_rbd::block::{BackendError, ErrorKind, Op};
use handler_rbd::device::Message;
use std::sync::Arc;
use uio_ring::mock::{Direction, Reset};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);

/// The serial number of the unit, and the NAA designator that page 83h makes of it.
const SERIAL: &str = "abc";
const NAME: [u8; 16] = [0x60, 0x01, 0x40, 0x5a, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn rig() -> Rig {
    Rig::with(model(), Arc::new(|| Ok(identity(SERIAL))))
}

/// An EXTENDED COPY within the unit: list identifier, segments of LBA, LBA and blocks.
fn copy(id: u8, segments: &[(u64, u64, u16)]) -> ([u8; 16], Direction) {
    let mut list = vec![id, 0, 0, 32, 0, 0, 0, 0];
    list.extend_from_slice(&u32::try_from(segments.len() * 28).unwrap().to_be_bytes());
    list.extend_from_slice(&[0, 0, 0, 0, 0xe4, 0, 0, 0, 0x01, 0x03, 0, 16]);
    list.extend_from_slice(&NAME);
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0]);
    for (from, to, blocks) in segments {
        list.extend_from_slice(&[0x02, 0, 0, 0x18, 0, 0, 0, 0, 0, 0]);
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&from.to_be_bytes());
        list.extend_from_slice(&to.to_be_bytes());
    }
    let mut cdb = [0; 16];
    cdb[0] = 0x83;
    cdb[10..14].copy_from_slice(&u32::try_from(list.len()).unwrap().to_be_bytes());
    (cdb, Direction::Out(list))
}

/// RECEIVE COPY STATUS(LID1): status, segments and bytes.
fn copy_status(rig: &Rig, id: u8) -> Option<(u8, u16, u32)> {
    let got = rig.ask(&[0x84, 0, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], Direction::In(12));
    (got.status == 0).then(|| {
        let data = got.data.unwrap();
        assert_eq!(data[..4], [0, 0, 0, 8]);
        let field = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        (data[4], u16::from_be_bytes([data[5], data[6]]), field(8))
    })
}

/// Fills the first blocks of the disk; block n is full of n + 1.
fn fill(rig: &Rig, blocks: u16) {
    let data = (0..blocks).flat_map(|n| [u8::try_from(n % 255 + 1).unwrap(); 512]).collect();
    let [high, low] = blocks.to_be_bytes();
    let written = rig.ask(&[0x2a, 0, 0, 0, 0, 0, 0, high, low, 0], Direction::Out(data));
    assert_eq!(verdict(&written), GOOD);
}

#[test]
fn segments_are_copied_in_their_order() {
    let rig = rig();
    fill(&rig, 600);
    let mut expected = rig.disk.snapshot();
    expected.copy_within(0..600 * 512, 7000 * 512);
    expected.copy_within(7000 * 512..7400 * 512, 7100 * 512); // over itself, forwards
    expected.copy_within(100 * 512..600 * 512, 3 * 512); // and backwards
    let (cdb, data) = copy(1, &[(0, 7000, 600), (7000, 7100, 400), (100, 3, 500)]);
    assert_eq!(verdict(&rig.ask(&cdb, data)), GOOD);
    assert!(rig.disk.snapshot() == expected);
    assert_eq!(copy_status(&rig, 1), Some((1, 3, 1500 * 512)));
    assert_eq!(copy_status(&rig, 1), None, "told once");
    assert_eq!(copy_status(&rig, 2), None);
    // Nothing to copy is copied, too.
    let (cdb, data) = copy(2, &[(0, 5, 0)]);
    assert_eq!(verdict(&rig.ask(&cdb, data)), GOOD);
    assert_eq!(copy_status(&rig, 2), Some((1, 1, 0)));
    rig.clean();
}

#[test]
fn eight_objects_at_a_time_in_any_order() {
    let rig = rig();
    fill(&rig, 1024);
    rig.disk.hold();
    // The rig's objects are 256 KiB, 512 blocks: eleven of them.
    let (cdb, data) = copy(7, &[(0, 2304, 5632)]);
    let ticket = rig.send(&cdb, data);
    rig.held(8);
    assert_eq!(copy_status(&rig, 7), Some((0, 0, 0)));
    while !rig.answered(ticket) {
        let held = rig.disk.held();
        if held > 0 {
            rig.disk.release(held - 1);
        }
        std::thread::yield_now();
    }
    assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    let disk = rig.disk.snapshot();
    assert!(disk[2304 * 512..3328 * 512] == disk[..1024 * 512]);
    rig.clean();
}

#[test]
fn an_aborted_copy_ends_early() {
    let rig = rig();
    fill(&rig, 1024);
    rig.disk.hold();
    let (cdb, data) = copy(1, &[(0, 4096, 4096)]);
    let ticket = rig.send(&cdb, data);
    rig.held(8);
    rig.kernel.abort(ticket);
    // Another command shows that the TMR has been seen.
    let tur = rig.send(&[0; 6], Direction::None);
    assert_eq!(verdict(&rig.wait(tur)), GOOD);
    rig.disk.release_all();
    assert_ne!(rig.wait(ticket).status, 0);
    assert!(rig.disk.snapshot()[4096 * 512..].iter().all(|&byte| byte == 0), "nothing was written after it");
    assert_eq!(copy_status(&rig, 1), Some((2, 0, 0)));
    rig.clean();
}

#[test]
fn eight_copies_at_a_time() {
    let rig = rig();
    rig.disk.hold();
    let tickets: Vec<_> = (0..8)
        .map(|id| {
            let (cdb, data) = copy(id, &[(0, 4096, 1)]);
            rig.send(&cdb, data)
        })
        .collect();
    rig.held(8);
    let (cdb, data) = copy(9, &[(0, 4096, 1)]);
    assert_eq!(rig.ask(&cdb, data.clone()).status, 0x28); // TASK SET FULL
    rig.disk.release_all();
    for ticket in tickets {
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    }
    assert_eq!(verdict(&rig.ask(&cdb, data)), GOOD);
    rig.clean();
}

#[test]
fn a_failure_is_told_with_its_segment() {
    let rig = rig();
    fill(&rig, 100);
    rig.disk.fail(
        BackendError::new(ErrorKind::Io),
        |op| matches!(op, Op::Write(range) if range.offset > 1 << 20),
    );
    let (cdb, data) = copy(3, &[(0, 100, 50), (0, 5000, 50)]);
    let got = rig.ask(&cdb, data);
    assert_eq!(verdict(&got), (2, [0x0a, 0x0d, 0x01]));
    assert_eq!(got.sense[10..12], [0, 1]);
    assert_eq!(copy_status(&rig, 3), Some((2, 1, 50 * 512)));
    // RECEIVE COPY FAILURE DETAILS(LID1).
    let details =
        rig.ask(&[0x84, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Direction::In(256)).data.unwrap();
    assert_eq!((&details[..4], details[56], details[62], details[71]), (&[0, 0, 0, 74][..], 2, 0x0a, 1));
    rig.clean();
}

#[test]
fn a_refused_copy_has_not_the_success_of_an_older_one() {
    let rig = rig();
    let succeed = |id| {
        let (cdb, data) = copy(id, &[(0, 4096, 1)]);
        assert_eq!(verdict(&rig.ask(&cdb, data)), GOOD);
    };
    succeed(1);
    let (cdb, data) = copy(1, &[(0, 8192, 1)]); // beyond the disk
    assert_eq!(verdict(&rig.ask(&cdb, data)), (2, [0x0a, 0x0d, 0x02]));
    assert_eq!(copy_status(&rig, 1), None);
    // A list that cannot be read; one whose result need not be kept; one that says less than its CDB.
    for (flags, len) in [(0, 17), (0x10, 17), (0, 200)] {
        succeed(1);
        let (mut cdb, data) = copy(1, &[(0, 4096, 1)]);
        let Direction::Out(mut list) = data else { panic!() };
        cdb[13] = len;
        list[1] |= flags;
        assert_eq!(verdict(&rig.ask(&cdb, Direction::Out(list))), (2, [5, 0x1a, 0]));
        assert_eq!(copy_status(&rig, 1), None, "{flags} {len}");
    }
    // Eight refusals take no place.
    for _ in 0..8 {
        let (cdb, data) = copy(1, &[(0, 8192, 1)]);
        assert_ne!(verdict(&rig.ask(&cdb, data)), GOOD);
    }
    succeed(1);
    rig.clean();
}

#[test]
fn a_reset_of_the_ring_forgets_the_copies() {
    let rig = rig();
    rig.disk.hold();
    for id in 0..8 {
        let (cdb, data) = copy(id, &[(0, 4096, 1)]);
        let _ = rig.send(&cdb, data);
    }
    rig.held(8);
    rig.kernel.block(true);
    rig.kernel.reset(Reset::Retry);
    rig.kernel.block(false);
    rig.disk.release_all();
    rig.handle.send(Message::Resize(device_rig::DISK));
    until(|| copy_status(&rig, 1).is_none());
    let (cdb, data) = copy(9, &[(0, 4096, 1)]);
    assert_eq!(verdict(&rig.ask(&cdb, data)), GOOD);
}

#[test]
fn another_device_is_not_reachable() {
    let rig = Rig::with(model(), Arc::new(|| Ok(identity("another"))));
    let (cdb, data) = copy(1, &[(0, 1, 1)]);
    assert_eq!(verdict(&rig.ask(&cdb, data)), (2, [0x0a, 0x0d, 0x02]));
    rig.clean();
}
