//! An erasure's operations: the note first, then every pass over the disk, then the note away.

use super::plan::Plan;
use crate::block::{BackendError, ByteRange, ErrorKind, Op};
use crate::lun::Outcome;
use crate::lun::job::{Answer, DataOut, Memory, Steps, Task};
use crate::lun::outcome::{Direction, of_failure};
use crate::lun::pieces::Pieces;

/// Where an erasure is. Each stage begins when all of the one before has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The note is being stored, so that from here on a successor goes on.
    Note,
    /// A pass, from 0 on.
    Pass(u8),
    Flush,
    /// The note is being taken away.
    Done,
    Over,
}

/// An erasure under way.
#[derive(Debug)]
pub(super) struct Erasure {
    plan: Plan,
    disk: ByteRange,
    /// Operations end at multiples of this many bytes.
    piece: u64,
    block_size: u32,
    /// Whether the command waits for no more than the note.
    immediate: bool,
    stage: Stage,
    /// What is left of the pass.
    rest: Pieces,
    /// What the pass leaves in a block; empty: zeros.
    block: Vec<u8>,
    /// Operations taken and not back.
    out: u32,
    /// Bytes done, over all passes.
    done: u128,
}

impl Erasure {
    pub(super) fn new(plan: Plan, size: u64, piece: u64, block_size: u32, immediate: bool) -> Self {
        let disk = ByteRange { offset: 0, len: size };
        let rest = Pieces::new(disk, piece);
        let block = Vec::new();
        let stage = Stage::Note;
        Self { plan, disk, piece, block_size, immediate, stage, rest, block, out: 0, done: 0 }
    }

    fn begin(&mut self, pass: u8) -> Stage {
        if self.disk.len == 0 || pass >= self.plan.content.passes() {
            return Stage::Flush;
        }
        self.rest = Pieces::new(self.disk, self.piece);
        self.block = self.plan.content.block(self.block_size, pass);
        Stage::Pass(pass)
    }

    fn fill(&self, range: ByteRange) -> Task {
        if self.block.is_empty() {
            return Task { op: Op::WriteZeroes(range), memory: Memory::None };
        }
        let op = Op::WriteSame { range, pattern: self.block_size };
        Task { op, memory: Memory::Owned(self.block.clone()) }
    }
}

impl Steps for Erasure {
    fn next_task(&mut self) -> Option<Task> {
        let task = match self.stage {
            Stage::Pass(_) => {
                let range = self.rest.next()?;
                self.fill(range)
            }
            _ if self.out > 0 => return None,
            Stage::Note => Task { op: Op::SetNote, memory: Memory::Owned(self.plan.note().into_bytes()) },
            Stage::Flush => Task { op: Op::Flush, memory: Memory::None },
            Stage::Done => Task { op: Op::SetNote, memory: Memory::None },
            Stage::Over => return None,
        };
        self.out += 1;
        Some(task)
    }

    fn accept(&mut self, op: Op, _: Answer, _: DataOut<'_>) -> Result<(), Outcome> {
        self.out = self.out.saturating_sub(1);
        if let Op::WriteZeroes(range) | Op::WriteSame { range, .. } = op {
            self.done += u128::from(range.len);
        }
        if self.out == 0 {
            self.stage = match self.stage {
                Stage::Note => self.begin(0),
                Stage::Pass(pass) if self.rest.is_empty() => self.begin(pass + 1),
                Stage::Pass(pass) => Stage::Pass(pass),
                Stage::Flush => Stage::Done,
                Stage::Done | Stage::Over => Stage::Over,
            };
        }
        Ok(())
    }

    fn early_answer(&mut self) -> Option<Outcome> {
        let now = self.immediate && self.stage != Stage::Note;
        self.immediate &= !now;
        now.then_some(Outcome::Good)
    }

    fn is_exhausted(&self) -> bool {
        self.stage == Stage::Over
    }

    fn failure(&self, _: Op, error: BackendError) -> Outcome {
        match error.kind {
            ErrorKind::Io => self.plan.cause.command_failed().into(),
            _ => of_failure(error, Direction::Write),
        }
    }

