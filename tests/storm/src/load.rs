//! The load: many commands under way at once, each judged when it is answered. BUSY and TASK SET FULL are counted and the
//! command is sent again, as initiators do; any other bad status is an error.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sgtest::initiator::{MISCOMPARE, Sense, status};
use sgtest::random::Random;

use crate::director::{Director, Stalls};
use crate::iscsi::{Answer, Session};
use crate::locks::{Bits, Chain};
use crate::ops::{Kind, Op};
use crate::register::{End, Registers};
use crate::stamp::{BLOCK, Value};

/// COMPARE AND WRITE has the blocks below this one, ORWRITE those from here to `DATA`.
pub(crate) const LOCKS: u64 = 16;
pub(crate) const DATA: u64 = 80;
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;
/// Sense key.
const COPY_ABORTED: u8 = 0x0A;
/// A try that was answered BUSY is repeated after this.
const PAUSE: Duration = Duration::from_millis(10);
/// Complaints that are printed in full.
const MOST: u64 = 20;

/// How to load.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) run: u64,
    pub(crate) depth: usize,
    pub(crate) time: Option<Duration>,
    /// Load as long as this file exists.
    pub(crate) while_there: Option<PathBuf>,
    /// A command that is not answered for so long ends the run.
    pub(crate) patience: Duration,
    pub(crate) mix: Vec<(String, u64)>,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) commands: u64,
    pub(crate) by_kind: HashMap<&'static str, u64>,
    pub(crate) errors: u64,
    pub(crate) wrong: u64,
    pub(crate) busy: u64,
    /// Of those: COMPARE AND WRITE, which has no better answer when nobody knows whether it was executed.
    pub(crate) busy_locks: u64,
    /// EXTENDED COPY that ended with COPY ABORTED: how much of it was done is not known, and need not be.
    pub(crate) aborted: u64,
    pub(crate) full: u64,
    pub(crate) attention: u64,
    pub(crate) unsure: u64,
    pub(crate) locks: u64,
    pub(crate) slowest: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Loading,
    Draining,
    /// Everything is read once more, from here on.
    Reading(u64),
}

/// One LUN under load.
pub(crate) struct Load {
    pub(crate) session: Session,
    /// The LUN's NAA designator, for EXTENDED COPY.
    pub(crate) naa: Option<[u8; 16]>,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) registers: Registers,
    pub(crate) chains: Vec<Chain>,
    /// What a lock is believed to hold.
    pub(crate) believed: Vec<Option<Value>>,
    pub(crate) bits: Vec<Bits>,
    /// Blocks that must not change now.
    pub(crate) held: HashMap<u64, u32>,
    pub(crate) tally: Tally,
    pub(crate) stalls: Stalls,
    /// Counter of events.
    pub(crate) now: u64,
    pub(crate) sequence: u64,
    under_way: HashMap<u32, Op>,
    again: VecDeque<(Instant, Op)>,
    phase: Phase,
    /// What was done lately, to explain a complaint.
    history: VecDeque<(u64, u64, String)>,
}

impl Load {
    pub(crate) fn new(session: Session, naa: Option<[u8; 16]>, blocks: u64, options: Options) -> Self {
        Self {
            session,
            naa,
            random: Random::new(options.seed),
            options,
            registers: Registers::new(blocks),
            chains: (0..LOCKS).map(|_| Chain::new()).collect(),
            believed: vec![Some(Value::ZERO); usize::try_from(LOCKS).expect("small")],
            bits: vec![Bits::default(); usize::try_from(DATA - LOCKS).expect("small")],
            held: HashMap::new(),
            tally: Tally::default(),
            stalls: Stalls::new(),
            now: 0,
            sequence: 0,
            under_way: HashMap::new(),
            again: VecDeque::new(),
            phase: Phase::Loading,
            history: VecDeque::new(),
        }
    }

    /// Loads, drains, reads everything.
    pub(crate) fn run(&mut self, mut director: Option<&mut Director>) -> io::Result<()> {
        let end = self.options.time.map(|time| Instant::now() + time);
        let mut settled = None;
        loop {
            self.issue()?;
            if self.phase != Phase::Loading && self.under_way.is_empty() && self.again.is_empty() {
                match self.phase {
                    Phase::Reading(at) if at == self.registers.blocks() => return Ok(()),
                    Phase::Draining => self.phase = Phase::Reading(0),
                    _ => (),
                }
                continue;
            }
            self.wait(director.as_deref_mut())?;
            let now = Instant::now();
            if let Some(director) = director.as_deref_mut() {
                if director.step(now, self.stalls.last())? {
                    self.stalls.strike();
                }
                // A second of service after the last strike.
                if settled.is_none() && director.is_done(self.stalls.last()) {
                    settled = Some(now + Duration::from_secs(1));
                }
            }
            let over = end.or(settled).is_some_and(|end| now > end)
                || self.options.while_there.as_ref().is_some_and(|file| !file.exists());
            if self.phase == Phase::Loading && over {
                self.phase = Phase::Draining;
            }
            let oldest = self.under_way.values().map(|op| op.sent).min();
            if let Some(age) = oldest.map(|sent| now - sent).filter(|age| *age > self.options.patience) {
                return Err(io::Error::other(format!("a command is not answered after {} s", age.as_secs())));
            }
        }
    }

