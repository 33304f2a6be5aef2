//! The ring, driven by a list of calls, against the model of the kernel and an oracle that only remembers.
//!
//! Each command carries a number in its CDB; everything that is sent or answered for it is a function of
//! that number, so an answer or a byte that reached the wrong command is seen. What an initiator may get is
//! the answer that user space gave for that number, or, if the test let the kernel step in (timer, task
//! management, block, reset), the kernel's.
//!
//! The calls are chosen by `tests/property.rs`, and by the fuzzer's harness (`tests/harness` of the workspace).
#![allow(clippy::unwrap_used)]

mod call;

pub(crate) use call::{Answer, Dir, Op, Pick, SeenBy};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use uio_ring::mock::{Delivered, Direction, MockConfig, MockKernel, Place, Reset, Ticket};
use uio_ring::{Doorbell, Entry, Mapping, Response, Ring, RingError, Token};

pub(crate) const BLOCK: usize = 4096;
const GOOD: u8 = 0x00;
const CHECK: u8 = 0x02;
pub(crate) const BUSY: u8 = 0x08;
pub(crate) const TASK_SET_FULL: u8 = 0x28;
const TASK_ABORTED: u8 = 0x40;
/// SENSE KEY, ASC, ASCQ of the kernel's own CHECK CONDITION.
const COMMUNICATION_FAILURE: [u8; 3] = [0x02, 0x08, 0x00];
/// The sense of a command whose token was dropped.
const LOST: [u8; 96] = [0x44; 96];

/// Bytes that belong to one command and one direction only.
fn bytes_of(number: u32, salt: u32, len: usize) -> Vec<u8> {
    let mut word = (number.wrapping_mul(0x9e37_79b9) ^ salt.wrapping_mul(0x85eb_ca6b)) | 1;
    let next = |_| {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        word.to_le_bytes()[1]
    };
    (0..len).map(next).collect()
}

const TO_DEVICE: u32 = 1;
const FROM_DEVICE: u32 = 2;
const SENSE: u32 = 3;

/// One command as the oracle remembers it.
#[derive(Debug)]
struct Sent {
    ticket: Ticket,
    dir: Dir,
    len: usize,
    /// User space has taken it from the ring.
    consumed: bool,
    /// The answer that user space gave.
    answer: Option<Delivered>,
    /// That answer is before `cmd_tail`.
    published: bool,
    aborted: bool,
    /// The outcome has been seen and checked.
    settled: bool,
}

struct Held {
    number: u32,
    token: Token,
}

pub(crate) struct Run {
    kernel: MockKernel,
    ring: Ring,
    sent: BTreeMap<u32, Sent>,
    held: Vec<Held>,
    /// Commands whose tokens were dropped and that are not answered yet.
    lost: Vec<u32>,
    /// Drops a token, which panics in debug builds.
    lose: fn(Token),
    tmrs: VecDeque<(u8, Vec<u16>)>,
    notified: bool,
    /// The model wants nothing unpublished when it looks, and finds more in return.
    settles: bool,
    capacity: usize,
    kicks: u64,
    unpumped: u32,
}

