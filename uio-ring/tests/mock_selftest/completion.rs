//! What the initiator gets, and when waiting commands go on.

use super::*;

const SENSE: [u8; 96] = [0xcc; 96];

#[test]
fn fifo() {
    let (kernel, user) = device(small());
    let sent: Vec<_> = (0..3).map(|_| kernel.enqueue(TUR, Direction::None)).collect();
    for (index, sent) in sent.iter().enumerate() {
        assert_eq!(kernel.outstanding(), 3 - index);
        user.finish(&kernel, id_of(*sent), OK);
        assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
    }
    clean(&kernel);
}

#[test]
fn nothing_happens_without_a_kick() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(TUR, Direction::None);
    user.complete(1, OK);
    kernel.pump();
    assert_eq!(kernel.result(sent.ticket), None);
    kernel.kick();
    assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
}

#[test]
fn out_of_order_in_stolen_slots() {
    let (kernel, user) = device(small());
    let a = kernel.enqueue(WRITE10, Direction::Out(vec![1; 100]));
    let b = kernel.enqueue(READ10, Direction::In(512));
    let c = kernel.enqueue(INQUIRY, Direction::In(96));
    let entries = user.commands(); // the copy that must precede any completion
    user.write_data(&entries[2], &[3; 96]);
    user.complete(entries[2].id, OK);
    user.complete(entries[0].id, OK);
    user.write_data(&entries[1], &[2; 512]);
    user.complete(entries[1].id, OK);
    user.kick();
    kernel.pump();
    assert_eq!(kernel.result(a.ticket).unwrap().data, None);
    assert_eq!(kernel.result(b.ticket).unwrap().data, Some(vec![2; 512]));
    assert_eq!(kernel.result(c.ticket).unwrap().data, Some(vec![3; 96]));
    clean(&kernel);
}

#[test]
fn short_reply_leaks_recycled_data() {
    let (kernel, user) = device(small());
    kernel.enqueue(WRITE10, Direction::Out(vec![0x5e; 512]));
    user.finish(&kernel, 1, OK);
    let sent = kernel.enqueue(INQUIRY, Direction::In(96));
    user.write_data(&user.commands()[0], &[1; 36]);
    user.finish(&kernel, 1, OK);
    let delivered = kernel.result(sent.ticket).unwrap();
    assert_eq!(delivered.resid, 0);
    assert_eq!(delivered.data.unwrap(), [vec![1; 36], vec![0x5e; 60]].concat());
}

#[test]
fn read_len_hides_the_rest() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(INQUIRY, Direction::In(96));
    user.write_data(&user.commands()[0], &[1; 36]);
    user.finish(&kernel, 1, Reply { uflags: 2, read_len: 36, ..OK });
    let delivered = kernel.result(sent.ticket).unwrap();
    assert_eq!((delivered.data, delivered.resid), (Some(vec![1; 36]), 60));
}

#[test]
fn read_len_is_clamped_ignored_for_zero_and_for_writes() {
    let (kernel, user) = device(small());
    let read_len = |direction, read_len| {
        let sent = kernel.enqueue(READ10, direction);
        user.finish(&kernel, 1, Reply { uflags: 2, read_len, ..OK });
        let delivered = kernel.result(sent.ticket).unwrap();
        (delivered.data.map(|data| data.len()), delivered.resid)
    };
    assert_eq!(read_len(Direction::In(512), 9999), (Some(512), 0));
    assert_eq!(read_len(Direction::In(512), 0), (Some(512), 0));
    assert_eq!(read_len(Direction::Out(vec![0; 512]), 10), (None, 0));
    let (kernel, user) = device(MockConfig { flags: 0x1, ..small() });
    let sent = kernel.enqueue(READ10, Direction::In(512));
    user.finish(&kernel, 1, Reply { uflags: 2, read_len: 1, ..OK });
    assert_eq!(kernel.result(sent.ticket).unwrap().resid, 0);
}

#[test]
fn check_condition_carries_96_bytes_and_no_data() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(READ10, Direction::In(512));
    user.finish(&kernel, 1, Reply { status: CHECK, sense: SENSE, ..OK });
    let expected = Delivered { status: CHECK, sense: SENSE, data: None, resid: 0 };
    assert_eq!(kernel.result(sent.ticket), Some(expected));
    // With READ_LEN both come, as tapes want it.
    let sent = kernel.enqueue(READ10, Direction::In(512));
    user.finish(&kernel, 1, Reply { uflags: 2, status: CHECK, read_len: 10, sense: SENSE });
    let delivered = kernel.result(sent.ticket).unwrap();
    assert_eq!((delivered.sense, delivered.data.unwrap().len(), delivered.resid), (SENSE, 10, 502));
}

