//! Commands that a process which died had begun, and how they are carried out again.
//!
//! Storage may have done such a command, in part or as a whole, or not at all; nothing of it is still under way. Most
//! commands do no harm when they are done again (docs/recovery.md). These two do:
//!
//! * COMPARE AND WRITE, done again after it has succeeded, finds what it has written itself. If the blocks hold
//!   neither that nor what was to be compared, or still what was to be compared, it is done again like any other. If they
//!   hold what was to be written, nobody can tell whether this command has written it: GOOD could give a lock to two,
//!   and MISCOMPARE deny it to its owner. BUSY has the initiator ask again, and then read what is there.
//! * EXTENDED COPY over itself copies what it has changed. COPY ABORTED has the initiator copy by itself.

use super::job::{Answer, DataOut, Memory, Steps, Task};
use super::{Job, LogicalUnit, Outcome, Step, Transfer, access};
use crate::block::{ByteRange, Op};
use crate::scsi::{Command, Sense, extended_copy};

/// `None`: the command is started like any other.
pub(super) fn start(unit: &LogicalUnit, command: &Command, transfer: Transfer) -> Option<Step> {
    match *command {
        Command::ExtendedCopy { list: 1.. } => Some(Step::Done(extended_copy::failed(0).into())),
        Command::CompareAndWrite(extent) => {
            let Ok(Step::Run(_)) = access::compare_and_write(unit, extent, transfer) else { return None };
            let range = unit.locate(extent).ok()?;
            Some(Step::Run(Job::many(Settle { range, stage: Stage::Look })))
        }
        _ => None,
    }
}

#[derive(Debug)]
struct Settle {
    range: ByteRange,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Look,
    Looking,
    CompareAndWrite,
    Last,
}

impl Steps for Settle {
    fn next_task(&mut self) -> Option<Task> {
        match self.stage {
            Stage::Look => {
                self.stage = Stage::Looking;
                let memory = Memory::Private(usize::try_from(self.range.len).unwrap_or(usize::MAX));
                Some(Task { op: Op::Read(self.range), memory })
            }
            Stage::CompareAndWrite => {
                self.stage = Stage::Last;
                Some(Task { op: Op::CompareAndWrite(self.range), memory: Memory::Command })
            }
            Stage::Looking | Stage::Last => None,
        }
    }

    fn accept(&mut self, op: Op, Answer { data, .. }: Answer, data_out: DataOut<'_>) -> Result<(), Outcome> {
        let Op::Read(_) = op else { return Ok(()) };
        let (mut compare, mut write) = (vec![0; data.len()], vec![0; data.len()]);
        if data_out(0, &mut compare) != data.len() || data_out(data.len(), &mut write) != data.len() {
            return Err(Sense::INTERNAL_FAILURE.into());
        }
        if data == write && write != compare {
            return Err(Outcome::Busy);
        }
        self.stage = Stage::CompareAndWrite;
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        self.stage == Stage::Last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BackendError, ErrorKind, Limits};
    use crate::lun::{Finished, Geometry};
    use crate::scsi::{Blocks, Extent, Lba};

    fn unit() -> LogicalUnit {
        let limits = Limits {
            size: 1 << 20,
            object_size: 1 << 20,
            compare_and_write: 512,
            discard_granularity: 65536,
            solid_state: false,
        };
        LogicalUnit::new(Geometry { block_size: 512, size: 1 << 20, max_sectors: 0, limits })
    }

    const RANGE: ByteRange = ByteRange { offset: 4 * 512, len: 512 };

    /// What becomes of COMPARE AND WRITE (`compare`, then `write`) of block 4 where it holds `there`.
    fn settled(there: u8, compare: u8, write: u8, result: Result<(), ErrorKind>) -> (bool, Step) {
        let mut unit = unit();
        let command = Command::CompareAndWrite(Extent { lba: Lba(4), blocks: Blocks(1) });
        let Some(Step::Run(mut job)) = start(&unit, &command, Transfer { len: 1024 }) else {
            panic!("a job")
        };
        let both = [[compare; 512], [write; 512]].concat();
        let data_out = |at: usize, to: &mut [u8]| {
            to.copy_from_slice(&both[at..at + to.len()]);
            to.len()
        };
        assert_eq!(job.next_task().map(|task| task.op), Some(Op::Read(RANGE)));
        assert!(job.next_task().is_none());
        let answer = Answer { data: vec![there; 512], extents: vec![] };
        let looked = Finished { op: Op::Read(RANGE), result: Ok(()), answer };
        let step = unit.resume(&mut job, looked, &data_out, &mut vec![]);
        if !matches!(step, Step::Wait) {
            return (false, step);
        }
        let op = Op::CompareAndWrite(RANGE);
        assert_eq!(job.next_task(), Some(Task { op, memory: Memory::Command }));
        let result = result.map_err(BackendError::new);
        let done = Finished { op, result, answer: Answer::default() };
        (true, unit.resume(&mut job, done, &data_out, &mut vec![]))
    }

    #[test]
    fn compare_and_write_is_done_again_where_it_can_be_told() {
        assert!(matches!(settled(1, 1, 2, Ok(())), (true, Step::Done(Outcome::Good))));
        assert!(matches!(settled(5, 5, 5, Ok(())), (true, Step::Done(Outcome::Good))), "changes nothing");
        let (true, Step::Done(outcome)) = settled(9, 1, 2, Err(ErrorKind::Miscompare { offset: 3 })) else {
            panic!("a miscompare")
        };
        assert_eq!(outcome.sense().map(|sense| sense[2]), Some(0x0e));
    }

    #[test]
    fn compare_and_write_is_left_open_where_it_cannot() {
        assert!(matches!(settled(2, 1, 2, Ok(())), (false, Step::Done(Outcome::Busy))));
    }

    #[test]
    fn a_copy_is_given_up_and_all_else_is_begun_as_usual() {
        let unit = unit();
        let copy = Command::ExtendedCopy { list: 40 };
        let Some(Step::Done(outcome)) = start(&unit, &copy, Transfer { len: 40 }) else { panic!("an end") };
        assert_eq!(outcome.sense().map(|sense| sense[2]), Some(0x0a)); // COPY ABORTED
        let extent = Extent { lba: Lba(0), blocks: Blocks(1) };
        for usual in [
            Command::ExtendedCopy { list: 0 },
            Command::Write(extent),
            Command::OrWrite(extent),
            Command::WriteAtomic(extent),
            Command::CompareAndWrite(Extent { lba: Lba(1 << 40), blocks: Blocks(1) }),
        ] {
            assert!(start(&unit, &usual, Transfer { len: 512 }).is_none(), "{usual:?}");
        }
    }
}
