//! Processes that die at any place, and successors that go on from the journal, against the model of the kernel.
//!
//! A "process" here is a value that is dropped by a panic at a crash point: what it had in memory is gone, what it had
//! stored in the ring and in the journal is there. Each command carries a number from which its data and its answer are
//! made, so an answer that reached another command is seen; the model finds double and unknown completions.
#![allow(clippy::unwrap_used)]

mod doubt;

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use uio_ring::crash::{POINTS, set_hook};
use uio_ring::mock::{Direction, MockConfig, MockKernel, Place, Ticket};
use uio_ring::{
    Command, Doorbell, Entry, JournalError, JournalFile, Mapping, Response, ResumeError, Resumed, Ring, Stage,
};

const GOOD: u8 = 0;
const BUSY: u8 = 8;
const BLOCK: usize = 4096;

fn bytes_of(number: u32, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize * 31 + at / 7 + at * 5).to_le_bytes()[0]).collect()
}

/// What a process leaves by dying.
struct Died;

struct Host {
    kernel: MockKernel,
    journal: OwnedFd,
    sent: BTreeMap<u32, (Ticket, usize, bool)>,
    number: u32,
    rng: TestRng,
    answered: usize,
    out_of_order: usize,
}

struct Process {
    ring: Ring,
    held: Vec<Command>,
}

fn file(journal: &OwnedFd, whose: u8) -> JournalFile {
    JournalFile { file: journal.try_clone().unwrap(), incarnation: [whose; 32] }
}

fn parts(kernel: &MockKernel) -> (Doorbell, Mapping) {
    let side = kernel.user_side().unwrap();
    (Doorbell::new(side.doorbell), Mapping::new(&side.memory, side.len).unwrap())
}

impl Host {
    fn new(seed: u64, config: MockConfig) -> Self {
        let memory =
            nix::sys::memfd::memfd_create(c"journal", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            kernel: MockKernel::new(config).unwrap(),
            journal: memory,
            sent: BTreeMap::new(),
            number: 0,
            rng: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            answered: 0,
            out_of_order: 0,
        }
    }

    fn first(&self) -> Process {
        let (doorbell, mapping) = parts(&self.kernel);
        let mut ring = Ring::attach(doorbell, mapping).unwrap();
        ring.keep_journal(file(&self.journal, 7)).unwrap();
        Process { ring, held: Vec::new() }
    }

    /// The same, with a command behind it.
    fn first_moved(&mut self) -> Process {
        let mut process = self.first();
        self.enqueue();
        let Some(Ok(Entry::Command(command))) = process.ring.next() else { panic!("a command") };
        self.complete(&mut process.ring, command);
        process.ring.flush().unwrap();
        self.kernel.pump();
        self.check();
        process
    }

    fn resume(&self) -> Result<Process, ResumeError> {
        let (doorbell, mapping) = parts(&self.kernel);
        let Resumed { ring, commands, .. } = Ring::resume(doorbell, mapping, file(&self.journal, 7))?;
        ring.kick().unwrap();
        Ok(Process { ring, held: commands.into_iter().map(|found| found.command).collect() })
    }

    fn enqueue(&mut self) {
        self.number += 1;
        let number = self.number;
        let len = [0, 512, BLOCK, 3 * BLOCK, 5 * BLOCK + 512][self.rng.random_range(0..5)];
        let write = self.rng.random_bool(0.5) && len > 0;
        let mut cdb = [0; 16];
        cdb[0] = if write { 0x8a } else { 0x88 };
        cdb[1..5].copy_from_slice(&number.to_be_bytes());
        let direction = match (len, write) {
            (0, _) => Direction::None,
            (_, true) => Direction::Out(bytes_of(number, len)),
            (_, false) => Direction::In(len),
        };
        let sent = self.kernel.enqueue(cdb, direction);
        assert_ne!(sent.place, Place::Answered);
        self.sent.insert(number, (sent.ticket, len, write));
    }