#[test]
fn other_statuses_pass_through_without_data() {
    let (kernel, user) = device(small());
    for expected in [BUSY, 0x18, TASK_SET_FULL, TASK_ABORTED] {
        let sent = kernel.enqueue(READ10, Direction::In(512));
        user.finish(&kernel, 1, Reply { uflags: 2, status: expected, read_len: 5, sense: SENSE });
        let delivered = Delivered { status: expected, sense: [0; 96], data: None, resid: 0 };
        assert_eq!(kernel.result(sent.ticket), Some(delivered));
    }
}

#[test]
fn unknown_op_flag_is_not_ready() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(TUR, Direction::None);
    user.finish(&kernel, 1, Reply { uflags: 1, sense: SENSE, ..OK });
    assert_eq!(sense(&kernel.result(sent.ticket).unwrap()), (CHECK, 0x02, 0x08, 0x00));
}

#[test]
fn full_ring_queues_and_resumes() {
    let (kernel, user) = device(small());
    for _ in 0..33 {
        id_of(kernel.enqueue(TUR, Direction::None));
    }
    let waits = kernel.enqueue(TUR, Direction::None);
    assert_eq!((waits.place, kernel.waiting()), (Place::Waiting, 1));
    user.complete(1, OK);
    assert_eq!(kernel.waiting(), 1); // published is not enough
    user.kick();
    kernel.pump();
    // 8 + 120 bytes are free and PAD + entry need them all, but one byte must stay free.
    assert_eq!((kernel.waiting(), kernel.cursors().cleaned), (1, 120));
    user.finish(&kernel, 2, OK);
    assert_eq!((kernel.waiting(), kernel.cursors().head), (0, 120));
    assert_eq!(user.entries().last().unwrap().id, 1);
    clean(&kernel);
}

#[test]
fn full_data_area_queues_everything_behind_it() {
    let (kernel, user) = device(small());
    let first = kernel.enqueue(READ10, Direction::In(5 * BLOCK));
    let second = kernel.enqueue(WRITE10, Direction::Out(vec![4; 4 * BLOCK]));
    let third = kernel.enqueue(TUR, Direction::None);
    assert_eq!(
        [first.place, second.place, third.place],
        [Place::Ring { cmd_id: 1, slot: 0 }, Place::Waiting, Place::Waiting]
    );
    let events = kernel.events();
    user.finish(&kernel, 1, OK);
    assert_eq!(kernel.events(), events + 2);
    let entries = user.commands();
    assert_eq!(user.read_data(&entries[0]), vec![4; 4 * BLOCK]);
    assert_eq!(entries[1].cdb[..6], TUR);
    // A command that expires while it waits gets TASK SET FULL.
    let big = kernel.enqueue(READ10, Direction::In(5 * BLOCK));
    kernel.expire(big.ticket);
    assert_eq!(status(&kernel, big.ticket), Some(TASK_SET_FULL));
    clean(&kernel);
}

#[test]
fn no_patience_is_task_set_full() {
    let (kernel, _user) = device(MockConfig { qfull_wait: false, ..small() });
    kernel.enqueue(READ10, Direction::In(8 * BLOCK));
    let sent = kernel.enqueue(READ10, Direction::In(1));
    assert_eq!((sent.place, status(&kernel, sent.ticket)), (Place::Answered, Some(TASK_SET_FULL)));
}

#[test]
fn too_big_is_an_invalid_field() {
    let (kernel, _user) = device(small());
    let sent = kernel.enqueue(READ10, Direction::In(8 * BLOCK + 1));
    assert_eq!(sense(&kernel.result(sent.ticket).unwrap()), (CHECK, 0x05, 0x24, 0x00));
    // Every second block of 242 free: 48 + 16 n + 16 bytes must not exceed 3968 / 2 = 1984.
    let (kernel, user) = device(MockConfig { data_bytes: 242 * BLOCK, ..small() });
    for id in 1..=242 {
        kernel.enqueue(READ10, Direction::In(1));
        user.finish(&kernel, id, Reply { uflags: 4, ..OK });
    }
    (1..=242).step_by(2).for_each(|id| assert!(kernel.free_kept_buf(id)));
    let sent = kernel.enqueue(READ10, Direction::In(121 * BLOCK));
    assert_eq!(sense(&kernel.result(sent.ticket).unwrap()), (CHECK, 0x05, 0x24, 0x00));
    let sent = kernel.enqueue(READ10, Direction::In(120 * BLOCK));
    let Place::Ring { cmd_id: 1, slot } = sent.place else { panic!("{sent:?}") };
    assert_eq!((user.entry(slot).len, user.entry(slot).iovs.len()), (1984, 120));
}

