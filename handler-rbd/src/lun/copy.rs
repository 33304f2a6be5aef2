//! EXTENDED COPY within the disk, and what RECEIVE COPY RESULTS tells about it.
//!
//! One segment after the other; within a segment several chunks at a time, each read into private memory and
//! then written. A chunk ends where an object of the destination ends, so each write touches one object. A chunk
//! of zeros is written as zeros: thin disks stay thin.
//!
//! # Overlap
//! The destination gets what the source held when the segment began, as if all had been read first. Chunks are
//! taken in the direction in which a chunk's destination covers only its own source and those of chunks before it; a
//! chunk is written only after it and all before it have been read. So nothing is read after it was overwritten, and
//! memory is needed for a few chunks only.

use super::job::{Answer, DataOut, Memory, Role, Steps, Task};
use super::{Identity, Job, LogicalUnit, Outcome, Step, Transfer};
use crate::block::{BackendError, ByteRange, Op};
use crate::scsi::extended_copy::{self as list, CopyList, CopyResults, CopyState, Progress, Segment};
use crate::scsi::{Sense, vpd};
use std::collections::VecDeque;

/// Chunks in memory at a time.
const WINDOW: usize = 8;
/// Results of copies that are kept for RECEIVE COPY RESULTS.
const RESULTS: usize = 16;

/// EXTENDED COPY (LID1).
pub(super) fn extended_copy(
    unit: &mut LogicalUnit,
    len: u32,
    transfer: Transfer,
    identity: Option<&Identity>,
    params: &[u8],
) -> Result<Step, Sense> {
    if len == 0 {
        return Ok(Step::Done(Outcome::Good)); // SPC-4, "EXTENDED COPY command": no parameters, no error
    }
    let (id, keep, copy) = prepare(unit, len, transfer, identity, params).inspect_err(|_| {
        // An older one's success is not its.
        unit.copies.forget(list::identifier(params));
    })?;
    if unit.copies.running >= usize::from(list::MAX_COPIES) {
        return Ok(Step::Done(Outcome::TaskSetFull));
    }
    let serial = unit.copies.begin(id, keep);
    if copy.is_exhausted() {
        // Nothing to copy, and that is done and can be asked about.
        let end = Step::Done(Outcome::Good);
        unit.copies.went_on(serial, copy.copied(), &end);
        return Ok(end);
    }
    Ok(Step::Run(Job::many(copy).with_role(Role::Copy(serial))))
}

