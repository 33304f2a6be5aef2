//! What is in progress on a ring, in memory that survives the process.
//!
//! Answers overwrite requests, and go to other commands' slots, so after a crash the ring alone does not tell what was
//! in progress (docs/recovery.md). This file does. It is mapped and only ever stored to: no call on the way of a command,
//! and what was stored before SIGKILL is there after it. It need not survive the host, whose kernel keeps the ring.
//!
//! ```text
//!  header   magic, whose ring this is, consumed, pending, published, ...
//!  records  one per command id: state, CDB, first segment          (ids are reused lowest first: dense)
//!  segments one per page of the data area: length, next segment    (a page is one command's: never contended)
//! ```
//!
//! # Contract
//! One thread stores, in program order. A record's state says all: it is stored last, with Release, and until then the
//! rest of the record means nothing.
//!
//! * **J1** A command is `USED` here before the entry counts as consumed. In between, [`Journal::recover`] drops the
//!   record and the entry is consumed again.
//! * **J2** `ANSWERED` means nothing by itself. Before a batch is published `pending` says from where to where; once
//!   `cmd_tail` is there, all that is `ANSWERED` was published, and before that none of it.
//! * **J3** Whatever does not fit makes the journal void: then the successor resets the ring, which is always right.

use crate::error::RingError;
use crate::mapping::{IoVec, Mapping, OutOfBounds};
use crate::token::CmdId;
use nix::fcntl::{FallocateFlags, fallocate};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, compiler_fence};

/// "TCMUJRN" and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"TCMUJRN\x02");
const PAGE: usize = 4096;
/// Space is asked for in such pieces, before it is stored to: with a full file system a store would be a SIGBUS.
const CHUNK: usize = 16 * PAGE;

mod header {
    pub(super) const MAGIC: usize = 0;
    pub(super) const INCARNATION: usize = 8;
    pub(super) const RING_LEN: usize = 40;
    pub(super) const CMDR_SIZE: usize = 48;
    /// `u64`: commands consumed (high half, wraps) and the ring's `next` (low half).
    pub(super) const CONSUMED: usize = 64;
    /// `u64`: from (high half) and to (low half) `cmd_tail`, or'ed with 1; 0 if nothing is pending.
    pub(super) const PENDING: usize = 72;
    /// `u64`: the last `cmd_tail` that was published whole.
    pub(super) const PUBLISHED: usize = 80;
    /// `u64`: milliseconds; whatever was consumed later was queued after this.
    pub(super) const RESTED: usize = 88;
    /// `u64`: one more than the largest id that has a record.
    pub(super) const TOP: usize = 96;
    pub(super) const END: usize = super::PAGE;
}

mod record {
    use super::header;
    pub(super) const SIZE: usize = 64;
    pub(super) const COUNT: usize = 1 << 16;
    pub(super) const END: usize = header::END + SIZE * COUNT;
    /// `u64`: one of the states.
    pub(super) const STATE: usize = 0;
    /// `u64`: [`header::RESTED`] as it was.
    pub(super) const SINCE: usize = 8;
    /// `u32`: which command this is, counted like [`header::CONSUMED`].
    pub(super) const NUMBER: usize = 16;
    /// `u32`: number of segments.
    pub(super) const SEGMENTS: usize = 20;
    /// `u32`: page of the first.
    pub(super) const FIRST: usize = 24;
    /// `u8`: length of the CDB.
    pub(super) const CDB_LEN: usize = 28;
    /// `u8`: a [`Stage`](super::Stage).
    pub(super) const STAGE: usize = 29;
    /// `u8`: successors that have taken this command over.
    pub(super) const SUCCESSORS: usize = 30;
    pub(super) const CDB: usize = 32;
}

const FREE: u64 = 0;
const USED: u64 = 1;
const ANSWERED: u64 = 2;

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Storage was not asked for anything.
    New = 0,
    /// Storage may have done it, in part or as a whole.
    Begun = 1,
    /// The same, of COMPARE AND WRITE: its blocks held what was to be compared, and nobody else has changed them since.
    Compared = 3,
    /// It was done, its status is GOOD and there is no data for the initiator. Its data buffer may be spoilt.
    Good = 2,
}

