//! A defect that stops a device's thread costs that device's commands a retry, and nobody else anything.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, SOON, block, identity, read, served, until, verdict, write};
use handler_rbd::block::{Backend, Op};
use handler_rbd::device::{Handle, Message};
use std::sync::Arc;
use uio_ring::mock::{Direction, Reset};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const BUSY: (u8, [u8; 3]) = (8, [0, 0, 0]);
const TEST_UNIT_READY: [u8; 6] = [0; 6];
/// A command for this block is the end of the thread.
const POISON: u8 = 200;

/// Where the defect is: before or after storage has got the request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    After,
}

fn rig(when: When) -> Rig {
    Rig::between(move |disk, request| {
        let poison = matches!(request.op, Op::Read(range) | Op::Write(range) if range.offset == u64::from(POISON) * 512);
        assert!(!poison || when == When::After, "on purpose");
        disk.submit(request);
        assert!(!poison, "on purpose");
    })
}

/// Invariants "the buffer outlives librbd" and "exactly once": the thread does not end, so ring and image stay open,
/// until storage has returned everything; meanwhile neighbours serve. A successor answers the retries.
#[test]
fn a_panic_waits_for_storage_and_its_neighbours_serve() {
    for when in [When::Before, When::After] {
        let (rig, neighbour) = (rig(when), Rig::new());
        assert_eq!(verdict(&rig.ask(&write(1), block(1))), GOOD);
        rig.disk.hold();
        let mut tickets: Vec<_> = (2..10).map(|n| rig.send(&write(n), block(n))).collect();
        tickets.push(rig.send(&read(1), Direction::In(512)));
        rig.held(9);
        tickets.push(rig.send(&read(POISON), Direction::In(512)));
        // What comes later waits on the ring.
        let held = if when == When::After { 10 } else { 9 };
        rig.held(held);
        let before = rig.handle.beats();
        until(|| rig.handle.beats() > before + 2); // it looks whether storage is done
        tickets.push(rig.send(&TEST_UNIT_READY, Direction::None));
        assert!(rig.runs(), "{when:?}: storage still has {held} requests");
        for n in 0..20 {
            assert_eq!(verdict(&neighbour.ask(&write(n), block(n))), GOOD);
        }
        for left in (0..held).rev() {
            assert!(rig.runs(), "{when:?}: {left} more are out");
            assert!(rig.disk.release(0));
        }
        assert_eq!(rig.exit(), "Failed(\"its thread panicked\")");
        for ticket in &tickets {
            assert!(!rig.answered(*ticket), "nobody has answered for a thread that is gone");
        }
        // As `adopt_all` does it: the kernel answers, initiators retry, the successor serves.
        rig.kernel.reset(Reset::Retry);
        let queued = tickets.pop().unwrap();
        for ticket in tickets {
            assert_eq!(verdict(&rig.wait(ticket)), BUSY);
        }
        assert_eq!(verdict(&rig.wait(queued)), BUSY);
        let next = served(&rig.kernel, &rig.disk, Arc::new(|| Ok(identity("x"))));
        let next = Handle::spawn("next", next, |_| ()).unwrap();
        rig.disk.release_all();
        assert_eq!(rig.ask(&read(9), Direction::In(512)).data.unwrap(), [9; 512]);
        assert_eq!(verdict(&rig.ask(&read(POISON), Direction::In(512))), GOOD);
        next.send(Message::Stop);
        assert!(next.wait(SOON));
        rig.clean();
        neighbour.clean();
    }
}

/// Many requests on their way back, from other threads, while the thread falls.
#[test]
fn requests_that_come_back_meanwhile_are_taken() {
    for round in 0..20 {
        let rig = rig(When::After);
        rig.disk.hold();
        for n in 0..64 {
            rig.send(&write(n), block(n));
        }
        rig.held(64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                rig.send(&write(POISON), block(0));
            });
            scope.spawn(|| {
                while !rig.handle.wait(std::time::Duration::ZERO) {
                    rig.disk.release(round % 3);
                    rig.disk.release(0);
                }
            });
        });
        assert_eq!(rig.exit(), "Failed(\"its thread panicked\")");
        assert_eq!(rig.disk.held(), 0);
        rig.kernel.reset(Reset::Retry);
        rig.clean();
    }
}
