//! VERIFY and WRITE AND VERIFY: blocks are read back and, if asked for, compared with the data buffer.

use super::job::{Answer, DataOut, Memory, Steps, Task};
use super::pieces::Pieces;
use super::{Job, LogicalUnit, Outcome, Step, Transfer};
use crate::block::{ByteRange, Op};
use crate::scsi::command::ByteCheck;
use crate::scsi::{Extent, Sense};

/// Bytes read back at a time: large enough to be efficient, small enough to have several in memory for each
/// of many commands.
const PIECE: u64 = 256 << 10;

/// Bytes of the data buffer looked at at a time.
const GLANCE: usize = 4096;

/// VERIFY (10), (12), (16).
pub(super) fn verify(
    unit: &LogicalUnit,
    extent: Extent,
    check: ByteCheck,
    transfer: Transfer,
) -> Result<Step, Sense> {
    let range = unit.locate(extent)?;
    let expected = match check {
        ByteCheck::Medium => None,
        ByteCheck::Blocks => Some(range.len),
        // SBC-3, "VERIFY (10) command": of no blocks none is transferred either.
        ByteCheck::OneBlock => Some(range.len.min(u64::from(unit.block_size))),
    };
    if expected.is_some_and(|expected| expected != transfer.bytes()) {
        return Err(Sense::TRANSFER_LENGTH);
    }
    Ok(start(Verify::new(unit, range, check), range))
}

/// WRITE AND VERIFY (10), (12), (16).
pub(super) fn write_and_verify(
    unit: &LogicalUnit,
    extent: Extent,
    check: ByteCheck,
    transfer: Transfer,
) -> Result<Step, Sense> {
    let range = unit.locate(extent)?;
    if range.len != transfer.bytes() {
        return Err(Sense::TRANSFER_LENGTH);
    }
    Ok(start(Verify { write: Some(range), ..Verify::new(unit, range, check) }, range))
}

fn start(verify: Verify, range: ByteRange) -> Step {
    // SBC-3, both commands: no blocks, no error.
    if range.len == 0 {
        return Step::Done(Outcome::Good);
    }
    Step::Run(Job::many(verify))
}

/// What is left to write, to read back and to compare.
#[derive(Debug)]
pub(super) struct Verify {
    /// To be written before anything is read.
    write: Option<ByteRange>,
    writing: bool,
    back: Pieces,
    /// First byte of the extent.
    offset: u64,
    check: ByteCheck,
    block_size: u32,
}

impl Verify {
    fn new(unit: &LogicalUnit, range: ByteRange, check: ByteCheck) -> Self {
        let back = Pieces::new(range, unit.whole_blocks(PIECE));
        Self { write: None, writing: false, back, offset: range.offset, check, block_size: unit.block_size }
    }
}

impl Steps for Verify {
    fn next_task(&mut self) -> Option<Task> {
        if let Some(range) = self.write.take() {
            self.writing = true;
            return Some(Task { op: Op::Write(range), memory: Memory::Command });
        }
        if self.writing {
            return None;
        }
        let range = self.back.next()?;
        let memory = Memory::Private(usize::try_from(range.len).unwrap_or(usize::MAX));
        Some(Task { op: Op::Read(range), memory })
    }

    fn accept(&mut self, op: Op, Answer { data, .. }: Answer, data_out: DataOut<'_>) -> Result<(), Outcome> {
        let Op::Read(range) = op else {
            self.writing = false;
            return Ok(());
        };
        if u64::try_from(data.len()) != Ok(range.len) {
            return Err(Sense::INTERNAL_FAILURE.into());
        }
        let at = range.offset.saturating_sub(self.offset);
        let difference = match self.check {
            ByteCheck::Medium => None,
            ByteCheck::Blocks => first_difference(&data, at, data_out),
            ByteCheck::OneBlock => {
                let len = usize::try_from(self.block_size).unwrap_or(usize::MAX);
                let mut blocks = data.chunks(len).zip(0..);
                blocks.find_map(|(block, n)| Some(n * len + first_difference(block, 0, data_out)?))
            }
        };
        match difference {
            None => Ok(()),
            Some(difference) => {
                // SBC-3, "Error reporting": INFORMATION is the LBA. Only COMPARE AND WRITE has an offset there.
                let byte = range.offset.saturating_add(u64::try_from(difference).unwrap_or(0));
                Err(Sense::miscompare(byte / u64::from(self.block_size)).into())
            }
        }
    }

    fn is_exhausted(&self) -> bool {
        self.write.is_none() && !self.writing && self.back.is_empty()
    }
}

/// Where `have` first differs from the data buffer's bytes from `at` on. Bytes that are not there differ.
fn first_difference(have: &[u8], at: u64, data_out: DataOut<'_>) -> Option<usize> {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let mut buffer = [0; GLANCE];
    for (piece, start) in have.chunks(GLANCE).zip((0..).step_by(GLANCE)) {
        let want = &mut buffer[..piece.len()];
        let there = data_out(at.saturating_add(start), want);
        if there == want.len() && *want == *piece {
            continue;
        }
        let same = piece.iter().zip(&want[..there.min(piece.len())]).take_while(|(a, b)| a == b).count();
        return Some(start + same);
    }
    None
}