/// Bytes of a segment: `u32` length, `u32` page of the next one.
const SEGMENT: usize = 8;

/// Why a ring cannot be gone on with from a journal. It must be reset.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be used.
    #[error("the journal cannot be used: {0}")]
    Io(io::Error),
    /// There is none, or it was abandoned, or another version's.
    #[error("there is no journal that is whole and of this version")]
    None,
    /// It is another ring's: of a device that is gone.
    #[error("the journal is of another device")]
    Foreign,
    /// Somebody else has moved the ring's cursors: a reset, or another handler.
    #[error("the ring is not where the journal left it: {0}")]
    Moved(&'static str),
    /// Successor after successor has failed with the same command.
    #[error("{0} processes in a row have died over one command")]
    Hopeless(u8),
    /// It contradicts itself.
    #[error("the journal is damaged: {0}")]
    Damaged(&'static str),
    /// The ring is not usable.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error) // without a `source`: the sentence says it
    }
}

impl From<OutOfBounds> for JournalError {
    fn from(_: OutOfBounds) -> Self {
        Self::Damaged("an offset")
    }
}

/// A file for a journal, and whose it is: bytes that no other ring has.
#[derive(Debug)]
pub struct JournalFile {
    /// A regular file on tmpfs, for reading and writing.
    pub file: OwnedFd,
    /// Names the ring's incarnation.
    pub incarnation: [u8; 32],
}

/// What the ring is like that the journal is kept for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) ring_len: usize,
    pub(crate) cmdr_size: u32,
    /// Where the data area begins.
    pub(crate) data_off: usize,
}

/// A command in progress, as a successor finds it.
#[derive(Debug)]
pub(crate) struct InProgress {
    pub(crate) id: CmdId,
    pub(crate) number: u32,
    pub(crate) stage: Stage,
    successors: u8,
    pub(crate) since: u64,
    pub(crate) cdb: Vec<u8>,
    /// Offset from the start of the ring's mapping, and length.
    pub(crate) segments: Vec<(usize, usize)>,
}

/// The journal of a ring, as its owner keeps it.
#[derive(Debug)]
pub(crate) struct Journal {
    file: OwnedFd,
    map: Mapping,
    incarnation: [u8; 32],
    shape: Shape,
    /// Which chunks of the file have been asked for.
    there: Vec<bool>,
    /// Commands consumed.
    number: u32,
    rested: u64,
    top: u64,
    /// Ids whose answers are written and not published.
    answered: Vec<CmdId>,
}

impl Journal {
    fn map(JournalFile { file, incarnation }: JournalFile, shape: Shape) -> io::Result<Self> {
        let pages = (shape.ring_len - shape.data_off).div_ceil(PAGE);
        let len = (record::END + pages * SEGMENT).next_multiple_of(CHUNK);
        nix::unistd::ftruncate(&file, i64::try_from(len).map_err(io::Error::other)?)?;
        let map = Mapping::new(&file, len)?;
        let there = vec![false; len / CHUNK];
        let (number, rested, top, answered) = (0, 0, 0, Vec::new());
        let mut journal = Self { file, map, incarnation, shape, there, number, rested, top, answered };
        journal.reserve(0, header::END)?;
        Ok(journal)
    }

    /// Begins a journal for a ring of which nothing is in progress.
    pub(crate) fn begin(file: JournalFile, shape: Shape, tail: u32) -> io::Result<Self> {
        nix::unistd::ftruncate(&file.file, 0)?;
        let mut journal = Self::map(file, shape)?;
        journal.restart(tail).map_err(io::Error::other)?;
        Ok(journal)
    }

