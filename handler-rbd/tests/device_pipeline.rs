//! The whole device thread: commands in through the ring, storage behind it, answers out.
//!
//! Commands are literal bytes from SPC and SBC; the other side is the model of the kernel, which notices
//! every misuse of the ring.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{DISK, Rig, block, identity, model, read, until, verdict, write};
use handler_rbd::block::{BackendError, ErrorKind};
use handler_rbd::device::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uio_ring::mock::{Direction, MockConfig, Place, Reset};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const BUSY: (u8, [u8; 3]) = (8, [0, 0, 0]);

const TEST_UNIT_READY: [u8; 6] = [0, 0, 0, 0, 0, 0];
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
const UNIT_SERIAL: [u8; 6] = [0x12, 1, 0x80, 0, 96, 0];
const READ_CAPACITY: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SYNCHRONIZE_CACHE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn all_reads_and_writes() {
    let rig = Rig::new();
    let pairs: [(&[u8], &[u8]); 4] = [
        (&[0x0a, 0, 0, 8, 2, 0], &[0x08, 0, 0, 8, 2, 0]),
        (&[0x2a, 0, 0, 0, 0, 16, 0, 0, 2, 0], &[0x28, 0, 0, 0, 0, 16, 0, 0, 2, 0]),
        (&[0xaa, 0x08, 0, 0, 0, 24, 0, 0, 0, 2, 0, 0], &[0xa8, 0, 0, 0, 0, 24, 0, 0, 0, 2, 0, 0]),
        (
            &[0x8a, 0x08, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 2, 0, 0],
            &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 2, 0, 0],
        ),
    ];
    for (n, (write, read)) in (1u8..).zip(pairs) {
        let bytes: Vec<u8> = (0..1024u16).map(|i| i.to_le_bytes()[0] ^ n).collect();
        assert_eq!(verdict(&rig.ask(write, Direction::Out(bytes.clone()))), GOOD);
        let got = rig.ask(read, Direction::In(1024));
        assert_eq!(verdict(&got), GOOD);
        assert_eq!(got.data.as_ref(), Some(&bytes));
        assert_eq!(rig.disk.snapshot()[usize::from(n) * 4096..][..1024], bytes);
    }
    assert_eq!(verdict(&rig.ask(&SYNCHRONIZE_CACHE, Direction::None)), GOOD);
    rig.clean();
}

#[test]
fn lengths_of_buffer_and_command_are_compared() {
    let rig = Rig::new();
    let wrong = (2, [0x05, 0x0e, 0x03]);
    assert_eq!(verdict(&rig.ask(&write(0), Direction::Out(vec![0xff; 1024]))), wrong);
    assert_eq!(verdict(&rig.ask(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], Direction::Out(vec![0xff; 512]))), wrong);
    assert_eq!(verdict(&rig.ask(&[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], Direction::In(512))), wrong);
    assert_eq!(verdict(&rig.ask(&read(0), Direction::None)), wrong);
    assert!(rig.disk.snapshot().iter().all(|&byte| byte == 0), "nothing was written");
    rig.clean();
}

