//! A device's thread that stands still, with the whole process or host perhaps: what has waited meanwhile gets BUSY. Invariant
//! "no late write": its initiator may have sent it to another gateway since, and something newer after it.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{DISK, Rig, identity, model, served, until, verdict};
use handler_rbd::block::Backend;
use handler_rbd::block::memory::Memory;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uio_ring::mock::{Direction, MockKernel};

const GOOD: (u8, [u8; 3]) = (0, [0; 3]);
const BUSY: (u8, [u8; 3]) = (8, [0; 3]);
/// Longer than a thread that comes round every five seconds ever takes.
const LONG: Duration = Duration::from_secs(9);
const FORMAT: [u8; 6] = [0x04, 0, 0, 0, 0, 0];
/// COMPARE AND WRITE of block 6, which is read first.
const EXCHANGE: [u8; 16] = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0];
/// Of block 1, which is read first.
const OR_WRITE: [u8; 16] = [0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0];

/// Fills a block with its number.
fn write(lba: u8) -> ([u8; 10], Direction) {
    ([0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0], Direction::Out(vec![lba; 512]))
}

fn ask(rig: &Rig, lba: u8) -> (u8, [u8; 3]) {
    let (cdb, data) = write(lba);
    verdict(&rig.ask(&cdb, data))
}

/// Invariant "no late write": what has waited while the whole process stood still may have been sent to another gateway
/// meanwhile, and something newer after it.
#[test]
fn what_has_waited_while_the_device_stood_still_gets_busy() {
    let (rig, gate) = Rig::gated();
    assert_eq!(ask(&rig, 1), GOOD);
    for (seconds, expected) in [(1, GOOD), (9, BUSY)] {
        let closed = gate.lock().unwrap();
        let (cdb, data) = write(2);
        let at_storage = rig.send(&cdb, data);
        std::thread::sleep(Duration::from_secs(seconds)); // it stands still
        let (cdb, data) = write(3);
        let waits = rig.send(&cdb, data);
        drop(closed);
        assert_eq!(verdict(&rig.wait(at_storage)), expected, "after {seconds} s");
        assert_eq!(verdict(&rig.wait(waits)), expected, "after {seconds} s");
    }
    assert_eq!(ask(&rig, 4), GOOD);
    rig.clean();
}

/// The same of a write that follows from a read of before.
#[test]
fn what_was_read_before_a_standstill_is_not_written_after_it() {
    let (rig, gate) = Rig::gated();
    assert_eq!(ask(&rig, 1), GOOD);
    rig.disk.hold();
    let reads = rig.send(&OR_WRITE, Direction::Out(vec![0xf0; 512]));
    rig.held(1);
    let closed = gate.lock().unwrap();
    let (cdb, data) = write(2);
    let stands = rig.send(&cdb, data);
    std::thread::sleep(Duration::from_secs(9));
    drop(closed);
    rig.held(2);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(reads)), BUSY);
    assert_eq!(verdict(&rig.wait(stands)), BUSY);
    assert_eq!(rig.disk.snapshot()[512], 1, "as the first write has left it");
    rig.clean();
}

/// Only the one that was being given to storage may be carried out, not those after it that had been seen on the ring.
#[test]
fn what_was_seen_on_the_ring_before_a_standstill_is_not_begun_after_it() {
    let gate = Arc::new(Mutex::new(()));
    let stands = Arc::new(AtomicBool::new(false));
    let (passed, tell) = (gate.clone(), stands.clone());
    let rig = Rig::between(move |disk, request| {
        drop(passed.lock().unwrap());
        if request.op.range().is_some_and(|range| range.offset == 2 * 512) {
            tell.store(true, Ordering::SeqCst);
            std::thread::sleep(LONG);
        }
        disk.submit(request);
    });
    let closed = gate.lock().unwrap();
    let (cdb, data) = write(9);
    let first = rig.send(&cdb, data);
    std::thread::sleep(Duration::from_millis(200)); // it is being given to storage: the next ones are seen together
    let tickets: Vec<_> = (2..6)
        .map(|lba| {
            let (cdb, data) = write(lba);
            rig.send(&cdb, data)
        })
        .collect();
    let reads_first = [
        rig.send(&OR_WRITE, Direction::Out(vec![0xf0; 512])),
        rig.send(&EXCHANGE, Direction::Out([[0; 512], [7; 512]].concat())),
    ];
    drop(closed);
    until(|| stands.load(Ordering::SeqCst));
    std::thread::sleep(LONG);
    assert_eq!(verdict(&rig.wait(first)), BUSY); // nobody knows any more what has come after it
    let statuses: Vec<_> = tickets.into_iter().map(|ticket| rig.wait(ticket).status).collect();
    assert_eq!(statuses, [8; 4]);
    assert_eq!(reads_first.map(|ticket| rig.wait(ticket).status), [8; 2]);
    let disk = rig.disk.snapshot();
    assert_eq!([1, 2, 3, 4, 5, 6].map(|lba| disk[lba * 512]), [0, 2, 0, 0, 0, 0]);
    assert_eq!(ask(&rig, 4), GOOD);
    rig.clean();
}

