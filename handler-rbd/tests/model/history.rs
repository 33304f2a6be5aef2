//! What each block may hold while commands are in flight side by side.
//!
//! Commands are SIMPLE: those in flight together may take effect in any order, but one that was answered before
//! another was sent comes before it. So a block is a register, a write takes effect at one moment between its
//! sending and its answer, and a read tells what was there at one moment between its own. As each write leaves a
//! stamp of its own, each read names its write, and Gibbons and Korach ("Testing shared memories", 1997) give an
//! exact test: a write with all that saw it is a cluster; it holds the block from its earliest answer `until` the
//! latest sending of its members `since`, if that is later. The order of two clusters is impossible if the one
//! must both begin before the other ends and the other way round.
//!
//! Where stamps are not unique (zeros, copies) a read passes if any of the possible writes does.

use crate::command::Span;
use crate::content::Value;

/// Never; a pending command's answer.
pub(crate) const NEVER: u64 = u64::MAX;

/// What a write leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaves {
    Stamp(Value),
    /// What that block held at some moment while the command was in flight.
    CopyOf(u64),
    /// One of these.
    OneOf(Vec<Value>),
}

impl Leaves {
    fn may_be(&self, value: Value) -> bool {
        match self {
            Self::Stamp(stamp) => *stamp == value,
            Self::CopyOf(_) => false,
            Self::OneOf(values) => values.contains(&value),
        }
    }
}

/// A write of one block, and all that has been seen of it.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// Number of the command.
    pub(crate) by: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) leaves: Leaves,
    /// The range that it writes all or nothing of.
    pub(crate) atomic: Option<Span>,
    /// It took effect: it was answered GOOD, or was seen.
    real: bool,
    /// The earliest answer and the latest sending of the cluster.
    first: u64,
    last: u64,
    /// The compare and write that replaced it.
    taken: Option<u64>,
}

/// Must `a` come before `b`?
fn before(a: &Write, b: &Write) -> bool {
    a.first < b.last
}

/// One block.
#[derive(Debug, Clone)]
pub(crate) struct Register {
    writes: Vec<Write>,
}

impl Register {
    /// Holds this from the start.
    pub(crate) fn new(value: Value) -> Self {
        let leaves = Leaves::Stamp(value);
        let first = Write {
            by: 0,
            sent: 0,
            answered: 0,
            leaves,
            atomic: None,
            real: true,
            first: 0,
            last: 0,
            taken: None,
        };
        Self { writes: vec![first] }
    }

    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// A command was sent that writes this.
    pub(crate) fn send(&mut self, by: u64, sent: u64, leaves: Leaves, atomic: Option<Span>) {
        let (answered, first, last) = (NEVER, NEVER, sent);
        self.writes.push(Write { by, sent, answered, leaves, atomic, real: false, first, last, taken: None });
    }

    /// The command was answered: GOOD, or with a failure that leaves old or new.
    pub(crate) fn answer(&mut self, by: u64, now: u64, good: bool) -> Result<(), String> {
        for at in 0..self.writes.len() {
            if self.writes[at].by == by {
                let write = &mut self.writes[at];
                write.answered = now;
                write.first = write.first.min(now);
                write.real |= good;
                if write.real {
                    self.check(at)?;
                }
            }
        }
        Ok(())
    }

    /// The command was refused: it must not have had any effect.
    pub(crate) fn refuse(&mut self, by: u64) -> Result<(), String> {
        if let Some(write) = self.writes.iter().find(|write| write.by == by && write.real) {
            return Err(format!("#{by} was refused, but {:x?} was seen", write.leaves));
        }
        self.writes.retain(|write| write.by != by);
        Ok(())
    }