/// All checks: the list's identifier, whether its result is to be kept, and what to do.
fn prepare(
    unit: &LogicalUnit,
    len: u32,
    transfer: Transfer,
    identity: Option<&Identity>,
    params: &[u8],
) -> Result<(Option<u8>, bool, Copy), Sense> {
    if transfer.bytes() < u64::from(len) {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let name = vpd::naa(&identity.ok_or(Sense::INTERNAL_FAILURE)?.unit_serial);
    let CopyList { id, keep, segments } = list::parse(len, params, &name, unit.block_size)?;
    Ok((id, keep, Copy::new(segments, unit.size(), unit.limits.object_size)?))
}

/// RECEIVE COPY RESULTS.
pub(super) fn results(unit: &LogicalUnit, ask: CopyResults, reply: &mut Vec<u8>) -> Result<(), Sense> {
    let none = Sense::invalid_cdb_field(2, Some(7));
    let of = |id| unit.copies.find(id).ok_or(none);
    match ask {
        CopyResults::OperatingParameters => list::operating_parameters(unit.block_size, reply),
        CopyResults::Status(id) => {
            let copy = of(id)?;
            if copy.told {
                return Err(none);
            }
            list::status(copy.state, copy.progress, reply);
        }
        CopyResults::FailedSegmentDetails(id) => match of(id)?.state {
            // SPC-4, the command's clause: of a copy that is not over there is nothing to tell.
            CopyState::Running => return Err(Sense::invalid_cdb_field(2, Some(7))),
            state => list::failed_segment_details(state, reply),
        },
    }
    Ok(())
}

/// Copies in progress, and the last ones that ended.
///
/// A list identifier is an initiator's own, but the ring does not tell initiators apart: of several copies with one
/// identifier the latest counts; one that was refused leaves none. Once a copy has ended, its status is told once, and not at
/// all if the initiator said that it need not be kept (SPC-4, "COPY STATUS service action", LIST ID USAGE).
#[derive(Debug, Default)]
pub(super) struct Copies {
    running: usize,
    /// Copies there have been: the number of the next.
    begun: u64,
    known: VecDeque<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Which copy it is: identifiers come again while older copies are still in progress.
    serial: u64,
    id: u8,
    state: CopyState,
    progress: Progress,
    keep: bool,
    told: bool,
}

impl Copies {
    /// The number of the copy that begins, for [`Copies::went_on`].
    fn begin(&mut self, id: Option<u8>, keep: bool) -> u64 {
        self.running += 1;
        let serial = self.begun;
        self.begun += 1;
        let Some(id) = id else { return serial };
        self.known.retain(|known| known.id != id);
        self.known.truncate(RESULTS - 1);
        let (state, progress) = (CopyState::Running, Progress::default());
        self.known.push_front(Known { serial, id, state, progress, keep, told: false });
        serial
    }

    /// A copy with this identifier was refused: it never began, and there is no other to tell of any more.
    fn forget(&mut self, id: Option<u8>) {
        self.known.retain(|known| Some(known.id) != id);
    }

    fn find(&self, id: u8) -> Option<&Known> {
        self.known.iter().find(|known| known.id == id)
    }

    /// A copy has come so far, and perhaps to its end.
    pub(super) fn went_on(&mut self, serial: u64, progress: Progress, step: &Step) {
        let state = match *step {
            Step::Done(Outcome::Good) => CopyState::Good,
            Step::Done(outcome) => CopyState::Failed(outcome.status(), outcome.cause()),
            _ => CopyState::Running,
        };
        if state != CopyState::Running {
            self.running = self.running.saturating_sub(1);
        }
        if let Some(known) = self.known.iter_mut().find(|known| known.serial == serial) {
            (known.progress, known.state) = (progress, state);
        }
        self.known.retain(|known| known.keep || known.state == CopyState::Running);
    }

    /// COPY STATUS of this one has been answered.
    pub(super) fn told(&mut self, id: u8) {
        let ended = |known: &&mut Known| known.id == id && known.state != CopyState::Running;
        if let Some(known) = self.known.iter_mut().find(ended) {
            known.told = true;
        }
    }

    /// The copies in progress are void: a reset of the ring ended them.
    pub(super) fn forget_running(&mut self) {
        self.running = 0;
        self.known.retain(|known| known.state != CopyState::Running);
    }
}

/// Segments to copy.
#[derive(Debug)]
struct Copy {
    segments: VecDeque<Run>,
    /// Where chunks of the destination end.
    chunk: u64,
    window: VecDeque<Chunk>,
    done: Progress,
}

/// A segment, and what of it has not been begun.
#[derive(Clone, Copy, Debug)]
struct Run {
    source: u64,
    destination: ByteRange,
    order: Order,
}

/// The order in which chunks may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Any: source and destination are apart.
    Free,
    /// From the front: the destination begins before the source, or where it begins.
    Forward,
    /// From the end: the destination begins after the source.
    Backward,
}

impl Run {
    fn new(Segment { source, destination, len }: Segment) -> Self {
        let order = match source.abs_diff(destination) < len {
            false => Order::Free,
            true if destination <= source => Order::Forward,
            true => Order::Backward,
        };
        Self { source, destination: ByteRange { offset: destination, len }, order }
    }

    /// The next chunk. Chunks of the destination end at multiples of `at`.
    fn take(&mut self, at: u64) -> Chunk {
        let ByteRange { offset, len } = self.destination;
        let at = at.max(1);
        if self.order == Order::Backward {
            let end = offset + len;
            let from = ((end - 1) / at * at).max(offset);
            self.destination.len = from - offset;
            return Chunk::new(self.source + (from - offset), from, end - from);
        }
        let taken = len.min(at - offset % at);
        let chunk = Chunk::new(self.source, offset, taken);
        self.source += taken;
        self.destination = ByteRange { offset: offset + taken, len: len - taken };
        chunk
    }
}

