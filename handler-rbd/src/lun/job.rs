//! A command under way: the operations it consists of, and how their results become one outcome.
//!
//! A plain value without heap memory. Whoever runs it takes tasks as long as it has some and as many side by
//! side as it likes, and reports each one taken exactly once, in any order. Tasks come in the order of
//! the blocks, so of several failures the one reported is the first in the extent, not the first in time. After
//! a failure there are no more tasks.

use super::fill::Fill;
use super::outcome::{Direction, Outcome, of_failure};
use super::verify::Verify;
use crate::block::{BackendError, Op};

/// The memory an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// None.
    None,
    /// The command's own data buffer, from its first byte on. Never two at a time.
    Command,
    /// A private copy of so many first bytes of the command's data buffer.
    Copy(usize),
    /// A private buffer of this length. What the operation leaves there comes back in [`Finished::data`].
    Private(usize),
}

/// An operation to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What to do.
    pub op: Op,
    /// With what memory.
    pub memory: Memory,
}

/// An operation that has come back.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// The operation, as it was taken.
    pub op: Op,
    /// How it ended.
    pub result: Result<(), BackendError>,
    /// What its private buffer holds, if it had one.
    pub data: &'a [u8],
}

/// Reads the command's data buffer, from a position on; says how many bytes were there.
pub type DataOut<'a> = &'a dyn Fn(usize, &mut [u8]) -> usize;

/// A command under way.
#[derive(Debug)]
pub struct Job {
    work: Work,
    /// Tasks taken and not yet reported.
    out: u32,
    /// The first failure in the extent: where, and what it means.
    failed: Option<(u64, Outcome)>,
    /// Whether the data buffer is the initiator's for us to read.
    data_out: bool,
}

#[derive(Debug)]
enum Work {
    One { op: Op, taken: bool },
    Fill(Fill),
    Verify(Verify),
}

impl Job {
    /// A command that is one operation, on its own data buffer if the operation carries data.
    pub(super) fn one(op: Op) -> Self {
        let data_out = matches!(op, Op::Write(_) | Op::WriteSame { .. } | Op::CompareAndWrite(_));
        Self::new(Work::One { op, taken: false }, data_out)
    }

    /// Extents that all get the same content.
    pub(super) fn fill(fill: Fill, data_out: bool) -> Self {
        Self::new(Work::Fill(fill), data_out)
    }

    /// Blocks read back, and perhaps written before and compared after.
    pub(super) fn verify(verify: Verify) -> Self {
        let data_out = verify.has_data();
        Self::new(Work::Verify(verify), data_out)
    }

    fn new(work: Work, data_out: bool) -> Self {
        Self { work, out: 0, failed: None, data_out }
    }

    /// The next operation to start, if one can be started now.
    pub fn next_task(&mut self) -> Option<Task> {
        if self.failed.is_some() {
            return None;
        }
        let task = match &mut self.work {
            Work::One { taken: true, .. } => None,
            Work::One { op, taken } => {
                *taken = true;
                Some(Task { op: *op, memory: memory(*op) })
            }
            Work::Fill(fill) => fill.next_task(),
            Work::Verify(verify) => verify.next_task(),
        };
        self.out += u32::from(task.is_some());
        task
    }

    /// How many bytes of the data buffer hold an answer once the command is GOOD; the rest of the buffer is
    /// not the initiator's business.
    pub fn data_in(&self) -> u64 {
        match self.work {
            Work::One { op: Op::Read(range), .. } => range.len,
            Work::One { .. } | Work::Fill(_) | Work::Verify(_) => 0,
        }
    }

    /// Whether the data buffer is the initiator's for us to read. If not, and there is no answer in it, it has
    /// no business with the command and what it holds is some earlier command's.
    pub fn data_out(&self) -> bool {
        self.data_out
    }

    /// Takes the result of one operation; the outcome once there is nothing left to do or to wait for.
    pub(super) fn finish(&mut self, finished: &Finished<'_>, data_out: DataOut<'_>) -> Option<Outcome> {
        self.out = self.out.saturating_sub(1);
        let verdict = match (finished.result, &mut self.work) {
            (Err(error), _) => Err(of_failure(error, direction(finished.op))),
            (Ok(()), Work::Verify(verify)) => verify.accept(finished, data_out).map_err(Outcome::from),
            (Ok(()), Work::One { .. } | Work::Fill(_)) => Ok(()),
        };
        if let Err(outcome) = verdict {
            let at = position(finished.op);
            // Never lost: a command that failed in part has failed.
            if self.failed.is_none_or(|(first, _)| at < first) {
                self.failed = Some((at, outcome));
            }
        }
        match self.failed {
            _ if self.out > 0 => None,
            Some((_, outcome)) => Some(outcome),
            None => self.is_exhausted().then_some(Outcome::Good),
        }
    }

