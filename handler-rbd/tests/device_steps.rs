//! Commands of several steps: private buffers, a bounded number side by side, comparing, and ending early.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, identity, model, verdict};
use handler_rbd::block::{BackendError, ErrorKind, Op};
use handler_rbd::device::Message;
use std::sync::Arc;
use uio_ring::mock::{Direction, MockConfig, Reset};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const MISCOMPARE: (u8, [u8; 3]) = (2, [0xe, 0x1d, 0]);

/// The disk is 4 MiB: 8192 blocks, 16 pieces of 256 KiB.
const BLOCKS: u16 = 8192;

/// VERIFY(10) of so many blocks from the first on, with this BYTCHK.
fn verify(check: u8, blocks: u16) -> [u8; 10] {
    let [high, low] = blocks.to_be_bytes();
    [0x2f, check << 1, 0, 0, 0, 0, 0, high, low, 0]
}

fn rig() -> Rig {
    Rig::with(MockConfig { data_bytes: 16 << 20, ..model() }, Arc::new(|| Ok(identity("x"))))
}

fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|n| (n % 251).to_le_bytes()[0] ^ salt).collect()
}

#[test]
fn written_read_back_and_compared() {
    let rig = rig();
    let data = pattern(2048 * 512, 0);
    // WRITE AND VERIFY(10) of 1 MiB, with and without comparing.
    for check in [0x02, 0x00] {
        let cdb = [0x2e, check, 0, 0, 0, 0, 0, 8, 0, 0];
        assert_eq!(verdict(&rig.ask(&cdb, Direction::Out(data.clone()))), GOOD);
        assert_eq!(rig.disk.snapshot()[..data.len()], data);
    }
    assert_eq!(verdict(&rig.ask(&verify(1, 2048), Direction::Out(data.clone()))), GOOD);
    assert_eq!(verdict(&rig.ask(&verify(0, BLOCKS), Direction::None)), GOOD);
    let mut other = data.clone();
    other[1_000_000] ^= 1;
    let got = rig.ask(&verify(1, 2048), Direction::Out(other));
    assert_eq!((verdict(&got), &got.sense[..7]), (MISCOMPARE, &[0xf0, 0, 0xe, 0, 0, 0x07, 0xa1][..])); // LBA 1953
    // One block for all.
    assert_eq!(verdict(&rig.ask(&verify(3, 1), Direction::Out(data[..512].to_vec()))), GOOD);
    assert_eq!(verdict(&rig.ask(&verify(3, 2), Direction::Out(data[..512].to_vec()))), MISCOMPARE);
    rig.clean();
}

#[test]
fn eight_side_by_side_and_no_more_after_a_failure() {
    let rig = rig();
    rig.disk.hold();
    let ticket = rig.send(&verify(0, BLOCKS), Direction::None);
    rig.held(8);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(rig.disk.held(), 8);
    assert!(rig.disk.release(3));
    rig.held(8); // the ninth has come for it
    rig.disk.fail(BackendError::new(ErrorKind::Io), |op| matches!(op, Op::Read(_)));
    assert!(rig.disk.release(5));
    rig.held(7);
    rig.disk.recover();
    for left in (0..7).rev() {
        assert!(!rig.answered(ticket), "answered with requests at storage");
        assert!(rig.disk.release(0));
        rig.held(left);
    }
    assert_eq!(verdict(&rig.wait(ticket)), (2, [3, 0x11, 0]));
    rig.clean();
}

#[test]
fn a_pattern_for_many_pieces() {
    let rig = rig();
    rig.disk.hold();
    // WRITE SAME(10) of the disk: the model's objects are of 256 KiB, four of them are a piece.
    let same = rig.send(&[0x41, 0, 0, 0, 0, 0, 0, 0x20, 0x00, 0], Direction::Out(vec![7; 512]));
    rig.held(4);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(same)), GOOD);
    assert!(rig.disk.snapshot().iter().all(|&byte| byte == 7));
    rig.clean();
}

#[test]
fn unmapped_blocks_read_as_zeros() {
    let rig = rig();
    assert_eq!(verdict(&rig.ask(&[0x41, 0, 0, 0, 0, 0, 0, 0, 16, 0], Direction::Out(vec![7; 512]))), GOOD);
    // One block, which is less than anything that can be given back.
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(verdict(&rig.ask(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Direction::Out(list))), GOOD);
    let got = rig.ask(&[0x28, 0, 0, 0, 0, 0, 0, 0, 16, 0], Direction::In(16 * 512)).data.unwrap();
    for (n, block) in got.chunks(512).enumerate() {
        assert_eq!(block, [if n == 3 { 0 } else { 7 }; 512], "{n}");
    }
    rig.clean();
}

/// The private memory of any number of commands is bounded: with 256 requests at storage none gets a further one
/// before an earlier one of its own is back.
#[test]
fn a_crowd_gets_one_each() {
    let rig = rig();
    rig.disk.hold();
    let all: Vec<_> = (0..100).map(|_| rig.send(&verify(0, BLOCKS), Direction::None)).collect();
    // Those that came first have eight each: 31 of them, the 32nd what was left; then one each.
    rig.held(256 + 100 - 32);
    rig.disk.release_all();
    for ticket in all {
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    }
    rig.clean();
}

#[test]
fn a_stop_and_a_reset_amid_steps() {
    let rig = rig();
    rig.disk.hold();
    let lost = rig.send(&verify(0, BLOCKS), Direction::None);
    rig.held(8);
    rig.kernel.reset(Reset::Retry);
    let kept = rig.send(&verify(0, BLOCKS), Direction::None);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(lost)).0, 8);
    // Queued before the reset was noticed it gets BUSY too, and its initiator sends it again.
    let mut kept = rig.wait(kept);
    if kept.status == 8 {
        kept = rig.ask(&verify(0, BLOCKS), Direction::None);
    }
    assert_eq!(verdict(&kept), GOOD);
    rig.disk.hold();
    let last = rig.send(&verify(0, BLOCKS), Direction::None);
    rig.held(8);
    rig.handle.send(Message::Stop);
    assert!(rig.runs());
    rig.disk.release_all();
    assert_eq!(rig.exit(), "Stopped");
    assert_eq!(verdict(&rig.wait(last)), GOOD);
    rig.clean();
}
