//! Extents that all get the same content, in pieces: UNMAP and WRITE SAME.

use super::Outcome;
use super::job::{Answer, DataOut, Memory, Steps, Task};
use super::pieces::Pieces;
use crate::block::{ByteRange, Op};

/// Most block descriptors in one UNMAP; also what the Block Limits page says.
pub const MAX_UNMAP_DESCRIPTORS: usize = 4;

/// What to fill with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Zeroes,
    /// Repetitions of so many first bytes of the command's data buffer.
    Pattern(u32),
}

/// The extents, and what is left of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    content: Content,
    /// Operations end at multiples of this many bytes.
    piece: u64,
    extents: [Pieces; MAX_UNMAP_DESCRIPTORS],
    len: usize,
    /// Extents that are over.
    over: usize,
    /// Whether there is one operation only, which may then have the command's data buffer to itself.
    alone: bool,
}

impl Fill {
    /// No extents yet, to become zeros. Operations end at multiples of `piece` bytes.
    pub(super) fn zeroes(piece: u64) -> Self {
        Self::new(Content::Zeroes, piece)
    }

    /// An extent to be filled with the first `pattern` bytes of the data buffer, repeated; `pattern` divides
    /// `piece`.
    pub(super) fn pattern(range: ByteRange, pattern: u32, piece: u64) -> Self {
        let mut fill = Self::new(Content::Pattern(pattern), piece);
        fill.push(range);
        fill
    }

    fn new(content: Content, piece: u64) -> Self {
        let none = Pieces::new(ByteRange { offset: 0, len: 0 }, 0);
        let extents = [none; MAX_UNMAP_DESCRIPTORS];
        Self { content, piece, extents, len: 0, over: 0, alone: false }
    }

    /// Adds an extent; false if there is no room.
    pub(super) fn push(&mut self, range: ByteRange) -> bool {
        let Some(place) = self.extents.get_mut(self.len) else { return false };
        *place = Pieces::new(range, self.piece);
        self.alone = self.len == 0 && place.is_one();
        self.len += 1;
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Steps for Fill {
    fn next_task(&mut self) -> Option<Task> {
        let range = loop {
            let extent = self.extents[..self.len].get_mut(self.over)?;
            match extent.next() {
                Some(range) => break range,
                None => self.over += 1,
            }
        };
        Some(match self.content {
            Content::Zeroes => Task { op: Op::WriteZeroes(range), memory: Memory::None },
            Content::Pattern(pattern) => {
                let memory = match usize::try_from(pattern) {
                    Ok(len) if !self.alone => Memory::Copy(len),
                    _ => Memory::Command,
                };
                Task { op: Op::WriteSame { range, pattern }, memory }
            }
        })
    }

    fn accept(&mut self, _: Op, _: Answer, _: DataOut<'_>) -> Result<(), Outcome> {
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        self.extents[self.over..self.len].iter().all(Pieces::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange { offset, len }
    }

    fn tasks(mut fill: Fill) -> Vec<(Op, Memory)> {
        let tasks = std::iter::from_fn(|| fill.next_task()).map(|task| (task.op, task.memory)).collect();
        assert!(fill.is_exhausted());
        tasks
    }

    #[test]
    fn extents_are_bounded() {
        let mut fill = Fill::zeroes(4096);
        assert!(fill.is_empty() && fill.is_exhausted());
        for _ in 0..4 {
            assert!(fill.push(range(0, 512)));
        }
        assert!(!fill.push(range(0, 512)));
    }

    #[test]
    fn zeroes_in_pieces() {
        let mut fill = Fill::zeroes(4096);
        assert!(fill.push(range(512, 8192)) && fill.push(range(0, 512)));
        let zeroes = |offset, len| (Op::WriteZeroes(range(offset, len)), Memory::None);
        assert_eq!(tasks(fill), [zeroes(512, 3584), zeroes(4096, 4096), zeroes(8192, 512), zeroes(0, 512)]);
    }

    #[test]
    fn a_pattern_is_copied_only_if_several_need_it() {
        let same = |offset, len| Op::WriteSame { range: range(offset, len), pattern: 512 };
        assert_eq!(tasks(Fill::pattern(range(512, 3584), 512, 4096)), [(same(512, 3584), Memory::Command)]);
        let copied = || Memory::Copy(512);
        let two = [(same(512, 3584), copied()), (same(4096, 512), copied())];
        assert_eq!(tasks(Fill::pattern(range(512, 4096), 512, 4096)), two);
    }
}
