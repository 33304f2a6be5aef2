//! Everything user space can do wrong is found, and told apart.

use super::*;

/// Two commands on the ring, with one completion ahead of them so that memory is not all fresh.
fn two() -> (MockKernel, User, Enqueued, Enqueued) {
    let (kernel, user) = device(small());
    let a = kernel.enqueue(WRITE10, Direction::Out(vec![1; 512]));
    let b = kernel.enqueue(READ10, Direction::In(512));
    (kernel, user, a, b)
}

fn kick(kernel: &MockKernel, user: &User) -> Vec<Fault> {
    user.kick();
    kernel.pump();
    assert_eq!(kernel.is_broken(), !kernel.faults().is_empty());
    kernel.faults()
}

#[test]
fn duplicate_completion_breaks() {
    let (kernel, user, a, b) = two();
    user.complete(1, OK);
    user.complete(1, OK);
    assert_eq!(kick(&kernel, &user), [Fault::Broken { cmd_id: 1, slot: 128, kept: false }]);
    assert_eq!((status(&kernel, a.ticket), status(&kernel, b.ticket)), (Some(GOOD), None));
    // Later kicks are ignored.
    user.respond(128, 2, OK);
    assert_eq!(kick(&kernel, &user).len(), 1);
    assert_eq!(kernel.cursors().cleaned, 128);
}

#[test]
fn id_zero_and_foreign_ids_break() {
    for cmd_id in [0, 3, 65535] {
        let (kernel, user, ..) = two();
        user.complete(cmd_id, OK);
        assert_eq!(kick(&kernel, &user), [Fault::Broken { cmd_id, slot: 0, kept: false }]);
    }
}

#[test]
fn completing_a_kept_id_breaks_and_fails_the_queue() {
    let (kernel, user) = device(small());
    kernel.enqueue(READ10, Direction::In(4 * BLOCK));
    kernel.enqueue(READ10, Direction::In(4 * BLOCK));
    let waits = kernel.enqueue(READ10, Direction::In(4 * BLOCK));
    user.complete(1, Reply { uflags: 4, ..OK });
    user.complete(1, OK);
    assert_eq!(kick(&kernel, &user), [Fault::Broken { cmd_id: 1, slot: 128, kept: true }]);
    assert_eq!(sense(&kernel.result(waits.ticket).unwrap()), (CHECK, 2, 8, 0));
    assert_eq!(kernel.ids(), [2]); // without the flag the kept id is gone
}

#[test]
fn tail_into_zeroed_space_would_spin() {
    let (kernel, user, ..) = two();
    user.respond(0, 1, OK);
    user.respond(128, 2, OK);
    user.set_tail(384); // the head is at 256
    assert_eq!(kick(&kernel, &user), [Fault::WouldSpin { tail: 384, slot: 256 }]);
}

#[test]
fn tail_past_head_over_stale_entries() {
    let (kernel, user) = device(small());
    for _ in 0..33 {
        kernel.enqueue(TUR, Direction::None);
        user.finish(&kernel, 1, OK);
    }
    kernel.enqueue(TUR, Direction::None); // PAD, then slot 0
    user.complete(1, OK);
    user.set_tail(240); // slot 120 is an old completion of id 1
    assert_eq!(kick(&kernel, &user), [Fault::TailPastHead { tail: 240 }]);
}

#[test]
fn tail_moved_backwards() {
    let (kernel, user, ..) = two();
    user.finish(&kernel, 1, OK);
    user.set_tail(0);
    assert!(matches!(
        kick(&kernel, &user)[..],
        [Fault::WouldSpin { tail: 0, slot: 256 } | Fault::TailPastHead { tail: 0 }]
    ));
}

#[test]
fn tail_not_on_boundary() {
    for tail in [8, 64, 120, 136, 255] {
        let (kernel, user, ..) = two();
        user.respond(0, 1, OK);
        user.set_tail(tail);
        assert_eq!(kick(&kernel, &user), [Fault::TailNotOnBoundary { tail }]);
    }
}

#[test]
fn tail_out_of_range() {
    for tail in [3968, 3969, u32::MAX] {
        let (kernel, user, ..) = two();
        user.set_tail(tail);
        assert_eq!(kick(&kernel, &user), [Fault::TailOutOfRange { tail }]);
    }
}

