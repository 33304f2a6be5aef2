//! The device around the ring: events, block, reset, reopen, removal, threads.

use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::AsFd;
use std::time::Duration;
use uio_ring::mock::Reset;

fn ready(user: &User) -> PollFlags {
    let mut fds = [PollFd::new(user.doorbell.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    fds[0].revents().unwrap()
}

#[test]
fn events_coalesce_into_a_counter() {
    let (kernel, user) = device(small());
    assert_eq!(ready(&user), PollFlags::empty());
    for _ in 0..3 {
        kernel.enqueue(TUR, Direction::None);
    }
    assert_eq!(ready(&user), PollFlags::POLLIN);
    assert_eq!((user.read_event(), kernel.events()), (3, 3));
    assert_eq!(ready(&user), PollFlags::empty());
    kernel.enqueue(TUR, Direction::None);
    assert_eq!(user.read_event(), 4);
}

#[test]
fn every_event_is_an_edge() {
    let (kernel, user) = device(small());
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    epoll.add(&user.doorbell, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)).unwrap();
    let edges = || epoll.wait(&mut [EpollEvent::empty(); 4], EpollTimeout::ZERO).unwrap();
    assert_eq!(edges(), 0);
    for _ in 0..3 {
        kernel.enqueue(TUR, Direction::None);
        assert_eq!(edges(), 1); // though nobody read the one before
        assert_eq!(edges(), 0);
    }
    assert_eq!(user.read_event(), 3);
}

#[test]
fn plugged_device_notifies_once() {
    let (kernel, user) = device(small());
    kernel.plug();
    for _ in 0..3 {
        kernel.enqueue(TUR, Direction::None);
    }
    assert_eq!((ready(&user), kernel.events()), (PollFlags::empty(), 0));
    kernel.unplug();
    assert_eq!(user.read_event(), 1);
}

#[test]
fn work_queued_before_open_is_not_reported() {
    let kernel = MockKernel::new(small()).unwrap();
    let sent = kernel.enqueue(TUR, Direction::None);
    let user = User::open(&kernel);
    assert_eq!(ready(&user), PollFlags::empty());
    user.finish(&kernel, 1, OK);
    assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
}

#[test]
fn successor_finds_ring_and_data_as_they_were() {
    let (kernel, first) = device(small());
    let a = kernel.enqueue(TUR, Direction::None);
    let b = kernel.enqueue(WRITE10, Direction::Out(vec![7; 5000]));
    first.complete(1, OK); // published, never kicked
    drop(first);
    let second = User::open(&kernel);
    assert_eq!(second.tail(), 120);
    let commands = second.commands();
    assert_eq!(second.read_data(&commands[0]), vec![7; 5000]);
    second.finish(&kernel, commands[0].id, OK);
    assert_eq!((status(&kernel, a.ticket), status(&kernel, b.ticket)), (Some(GOOD), Some(GOOD)));
    clean(&kernel);
}

#[test]
fn naive_resume_after_out_of_order_completes_a_newer_command() {
    // kernel-tcmu.md 8.3, the reason for the journal.
    let (kernel, first) = device(small());
    let a = kernel.enqueue(TUR, Direction::None);
    let b = kernel.enqueue(TUR, Direction::None);
    kernel.enqueue(TUR, Direction::None);
    first.finish(&kernel, 3, OK); // C in A's slot
    let d = kernel.enqueue(WRITE10, Direction::Out(vec![1; 512]));
    let second = User::open(&kernel);
    for entry in second.commands() {
        second.complete(entry.id, OK);
    }
    second.kick();
    kernel.pump();
    assert_eq!(status(&kernel, b.ticket), Some(GOOD));
    assert_eq!(status(&kernel, d.ticket), Some(GOOD)); // by C's stale slot
    assert_eq!(kernel.faults(), [Fault::Broken { cmd_id: 3, slot: 360, kept: false }]);
    assert_eq!(kernel.result(a.ticket), None);
}

#[test]
fn block_answers_busy_and_takes_completions_in() {
    let (kernel, user) = device(small());
    let done = kernel.enqueue(TUR, Direction::None);
    let open = kernel.enqueue(READ10, Direction::In(8 * BLOCK));
    let waits = kernel.enqueue(READ10, Direction::In(BLOCK));
    user.complete(1, OK); // no kick
    kernel.block(true);
    assert_eq!(status(&kernel, done.ticket), Some(GOOD));
    assert_eq!(status(&kernel, waits.ticket), Some(BUSY));
    let new = kernel.enqueue(TUR, Direction::None);
    assert_eq!((new.place, status(&kernel, new.ticket)), (Place::Answered, Some(BUSY)));
    user.finish(&kernel, 2, OK);
    assert_eq!(status(&kernel, open.ticket), Some(GOOD));
    kernel.block(false);
    id_of(kernel.enqueue(TUR, Direction::None));
    clean(&kernel);
}

#[test]
fn reset_answers_everything_and_starts_over() {
    for (reset, expected) in [(Reset::Retry, (BUSY, 0, 0, 0)), (Reset::Fail, (CHECK, 2, 8, 0))] {
        let (kernel, user) = device(small());
        let live = kernel.enqueue(READ10, Direction::In(4 * BLOCK));
        let expired = kernel.enqueue(READ10, Direction::In(4 * BLOCK));
        let waits = kernel.enqueue(READ10, Direction::In(BLOCK));
        kernel.expire(expired.ticket);
        let events = kernel.events();
        kernel.reset(reset);
        assert_eq!(sense(&kernel.result(live.ticket).unwrap()), expected);
        // No event for the reset; one for the command that waited and is now the first.
        assert_eq!(kernel.events(), events + 1);
        assert_eq!(kernel.cursors(), Cursors { head: 128, tail: 0, cleaned: 0 });
        assert_eq!(user.commands()[0].iovs, [(4096, 4096)]);
        user.finish(&kernel, 1, OK);
        assert_eq!(status(&kernel, waits.ticket), Some(GOOD));
        clean(&kernel);
    }
}

#[test]
fn reset_heals_a_broken_ring() {
    let (kernel, user) = device(small());
    let hung = kernel.enqueue(TUR, Direction::None);
    user.finish(&kernel, 9, OK);
    assert!(kernel.is_broken());
    let failed = kernel.enqueue(TUR, Direction::None);
    assert_eq!(sense(&kernel.result(failed.ticket).unwrap()), (CHECK, 2, 8, 0));
    assert_eq!(kernel.result(hung.ticket), None);
    kernel.reset(Reset::Retry);
    assert_eq!(status(&kernel, hung.ticket), Some(BUSY));
    let sent = kernel.enqueue(TUR, Direction::None);
    user.finish(&kernel, 1, OK);
    assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
    assert_eq!(kernel.faults().len(), 1);
}

#[test]
fn future_entries_are_skipped_like_notifications() {
    let (kernel, user) = device(MockConfig::default());
    for op in 3..=7 {
        assert!(kernel.insert_unknown_op(op, 8 * usize::from(op)));
    }
    let sent = kernel.enqueue(TUR, Direction::None);
    let found: Vec<_> = user.entries().iter().map(|entry| (entry.op, entry.len)).collect();
    assert_eq!(found, [(3, 24), (4, 32), (5, 40), (6, 48), (7, 56), (1, 120)]);
    user.finish(&kernel, 1, OK);
    assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
    clean(&kernel);
}

#[test]
fn removal_hangs_up() {
    let (kernel, user) = device(small());
    kernel.enqueue(TUR, Direction::None);
    kernel.unregister();
    assert!(ready(&user).contains(PollFlags::POLLIN | PollFlags::POLLHUP));
    assert_eq!((&user.doorbell).read(&mut [0; 4]).unwrap(), 0);
    assert!((&user.doorbell).write(&[0; 4]).is_err());
    assert_eq!(user.commands().len(), 1); // the mapping stays
}

#[test]
fn background_pump_serves_a_device_thread() {
    let (kernel, user) = device(MockConfig { seed: Some(7), ..MockConfig::default() });
    let pump = kernel.spawn();
    let handler = std::thread::spawn(move || {
        let mut done = 0;
        while done < 500 {
            user.read_event();
            while user.tail() != user.head() {
                let entry = user.entry(user.tail());
                if entry.op == 1 {
                    user.write_data(&entry, &[0x77; 512]);
                    done += 1;
                    user.complete(entry.id, OK);
                } else {
                    user.skip();
                }
            }
            user.kick();
        }
    });
    let mut expected = vec![];
    for round in 0..500 {
        let sent = kernel.enqueue(READ10, Direction::In(512));
        expected.push(sent.ticket);
        if round % 10 == 9 {
            for ticket in expected.drain(..) {
                let delivered = kernel.wait(ticket, Duration::from_secs(10)).unwrap();
                assert_eq!(delivered.data, Some(vec![0x77; 512]));
            }
        }
    }
    handler.join().unwrap();
    drop(pump);
    clean(&kernel);
}

#[test]
fn wait_gives_up() {
    let (kernel, user) = device(small());
    let sent = kernel.enqueue(TUR, Direction::None);
    assert_eq!(kernel.wait(sent.ticket, Duration::from_millis(1)), None);
    user.finish(&kernel, 5, OK);
    assert_eq!(kernel.wait(sent.ticket, Duration::from_secs(3600)), None); // broken: no use waiting
}

#[test]
fn a_kick_before_death_is_not_lost() {
    let (kernel, first) = device(small());
    let sent = kernel.enqueue(TUR, Direction::None);
    first.complete(1, OK);
    first.kick();
    drop(first);
    let _second = User::open(&kernel);
    assert_eq!(status(&kernel, sent.ticket), Some(GOOD));
}

#[test]
fn reset_drops_waiting_notifications() {
    let (kernel, user) = device(small());
    let sent: Vec<_> = (0..33).map(|_| kernel.enqueue(TUR, Direction::None).ticket).collect();
    kernel.abort(sent[3]);
    kernel.reset(Reset::Retry);
    assert_eq!((status(&kernel, sent[2]), status(&kernel, sent[3])), (Some(BUSY), Some(TASK_ABORTED)));
    kernel.enqueue(TUR, Direction::None);
    user.finish(&kernel, 1, OK);
    assert!(user.entries().is_empty());
    clean(&kernel);
}
