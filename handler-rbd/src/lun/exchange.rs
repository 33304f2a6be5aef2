//! COMPARE AND WRITE, also begun again after the process that had begun it died.
//!
//! The blocks are looked at first. If they differ, that is the answer. If not, storage compares and writes them, in one
//! operation, against every other writer. Looking first costs a read, and tells a successor what it must know
//! (docs/recovery.md): the blocks held what was to be compared, and while nobody else was at them ([`Again::Compared`])
//! only this command can have put there what it was to write.
//!
//! Of a command of which that is not known, blocks that hold what was to be written tell nothing: GOOD could give a lock
//! to two, MISCOMPARE deny it to its owner. BUSY has the initiator ask again, and then read what is there.

use super::job::{Answer, DataOut, Memory, Role, Steps, Task};
use super::{Job, Outcome, Step};
use crate::block::{ByteRange, Op};
use crate::scsi::Sense;

/// What is known of a command that a process which died had begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Storage may have done it, in part or as a whole.
    Begun,
    /// The same; and its blocks held what was to be compared, and nobody else has changed them since.
    Compared,
}

/// The command; `again` if it has been begun before.
pub(super) fn job(range: ByteRange, again: Option<Again>) -> Job {
    Job::many(Exchange { range, again, stage: Stage::Look }).with_role(Role::Exchange(range))
}

#[derive(Debug)]
struct Exchange {
    range: ByteRange,
    again: Option<Again>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Look,
    Looking,
    Exchange,
    Last,
}

impl Steps for Exchange {
    fn next_task(&mut self) -> Option<Task> {
        match self.stage {
            Stage::Look => {
                self.stage = Stage::Looking;
                let memory = Memory::Private(usize::try_from(self.range.len).unwrap_or(usize::MAX));
                Some(Task { op: Op::Read(self.range), memory })
            }
            Stage::Exchange => {
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
        let different = data.iter().zip(&compare).position(|(there, wanted)| there != wanted);
        self.stage = match (different, self.again) {
            (None, _) => Stage::Exchange,
            (Some(_), Some(Again::Compared)) if data == write => Stage::Last, // by this command
            (Some(_), Some(Again::Compared)) => return Err(Outcome::Busy),    // by whom?
            (Some(_), Some(Again::Begun)) if data == write => return Err(Outcome::Busy),
            (Some(offset), _) => return Err(Sense::miscompare(offset as u64).into()),
        };
        Ok(())
    }

    fn contended(&mut self) {
        self.again = self.again.map(|_| Again::Begun);
    }

    fn is_exhausted(&self) -> bool {
        self.stage == Stage::Last
    }

    fn conclude(&mut self, _: &mut Vec<u8>) -> Step {
        Step::Done(Outcome::Good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BackendError, ErrorKind, Limits};
    use crate::lun::{Finished, Geometry, LogicalUnit, Transfer};
    use crate::scsi::{Blocks, Command, Extent, Lba};

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
    const OP: Op = Op::CompareAndWrite(RANGE);

    /// How COMPARE AND WRITE (`compare`, then `write`) of block 4 ends where it holds `there`, and whether storage was
    /// asked to carry it out, which ends with `result`.
    fn ends(
        again: Option<Again>,
        [there, compare, write]: [u8; 3],
        result: Result<(), ErrorKind>,
    ) -> (bool, Outcome) {
        let mut unit = unit();
        let command = Command::CompareAndWrite(Extent { lba: Lba(4), blocks: Blocks(1) });
        let transfer = Transfer { len: 1024 };
        let step = match again {
            None => unit.start(&command, &transfer, None, &[], &mut vec![]),
            Some(again) => unit.start_again(&command, &transfer, again).unwrap(),
        };
        let Step::Run(mut job) = step else { panic!("{step:?}") };
        assert_eq!(job.exchanges(), Some(RANGE));
        let both = [[compare; 512], [write; 512]].concat();
        let data_out = |at: usize, to: &mut [u8]| {
            to.copy_from_slice(&both[at..at + to.len()]);
            to.len()
        };
        assert_eq!(job.next_task().map(|task| task.op), Some(Op::Read(RANGE)));
        assert!(job.next_task().is_none());
        let answer = Answer { data: vec![there; 512], extents: vec![] };
        let looked = Finished { op: Op::Read(RANGE), result: Ok(()), answer };
        match unit.resume(&mut job, looked, &data_out, &mut vec![]) {
            Step::Done(outcome) => return (false, outcome),
            step => assert!(matches!(step, Step::Wait), "{step:?}"),
        }
        assert_eq!(job.next_task(), Some(Task { op: OP, memory: Memory::Command }));
        let result = result.map_err(BackendError::new);
        let done = Finished { op: OP, result, answer: Answer::default() };
        match unit.resume(&mut job, done, &data_out, &mut vec![]) {
            Step::Done(outcome) => (true, outcome),
            step => panic!("{step:?}"),
        }
    }

    fn miscompare_at_0() -> Outcome {
        Sense::miscompare(0).into()
    }

    #[test]
    fn blocks_that_are_as_they_should_be_are_exchanged() {
        for again in [None, Some(Again::Begun), Some(Again::Compared)] {
            assert_eq!(ends(again, [1, 1, 2], Ok(())), (true, Outcome::Good));
            assert_eq!(ends(again, [5, 5, 5], Ok(())), (true, Outcome::Good));
            let lost = ends(again, [1, 1, 2], Err(ErrorKind::Miscompare { offset: 0 }));
            assert_eq!(lost, (true, miscompare_at_0()), "somebody came in between");
        }
    }

    #[test]
    fn others_miscompare() {
        assert_eq!(ends(None, [2, 1, 2], Ok(())), (false, miscompare_at_0()));
        assert_eq!(ends(None, [9, 1, 2], Ok(())), (false, miscompare_at_0()));
        assert_eq!(ends(Some(Again::Begun), [9, 1, 2], Ok(())), (false, miscompare_at_0()));
    }

    #[test]
    fn what_may_be_its_own_doing_is_good_if_it_must_be_and_else_left_open() {
        assert_eq!(ends(Some(Again::Compared), [2, 1, 2], Ok(())), (false, Outcome::Good));
        assert_eq!(ends(Some(Again::Compared), [9, 1, 2], Ok(())), (false, Outcome::Busy));
        assert_eq!(ends(Some(Again::Begun), [2, 1, 2], Ok(())), (false, Outcome::Busy));
    }

    #[test]
    fn a_copy_is_given_up_and_all_else_is_begun_as_usual() {
        let unit = unit();
        let copy = Command::ExtendedCopy { list: 40 };
        let Some(Step::Done(outcome)) = unit.start_again(&copy, &Transfer { len: 40 }, Again::Begun) else {
            panic!("an end")
        };
        assert_eq!(outcome.sense().map(|sense| sense[2]), Some(0x0a)); // COPY ABORTED
        let extent = Extent { lba: Lba(0), blocks: Blocks(1) };
        for usual in [
            Command::ExtendedCopy { list: 0 },
            Command::Write(extent),
            Command::OrWrite(extent),
            Command::WriteAtomic(extent),
            Command::CompareAndWrite(Extent { lba: Lba(1 << 40), blocks: Blocks(1) }),
        ] {
            assert!(unit.start_again(&usual, &Transfer { len: 512 }, Again::Begun).is_none(), "{usual:?}");
        }
    }
}
