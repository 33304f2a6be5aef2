//! A command under way: the operations it consists of, and how their results become one answer.
//!
//! A plain value; that of a READ or WRITE needs no heap memory. Whoever runs it takes tasks as long as it has some and
//! as many side by side as it likes, and reports each one taken exactly once, in any order. Tasks come in the order
//! of the blocks, so of several failures the one reported is the first in the extent, not the first in time. After
//! a failure there are no more tasks.

use super::Step;
use super::outcome::{Direction, Outcome, of_failure};
use crate::block::{BackendError, ByteRange, Op};
use crate::scsi::extended_copy::Progress;
use crate::scsi::{Lba, Sense};
use std::fmt;

/// The memory an operation needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Memory {
    /// None.
    None,
    /// The command's own data buffer, from its first byte on. Never two at a time.
    Command,
    /// A private copy of so many first bytes of the command's data buffer.
    Copy(usize),
    /// A private buffer of this length. What the operation leaves there comes back in [`Answer::data`].
    Private(usize),
    /// These bytes, which come back in [`Answer::data`].
    Owned(Vec<u8>),
}

/// An operation to start.
#[derive(Debug, PartialEq, Eq)]
pub struct Task {
    /// What to do.
    pub op: Op,
    /// With what memory.
    pub memory: Memory,
}

/// An operation that has come back.
#[derive(Debug)]
pub struct Finished {
    /// The operation, as it was taken.
    pub op: Op,
    /// How it ended.
    pub result: Result<(), BackendError>,
    /// What it brought.
    pub answer: Answer,
}

/// What an operation brings back beside success.
#[derive(Debug, Default)]
pub struct Answer {
    /// Its private buffer, if it had one.
    pub data: Vec<u8>,
    /// Of [`Op::Extents`]: the parts that storage has data for.
    pub extents: Vec<ByteRange>,
}

/// Reads the command's data buffer, from a position on; says how many bytes were there.
pub type DataOut<'a> = &'a dyn Fn(usize, &mut [u8]) -> usize;

/// A command that is more than one operation.
pub(super) trait Steps: fmt::Debug + Send {
    /// The next operation, if one can be started now.
    fn next_task(&mut self) -> Option<Task>;

    /// Looks at what an operation that succeeded brought back.
    fn accept(&mut self, op: Op, answer: Answer, data_out: DataOut<'_>) -> Result<(), Outcome>;

    /// An answer that can be given now, while the job goes on.
    fn early_answer(&mut self) -> Option<Outcome> {
        None
    }

    /// Whether there is nothing left to start, now or after what is out has come back.
    fn is_exhausted(&self) -> bool;

    /// Takes the failure of an operation as something to go on from; otherwise gives it back.
    fn recover(&mut self, _op: Op, error: BackendError) -> Result<(), BackendError> {
        Err(error)
    }

    /// What the failure of an operation means.
    fn failure(&self, op: Op, error: BackendError) -> Outcome {
        of_failure(error, direction(op))
    }

    /// Somebody else may have changed what the job has looked at.
    fn contended(&mut self) {}

    /// How far a copy has come.
    fn copied(&self) -> Progress {
        Progress::default()
    }

    /// How far a job is whose progress is asked for, in parts of 65536.
    fn progress(&self) -> u16 {
        0
    }

    /// How the command ends that has done everything. If the answer is [`Step::Reply`], `reply`, which is empty,
    /// is filled.
    fn conclude(&mut self, _reply: &mut Vec<u8>) -> Step {
        Step::Done(Outcome::Good)
    }
}

/// What a job is to the logical unit and to whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Input or output: one of many.
    Io,
    /// COMPARE AND WRITE of these bytes.
    Exchange(ByteRange),
    /// EXTENDED COPY, with the number that the logical unit knows it by.
    Copy(u64),
    /// FORMAT UNIT or SANITIZE: has the disk to itself and outlives its command.
    Erasure,
    /// SANITIZE, EXIT FAILURE MODE.
    Exit,
}

/// A command under way.
#[derive(Debug)]
pub struct Job {
    work: Work,
    role: Role,
    /// Tasks taken and not yet reported.
    out: u32,
    /// The first failure in the extent: where, and what it means.
    failed: Option<(u64, Outcome)>,
}

#[derive(Debug)]
enum Work {
    One { op: Op, taken: bool },
    Many(Box<dyn Steps>),
}

impl Job {
    /// A command that is one operation, on its own data buffer if the operation carries data.
    pub(super) fn one(op: Op) -> Self {
        Self::new(Work::One { op, taken: false })
    }

    /// A command of several operations.
    pub(super) fn many(steps: impl Steps + 'static) -> Self {
        Self::new(Work::Many(Box::new(steps)))
    }

    /// The same in a role.
    pub(super) fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    fn new(work: Work) -> Self {
        Self { work, role: Role::Io, out: 0, failed: None }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// The bytes that COMPARE AND WRITE is about.
    pub fn exchanges(&self) -> Option<ByteRange> {
        match self.role {
            Role::Exchange(range) => Some(range),
            Role::Io | Role::Copy(_) | Role::Erasure | Role::Exit => None,
        }
    }

    /// Whether it is one operation, which is known from the start.
    pub fn is_one(&self) -> bool {
        matches!(self.work, Work::One { .. })
    }

    /// Whether it is one operation and that may change some of these bytes.
    pub fn may_change(&self, range: ByteRange) -> bool {
        let Work::One { op, .. } = self.work else { return false };
        op.changes() && op.range().is_none_or(|own| own.overlaps(range))
    }

    /// Tells it that somebody else may have changed what it has looked at.
    pub fn contended(&mut self) {
        if let Work::Many(steps) = &mut self.work {
            steps.contended();
        }
    }

    pub(super) fn copied(&self) -> Progress {
        match &self.work {
            Work::Many(steps) => steps.copied(),
            Work::One { .. } => Progress::default(),
        }
    }

    /// See [`Steps::progress`].
    pub(super) fn progress(&self) -> u16 {
        match &self.work {
            Work::One { .. } => 0,
            Work::Many(steps) => steps.progress(),
        }
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
            Work::Many(steps) => steps.next_task(),
        };
        self.out += u32::from(task.is_some());
        task
    }