    fn is_exhausted(&self) -> bool {
        match &self.work {
            Work::One { taken, .. } => *taken,
            Work::Fill(fill) => fill.is_exhausted(),
            Work::Verify(verify) => verify.is_exhausted(),
        }
    }
}

fn memory(op: Op) -> Memory {
    match op {
        Op::Read(_) | Op::Write(_) | Op::WriteSame { .. } | Op::CompareAndWrite(_) => Memory::Command,
        Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => Memory::None,
    }
}

fn direction(op: Op) -> Direction {
    match op {
        Op::Read(_) => Direction::Read,
        _ => Direction::Write,
    }
}

/// Where an operation begins.
fn position(op: Op) -> u64 {
    match op {
        Op::Flush => 0,
        Op::Read(range)
        | Op::Write(range)
        | Op::Discard(range)
        | Op::WriteZeroes(range)
        | Op::WriteSame { range, .. }
        | Op::CompareAndWrite(range) => range.offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{ByteRange, ErrorKind};

    /// Reports an operation to a job whose command has no data.
    pub(crate) fn report(job: &mut Job, op: Op, result: Result<(), ErrorKind>) -> Option<Outcome> {
        let result = result.map_err(BackendError::new);
        job.finish(&Finished { op, result, data: &[] }, &|_, _| 0)
    }

    const fn zeroes(offset: u64, len: u64) -> Op {
        Op::WriteZeroes(ByteRange { offset, len })
    }

    /// Two extents, the later one first.
    const A: Op = zeroes(4096, 1024);
    const B: Op = zeroes(0, 512);

    fn two() -> Job {
        let mut fill = Fill::zeroes(4096);
        assert!(fill.push(ByteRange { offset: 4096, len: 1024 }));
        assert!(fill.push(ByteRange { offset: 0, len: 512 }));
        Job::fill(fill, true)
    }

    fn next(job: &mut Job) -> Option<Op> {
        job.next_task().map(|task| task.op)
    }

    #[test]
    fn one_operation() {
        let read = Op::Read(ByteRange { offset: 4096, len: 1024 });
        let mut job = Job::one(read);
        assert_eq!(job.next_task(), Some(Task { op: read, memory: Memory::Command }));
        assert_eq!(job.next_task(), None);
        assert_eq!((job.data_in(), job.data_out()), (1024, false));
        assert_eq!(report(&mut job, read, Ok(())), Some(Outcome::Good));
        let mut flush = Job::one(Op::Flush);
        assert_eq!(flush.next_task(), Some(Task { op: Op::Flush, memory: Memory::None }));
    }

    #[test]
    fn several_end_with_the_last() {
        let mut job = two();
        assert_eq!((next(&mut job), next(&mut job), next(&mut job)), (Some(A), Some(B), None));
        assert_eq!((job.data_in(), job.data_out()), (0, true));
        assert_eq!(report(&mut job, A, Ok(())), None);
        assert_eq!(report(&mut job, B, Ok(())), Some(Outcome::Good));
    }

    #[test]
    fn the_first_failure_in_the_extent_is_told_whichever_came_first() {
        use ErrorKind::{Io, NoResource};
        for (first, second) in [((A, Io), (B, NoResource)), ((B, NoResource), (A, Io))] {
            let mut job = two();
            while job.next_task().is_some() {}
            assert_eq!(report(&mut job, first.0, Err(first.1)), None);
            assert_eq!(report(&mut job, second.0, Err(second.1)), Some(Outcome::TaskSetFull));
        }
    }

    #[test]
    fn an_error_in_the_last_is_told_too() {
        let mut job = two();
        while job.next_task().is_some() {}
        assert_eq!(report(&mut job, A, Ok(())), None);
        assert_eq!(report(&mut job, B, Err(ErrorKind::Fenced)), Some(Outcome::Busy));
    }

    #[test]
    fn operations_may_be_taken_one_at_a_time() {
        let mut job = two();
        assert_eq!(next(&mut job), Some(A));
        assert_eq!(report(&mut job, A, Ok(())), None);
        assert_eq!(next(&mut job), Some(B));
        assert_eq!(report(&mut job, B, Ok(())), Some(Outcome::Good));
    }

    #[test]
    fn a_failure_stops_what_has_not_been_taken() {
        let mut job = two();
        assert_eq!(next(&mut job), Some(A));
        assert_eq!(report(&mut job, A, Err(ErrorKind::TimedOut)), Some(Outcome::Busy));
        assert_eq!(next(&mut job), None);
    }
}
