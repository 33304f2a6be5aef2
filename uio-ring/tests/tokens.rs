//! A consumed command cannot be lost: its token is answered once, or its id is.
#![allow(clippy::unwrap_used)]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use uio_ring::mock::{Delivered, Direction, MockConfig, MockKernel, Reset, Ticket};
use uio_ring::{Doorbell, Entry, Mapping, Response, Ring, RingError, Token};

const GOOD: Response<'_> = Response { status: 0, read_len: None, sense: None };
const HARDWARE_ERROR: Response<'_> = Response { status: 2, read_len: None, sense: Some(&[0x44; 96]) };
const TEST_UNIT_READY: [u8; 6] = [0; 6];

fn device() -> (MockKernel, Ring) {
    let kernel = MockKernel::new(MockConfig { ring_bytes: 4096, ..MockConfig::default() }).unwrap();
    let side = kernel.user_side().unwrap();
    let mapping = Mapping::new(&side.memory, side.len).unwrap();
    let ring = Ring::attach(Doorbell::new(side.doorbell), mapping).unwrap();
    (kernel, ring)
}

fn send(kernel: &MockKernel) -> Ticket {
    kernel.enqueue(TEST_UNIT_READY, Direction::None).ticket
}

fn tokens(ring: &mut Ring) -> Vec<Token> {
    let commands = ring.by_ref().map(|entry| match entry.unwrap() {
        Entry::Command(command) => command.token,
        Entry::Tmr(tmr) => panic!("{tmr:?}"),
    });
    commands.collect()
}

/// Drops a token as a defect would; in debug builds that panics.
fn lose(token: Token) {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(token)));
    assert_eq!(dropped.is_err(), cfg!(debug_assertions));
}

fn statuses(kernel: &MockKernel, tickets: &[Ticket]) -> Vec<Option<u8>> {
    tickets.iter().map(|&ticket| kernel.result(ticket).map(|Delivered { status, .. }| status)).collect()
}

fn clean(kernel: &MockKernel) {
    assert_eq!(kernel.faults(), []);
    kernel.verify().unwrap();
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "was dropped without an answer"))]
fn debug_builds_shout() {
    let (kernel, mut ring) = device();
    send(&kernel);
    drop(tokens(&mut ring));
}

#[test]
fn a_lost_token_is_answered_all_the_same() {
    let (kernel, mut ring) = device();
    let sent = [send(&kernel), send(&kernel), send(&kernel)];
    let mut taken = tokens(&mut ring).into_iter();
    let (first, second, third) = (taken.next().unwrap(), taken.next().unwrap(), taken.next().unwrap());
    lose(second);
    assert_eq!(ring.outstanding(), 3);
    ring.complete(third, &GOOD).unwrap();
    assert_eq!(ring.answer_lost(&HARDWARE_ERROR).unwrap(), 1);
    assert_eq!(ring.answer_lost(&HARDWARE_ERROR).unwrap(), 0);
    assert!(ring.flush().unwrap());
    kernel.pump();
    assert_eq!(statuses(&kernel, &sent), [None, Some(2), Some(0)]);
    assert_eq!(kernel.result(sent[1]).unwrap().sense, [0x44; 96]);
    ring.complete(first, &GOOD).unwrap();
    assert!(ring.flush().unwrap());
    kernel.pump();
    assert_eq!(statuses(&kernel, &sent), [Some(0), Some(2), Some(0)]);
    assert_eq!(ring.outstanding(), 0);
    clean(&kernel);
}

#[test]
fn a_token_lost_while_unwinding_does_not_abort() {
    let (kernel, mut ring) = device();
    let sent = [send(&kernel)];
    let token = tokens(&mut ring).pop().unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _held = token;
        panic!("a handler's defect");
    }));
    assert!(unwound.is_err());
    assert_eq!(ring.answer_lost(&HARDWARE_ERROR).unwrap(), 1);
    assert!(ring.flush().unwrap());
    kernel.pump();
    assert_eq!(statuses(&kernel, &sent), [Some(2)]);
    clean(&kernel);
}