#[test]
fn no_foreign_bytes() {
    // Offered and not offered: READ_LEN.
    for flags in [0xf, 0xd] {
        let rig = Rig::with(MockConfig { flags, ..model() }, Arc::new(|| Ok(identity("x"))));
        let dirty = || assert_eq!(verdict(&rig.ask(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], page())), GOOD);
        let fills = |cdb: &[u8], len: usize, filled: usize| {
            dirty();
            let got = rig.ask(cdb, Direction::In(len));
            assert_eq!(verdict(&got), GOOD, "{cdb:02x?}");
            let data = got.data.unwrap();
            let resid = usize::try_from(got.resid).unwrap();
            assert_eq!(data.len() + resid, len, "{cdb:02x?}");
            let said = flags == 0xf && filled > 0 && filled < len;
            assert_eq!(resid, if said { len - filled } else { 0 }, "{cdb:02x?}");
            assert!(!data.contains(&0xee), "{cdb:02x?} shows another command's bytes");
        };
        fills(&INQUIRY, 96, 74);
        fills(&INQUIRY, 4096, 74);
        fills(&[0x12, 0, 0, 0, 5, 0], 96, 5); // allocation length below the buffer's
        fills(&[0x12, 0, 0, 0, 0, 0], 96, 0);
        fills(&UNIT_SERIAL, 255, 6);
        fills(&READ_CAPACITY, 512, 8);
        fills(&[0x03, 0, 0, 0, 252, 0], 252, 18);
        fills(&[0x1a, 0, 0x3f, 0, 4, 0], 64, 4);
        fills(&[0x28, 0, 0, 0, 0, 100, 0, 0, 1, 0], 2048, 512); // zeros from the disk, then nothing
        fills(&[0x28, 0, 0, 0, 0, 100, 0, 0, 0, 0], 512, 0);
        // No data belongs to these; a fabric may bring a buffer all the same.
        fills(&TEST_UNIT_READY, 512, 0);
        fills(&SYNCHRONIZE_CACHE, 512, 0);
        fills(&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 1, 0, 0], 512, 0); // WRITE SAME, NDOB
        // An initiator may lie about the direction: MODE SELECT(6), EXTENDED COPY of nothing, ORWRITE(16).
        fills(&[0x15, 0x10, 0, 0, 0, 0], 512, 0);
        fills(&[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 512, 0);
        fills(&[0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 1, 0, 0], 512, 0);
        rig.clean();
    }
}

fn page() -> Direction {
    Direction::Out(vec![0xee; 4096])
}

#[test]
fn every_opcode_is_answered() {
    // Unchecked, as data that belongs to no data phase of the command may be zeroed.
    let config = MockConfig { verify: false, ..model() };
    let rig = Rig::with(config, Arc::new(|| Ok(identity("x"))));
    let mut unknown = vec![];
    for direction in [Direction::None, Direction::In(512), block(0)] {
        let sent: Vec<_> = (0..=255u8)
            .map(|opcode| {
                let mut cdb = [0; 16];
                cdb[0] = opcode;
                (opcode, rig.send(&cdb, direction.clone()))
            })
            .collect();
        for (opcode, ticket) in sent {
            let got = rig.wait(ticket);
            if verdict(&got) == (2, [0x05, 0x20, 0x00]) {
                unknown.push(opcode);
                assert_eq!(got.data, None);
            }
        }
    }
    for known in [
        0x00, 0x03, 0x04, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35,
        0x37, 0x41, 0x42, 0x48, 0x4d, 0x55, 0x5a, 0x83, 0x84, 0x88, 0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x90, 0x91,
        0x93, 0x9c, 0x9e, 0xa3, 0xa8, 0xaa, 0xae, 0xaf, 0xb7,
    ] {
        assert!(!unknown.contains(&known), "{known:#04x}");
    }
    assert_eq!(unknown.len(), 3 * (256 - 43));
    assert_eq!(verdict(&rig.ask(&read(0), Direction::In(512))), GOOD);
    rig.clean();
}

#[test]
fn completions_in_the_reverse_order() {
    let rig = Rig::new();
    rig.disk.hold();
    let writes: Vec<_> = (0..16u8).map(|n| rig.send(&write(n), block(n + 1))).collect();
    rig.held(16);
    // Not held back by those before them.
    assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), GOOD);
    for n in (0..16).rev() {
        assert!(rig.disk.release(n));
        assert_eq!(verdict(&rig.wait(writes[n])), GOOD);
        assert_eq!(writes.iter().filter(|&&ticket| rig.answered(ticket)).count(), 16 - n);
    }
    let reads: Vec<_> = (0..16u8).map(|n| rig.send(&read(n), Direction::In(512))).collect();
    rig.held(16);
    for n in (0..16).rev() {
        assert!(rig.disk.release(n));
    }
    for (n, ticket) in (1u8..).zip(reads) {
        assert_eq!(rig.wait(ticket).data.unwrap(), [n; 512]);
    }
    rig.clean();
}

#[test]
fn a_stop_answers_what_is_in_progress() {
    let rig = Rig::new();
    rig.disk.hold();
    let sent: Vec<_> = (0..8u8).map(|n| rig.send(&write(n), block(9))).collect();
    rig.held(8);
    rig.handle.send(Message::Stop);
    assert!(rig.runs(), "it ended with commands in progress");
    rig.disk.release_all();
    assert_eq!(rig.exit(), "Stopped");
    for ticket in sent {
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    }
    rig.clean();
}