#[test]
fn out_of_order_needs_the_flag() {
    let (kernel, user) = device(MockConfig { flags: 0xe, ..small() });
    kernel.enqueue(TUR, Direction::None);
    kernel.enqueue(TUR, Direction::None);
    user.complete(2, OK);
    assert_eq!(kick(&kernel, &user), [Fault::OutOfOrder { slot: 0, expected: 1, found: 2 }]);
}

#[test]
fn kernel_fields_of_the_mailbox() {
    let (kernel, user, ..) = two();
    user.put(12, &[8]);
    assert_eq!(kick(&kernel, &user), [Fault::HeadModified { expected: 256, found: 264 }]);
    for at in [0, 3, 4, 8] {
        let (kernel, user, ..) = two();
        user.put(at, &[0xff]);
        assert_eq!(kick(&kernel, &user), [Fault::MailboxModified]);
    }
    // The padding is free for a tag of user space, and survives.
    let (kernel, user, ..) = two();
    user.put(68, &[0xff; 60]);
    kernel.reset(uio_ring::mock::Reset::Fail);
    assert_eq!(user.bytes(68, 60), [0xff; 60]);
    clean(&kernel);
}

#[test]
fn len_op_is_the_kernels() {
    for publish in [true, false] {
        let (kernel, user, ..) = two();
        if publish {
            user.complete(1, OK);
        }
        user.put(128, &[128 | 2]);
        let expected = Fault::LenOpModified { slot: 0, expected: 128 | 1, found: 128 | 2 };
        assert_eq!(kick(&kernel, &user), [expected]);
    }
}

#[test]
fn bytes_behind_the_response_and_kflags_are_the_kernels() {
    for at in [128 + 6, 128 + 112, 128 + 127] {
        let (kernel, user, ..) = two();
        user.complete(1, OK);
        user.put(at, &[0xff]);
        assert_eq!(kick(&kernel, &user), [Fault::EntryModified { slot: 0, at }]);
    }
}

#[test]
fn entries_beyond_the_tail_are_pristine_when_user_space_rests() {
    let (kernel, user, ..) = two();
    user.complete(1, OK);
    user.respond(128, 2, OK); // prepared, not published
    kernel.kick(); // may happen at any time and finds nothing wrong
    assert_eq!(kernel.faults(), []);
    assert_eq!(kick(&kernel, &user), [Fault::EntryModified { slot: 128, at: 128 + 128 + 4 + 4 }]);
}

#[test]
fn pads_and_notifications_are_the_kernels() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(TUR, Direction::None);
    kernel.abort(sent.ticket);
    user.put(128 + 120 + 8, &[0]); // the type
    user.complete(1, OK);
    assert_eq!(kick(&kernel, &user), [Fault::EntryModified { slot: 120, at: 128 + 120 + 8 }]);

    let (kernel, user) = device(small());
    for _ in 0..32 {
        kernel.enqueue(TUR, Direction::None);
        user.finish(&kernel, 1, OK);
    }
    kernel.enqueue(READ10, Direction::None); // fits exactly
    kernel.enqueue(TUR, Direction::None);
    user.complete(1, OK);
    user.finish(&kernel, 2, OK);
    for _ in 0..31 {
        kernel.enqueue(TUR, Direction::None);
        user.finish(&kernel, 1, OK);
    }
    let mut long = [0; 24];
    (long[0], long[7]) = (0x7f, 16);
    kernel.enqueue(long, Direction::None); // 136 bytes do not fit into 128
    clean(&kernel);
    user.put(128 + 3840 + 100, &[0xff]); // inside the PAD
    user.skip();
    assert_eq!(kick(&kernel, &user), [Fault::EntryModified { slot: 3840, at: 128 + 3840 + 100 }]);
}

#[test]
fn response_written_after_the_tail() {
    let (kernel, user) = device(small());
    for _ in 0..33 {
        kernel.enqueue(TUR, Direction::None);
        user.finish(&kernel, 1, OK);
    }
    user.put(128 + 16, &[0xff]); // slot 0 is long released
    let sent = kernel.enqueue(TUR, Direction::None);
    assert_eq!(kernel.faults(), [Fault::FreeRingModified { at: 128 + 16 }]);
    assert_eq!(sense(&kernel.result(sent.ticket).unwrap()), (CHECK, 2, 8, 0));
}

