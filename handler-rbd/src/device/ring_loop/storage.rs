//! Jobs and storage: tasks become requests, requests that come back become the jobs' next steps.

use super::super::identity::Parked;
use super::super::news::News;
use super::{BEAT, COMMANDS, DEFECT, Served, guarded};
use crate::block::{BackendError, Buffer, ByteRange, ErrorKind, Op, Request};
use crate::lun::{Answer, Finished, Job, Memory, Outcome, Step, Task};
use crate::scsi::Sense;
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;
use uio_ring::{CmdId, RingError, Stage, Tmr, Token};

/// What becomes of a request that came too late to be given to storage.
const NOT_DONE: BackendError = BackendError::new(ErrorKind::NoResource);
/// Most requests that one command has at storage at a time.
const FAN_OUT: usize = 8;
/// The answer to a command that its initiator has given up; it goes nowhere.
const ABORTED: Outcome = Outcome::CheckCondition(Sense::ABORTED);
/// With so many requests at storage a command gets no second one at a time.
const CROWD: usize = 256;
/// With so many bytes of private memory at storage a command gets no second request at a time.
const PRIVATE: usize = 64 << 20;
/// How often a device that a defect has stopped looks whether storage is done, in ms: it may not be woken.
const RECALL: u8 = 50;
/// Requests at storage at a time: the first of each command, and those that were no longer the first.
pub(super) const REQUESTS: usize = COMMANDS + CROWD;

/// A command in progress.
#[derive(Debug)]
pub(super) struct Active {
    id: CmdId,
    /// None while a request that is at storage holds it, and when the command has been answered early.
    token: Option<Token>,
    job: Job,
    /// Requests at storage.
    out: usize,
    /// Of a job of several operations: what those at storage may change.
    changing: Vec<ByteRange>,
    /// How it ends once no request of it is at storage any more.
    ending: Option<Outcome>,
    /// Whether the command has been answered while the job goes on.
    detached: bool,
    /// Whether the process has stood still since it began: nothing more is begun for it.
    stale: bool,
}

impl Active {
    /// Whether something of it that is at storage may change some of these bytes.
    fn is_changing(&self, range: ByteRange) -> bool {
        self.job.may_change(range) || self.changing.iter().any(|own| own.overlaps(range))
    }
}

impl Served {
    /// Begins a job, for a command or for nobody.
    pub(super) fn run_job(&mut self, job: Job, token: Option<Token>) -> Result<(), RingError> {
        let id = token.as_ref().map_or(CmdId(0), Token::id);
        let (exclusive, detached) = (job.is_exclusive(), token.is_none());
        let slot = self.active.insert(Active {
            id,
            token,
            job,
            out: 0,
            changing: Vec::new(),
            ending: None,
            detached,
            stale: self.is_late && !exclusive,
        });
        if exclusive {
            self.exclusive = Some(slot);
            return if self.stopping { self.detach_exclusive() } else { self.begin_exclusive() };
        }
        if let Some(range) = self.active[slot].job.exchanges() {
            let contended =
                self.active.iter().any(|(other, active)| other != slot && active.is_changing(range));
            self.exchanges.begin(slot, id, range, contended);
        }
        self.submit(slot)
    }

    /// Begins the erasure that nobody waits for.
    pub(super) fn resume_erasure(&mut self) -> Result<(), RingError> {
        self.lun.resume_erasure().map_or(Ok(()), |job| self.run_job(job, None))
    }

    /// Begins the job that wants the disk to itself, once it has.
    fn begin_exclusive(&mut self) -> Result<(), RingError> {
        let Some(slot) = self.exclusive.filter(|_| self.active.len() == 1) else { return Ok(()) };
        if !self.has_begun(slot) && self.has_stood_still() {
            return Ok(()); // it is about to be refused
        }
        tracing::info!("erasing the disk");
        self.submit(slot)
    }