    /// Something a process does. May panic with [`Died`].
    fn step(&mut self, process: &mut Process) {
        match self.rng.random_range(0..10) {
            0..3 => self.enqueue(),
            3..6 => {
                for _ in 0..self.rng.random_range(1..6) {
                    match process.ring.next() {
                        Some(entry) => match entry.unwrap() {
                            Entry::Command(command) => process.held.push(command),
                            Entry::Tmr(_) => {}
                        },
                        None => break,
                    }
                }
            }
            6..9 if !process.held.is_empty() => {
                let which = self.rng.random_range(0..process.held.len());
                self.out_of_order += usize::from(which != 0);
                let command = process.held.remove(which);
                self.complete(&mut process.ring, command);
            }
            _ => {
                process.ring.flush().unwrap();
                if self.rng.random_bool(0.7) {
                    self.kernel.pump();
                }
            }
        }
    }

    fn complete(&mut self, ring: &mut Ring, command: Command) {
        let number = u32::from_be_bytes(command.cdb.as_bytes()[1..5].try_into().unwrap());
        let (_, len, write) = self.sent[&number];
        let data = command.token.data();
        assert_eq!(data.len(), len, "command {number}");
        if write {
            let mut got = vec![0; len];
            data.read(0, &mut got);
            assert_eq!(got, bytes_of(number, len), "data of command {number}");
        } else {
            data.write(0, &bytes_of(number, len));
        }
        ring.complete(command.token, &Response { status: GOOD, read_len: None, sense: None }).unwrap();
        self.answered += 1;
    }

    /// Whatever has an outcome has its own.
    fn check(&mut self) {
        let kernel = self.kernel.clone();
        self.sent.retain(|&number, &mut (ticket, len, write)| {
            let Some(got) = kernel.take_result(ticket) else { return true };
            assert_eq!(got.status, GOOD, "command {number}");
            if !write && len > 0 {
                assert_eq!(got.data, Some(bytes_of(number, len)), "command {number}");
            }
            false
        });
        assert_eq!(kernel.faults(), []);
    }

    /// Runs a process until it dies at the `left`th crash point, or for so many steps; the point, if it died.
    fn live(&mut self, mut process: Process, left: usize, steps: usize) -> Option<&'static str> {
        let died_at = Rc::new(Cell::new(None));
        let (seen, mut left) = (died_at.clone(), left);
        set_hook(Some(Box::new(move |point| {
            left -= 1;
            if left == 0 {
                seen.set(Some(point));
                panic_any(Died);
            }
        })));
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..steps {
                self.step(&mut process);
            }
            process
        }));
        set_hook(None);
        match ended {
            // In order, but with whatever it held: as SIGKILL between two calls.
            Ok(Process { mut ring, held }) => held.into_iter().for_each(|command| ring.forget(command.token)),
            Err(panic) => {
                if !panic.is::<Died>() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
        died_at.get()
    }

    fn finish(&mut self, mut process: Process) {
        for _ in 0..10_000 {
            for entry in process.ring.by_ref() {
                if let Entry::Command(command) = entry.unwrap() {
                    process.held.push(command);
                }
            }
            for command in std::mem::take(&mut process.held) {
                self.complete(&mut process.ring, command);
            }
            process.ring.flush().unwrap();
            self.kernel.pump();
            self.check();
            if self.sent.is_empty() {
                break;
            }
        }
        assert_eq!(self.sent.len(), 0);
        assert_eq!(self.kernel.outstanding(), 0);
        assert_eq!(process.ring.outstanding(), 0);
        self.kernel.verify().unwrap();
    }
}

fn model(ring_bytes: usize, blocks: usize) -> MockConfig {
    MockConfig { ring_bytes, data_bytes: blocks * BLOCK, single_threaded: false, ..MockConfig::default() }
}

/// A panic that says nothing: these are many.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Died>() {
            before(info);
        }
    }));
    let out = run();
    drop(std::panic::take_hook());
    out
}

/// kill -9 at every place, hundreds of times, at rings so small that they wrap and fill.
#[test]
fn every_command_is_answered_once_whoever_dies_where() {
    let (mut deaths, mut answered, mut out_of_order) = (BTreeMap::new(), 0, 0);
    quietly(|| {
        for (seed, ring_bytes) in (0..60).zip([4096, 8192, 65536].into_iter().cycle()) {
            let mut host = Host::new(seed, model(ring_bytes, 24));
            let mut process = host.first();
            for _ in 0..40 {
                let (left, steps) = (host.rng.random_range(1..80), host.rng.random_range(5..120));
                let at = host.live(process, left, steps);
                *deaths.entry(at.unwrap_or("between calls")).or_insert(0) += 1;
                host.check();
                process =
                    host.resume().unwrap_or_else(|error| panic!("seed {seed}, died at {at:?}: {error}"));
            }
            host.finish(process);
            answered += host.answered;
            out_of_order += host.out_of_order;
        }
    });
    for point in POINTS {
        assert!(deaths.get(point).is_some_and(|&times| times >= 5), "{point}: {deaths:?}");
    }
    assert!(answered > 10_000 && out_of_order > 5_000, "{answered} {out_of_order}");
}

