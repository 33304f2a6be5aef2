//! FORMAT UNIT and SANITIZE on the device thread: order, early answers, aborts, stops, resets, successors.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{DISK, Rig, identity, model, until, verdict};
use handler_rbd::block::memory::Memory;
use handler_rbd::block::{Backend, BackendError, ErrorKind, Op};
use handler_rbd::device::Message;
use std::sync::Arc;
use std::time::Duration;
use uio_ring::mock::{Delivered, Direction, MockConfig, MockKernel, Reset, Ticket};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const BUSY: (u8, [u8; 3]) = (8, [0, 0, 0]);
const FORMATTING: (u8, [u8; 3]) = (2, [2, 4, 4]);
const SANITIZING: (u8, [u8; 3]) = (2, [2, 4, 0x1b]);

const FORMAT: [u8; 6] = [0x04, 0, 0, 0, 0, 0];
const FORMAT_WITH_LIST: [u8; 6] = [0x04, 0x10, 0, 0, 0, 0];
const SANITIZE: [u8; 10] = [0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]; // BLOCK ERASE, IMMED
const EXIT_FAILURE_MODE: [u8; 10] = [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];
const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// The disk is 4 MiB: 4 pieces of 1 MiB.
const PIECES: usize = 4;

/// A disk full of something, behind a ring.
fn rig() -> Rig {
    let disk = Arc::new(Memory::new(DISK));
    let rig = Rig::on_disk(MockKernel::new(config()).unwrap(), disk, Arc::new(|| Ok(identity("x"))));
    // WRITE SAME(10) of the whole disk.
    assert_eq!(verdict(&rig.ask(&[0x41, 0, 0, 0, 0, 0, 0, 0x20, 0, 0], Direction::Out(vec![7; 512]))), GOOD);
    rig
}

fn config() -> MockConfig {
    MockConfig { data_bytes: 16 << 20, ..model() }
}

/// Serves the same image to another kernel, as after a host died.
fn successor(disk: &Arc<Memory>) -> Rig {
    Rig::on_disk(MockKernel::new(config()).unwrap(), disk.clone(), Arc::new(|| Ok(identity("x"))))
}

fn format_at_once() -> Direction {
    Direction::Out(vec![0, 0x02, 0, 0])
}

/// REQUEST SENSE: key, ASC, ASCQ; progress, if there is one.
fn sense(rig: &Rig) -> ([u8; 3], Option<u16>) {
    let data = rig.ask(&[0x03, 0, 0, 0, 18, 0], Direction::In(18)).data.unwrap();
    let progress = (data[15] == 0x80).then(|| u16::from_be_bytes([data[16], data[17]]));
    ([data[2], data[12], data[13]], progress)
}

fn read(rig: &Rig) -> Delivered {
    rig.ask(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Direction::In(512))
}

fn is_erased(disk: &Memory) -> bool {
    disk.snapshot() == [0; 4 << 20]
}

fn note(disk: &Memory) -> String {
    String::from_utf8(disk.note().unwrap()).unwrap()
}

/// Finishes what is held, one after the other, until so many are left and nothing comes in addition.
fn release(rig: &Rig, count: usize) {
    for _ in 0..count {
        until(|| rig.disk.held() > 0);
        assert!(rig.disk.release(0));
    }
}

#[test]
fn a_format_erases_and_answers_at_its_end() {
    let rig = rig();
    rig.disk.hold();
    let format = rig.send(&FORMAT, Direction::None);
    rig.held(1);
    assert_eq!((sense(&rig), note(&rig.disk).as_str()), (([2, 4, 4], Some(0)), ""));
    release(&rig, 1);
    rig.held(PIECES);
    assert_eq!(note(&rig.disk), "format");
    for (left, progress) in [(3, 0x4000), (2, 0x8000), (1, 0xc000)] {
        assert!(rig.disk.release(0));
        until(|| sense(&rig) == ([2, 4, 4], Some(progress)));
        assert_eq!(rig.disk.held(), left);
        let refused = rig.ask(&TEST_UNIT_READY, Direction::None);
        assert_eq!((verdict(&refused), refused.sense[15]), (FORMATTING, 0x80));
        assert_eq!(refused.sense[16..18], progress.to_be_bytes());
    }
    assert_eq!(verdict(&read(&rig)), FORMATTING);
    assert_eq!(verdict(&rig.ask(&[0x12, 0, 0, 0, 36, 0], Direction::In(36))), GOOD);
    assert!(!rig.answered(format));
    release(&rig, 2); // the last piece, the flush
    rig.held(1); // the end of the note
    assert_eq!((rig.answered(format), note(&rig.disk).as_str()), (false, "format"));
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(format)), GOOD);
    assert_eq!((sense(&rig), note(&rig.disk).as_str()), (([0; 3], None), ""));
    assert!(is_erased(&rig.disk));
    assert_eq!(verdict(&read(&rig)), GOOD);
    rig.clean();
}

