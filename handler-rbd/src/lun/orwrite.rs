//! ORWRITE: the data buffer is ORed into the blocks, each block atomically against every other writer.
//!
//! Blocks are read, and each one that the data changes is written by comparing it with what was read. One that
//! somebody changed in between is read and tried again: each time that happens another writer has got on, so
//! somebody always does. What was written is what OR makes of some state the block was in, and a block that
//! has all the bits already shows the result without being written.
//!
//! A command that loses too often ends with BUSY. Some of its blocks may have been written by then; that does no
//! harm, because doing it again changes nothing about them.

use super::job::{Answer, DataOut, Memory, Steps, Task};
use super::outcome::{Direction, of_failure};
use super::pieces::Pieces;
use super::{Job, LogicalUnit, Outcome, Step, Transfer};
use crate::block::{BackendError, ByteRange, ErrorKind, Op};
use crate::scsi::{Extent, Sense};
use std::collections::VecDeque;

/// Bytes read at a time. They are written, and three times as many are in memory, before the next are read.
const PIECE: u64 = 64 << 10;

/// How often a command's blocks may be found changed before it gives up.
const LOSSES: u32 = 1024;

pub(super) fn orwrite(unit: &LogicalUnit, extent: Extent, transfer: Transfer) -> Result<Step, Sense> {
    if unit.max_compare_and_write() == 0 {
        return Err(Sense::INVALID_OPCODE);
    }
    let range = unit.locate(extent)?;
    if range.len != transfer.bytes() {
        return Err(Sense::TRANSFER_LENGTH);
    }
    // SBC-3, "ORWRITE (16) command": no blocks, no error.
    if range.len == 0 {
        return Ok(Step::Done(Outcome::Good));
    }
    let steps = OrWrite {
        offset: range.offset,
        block_size: unit.block_size.into(),
        unread: Pieces::new(range, unit.whole_blocks(PIECE)),
        reading: None,
        changed: Vec::new(),
        ready: VecDeque::new(),
        losses: 0,
    };
    // FUA needs no care: every write is durable when it completes.
    Ok(Step::Run(Job::many(steps)))
}

/// What is left to read and to write.
#[derive(Debug)]
struct OrWrite {
    /// First byte of the extent.
    offset: u64,
    block_size: u64,
    /// Not read yet.
    unread: Pieces,
    /// The piece being read.
    reading: Option<ByteRange>,
    /// Blocks that somebody else changed: to be read again.
    changed: Vec<ByteRange>,
    /// Blocks to be written: what they held, then what they are to hold.
    ready: VecDeque<(ByteRange, Vec<u8>)>,
    losses: u32,
}

impl OrWrite {
    /// Makes the blocks that were read ready to be written.
    fn merge(&mut self, range: ByteRange, old: &[u8], data_out: DataOut<'_>) -> Option<()> {
        let mut new = vec![0; usize::try_from(range.len).ok()?];
        let at = usize::try_from(range.offset.checked_sub(self.offset)?).ok()?;
        if old.len() != new.len() || data_out(at, &mut new) != new.len() {
            return None;
        }
        new.iter_mut().zip(old).for_each(|(new, old)| *new |= old);
        let block = usize::try_from(self.block_size).ok()?;
        let offsets = (range.offset..).step_by(block);
        for ((old, new), offset) in old.chunks(block).zip(new.chunks(block)).zip(offsets) {
            if old != new {
                self.ready.push_back((ByteRange { offset, len: self.block_size }, [old, new].concat()));
            }
        }
        Some(())
    }
}

impl Steps for OrWrite {
    fn next_task(&mut self) -> Option<Task> {
        if let Some((range, both)) = self.ready.pop_front() {
            return Some(Task { op: Op::CompareAndWrite(range), memory: Memory::Owned(both) });
        }
        let range = match self.changed.pop() {
            Some(range) => range,
            None if self.reading.is_some() => return None,
            None => {
                self.reading = self.unread.next();
                self.reading?
            }
        };
        let memory = Memory::Private(usize::try_from(range.len).unwrap_or(usize::MAX));
        Some(Task { op: Op::Read(range), memory })
    }

    fn accept(&mut self, op: Op, Answer { data, .. }: Answer, data_out: DataOut<'_>) -> Result<(), Outcome> {
        let Op::Read(range) = op else { return Ok(()) };
        // A block is not read again before its piece is.
        self.reading = self.reading.filter(|&piece| piece != range);
        self.merge(range, &data, data_out).ok_or(Sense::INTERNAL_FAILURE.into())
    }

    fn recover(&mut self, op: Op, error: BackendError) -> Result<(), BackendError> {
        match (op, error.kind) {
            (Op::CompareAndWrite(range), ErrorKind::Miscompare { .. }) if self.losses < LOSSES => {
                self.losses += 1;
                self.changed.push(range);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn failure(&self, op: Op, error: BackendError) -> Outcome {
        match (op, error.kind) {
            (_, ErrorKind::Miscompare { .. }) => Outcome::Busy,
            (Op::Read(_), _) => of_failure(error, Direction::Read),
            _ => of_failure(error, Direction::Write),
        }
    }

    fn is_exhausted(&self) -> bool {
        self.ready.is_empty() && self.changed.is_empty() && self.reading.is_none() && self.unread.is_empty()
    }
}