#[test]
fn a_stop_ends_under_load_and_the_successor_goes_on() {
    let rig = Rig::new();
    rig.disk.hold();
    let first = rig.send(&write(0), block(1));
    rig.held(1);
    rig.handle.send(Message::Stop);
    std::thread::sleep(Duration::from_millis(50));
    // The initiator never rests: there is always a newer command when one is answered.
    let second = rig.send(&write(1), block(2));
    std::thread::sleep(Duration::from_millis(50));
    assert!(rig.disk.release(0));
    assert_eq!(rig.exit(), "Stopped");
    assert_eq!(verdict(&rig.wait(first)), GOOD);
    assert!(!rig.answered(second));
    let kernel = rig.kernel.clone();
    drop(rig);
    let successor = Rig::on(kernel, Arc::new(|| Ok(identity("x"))));
    assert_eq!(verdict(&successor.wait(second)), GOOD);
    assert_eq!(successor.disk.snapshot()[512..1024], [2; 512]);
    successor.clean();
}

#[test]
fn a_removed_device_ends_when_storage_is_done() {
    let rig = Rig::new();
    assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), GOOD);
    rig.disk.hold();
    rig.send(&write(0), block(1));
    rig.send(&INQUIRY, Direction::In(96));
    rig.held(1);
    rig.kernel.unregister();
    assert!(rig.runs(), "it ended while storage used the ring's memory");
    rig.disk.release_all();
    assert_eq!(rig.exit(), "Removed");
    assert_eq!(rig.kernel.faults(), []);
}

#[test]
fn an_idle_device_ends_when_it_is_removed() {
    let rig = Rig::new();
    assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), GOOD);
    rig.kernel.unregister();
    assert_eq!(rig.exit(), "Removed");
}

#[test]
fn a_reset_under_load_acknowledges_nothing_falsely() {
    // With something published before, and with nothing: then `cmd_tail` does not show the reset.
    for before in [0, 3] {
        let rig = Rig::new();
        for _ in 0..before {
            assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), GOOD);
        }
        rig.disk.hold();
        let lost: Vec<_> = (0..8u8).map(|n| rig.send(&write(n), block(1))).collect();
        rig.held(8);
        rig.kernel.reset(Reset::Retry);
        let again = rig.send(&write(20), block(2)); // gets the first one's id
        assert!(rig.disk.release(0));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!rig.answered(again), "acknowledged before it was written");
        rig.disk.release_all();
        // What was queued meanwhile may have had its data overwritten: it is to be sent again.
        assert_eq!(verdict(&rig.wait(again)), BUSY);
        assert_eq!(verdict(&rig.ask(&write(20), block(2))), GOOD);
        assert_eq!(rig.disk.snapshot()[20 * 512..21 * 512], [2; 512]);
        for ticket in lost {
            assert_eq!(verdict(&rig.wait(ticket)), BUSY);
        }
        assert_eq!(rig.ask(&read(20), Direction::In(512)).data.unwrap(), [2; 512]);
        rig.clean();
    }
}

/// A reset gives pages away that are still lent to storage: what a read of before brings must not be written by a command
/// of after.
#[test]
fn a_read_of_before_a_reset_spoils_no_write_of_after() {
    // With its checks on, the model takes the late read for our mistake and stops. It is the reset's.
    let config = MockConfig { verify: false, ..model() };
    let rig = Rig::with(config, Arc::new(|| Ok(identity("x"))));
    assert_eq!(verdict(&rig.ask(&write(1), block(0x11))), GOOD);
    rig.disk.hold();
    let lost = rig.send(&read(1), Direction::In(512));
    rig.held(1);
    rig.kernel.reset(Reset::Retry);
    assert_eq!(verdict(&rig.wait(lost)), BUSY);
    let mut new = rig.send(&write(2), block(0x22)); // gets the read's page
    rig.disk.release_all();
    for _ in 0..10 {
        let got = rig.wait(new);
        if verdict(&got) != BUSY {
            assert_eq!(verdict(&got), GOOD);
            break;
        }
        new = rig.send(&write(2), block(0x22));
    }
    assert_eq!(rig.disk.snapshot()[2 * 512..3 * 512], [0x22; 512]);
    rig.clean();
}