/// A host that stands still again and again, never for long, is as late with the last of many.
#[test]
fn many_short_standstills_are_a_long_one() {
    let gate = Arc::new(Mutex::new(()));
    let passed = gate.clone();
    let rig = Rig::between(move |disk, request| {
        drop(passed.lock().unwrap());
        std::thread::sleep(Duration::from_secs(3));
        disk.submit(request);
    });
    let closed = gate.lock().unwrap();
    let (cdb, data) = write(9);
    let first = rig.send(&cdb, data);
    std::thread::sleep(Duration::from_millis(200));
    let tickets: Vec<_> = (1..7)
        .map(|lba| {
            let (cdb, data) = write(lba);
            rig.send(&cdb, data)
        })
        .collect();
    drop(closed);
    let wait = |ticket| rig.kernel.wait(ticket, 4 * LONG).unwrap().status;
    wait(first);
    let statuses: Vec<_> = tickets.into_iter().map(wait).collect();
    assert_eq!(statuses[3..], [8; 3], "{statuses:?}");
    let disk = rig.disk.snapshot();
    assert_eq!([1, 4, 5, 6].map(|lba| disk[lba * 512]), [1, 0, 0, 0]);
    rig.clean();
}

/// It would erase what was written meanwhile, and say GOOD.
#[test]
fn an_erasure_that_waited_for_the_disk_during_a_standstill_does_not_begin() {
    let (rig, gate) = Rig::gated();
    assert_eq!((ask(&rig, 1), ask(&rig, 3)), (GOOD, GOOD));
    rig.disk.hold();
    let reads = rig.send(&OR_WRITE, Direction::Out(vec![0xf0; 512]));
    rig.held(1);
    let format = rig.send(&FORMAT, Direction::None);
    until(|| rig.ask(&[0; 6], Direction::None).status == 2); // it waits for the other
    let closed = gate.lock().unwrap();
    assert!(rig.disk.release(0)); // that goes on to write, and stands still
    std::thread::sleep(LONG);
    drop(closed);
    assert_eq!(verdict(&rig.wait(format)), BUSY);
    rig.disk.release_all();
    rig.wait(reads);
    assert_eq!(rig.disk.snapshot()[3 * 512], 3, "erased");
    assert_eq!(ask(&rig, 4), GOOD);
    rig.clean();
}

/// WRITE SAME without data waits for the device's identity, which is there when the thread goes on.
#[test]
fn what_waited_for_the_identity_during_a_standstill_is_not_begun() {
    let (source, gate) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
    let (of_source, passed) = (source.clone(), gate.clone());
    let identity = move || {
        drop(of_source.lock().unwrap());
        Ok(identity("x"))
    };
    let rig = Rig::between_with(Arc::new(identity), move |disk, request| {
        drop(passed.lock().unwrap());
        disk.submit(request);
    });
    assert_eq!((ask(&rig, 1), ask(&rig, 3)), (GOOD, GOOD));
    rig.disk.hold();
    let reads = rig.send(&OR_WRITE, Direction::Out(vec![0xf0; 512]));
    rig.held(1);
    let unknown = source.lock().unwrap();
    let mut same = [0; 16];
    (same[0], same[1], same[9], same[13]) = (0x93, 0x01, 3, 1); // NDOB, block 3
    let same = rig.send(&same, Direction::None);
    std::thread::sleep(Duration::from_millis(200));
    let closed = gate.lock().unwrap();
    assert!(rig.disk.release(0)); // it goes on to write, and stands still
    std::thread::sleep(Duration::from_millis(100));
    drop(unknown);
    std::thread::sleep(LONG);
    drop(closed);
    rig.disk.release_all();
    assert_eq!(verdict(&rig.wait(same)), BUSY);
    rig.wait(reads);
    assert_eq!(rig.disk.snapshot()[3 * 512], 3, "zeroed");
    rig.clean();
}

/// A successor that stands still before its first look at the ring.
#[test]
fn a_ring_that_was_known_long_ago_is_not_trusted() {
    let kernel = MockKernel::new(model()).unwrap();
    let disk = Arc::new(Memory::new(DISK));
    let (cdb, data) = write(1);
    let waits = kernel.enqueue(cdb, data).ticket;
    let served = served(&kernel, &disk, Arc::new(|| Ok(identity("x")))).known_at(Duration::ZERO);
    let rig = Rig::run(kernel, disk, served);
    assert_eq!(verdict(&rig.wait(waits)), BUSY);
    assert_eq!(rig.disk.snapshot()[512], 0);
    assert_eq!(ask(&rig, 1), GOOD);
    rig.clean();
}