#[derive(Debug)]
struct Chunk {
    source: ByteRange,
    destination: ByteRange,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading,
    Read(Vec<u8>),
    Writing,
}

impl Chunk {
    fn new(source: u64, destination: u64, len: u64) -> Self {
        let range = |offset| ByteRange { offset, len };
        Self { source: range(source), destination: range(destination), state: State::Reading }
    }

    /// Writes what has been read.
    fn write(&mut self) -> Option<Task> {
        let State::Read(bytes) = &mut self.state else { return None };
        let bytes = std::mem::take(bytes);
        self.state = State::Writing;
        let range = self.destination;
        Some(match bytes.iter().all(|&byte| byte == 0) {
            true => Task { op: Op::WriteZeroes(range), memory: Memory::None },
            false => Task { op: Op::Write(range), memory: Memory::Owned(bytes) },
        })
    }
}

impl Copy {
    /// Checks every segment before the first is begun.
    fn new(segments: Vec<Segment>, size: u64, chunk: u64) -> Result<Self, Sense> {
        for (segment, number) in segments.iter().zip(0..) {
            let fits = |start: u64| start.checked_add(segment.len).is_some_and(|end| end <= size);
            if !fits(segment.source) || !fits(segment.destination) {
                return Err(list::not_reachable(number));
            }
        }
        let segments = segments.into_iter().map(Run::new).collect();
        let mut copy = Self { segments, chunk, window: VecDeque::new(), done: Progress::default() };
        copy.skip_finished();
        Ok(copy)
    }

    /// Goes on to the next segment that has something to copy, once the one before is over.
    fn skip_finished(&mut self) {
        while self.window.is_empty() && self.segments.front().is_some_and(|run| run.destination.len == 0) {
            self.segments.pop_front();
            self.done.segments = self.done.segments.saturating_add(1);
        }
    }
}

impl Steps for Copy {
    fn next_task(&mut self) -> Option<Task> {
        let run = self.segments.front_mut()?;
        // Writing first: it frees memory.
        for chunk in &mut self.window {
            match chunk.state {
                State::Read(_) => return chunk.write(),
                State::Reading if run.order != Order::Free => break,
                State::Reading | State::Writing => {}
            }
        }
        if self.window.len() == WINDOW || run.destination.len == 0 {
            return None;
        }
        let chunk = run.take(self.chunk);
        let op = Op::Read(chunk.source);
        let memory = Memory::Private(usize::try_from(chunk.source.len).unwrap_or(usize::MAX));
        self.window.push_back(chunk);
        Some(Task { op, memory })
    }

    fn accept(&mut self, op: Op, Answer { data, .. }: Answer, _: DataOut<'_>) -> Result<(), Outcome> {
        let broken = Err(Sense::INTERNAL_FAILURE.into());
        match op {
            Op::Read(range) => {
                let reading =
                    |chunk: &&mut Chunk| matches!(chunk.state, State::Reading) && chunk.source == range;
                let Some(chunk) = self.window.iter_mut().find(reading) else { return broken };
                if u64::try_from(data.len()) != Ok(range.len) {
                    return broken;
                }
                chunk.state = State::Read(data);
            }
            Op::Write(range) | Op::WriteZeroes(range) => {
                let writing =
                    |chunk: &Chunk| matches!(chunk.state, State::Writing) && chunk.destination == range;
                let Some(at) = self.window.iter().position(writing) else { return broken };
                self.window.remove(at);
                self.done.bytes = self.done.bytes.saturating_add(range.len);
                self.skip_finished();
            }
            _ => return broken,
        }
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        self.segments.is_empty()
    }

    /// COPY ABORTED with the segment, whatever the reason: a copy over itself, begun again, would copy what it has
    /// changed. Initiators copy by themselves then.
    fn failure(&self, _: Op, _: BackendError) -> Outcome {
        list::failed(self.done.segments).into()
    }

    fn copied(&self) -> Progress {
        self.done
    }
}

#[cfg(test)]
mod tests;