#[test]
fn storage_errors() {
    let rig = Rig::new();
    let read = || rig.ask(&read(0), Direction::In(512));
    let write = || rig.ask(&write(0), block(1));
    for (kind, reads, writes) in [
        (ErrorKind::Fenced, BUSY, BUSY),
        (ErrorKind::TimedOut, BUSY, BUSY),
        (ErrorKind::NoResource, (0x28, [0; 3]), (0x28, [0; 3])),
        (ErrorKind::NoSpace, (2, [7, 0x27, 7]), (2, [7, 0x27, 7])),
        (ErrorKind::ReadOnly, (2, [7, 0x27, 0]), (2, [7, 0x27, 0])),
        (ErrorKind::Invalid, (2, [4, 0x44, 0]), (2, [4, 0x44, 0])),
        (ErrorKind::Gone, (2, [2, 4, 3]), (2, [2, 4, 3])),
        (ErrorKind::Io, (2, [3, 0x11, 0]), (2, [3, 0x0c, 0])),
    ] {
        rig.disk.fail(BackendError { kind, errno: 5 }, |_| true);
        let got = read();
        assert_eq!((verdict(&got), got.data), (reads, None), "{kind:?}");
        assert_eq!(verdict(&write()), writes, "{kind:?}");
    }
    rig.disk.recover();
    // COMPARE AND WRITE of a block of ones against zeros differs in its first byte.
    let both = Direction::Out([vec![1; 512], vec![2; 512]].concat());
    let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let got = rig.ask(&cdb, both);
    assert_eq!((verdict(&got), &got.sense[..7]), ((2, [0xe, 0x1d, 0]), &[0xf0, 0, 0xe, 0, 0, 0, 0][..]));
    assert_eq!(read().data.unwrap(), [0; 512]);
    assert_eq!(verdict(&write()), GOOD);
    rig.clean();
}

#[test]
fn a_resize_is_told_once() {
    let rig = Rig::new();
    let last = u32::try_from(DISK / 512 - 1).unwrap();
    let capacity = |rig: &Rig| rig.ask(&READ_CAPACITY, Direction::In(8)).data.unwrap();
    assert_eq!(capacity(&rig), [last.to_be_bytes(), 512u32.to_be_bytes()].concat());
    rig.handle.send(Message::Resize(DISK / 2));
    assert_eq!(verdict(&rig.ask(&INQUIRY, Direction::In(96))), GOOD); // does not take it
    assert_eq!(verdict(&rig.ask(&read(0), Direction::In(512))), (2, [6, 0x2a, 9]));
    assert_eq!(verdict(&rig.ask(&read(0), Direction::In(512))), GOOD);
    let last = u32::try_from(DISK / 1024 - 1).unwrap();
    assert_eq!(capacity(&rig), [last.to_be_bytes(), 512u32.to_be_bytes()].concat());
    let beyond = [0x28, 0, 0, 0, 0x10, 0, 0, 0, 1, 0]; // LBA 1000h, the first that is gone
    assert_eq!(verdict(&rig.ask(&beyond, Direction::In(512))), (2, [5, 0x21, 0]));
    rig.handle.send(Message::Resize(DISK / 2)); // nothing new
    assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), GOOD);
    rig.clean();
}

#[test]
fn more_commands_than_the_ring_holds() {
    let small = MockConfig { ring_bytes: 4096, data_bytes: 8 * 4096, seed: Some(3), ..model() };
    let rig = Rig::with(small, Arc::new(|| Ok(identity("x"))));
    let mut waited = 0;
    let sent: Vec<_> = (0..600u32)
        .map(|n| {
            let block = n.to_le_bytes()[0];
            let new = rig.kernel.enqueue(write(block), Direction::Out(vec![block ^ 0x55; 512]));
            waited += usize::from(new.place == Place::Waiting);
            new.ticket
        })
        .collect();
    assert!(waited > 0, "the ring was never full");
    for ticket in sent {
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    }
    for (n, block) in (0..=255u8).zip(rig.disk.snapshot().chunks(512)) {
        assert_eq!(block, [n ^ 0x55; 512]);
    }
    rig.clean();
}

