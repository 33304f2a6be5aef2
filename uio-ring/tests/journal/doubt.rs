//! Journals that must not be believed.

use super::{BUSY, GOOD, Host, bytes_of, drop_in_order, model};
use proptest::prelude::RngExt;
use uio_ring::mock::{Direction, Reset};
use uio_ring::{Command, Entry, JournalError, Response, ResumeError};

/// Three commands in progress; what a successor makes of the journal after `spoil`.
fn refused(spoil: impl FnOnce(&Host)) -> JournalError {
    let mut host = Host::new(3, model(65536, 64));
    let mut process = host.first_moved();
    for _ in 0..5 {
        host.enqueue();
    }
    for _ in 0..4 {
        let Some(Ok(Entry::Command(command))) = process.ring.next() else { panic!("a command") };
        process.held.push(command);
    }
    let first = process.held.remove(1);
    host.complete(&mut process.ring, first);
    process.ring.flush().unwrap();
    host.kernel.pump();
    drop_in_order(process);
    spoil(&host);
    match host.resume() {
        Err(ResumeError::Journal(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    }
}

fn overwrite(host: &Host, at: i64, bytes: &[u8]) {
    nix::sys::uio::pwrite(&host.journal, bytes, at).unwrap();
}

#[test]
fn whatever_is_doubtful_is_refused() {
    let moved = |error| assert!(matches!(error, JournalError::Moved(_)), "{error}");
    let damaged = |error| assert!(matches!(error, JournalError::Damaged(_)), "{error}");
    // An operator's reset_ring, or another handler's, in between.
    moved(refused(|host| host.kernel.reset(Reset::Retry)));
    let none = |error| assert!(matches!(error, JournalError::None), "{error}");
    none(refused(|host| nix::unistd::ftruncate(&host.journal, 0).unwrap()));
    none(refused(|host| overwrite(host, 0, b"TCMUJRN\x03"))); // a later version's
    none(refused(|host| overwrite(host, 0, &[0; 8]))); // abandoned
    let foreign = |error| assert!(matches!(error, JournalError::Foreign), "{error}");
    foreign(refused(|host| overwrite(host, 8, &[8; 32])));
    foreign(refused(|host| overwrite(host, 48, &1u64.to_ne_bytes()))); // another ring's size
    // Consumed up to beyond what there is; off an entry's boundary; not aligned.
    moved(refused(|host| overwrite(host, 64, &0xff00u32.to_ne_bytes())));
    for next in [8u32, 264, 3] {
        let error = refused(|host| overwrite(host, 64, &next.to_ne_bytes()));
        assert!(!matches!(error, JournalError::None | JournalError::Foreign), "{next}: {error}");
    }
    // One in progress that is not said to be (the record of id 1), one that is said to be and is not (id 2).
    damaged(refused(|host| overwrite(host, 4096 + 64, &0u64.to_ne_bytes())));
    damaged(refused(|host| overwrite(host, 4096 + 2 * 64, &1u64.to_ne_bytes())));
    damaged(refused(|host| overwrite(host, 4096 + 64, &9u64.to_ne_bytes()))); // no state
    damaged(refused(|host| overwrite(host, 96, &u64::MAX.to_ne_bytes()))); // number of records
    damaged(refused(|host| overwrite(host, 4096 + 64 + 28, &[255]))); // length of a CDB
    damaged(refused(|host| overwrite(host, 4096 + 64 + 29, &[4]))); // no stage
    damaged(refused(|host| overwrite(host, 4096 + 64 + 20, &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]))); // a page
}

/// While nothing was published since the ring began at 0, cursors alone do not tell that it was reset in between: by an
/// operator, another handler, or a successor that lost patience and died before it began a journal of its own.
#[test]
fn a_reset_at_the_start_of_the_ring_is_seen_whatever_was_queued_since() {
    let mut host = Host::new(8, model(8192, 24));
    let mut process = host.first();
    let mut send = |write: bool| {
        host.number += 1;
        let mut cdb = [0; 16];
        cdb[0] = if write { 0x8a } else { 0x88 };
        cdb[1..5].copy_from_slice(&host.number.to_be_bytes());
        let sent = host.kernel.enqueue(cdb, Direction::Out(bytes_of(host.number, 512)));
        host.sent.insert(host.number, (sent.ticket, 512, true));
        (host.number, sent.ticket)
    };
    let old = [send(true), send(true)];
    for _ in 0..2 {
        let Some(Ok(Entry::Command(command))) = process.ring.next() else { panic!("a command") };
        process.held.push(command);
    }
    drop_in_order(process); // SIGKILL
    host.kernel.reset(Reset::Retry);
    for (_, ticket) in old {
        assert_eq!(host.kernel.take_result(ticket).unwrap().status, BUSY);
    }
    let send = |number: u32| {
        let mut cdb = [0; 16];
        cdb[0] = 0x8a;
        cdb[1..5].copy_from_slice(&number.to_be_bytes());
        host.kernel.enqueue(cdb, Direction::Out(bytes_of(number, 512))).ticket
    };
    let new = [send(11), send(12)]; // others
    match host.resume() {
        Err(ResumeError::Journal(JournalError::Moved(_))) => {}
        Err(error) => panic!("{error}"),
        Ok(mut process) => {
            for Command { cdb, token } in std::mem::take(&mut process.held) {
                println!("carries out command {}", cdb.as_bytes()[4]);
                process
                    .ring
                    .complete(token, &Response { status: GOOD, read_len: None, sense: None })
                    .unwrap();
            }
            process.ring.flush().unwrap();
            host.kernel.pump();
            let got = new.map(|ticket| host.kernel.take_result(ticket).map(|result| result.status));
            panic!("11 and 12 were answered {got:?}, and nobody has carried them out");
        }
    }
}

/// A chain of segments that ends nowhere must not be followed for ever.
#[test]
fn a_chain_of_segments_without_an_end_is_refused() {
    let damaged = |error| assert!(matches!(error, JournalError::Damaged(_)), "{error}");
    damaged(refused(|host| overwrite(host, 4096 + 64 + 20, &u32::MAX.to_ne_bytes())));
}

/// Any segment's length and successor, whichever command's it is.
#[test]
fn segments_beyond_the_ring_are_refused() {
    for first in 0..2 {
        let error = refused(|host| {
            for page in first..64 {
                overwrite(host, 4096 + 64 * 65536 + 8 * page, &[0xff, 0xff, 0xff, 0x7f]);
            }
        });
        assert!(matches!(error, JournalError::Damaged(_)), "from page {first} on: {error}");
    }
}

/// Any bytes anywhere: the journal is taken or refused, and nothing worse.
#[test]
fn a_damaged_journal_does_no_harm() {
    for seed in 0..400u64 {
        let mut host = Host::new(seed, model(8192, 24));
        let mut process = host.first();
        for _ in 0..60 {
            host.step(&mut process);
        }
        drop_in_order(process);
        for _ in 0..host.rng.random_range(1..6) {
            let at = match host.rng.random_range(0..4) {
                0 => host.rng.random_range(40..128),
                1 => 4096 + host.rng.random_range(0..64 * 24),
                2 => 4096 + 64 * 65536 + host.rng.random_range(0..8 * 24),
                _ => host.rng.random_range(0..4096 + 64 * 65536 + 8 * 24),
            };
            let byte = *[0u8, 1, 2, 0x7f, 0x80, 0xff].get(host.rng.random_range(0..6)).unwrap();
            let len = host.rng.random_range(1..9);
            overwrite(&host, at, &vec![byte; len]);
        }
        if let Ok(process) = host.resume() {
            drop_in_order(process);
        }
    }
}
