//! Devices whose process dies, and successors that go on from the journal: what initiators get, and what the disk holds.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{DISK, Rig, block, identity, model, read, served_on, until, verdict, write};
use handler_rbd::block::completions::{Completions, Waker};
use handler_rbd::block::memory::Memory;
use handler_rbd::block::{Backend, BackendError, Buffer, ByteRange, ErrorKind, Op, Request};
use handler_rbd::device::{Exit, IdentitySource, Message, Served};
use std::os::fd::OwnedFd;
use std::panic::panic_any;
use std::sync::Arc;
use uio_ring::crash::set_hook;
use uio_ring::mock::{Delivered, Direction, MockConfig, MockKernel, Ticket};
use uio_ring::{Doorbell, Entry, JournalFile, Mapping, Response, Resumed, Ring};

const GOOD: (u8, [u8; 3]) = (0, [0, 0, 0]);
const BUSY: (u8, [u8; 3]) = (8, [0, 0, 0]);
const MISCOMPARE: (u8, [u8; 3]) = (2, [0x0e, 0x1d, 0]);
const COPY_ABORTED: u8 = 0x0a;

/// Memory that outlives every "process".
struct Host {
    kernel: MockKernel,
    disk: Arc<Memory>,
    journal: OwnedFd,
}

fn source() -> IdentitySource {
    Arc::new(|| Ok(identity("11111111-2222-3333-4444-555555555555")))
}

impl Host {
    fn new() -> Self {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        Self {
            kernel: MockKernel::new(MockConfig { data_bytes: 16 << 20, ..model() }).unwrap(),
            disk: Arc::new(Memory::new(DISK)),
            journal: nix::sys::memfd::memfd_create(c"journal", flags).unwrap(),
        }
    }

    fn file(&self) -> JournalFile {
        JournalFile { file: self.journal.try_clone().unwrap(), incarnation: [1; 32] }
    }

    fn first(&self) -> Served {
        let (doorbell, mapping) = self.open();
        let mut ring = Ring::attach(doorbell, mapping).unwrap();
        ring.keep_journal(self.file()).unwrap();
        // A ring at its very start may have been reset, and is not gone on with.
        self.kernel.enqueue([0; 6], Direction::None);
        let Some(Ok(Entry::Command(first))) = ring.next() else { panic!("a command") };
        ring.complete(first.token, &Response { status: 0, read_len: None, sense: None }).unwrap();
        ring.flush().unwrap();
        self.kernel.pump();
        served_on(ring, self.disk.clone(), source())
    }

    fn successor(&self) -> Served {
        let (doorbell, mapping) = self.open();
        let Resumed { ring, commands, .. } = Ring::resume(doorbell, mapping, self.file()).unwrap();
        served_on(ring, self.disk.clone(), source()).with_recovered(commands)
    }

    fn open(&self) -> (Doorbell, Mapping) {
        let side = self.kernel.user_side().unwrap();
        (Doorbell::new(side.doorbell), Mapping::new(&side.memory, side.len).unwrap())
    }

    fn run(&self, served: Served) -> Rig {
        Rig::run(self.kernel.clone(), self.disk.clone(), served)
    }

    /// A process takes the commands, asks storage for `count` things, and dies. Storage does nothing of it: the client is
    /// fenced.
    fn dies_with(&self, commands: &[(&[u8], Direction)], count: usize) -> Vec<Ticket> {
        self.disk.hold();
        let rig = self.run(self.first());
        let sent = commands.iter().map(|(cdb, direction)| rig.send(cdb, direction.clone())).collect();
        rig.held(count);
        drop(self.open()); // its device hangs up: it does nothing more but wait for storage
        self.disk.fail(BackendError::new(ErrorKind::Fenced), |_| true);
        drop(rig);
        self.disk.recover();
        sent
    }

    /// Somebody writes to the disk, bypassing every device.
    fn put(&self, at: u64, bytes: &[u8]) {
        let done = Completions::new(1, Arc::new(Waker::new().unwrap()));
        let mut request = Request::new(done.clone());
        request.op = Op::Write(ByteRange { offset: at, len: bytes.len() as u64 });
        request.buffer = Buffer::Owned(bytes.to_vec());
        self.disk.submit(request);
        assert_eq!(done.pop().unwrap().result, Ok(()));
    }
}