    /// In parts of 65536. Never 65536, which the field cannot say.
    fn progress(&self) -> u16 {
        let all = u128::from(self.disk.len) * u128::from(self.plan.content.passes());
        let parts = (self.done << 16).checked_div(all).unwrap_or(0);
        u16::try_from(parts).unwrap_or(u16::MAX)
    }
}

/// What EXIT FAILURE MODE does: the note is taken away, so that no successor goes on.
#[derive(Debug, Default)]
pub(super) struct Exit {
    taken: bool,
}

impl Steps for Exit {
    fn next_task(&mut self) -> Option<Task> {
        let task = Task { op: Op::SetNote, memory: Memory::None };
        (!std::mem::replace(&mut self.taken, true)).then_some(task)
    }

    fn accept(&mut self, _: Op, _: Answer, _: DataOut<'_>) -> Result<(), Outcome> {
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lun::erase::plan::{Cause, Content};

    const SANITIZE: Cause = Cause::Sanitize { unrestricted: false };

    fn erasure(size: u64, content: Content) -> Erasure {
        Erasure::new(Plan { cause: SANITIZE, content }, size, 4096, 512, false)
    }

    /// Lets everything that can be taken come back in this order; what it was.
    fn round(erasure: &mut Erasure, reverse: bool) -> Vec<Task> {
        let mut tasks: Vec<_> = std::iter::from_fn(|| erasure.next_task()).collect();
        if reverse {
            tasks.reverse();
        }
        for task in &tasks {
            erasure.accept(task.op, Answer::default(), &|_, _| 0).unwrap();
        }
        tasks
    }

    const fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange { offset, len }
    }

    #[test]
    fn stages_do_not_overlap() {
        let content = Content::Pattern { bytes: b"ab".to_vec(), invert: true, passes: 2 };
        let mut erasure = erasure(6144, content);
        let note = b"sanitize overwrite passes=2 invert pattern=6162".to_vec();
        assert_eq!(round(&mut erasure, false), [Task { op: Op::SetNote, memory: Memory::Owned(note) }]);
        let same = |range, block: &[u8; 2]| Task {
            op: Op::WriteSame { range, pattern: 512 },
            memory: Memory::Owned(block.repeat(256)),
        };
        let first = [same(range(0, 4096), b"ab"), same(range(4096, 2048), b"ab")];
        assert_eq!(round(&mut erasure, false), first);
        let second = [same(range(4096, 2048), &[0x9e, 0x9d]), same(range(0, 4096), &[0x9e, 0x9d])];
        assert_eq!(round(&mut erasure, true), second);
        assert_eq!(round(&mut erasure, false), [Task { op: Op::Flush, memory: Memory::None }]);
        assert!(!erasure.is_exhausted());
        assert_eq!(round(&mut erasure, false), [Task { op: Op::SetNote, memory: Memory::None }]);
        assert!(erasure.is_exhausted());
        assert_eq!(round(&mut erasure, false), []);
    }

    #[test]
    fn a_disk_of_nothing() {
        let mut erasure = erasure(0, Content::Zeroes);
        let stages: Vec<_> = (0..4).map(|_| round(&mut erasure, false).len()).collect();
        assert_eq!((stages, erasure.is_exhausted(), erasure.progress()), (vec![1, 1, 1, 0], true, 0));
    }

    #[test]
    fn progress_does_not_wrap_nor_go_back() {
        for size in [512, 6144, 1 << 30, 1 << 52, u64::MAX - 511] {
            let content = Content::Pattern { bytes: vec![1], invert: false, passes: 31 };
            let plan = Plan { cause: SANITIZE, content };
            let piece = size / 3 / 512 * 512 + 512;
            let mut erasure = Erasure::new(plan, size, piece, 512, false);
            let (mut last, mut steps) = (0, 0);
            while let Some(task) = erasure.next_task() {
                erasure.accept(task.op, Answer::default(), &|_, _| 0).unwrap();
                assert!(erasure.progress() >= last, "{size}: {} after {last}", erasure.progress());
                last = erasure.progress();
                steps += 1;
                if erasure.stage == Stage::Pass(15) && erasure.done == u128::from(size) * 15 {
                    assert_eq!(last, 31_710); // 15/31 of 65536
                }
            }
            assert_eq!(last, 0xffff, "{size}");
            assert!(steps > 31 && erasure.is_exhausted());
        }
    }
}
