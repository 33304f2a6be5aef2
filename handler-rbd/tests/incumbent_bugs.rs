//! What tcmu-runner gets wrong, each seen in its source or shown on a running one: a test that it would fail, through
//! the ring. The letters and numbers are those by which docs/scsi.md lists them. Elsewhere, because they need
//! more than a ring: W-07 and W-09 in `tests/lab/22-fenced.sh` and `device_fenced.rs`, W-08 in
//! `tests/lab/23-late-cluster.sh`, the reading back of a shrunken image (W-10) in `rbd/aio.rs`, the resizing to more
//! than the image has (W-12) in `tests/lab/16-control.sh`, odd lengths of CDBs and the tail's barrier
//! (W-13) in `uio-ring/tests`.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, identity, model, verdict};
use handler_rbd::block::{BackendError, ErrorKind, Op};
use handler_rbd::lun::{Identity, PortGroup, TargetPort};
use std::sync::Arc;
use uio_ring::mock::Direction;

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const BUSY: (u8, [u8; 3]) = (8, [0, 0, 0]);
const OUT_OF_RANGE: (u8, [u8; 3]) = (2, [5, 0x21, 0]);
const BAD_LIST: [u8; 2] = [5, 0x26];

fn rig() -> Rig {
    Rig::with(model(), Arc::new(|| Ok(identity("abc"))))
}

/// UNMAP with this list.
fn unmap(list: &[u8]) -> ([u8; 10], Direction) {
    let [high, low] = u16::try_from(list.len()).unwrap().to_be_bytes();
    ([0x42, 0, 0, 0, 0, 0, 0, high, low, 0], Direction::Out(list.to_vec()))
}