#[test]
fn what_came_before_is_on_the_disk_before() {
    let rig = rig();
    rig.disk.hold();
    let write = rig.send(&[0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0], Direction::Out(vec![9; 512]));
    let other = rig.send(&[0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], Direction::In(512));
    rig.held(2);
    let format = rig.send(&FORMAT, Direction::None);
    until(|| verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)) == FORMATTING);
    assert!(rig.disk.release(1));
    assert_eq!(verdict(&rig.wait(other)), GOOD);
    assert_eq!(rig.disk.held(), 1, "begun with a write under way");
    assert!(rig.disk.release(0));
    assert_eq!(verdict(&rig.wait(write)), GOOD);
    rig.held(1);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(format)), GOOD);
    assert!(is_erased(&rig.disk));
    rig.clean();
}

#[test]
fn immediate_commands_are_answered_once_and_go_on() {
    for (cdb, out, erasing) in
        [(&FORMAT_WITH_LIST[..], format_at_once(), FORMATTING), (&SANITIZE[..], Direction::None, SANITIZING)]
    {
        let rig = rig();
        rig.disk.hold();
        let ticket = rig.send(cdb, out);
        rig.held(1);
        assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), erasing);
        assert!(!rig.answered(ticket), "before the note is safe");
        assert!(rig.disk.release(0));
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
        rig.held(PIECES);
        assert_eq!(verdict(&read(&rig)), erasing);
        rig.disk.release_all();
        until(|| sense(&rig).0 == [0; 3]);
        assert!(is_erased(&rig.disk) && note(&rig.disk).is_empty());
        assert_eq!(verdict(&read(&rig)), GOOD);
        rig.clean(); // which notices a second answer
    }
}

#[test]
fn overwrite_in_passes() {
    let rig = rig();
    rig.disk.hold();
    // Three passes, inverted in between.
    let list = Direction::Out(vec![0x83, 0, 0, 2, 0x0f, 0xaa]);
    let ticket = rig.send(&[0x48, 0x01, 0, 0, 0, 0, 0, 0, 6, 0], list);
    release(&rig, 1);
    let mut last = 0;
    for pass in 0..3 {
        rig.held(PIECES); // none of a pass before all of the one before
        let expected = u32::try_from(pass * 0x1_0000 / 3).unwrap();
        let (code, progress) = sense(&rig);
        last = last.max(progress.unwrap());
        assert_eq!((code, u32::from(last)), ([2, 4, 0x1b], expected));
        release(&rig, PIECES);
    }
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    assert!(rig.disk.snapshot().chunks(2).all(|pair| pair == [0x0f, 0xaa]));
    rig.clean();
}

#[test]
fn a_failure_is_told_then_or_later() {
    for immediate in [false, true] {
        let rig = rig();
        let mut n = 0;
        rig.disk.fail(BackendError::new(ErrorKind::Io), move |op| {
            n += usize::from(matches!(op, Op::WriteZeroes(_)));
            n == 3
        });
        let (cdb, out) =
            if immediate { (FORMAT_WITH_LIST, format_at_once()) } else { (FORMAT, Direction::None) };
        let expected = if immediate { GOOD } else { (2, [3, 0x31, 1]) };
        assert_eq!(verdict(&rig.ask(&cdb, out)), expected);
        until(|| sense(&rig) == ([3, 0x31, 0], None));
        assert_eq!(verdict(&read(&rig)), (2, [3, 0x31, 0]));
        assert_eq!(note(&rig.disk), "format");
        rig.disk.recover();
        assert_eq!(verdict(&rig.ask(&FORMAT, Direction::None)), GOOD);
        assert!(is_erased(&rig.disk) && note(&rig.disk).is_empty());
        assert_eq!(verdict(&read(&rig)), GOOD);
        rig.clean();
    }
}