    fn issue(&mut self) -> io::Result<()> {
        while self.session.room() && self.again.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            if let Some((_, op)) = self.again.pop_front() {
                self.send(op)?;
            }
        }
        while self.session.room() && self.under_way.len() + self.again.len() < self.options.depth {
            let op = match self.phase {
                Phase::Loading => self.choose(),
                Phase::Draining => return Ok(()),
                Phase::Reading(at) => {
                    let n = (self.registers.blocks() - at).min(if at < DATA { DATA - at } else { 128 });
                    if n == 0 {
                        return Ok(());
                    }
                    self.phase = Phase::Reading(at + n);
                    Some(self.read(at, n))
                }
            };
            if let Some(op) = op {
                self.send(op)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, op: Op) -> io::Result<()> {
        let tag = self.session.submit(&op.command)?;
        self.under_way.insert(tag, op);
        Ok(())
    }

    /// Until something comes, 5 ms at most.
    fn wait(&mut self, director: Option<&mut Director>) -> io::Result<()> {
        let ready = |fd: &PollFd| fd.any().unwrap_or(false);
        let (input, agent) = {
            let mut fds = vec![PollFd::new(self.session.fd(), PollFlags::POLLIN)];
            fds.extend(director.as_deref().map(|d| PollFd::new(d.fd(), PollFlags::POLLIN)));
            poll(&mut fds, PollTimeout::from(5_u8))?;
            (ready(&fds[0]), fds.get(1).is_some_and(ready))
        };
        if let (true, Some(director)) = (agent, director) {
            director.hear()?;
        }
        if input {
            for answer in self.session.receive()? {
                self.answered(answer)?;
            }
        }
        Ok(())
    }

    fn answered(&mut self, answer: Answer) -> io::Result<()> {
        let Some(mut op) = self.under_way.remove(&answer.tag) else {
            return Err(io::Error::other("an answer without a command"));
        };
        self.now += 1;
        match answer.status {
            BUSY => {
                self.tally.busy += 1;
                self.tally.busy_locks += u64::from(matches!(op.kind, Kind::Lock { .. }));
            }
            TASK_SET_FULL => self.tally.full += 1,
            status::CHECK_CONDITION if answer.sense.is_some_and(|sense| sense.code.0 == 6) => {
                self.tally.attention += 1;
            }
            _ => {
                let now = Instant::now();
                self.stalls.served(now);
                self.tally.slowest = self.tally.slowest.max(now - op.sent);
                self.tally.commands += 1;
                *self.tally.by_kind.entry(op.kind.name()).or_default() += 1;
                self.remember(&op, &answer);
                self.judge(&op, &answer);
                return Ok(());
            }
        }
        // BUSY may hide that it was executed; the others were refused before.
        op.busy |= answer.status == BUSY;
        self.again.push_back((Instant::now() + PAUSE, op));
        Ok(())
    }

    fn judge(&mut self, op: &Op, answer: &Answer) {
        let good = answer.status == status::GOOD && answer.missing == 0;
        let miscompare = answer.status == status::CHECK_CONDITION
            && answer.sense.is_some_and(|sense: Sense| sense.code == MISCOMPARE);
        let expected = good || miscompare && matches!(op.kind, Kind::Lock { .. } | Kind::Verify { .. });
        let key = answer.sense.map_or(0, |sense| sense.code.0);
        if matches!(op.kind, Kind::Copy { .. }) && !good && key == COPY_ABORTED {
            self.tally.aborted += 1;
        } else if !expected {
            self.tally.errors += 1;
            let why = answer.sense.map_or(String::new(), |s| format!(" sense {:02X?}", s.code));
            self.tell(
                self.tally.errors,
                &format!("ERROR {op}: status {:02X}h{why}, {} bytes missing", answer.status, answer.missing),
            );
        }
        let end = if good { End::Done } else { End::Unknown };
        match &op.kind {
            Kind::Read { lba, n } => {
                self.judge_read(*lba, *n, op.start, good.then_some(answer.data.as_slice()))
            }
            Kind::Change { lba, values } => {
                for (lba, value) in (*lba..).zip(values) {
                    let result = self.registers.write_end(lba, *value, op.start, self.now, end);
                    self.verdict(lba, result);
                }
            }
            Kind::Verify { lba, n, differs } => {
                self.release(*lba, *n);
                if expected && miscompare != *differs {
                    self.verdict(
                        *lba,
                        Err(format!("{op}: answered {}", if good { "GOOD" } else { "MISCOMPARE" })),
                    );
                }
            }
            Kind::Copy { from, to, values } => {
                self.release(*from, values.len() as u64);
                for (lba, value) in (*to..).zip(values) {
                    let result = self.registers.write_end(lba, *value, op.start, self.now, end);
                    self.verdict(lba, result);
                }
            }
            Kind::Lock { lba, old, new } => {
                let at = usize::try_from(*lba).expect("small");
                let end = match (good, miscompare, op.busy) {
                    (true, ..) => End::Done,
                    (_, true, true) => End::Unsure,
                    (_, true, false) => End::Refused,
                    _ => End::Unknown,
                };
                let result = self.registers.write_end(*lba, *new, op.start, self.now, end);
                self.verdict(*lba, result);
                let mut result = Ok(());
                if good {
                    result = self.chains[at].good(new.sequence);
                } else if expected {
                    self.chains[at].miscompare(new.sequence, op.busy);
                }
                self.verdict(*lba, result);
                // Only who still believes what this command did learns from it.
                if good {
                    self.believed[at] = Some(*new);
                } else if self.believed[at] == Some(*old) {
                    self.believed[at] = None;
                }
            }
            Kind::Or { lba, bit } => {
                if good {
                    self.bits[usize::try_from(lba - LOCKS).expect("small")].done(*bit);
                }
            }
            Kind::ReadBits { lba, known } => {
                if good {
                    let result = self.bits[usize::try_from(lba - LOCKS).expect("small")].check(
                        *lba,
                        known,
                        &answer.data,
                    );
                    self.verdict(*lba, result);
                }
            }
            Kind::Sync => (),
        }
    }

    fn judge_read(&mut self, lba: u64, n: u64, start: u64, data: Option<&[u8]>) {
        for at in 0..n {
            let bytes = data.map(|data| &data[usize::try_from(at).expect("small") * BLOCK..][..BLOCK]);
            let lba = lba + at;
            if (LOCKS..DATA).contains(&lba) {
                if let Some(bytes) = bytes {
                    let bits = &self.bits[usize::try_from(lba - LOCKS).expect("small")];
                    let result = bits.check(lba, &bits.known(), bytes);
                    self.verdict(lba, result);
                }
                continue;
            }
            let found = bytes.map(|bytes| Value::of(bytes, self.options.run)).transpose();
            let value = found.as_ref().ok().copied().flatten();
            let result = self.registers.read_end(lba, value, start, self.now);
            let result = found.map_err(|why| format!("block {lba}: {why}")).and(result);
            self.verdict(lba, result);
            if lba < LOCKS {
                let at = usize::try_from(lba).expect("small");
                if let (Some(value), Phase::Reading(_)) = (value, self.phase) {
                    let result = self.chains[at].close(value.sequence);
                    let (locks, unsure) = result.as_ref().ok().copied().unwrap_or((0, 0));
                    self.tally.locks += locks;
                    self.tally.unsure += unsure;
                    self.verdict(lba, result.map(drop));
                }
                self.believed[at] = value.or(self.believed[at]);
            }
        }
    }

    fn verdict(&mut self, lba: u64, result: Result<(), String>) {
        let Err(why) = result else { return };
        self.tally.wrong += 1;
        self.tell(self.tally.wrong, &format!("WRONG {why}"));
        if self.tally.wrong <= MOST {
            for (_, _, what) in self.history.iter().filter(|(first, n, _)| (*first..first + n).contains(&lba))
            {
                eprintln!("      {what}");
            }
        }
    }

    fn tell(&self, n: u64, what: &str) {
        if n <= MOST {
            eprintln!("[{}] {what}", self.now);
        }
    }

    fn remember(&mut self, op: &Op, answer: &Answer) {
        if self.history.len() == 20_000 {
            self.history.pop_front();
        }
        let (lba, n) = op.kind.range();
        let busy = if op.busy { ", BUSY before" } else { "" };
        self.history.push_back((
            lba,
            n,
            format!("[{}..{}] {op}: {:02X}h{busy}", op.start, self.now, answer.status),
        ));
    }

    pub(crate) fn hold(&mut self, lba: u64, n: u64) {
        for lba in lba..lba + n {
            *self.held.entry(lba).or_default() += 1;
        }
    }

    fn release(&mut self, lba: u64, n: u64) {
        for lba in lba..lba + n {
            if let Some(count) = self.held.get_mut(&lba) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&lba);
                }
            }
        }
    }
}