    /// Starts over: nothing is in progress.
    pub(crate) fn restart(&mut self, tail: u32) -> Result<(), OutOfBounds> {
        self.void()?; // not half of the one and half of the other
        for id in 0..self.top {
            self.map.store_word(header::END + word(id) * record::SIZE + record::STATE, FREE)?;
        }
        self.answered.clear();
        self.map.write(header::INCARNATION, &self.incarnation)?;
        self.map.store_word(header::RING_LEN, self.shape.ring_len as u64)?;
        self.map.store_word(header::CMDR_SIZE, self.shape.cmdr_size.into())?;
        self.map.store_word(header::PENDING, 0)?;
        self.map.store_word(header::PUBLISHED, tail.into())?;
        self.map.store_word(header::RESTED, self.rested)?;
        self.map.store_word(header::TOP, self.top)?;
        self.map.store_word(header::CONSUMED, pair(self.number, tail))?;
        self.map.store_word(header::MAGIC, MAGIC)
    }

    /// Abandons the journal: the successor resets the ring.
    pub(crate) fn void(&mut self) -> Result<(), OutOfBounds> {
        self.map.store_word(header::MAGIC, 0)
    }

    /// Has the file system give what will be stored to.
    fn reserve(&mut self, offset: usize, len: usize) -> io::Result<()> {
        for chunk in offset / CHUNK..(offset + len).div_ceil(CHUNK) {
            let there = self.there.get_mut(chunk).ok_or(io::ErrorKind::InvalidInput)?;
            if !*there {
                let at = i64::try_from(chunk * CHUNK).map_err(io::Error::other)?;
                fallocate(&self.file, FallocateFlags::empty(), at, CHUNK as i64)?;
                *there = true;
            }
        }
        Ok(())
    }

    /// A command was copied out of the ring; `next` is where consuming goes on (J1).
    pub(crate) fn consume(
        &mut self,
        id: CmdId,
        cdb: &[u8],
        data: (&Mapping, &[IoVec]),
        next: u32,
    ) -> Result<(), JournalError> {
        let at = header::END + usize::from(id.0) * record::SIZE;
        self.reserve(at, record::SIZE)?;
        if u64::from(id.0) >= self.top {
            self.top = u64::from(id.0) + 1;
            self.map.store_word(header::TOP, self.top)?;
        }
        let ((ring, list), data_off) = (data, self.shape.data_off);
        let page_of = |iov: &IoVec| {
            let offset = ring.offset_of(iov).wrapping_sub(data_off);
            let page = u32::try_from(offset / PAGE).ok().filter(|_| offset.is_multiple_of(PAGE));
            page.ok_or(JournalError::Damaged("a segment does not begin with a page"))
        };
        let first = list.first().map_or(Ok(0), page_of)?;
        let mut page = first;
        for (index, iov) in list.iter().enumerate() {
            let after = list.get(index + 1).map_or(Ok(0), page_of)?;
            let len = u32::try_from(iov.len()).map_err(|_| JournalError::Damaged("a segment is too long"))?;
            let segment = record::END + page as usize * SEGMENT;
            self.reserve(segment, SEGMENT)?;
            self.map.store_word(segment, pair(after, len))?;
            page = after;
        }
        crash_point!("record-half");
        self.number = self.number.wrapping_add(1);
        let count = u32::try_from(list.len()).map_err(|_| JournalError::Damaged("segments"))?;
        self.map.write(at + record::SINCE, &self.rested.to_ne_bytes())?;
        self.map.write(at + record::NUMBER, &self.number.to_ne_bytes())?;
        self.map.write(at + record::SEGMENTS, &count.to_ne_bytes())?;
        self.map.write(at + record::FIRST, &first.to_ne_bytes())?;
        self.map.write(at + record::CDB_LEN, &[u8::try_from(cdb.len()).unwrap_or(0), Stage::New as u8, 0])?;
        self.map.write(at + record::CDB, cdb)?;
        crash_point!("record-whole");
        self.map.store_word(at + record::STATE, USED)?;
        crash_point!("record-used");
        self.passed(next)?;
        crash_point!("consumed");
        Ok(())
    }

    /// Consuming goes on at `next`.
    pub(crate) fn passed(&mut self, next: u32) -> Result<(), OutOfBounds> {
        self.map.store_word(header::CONSUMED, pair(self.number, next))
    }