#[test]
fn a_token_may_be_lost_on_another_thread() {
    let (kernel, mut ring) = device();
    let sent = [send(&kernel)];
    let token = tokens(&mut ring).pop().unwrap();
    std::thread::spawn(move || lose(token)).join().unwrap();
    assert_eq!(ring.answer_lost(&GOOD).unwrap(), 1);
    assert!(ring.flush().unwrap());
    kernel.pump();
    assert_eq!(statuses(&kernel, &sent), [Some(0)]);
}

#[test]
fn a_lost_token_does_not_stop_the_ring_from_starting_over() {
    let (kernel, mut ring) = device();
    let sent = [send(&kernel), send(&kernel)];
    let mut taken = tokens(&mut ring);
    lose(taken.pop().unwrap());
    kernel.reset(Reset::Retry);
    let error = ring.next().unwrap().unwrap_err();
    assert!(matches!(error, RingError::Reset { .. }), "{error}");
    ring.forget(taken.pop().unwrap());
    ring.rewind().unwrap();
    assert_eq!((ring.outstanding(), ring.answer_lost(&GOOD).unwrap()), (0, 0));
    assert_eq!(statuses(&kernel, &sent), [Some(8), Some(8)]);
    serves(&kernel, &mut ring);
}

#[test]
#[should_panic(expected = "still outstanding")]
fn the_ring_does_not_start_over_with_commands_out() {
    let (kernel, mut ring) = device();
    send(&kernel);
    let taken = tokens(&mut ring);
    kernel.reset(Reset::Retry);
    let _ = ring.rewind();
    drop(taken);
}

/// Before the first publication `cmd_tail` is zero, and so it is after a reset.
#[test]
fn a_reset_at_the_start_of_the_ring_is_seen_by_the_head() {
    for by_answer in [false, true] {
        let (kernel, mut ring) = device();
        let sent = send(&kernel);
        let token = tokens(&mut ring).pop().unwrap();
        kernel.reset(Reset::Retry);
        let seen = if by_answer {
            ring.complete(token, &GOOD).unwrap_err()
        } else {
            let seen = ring.next().unwrap().unwrap_err();
            ring.forget(token);
            seen
        };
        assert!(
            matches!(seen, RingError::Reset { found: 0, head: 0, published: 0, consumed: 120 }),
            "{seen}"
        );
        assert_eq!(kernel.cursors().tail, 0, "nothing was published");
        assert_eq!(kernel.result(sent).unwrap().status, 8);
        ring.rewind().unwrap();
        serves(&kernel, &mut ring);
    }
}

/// And when as much is queued again as was consumed, the cursors are where they were.
#[test]
fn a_reset_at_the_start_of_the_ring_is_seen_by_what_is_queued_since() {
    for seen_by in ["next", "complete", "check", "flush"] {
        let (kernel, mut ring) = device();
        send(&kernel);
        send(&kernel);
        let mut taken = tokens(&mut ring);
        if seen_by == "flush" {
            ring.complete(taken.pop().unwrap(), &GOOD).unwrap();
        }
        let before = kernel.cursors();
        kernel.reset(Reset::Retry);
        let new = [send(&kernel), send(&kernel)];
        assert_eq!(
            (kernel.cursors().tail, kernel.cursors().head),
            (before.tail, before.head),
            "cursors tell nothing"
        );
        let seen = match seen_by {
            "next" => ring.next().map(|entry| entry.map(drop)).expect("something"),
            "complete" => ring.complete(taken.pop().unwrap(), &HARDWARE_ERROR),
            "check" => ring.check(),
            _ => ring.flush().map(drop),
        };
        assert!(matches!(seen, Err(RingError::Reset { .. })), "{seen_by}: {seen:?}");
        kernel.verify().unwrap();
        taken.into_iter().for_each(|token| ring.forget(token));
        ring.rewind().unwrap();
        for token in tokens(&mut ring) {
            ring.complete(token, &GOOD).unwrap();
        }
        assert!(ring.flush().unwrap());
        kernel.pump();
        assert_eq!(statuses(&kernel, &new), [Some(0), Some(0)]);
        clean(&kernel);
    }
}

