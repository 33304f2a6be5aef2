//! Storage that breaks its promises, to prove that the model notices.

use crate::content::Rng;
use crate::disk::Shape;
use handler_rbd::block::ByteRange;
use std::ops::Range;

/// One way to break a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Acknowledges a write that it does not carry out.
    DropWrite,
    /// Carries out a write after a later one.
    SwapWrites,
    /// Puts the old bytes back after it has acknowledged the new ones.
    RevertWrite,
    /// Carries an acknowledged write out once more.
    ReplayWrite,
    /// Writes one block too far.
    Misplace,
    /// Writes the first half of a block.
    TearBlock,
    /// Writes an object's part of a write block by block.
    TearAtomic,
    /// Compares first and writes later.
    TearCompareAndWrite,
    /// Reports a difference where there is none.
    FalseMiscompare,
    /// Zeroes nothing.
    KeepZeroed,
    /// Says that there is no data where there is some.
    HideData,
    /// Fills only the first half of a reader's buffer.
    ShortRead,
    /// Reads what was there a while ago.
    StaleRead,
}

/// The mutant at work; it breaks its promise now and then.
pub(crate) struct Mutation {
    mutant: Option<Mutant>,
    rng: Rng,
    /// Writes to come, each with the number of steps until then.
    later: Vec<(u32, usize, Vec<u8>)>,
    /// The disk as it was a while ago.
    stale: Vec<u8>,
    age: u32,
}

/// Once in so many times.
const SELDOM: u64 = 30;
/// Steps of storage.
const LATER: u32 = 200;

impl Mutation {
    pub(crate) fn new(mutant: Option<Mutant>, seed: u64) -> Self {
        Self { mutant, rng: Rng(seed ^ 0xbad), later: vec![], stale: vec![], age: 0 }
    }

    fn now(&mut self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant) && self.rng.once_in(SELDOM)
    }

    /// Time passes.
    pub(crate) fn step(&mut self, disk: &mut [u8]) {
        for (left, at, bytes) in &mut self.later {
            *left -= 1;
            if *left == 0 {
                disk[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.later.retain(|later| later.0 > 0);
        if self.mutant == Some(Mutant::StaleRead) {
            if self.age == 0 {
                self.stale = disk.to_vec();
                self.age = 400;
            }
            self.age -= 1;
        }
    }

    /// The unit within which a write is carried out at once.
    pub(crate) fn atom(&mut self, object: u64, block: u64) -> u64 {
        if self.mutant == Some(Mutant::TearAtomic) { block } else { object }
    }

    pub(crate) fn tears_compare(&mut self) -> bool {
        self.mutant == Some(Mutant::TearCompareAndWrite)
    }

    pub(crate) fn refuses(&mut self) -> bool {
        self.now(Mutant::FalseMiscompare)
    }

    pub(crate) fn read<'a>(&'a mut self, disk: &'a [u8], place: Range<usize>) -> &'a [u8] {
        if self.now(Mutant::ShortRead) {
            return &disk[place.start..place.start + place.len() / 2];
        }
        if self.now(Mutant::StaleRead) && !self.stale.is_empty() {
            return &self.stale[place];
        }
        &disk[place]
    }

    pub(crate) fn zero(&mut self, disk: &mut [u8], place: Range<usize>) {
        if !self.now(Mutant::KeepZeroed) {
            disk[place].fill(0);
        }
    }

    /// Says where data is: wherever a byte is not zero, as tightly as that or by the block, and now and then where
    /// all are zero.
    pub(crate) fn extents(
        &mut self,
        disk: &[u8],
        place: Range<usize>,
        shape: Shape,
        to: &mut Vec<ByteRange>,
    ) {
        let block = usize::try_from(shape.block).unwrap();
        let mut at = place.start;
        while at < place.end {
            let next = place.end.min((at / block + 1) * block);
            let bytes = &disk[at..next];
            let data = bytes.iter().position(|&byte| byte != 0).map(|first| {
                let last = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(first);
                if self.rng.once_in(2) { first..last + 1 } else { 0..bytes.len() }
            });
            let told = match data {
                Some(_) if self.now(Mutant::HideData) => None,
                None if self.rng.once_in(3) => Some(0..bytes.len()),
                data => data,
            };
            if let Some(told) = told {
                to.push(ByteRange { offset: (at + told.start) as u64, len: told.len() as u64 });
            }
            at = next;
        }
    }

    pub(crate) fn write(&mut self, disk: &mut [u8], at: usize, mut bytes: Vec<u8>, shape: Shape) {
        let block = usize::try_from(shape.block).unwrap();
        let mut at = at;
        if self.now(Mutant::DropWrite) {
            return;
        }
        if self.now(Mutant::SwapWrites) {
            return self.later.push((LATER, at, bytes));
        }
        if self.now(Mutant::RevertWrite) {
            self.later.push((LATER, at, disk[at..at + bytes.len()].to_vec()));
        }
        if self.now(Mutant::ReplayWrite) {
            self.later.push((LATER, at, bytes.clone()));
        }
        if self.now(Mutant::Misplace) && at + bytes.len() + block <= disk.len() {
            at += block;
        }
        if self.now(Mutant::TearBlock) {
            bytes.truncate(bytes.len() - block / 2);
        }
        disk[at..at + bytes.len()].copy_from_slice(&bytes);
    }
}