    /// Gives storage what the job is ready to have done, as much of it as there is room for.
    fn submit(&mut self, slot: usize) -> Result<(), RingError> {
        if self.stopping && self.active[slot].detached {
            return Ok(()); // the successor goes on with it
        }
        let crowded = |out, private| out >= CROWD || private >= PRIVATE;
        loop {
            let active = &mut self.active[slot];
            if active.out >= FAN_OUT || (active.out > 0 && crowded(self.out, self.private)) {
                break;
            }
            let Some(Task { op, memory }) = active.job.next_task() else { break };
            // Invariant "no late write": the last look before storage has it. An erasure that has begun goes on, of which others
            // know by its note.
            let stale = active.stale;
            let late = op.changes() && self.exclusive != Some(slot) && (stale || self.has_stood_still());
            let active = &mut self.active[slot];
            let mut request = self.idle.pop().unwrap_or_else(|| Request::new(self.completions.clone()));
            request.slot = slot;
            request.op = op;
            request.buffer = lend(memory, &mut active.token);
            active.out += 1;
            self.out += 1;
            self.private += private(&request.buffer);
            if op.changes() && !active.job.is_one() {
                active.changing.extend(op.range());
            }
            if late {
                request.finish(Err(NOT_DONE));
                continue;
            }
            let stage = self.exchanges.about_to(&mut self.ring, slot, &op);
            if let Some(stage) = stage.filter(|_| !active.detached) {
                self.ring.reached(active.id, stage);
            }
            uio_ring::crash_point!("submit-none");
            self.backend.submit(request);
            uio_ring::crash_point!("submit-done");
        }
        let active = &self.active[slot];
        if active.out == 0 {
            tracing::error!("a job asked for nothing and did not end");
            self.lun.spoilt(&active.job);
            return self.end(slot, Step::Done(DEFECT));
        }
        Ok(())
    }

    /// A request came back.
    pub(super) fn finished(&mut self, mut request: Box<Request>) -> Result<(), RingError> {
        uio_ring::crash_point!("returned");
        let slot = request.slot;
        self.tell_of(&request.op, request.result);
        if request.result.is_err() && matches!(request.op, Op::CompareAndWrite(_)) {
            self.exchanges.failed(&mut self.ring, slot);
        }
        self.out -= 1;
        self.private -= private(&request.buffer);
        let active = &mut self.active[slot];
        active.out -= 1;
        if let Some(at) = active
            .changing
            .iter()
            .position(|range| request.op.changes() && request.op.range() == Some(*range))
        {
            active.changing.swap_remove(at);
        }
        let mut answer = Answer { data: Vec::new(), extents: std::mem::take(&mut request.extents) };
        match std::mem::replace(&mut request.buffer, Buffer::None) {
            Buffer::Ring(token) => active.token = Some(token),
            Buffer::Owned(bytes) => answer.data = bytes,
            Buffer::None => {}
        }
        let mut result = std::mem::replace(&mut request.result, Err(BackendError::new(ErrorKind::Io)));
        if active.stale && (!matches!(request.op, Op::CompareAndWrite(_)) || result == Err(NOT_DONE)) {
            result = Err(BackendError::new(ErrorKind::TimedOut)); // as good as
        }
        let finished = Finished { op: request.op, result, answer };
        self.idle.push(request);
        if let Some(outcome) = active.ending {
            return if active.out == 0 { self.end(slot, Step::Done(outcome)) } else { Ok(()) };
        }
        if self.exchanges.is_contended(slot) {
            active.job.contended();
        }
        let token = active.token.as_ref();
        let data_out = |at, to: &mut [u8]| token.map_or(0, |token| token.data().read(at, to));
        let (lun, job, reply) = (&mut self.lun, &mut active.job, &mut self.reply);
        let step = guarded(|| Some(lun.resume(job, finished, &data_out, reply)), None);
        let step = step.unwrap_or_else(|| {
            guarded(|| lun.spoilt(job), ());
            Step::Done(DEFECT)
        });
        match step {
            Step::Wait => {
                // After a reset the data buffer may be another command's, and more of it may be needed.
                self.ring.check()?;
                self.submit(slot)
            }
            Step::Detach(outcome) => {
                self.detach(slot, &outcome)?;
                self.submit(slot)
            }
            Step::Done(outcome) if active.out > 0 => {
                active.ending = Some(outcome);
                Ok(())
            }
            step => self.end(slot, step),
        }
    }

