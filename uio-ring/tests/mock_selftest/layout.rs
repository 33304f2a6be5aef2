//! Bytes on the ring: entries, wrap, PAD, iovecs.

use super::*;

#[test]
fn mailbox_describes_the_ring() {
    let (_kernel, user) = device(small());
    let mut expected = [0; 128];
    expected[0] = 2; // version
    expected[2] = 0xf; // OOOC, READ_LEN, TMR, KEEP_BUF
    expected[4] = 128; // cmdr_off
    expected[8..10].copy_from_slice(&[0x80, 0x0f]); // cmdr_size 3968
    assert_eq!(user.bytes(0, 128), expected);
}

#[test]
fn write_entry_byte_by_byte() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(WRITE10, Direction::Out(vec![0x5a; 4096 + 512]));
    let mut expected = [0; 128];
    expected[0] = 128 | 1; // len 128, op CMD
    expected[4] = 1; // cmd_id
    expected[8] = 1; // iov_cnt: two adjacent blocks
    expected[24..26].copy_from_slice(&[240, 0]); // cdb_off = 128 + 112
    expected[48..50].copy_from_slice(&[0x00, 0x10]); // iov_base 4096
    expected[56..58].copy_from_slice(&[0x00, 0x12]); // iov_len 4608
    expected[112] = 0x2a; // WRITE(10)
    expected[120] = 8; // transfer length
    assert_eq!(user.bytes(128, 128), expected);
    assert_eq!(sent.place, Place::Ring { cmd_id: 1, slot: 0 });
    assert_eq!(user.read_data(&user.entry(0)), vec![0x5a; 4608]);
    assert_eq!(user.bytes(4096 + 4608, 16), [0; 16]);
    assert_eq!(user.head(), 128);
}

#[test]
fn cdb_length_follows_the_opcode() {
    let (kernel, user) = device(MockConfig::default());
    let variable = {
        let mut cdb = [0; 32];
        cdb[0] = 0x7f;
        cdb[7] = 24;
        cdb[31] = 9;
        cdb
    };
    for cdb in [&[0x12u8][..], &[0x28], &[0x5a], &[0xa0], &[0x88], &[0xa8], &[0xc1], &[0xe1], &variable] {
        kernel.enqueue(cdb, Direction::None);
    }
    let lens: Vec<u32> = user.entries().iter().map(|entry| entry.len).collect();
    // 6, 10, 10, 12, 16, 12, 10, 10 and 8 + cdb[7], each rounded up to 8.
    assert_eq!(lens, [120, 128, 128, 128, 128, 128, 128, 128, 144]);
    assert_eq!(user.entries()[8].cdb, variable);
    // Bytes behind the opcode's length are not copied.
    kernel.enqueue([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], Direction::None);
    assert_eq!(user.entries()[9].cdb, [1, 2, 3, 4, 5, 6, 0, 0]);
}

#[test]
fn wrap_inserts_a_pad_of_eight_bytes() {
    let (kernel, user) = device(small());
    // 33 entries of 120 bytes end at 3960, eight bytes before the end.
    for _ in 0..33 {
        let sent = kernel.enqueue(TUR, Direction::None);
        user.finish(&kernel, id_of(sent), OK);
    }
    assert_eq!(kernel.cursors(), Cursors { head: 3960, tail: 3960, cleaned: 3960 });
    let sent = kernel.enqueue(TUR, Direction::None);
    let entries = user.entries();
    assert_eq!((entries[0].slot, entries[0].op, entries[0].len, entries[0].id), (3960, 0, 8, 0));
    assert_eq!((entries[1].slot, entries[1].op, entries[1].len), (0, 1, 120));
    assert_eq!(kernel.stats().pads, 1);

    // Consuming only the PAD is a legal state, and completes nothing.
    user.set_tail(0);
    user.kick();
    kernel.pump();
    assert_eq!(kernel.cursors(), Cursors { head: 120, tail: 0, cleaned: 0 });
    assert_eq!(kernel.result(sent.ticket), None);

    user.finish(&kernel, 1, OK);
    assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
    clean(&kernel);
}

#[test]
fn exact_fit_wraps_without_a_pad() {
    let (kernel, user) = device(small());
    // 31 entries of 128 bytes are the whole ring.
    for _ in 0..31 {
        let sent = kernel.enqueue(READ10, Direction::None);
        user.finish(&kernel, id_of(sent), OK);
    }
    assert_eq!(kernel.cursors(), Cursors { head: 0, tail: 0, cleaned: 0 });
    assert_eq!(kernel.stats().pads, 0);
    clean(&kernel);
}