#[test]
fn what_was_in_progress_is_carried_out_by_the_successor() {
    let host = Host::new();
    host.put(100 * 512, &[0xcc; 512]);
    let writes: Vec<_> = (0..8u8).map(|n| (write(n), block(n + 1))).collect();
    let mut commands: Vec<(&[u8], Direction)> =
        writes.iter().map(|(cdb, data)| (&cdb[..], data.clone())).collect();
    let read = read(100);
    commands.push((&read, Direction::In(512)));
    let sent = host.dies_with(&commands, 9);
    assert!(host.disk.snapshot()[..4096].iter().all(|&byte| byte == 0), "nothing was done");
    let later = host.kernel.enqueue(write(9), block(10)).ticket; // while nobody is there
    let rig = host.run(host.successor());
    for &ticket in sent.iter().take(8).chain([&later]) {
        assert_eq!(verdict(&rig.wait(ticket)), GOOD);
    }
    assert_eq!(rig.wait(sent[8]).data.unwrap(), [0xcc; 512]);
    for (n, found) in (1..=8u8).zip(host.disk.snapshot().chunks(512)) {
        assert_eq!(found, [n; 512]);
    }
    rig.clean();
}

#[test]
fn a_device_that_is_removed_before_its_successor_begins_is_just_closed() {
    let host = Host::new();
    let cdb = write(0);
    host.dies_with(&[(&cdb, block(1))], 1);
    let served = host.successor();
    host.kernel.unregister();
    assert_eq!(served.run(), Exit::Removed);
}

/// COMPARE AND WRITE of block 3: ones, then twos.
fn compare_and_write() -> ([u8; 16], Direction) {
    ([0x89, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0], Direction::Out([[1; 512], [2; 512]].concat()))
}

/// COMPARE AND WRITE of block 3, which holds ones, has looked at it and asked storage for the exchange when its process
/// dies; `meanwhile` came while it looked. `there` is what the block holds then.
fn dies_in_the_exchange(host: &Host, meanwhile: Option<(&[u8], Direction)>, there: u8) -> Ticket {
    let looks = meanwhile.as_ref().is_some_and(|(cdb, _)| cdb[0] == 0x89);
    let (cdb, data) = compare_and_write();
    host.put(3 * 512, &[1; 512]);
    host.disk.hold();
    let rig = host.run(host.first());
    let sent = rig.send(&cdb, data);
    rig.held(1);
    let others = usize::from(meanwhile.is_some());
    if let Some((cdb, data)) = meanwhile {
        rig.send(cdb, data);
    }
    rig.held(1 + others);
    assert!(host.disk.release(0)); // the look
    rig.held(1 + others);
    if looks {
        assert!(host.disk.release(0)); // the other's
        rig.held(2);
    }
    drop(host.open());
    host.disk.fail(BackendError::new(ErrorKind::Fenced), |_| true);
    drop(rig);
    host.disk.recover();
    host.put(3 * 512, &[there; 512]);
    sent
}

#[test]
fn compare_and_write_is_settled_by_what_its_blocks_hold() {
    for (there, expected, after) in [(1, GOOD, 2), (2, GOOD, 2), (7, BUSY, 7)] {
        let host = Host::new();
        let sent = dies_in_the_exchange(&host, None, there);
        let rig = host.run(host.successor());
        assert_eq!(verdict(&rig.wait(sent)), expected, "{there}");
        assert_eq!(host.disk.snapshot()[3 * 512], after, "{there}");
        rig.clean();
    }
}

/// Twos may be somebody else's lock.
#[test]
fn compare_and_write_is_left_open_if_others_were_at_its_blocks() {
    let (other, both) = compare_and_write();
    let same = write(3);
    for meanwhile in [(&same[..], block(2)), (&other[..], both)] {
        let host = Host::new();
        let sent = dies_in_the_exchange(&host, Some(meanwhile), 2);
        let rig = host.run(host.successor());
        assert_eq!(verdict(&rig.wait(sent)), BUSY);
        until(|| host.kernel.outstanding() == 0);
        rig.clean();
    }
}