#[test]
fn expiry_then_late_completion() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(WRITE10, Direction::Out(vec![1; 512]));
    kernel.expire(sent.ticket);
    assert_eq!(sense(&kernel.result(sent.ticket).unwrap()), (CHECK, 0x02, 0x08, 0x00));
    // Id and block stay taken, the entry stays as it is.
    assert_eq!(kernel.ids(), [1]);
    let next = kernel.enqueue(READ10, Direction::In(512));
    assert_eq!(id_of(next), 2);
    assert_eq!(user.commands()[1].iovs, [(4096 + 4096, 512)]);
    user.finish(&kernel, 1, OK);
    assert_eq!(sense(&kernel.result(sent.ticket).unwrap()), (CHECK, 0x02, 0x08, 0x00));
    assert_eq!((kernel.ids(), kernel.stats().late), (vec![2], 1));
    clean(&kernel);
}

#[test]
fn abort_discards_the_status() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(READ10, Direction::In(512));
    kernel.abort(sent.ticket);
    assert_eq!(kernel.outstanding(), 1);
    user.finish(&kernel, 1, OK);
    let delivered = kernel.result(sent.ticket).unwrap();
    assert_eq!((delivered.status, delivered.data), (TASK_ABORTED, None));
}

#[test]
fn abort_of_a_waiting_command_is_immediate() {
    let (kernel, user) = device(small());
    kernel.enqueue(READ10, Direction::In(8 * BLOCK));
    let sent = kernel.enqueue(READ10, Direction::In(1));
    kernel.abort(sent.ticket);
    assert_eq!(status(&kernel, sent.ticket), Some(TASK_ABORTED));
    assert_eq!(user.entries()[1].bytes[12..16], [0; 4]); // a TMR without ids
}

#[test]
fn tmr_waits_for_ring_space_and_goes_before_commands() {
    let (kernel, user) = device(small());
    let sent: Vec<_> = (0..33).map(|_| kernel.enqueue(TUR, Direction::None)).collect();
    kernel.enqueue(TUR, Direction::None);
    kernel.abort(sent[5].ticket);
    user.complete(1, OK);
    user.finish(&kernel, 2, OK);
    let ops: Vec<_> = user.entries().iter().skip(31).map(|entry| entry.op).collect();
    assert_eq!(ops, [0, 2, 1]); // PAD, TMR, then the command: 8 + 40 + 120 of 248 bytes
    clean(&kernel);
}

#[test]
fn keep_buf_holds_id_and_blocks() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(WRITE10, Direction::Out(vec![9; 512]));
    user.finish(&kernel, 1, Reply { uflags: 4, ..OK });
    assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
    let next = kernel.enqueue(READ10, Direction::In(512));
    assert_eq!((id_of(next), user.commands()[0].iovs[0]), (2, (8192, 512)));
    assert!(!kernel.free_kept_buf(2)); // in flight
    assert!(kernel.free_kept_buf(1));
    assert!(!kernel.free_kept_buf(1));
    assert_eq!(kernel.ids(), [2]);
    user.finish(&kernel, 2, Reply { uflags: 4, ..OK });
    User::open(&kernel); // the last close frees what was kept
    assert_eq!(kernel.ids(), []);
    clean(&kernel);
}

#[test]
fn expired_command_can_be_kept() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(READ10, Direction::In(512));
    kernel.expire(sent.ticket);
    user.finish(&kernel, 1, Reply { uflags: 4, ..OK });
    assert_eq!((kernel.ids(), kernel.stats().late), (vec![1], 1));
    assert!(kernel.free_kept_buf(1));
    clean(&kernel);
}

#[test]
fn keep_buf_needs_the_flag() {
    let (kernel, user) = device(MockConfig { flags: 0x7, ..small() });
    kernel.enqueue(READ10, Direction::In(512));
    user.finish(&kernel, 1, Reply { uflags: 4, ..OK });
    assert_eq!(kernel.ids(), []);
}

#[test]
fn a_waiting_command_that_is_refused_loses_its_reason() {
    // 121 fragments are too much, which shows only when it is this command's turn.
    let (kernel, user) = device(MockConfig { data_bytes: 242 * BLOCK, ..small() });
    for id in 1..=242 {
        kernel.enqueue(READ10, Direction::In(1));
        user.finish(&kernel, id, Reply { uflags: 4, ..OK });
    }
    (1..241).step_by(2).for_each(|id| assert!(kernel.free_kept_buf(id)));
    let sent = kernel.enqueue(READ10, Direction::In(121 * BLOCK));
    assert_eq!(sent.place, Place::Waiting);
    assert!(kernel.free_kept_buf(241)); // the 121st
    assert_eq!(sense(&kernel.result(sent.ticket).unwrap()), (CHECK, 0x02, 0x08, 0x00));
}