#[test]
fn large_pad_keeps_stale_bytes() {
    let (kernel, user) = device(small());
    let fill = |n: usize, cdb: &[u8]| {
        for _ in 0..n {
            let sent = kernel.enqueue(cdb, Direction::None);
            user.finish(&kernel, id_of(sent), Reply { sense: [0xee; 96], ..OK });
        }
    };
    fill(31, &READ10); // all slots now hold old responses
    fill(32, &TUR); // up to 3840, 128 before the end
    let mut long = [0; 24];
    long[0] = 0x7f;
    long[7] = 16; // 24 bytes: an entry of 136
    kernel.enqueue(long, Direction::None);
    let pad = &user.entries()[0];
    assert_eq!((pad.slot, pad.op, pad.len), (3840, 0, 128));
    assert_eq!(pad.bytes[16..112], [0xee; 96]);
    user.finish(&kernel, 1, OK);
    clean(&kernel);
}

#[test]
fn fragmentation_moves_the_cdb() {
    let (kernel, user) = device(MockConfig { data_bytes: 16 * BLOCK, ..small() });
    let reads: Vec<_> = (0..16).map(|_| kernel.enqueue(READ10, Direction::In(BLOCK))).collect();
    // Out of order: every second command, so that blocks 0, 2, ... are free.
    for sent in reads.iter().step_by(2) {
        user.complete(id_of(*sent), OK);
    }
    user.kick();
    kernel.pump();
    let sent = kernel.enqueue(READ10, Direction::In(5 * BLOCK + 100));
    let Place::Ring { cmd_id, slot } = sent.place else { panic!("{sent:?}") };
    assert_eq!(cmd_id, 1); // lowest free id
    let entry = user.entry(slot);
    let base = 4096;
    let expected: Vec<_> = (0..6u64).map(|i| (base + 2 * i * 4096, if i < 5 { 4096 } else { 100 })).collect();
    assert_eq!(entry.iovs, expected);
    // 48 + 6 * 16 = 144 bytes before the CDB, 10 bytes rounded up to 16 behind.
    assert_eq!(entry.len, 160);
    assert_eq!(entry.bytes[24..32], (128 + u64::from(slot) + 144).to_ne_bytes());
    assert_eq!(entry.cdb[..10], READ10);
    clean(&kernel);
}

#[test]
fn adjacent_runs_are_merged() {
    let (kernel, user) = device(small());
    let one = kernel.enqueue(READ10, Direction::In(BLOCK)); // block 0
    kernel.enqueue(READ10, Direction::In(2 * BLOCK)); // blocks 1, 2
    user.finish(&kernel, id_of(one), OK);
    kernel.enqueue(READ10, Direction::In(3 * BLOCK)); // blocks 0, 3, 4
    let entry = &user.entries()[1];
    assert_eq!(entry.iovs, [(4096, 4096), (4 * 4096, 8192)]);
}

#[test]
fn blocks_of_several_pages() {
    let (kernel, user) = device(MockConfig { block_bytes: 3 * BLOCK, data_bytes: 12 * BLOCK, ..small() });
    kernel.enqueue(READ10, Direction::In(100));
    kernel.enqueue(READ10, Direction::In(3 * BLOCK + 1));
    let iovs: Vec<_> = user.entries().into_iter().flat_map(|entry| entry.iovs).collect();
    assert_eq!(iovs, [(4096, 100), (4096 + 3 * 4096, 3 * 4096 + 1)]);
}

#[test]
fn bidirectional_data_in_follows_data_out() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(WRITE10, Direction::Bidi { out: vec![7; 5000], in_len: 600 });
    let entry = user.entry(0);
    // Two groups never share an element, adjacent as they are.
    assert_eq!(entry.iovs, [(4096, 5000), (4096 + 8192, 600)]);
    assert_eq!(entry.bidi, 1);
    user.put(4096 + 8192, &[8; 600]);
    user.finish(&kernel, 1, OK);
    assert_eq!(kernel.result(sent.ticket).unwrap().data, Some(vec![8; 600]));
    clean(&kernel);
}

#[test]
fn ids_are_reused_lowest_first() {
    let (kernel, user) = device(small());
    let ids: Vec<_> = (0..4).map(|_| id_of(kernel.enqueue(TUR, Direction::None))).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    user.complete(3, OK);
    user.complete(2, OK);
    user.kick();
    kernel.pump();
    let ids: Vec<_> = (0..3).map(|_| id_of(kernel.enqueue(TUR, Direction::None))).collect();
    assert_eq!(ids, [2, 3, 5]);
    assert_eq!(kernel.ids(), [1, 2, 3, 4, 5]);
}

#[test]
fn tmr_entry_byte_by_byte() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(TUR, Direction::None);
    kernel.abort(sent.ticket);
    let mut expected = [0; 40];
    expected[0] = 40 | 2; // len 40, op TMR
    expected[8] = 1; // ABORT TASK
    expected[12] = 1; // cmd_cnt
    expected[32] = 1; // cmd_ids[0]
    assert_eq!(user.entries()[1].bytes, expected);
    kernel.tmr(5, &[]); // LUN RESET that hits nothing
    assert_eq!(user.entries()[2].len, 32);
    user.complete(1, OK);
    user.skip();
    user.kick();
    kernel.pump();
    assert_eq!(kernel.cursors().cleaned, 192);
    assert_eq!(status(&kernel, sent.ticket), Some(TASK_ABORTED));
    clean(&kernel);
}
