//! The ring itself: consume, complete in any order, publish once, kick once.

use crate::doorbell::Doorbell;
use crate::entry::{Command, Entry, Header};
use crate::error::{AttachError, RingError};
use crate::journal::{Journal, JournalError};
use crate::mapping::{IoVec, Mapping};
use crate::segments::Segments;
use crate::token::{CmdId, Lost, Token};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use tcmu_sys::{SENSE_SIZE, cap, entry, mailbox, op, uflag};

#[path = "resume.rs"] // where the tests that compile this file find it too
mod resume;
pub use resume::{Recovered, Resumed};

/// Bit of `uflags` that every consumed entry has, and every answer: so it is told from one that was queued in its place
/// after a reset. The kernel zeroes them when it queues an entry (target_core_user.c, `queue_cmd_ring`,
/// `tcmu_tmr_notify`, `ring_insert_padding`), and looks at the bits of [`uflag`] alone when one is completed.
const MARK: u8 = 0x80;

/// Iovec lists kept for reuse, so that steady traffic allocates nothing.
const SPARE_LISTS: usize = 1024;

/// The doorbell's event counter is read once in so many entries, lest it wrap unread. There is at most one
/// event an entry.
const READ_DOORBELL_AFTER: u32 = 1 << 30;

/// What the kernel offers, as negotiated once by [`Ring::attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A read can say how many bytes are valid.
    pub read_len: bool,
    /// Task management entries may appear.
    pub tmr: bool,
    /// A command can be answered while its pages are kept.
    pub keep_buf: bool,
}

/// The answer to one command.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// SAM status.
    pub status: u8,
    /// For a command that reads: how many bytes of its buffer are valid, if fewer than all. The initiator
    /// gets those and a residual. Zero cannot be said; zero the buffer instead.
    pub read_len: Option<NonZeroU32>,
    /// Sense data, with CHECK CONDITION.
    pub sense: Option<&'a [u8; SENSE_SIZE]>,
}

/// An entry that was consumed and whose ring space is not given back yet.
#[derive(Clone, Copy, Debug)]
struct Slot {
    len: u32,
    op: u32,
}

/// The user-space end of one device's command ring. One thread owns it.
#[derive(Debug)]
pub struct Ring {
    mapping: Arc<Mapping>,
    doorbell: Doorbell,
    features: Features,
    cmdr_off: usize,
    cmdr_size: u32,
    /// Where the kernel was when we last looked.
    head: u32,
    /// Next entry to consume.
    next: u32,
    /// First entry not answered; everything before it awaits publication.
    tail: u32,
    /// What the mailbox's `cmd_tail` holds.
    published: u32,
    /// The entries `[tail, next)`. Their lengths are remembered rather than read again.
    slots: VecDeque<Slot>,
    outstanding: usize,
    /// Entries consumed since the doorbell's counter was read.
    unread: u32,
    spare: Vec<Vec<IoVec>>,
    lost: Arc<Lost>,
    journal: Option<Journal>,
    /// Why there is none any more.
    journal_failed: Option<JournalError>,
}