    /// How many bytes of the data buffer hold an answer once the command is GOOD; the rest of the buffer is
    /// not the initiator's business.
    pub fn data_in(&self) -> u64 {
        match self.work {
            Work::One { op: Op::Read(range), .. } => range.len,
            Work::One { .. } | Work::Many(_) => 0,
        }
    }

    /// Whether it has just written its data buffer to the disk. Then what an initiator could read there, should it have sent
    /// the command with a buffer to read into, is what it could read from the disk too.
    pub fn has_written_its_data(&self) -> bool {
        let Work::One { op, .. } = self.work else { return false };
        matches!(op, Op::Write(_) | Op::WriteSame { .. } | Op::CompareAndWrite(_))
    }

    /// Whether it must start only when no other job is under way, and goes on when its command has been answered
    /// ([`Step::Detach`]), is aborted, or can be waited for no longer.
    pub fn is_exclusive(&self) -> bool {
        self.role == Role::Erasure
    }

    /// Ends the job as soon as what is out has come back. The initiator, which asked for this, hears no status;
    /// what was written stays written (SAM-4, "Aborting commands").
    pub fn abort(&mut self) {
        self.failed.get_or_insert((0, Sense::ABORTED.into()));
    }

    /// Takes the result of one operation; the command's end once there is nothing left to do or to wait for.
    pub(super) fn finish(
        &mut self,
        finished: Finished,
        block_size: u32,
        data_out: DataOut<'_>,
        reply: &mut Vec<u8>,
    ) -> Option<Step> {
        self.out = self.out.saturating_sub(1);
        let Finished { op, result, answer } = finished;
        let verdict = match (result, &mut self.work) {
            (Ok(()), Work::Many(steps)) => steps.accept(op, answer, data_out),
            (Ok(()), Work::One { .. }) => Ok(()),
            (Err(error), Work::Many(steps)) => {
                steps.recover(op, error).map_err(|error| steps.failure(op, error))
            }
            (Err(error), Work::One { .. }) => Err(of_failure(error, direction(op))),
        };
        if let Err(outcome) = verdict {
            let at = position(op);
            // Never lost: a command that failed in part has failed.
            if self.failed.is_none_or(|(first, _)| at < first) {
                self.failed = Some((at, outcome.at(Lba(at / u64::from(block_size)))));
            }
        }
        let early = match &mut self.work {
            Work::Many(steps) if self.failed.is_none() => steps.early_answer(),
            Work::Many(_) | Work::One { .. } => None,
        };
        match (self.failed, &mut self.work) {
            _ if early.is_some() => early.map(Step::Detach),
            _ if self.out > 0 => None,
            (Some((_, outcome)), _) => Some(Step::Done(outcome)),
            (None, Work::One { taken, .. }) => taken.then_some(Step::Done(Outcome::Good)),
            (None, Work::Many(steps)) => {
                reply.clear();
                steps.is_exhausted().then(|| steps.conclude(reply))
            }
        }
    }
}

fn memory(op: Op) -> Memory {
    match op {
        Op::Read(_) | Op::Write(_) | Op::WriteSame { .. } | Op::CompareAndWrite(_) | Op::SetNote => {
            Memory::Command
        }
        Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) | Op::Extents(_) => Memory::None,
    }
}

fn direction(op: Op) -> Direction {
    match op {
        Op::Read(_) | Op::Extents(_) => Direction::Read,
        _ => Direction::Write,
    }
}

/// Where an operation begins.
fn position(op: Op) -> u64 {
    match op {
        Op::Flush | Op::SetNote => 0,
        Op::Read(range)
        | Op::Write(range)
        | Op::Discard(range)
        | Op::WriteZeroes(range)
        | Op::WriteSame { range, .. }
        | Op::CompareAndWrite(range)
        | Op::Extents(range) => range.offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::ErrorKind;
    use crate::lun::fill::Fill;

    /// Reports an operation to a job whose command has no data.
    pub(crate) fn report(job: &mut Job, op: Op, result: Result<(), ErrorKind>) -> Option<Outcome> {
        let result = result.map_err(BackendError::new);
        let finished = Finished { op, result, answer: Answer::default() };
        match job.finish(finished, 512, &|_, _| 0, &mut Vec::new())? {
            Step::Done(outcome) => Some(outcome),
            step => panic!("{step:?}"),
        }
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
        Job::many(fill)
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
        assert_eq!((job.data_in(), job.has_written_its_data()), (1024, false));
        assert_eq!(report(&mut job, read, Ok(())), Some(Outcome::Good));
        let mut flush = Job::one(Op::Flush);
        assert_eq!(flush.next_task(), Some(Task { op: Op::Flush, memory: Memory::None }));
    }

    #[test]
    fn several_end_with_the_last() {
        let mut job = two();
        assert_eq!((next(&mut job), next(&mut job), next(&mut job)), (Some(A), Some(B), None));
        assert_eq!((job.data_in(), job.has_written_its_data()), (0, false));
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