/// The slot of an old answer may hold a new request by then.
#[test]
fn no_answer_is_written_over_a_new_request() {
    let (kernel, mut ring) = device();
    send(&kernel);
    let token = tokens(&mut ring).pop().unwrap();
    send(&kernel);
    let second = tokens(&mut ring).pop().unwrap();
    kernel.reset(Reset::Retry);
    let new = [send(&kernel)];
    assert!(matches!(ring.complete(token, &HARDWARE_ERROR), Err(RingError::Reset { .. })));
    kernel.verify().unwrap();
    assert_eq!(ring.outstanding(), 1);
    ring.forget(second);
    ring.rewind().unwrap();
    let token = tokens(&mut ring).pop().unwrap();
    ring.complete(token, &GOOD).unwrap();
    assert!(ring.flush().unwrap());
    kernel.pump();
    assert_eq!(statuses(&kernel, &new), [Some(0)]);
    clean(&kernel);
}

/// What was answered before the reset is not published after it.
#[test]
fn answers_of_before_are_not_published() {
    for late in [false, true] {
        let (kernel, mut ring) = device();
        let sent = [send(&kernel), send(&kernel)];
        let mut taken = tokens(&mut ring);
        ring.complete(taken.pop().unwrap(), &GOOD).unwrap();
        if late {
            ring.flush().unwrap();
            ring.complete(taken.pop().unwrap(), &GOOD).unwrap();
        }
        kernel.reset(Reset::Retry);
        assert!(matches!(ring.flush(), Err(RingError::Reset { .. })));
        assert_eq!(kernel.cursors().tail, 0);
        taken.into_iter().for_each(|token| ring.forget(token));
        ring.rewind().unwrap();
        assert_eq!(statuses(&kernel, &sent), [Some(8), Some(8)]);
        kernel.pump();
        serves(&kernel, &mut ring);
    }
}

#[test]
fn an_unknown_entry_is_marked_and_passed_over() {
    let (kernel, mut ring) = device();
    assert!(kernel.insert_unknown_op(5, 64));
    let sent = [send(&kernel)];
    assert!(kernel.insert_unknown_op(7, 8));
    let token = tokens(&mut ring).pop().unwrap();
    ring.complete(token, &GOOD).unwrap();
    assert!(ring.flush().unwrap());
    kernel.pump();
    assert_eq!(statuses(&kernel, &sent), [Some(0)]);
    assert_eq!(kernel.cursors().tail, 64 + 120 + 8);
    clean(&kernel);
}

/// A notification at the end of the ring must not keep the tail from the kernel for ever.
#[test]
fn a_notification_alone_is_published() {
    let (kernel, mut ring) = device();
    kernel.tmr(5, &[]);
    assert!(matches!(ring.next(), Some(Ok(Entry::Tmr(tmr))) if tmr.function == 5));
    assert!(ring.flush().unwrap());
    assert!(!ring.flush().unwrap());
    kernel.pump();
    assert_eq!(kernel.cursors().cleaned, kernel.cursors().head);
    assert_eq!(kernel.stats().kicks, 1);
    clean(&kernel);
}

fn serves(kernel: &MockKernel, ring: &mut Ring) {
    let sent = [send(kernel)];
    let token = tokens(ring).pop().unwrap();
    ring.complete(token, &GOOD).unwrap();
    assert!(ring.flush().unwrap());
    kernel.pump();
    assert_eq!(statuses(kernel, &sent), [Some(0)]);
    clean(kernel);
}

/// The event counter has 32 bits; unread, it would once in a long time look as if nothing had happened.
#[test]
fn the_event_counter_is_read_now_and_then_and_no_command_missed() {
    let (kernel, mut ring) = device();
    let readable = |ring: &Ring| {
        let mut fds = [PollFd::new(ring.doorbell().as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    let mut sent = vec![send(&kernel)];
    let mut taken = tokens(&mut ring);
    assert!(readable(&ring), "not for every command");
    ring.pretend_consumed(1 << 30);
    sent.push(send(&kernel)); // its edge is lost to the read
    taken.extend(tokens(&mut ring));
    assert!(!readable(&ring));
    assert_eq!(taken.len(), 2);
    for token in taken {
        ring.complete(token, &GOOD).unwrap();
    }
    ring.flush().unwrap();
    kernel.pump();
    assert_eq!(statuses(&kernel, &sent), [Some(0), Some(0)]);
    sent.push(send(&kernel));
    assert!(readable(&ring), "the next event is seen");
    let last = tokens(&mut ring).remove(0);
    ring.complete(last, &GOOD).unwrap();
    clean(&kernel);
}