impl Ring {
    /// Attaches to a device: checks the mailbox and starts at its `cmd_tail`, so that everything not
    /// completed by a predecessor that answered in order is consumed again. After a predecessor that
    /// completed out of order the ring must have been reset before (docs/ring.md).
    ///
    /// Take the entries that are queued already (the ring is an iterator) before waiting for the doorbell.
    pub fn attach(doorbell: Doorbell, mapping: Mapping) -> Result<Self, AttachError> {
        let version = u16::from_ne_bytes(mapping.read(mailbox::VERSION)?);
        if version != tcmu_sys::MAILBOX_VERSION {
            return Err(AttachError::Version(version));
        }
        let flags = u16::from_ne_bytes(mapping.read(mailbox::FLAGS)?);
        if flags & cap::OUT_OF_ORDER == 0 {
            return Err(AttachError::NoOutOfOrder(flags));
        }
        let features = Features {
            read_len: flags & cap::READ_LEN != 0,
            tmr: flags & cap::TMR != 0,
            keep_buf: flags & cap::KEEP_BUF != 0,
        };
        let cmdr_off = u32::from_ne_bytes(mapping.read(mailbox::CMDR_OFF)?);
        let cmdr_size = u32::from_ne_bytes(mapping.read(mailbox::CMDR_SIZE)?);
        let end = (cmdr_off as usize).checked_add(cmdr_size as usize);
        if (cmdr_off as usize) < tcmu_sys::MAILBOX_SIZE
            || !cmdr_off.is_multiple_of(tcmu_sys::OP_ALIGN)
            || !cmdr_size.is_multiple_of(tcmu_sys::OP_ALIGN)
            || (cmdr_size as usize) < entry::CMD_SIZE
            || end.is_none_or(|end| end > mapping.len())
        {
            return Err(AttachError::Geometry { cmdr_off, cmdr_size, mapped: mapping.len() });
        }
        let tail = mapping.load_acquire(mailbox::CMD_TAIL)?;
        let ring = Self {
            mapping: Arc::new(mapping),
            doorbell,
            features,
            cmdr_off: cmdr_off as usize,
            cmdr_size,
            head: tail,
            next: tail,
            tail,
            published: tail,
            slots: VecDeque::new(),
            outstanding: 0,
            unread: 0,
            spare: Vec::new(),
            lost: Arc::default(),
            journal: None,
            journal_failed: None,
        };
        ring.check_cursor("cmd_tail", tail)?;
        Ok(ring)
    }

    /// Starts over at the mailbox's `cmd_tail`, after [`RingError::Reset`]. Every token of before must have
    /// been given to [`Ring::forget`]; storage must have returned all memory it was lent.
    ///
    /// # Panics
    /// If a token of before is still outstanding.
    pub fn rewind(&mut self) -> Result<(), RingError> {
        while self.lost.pop().is_some() {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        assert!(self.outstanding == 0, "commands of the old ring are still outstanding");
        // The kick waits for the lock that a reset holds, so that afterwards both cursors are the new ones.
        self.kick()?;
        let tail = self.mapping.load_acquire(mailbox::CMD_TAIL)?;
        self.check_cursor("cmd_tail", tail)?;
        (self.head, self.next, self.tail, self.published) = (tail, tail, tail, tail);
        self.slots.clear();
        self.note(|journal| journal.restart(tail).map_err(Into::into));
        Ok(())
    }

    /// Fails if the ring was reset since: then the pages of what was consumed may be other commands' by now.
    pub fn check(&self) -> Result<(), RingError> {
        self.look().map(drop)
    }

    /// What the kernel offers.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The file to wait on.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Commands consumed and not completed.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn check_cursor(&self, cursor: &'static str, value: u32) -> Result<(), RingError> {
        if value < self.cmdr_size && value.is_multiple_of(tcmu_sys::OP_ALIGN) {
            Ok(())
        } else {
            Err(RingError::Cursor { cursor, value, cmdr_size: self.cmdr_size })
        }
    }

    /// Looks where the kernel has got to, and notices a reset: nobody but us stores `cmd_tail`, except
    /// `reset_ring`, which also takes `cmd_head` back. While the tail is zero it tells nothing, and as much may be queued
    /// again: then what we have consumed is not marked any more.
    ///
    /// The kernel takes back the tail first and then the head (target_core_user.c, `tcmu_reset_ring`), so the
    /// tail is loaded last: if it is still ours, the head is of before the reset too.
    fn look(&self) -> Result<u32, RingError> {
        let head = self.mapping.load_acquire(mailbox::CMD_HEAD)?; // R2
        let found = self.mapping.load_acquire(mailbox::CMD_TAIL)?;
        if found == self.published {
            self.check_cursor("cmd_head", head)?;
            if self.past_published(head) >= self.past_published(self.next) // R1
                && (self.next == self.published || self.is_marked(self.published)?)
            {
                return Ok(head);
            }
        }
        Err(RingError::Reset { published: self.published, found, consumed: self.next, head })
    }

