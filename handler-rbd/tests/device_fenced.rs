//! A backend that was fenced is replaced by another one while the device is being served.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{DISK, Rig, identity, model, served, until, verdict};
use handler_rbd::block::completions::{Completions, Waker};
use handler_rbd::block::memory::Memory;
use handler_rbd::block::{Backend, BackendError, Buffer, ByteRange, ErrorKind, Op, Request};
use handler_rbd::device::{News, Noted};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use uio_ring::mock::{Direction, MockKernel, Reset};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const BUSY: (u8, [u8; 3]) = (8, [0, 0, 0]);
const FENCED: BackendError = BackendError { kind: ErrorKind::Fenced, errno: 108 };

fn write(lba: u8) -> ([u8; 10], Direction) {
    ([0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0], Direction::Out(vec![lba; 512]))
}

/// A device, and how often it has asked for a replacement.
fn rig() -> (Rig, Arc<AtomicU32>) {
    let kernel = MockKernel::new(model()).unwrap();
    let disk = Arc::new(Memory::new(DISK));
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let served = served(&kernel, &disk, Arc::new(|| Ok(identity("x")))).on_news(move |news| {
        if matches!(news, News::Fenced | News::Settled) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (Rig::run(kernel, disk, served), asked)
}

fn ask(rig: &Rig, lba: u8) -> (u8, [u8; 3]) {
    let (cdb, data) = write(lba);
    verdict(&rig.ask(&cdb, data))
}

#[test]
fn commands_get_busy_until_the_replacement_comes() {
    let (rig, asked) = rig();
    assert_eq!(ask(&rig, 1), GOOD);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    rig.disk.fail(FENCED, |_| true);
    for _ in 0..3 {
        assert_eq!(ask(&rig, 2), BUSY);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "once for each backend");
    let other = Arc::new(Memory::new(DISK));
    assert!(rig.handle.replace(other.clone(), Noted::default()));
    assert_eq!(ask(&rig, 3), GOOD);
    assert_eq!(other.snapshot()[3 * 512], 3);
    assert_eq!(rig.handle.image_size().unwrap(), DISK);
    // The second backend is fenced too: another call.
    let second = Arc::new(Memory::new(DISK));
    second.fail(FENCED, |_| true);
    assert!(rig.handle.replace(second, Noted::default()));
    assert_eq!(ask(&rig, 4), BUSY);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_ne!(rig.disk.snapshot()[3 * 512], 3, "the first is out of use");
    rig.clean();
}

/// Invariant "no late write": a client that has left a write of unknown outcome behind goes on, since RADOS keeps the
/// order of one client's operations, and is replaced, which fences it, as soon as its range is answered again.
#[test]
fn a_client_in_doubt_is_replaced_when_storage_answers_again() {
    let (rig, asked) = rig();
    rig.disk.fail(BackendError { kind: ErrorKind::TimedOut, errno: 110 }, Op::changes);
    assert_eq!(ask(&rig, 5), BUSY, "to be tried again");
    rig.disk.recover();
    assert_eq!(ask(&rig, 6), GOOD, "another block");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(ask(&rig, 5), GOOD, "the same block");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // Being replaced, its operations fail: that is no news.
    rig.disk.fail(FENCED, |_| true);
    assert_eq!(ask(&rig, 5), BUSY);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(rig.handle.replace(Arc::new(Memory::new(DISK)), Noted::default()));
    assert_eq!(ask(&rig, 5), GOOD);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    rig.clean();
}

/// Invariant "no late write": what was dropped by a reset from outside has been given to storage all the same.
#[test]
fn a_write_that_times_out_after_a_reset_leaves_the_client_in_doubt() {
    let kernel = MockKernel::new(model()).unwrap();
    let disk = Arc::new(Memory::new(DISK));
    let (tell, told) = crossbeam_channel::unbounded();
    let served = served(&kernel, &disk, Arc::new(|| Ok(identity("x"))));
    let rig = Rig::run(kernel, disk, served.on_news(move |news| tell.send(news).unwrap()));
    rig.disk.hold();
    let (cdb, data) = write(5);
    let ticket = rig.send(&cdb, data);
    rig.held(1);
    rig.kernel.reset(Reset::Retry);
    assert_eq!(verdict(&rig.wait(ticket)), BUSY);
    let other = rig.send(&[0; 6], Direction::None); // has the device look at its ring
    rig.disk.fail(BackendError { kind: ErrorKind::TimedOut, errno: 110 }, Op::changes);
    rig.disk.release_all();
    assert_eq!(told.recv_timeout(device_rig::SOON), Ok(News::InDoubt));
    rig.wait(other);
    rig.clean();
}

/// Invariants "exactly once" and "the buffer outlives librbd": what is at storage comes back first.
#[test]
fn the_old_backend_returns_everything_first() {
    let (rig, _) = rig();
    rig.disk.hold();
    let tickets: Vec<_> = (0..20)
        .map(|lba| {
            let (cdb, data) = write(lba);
            rig.send(&cdb, data)
        })
        .collect();
    rig.held(20);
    let other = Arc::new(Memory::new(DISK));
    std::thread::scope(|scope| {
        let backend: Arc<dyn Backend> = other.clone();
        let replacing = scope.spawn(|| rig.handle.replace(backend, Noted::default()));
        // A command that comes now waits on the ring, nobody knows for how long: its initiator is asked to send it again.
        std::thread::sleep(Duration::from_millis(50));
        let (cdb, data) = write(200);
        let late = rig.send(&cdb, data);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!replacing.is_finished() && !rig.answered(late));
        while rig.disk.release(0) {}
        assert!(replacing.join().unwrap());
        assert_eq!(verdict(&rig.wait(late)), BUSY);
    });
    assert_eq!(ask(&rig, 200), GOOD);
    for ticket in tickets {
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    }
    assert_eq!((rig.disk.snapshot()[19 * 512], rig.disk.snapshot()[200 * 512]), (19, 0));
    assert_eq!((other.snapshot()[19 * 512], other.snapshot()[200 * 512]), (0, 200));
    rig.clean();
}

#[test]
fn a_device_that_ended_takes_no_replacement() {
    let (rig, _) = rig();
    rig.kernel.unregister();
    until(|| !rig.runs());
    assert!(!rig.handle.replace(Arc::new(Memory::new(DISK)), Noted::default()));
}

const FORMAT: [u8; 6] = [0x04, 0, 0, 0, 0, 0];

/// An erasure that the fence interrupted is gone on with by the new client; a note of somebody else is not.
#[test]
fn the_new_client_goes_by_the_note_of_the_image() {
    for (note, reads, stays) in [
        (Noted { text: b"format".to_vec(), ours: true }, GOOD, false),
        (Noted { text: b"format".to_vec(), ours: false }, (2, [3, 0x31, 0]), true),
        (Noted::default(), GOOD, true), // nothing was noted: the format that failed erased nothing
    ] {
        let (rig, _) = rig();
        assert_eq!(ask(&rig, 1), GOOD);
        rig.disk.fail(FENCED, |_| true);
        assert_eq!(rig.ask(&FORMAT, Direction::None).status, 8);
        let other = Arc::new(Memory::new(DISK));
        let data = ByteRange { offset: 0, len: 512 };
        store(&other, Op::Write(data), vec![7; 512]);
        store(&other, Op::SetNote, note.text.clone());
        assert!(rig.handle.replace(other.clone(), note.clone()));
        let read = || verdict(&rig.ask(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Direction::In(512)));
        until(|| read() == reads);
        assert_eq!(other.snapshot()[0] == 7, stays, "{note:?}");
        rig.clean();
    }
}

/// Carries an operation out without the device.
fn store(disk: &Memory, op: Op, bytes: Vec<u8>) {
    let done = Completions::new(1, Arc::new(Waker::new().unwrap()));
    let mut request = Request::new(done.clone());
    (request.op, request.buffer) = (op, Buffer::Owned(bytes));
    disk.submit(request);
    assert_eq!(done.pop().unwrap().result, Ok(()));
}

/// Of a device that answers BUSY an operator may think that its ring wants to be reset. The new client must not get lost
/// over it, or the old one would be served with for ever.
#[test]
fn a_reset_that_is_noticed_while_the_client_is_replaced_does_not_lose_the_new_one() {
    let (rig, _) = rig();
    assert_eq!(ask(&rig, 1), GOOD);
    rig.disk.fail(FENCED, |_| true);
    assert_eq!(ask(&rig, 2), BUSY);
    rig.kernel.reset(Reset::Retry); // nobody is woken
    let other = Arc::new(Memory::new(DISK));
    assert!(rig.handle.replace(other.clone(), Noted::default()));
    assert_eq!(ask(&rig, 5), GOOD);
    assert_eq!(other.snapshot()[5 * 512], 5);
    rig.clean();
}