    /// A command has come so far.
    pub(crate) fn reached(&mut self, id: CmdId, stage: Stage) -> Result<(), OutOfBounds> {
        self.map.write(header::END + usize::from(id.0) * record::SIZE + record::STAGE, &[stage as u8])?;
        // Whoever says so does the next step: it must not be moved before this, and these are plain stores.
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }

    /// The answer of a command is about to be written to a slot.
    pub(crate) fn answer(&mut self, id: CmdId) -> Result<(), OutOfBounds> {
        self.set_state(id, ANSWERED)?;
        self.answered.push(id);
        Ok(())
    }

    /// `cmd_tail` is about to be moved over all answers written (J2).
    pub(crate) fn publish(&mut self, from: u32, to: u32) -> Result<(), OutOfBounds> {
        self.map.store_word(header::PENDING, pair(from, to | 1))
    }

    /// It has been.
    pub(crate) fn published(&mut self, to: u32) -> Result<(), OutOfBounds> {
        for index in 0..self.answered.len() {
            self.set_state(self.answered[index], FREE)?;
            crash_point!("publish-half");
        }
        self.answered.clear();
        self.map.store_word(header::PUBLISHED, to.into())?;
        self.map.store_word(header::PENDING, 0)
    }

    /// The ring is empty at this time, in milliseconds of a clock that all processes of this host share.
    pub(crate) fn rested(&mut self, now: u64) -> Result<(), OutOfBounds> {
        self.rested = now;
        self.map.store_word(header::RESTED, now)
    }

    fn set_state(&self, id: CmdId, state: u64) -> Result<(), OutOfBounds> {
        self.map.store_word(header::END + usize::from(id.0) * record::SIZE + record::STATE, state)
    }
}

/// What a predecessor has left.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) journal: Journal,
    /// Where consuming goes on.
    pub(crate) next: u32,
    /// In the order in which they were consumed.
    pub(crate) in_progress: Vec<InProgress>,
}

/// So many successors may die, or give up, with the same command. Then it is the command's fault.
const SUCCESSORS: u8 = 32;

impl Journal {
    /// Reads what a predecessor left of a ring whose `cmd_tail` is `tail`. Stores nothing that a second successor would
    /// read otherwise.
    pub(crate) fn recover(file: JournalFile, shape: Shape, tail: u32) -> Result<Found, JournalError> {
        let size = nix::sys::stat::fstat(&file.file).map_err(io::Error::from)?.st_size;
        if usize::try_from(size).unwrap_or(0) < record::END {
            return Err(JournalError::None);
        }
        let mut journal = Self::map(file, shape)?;
        let map = &journal.map;
        if map.load_word(header::MAGIC)? != MAGIC {
            return Err(JournalError::None);
        }
        if map.read(header::INCARNATION)? != journal.incarnation
            || map.load_word(header::RING_LEN)? != shape.ring_len as u64
            || map.load_word(header::CMDR_SIZE)? != u64::from(shape.cmdr_size)
        {
            return Err(JournalError::Foreign);
        }
        let (number, next) = halves(map.load_word(header::CONSUMED)?);
        let (top, rested) = (map.load_word(header::TOP)?, map.load_word(header::RESTED)?);
        if top > record::COUNT as u64 {
            return Err(JournalError::Damaged("its number of records"));
        }
        (journal.number, journal.rested, journal.top) = (number, rested, top);
        journal.reserve(header::END, word(top) * record::SIZE)?;
        journal.settle(tail)?;
        let mut in_progress = Vec::new();
        let mut room = (journal.map.len() - record::END) / SEGMENT;
        for id in (0..=u16::MAX).take(word(top)) {
            let found = journal.read(CmdId(id), &mut room)?;
            if let Some(found) = &found
                && found.successors >= SUCCESSORS
            {
                return Err(JournalError::Hopeless(found.successors));
            }
            in_progress.extend(found);
        }
        // By age, across the counter's wrap.
        in_progress.sort_by_key(|found| std::cmp::Reverse(number.wrapping_sub(found.number)));
        Ok(Found { journal, next, in_progress })
    }

