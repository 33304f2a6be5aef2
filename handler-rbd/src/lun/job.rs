//! A command under way: the operations it consists of, and how their results become one outcome.
//!
//! A plain value without heap memory. The device takes operations from it and reports results in any order;
//! each operation taken is reported exactly once.

use super::outcome::{Direction, Outcome, of_failure};
use crate::block::{BackendError, ByteRange, Op};

/// Most block descriptors in one UNMAP; also what the Block Limits page says.
pub const MAX_UNMAP_DESCRIPTORS: usize = 4;

/// Whether an operation uses the command's own data buffer on the ring, from its first byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsesRingBuffer(pub bool);

/// A command under way.
#[derive(Debug)]
pub struct Job {
    work: Work,
    /// Operations taken.
    taken: u8,
    /// Operations whose result is in.
    finished: u8,
    /// The first failure reported.
    failed: Option<BackendError>,
}

#[derive(Debug)]
enum Work {
    One(Op),
    Discards(Discards),
}

/// The extents of an UNMAP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Discards {
    ranges: [ByteRange; MAX_UNMAP_DESCRIPTORS],
    len: u8,
}

const _: () = assert!(MAX_UNMAP_DESCRIPTORS <= u8::MAX as usize);

impl Discards {
    pub(super) const NONE: Self =
        Self { ranges: [ByteRange { offset: 0, len: 0 }; MAX_UNMAP_DESCRIPTORS], len: 0 };

    /// Adds an extent; false if there is no room.
    pub(super) fn push(&mut self, range: ByteRange) -> bool {
        let Some(place) = self.ranges.get_mut(usize::from(self.len)) else { return false };
        *place = range;
        self.len += 1;
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Job {
    /// A command that is one operation.
    pub(super) fn one(op: Op) -> Self {
        Self::new(Work::One(op))
    }

    /// An UNMAP: all its extents at once.
    pub(super) fn discards(discards: Discards) -> Self {
        Self::new(Work::Discards(discards))
    }

    fn new(work: Work) -> Self {
        Self { work, taken: 0, finished: 0, failed: None }
    }

    /// The next operation to submit, if any can be now. After a failure there are no more.
    pub fn next_op(&mut self) -> Option<(Op, UsesRingBuffer)> {
        if self.failed.is_some() || self.taken == self.total() {
            return None;
        }
        let op = match &self.work {
            Work::One(op) => *op,
            Work::Discards(discards) => Op::Discard(*discards.ranges.get(usize::from(self.taken))?),
        };
        self.taken += 1;
        Some((op, uses_ring_buffer(op)))
    }

    /// How many bytes of the data buffer hold an answer once the command is GOOD; the rest of the buffer is
    /// not the initiator's business.
    pub fn data_in(&self) -> u64 {
        match self.work {
            Work::One(Op::Read(range)) => range.len,
            Work::One(_) | Work::Discards(_) => 0,
        }
    }

    /// Whether the data buffer is the initiator's for us to read. If not, and there is no answer in it, it has
    /// no business with the command and what it holds is some earlier command's.
    pub fn data_out(&self) -> bool {
        match self.work {
            Work::One(op) => match op {
                Op::Write(_) | Op::WriteSame { .. } | Op::CompareAndWrite(_) => true,
                Op::Read(_) | Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => false,
            },
            Work::Discards(_) => true,
        }
    }

    /// Takes the result of one operation; the outcome once there is nothing left to do or to wait for.
    pub(super) fn finish(&mut self, result: Result<(), BackendError>) -> Option<Outcome> {
        self.finished = self.finished.saturating_add(1);
        if let Err(error) = result {
            // The first error wins. It is never lost: an UNMAP that failed in part has failed.
            self.failed.get_or_insert(error);
        }
        if self.finished < self.taken {
            return None;
        }
        match self.failed {
            Some(error) => Some(of_failure(error, self.direction())),
            None if self.taken == self.total() => Some(Outcome::Good),
            None => None,
        }
    }

    fn total(&self) -> u8 {
        match &self.work {
            Work::One(_) => 1,
            Work::Discards(discards) => discards.len,
        }
    }

    fn direction(&self) -> Direction {
        match self.work {
            Work::One(Op::Read(_)) => Direction::Read,
            Work::One(_) | Work::Discards(_) => Direction::Write,
        }
    }
}

fn uses_ring_buffer(op: Op) -> UsesRingBuffer {
    UsesRingBuffer(match op {
        Op::Read(_) | Op::Write(_) | Op::WriteSame { .. } | Op::CompareAndWrite(_) => true,
        Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::ErrorKind;

    const A: ByteRange = ByteRange { offset: 0, len: 512 };
    const B: ByteRange = ByteRange { offset: 4096, len: 1024 };

    fn two_discards() -> Job {
        let mut discards = Discards::NONE;
        assert!(discards.push(A));
        assert!(discards.push(B));
        Job::discards(discards)
    }

    #[test]
    fn one_operation() {
        let mut job = Job::one(Op::Read(B));
        assert_eq!(job.next_op(), Some((Op::Read(B), UsesRingBuffer(true))));
        assert_eq!(job.next_op(), None);
        assert_eq!(job.data_in(), 1024);
        assert_eq!(job.finish(Ok(())), Some(Outcome::Good));
    }

    #[test]
    fn discards_end_with_the_last() {
        let mut job = two_discards();
        assert_eq!(job.next_op(), Some((Op::Discard(A), UsesRingBuffer(false))));
        assert_eq!(job.next_op(), Some((Op::Discard(B), UsesRingBuffer(false))));
        assert_eq!(job.next_op(), None);
        assert_eq!(job.data_in(), 0);
        assert_eq!(job.finish(Ok(())), None);
        assert_eq!(job.finish(Ok(())), Some(Outcome::Good));
    }

    #[test]
    fn the_first_error_wins_and_is_told() {
        let mut job = two_discards();
        while job.next_op().is_some() {}
        assert_eq!(job.finish(Err(BackendError::new(ErrorKind::NoResource))), None);
        assert_eq!(job.finish(Err(BackendError::new(ErrorKind::Io))), Some(Outcome::TaskSetFull));
    }

    #[test]
    fn an_error_in_the_last_is_told_too() {
        let mut job = two_discards();
        while job.next_op().is_some() {}
        assert_eq!(job.finish(Ok(())), None);
        assert_eq!(job.finish(Err(BackendError::new(ErrorKind::Fenced))), Some(Outcome::Busy));
    }

    #[test]
    fn operations_may_be_taken_one_at_a_time() {
        let mut job = two_discards();
        assert!(job.next_op().is_some());
        assert_eq!(job.finish(Ok(())), None);
        assert!(job.next_op().is_some());
        assert_eq!(job.finish(Ok(())), Some(Outcome::Good));
    }

    #[test]
    fn a_failure_stops_what_has_not_been_taken() {
        let mut job = two_discards();
        assert!(job.next_op().is_some());
        assert_eq!(job.finish(Err(BackendError::new(ErrorKind::TimedOut))), Some(Outcome::Busy));
        assert_eq!(job.next_op(), None);
    }

    #[test]
    fn discards_are_bounded() {
        let mut discards = Discards::NONE;
        for _ in 0..4 {
            assert!(discards.push(A));
        }
        assert!(!discards.push(A));
    }
}