    /// What is in progress is begun with no further: a write that follows from a read of before would be as late as one that has
    /// waited on the ring (invariant "no late write"). Its commands end as if storage had not answered in time. Not COMPARE AND
    /// WRITE, which storage decides, nor an erasure, of which others know by its note.
    pub(super) fn all_is_stale(&mut self) {
        for (slot, active) in &mut self.active {
            active.stale |= self.exclusive != Some(slot);
        }
    }

    /// Tells the owner what the result of an operation says of storage.
    fn tell_of(&mut self, op: &Op, result: Result<(), BackendError>) {
        let fenced = result.is_err_and(|error| error.kind == ErrorKind::Fenced);
        let news = if fenced { Some(News::Fenced) } else { self.silence.heard(op, result, Instant::now) };
        // Once there is a replacement this client is shut out.
        let doubt = |news| news == News::InDoubt && self.replacement.is_none();
        if let Some(news) = news.filter(|&news| !self.asked || doubt(news)) {
            self.asked = matches!(news, News::Fenced | News::Settled);
            (self.news)(news);
        }
    }

    /// Ends a command that storage was asked for.
    fn end(&mut self, slot: usize, step: Step) -> Result<(), RingError> {
        let Active { token, job, .. } = self.active.remove(slot);
        self.exchanges.end(slot);
        if self.exclusive == Some(slot) {
            self.exclusive = None;
            match step {
                Step::Done(Outcome::Good) => tracing::info!("the disk is erased"),
                // Whoever asked may have been told GOOD before, and may never ask again.
                _ => tracing::error!(?step, "the disk could not be erased; it must be formatted anew"),
            }
        }
        if let Some(token) = token {
            let outcome = match step {
                Step::Reply => return self.reply(token).and_then(|()| self.begin_exclusive()),
                Step::Done(outcome) => outcome,
                Step::Run(_) | Step::Wait | Step::Detach(_) => DEFECT, // not ends
            };
            match usize::try_from(job.data_in()) {
                Ok(len @ 1..) if matches!(outcome, Outcome::Good) => self.answer_data(token, len),
                _ if job.has_written_its_data() => {
                    if matches!(outcome, Outcome::Good) {
                        self.ring.reached(token.id(), Stage::Good);
                    }
                    self.answer(token, &outcome, None)
                }
                _ => self.complete(token, &outcome),
            }?;
        }
        self.begin_exclusive()
    }

    /// Answers a command whose job goes on.
    fn detach(&mut self, slot: usize, outcome: &Outcome) -> Result<(), RingError> {
        let active = &mut self.active[slot];
        active.detached = true;
        match active.token.take() {
            Some(token) => self.complete(token, outcome),
            None => Ok(()),
        }
    }

    /// Answers the command that would make stopping wait for long.
    pub(super) fn detach_exclusive(&mut self) -> Result<(), RingError> {
        self.exclusive.map_or(Ok(()), |slot| self.detach(slot, &Outcome::Busy))
    }

    /// The kernel waits for commands that it has aborted, so their jobs end early. Their status goes nowhere.
    pub(super) fn abort(&mut self, tmr: &Tmr) -> Result<(), RingError> {
        tracing::debug!(?tmr, "task management function");
        for (_, active) in &mut self.active {
            if !active.detached && tmr.commands.contains(&active.id) && !active.job.is_exclusive() {
                active.job.abort();
            }
        }
        // One that has not begun must not begin after it was aborted.
        let parked = self.waiting.take(|parked| tmr.commands.contains(&parked.token.id()));
        self.for_each(parked, |device, Parked { token, .. }| device.complete(token, &ABORTED))?;
        match self.exclusive {
            Some(slot) if tmr.commands.contains(&self.active[slot].id) => {
                if self.has_begun(slot) {
                    self.detach(slot, &ABORTED)
                } else {
                    self.refuse_exclusive(&ABORTED)
                }
            }
            _ => Ok(()),
        }
    }

    /// Ends the job that wants the disk to itself, unless it has begun.
    pub(super) fn refuse_exclusive(&mut self, outcome: &Outcome) -> Result<(), RingError> {
        let Some(slot) = self.exclusive.filter(|&slot| !self.has_begun(slot)) else { return Ok(()) };
        self.exclusive = None;
        let Active { token, job, .. } = self.active.remove(slot);
        self.lun.spoilt(&job);
        token.map_or(Ok(()), |token| self.complete(token, outcome))
    }