#[test]
fn failure_mode_can_be_left_if_that_was_agreed() {
    let rig = rig();
    rig.disk.fail(BackendError::new(ErrorKind::Io), |op| matches!(op, Op::Flush));
    let unrestricted = [0x48, 0x22, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(verdict(&rig.ask(&unrestricted, Direction::None)), (2, [3, 0x31, 3]));
    assert_eq!(verdict(&read(&rig)), (2, [3, 0x31, 3]));
    assert_eq!(verdict(&rig.ask(&EXIT_FAILURE_MODE, Direction::None)), GOOD);
    assert_eq!(verdict(&read(&rig)), GOOD);
    assert_eq!(note(&rig.disk), "");
    rig.clean();
}

/// A FORMAT UNIT that waits for a write under way.
fn waiting_format(rig: &Rig) -> (Ticket, Ticket) {
    rig.disk.hold();
    let write = rig.send(&[0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0], Direction::Out(vec![9; 512]));
    rig.held(1);
    let format = rig.send(&FORMAT, Direction::None);
    until(|| verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)) == FORMATTING);
    (write, format)
}

#[test]
fn an_abort_ends_the_command_and_not_the_erasure() {
    let rig = rig();
    let (write, format) = waiting_format(&rig);
    release(&rig, 2);
    rig.held(PIECES);
    rig.kernel.abort(format);
    assert_eq!(rig.wait(format).status, 0x40); // TASK ABORTED, the kernel's
    assert_eq!(verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)), FORMATTING);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(write)), GOOD);
    until(|| sense(&rig).0 == [0; 3]);
    assert!(is_erased(&rig.disk));
    rig.clean();
}

/// Neither an abort nor a reset, for which the kernel answers BUSY, leaves an erasure that nobody was promised.
#[test]
fn what_ends_before_it_begins_erases_nothing() {
    for reset in [false, true] {
        let rig = rig();
        let (write, format) = waiting_format(&rig);
        if reset {
            rig.kernel.reset(Reset::Retry);
            assert_eq!(verdict(&rig.wait(format)), BUSY);
            rig.disk.release_all();
        } else {
            rig.kernel.abort(format);
            assert_eq!(rig.wait(format).status, 0x40); // TASK ABORTED, the kernel's
            assert_eq!(
                verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)),
                GOOD,
                "with the write under way"
            );
            rig.disk.release_all();
            assert_eq!(verdict(&rig.wait(write)), GOOD);
        }
        // Queued before the reset was noticed, it is BUSY.
        until(|| verdict(&rig.ask(&TEST_UNIT_READY, Direction::None)) == GOOD);
        assert_eq!(read(&rig).data.unwrap()[0], 7, "{reset}");
        assert_eq!(verdict(&read(&rig)), GOOD);
        assert_eq!((note(&rig.disk).as_str(), is_erased(&rig.disk)), ("", false));
        // Another one is carried out.
        assert_eq!(verdict(&rig.ask(&FORMAT, Direction::None)), GOOD);
        assert!(is_erased(&rig.disk));
        rig.clean();
    }
}

#[test]
fn a_stop_is_quick_and_a_successor_goes_on() {
    for immediate in [false, true] {
        let rig = rig();
        rig.disk.hold();
        let (cdb, out) =
            if immediate { (FORMAT_WITH_LIST, format_at_once()) } else { (FORMAT, Direction::None) };
        let format = rig.send(&cdb, out);
        release(&rig, 1);
        rig.held(PIECES);
        rig.handle.send(Message::Stop);
        assert_eq!(verdict(&rig.wait(format)), if immediate { GOOD } else { BUSY });
        // What is at storage has to come back. If the stop is not heard before, one thing more follows.
        until(|| {
            rig.disk.release(0);
            rig.handle.wait(Duration::ZERO)
        });
        assert_eq!(rig.exit(), "Stopped");
        assert_eq!(note(&rig.disk), "format");
        let disk = rig.disk.clone();
        rig.clean();
        drop(rig);
        disk.hold();
        let rig = successor(&disk);
        release(&rig, 1);
        rig.held(PIECES);
        assert_eq!(verdict(&read(&rig)), FORMATTING);
        disk.release_all();
        until(|| sense(&rig).0 == [0; 3]);
        assert!(is_erased(&disk) && note(&disk).is_empty());
        assert_eq!(verdict(&read(&rig)), GOOD);
        rig.clean();
    }
}