#[test]
fn compare_and_write_that_had_only_looked_is_begun_anew() {
    for (there, expected, after) in [(1, GOOD, 2), (2, MISCOMPARE, 2), (7, MISCOMPARE, 7)] {
        let host = Host::new();
        let (cdb, data) = compare_and_write();
        host.put(3 * 512, &[1; 512]);
        let sent = host.dies_with(&[(&cdb, data)], 1);
        host.put(3 * 512, &[there; 512]);
        let rig = host.run(host.successor());
        assert_eq!(verdict(&rig.wait(sent[0])), expected, "{there}");
        assert_eq!(host.disk.snapshot()[3 * 512], after, "{there}");
        rig.clean();
    }
}

/// EXTENDED COPY of 8 blocks from 64 to 68, over itself.
fn copy() -> ([u8; 16], Direction) {
    let mut list = vec![0u8; 16 + 2 * 32 + 28];
    list[2..4].copy_from_slice(&64u16.to_be_bytes()); // two target descriptors
    list[8..12].copy_from_slice(&28u32.to_be_bytes());
    // NAA 6, 001405h, and the first 25 digits of the serial.
    let name =
        [0x60, 0x01, 0x40, 0x51, 0x11, 0x11, 0x11, 0x12, 0x22, 0x23, 0x33, 0x34, 0x44, 0x45, 0x55, 0x55];
    for target in [16, 48] {
        list[target..target + 8].copy_from_slice(&[0xe4, 0, 0, 0, 1, 3, 0, 16]);
        list[target + 8..target + 24].copy_from_slice(&name);
        list[target + 30..target + 32].copy_from_slice(&512u16.to_be_bytes()); // its last three bytes: block length
    }
    let segment = &mut list[80..];
    segment[0] = 2; // block to block
    segment[3] = 24;
    segment[7] = 1; // to the second
    segment[10..12].copy_from_slice(&8u16.to_be_bytes());
    segment[12..20].copy_from_slice(&64u64.to_be_bytes());
    segment[20..28].copy_from_slice(&68u64.to_be_bytes());
    let len = u32::try_from(list.len()).unwrap();
    let mut cdb = [0; 16];
    cdb[0] = 0x83;
    cdb[10..14].copy_from_slice(&len.to_be_bytes());
    (cdb, Direction::Out(list))
}

#[test]
fn a_copy_that_was_begun_is_aborted() {
    let host = Host::new();
    let (cdb, list) = copy();
    {
        let rig = host.run(host.first());
        host.disk.recover();
        assert_eq!(verdict(&rig.ask(&cdb, list.clone())), GOOD, "the list is right");
        rig.handle.send(Message::Stop);
        assert_eq!(rig.exit(), "Stopped");
    }
    let sent = host.dies_with(&[(&cdb, list)], 1);
    let rig = host.run(host.successor());
    let got = rig.wait(sent[0]);
    assert_eq!((got.status, got.sense[2]), (2, COPY_ABORTED));
    rig.clean();
}

