//! The data area: blocks handed out lowest first, recycled dirty, watched while free.

use super::fault::Fault;
use super::memory::Memory;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

const POISON: u8 = 0xa5;

/// One scatter-gather element as the ring carries it: offset in the mapping, length.
pub(super) type Iov = (u64, u64);

/// Block allocator and contents of the data area.
#[derive(Debug)]
pub(super) struct DataArea {
    start: usize,
    block: usize,
    count: u32,
    /// Blocks from here on were never used.
    fresh: u32,
    /// Used before and free now, with a checksum of what is in them.
    free: BTreeMap<u32, u64>,
    poison: bool,
    verify: bool,
}

impl DataArea {
    pub(super) fn new(start: usize, bytes: usize, block: usize, poison: bool, verify: bool) -> Self {
        let count = u32::try_from(bytes / block).expect("the data area has fewer than 2^32 blocks");
        Self { start, block, count, fresh: 0, free: BTreeMap::new(), poison, verify }
    }

    /// Blocks for a transfer of `len` bytes.
    pub(super) fn blocks_for(&self, len: usize) -> usize {
        len.div_ceil(self.block)
    }

    /// Blocks in the whole area.
    pub(super) fn capacity(&self) -> usize {
        self.count as usize
    }

    /// Free blocks.
    pub(super) fn available(&self) -> usize {
        self.free.len() + (self.count - self.fresh) as usize
    }

    /// The blocks the next command of `n` blocks gets: the lowest ones. None when too few are free.
    pub(super) fn choose(&self, n: usize) -> Option<Vec<u32>> {
        let lowest = self.free.keys().copied().chain(self.fresh..self.count);
        (n <= self.available()).then(|| lowest.take(n).collect())
    }

    /// Takes chosen blocks. Reports one that was written while it was free.
    pub(super) fn take(&mut self, memory: &Memory, blocks: &[u32]) -> Result<(), Fault> {
        let mut stray = Ok(());
        for &block in blocks {
            let expected = match self.free.remove(&block) {
                Some(sum) => sum,
                None => {
                    self.fresh = self.fresh.max(block + 1);
                    if self.verify { checksum(&vec![0; self.block]) } else { 0 }
                }
            };
            if stray.is_ok() {
                stray = self.compare(memory, block, expected);
            }
        }
        stray
    }

    /// Returns blocks, contents and all, or poisoned.
    pub(super) fn release(&mut self, memory: &Memory, blocks: &[u32]) {
        for &block in blocks {
            if self.poison {
                memory.write(self.at(block), &vec![POISON; self.block]);
            }
            let sum = self.sum(memory, block);
            self.free.insert(block, sum);
        }
    }

    /// Looks for writes to blocks that nobody owns.
    pub(super) fn check_free(&self, memory: &Memory) -> Result<(), Fault> {
        if !self.verify {
            return Ok(());
        }
        let zeroes = checksum(&vec![0; self.block]);
        self.free.iter().try_for_each(|(&block, &sum)| self.compare(memory, block, sum))?;
        (self.fresh..self.count).try_for_each(|block| self.compare(memory, block, zeroes))
    }

    /// Scatter-gather list for `len` bytes in `blocks`: adjacent blocks share one element.
    pub(super) fn iovecs(&self, blocks: &[u32], len: usize) -> Vec<Iov> {
        let mut out: Vec<Iov> = Vec::new();
        let mut left = len;
        let mut previous = None;
        for &block in blocks {
            let part = left.min(self.block);
            match out.last_mut() {
                Some(last) if previous == Some(block.wrapping_sub(1)) => last.1 += part as u64,
                _ => out.push((self.at(block) as u64, part as u64)),
            }
            previous = Some(block);
            left -= part;
        }
        out
    }

    /// Copies Data-Out into `blocks`.
    pub(super) fn put(&self, memory: &Memory, blocks: &[u32], data: &[u8]) {
        for (&block, part) in blocks.iter().zip(data.chunks(self.block)) {
            memory.write(self.at(block), part);
        }
    }

    /// Copies the first `len` bytes out of `blocks`.
    pub(super) fn get(&self, memory: &Memory, blocks: &[u32], len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for (&block, part) in blocks.iter().zip(out.chunks_mut(self.block)) {
            memory.read(self.at(block), part);
        }
        out
    }

    /// What lies behind the end of a transfer in its last block.
    pub(super) fn slack(&self, memory: &Memory, blocks: &[u32], len: usize) -> Vec<u8> {
        let used = len % self.block;
        match blocks.last() {
            Some(&last) if self.verify && used != 0 => memory.bytes(self.at(last) + used, self.block - used),
            _ => Vec::new(),
        }
    }

    /// Where in the mapping byte `index` of a transfer lies.
    pub(super) fn locate(&self, blocks: &[u32], index: usize) -> usize {
        self.at(blocks[index / self.block]) + index % self.block
    }

    fn at(&self, block: u32) -> usize {
        self.start + block as usize * self.block
    }

    fn sum(&self, memory: &Memory, block: u32) -> u64 {
        if self.verify { checksum(&memory.bytes(self.at(block), self.block)) } else { 0 }
    }

    fn compare(&self, memory: &Memory, block: u32, expected: u64) -> Result<(), Fault> {
        if self.sum(memory, block) == expected {
            return Ok(());
        }
        Err(Fault::UseAfterComplete { block, at: self.at(block) })
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