fn unmap_list(extents: &[(u64, u32)]) -> Vec<u8> {
    let len = u16::try_from(extents.len() * 16).unwrap();
    let mut list = Vec::new();
    list.extend_from_slice(&(len + 6).to_be_bytes());
    list.extend_from_slice(&len.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    for (lba, blocks) in extents {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

/// WRITE SAME(16) with UNMAP = 1.
fn write_same(lba: u8, blocks: u16, content: u8) -> ([u8; 16], Direction) {
    let [high, low] = blocks.to_be_bytes();
    ([0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, high, low, 0, 0], Direction::Out(vec![content; 512]))
}

fn ask(rig: &Rig, (cdb, data): (impl AsRef<[u8]>, Direction)) -> (u8, [u8; 3]) {
    verdict(&rig.ask(cdb.as_ref(), data))
}

/// Fills blocks 0 to 255 with 5Ah.
fn fill(rig: &Rig) {
    let data = Direction::Out(vec![0x5a; 256 * 512]);
    assert_eq!(verdict(&rig.ask(&[0x2a, 0, 0, 0, 0, 0, 0, 1, 0, 0], data)), GOOD);
}

#[test]
fn w_01_a_failing_unmap_is_not_good() {
    let rig = rig();
    for (kind, expected) in [
        (ErrorKind::Io, (2, [3, 0x0c, 0])),
        (ErrorKind::TimedOut, BUSY),
        (ErrorKind::Fenced, BUSY),
        (ErrorKind::NoSpace, (2, [7, 0x27, 7])),
    ] {
        // The second of two extents.
        let fails = |op: &Op| matches!(op, Op::WriteZeroes(range) if range.offset >= 100 * 512);
        rig.disk.fail(BackendError::new(kind), fails);
        assert_eq!(ask(&rig, unmap(&unmap_list(&[(0, 8), (128, 8)]))), expected, "{kind:?}");
        assert_eq!(ask(&rig, write_same(128, 128, 0)), expected, "{kind:?}");
    }
    rig.clean();
}

#[test]
fn w_02_write_same_with_unmap_writes_what_it_was_given() {
    let rig = rig();
    fill(&rig);
    // Aligned as a discard likes it.
    assert_eq!(ask(&rig, write_same(128, 128, 0xa5)), GOOD);
    let disk = rig.disk.snapshot();
    assert!(disk[..128 * 512].iter().all(|&byte| byte == 0x5a));
    assert!(disk[128 * 512..256 * 512].iter().all(|&byte| byte == 0xa5));
    rig.clean();
}

#[test]
fn w_02b_a_list_that_ends_early_unmaps_nothing() {
    let rig = rig();
    fill(&rig);
    let whole = unmap_list(&[(0, 8), (8, 8)]);
    // Its own length fields speak of two descriptors, of which one and a half, one, none came.
    for len in [8 + 24, 8 + 16, 8] {
        let (status, sense) = ask(&rig, unmap(&whole[..len]));
        assert_eq!((status, &sense[..2]), (2, &BAD_LIST[..]), "{len}");
    }
    // The CDB speaks of more than the buffer holds.
    let (cdb, _) = unmap(&whole);
    assert_eq!(ask(&rig, (cdb, Direction::Out(whole[..24].to_vec()))), (2, [5, 0x1a, 0]));
    // An extent out of range, after one that is fine.
    assert_eq!(ask(&rig, unmap(&unmap_list(&[(0, 8), (u64::MAX, 2)]))), OUT_OF_RANGE);
    assert!(rig.disk.snapshot()[..256 * 512].iter().all(|&byte| byte == 0x5a));
    rig.clean();
}

#[test]
fn w_03_no_opcode_is_swallowed_and_the_ring_runs_empty() {
    let rig = rig();
    for opcode in (0x60..0x7f).chain(0xc0..=0xff) {
        assert_eq!(verdict(&rig.ask(&[opcode; 16], Direction::None)), (2, [5, 0x20, 0]), "{opcode:02x}");
    }
    // A task management function as the last entry: the tail passes it.
    rig.disk.hold();
    let read = rig.send(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Direction::In(512));
    rig.held(1);
    rig.kernel.abort(read);
    rig.disk.release_all();
    rig.wait(read);
    device_rig::until(|| rig.kernel.cursors().head == rig.kernel.cursors().tail);
    rig.clean();
}

#[test]
fn w_04_long_names_fit_their_page() {
    for name in [1, 68, 75, 168, 184, 223] {
        for config in [30, 60, 250, 255] {
            let port = TargetPort {
                protocol: 5,
                relative_id: 1,
                group_id: 0,
                tpgt: 1,
                wwn: format!("iqn.{}", "n".repeat(name - 1)).chars().take(name).collect(),
            };
            let identity = Identity {
                unit_serial: "f8cc0e02-e1d0-403a-907b-2f3e44e14bd0".into(),
                config: format!("rbd/{}", "c".repeat(config - 4)),
                port: Some(port),
                groups: vec![PortGroup { id: 0, ports: vec![1], ..PortGroup::default() }],
                ..Identity::default()
            };
            let rig = Rig::with(model(), Arc::new(move || Ok(identity.clone())));
            let got = rig.ask(&[0x12, 1, 0x83, 0x10, 0, 0], Direction::In(4096));
            assert_eq!(verdict(&got), GOOD);
            let page = got.data.unwrap();
            assert_eq!(usize::from(u16::from_be_bytes([page[2], page[3]])), page.len() - 4);
            // Descriptors follow each other to the very end.
            let mut at = 4;
            while at < page.len() {
                at += 4 + usize::from(page[at + 3]);
            }
            assert_eq!(at, page.len(), "name {name}, configuration {config}");
            rig.clean();
        }
    }
}

#[test]
fn w_05_a_copy_is_answered_once_and_touches_nothing_after() {
    let rig = rig();
    fill(&rig);
    let mut list =
        vec![0, 0x18, 0, 32, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0, 0xe4, 0, 0, 0, 0x01, 0x03, 0, 16];
    list.extend_from_slice(&[0x60, 0x01, 0x40, 0x5a, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0x02, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 8]);
    list.extend_from_slice(&0_u64.to_be_bytes());
    list.extend_from_slice(&1000_u64.to_be_bytes());
    let cdb = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 76, 0, 0];
    for _ in 0..200 {
        assert_eq!(ask(&rig, (cdb, Direction::Out(list.clone()))), GOOD);
    }
    // W-12: an LBA and a length that wrap around, as source and as destination.
    for at in [60, 68] {
        let mut wraps = list.clone();
        wraps[at..at + 8].fill(0xff);
        assert_eq!(ask(&rig, (cdb, Direction::Out(wraps))), (2, [0x0a, 0x0d, 0x02]));
    }
    rig.clean();
}

#[test]
fn w_10_what_a_reply_does_not_fill_is_withheld() {
    let rig = rig();
    for (cdb, len) in [
        (&[0x12, 0, 0, 0, 255, 0][..], 74),
        (&[0x12, 1, 0xb0, 0, 255, 0], 64),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        (&[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 47),
    ] {
        fill(&rig); // the pages are dirty
        let got = rig.ask(cdb, Direction::In(512));
        assert_eq!(
            (got.data.unwrap().len(), got.resid),
            (len, 512 - u32::try_from(len).unwrap()),
            "{cdb:02x?}"
        );
    }
    rig.clean();
}

#[test]
fn w_11_all_of_the_sense_buffer_is_ours() {
    let rig = rig();
    // COMPARE AND WRITE of something else than is there; an unknown opcode; an UNMAP that fails.
    let compare =
        rig.ask(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], Direction::Out(vec![1; 1024]));
    assert_eq!(verdict(&compare), (2, [0xe, 0x1d, 0]));
    let unknown = rig.ask(&[0xc1; 16], Direction::None);
    for got in [compare, unknown] {
        assert_eq!(got.sense.len(), 96);
        assert!(got.sense[18..].iter().all(|&byte| byte == 0));
    }
    rig.clean();
}

#[test]
fn w_12_lengths_of_zero() {
    let rig = rig();
    // READ(6) and WRITE(6): 256 blocks.
    let data = Direction::Out(vec![7; 256 * 512]);
    assert_eq!(verdict(&rig.ask(&[0x0a, 0, 0, 0, 0, 0], data)), GOOD);
    let got = rig.ask(&[0x08, 0, 0, 0, 0, 0], Direction::In(256 * 512));
    assert!(got.status == 0 && got.data.unwrap() == vec![7; 256 * 512]);
    // The others: none.
    for opcode in [0x28, 0x2a] {
        assert_eq!(verdict(&rig.ask(&[opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0], Direction::None)), GOOD);
    }
    for opcode in [0x88, 0x8a] {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        assert_eq!(verdict(&rig.ask(&cdb, Direction::None)), GOOD);
    }
    rig.clean();
}

#[test]
fn w_12_mode_pages_can_be_selected_as_they_are() {
    let rig = rig();
    let sensed = rig.ask(&[0x1a, 0, 0x3f, 0, 252, 0], Direction::In(252)).data.unwrap();
    let len = u8::try_from(sensed.len()).unwrap();
    let mut list = sensed;
    list[0] = 0; // MODE DATA LENGTH is reserved here
    list[2] = 0; // and so is DEVICE-SPECIFIC PARAMETER, mostly
    assert_eq!(verdict(&rig.ask(&[0x15, 0x10, 0, 0, len, 0], Direction::Out(list))), GOOD);
    rig.clean();
}

#[test]
fn w_12_the_extended_header_of_rtpg_is_counted() {
    let identity = Identity {
        port: Some(TargetPort { protocol: 5, relative_id: 1, group_id: 1, tpgt: 1, wwn: "iqn.x".into() }),
        groups: vec![PortGroup { id: 1, ports: vec![1], ..PortGroup::default() }],
        implicit_trans_secs: 45,
        ..identity("abc")
    };
    let rig = Rig::with(model(), Arc::new(move || Ok(identity.clone())));
    let got = rig.ask(&[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Direction::In(256)).data.unwrap();
    assert_eq!(got[..6], [0, 0, 0, u8::try_from(got.len() - 4).unwrap(), 0x10, 45]);
    rig.clean();
}