    /// Whether the entry there is one that was consumed.
    fn is_marked(&self, ring_offset: u32) -> Result<bool, RingError> {
        let [flags] = self.mapping.read(self.cmdr_off + ring_offset as usize + entry::UFLAGS)?;
        Ok(flags & MARK != 0)
    }

    /// Distance from `published` to a cursor, forwards.
    fn past_published(&self, cursor: u32) -> u32 {
        if cursor >= self.published {
            cursor - self.published
        } else {
            cursor + (self.cmdr_size - self.published)
        }
    }

    /// Reads the entry at `next`, which is not `head`, and moves past it. PAD and unknown entries yield None.
    fn consume(&mut self) -> Result<Option<Entry>, RingError> {
        let at = self.next;
        let limit = if at < self.head { self.head - at } else { self.cmdr_size - at };
        let header = Header::read(&self.mapping, self.cmdr_off, at, limit)?;
        let mark = |flags| self.mapping.write(header.at + entry::UFLAGS, &[MARK | flags]);
        let entry = match header.op {
            op::CMD => {
                let mut data = Segments::new(self.mapping.clone(), self.spare.pop().unwrap_or_default());
                let data_off = self.cmdr_off + self.cmdr_size as usize;
                let cdb = header.command(&self.mapping, data_off, at, |piece| data.push(piece))?;
                mark(0)?; // before the journal has it: a successor looks for the mark
                self.outstanding += 1;
                let next = self.after(at, header.len);
                let iov = data.as_iovecs();
                let ring = &*self.mapping;
                if let Some(journal) = &mut self.journal
                    && let Err(error) = journal.consume(header.id, cdb.as_bytes(), (ring, iov), next)
                {
                    self.abandon_journal();
                    self.journal_failed = Some(error);
                }
                let token = Token::new(header.id, data, self.lost.clone());
                Some(Entry::Command(Command { cdb, token }))
            }
            op::TMR => {
                let tmr = header.tmr(&self.mapping, at)?;
                mark(0)?;
                Some(Entry::Tmr(tmr))
            }
            op::PAD => {
                mark(0)?;
                None
            }
            _ => {
                // A later kernel's: it is told that we do not know it (R5).
                mark(uflag::UNKNOWN_OP)?;
                None
            }
        };
        self.next = self.after(at, header.len);
        if header.op != op::CMD {
            let next = self.next;
            self.note(|journal| journal.passed(next).map_err(Into::into));
        }
        self.unread = self.unread.saturating_add(1);
        self.slots.push_back(Slot { len: header.len, op: header.op });
        Ok(entry)
    }

    fn after(&self, at: u32, len: u32) -> u32 {
        // `len` was checked to reach at most to the ring's end, which is where the ring starts again.
        let end = at + len;
        if end >= self.cmdr_size { 0 } else { end }
    }

    /// Moves the tail over entries that are not commands; they need no answer (R5).
    fn skip_to_command(&mut self) {
        while let Some(slot) = self.slots.front().filter(|slot| slot.op != op::CMD) {
            self.tail = self.after(self.tail, slot.len);
            self.slots.pop_front();
        }
    }

    /// Whether all that was seen on the ring is consumed: the next entry is looked for anew.
    pub fn is_spent(&self) -> bool {
        self.next == self.head
    }

    /// Answers a command. The answer takes the place of the oldest unanswered request (R4), which was
    /// copied out when it was consumed; the kernel sees it after [`Ring::flush`].
    ///
    /// After an error the token counts as forgotten.
    pub fn complete(&mut self, token: Token, response: &Response<'_>) -> Result<(), RingError> {
        let (id, list) = token.discharge();
        self.reuse(list);
        self.answer(id, response)
    }

