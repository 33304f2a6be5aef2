//! Going on where a predecessor stopped, and keeping the journal that lets a successor do so (docs/recovery.md).

use super::{Ring, Slot};
use crate::doorbell::Doorbell;
use crate::entry::{Cdb, Command, Header};
use crate::error::ResumeError;
use crate::journal::{Found, InProgress, Journal, JournalError, JournalFile, Shape, Stage};
use crate::mapping::Mapping;
use crate::segments::Segments;
use crate::token::{CmdId, Token};
use std::collections::VecDeque;
use tcmu_sys::op;

/// A ring whose predecessor has left a journal, and what was in progress.
#[derive(Debug)]
pub struct Resumed {
    /// The ring; consuming goes on behind what is in progress.
    pub ring: Ring,
    /// What the predecessor had consumed and not answered, oldest first.
    pub commands: Vec<Recovered>,
    /// What was queued behind it by now and nobody has consumed: the ring yields it first.
    pub waiting: Vec<Cdb>,
    /// A time, of the clock of [`Ring::rested`], before which none of these and of what is queued was queued. None if
    /// there is nothing.
    pub queued_after: Option<u64>,
}

/// A command that a predecessor had consumed.
#[derive(Debug)]
pub struct Recovered {
    /// The command. Its data buffer holds what it held when it was queued, but for what storage has read into it.
    pub command: Command,
    /// How far it had come.
    pub stage: Stage,
}

impl Ring {
    fn shape(&self) -> Shape {
        let data_off = self.cmdr_off + self.cmdr_size as usize;
        Shape { ring_len: self.mapping.len(), cmdr_size: self.cmdr_size, data_off }
    }

    /// Keeps a journal from here on, in place of what is in `file`.
    ///
    /// # Panics
    /// If something has been consumed already.
    pub fn keep_journal(&mut self, file: JournalFile) -> Result<(), JournalError> {
        assert!(self.slots.is_empty(), "a journal begins with an empty ring");
        self.journal = Some(Journal::begin(file, self.shape(), self.tail)?);
        Ok(())
    }

    /// Goes on where a predecessor stopped, in order or not: attaches, and takes over from its journal what it had
    /// consumed and not answered. Everything in the journal is checked against the ring; on any doubt this fails, and
    /// the ring must be reset. Stores nothing on the ring.
    ///
    /// Who may still be at work for the predecessor must have been shut out before anything is done about a command.
    pub fn resume(doorbell: Doorbell, mapping: Mapping, file: JournalFile) -> Result<Resumed, ResumeError> {
        let mut ring = Self::attach(doorbell, mapping)?;
        let Found { mut journal, next, in_progress } = Journal::recover(file, ring.shape(), ring.tail)?;
        let waiting = ring.retrace(next, &in_progress)?;
        let oldest = in_progress.iter().map(|found| found.since);
        let queued_after = oldest.chain((!waiting.is_empty()).then(|| journal.last_rest())).min();
        // Before there are tokens, which must not be dropped.
        for &(offset, len) in in_progress.iter().flat_map(|found| &found.segments) {
            ring.mapping.iovec(offset, len).map_err(JournalError::from)?;
        }
        for found in &in_progress {
            journal.adopt(found).map_err(JournalError::from)?;
        }
        let commands = in_progress.into_iter().map(|found| ring.take_over(found)).collect::<Result<_, _>>();
        let commands: Vec<Recovered> = commands?;
        ring.journal = Some(journal);
        Ok(Resumed { ring, commands, waiting, queued_after })
    }

    /// Walks the slots up to where the predecessor had consumed: there must be one for each command that is in progress,
    /// because an answer takes the oldest slot, whosever it was. Each must be marked: a reset at tail 0 leaves the tail
    /// where it was, and by now as much may be queued again, with the same ids. What lies behind must be new; that is
    /// returned.
    fn retrace(&mut self, next: u32, in_progress: &[InProgress]) -> Result<Vec<Cdb>, JournalError> {
        let head = self.look()?;
        self.check_cursor("consumed", next)?;
        if self.past_published(next) > self.past_published(head) {
            return Err(JournalError::Moved("cmd_head"));
        }
        let limit = |at: u32, end: u32| if at < end { end - at } else { self.cmdr_size - at };
        let (mut at, mut slots) = (self.tail, VecDeque::new());
        while at != next {
            let Header { len, op, .. } = Header::read(&self.mapping, self.cmdr_off, at, limit(at, next))?;
            if !self.is_marked(at)? {
                return Err(JournalError::Moved("an entry that was consumed"));
            }
            slots.push_back(Slot { len, op });
            at = self.after(at, len);
        }
        if slots.iter().filter(|slot| slot.op == op::CMD).count() != in_progress.len() {
            return Err(JournalError::Damaged("it has not as many commands as the ring has slots"));
        }
        let mut waiting = Vec::new();
        while at != head {
            let header = Header::read(&self.mapping, self.cmdr_off, at, limit(at, head))?;
            if header.op == op::CMD {
                if in_progress.iter().any(|found| found.id == header.id) {
                    return Err(JournalError::Damaged("a new command has the id of one in progress"));
                }
                let data_off = self.cmdr_off + self.cmdr_size as usize;
                waiting.push(header.command(&self.mapping, data_off, at, |_| ())?);
            }
            at = self.after(at, header.len);
        }
        (self.next, self.head, self.slots) = (next, next, slots);
        Ok(waiting)
    }

    fn take_over(&mut self, found: InProgress) -> Result<Recovered, JournalError> {
        let mut data = Segments::new(self.mapping.clone(), self.spare.pop().unwrap_or_default());
        for (offset, len) in found.segments {
            data.push(self.mapping.iovec(offset, len)?);
        }
        self.outstanding += 1;
        let token = Token::new(found.id, data, self.lost.clone());
        Ok(Recovered { command: Command { cdb: Cdb::new(&found.cdb), token }, stage: found.stage })
    }

    /// Notes in the journal how far a command has come: [`Stage::Begun`] before storage is asked for anything,
    /// [`Stage::Good`] once it is done and before its data buffer is spoilt.
    pub fn reached(&mut self, id: CmdId, stage: Stage) {
        self.note(|journal| journal.reached(id, stage).map_err(Into::into));
    }

    /// Notes in the journal that the ring was empty at this time, in milliseconds of a clock that a successor on this
    /// host reads too.
    pub fn rested(&mut self, now: u64) {
        self.note(|journal| journal.rested(now).map_err(Into::into));
    }

    /// Abandons the journal: the successor resets the ring.
    pub fn abandon_journal(&mut self) {
        if let Some(mut journal) = self.journal.take() {
            let _ = journal.void(); // fails only out of bounds, and it is in bounds
        }
    }

    /// Why there is no journal any more, once.
    pub fn journal_failure(&mut self) -> Option<JournalError> {
        self.journal_failed.take()
    }

    /// Stores in the journal; one that cannot be kept is abandoned (J3).
    pub(super) fn note(&mut self, store: impl FnOnce(&mut Journal) -> Result<(), JournalError>) {
        if let Some(journal) = &mut self.journal
            && let Err(error) = store(journal)
        {
            self.abandon_journal();
            self.journal_failed = Some(error);
        }
    }
}