impl Run {
    pub(crate) fn new(config: MockConfig, lose: fn(Token)) -> Self {
        let kernel = MockKernel::new(config.clone()).unwrap();
        let ring = attach(&kernel);
        assert_eq!(ring.features().read_len, config.flags & 2 != 0);
        Self {
            kernel,
            ring,
            sent: BTreeMap::new(),
            held: vec![],
            lost: vec![],
            lose,
            tmrs: VecDeque::new(),
            notified: config.tmr_notification && config.flags & 4 != 0,
            settles: config.single_threaded,
            capacity: config.data_bytes,
            kicks: 0,
            unpumped: 0,
        }
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::Enqueue { opcode, dir, len } => self.enqueue(*opcode, *dir, *len),
            Op::Consume { at_most } => self.consume(*at_most).unwrap(),
            Op::Complete { which, answer } if !self.held.is_empty() => {
                self.complete(which.index(self.held.len()), *answer);
            }
            Op::Lose(which) if !self.held.is_empty() => self.lose(which.index(self.held.len())),
            Op::Complete { .. } | Op::Lose(_) => {}
            Op::Flush => self.flush().unwrap(),
            Op::Pump => self.pump(),
            Op::KernelLooks => self.kernel.kick(),
            Op::Expire(which) => self.expire(*which),
            Op::Tmr { kind, which } => self.tmr(*kind, which),
            Op::Unknown { op, len } => drop(self.kernel.insert_unknown_op(*op, *len)),
            Op::Block => self.block(),
            Op::Unblock => self.kernel.block(false),
            Op::Reset { retry, seen_by } => self.reset(*retry, *seen_by),
            Op::Plug => self.kernel.plug(),
            Op::Unplug => self.kernel.unplug(),
            Op::HandOver => self.hand_over(),
        }
        self.check();
    }

    fn enqueue(&mut self, opcode: u8, dir: Dir, len: usize) {
        let number = u32::try_from(self.sent.len()).unwrap() + 1;
        let len = len.min(self.capacity / 2 / BLOCK * BLOCK); // also in both directions
        let mut cdb = vec![0; 32];
        cdb[0] = opcode;
        cdb[1..5].copy_from_slice(&number.to_be_bytes());
        cdb[7] = if opcode == 0x7f { 24 } else { 0 };
        let out = || bytes_of(number, TO_DEVICE, len);
        let direction = match dir {
            Dir::None => Direction::None,
            Dir::Out => Direction::Out(out()),
            Dir::In => Direction::In(len),
            Dir::Bidi => Direction::Bidi { out: out(), in_len: len },
        };
        let sent = self.kernel.enqueue(cdb, direction);
        let settled = sent.place == Place::Answered;
        if settled {
            // Only a blocked device refuses: everything here fits, and waits if it must.
            assert_eq!(self.kernel.result(sent.ticket).unwrap().status, BUSY);
        }
        let (consumed, answer, published, aborted) = (false, None, false, false);
        let ticket = sent.ticket;
        self.sent.insert(number, Sent { ticket, dir, len, consumed, answer, published, aborted, settled });
    }

    fn consume(&mut self, at_most: usize) -> Result<(), RingError> {
        for _ in 0..at_most {
            match self.ring.next().transpose()? {
                None => break,
                Some(Entry::Tmr(tmr)) => {
                    let (kind, ids) = self.tmrs.pop_front().expect("a notification nobody asked for");
                    assert_eq!(tmr.function, kind);
                    assert!(ids.iter().all(|&id| tmr.commands.iter().any(|found| found.0 == id)));
                }
                Some(Entry::Command(command)) => {
                    let cdb = command.cdb.as_bytes();
                    let number = u32::from_be_bytes(cdb[1..5].try_into().unwrap());
                    let sent = self.sent.get_mut(&number).expect("a command that was sent");
                    assert!(!sent.consumed, "command {number} was consumed twice");
                    sent.consumed = true;
                    let data = command.token.data();
                    assert_eq!(data.len(), if sent.dir == Dir::None { 0 } else { sent.len });
                    self.held.push(Held { number, token: command.token });
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, which: usize, answer: Answer) {
        let Held { number, token } = self.held.swap_remove(which);
        let sent = self.sent.get_mut(&number).unwrap();
        if matches!(sent.dir, Dir::Out | Dir::Bidi) {
            let mut got = vec![0; sent.len + 1];
            assert_eq!(token.data().read(0, &mut got), sent.len);
            got.pop();
            assert_eq!(got, bytes_of(number, TO_DEVICE, sent.len), "data of command {number}");
        }
        let reads = sent.dir == Dir::In;
        let data = if reads { bytes_of(number, FROM_DEVICE, sent.len) } else { vec![] };
        let sense: [u8; 96] = bytes_of(number, SENSE, 96).try_into().unwrap();
        let full = u32::try_from(sent.len).unwrap();
        let mut given = Delivered { status: GOOD, sense: [0; 96], data: None, resid: 0 };
        let mut read_len = None;
        match answer {
            Answer::Good => {
                write_in_pieces(&token, &data);
                given.data = reads.then_some(data);
            }
            Answer::Short(percent) => {
                let part = data.len() * percent / 100;
                read_len = u32::try_from(part).ok().and_then(NonZeroU32::new);
                if self.ring.features().read_len && read_len.is_some() {
                    write_in_pieces(&token, &data[..part]);
                    given.resid = full - u32::try_from(part).unwrap();
                    given.data = Some(data[..part].to_vec());
                } else {
                    read_len = None;
                    if reads {
                        let mut zeroed = data[..part].to_vec();
                        zeroed.resize(data.len(), 0);
                        assert_eq!(token.data().write(0, &data[..part]), part);
                        token.data().zero_from(part);
                        given.data = Some(zeroed);
                    }
                }
            }
            Answer::Sense => (given.status, given.sense) = (CHECK, sense),
            Answer::Status(status) => given.status = status,
        }
        let sense = (given.status == CHECK).then_some(&sense);
        let status = given.status;
        sent.answer = Some(given);
        self.ring.complete(token, &Response { status, read_len, sense }).unwrap();
    }

    fn lose(&mut self, which: usize) {
        let Held { number, token } = self.held.swap_remove(which);
        (self.lose)(token);
        self.lost.push(number);
    }

    fn answer_lost(&mut self) -> Result<(), RingError> {
        let answered =
            self.ring.answer_lost(&Response { status: CHECK, read_len: None, sense: Some(&LOST) })?;
        assert_eq!(answered, self.lost.len());
        for number in self.lost.drain(..) {
            let given = Delivered { status: CHECK, sense: LOST, data: None, resid: 0 };
            self.sent.get_mut(&number).unwrap().answer = Some(given);
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        if !self.held.is_empty() {
            return;
        }
        self.flush().unwrap();
        self.ring = attach(&self.kernel);
        self.unpumped = 0;
    }

    fn flush(&mut self) -> Result<(), RingError> {
        self.answer_lost()?;
        if self.ring.flush()? {
            self.kicks += 1;
            self.unpumped += 1;
        }
        for sent in self.sent.values_mut().filter(|sent| sent.answer.is_some()) {
            sent.published = true;
        }
        if self.unpumped > 100 {
            self.pump();
        }
        Ok(())
    }

    fn pump(&mut self) {
        if self.settles {
            self.flush().unwrap();
        }
        self.kernel.pump();
        self.unpumped = 0;
        assert_eq!(self.kernel.stats().kicks, self.kicks, "one kick per publication and reset");
    }

    /// A command without an outcome.
    fn open(&self, which: Pick) -> Option<u32> {
        let open: Vec<u32> = self.sent.iter().filter(|(_, sent)| !sent.settled).map(|(&n, _)| n).collect();
        (!open.is_empty()).then(|| open[which.index(open.len())])
    }

    fn expire(&mut self, which: Pick) {
        let Some(number) = self.open(which) else { return };
        let sent = self.sent.get_mut(&number).unwrap();
        self.kernel.expire(sent.ticket);
        let got = self.kernel.result(sent.ticket).unwrap();
        let waited = got.status == TASK_SET_FULL && !sent.consumed;
        assert!(waited || by_kernel(&got, sent.aborted, COMMUNICATION_FAILURE), "{got:?}");
        sent.settled = true;
    }

    fn tmr(&mut self, kind: u8, which: &[Pick]) {
        let mut numbers: Vec<u32> = which.iter().filter_map(|&which| self.open(which)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let tickets: Vec<Ticket> = numbers.iter().map(|number| self.sent[number].ticket).collect();
        let held = self.held.iter().filter(|held| numbers.contains(&held.number));
        let ids = held.map(|held| held.token.id().0).collect();
        self.kernel.tmr(kind, &tickets);
        for number in numbers {
            self.sent.get_mut(&number).unwrap().aborted = true;
        }
        if self.notified {
            self.tmrs.push_back((kind, ids));
        }
    }

    /// Takes in what was published; what waits for room is answered BUSY.
    fn block(&mut self) {
        let before = self.kernel.waiting();
        self.kernel.block(true);
        let mut refused = 0;
        for sent in self.sent.values_mut().filter(|sent| !sent.settled && !sent.consumed) {
            if let Some(got) = self.kernel.result(sent.ticket)
                && !sent.aborted
            {
                assert_eq!(got.status, BUSY);
                sent.settled = true;
                refused += 1;
            }
        }
        assert!(refused <= before);
        assert_eq!(self.kernel.waiting(), 0);
    }

    fn reset(&mut self, retry: bool, seen_by: SeenBy) {
        self.consume(usize::MAX).unwrap();
        let before = self.kernel.cursors();
        let answers = self.sent.values().any(|sent| sent.answer.is_some() && !sent.published);
        let answers = answers || !self.lost.is_empty();
        let noticeable = before.tail != 0 || before.head != 0;
        self.kernel.reset(if retry { Reset::Retry } else { Reset::Fail });
        for sent in self.sent.values_mut().filter(|sent| !sent.settled) {
            let Some(got) = self.kernel.result(sent.ticket) else {
                assert!(!sent.consumed, "a reset answers everything that was on the ring");
                continue;
            };
            let busy = retry && got.status == BUSY;
            let failed = !retry && by_kernel(&got, false, COMMUNICATION_FAILURE);
            assert!(sent.aborted && got.status == TASK_ABORTED || busy || failed, "{got:?}");
            sent.settled = true;
        }
        let seen = match (seen_by, self.held.pop()) {
            (SeenBy::Complete, Some(Held { token, .. })) => {
                self.ring.complete(token, &Response { status: GOOD, read_len: None, sense: None })
            }
            (_, held) => {
                self.held.extend(held);
                let flush = matches!(seen_by, SeenBy::Flush) && answers;
                if flush { self.flush() } else { self.consume(usize::MAX) }
            }
        };
        match seen {
            Err(RingError::Reset { .. }) => {
                for held in self.held.drain(..) {
                    self.ring.forget(held.token);
                }
                self.lost.clear();
                self.ring.rewind().unwrap();
                self.kicks += 1; // to wait for the end of the reset
            }
            Ok(()) => assert!(
                !noticeable && self.held.is_empty() && self.lost.is_empty(),
                "the reset went unnoticed"
            ),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(self.ring.outstanding(), 0);
        for sent in self.sent.values_mut() {
            sent.published |= sent.answer.is_some(); // never to come
        }
        self.tmrs.clear();
    }

    /// Whatever has an outcome now has the right one.
    fn check(&mut self) {
        for (number, sent) in self.sent.iter_mut().filter(|(_, sent)| !sent.settled) {
            let Some(got) = self.kernel.result(sent.ticket) else { continue };
            if sent.aborted {
                assert_eq!(got.status, TASK_ABORTED);
            } else {
                assert!(sent.published, "command {number} has an outcome that nobody published: {got:?}");
                let mut given = sent.answer.clone().unwrap();
                if sent.dir == Dir::Bidi {
                    given.data.clone_from(&got.data); // Data-In of these is not ours to reach
                }
                assert_eq!(got, given, "command {number}");
            }
            sent.settled = true;
        }
        assert_eq!(self.kernel.faults(), []);
        assert_eq!(self.ring.outstanding(), self.held.len() + self.lost.len());
    }

    /// Answers everything, and looks at what is left.
    pub(crate) fn finish(&mut self) {
        self.kernel.block(false);
        self.kernel.unplug();
        for _ in 0..self.sent.len() + 2 {
            self.consume(usize::MAX).unwrap();
            while !self.held.is_empty() {
                self.complete(0, Answer::Good);
            }
            self.flush().unwrap();
            self.pump();
            self.check();
            if self.kernel.outstanding() == 0 && self.tmrs.is_empty() {
                break;
            }
        }
        assert_eq!(self.kernel.outstanding(), 0);
        assert!(self.sent.values().all(|sent| sent.settled));
        assert_eq!(self.kernel.ids(), Vec::<u16>::new());
        assert_eq!(self.tmrs, []);
        self.kernel.verify().unwrap();
        let cursors = self.kernel.cursors();
        assert_eq!((cursors.head, cursors.tail), (cursors.cleaned, cursors.cleaned));
    }
}

fn attach(kernel: &MockKernel) -> Ring {
    let side = kernel.user_side().unwrap();
    let mapping = Mapping::new(&side.memory, side.len).unwrap();
    Ring::attach(Doorbell::new(side.doorbell), mapping).unwrap()
}

/// In two writes, to see that positions add up over pieces.
fn write_in_pieces(token: &Token, data: &[u8]) {
    let (start, rest) = data.split_at(data.len() / 3);
    assert_eq!(token.data().write(start.len(), rest), rest.len());
    assert_eq!(token.data().write(0, start), start.len());
}

/// Whether this is the kernel's own answer with this sense.
fn by_kernel(got: &Delivered, aborted: bool, sense: [u8; 3]) -> bool {
    let found = [got.sense[2], got.sense[12], got.sense[13]];
    if aborted { got.status == TASK_ABORTED } else { got.status == CHECK && found == sense }
}
