//! GET LBA STATUS: which blocks storage has something for.
//!
//! What storage has nothing for reads as zeros, and giving it back is what UNMAP does here: it is deallocated. A
//! block that has something in any part of it is mapped; none is ever anchored. Storage that cannot tell makes
//! blocks mapped too: the same code stands for "not known" (SBC-3, "LBA status descriptor").
//!
//! The reply ends where the allocation length does, where the disk does, or after a bounded part of the disk (the
//! standard leaves it to the device server how much it reports; the initiator asks on from there).

use super::job::{Answer, DataOut, Memory, Steps, Task};
use super::pieces::Pieces;
use super::{Job, LogicalUnit, Outcome, Step};
use crate::block::{BackendError, ByteRange, ErrorKind, Op};
use crate::scsi::lba_status::{Run, report, room};
use crate::scsi::{Blocks, Extent, Lba, Sense};

/// Objects that storage looks at in one operation: bounds the time it takes and the length of its answer.
const PIECE_OBJECTS: u64 = 256;
/// Operations for one command: with objects of 4 MiB it is told about 8 GiB. Without an object map storage looks at each
/// object, some 0.2 s for a piece; other such commands wait meanwhile, and so does an erasure.
const PIECES: u32 = 8;
/// Most descriptors in a reply.
const DESCRIPTORS: usize = 4096;

pub(super) fn get(unit: &LogicalUnit, lba: Lba, scan: Blocks, allocation: u32) -> Result<Step, Sense> {
    // SBC-3, the command's clause: at least the starting block must be there.
    let Some(blocks @ 1..) = unit.blocks.checked_sub(lba.0) else { return Err(Sense::LBA_OUT_OF_RANGE) };
    let blocks = if scan.0 == 0 { blocks } else { blocks.min(scan.0) };
    let range = unit.locate(Extent { lba, blocks: Blocks(blocks) })?;
    // SPC-4, "Allocation length": none is not an error.
    if allocation == 0 {
        return Ok(Step::Done(Outcome::Good));
    }
    let piece = unit.whole_blocks(unit.limits.object_size.saturating_mul(PIECE_OBJECTS));
    let status = LbaStatus {
        rest: Pieces::new(range, piece),
        left: PIECES,
        asking: false,
        runs: Runs {
            block_size: unit.block_size.into(),
            room: room(allocation).min(DESCRIPTORS),
            ..Runs::default()
        },
        end: range.offset.saturating_add(range.len),
        allocation,
    };
    Ok(Step::Run(Job::many(status)))
}

/// What is left to look at, and what has been found.
#[derive(Debug)]
struct LbaStatus {
    rest: Pieces,
    /// Operations left.
    left: u32,
    /// Whether one is out. The answers are needed in order, and the first may be enough.
    asking: bool,
    runs: Runs,
    /// Where the disk, or what is asked about, ends, in bytes.
    end: u64,
    allocation: u32,
}

impl LbaStatus {
    fn is_over(&self) -> bool {
        self.left == 0 || self.rest.is_empty() || self.runs.is_full()
    }
}

impl Steps for LbaStatus {
    fn next_task(&mut self) -> Option<Task> {
        if self.asking || self.is_over() {
            return None;
        }
        let range = self.rest.next()?;
        self.left -= 1;
        self.asking = true;
        Some(Task { op: Op::Extents(range), memory: Memory::None })
    }

    fn accept(&mut self, op: Op, Answer { extents, .. }: Answer, _: DataOut<'_>) -> Result<(), Outcome> {
        self.asking = false;
        let Op::Extents(range) = op else { return Err(Sense::INTERNAL_FAILURE.into()) };
        self.runs.extend(range, &extents);
        Ok(())
    }

    fn recover(&mut self, op: Op, error: BackendError) -> Result<(), BackendError> {
        self.asking = false;
        match (op, error.kind) {
            // Storage that cannot tell this part cannot tell any.
            (Op::Extents(ByteRange { offset, .. }), ErrorKind::Invalid) => {
                let all = ByteRange { offset, len: self.end.saturating_sub(offset) };
                self.runs.extend(all, &[all]);
                self.left = 0;
                Ok(())
            }
            // The image was shrunk: what has been found so far is an answer, and the end is found by asking on.
            (Op::Extents(_), ErrorKind::PastEnd) if !self.runs.found.is_empty() => {
                self.left = 0;
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn is_exhausted(&self) -> bool {
        !self.asking && self.is_over()
    }

    fn conclude(&mut self, reply: &mut Vec<u8>) -> Step {
        report(&self.runs.found, reply);
        reply.truncate(usize::try_from(self.allocation).unwrap_or(usize::MAX));
        Step::Reply
    }
}

/// Runs of blocks found so far, as many as there is room for.
#[derive(Debug, Default)]
struct Runs {
    found: Vec<Run>,
    room: usize,
    /// Bytes per block.
    block_size: u64,
}

impl Runs {
    /// Whether nothing more would be of use. What would make the last run longer is not looked for: the initiator
    /// learns of it when it asks on.
    fn is_full(&self) -> bool {
        self.found.len() >= self.room
    }

    /// Adds a part of the disk that begins where the last ended; within it are the `extents` that storage has
    /// something for, in ascending order. A block that two of them share counts once.
    fn extend(&mut self, range: ByteRange, extents: &[ByteRange]) {
        let block = self.block_size;
        let mut at = range.offset / block;
        let end = range.offset.saturating_add(range.len).div_ceil(block);
        for extent in extents {
            let first = (extent.offset / block).clamp(at, end);
            let last = extent.offset.saturating_add(extent.len).div_ceil(block).clamp(first, end);
            self.push(at, first, false);
            self.push(first, last, true);
            at = last;
        }
        self.push(at, end, false);
    }

    fn push(&mut self, mut at: u64, end: u64, mapped: bool) {
        const MAX: u64 = u32::MAX as u64;
        while at < end {
            let full = self.is_full();
            let goes_on = |last: &&mut Run| {
                last.mapped == mapped && last.blocks.0 < MAX && last.lba.0 + last.blocks.0 == at
            };
            if let Some(last) = self.found.last_mut().filter(goes_on) {
                let more = (end - at).min(MAX - last.blocks.0);
                last.blocks.0 += more;
                at += more;
            } else if full {
                return;
            } else {
                let blocks = (end - at).min(MAX);
                self.found.push(Run { lba: Lba(at), blocks: Blocks(blocks), mapped });
                at += blocks;
            }
        }
    }
}