    /// The successor goes on with this command.
    pub(crate) fn adopt(&mut self, found: &InProgress) -> Result<(), OutOfBounds> {
        let successors = found.successors.saturating_add(1);
        self.map
            .write(header::END + usize::from(found.id.0) * record::SIZE + record::SUCCESSORS, &[successors])
    }

    /// Ends what the predecessor was about to publish, or had published. Whoever dies in here is followed by one who
    /// decides the same again: `pending` is the last to go.
    fn settle(&mut self, tail: u32) -> Result<(), JournalError> {
        let pending = self.map.load_word(header::PENDING)?;
        let was_published = if pending == 0 {
            if self.map.load_word(header::PUBLISHED)? != u64::from(tail) {
                return Err(JournalError::Moved("cmd_tail"));
            }
            false
        } else {
            let (from, to) = halves(pending & !1);
            if from != tail && to != tail {
                return Err(JournalError::Moved("cmd_tail, which was about to be published"));
            }
            to == tail
        };
        for id in 0..self.top {
            let at = header::END + word(id) * record::SIZE;
            let after = match self.map.load_word(at + record::STATE)? {
                FREE | USED => continue,
                ANSWERED if was_published => FREE,
                ANSWERED => USED,
                _ => return Err(JournalError::Damaged("the state of a record")),
            };
            self.map.store_word(at + record::STATE, after)?;
        }
        // Consumed in part only: its entry is still to be consumed (J1).
        for id in 0..self.top {
            let at = header::END + word(id) * record::SIZE;
            let number = u32::from_ne_bytes(self.map.read(at + record::NUMBER)?);
            if self.map.load_word(at + record::STATE)? == USED && number == self.number.wrapping_add(1) {
                self.map.store_word(at + record::STATE, FREE)?;
            }
        }
        self.map.store_word(header::PUBLISHED, tail.into())?;
        self.map.store_word(header::PENDING, 0)?;
        Ok(())
    }

    /// `room`: how many segments there may be yet. A page is one command's, so more are a chain without an end.
    fn read(&mut self, id: CmdId, room: &mut usize) -> Result<Option<InProgress>, JournalError> {
        let at = header::END + usize::from(id.0) * record::SIZE;
        if self.map.load_word(at + record::STATE)? != USED {
            return Ok(None);
        }
        let number = u32::from_ne_bytes(self.map.read(at + record::NUMBER)?);
        let count = u32::from_ne_bytes(self.map.read(at + record::SEGMENTS)?);
        let mut page = u32::from_ne_bytes(self.map.read(at + record::FIRST)?);
        let [cdb_len, stage, successors] = self.map.read(at + record::CDB_LEN)?;
        let stages = [Stage::New, Stage::Begun, Stage::Good, Stage::Compared];
        let stage = stages.get(usize::from(stage)).ok_or(JournalError::Damaged("the stage of a command"))?;
        let cdb: [u8; record::SIZE - record::CDB] = self.map.read(at + record::CDB)?;
        let cdb = cdb.get(..cdb_len.into()).ok_or(JournalError::Damaged("the length of a CDB"))?.to_vec();
        let since = u64::from_ne_bytes(self.map.read(at + record::SINCE)?);
        let mut segments = Vec::new();
        *room = room.checked_sub(count as usize).ok_or(JournalError::Damaged("the number of segments"))?;
        for _ in 0..count {
            let segment = record::END + page as usize * SEGMENT;
            if segment + SEGMENT > self.map.len() {
                return Err(JournalError::Damaged("a segment"));
            }
            self.reserve(segment, SEGMENT)?;
            let (after, len) = halves(self.map.load_word(segment)?);
            segments.push((self.shape.data_off + page as usize * PAGE, len as usize));
            page = after;
        }
        Ok(Some(InProgress { id, number, stage: *stage, successors, since, cdb, segments }))
    }

    /// See [`header::RESTED`].
    pub(crate) fn last_rest(&self) -> u64 {
        self.rested
    }
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[allow(clippy::cast_possible_truncation, reason = "the halves")]
fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// An id, which has 16 bits, as an index.
fn word(id: u64) -> usize {
    usize::try_from(id).unwrap_or(record::COUNT)
}