    /// Whether anything of the job was given to storage, or its command was told GOOD: until its end a job that somebody
    /// waits for always has a request there.
    fn has_begun(&self, slot: usize) -> bool {
        self.active[slot].out > 0 || self.active[slot].detached
    }

    /// Waits until storage has no request any more, without trusting our own counts: a panic may have come between.
    /// Each request, wherever it is, holds on to the queue that it comes back through.
    pub(super) fn recall(&mut self) {
        loop {
            let returned: Vec<_> = std::iter::from_fn(|| self.completions.pop()).collect();
            for request in returned {
                self.reclaim(request);
            }
            if Arc::strong_count(&self.completions) == 1 + self.idle.len() {
                // What storage wrote to memory before it gave the last request up is seen from here on.
                fence(Ordering::Acquire);
                break;
            }
            self.waker.going_to_sleep();
            if self.completions.is_empty() {
                let _ = self.epoll.wait(&mut [EpollEvent::empty(); 2], RECALL);
            }
            self.waker.awake();
            self.beat();
        }
        (self.out, self.private) = (0, 0);
    }

    /// Takes a request back whose command needs no answer any more. What became of it counts all the same: a write that
    /// timed out may still happen (invariant "no late write").
    fn reclaim(&mut self, mut request: Box<Request>) {
        self.tell_of(&request.op, request.result);
        match std::mem::replace(&mut request.buffer, Buffer::None) {
            Buffer::Ring(token) => self.ring.forget(token),
            Buffer::Owned(_) | Buffer::None => {}
        }
        self.idle.push(request);
    }

    /// Ends everything in progress without answers: the kernel has answered, or no longer listens.
    ///
    /// Invariant "the buffer outlives librbd": waits until storage has returned every request.
    pub(super) fn void_all(&mut self) {
        // The kernel has answered BUSY for an erasure that has not begun: it is not to be carried out.
        if let Some(slot) = self.exclusive.filter(|&slot| !self.has_begun(slot)) {
            self.lun.spoilt(&self.active[slot].job);
        }
        while self.out > 0 {
            while let Some(request) = self.completions.pop() {
                self.out -= 1;
                self.private -= private(&request.buffer);
                self.reclaim(request);
            }
            self.waker.going_to_sleep();
            if self.out > 0 && self.completions.is_empty() {
                let beat = EpollTimeout::try_from(BEAT).unwrap_or(EpollTimeout::ZERO);
                let _ = self.epoll.wait(&mut [EpollEvent::empty(); 2], beat);
            }
            self.waker.awake();
            self.beat();
        }
        self.exclusive = None;
        self.exchanges.clear();
        self.lun.jobs_are_void();
        let active = self.active.drain().filter_map(|active| active.token);
        for token in active.chain(self.waiting.take(|_| true).into_iter().map(|parked| parked.token)) {
            self.ring.forget(token);
        }
        for recovered in self.recovered.drain(..) {
            self.ring.forget(recovered.command.token);
        }
    }
}

/// The memory a request needs: the command's own, for which it takes the token along, or private memory.
fn lend(memory: Memory, token: &mut Option<Token>) -> Buffer {
    match memory {
        Memory::None => Buffer::None,
        Memory::Command => token.take().map_or(Buffer::None, Buffer::Ring),
        Memory::Owned(bytes) => Buffer::Owned(bytes),
        Memory::Private(len) => Buffer::Owned(vec![0; len]),
        Memory::Copy(len) => {
            let mut bytes = vec![0; len];
            let there = token.as_ref().map_or(0, |token| token.data().read(0, &mut bytes));
            bytes.truncate(there); // short, it is refused
            Buffer::Owned(bytes)
        }
    }
}

/// Bytes of private memory that a request has.
fn private(buffer: &Buffer) -> usize {
    match buffer {
        Buffer::Owned(bytes) => bytes.capacity(),
        Buffer::Ring(_) | Buffer::None => 0,
    }
}
