//! Commands that wait for the device's identity: each gets what was read after it came, and delays nobody else.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, block, identity, model, read, until, verdict, write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use uio_ring::mock::{Direction, MockConfig, Reset};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const BUSY: (u8, [u8; 3]) = (8, [0, 0, 0]);
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
const UNIT_SERIAL: [u8; 6] = [0x12, 1, 0x80, 0, 96, 0];

/// A command that comes while the identity is being read gets one that was read later: a reservation, say, may
/// have been made in between.
#[test]
fn what_was_read_before_a_command_came_is_not_for_it() {
    let (count, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(std::sync::Mutex::new(())));
    let (reads, waits) = (count.clone(), gate.clone());
    let source = move || {
        let number = reads.fetch_add(1, Ordering::SeqCst);
        drop(waits.lock());
        Ok(identity(&format!("serial-{number}")))
    };
    let rig = Rig::with(model(), Arc::new(source));
    let closed = gate.lock().unwrap();
    let first = rig.send(&UNIT_SERIAL, Direction::In(255));
    until(|| count.load(Ordering::SeqCst) == 1);
    let second = rig.send(&UNIT_SERIAL, Direction::In(255));
    assert_eq!(verdict(&rig.ask(&read(0), Direction::In(512))), GOOD); // it has been seen by now
    drop(closed);
    assert_eq!(rig.wait(first).data.unwrap()[4..], *b"serial-0\0");
    assert_eq!(rig.wait(second).data.unwrap()[4..], *b"serial-1\0");
    rig.clean();
}

/// Else it would be carried out after its initiator was told that it is not.
#[test]
fn an_aborted_command_does_not_wait_any_more() {
    let gate = Arc::new(std::sync::Mutex::new(()));
    let waits = gate.clone();
    let source = move || {
        drop(waits.lock());
        Ok(identity("x"))
    };
    let rig = Rig::with(model(), Arc::new(source));
    let closed = gate.lock().unwrap();
    let format = rig.send(&[0x04, 0, 0, 0, 0, 0], Direction::None);
    rig.kernel.abort(format);
    assert_eq!(rig.wait(format).status, 0x40); // TASK ABORTED
    drop(closed);
    assert_eq!(verdict(&rig.ask(&UNIT_SERIAL, Direction::In(255))), GOOD);
    assert_eq!(verdict(&rig.ask(&[0; 6], Direction::None)), GOOD, "no format is in progress");
    rig.clean();
}

#[test]
fn an_identity_is_read_anew_each_time() {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let source = move || Ok(identity(&format!("serial-{}", counted.fetch_add(1, Ordering::Relaxed))));
    let rig = Rig::with(model(), Arc::new(source));
    for n in 0..3 {
        let data = rig.ask(&UNIT_SERIAL, Direction::In(96)).data.unwrap();
        assert_eq!(data[..4], [0, 0x80, 0, 9]); // with the NUL that tcmu-runner sent too
        assert_eq!(data[4..], *format!("serial-{n}\0").as_bytes());
    }
    // What needs no identity asks for none.
    assert_eq!(verdict(&rig.ask(&[0x12, 1, 0xb0, 0, 64, 0], Direction::In(64))), GOOD);
    assert_eq!(count.load(Ordering::Relaxed), 3);
    rig.clean();
}

#[test]
fn a_slow_identity_delays_nobody_else() {
    let (end, wait) = crossbeam_channel::bounded::<()>(0);
    let slow = move || {
        let _ = wait.recv(); // fails when `end` is dropped
        Ok(identity("slow"))
    };
    let rig = Rig::with(model(), Arc::new(slow));
    let inquiries = [(); 3].map(|()| rig.send(&INQUIRY, Direction::In(96)));
    for n in 0..20 {
        assert_eq!(verdict(&rig.ask(&write(n), block(n))), GOOD);
    }
    assert!(!inquiries.iter().any(|&inquiry| rig.answered(inquiry)));
    drop(end);
    for inquiry in inquiries {
        assert_eq!(rig.wait(inquiry).data.unwrap().len(), 74);
    }
    rig.clean();
}

#[test]
fn an_identity_that_cannot_be_read_is_busy() {
    let rig = Rig::with(model(), Arc::new(|| Err("no such file".to_owned())));
    assert_eq!(verdict(&rig.ask(&INQUIRY, Direction::In(96))), BUSY);
    assert_eq!(verdict(&rig.ask(&read(0), Direction::In(512))), GOOD);
    rig.clean();
}

#[test]
fn an_identity_that_takes_too_long_is_busy() {
    let (gate, opens) = crossbeam_channel::bounded::<()>(0);
    let source = move || {
        let _ = opens.recv();
        Ok(identity("late"))
    };
    let rig = Rig::with(model(), Arc::new(source));
    let start = Instant::now();
    assert_eq!(verdict(&rig.ask(&INQUIRY, Direction::In(96))), BUSY);
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(1) && waited < Duration::from_secs(3), "{waited:?}");
    drop(gate); // late, and no longer waited for
    assert_eq!(verdict(&rig.ask(&INQUIRY, Direction::In(96))), GOOD);
    rig.clean();
}

#[test]
fn a_panic_in_the_identity_source_costs_one_command() {
    let count = AtomicU32::new(0);
    let source = move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => panic!("a defect"),
        _ => Ok(identity("well")),
    };
    let rig = Rig::with(model(), Arc::new(source));
    assert_eq!(verdict(&rig.ask(&INQUIRY, Direction::In(96))), BUSY);
    // Had the panic not been noticed, this one would wait for the same answer in vain.
    assert_eq!(verdict(&rig.ask(&INQUIRY, Direction::In(96))), GOOD);
    assert_eq!(verdict(&rig.ask(&read(0), Direction::In(512))), GOOD);
    rig.clean();
}

#[test]
fn a_reset_voids_what_waits_for_an_identity() {
    let (gate, opens) = crossbeam_channel::bounded::<()>(0);
    let source = move || {
        let _ = opens.recv();
        Ok(identity("late"))
    };
    let rig = Rig::with(model(), Arc::new(source));
    let lost = [(); 4].map(|()| rig.send(&INQUIRY, Direction::In(96)));
    assert_eq!(verdict(&rig.ask(&[0; 6], Direction::None)), GOOD);
    rig.kernel.reset(Reset::Fail);
    drop(gate); // the first the device hears of it is when it answers them
    for ticket in lost {
        assert_eq!(verdict(&rig.wait(ticket)), (2, [2, 8, 0]));
    }
    // Queued before the device has noticed, it is BUSY.
    until(|| verdict(&rig.ask(&INQUIRY, Direction::In(96))) == GOOD);
    rig.clean();
}

/// More commands than the completion queue has room for: all wait for the same identity and then ask storage.
#[test]
fn a_crowd_behind_a_slow_identity_is_answered() {
    let gate = Arc::new(std::sync::Mutex::new(()));
    let waits = gate.clone();
    let source = move || {
        drop(waits.lock());
        Ok(identity("x"))
    };
    let config = MockConfig { ring_bytes: 4 << 20, verify: false, ..model() };
    let rig = Rig::with(config, Arc::new(source));
    let closed = gate.lock().unwrap();
    // WRITE SAME(16) of one block, NDOB.
    let same = [0x93, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0];
    let sent: Vec<_> = (0..6000).map(|_| rig.send(&same, Direction::None)).collect();
    drop(closed);
    for ticket in sent {
        let verdict = verdict(&rig.wait(ticket));
        assert!(verdict == GOOD || verdict == BUSY, "{verdict:?}"); // BUSY: it has waited too long
    }
    rig.clean();
}