    /// Someone who was sent at `since` and is answered `now` saw this value; who can have written it?
    /// Changes nothing. `extra` says which unresolved copies may have left it.
    pub(crate) fn writers(&self, value: Value, since: u64, now: u64, extra: &[u64]) -> Vec<usize> {
        let fits = |write: &Write| {
            write.leaves.may_be(value)
                || matches!(write.leaves, Leaves::CopyOf(_)) && extra.contains(&write.by)
        };
        (0..self.writes.len()).filter(|&at| fits(&self.writes[at]) && self.would_do(at, since, now)).collect()
    }

    /// Whether this write can have been seen then.
    pub(crate) fn would_do(&self, at: usize, since: u64, now: u64) -> bool {
        let mut seen = self.writes[at].clone();
        seen.first = seen.first.min(now);
        seen.last = seen.last.max(since);
        let overtaken = seen
            .taken
            .is_some_and(|by| self.writes.iter().any(|taker| taker.by == by && taker.first < since));
        !overtaken && self.conflict(at, &seen).is_none()
    }

    /// It was seen then.
    pub(crate) fn see(&mut self, at: usize, value: Value, since: u64, now: u64) -> &Write {
        let write = &mut self.writes[at];
        write.first = write.first.min(now);
        write.last = write.last.max(since);
        write.real = true;
        write.leaves = Leaves::Stamp(value);
        write
    }

    /// A compare and write found this write's value and replaced it: for a stamp that happens once.
    pub(crate) fn take(&mut self, at: usize, by: u64) -> Result<(), String> {
        match self.writes[at].taken.replace(by) {
            Some(other) if other != by => Err(format!(
                "#{other} and #{by} both found what #{} wrote and replaced it",
                self.writes[at].by
            )),
            _ => Ok(()),
        }
    }

    /// The values that may have been there at some moment between the two.
    pub(crate) fn possible(&self, since: u64, now: u64) -> impl Iterator<Item = &Write> {
        (0..self.writes.len()).filter(move |&at| self.would_do(at, since, now)).map(|at| &self.writes[at])
    }

    /// A copy was answered: it left one of these.
    pub(crate) fn resolve(&mut self, by: u64, from: u64, values: &[Value]) {
        for write in &mut self.writes {
            if write.by == by && write.leaves == Leaves::CopyOf(from) {
                write.leaves = match values {
                    &[one] => Leaves::Stamp(one),
                    _ => Leaves::OneOf(values.to_vec()),
                };
            }
        }
    }

    /// Forgets what nobody sent at `horizon` or later can see any more.
    pub(crate) fn forget(&mut self, horizon: u64) {
        if self.writes.len() > 4 {
            let gone: Vec<_> = (0..self.writes.len()).map(|at| self.gone(at, horizon)).collect();
            let mut gone = gone.into_iter();
            self.writes.retain(|_| gone.next() != Some(true));
        }
    }

    fn gone(&self, at: usize, horizon: u64) -> bool {
        let write = &self.writes[at];
        let hidden =
            |(other, x): (usize, &Write)| other != at && x.real && x.first < horizon && before(write, x);
        write.answered != NEVER && self.writes.iter().enumerate().any(hidden)
    }

    /// What is most likely there: what was last known to have been written.
    pub(crate) fn likely(&self) -> Value {
        let real = self.writes.iter().filter(|write| write.real && write.first != NEVER);
        match real.max_by_key(|write| write.first).map(|write| &write.leaves) {
            Some(Leaves::Stamp(value)) => *value,
            _ => 0,
        }
    }

    fn check(&self, at: usize) -> Result<(), String> {
        match self.conflict(at, &self.writes[at]) {
            None => Ok(()),
            Some(other) => Err(format!(
                "neither can come before the other:\n  {:x?}\n  {:x?}",
                self.writes[at], self.writes[other]
            )),
        }
    }

    /// A write that `seen`, in the place of the one at `at`, cannot be ordered with.
    fn conflict(&self, at: usize, seen: &Write) -> Option<usize> {
        (0..self.writes.len()).find(|&other| {
            let write = &self.writes[other];
            other != at && write.real && before(write, seen) && before(seen, write)
        })
    }
}