#[test]
fn a_stop_before_it_begins_erases_nothing() {
    let rig = rig();
    rig.disk.hold();
    let write = rig.send(&[0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0], Direction::Out(vec![9; 512]));
    rig.held(1);
    let format = rig.send(&FORMAT, Direction::None);
    rig.ask(&[0; 6], Direction::None); // answered once FORMAT UNIT has been taken from the ring
    rig.handle.send(Message::Stop);
    assert_eq!(verdict(&rig.wait(format)), BUSY);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(write)), GOOD);
    assert_eq!(rig.exit(), "Stopped");
    assert_eq!((note(&rig.disk).as_str(), rig.disk.snapshot()[0]), ("", 7));
    rig.clean();
}

/// A FORMAT UNIT that a stop finds on the ring is the successor's.
#[test]
fn a_stop_leaves_what_it_has_not_taken() {
    let rig = rig();
    rig.disk.hold();
    let read = rig.send(&[0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], Direction::In(512));
    rig.held(1);
    rig.kernel.plug(); // the device is not woken
    let format = rig.send(&FORMAT, Direction::None);
    rig.handle.send(Message::Stop);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(read)), GOOD);
    assert_eq!(rig.exit(), "Stopped");
    rig.kernel.unplug();
    assert_eq!((rig.answered(format), note(&rig.disk).as_str(), is_erased(&rig.disk)), (false, "", false));
    let (kernel, disk) = (rig.kernel.clone(), rig.disk.clone());
    drop(rig);
    let rig = Rig::on_disk(kernel, disk, Arc::new(|| Ok(identity("x"))));
    assert_eq!(verdict(&rig.wait(format)), GOOD);
    assert!(is_erased(&rig.disk));
    rig.clean();
}

/// A crash between any two operations, and another one of the successor; then one that may finish.
#[test]
fn a_crash_anywhere_is_made_good() {
    for steps in 0..PIECES + 3 {
        let disk = {
            let rig = rig();
            rig.disk.hold();
            rig.send(&SANITIZE, Direction::None);
            release(&rig, steps);
            until(|| rig.disk.held() > 0);
            // What the dead process had asked for is carried out no more: a fenced client's writes are refused.
            rig.disk.fail(BackendError::new(ErrorKind::Fenced), |_| true);
            rig.disk.clone()
        };
        let erased = disk.snapshot().chunks(1 << 20).take_while(|piece| piece[0] == 0).count();
        assert_eq!(erased, steps.saturating_sub(1).min(PIECES), "{steps}");
        assert_eq!(note(&disk), if steps == 0 { "" } else { "sanitize block-erase" }, "{steps}");
        disk.recover();
        disk.hold();
        {
            let rig = successor(&disk);
            if steps > 0 {
                release(&rig, 2);
            }
            disk.fail(BackendError::new(ErrorKind::Fenced), |_| true);
        }
        disk.recover();
        let rig = successor(&disk);
        until(|| sense(&rig).0 == [0; 3]);
        assert_eq!(is_erased(&disk), steps > 0, "{steps}");
        assert_eq!(note(&disk), "", "{steps}");
        rig.clean();
    }
}

#[test]
fn a_reset_of_the_ring_does_not_end_it() {
    for (cdb, first) in [(&FORMAT[..], BUSY), (&SANITIZE[..], GOOD)] {
        let rig = rig();
        rig.disk.hold();
        let ticket = rig.send(cdb, Direction::None);
        release(&rig, 1);
        rig.held(PIECES);
        until(|| first == BUSY || rig.answered(ticket));
        rig.kernel.reset(Reset::Retry);
        let next = rig.send(&TEST_UNIT_READY, Direction::None);
        release(&rig, PIECES);
        rig.held(1); // the note once more
        assert_eq!(verdict(&rig.wait(ticket)), first);
        assert_eq!(
            verdict(&rig.wait(next)),
            BUSY,
            "what was queued before the reset was noticed is sent again"
        );
        let now = verdict(&rig.ask(&TEST_UNIT_READY, Direction::None));
        assert_eq!(now, if cdb == FORMAT { FORMATTING } else { SANITIZING });
        rig.disk.release_all();
        until(|| sense(&rig).0 == [0; 3]);
        assert!(is_erased(&rig.disk) && note(&rig.disk).is_empty());
        assert_eq!(verdict(&read(&rig)), GOOD);
        rig.clean();
    }
}