#[test]
fn free_ring_space_is_the_kernels() {
    let (kernel, user, ..) = two();
    user.put(128 + 3967, &[0xff]);
    assert_eq!(kernel.verify(), Err(Fault::FreeRingModified { at: 128 + 3967 }));
    let (kernel, user) = device(small());
    user.put(128, &[0xff]);
    assert_eq!(kernel.verify(), Err(Fault::FreeRingModified { at: 128 }));
    let (kernel, user, a, _) = two();
    user.put(128 + 256, &[0xff]); // where the next entry goes
    kernel.abort(a.ticket);
    assert_eq!(kernel.faults(), [Fault::FreeRingModified { at: 128 + 256 }]);
}

#[test]
fn sense_must_be_written_to_its_end() {
    let (kernel, user, _, b) = two();
    user.complete(1, OK);
    // An 18-byte sense and nothing behind it: the rest is the iovec of the request.
    user.put(128 + 128 + 8, &[CHECK, 0, 0, 0, 0, 0, 0, 0]);
    user.put(128 + 128 + 16, &[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0]);
    user.set_tail(256);
    let expected = Fault::SenseNotFullyWritten { ticket: b.ticket, slot: 128, sense_byte: 32 };
    assert_eq!(kick(&kernel, &user), [expected]);
}

#[test]
fn data_of_other_commands() {
    let (kernel, user, a, _) = two();
    user.put(4096 + 511, &[2]); // Data-Out of the first command
    assert_eq!(kernel.verify(), Err(Fault::DataModified { ticket: a.ticket, at: 4096 + 511 }));

    let (kernel, user, _, b) = two();
    user.complete(1, OK);
    user.put(8192 + 512, &[2]); // one byte too far in the second
    user.complete(2, OK);
    let expected = Fault::DataModified { ticket: b.ticket, at: 8192 + 512 };
    assert_eq!(kick(&kernel, &user), [expected]);
}

#[test]
fn write_after_completion() {
    for poison_on_free in [false, true] {
        let (kernel, user) = device(MockConfig { poison_on_free, ..small() });
        kernel.enqueue(READ10, Direction::In(BLOCK));
        user.finish(&kernel, 1, OK);
        user.put(4096 + 77, &[1]);
        let sent = kernel.enqueue(READ10, Direction::In(BLOCK));
        assert_eq!(kernel.faults(), [Fault::UseAfterComplete { block: 0, at: 4096 }]);
        assert_eq!(status(&kernel, sent.ticket), Some(CHECK));
    }
    let (kernel, user, ..) = two();
    user.put(4096 + 7 * 4096, &[1]); // never handed out
    assert_eq!(kernel.verify(), Err(Fault::UseAfterComplete { block: 7, at: 8 * 4096 }));
}

#[test]
fn poison_shows_up_in_short_replies() {
    let (kernel, user) = device(MockConfig { poison_on_free: true, ..small() });
    kernel.enqueue(WRITE10, Direction::Out(vec![1; 512]));
    user.finish(&kernel, 1, OK);
    let sent = kernel.enqueue(INQUIRY, Direction::In(4));
    user.finish(&kernel, 1, OK);
    assert_eq!(kernel.result(sent.ticket).unwrap().data, Some(vec![0xa5; 4]));
    clean(&kernel);
}

#[test]
fn kicks_are_four_bytes() {
    let (kernel, user, ..) = two();
    (&user.doorbell).write_all(&[0; 8]).unwrap();
    kernel.pump();
    assert_eq!(kernel.faults(), [Fault::OddKick { len: 8 }]);
}

#[test]
fn without_verification_only_the_kernels_own_checks_remain() {
    let (kernel, user) = device(MockConfig { verify: false, ..small() });
    kernel.enqueue(READ10, Direction::In(512));
    user.put(128 + 6, &[1]);
    user.put(8 * 4096, &[1]);
    user.complete(1, OK);
    assert_eq!(kick(&kernel, &user), []);
    kernel.enqueue(READ10, Direction::In(512));
    user.complete(7, OK);
    assert_eq!(kick(&kernel, &user), [Fault::Broken { cmd_id: 7, slot: 128, kept: false }]);
}