/// A CDB, its data, and what its initiator may get.
type Sent = (Vec<u8>, Direction, &'static [(u8, [u8; 3])]);

/// What one initiator sends, one command after the other.
fn script() -> Vec<Sent> {
    let only_good: &[_] = &[GOOD];
    let data = |byte: u8, blocks: usize| Direction::Out(vec![byte; 512 * blocks]);
    let (compare, both) = compare_and_write();
    let mut unmap = vec![0u8; 24];
    unmap[..4].copy_from_slice(&[0, 22, 0, 16]);
    unmap[14..16].copy_from_slice(&20u16.to_be_bytes()); // LBA 20, 4 blocks
    unmap[19] = 4;
    vec![
        (write(0).to_vec(), data(0x11, 1), only_good),
        (write(3).to_vec(), data(1, 1), only_good),
        // WRITE AND VERIFY(10), BYTCHK 1: its data buffer is zeroed when it is done.
        (vec![0x2e, 2, 0, 0, 0, 8, 0, 0, 2, 0], data(0x22, 2), only_good),
        (vec![0x2a, 0, 0, 0, 0, 20, 0, 0, 8, 0], data(0x33, 8), only_good),
        (vec![0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Direction::Out(unmap), only_good),
        // ORWRITE(16) on block 0.
        (vec![0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], data(0x44, 1), only_good),
        // WRITE SAME(10) of 10 blocks.
        (vec![0x41, 0, 0, 0, 0, 40, 0, 0, 10, 0], data(0x66, 1), only_good),
        // MODE SELECT(6) of the caching page as it is.
        (vec![0x00, 0, 0, 0, 0, 0], Direction::None, only_good),
        (vec![0x12, 0, 0, 0, 96, 0], Direction::In(96), only_good),
        (compare.to_vec(), both, only_good),
        // SYNCHRONIZE CACHE(10)
        (vec![0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Direction::None, only_good),
    ]
}

struct Died;

/// The thread dies, as by SIGKILL, at the `left`th crash point; whether it did.
fn run_until(served: Served, mut left: usize) -> std::thread::JoinHandle<bool> {
    std::thread::spawn(move || {
        set_hook(Some(Box::new(move |_| {
            left -= 1;
            if left == 0 {
                panic_any(Died);
            }
        })));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| served.run()));
        set_hook(None);
        ended.is_err() || format!("{ended:?}").contains("panic")
    })
}

fn check_disk(disk: &Memory) {
    let disk = disk.snapshot();
    let is = |lba: usize, blocks: usize, byte: u8| {
        assert!(disk[lba * 512..(lba + blocks) * 512].iter().all(|&found| found == byte), "block {lba}");
    };
    is(0, 1, 0x11 | 0x44);
    is(3, 1, 2);
    is(8, 2, 0x22);
    is(20, 4, 0);
    is(24, 4, 0x33);
    is(40, 10, 0x66);
}

/// Each crash point of each command of a script, and a successor that carries on.
#[test]
fn a_death_anywhere_costs_no_error_and_no_byte() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Died>() {
            eprintln!("{info}");
        }
    }));
    let mut deaths = 0;
    for left in 1.. {
        let before = deaths;
        let host = Host::new();
        let _pump = host.kernel.spawn();
        let mut process = Some(run_until(host.first(), left));
        for (n, (cdb, direction, allowed)) in script().into_iter().enumerate() {
            let ticket = host.kernel.enqueue(&cdb, direction).ticket;
            let got = answer(&host, ticket, &mut process, &mut deaths);
            assert!(allowed.contains(&verdict(&got)), "command {n}, crash point {left}: {:?}", verdict(&got));
        }
        check_disk(&host.disk);
        assert_eq!(host.kernel.faults(), []);
        deaths += usize::from(end(&host, process.take()));
        if deaths == before {
            break;
        }
    }
    std::panic::set_hook(quiet);
    assert!(deaths > 100, "{deaths}");
}

/// The answer to a command, by whoever gives it.
fn answer(
    host: &Host,
    ticket: Ticket,
    process: &mut Option<std::thread::JoinHandle<bool>>,
    deaths: &mut usize,
) -> Delivered {
    let mut found = None;
    until(|| {
        found = host.kernel.result(ticket);
        if found.is_none() && process.as_ref().is_some_and(std::thread::JoinHandle::is_finished) {
            assert!(process.take().unwrap().join().unwrap(), "it ended by itself");
            *deaths += 1;
            *process = Some(run_until(host.successor(), usize::MAX));
        }
        found.is_some()
    });
    found.unwrap()
}

/// While the successor looks, another one of the same is carried out. Only one of them may be told that it was the one.
#[test]
fn of_two_that_exchange_the_same_one_is_told_good() {
    let host = Host::new();
    let sent = dies_in_the_exchange(&host, None, 1); // it had looked, and not yet exchanged
    host.disk.hold();
    let rig = host.run(host.successor());
    rig.held(1); // its look
    let (cdb, data) = compare_and_write();
    let other = rig.send(&cdb, data);
    rig.held(2); // the other's look
    assert!(host.disk.release(1));
    rig.held(2); // the other's exchange
    assert!(host.disk.release(1));
    assert_eq!(verdict(&rig.wait(other)), GOOD);
    assert!(host.disk.release(0)); // finds what the other has written
    assert_eq!(verdict(&rig.wait(sent)), BUSY);
    host.disk.release_all();
    rig.clean();
}

/// Ends the last process; whether one has died in the course of this.
fn end(host: &Host, process: Option<std::thread::JoinHandle<bool>>) -> bool {
    let process = process.unwrap();
    let died = process.is_finished();
    host.kernel.unregister();
    process.join().unwrap() || died
}