fn drop_in_order(Process { mut ring, held }: Process) {
    held.into_iter().for_each(|command| ring.forget(command.token));
}

/// A hand-over in order is a journal in which nothing is in progress.
#[test]
fn a_successor_in_order_finds_nothing_in_progress() {
    let mut host = Host::new(1, model(8192, 24));
    let mut process = host.first();
    for _ in 0..300 {
        host.step(&mut process);
    }
    for command in std::mem::take(&mut process.held) {
        host.complete(&mut process.ring, command);
    }
    process.ring.flush().unwrap();
    host.enqueue(); // waits for the successor
    drop(process);
    let resumed = host.resume().unwrap();
    assert!(resumed.held.is_empty());
    host.finish(resumed);
}

/// A command over which every process dies must not be tried for ever, whatever else is answered.
#[test]
fn successors_that_die_over_the_same_command_are_limited() {
    let mut host = Host::new(5, model(8192, 24));
    let mut process = host.first();
    host.enqueue();
    let Some(Ok(Entry::Command(deadly))) = process.ring.next() else { panic!("a command") };
    process.held.push(deadly);
    for _ in 0..32 {
        host.enqueue();
        let Some(Ok(Entry::Command(other))) = process.ring.next() else { panic!("a command") };
        host.complete(&mut process.ring, other);
        process.ring.flush().unwrap();
        host.kernel.pump();
        host.check();
        drop_in_order(process);
        process = host.resume().unwrap();
        assert_eq!(process.held.len(), 1);
    }
    drop_in_order(process);
    assert!(matches!(host.resume(), Err(ResumeError::Journal(JournalError::Hopeless(32)))));
    assert_eq!(host.answered, 32);
}

#[test]
fn what_was_begun_and_when_is_known() {
    let mut host = Host::new(6, model(8192, 24));
    let mut process = host.first_moved();
    process.ring.rested(1000);
    host.enqueue();
    let Some(Ok(Entry::Command(one))) = process.ring.next() else { panic!("a command") };
    process.ring.reached(one.token.id(), Stage::Begun);
    process.ring.rested(2000);
    host.enqueue();
    let Some(Ok(Entry::Command(two))) = process.ring.next() else { panic!("a command") };
    process.held.extend([one, two]);
    process.ring.rested(3000);
    drop_in_order(process);
    let (doorbell, mapping) = parts(&host.kernel);
    let Resumed { mut ring, commands, waiting, queued_after } =
        Ring::resume(doorbell, mapping, file(&host.journal, 7)).unwrap();
    assert_eq!(commands.iter().map(|found| found.stage).collect::<Vec<_>>(), [Stage::Begun, Stage::New]);
    assert_eq!((queued_after, waiting.len()), (Some(1000), 0));
    // The id is used again by a command that has not begun.
    for found in commands {
        host.complete(&mut ring, found.command);
    }
    ring.flush().unwrap();
    host.kernel.pump();
    host.enqueue();
    let Some(Ok(Entry::Command(three))) = ring.next() else { panic!("a command") };
    ring.forget(three.token);
    host.enqueue(); // nobody consumes it
    let last = host.number;
    drop(ring);
    let (doorbell, mapping) = parts(&host.kernel);
    let resumed = Ring::resume(doorbell, mapping, file(&host.journal, 7)).unwrap();
    assert_eq!(resumed.commands.iter().map(|found| found.stage).collect::<Vec<_>>(), [Stage::New]);
    assert_eq!(resumed.queued_after, Some(3000));
    let waiting: Vec<_> = resumed.waiting.iter().map(|cdb| cdb.as_bytes()[1..5].to_vec()).collect();
    assert_eq!(waiting, [last.to_be_bytes()]);
    resumed.commands.into_iter().fold(resumed.ring, |mut ring, found| {
        ring.forget(found.command.token);
        ring
    });
}