    fn answer(&mut self, id: CmdId, response: &Response<'_>) -> Result<(), RingError> {
        self.outstanding = self.outstanding.saturating_sub(1);
        // After a reset a command that nobody has consumed yet may stand where the answer would go.
        self.look()?;
        self.skip_to_command();
        let Some(slot) = self.slots.pop_front() else {
            return Err(RingError::Cursor { cursor: "tail", value: self.tail, cmdr_size: self.cmdr_size });
        };
        self.note(|journal| journal.answer(id).map_err(Into::into));
        crash_point!("answer-none");
        let at = self.cmdr_off + self.tail as usize;
        let flags = if response.read_len.is_some() { uflag::READ_LEN } else { 0 };
        self.mapping.write(at + entry::CMD_ID, &id.0.to_ne_bytes())?;
        self.mapping.write(at + entry::UFLAGS, &[MARK | flags])?;
        crash_point!("answer-half");
        self.mapping.write(at + entry::RSP_STATUS, &[response.status])?;
        if let Some(len) = response.read_len {
            self.mapping.write(at + entry::RSP_READ_LEN, &len.get().to_ne_bytes())?;
        }
        if let Some(sense) = response.sense {
            self.mapping.write(at + entry::RSP_SENSE, sense)?; // all 96: the kernel copies all 96
        }
        self.tail = self.after(self.tail, slot.len);
        crash_point!("answer-whole");
        Ok(())
    }

    /// Voids a token without an answer: after a [`RingError::Reset`] the kernel has given its own; or the ring is given up,
    /// and then the command stays in the journal, for the successor.
    pub fn forget(&mut self, token: Token) {
        let (_, list) = token.discharge();
        self.reuse(list);
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Ids of commands whose tokens were dropped. Each is answered with `response`; returns how many.
    pub fn answer_lost(&mut self, response: &Response<'_>) -> Result<usize, RingError> {
        let mut answered = 0;
        while let Some(id) = self.lost.pop() {
            self.answer(id, response)?;
            answered += 1;
        }
        Ok(answered)
    }

    fn reuse(&mut self, list: Vec<IoVec>) {
        if self.spare.len() < SPARE_LISTS {
            self.spare.push(list);
        }
    }

    /// Publishes all answers since the last call with one Release store, then kicks once (R7). Returns
    /// whether there was anything to publish.
    pub fn flush(&mut self) -> Result<bool, RingError> {
        self.skip_to_command();
        if self.tail == self.published {
            return Ok(false);
        }
        self.look()?;
        let (from, to) = (self.published, self.tail);
        self.note(|journal| journal.publish(from, to).map_err(Into::into));
        crash_point!("publish-none");
        self.mapping.store_release(mailbox::CMD_TAIL, to)?;
        crash_point!("publish-tail");
        self.note(|journal| journal.published(to).map_err(Into::into));
        crash_point!("publish-whole");
        self.published = self.tail;
        self.doorbell.kick().map_err(RingError::Kick)?;
        Ok(true)
    }

    /// As if so many entries had been consumed, for tests of what happens once in a long time.
    #[cfg(feature = "test-utils")]
    pub fn pretend_consumed(&mut self, entries: u32) {
        self.unread = self.unread.saturating_add(entries);
    }

    /// Kicks without publishing, for what a predecessor published and had no time to kick for.
    pub fn kick(&self) -> Result<(), RingError> {
        self.doorbell.kick().map_err(RingError::Kick)
    }
}

/// Consumes the queued entries, each copied out and checked. Ends when the ring is empty and goes on when
/// the kernel has queued more; the kernel's cursor is read once per batch.
///
/// After an error nothing more may be consumed or published, but for [`RingError::Reset`], which
/// [`Ring::rewind`] recovers from.
impl Iterator for Ring {
    type Item = Result<Entry, RingError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.next == self.head {
                if self.unread >= READ_DOORBELL_AFTER {
                    self.unread = 0;
                    if let Err(error) = self.doorbell.read() {
                        return Some(Err(RingError::Kick(error)));
                    }
                }
                match self.look() {
                    Ok(head) if head == self.next => return None,
                    Ok(head) => self.head = head,
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.consume() {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => {
                    self.head = self.next;
                    return Some(Err(error));
                }
            }
        }
    }
}