#[test]
fn without_a_free_id_the_task_set_is_full() {
    // target_core_user.c, queue_cmd_ring: TCM_OUT_OF_RESOURCES, and no waiting.
    let (kernel, _user) = device(MockConfig { ring_bytes: 8 << 20, verify: false, ..small() });
    for id in 1..=65535 {
        assert_eq!(id_of(kernel.enqueue(TUR, Direction::None)), id);
    }
    let sent = kernel.enqueue(TUR, Direction::None);
    assert_eq!((sent.place, status(&kernel, sent.ticket)), (Place::Answered, Some(TASK_SET_FULL)));
}

#[test]
fn published_completions_free_nothing_before_the_kick() {
    let (kernel, user) = device(small());
    for _ in 0..33 {
        kernel.enqueue(TUR, Direction::None);
    }
    (1..=4).for_each(|id| user.complete(id, OK));
    assert_eq!(kernel.enqueue(TUR, Direction::None).place, Place::Waiting);
    kernel.verify().unwrap(); // responses that wait for a kick are no stray writes
    user.kick();
    kernel.pump();
    assert_eq!((kernel.waiting(), kernel.outstanding()), (0, 30));
    clean(&kernel);
}

#[test]
fn waiting_notifications_keep_their_order() {
    let (kernel, user) = device(small());
    let sent: Vec<_> = (0..33).map(|_| kernel.enqueue(TUR, Direction::None).ticket).collect();
    kernel.tmr(5, &sent); // 32 + 2 * 33 bytes, rounded up: 104
    user.finish(&kernel, 1, OK); // 128 bytes free, PAD and TMR need 112
    let found: Vec<_> = user.entries().iter().skip(32).map(|entry| (entry.op, entry.len)).collect();
    assert_eq!(found, [(0, 8), (2, 104)]);
    // 16 bytes are left.
    kernel.tmr(6, &sent[1..]);
    kernel.abort(sent[7]);
    user.finish(&kernel, 2, OK); // 136 free: 96 for the first, and the second needs the rest but for one
    user.finish(&kernel, 3, OK);
    let kinds: Vec<_> =
        user.entries().iter().filter(|entry| entry.op == 2).map(|entry| entry.bytes[8]).collect();
    assert_eq!(kinds, [5, 6, 1]);
    clean(&kernel);
}

#[test]
fn a_small_notification_waits_behind_a_large_one() {
    let (kernel, user) = device(small());
    let sent: Vec<_> = (0..32).map(|_| kernel.enqueue(TUR, Direction::None).ticket).collect();
    kernel.enqueue(READ10, Direction::None); // the ring's last 128 bytes
    user.finish(&kernel, 1, OK); // 120 bytes free at the start
    kernel.abort(sent[1]); // 40 bytes
    kernel.tmr(5, &sent); // 31 ids, 96 bytes: waits
    kernel.tmr(3, &[]); // 32 bytes would fit
    let kinds = || -> Vec<_> {
        user.entries().iter().filter(|entry| entry.op == 2).map(|entry| entry.bytes[8]).collect()
    };
    assert_eq!(kinds(), [1]);
    user.finish(&kernel, 2, OK);
    assert_eq!(kinds(), [1, 5, 3]);
    clean(&kernel);
}

#[test]
fn freed_buffers_let_no_command_overtake_a_notification() {
    // A ring of 8064 bytes: 128 for the first, 66 * 120, 16 left.
    let (kernel, user) = device(MockConfig { ring_bytes: 8192, ..small() });
    kernel.enqueue(READ10, Direction::In(8 * BLOCK));
    let sent: Vec<_> = (0..66).map(|_| kernel.enqueue(TUR, Direction::None).ticket).collect();
    kernel.tmr(5, &sent); // 168 bytes
    assert_eq!(kernel.enqueue(TUR, Direction::In(1)).place, Place::Waiting); // 120 bytes
    user.finish(&kernel, 1, Reply { uflags: 4, ..OK }); // 128 bytes free behind the 16
    assert!(kernel.free_kept_buf(1));
    assert_eq!(kernel.waiting(), 1);
    user.finish(&kernel, 2, OK);
    assert_eq!(kernel.waiting(), 1); // 264 free, 184 for PAD and TMR
    user.finish(&kernel, 3, OK);
    assert_eq!(kernel.waiting(), 0);
    clean(&kernel);
}

#[test]
fn zeroes_are_sense() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(READ10, Direction::In(512));
    user.finish(&kernel, 1, Reply { status: CHECK, ..OK });
    assert_eq!(kernel.result(sent.ticket).unwrap().sense, [0; 96]);
    clean(&kernel);
}