#[test]
fn what_was_queued_before_the_device_was_opened_is_served() {
    let rig = Rig::new();
    rig.handle.send(Message::Stop);
    assert_eq!(rig.exit(), "Stopped");
    let kernel = rig.kernel.clone();
    drop(rig);
    let early = kernel.enqueue(TEST_UNIT_READY, Direction::None).ticket;
    let rig = Rig::on(kernel, Arc::new(|| Ok(identity("x"))));
    assert_eq!(verdict(&rig.wait(early)), GOOD);
    rig.clean();
}

#[test]
fn one_kick_per_batch() {
    let rig = Rig::new();
    assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), GOOD);
    let mut kicks = vec![];
    for _ in 0..10 {
        let (before, beats) = (rig.kernel.stats().kicks, rig.handle.beats());
        rig.kernel.plug();
        let batch: Vec<_> = (0..32u8).map(|n| rig.send(&write(n), block(n))).collect();
        rig.kernel.unplug();
        for ticket in batch {
            assert_eq!(verdict(&rig.wait(ticket)), GOOD);
        }
        // One for each round; more than one round where the device was on its way to sleep while the batch was being queued.
        let kicked = rig.kernel.stats().kicks - before;
        assert!(kicked <= rig.handle.beats() - beats, "{kicked}");
        kicks.push(kicked);
    }
    assert!(kicks.contains(&1), "{kicks:?}");
    rig.clean();
}

#[test]
fn task_management_does_not_disturb() {
    let rig = Rig::new();
    rig.disk.hold();
    let doomed = rig.send(&write(0), block(1));
    rig.held(1);
    rig.kernel.abort(doomed);
    let other = rig.send(&TEST_UNIT_READY, Direction::None);
    assert_eq!(verdict(&rig.wait(other)), GOOD);
    rig.disk.release_all();
    assert_eq!(rig.wait(doomed).status, 0x40);
    let late = rig.send(&INQUIRY, Direction::In(96));
    assert_eq!(verdict(&rig.wait(late)), GOOD);
    rig.clean();
}

#[test]
fn a_late_answer_is_silent() {
    let rig = Rig::new();
    rig.disk.hold();
    let slow = rig.send(&write(0), block(1));
    rig.held(1);
    rig.kernel.expire(slow);
    assert_eq!(verdict(&rig.wait(slow)), (2, [2, 8, 0]));
    rig.disk.release_all();
    until(|| rig.kernel.stats().late == 1);
    assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), GOOD);
    rig.clean();
}

/// Storage's threads finish in any order while commands keep coming.
#[test]
fn a_busy_device() {
    let rig = Rig::with(MockConfig { seed: Some(11), ..model() }, Arc::new(|| Ok(identity("x"))));
    rig.disk.hold();
    let done = AtomicUsize::new(0);
    const TOTAL: usize = 3000;
    std::thread::scope(|scope| {
        for salt in [3, 7] {
            let (rig, done) = (&rig, &done);
            scope.spawn(move || {
                let mut turn: usize = salt;
                while done.load(Ordering::Relaxed) < TOTAL {
                    turn = turn.wrapping_mul(31).wrapping_add(salt);
                    if !rig.disk.release(turn % (rig.disk.held() + 1)) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut out = std::collections::VecDeque::new();
        for n in 0..TOTAL {
            let byte = n.to_le_bytes()[0];
            let own = u8::try_from(n % 64).unwrap();
            out.push_back((n, rig.send(&write(own), block(byte ^ own))));
            if out.len() == 64 {
                let (_, ticket) = out.pop_front().unwrap();
                assert_eq!(verdict(&rig.wait(ticket)), GOOD);
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (_, ticket) in out {
            assert_eq!(verdict(&rig.wait(ticket)), GOOD);
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    let stats = rig.kernel.stats();
    assert!(stats.kicks <= stats.delivered + 1, "{stats:?}"); // and one at the start
    rig.clean();
}
