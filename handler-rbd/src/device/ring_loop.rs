//! The loop: drain completions, take messages, start commands, publish once, sleep.

use super::Message;
use super::identity::{self, Parked, Waiting};
use crate::block::completions::{Completions, Waker};
use crate::block::{Backend, BackendError, Buffer, ErrorKind, Request};
use crate::lun::{Finished, Job, LogicalUnit, Memory, Outcome, Step, Task, Transfer};
use crate::scsi::identity::Identity;
use crate::scsi::{self, Command, Sense};
use crossbeam_channel::{Receiver, Sender};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;
use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use uio_ring::{Entry, Response, Ring, RingError, Token};

/// Commands in progress at a time, per device. More than that stay on the ring, which is what it is for. The
/// kernel's default queue depth is 128.
const COMMANDS: usize = 4096;
/// Most requests that one command has at storage at a time.
const FAN_OUT: usize = 8;
/// With so many requests at storage a command gets no second one at a time. Bounds the private buffers too.
const CROWD: usize = 256;
/// Requests at storage at a time: the first of each command, and those that were no longer the first.
const REQUESTS: usize = COMMANDS + CROWD;
/// The answer to a command that a defect of ours has spoilt.
const DEFECT: Outcome = Outcome::CheckCondition(Sense::INTERNAL_FAILURE);

const DOORBELL: u64 = 0;
const WAKER: u64 = 1;

/// Reads a device's identity from configfs. Called on a thread that may block.
pub type IdentitySource = Arc<dyn Fn() -> Result<Identity, String> + Send + Sync>;

/// Why a device's thread ended. In every case all storage operations had returned before.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to; every command that was on the ring then has been answered. Later ones are still there.
    Stopped,
    /// The kernel removed the device.
    Removed,
    /// The ring is not usable.
    Failed(String),
}

/// A command in progress.
#[derive(Debug)]
struct Active {
    /// None while a request that is at storage holds it.
    token: Option<Token>,
    job: Job,
    /// Requests at storage.
    out: usize,
    /// How it ends once no request of it is at storage any more.
    ending: Option<Outcome>,
}

/// A device that is being served, and everything its thread owns.
pub struct Served {
    ring: Ring,
    lun: LogicalUnit,
    backend: Arc<dyn Backend>,
    identity: IdentitySource,

    completions: Arc<Completions>,
    waker: Arc<Waker>,
    inbox: Receiver<Message>,
    sender: Sender<Message>,
    epoll: Epoll,

    active: Slab<Active>,
    waiting: Waiting,
    #[allow(clippy::vec_box, reason = "requests travel boxed")]
    idle: Vec<Box<Request>>,
    /// Requests at storage.
    out: usize,
    reply: Vec<u8>,
    params: Vec<u8>,
    stopping: bool,
    /// Takes no more commands: it is stopping and has seen the end of the ring.
    closed: bool,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("ring", &self.ring)
            .field("active", &self.active.len())
            .finish_non_exhaustive()
    }
}

impl Served {
    /// Puts a device together; nothing runs yet.
    pub fn new(
        ring: Ring,
        lun: LogicalUnit,
        backend: Arc<dyn Backend>,
        identity: IdentitySource,
    ) -> nix::Result<Self> {
        let waker = Arc::new(Waker::new()?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(ring.doorbell().as_fd(), EpollEvent::new(edge, DOORBELL))?;
        epoll.add(waker.as_fd(), EpollEvent::new(edge, WAKER))?;
        let (sender, inbox) = crossbeam_channel::unbounded();
        Ok(Self {
            ring,
            lun,
            backend,
            identity,
            completions: Completions::new(REQUESTS, waker.clone()),
            waker,
            inbox,
            sender,
            epoll,
            active: Slab::new(),
            waiting: Waiting::default(),
            idle: Vec::new(),
            out: 0,
            reply: Vec::new(),
            params: Vec::new(),
            stopping: false,
            closed: false,
        })
    }

    pub(super) fn address(&self) -> (Sender<Message>, Arc<Waker>, Weak<dyn Backend>) {
        (self.sender.clone(), self.waker.clone(), Arc::downgrade(&self.backend))
    }

    /// Size of the disk and of its blocks, in bytes.
    pub(super) fn geometry(&self) -> (u64, u32) {
        (self.lun.size(), self.lun.block_size())
    }

    /// Serves the device until it is stopped, removed or broken. On return no storage operation is under
    /// way, so backend and mapping may be closed.
    pub fn run(mut self) -> Exit {
        // A predecessor may have published answers and died before it kicked.
        let mut ended = self.ring.kick();
        loop {
            match ended.and_then(|()| self.serve()) {
                Ok(exit) => return exit,
                Err(RingError::Kick(error)) => {
                    tracing::info!(%error, "the device was removed");
                    self.void_all();
                    return Exit::Removed;
                }
                Err(error @ RingError::Reset { .. }) => {
                    // Invariant "exactly once": the kernel has answered everything consumed before with
                    // BUSY, so none of it may be answered by us; ids and pages may be in use again.
                    tracing::error!(%error, "dropping the commands in progress and starting over");
                    self.void_all();
                    ended = self.ring.rewind();
                }
                Err(error) => {
                    tracing::error!(%error, "the ring cannot be used any more; restart the daemon to reset it");
                    self.void_all();
                    return Exit::Failed(error.to_string());
                }
            }
        }
    }

    fn serve(&mut self) -> Result<Exit, RingError> {
        loop {
            while let Some(request) = self.completions.pop() {
                self.finished(request)?;
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.receive(message)?;
            }
            while !self.closed && self.active.len() < COMMANDS {
                match self.ring.next() {
                    Some(Ok(Entry::Command(command))) => self.begin(command)?,
                    Some(Ok(Entry::Tmr(tmr))) => tracing::debug!(?tmr, "task management function"),
                    Some(Err(error)) => return Err(error),
                    None => {
                        // An initiator that always has more to ask must not keep us for ever. What comes
                        // from here on stays on the ring for the successor.
                        self.closed = self.stopping;
                        break;
                    }
                }
            }
            self.answer_lost()?;
            self.ring.flush()?;
            if self.closed && self.ring.outstanding() == 0 {
                return Ok(Exit::Stopped);
            }
            if let Some(exit) = self.sleep()? {
                return Ok(exit);
            }
        }
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) -> Result<Option<Exit>, RingError> {
        let late = self.waiting.overdue();
        self.for_each(late, |device, Parked { token, .. }| {
            tracing::warn!("configfs has not shown the device's identity in time, answering BUSY");
            device.complete(token, &Outcome::Busy)
        })?;
        self.ring.flush()?;
        let timeout = match self.waiting.timeout() {
            Some(patience) => EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::ZERO),
            None => EpollTimeout::NONE,
        };
        self.waker.going_to_sleep();
        if !self.completions.is_empty() || !self.inbox.is_empty() {
            self.waker.awake();
            return Ok(None);
        }
        let mut events = [EpollEvent::empty(); 2];
        let ready = self.epoll.wait(&mut events, timeout);
        self.waker.awake();
        let count = match ready {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(RingError::Kick(errno.into())),
        };
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let removed = |event: &EpollEvent| event.data() == DOORBELL && event.events().intersects(gone);
        if events[..count].iter().any(removed) {
            self.void_all();
            return Ok(Some(Exit::Removed));
        }
        Ok(None)
    }

    fn receive(&mut self, message: Message) -> Result<(), RingError> {
        match message {
            Message::Identity(identity) => {
                if let Err(error) = &identity {
                    tracing::warn!(error, "cannot read the device's identity, answering BUSY");
                }
                let parked = self.waiting.fetched();
                self.for_each(parked, |device, Parked { command, token, .. }| match &identity {
                    Ok(identity) => device.execute(&command, token, Some(identity)),
                    Err(_) => device.complete(token, &Outcome::Busy),
                })?;
            }
            Message::Resize(size) => self.lun.resize(size),
            Message::Stop => self.stopping = true,
        }
        Ok(())
    }

    /// Ends the waiting of commands. Once the ring fails the others are void.
    fn for_each(
        &mut self,
        parked: Vec<Parked>,
        mut act: impl FnMut(&mut Self, Parked) -> Result<(), RingError>,
    ) -> Result<(), RingError> {
        let mut result = Ok(());
        for parked in parked {
            match result {
                Ok(()) => result = act(self, parked),
                Err(_) => self.ring.forget(parked.token),
            }
        }
        result
    }

    fn begin(&mut self, uio_ring::Command { cdb, token }: uio_ring::Command) -> Result<(), RingError> {
        match guarded(|| scsi::decode(cdb.as_bytes()), Err(Sense::INTERNAL_FAILURE)) {
            Ok(command) if LogicalUnit::needs_identity(&command) => {
                let (source, sender, waker) =
                    (self.identity.clone(), self.sender.clone(), self.waker.clone());
                self.waiting.park(command, token, || {
                    identity::fetch(source, move |message| {
                        let _ = sender.send(message);
                        waker.wake();
                    });
                });
                Ok(())
            }
            Ok(command) => self.execute(&command, token, None),
            Err(sense) => self.complete(token, &Outcome::CheckCondition(sense)),
        }
    }

    fn execute(
        &mut self,
        command: &Command,
        token: Token,
        identity: Option<&Identity>,
    ) -> Result<(), RingError> {
        let transfer = Transfer { len: token.data().len() };
        // A private copy: checks and use must see the same bytes.
        self.params.resize(self.lun.parameters(command).min(transfer.len), 0);
        token.data().read(0, &mut self.params);
        self.reply.clear();
        let (lun, params, reply) = (&mut self.lun, &self.params, &mut self.reply);
        match guarded(|| lun.start(command, &transfer, identity, params, reply), Step::Done(DEFECT)) {
            Step::Done(outcome) => self.complete(token, &outcome),
            Step::Reply => self.reply(token),
            Step::Run(job) => {
                let slot = self.active.insert(Active { token: Some(token), job, out: 0, ending: None });
                self.submit(slot)
            }
            Step::Wait => self.complete(token, &DEFECT), // only ever an answer to `resume`
        }
    }

    /// Gives storage what the job is ready to have done, as much of it as there is room for.
    fn submit(&mut self, slot: usize) -> Result<(), RingError> {
        let active = &mut self.active[slot];
        while active.out == 0 || (active.out < FAN_OUT && self.out < CROWD) {
            let Some(Task { op, memory }) = active.job.next_task() else { break };
            let mut request = self.idle.pop().unwrap_or_else(|| Request::new(self.completions.clone()));
            request.slot = slot;
            request.op = op;
            request.buffer = lend(memory, &mut active.token);
            active.out += 1;
            self.out += 1;
            self.backend.submit(request);
        }
        if active.out == 0 {
            tracing::error!("a job asked for nothing and did not end");
            return self.end(slot, &DEFECT);
        }
        Ok(())
    }

    /// A request came back.
    fn finished(&mut self, mut request: Box<Request>) -> Result<(), RingError> {
        let slot = request.slot;
        let active = &mut self.active[slot];
        self.out -= 1;
        active.out -= 1;
        let mut private = Vec::new();
        match std::mem::replace(&mut request.buffer, Buffer::None) {
            Buffer::Ring(token) => active.token = Some(token),
            Buffer::Owned(bytes) => private = bytes,
            Buffer::None => {}
        }
        let result = std::mem::replace(&mut request.result, Err(BackendError::new(ErrorKind::Io)));
        let finished = Finished { op: request.op, result, data: &private };
        self.idle.push(request);
        if active.ending.is_none() {
            let token = active.token.as_ref();
            let data_out = |at, to: &mut [u8]| token.map_or(0, |token| token.data().read(at, to));
            let (lun, job) = (&mut self.lun, &mut active.job);
            active.ending = match guarded(|| lun.resume(job, &finished, &data_out), Step::Done(DEFECT)) {
                Step::Done(outcome) => Some(outcome),
                Step::Wait => {
                    // After a reset the data buffer may be another command's, and more of it may be needed.
                    self.ring.check()?;
                    return self.submit(slot);
                }
                Step::Reply | Step::Run(_) => Some(DEFECT), // only ever answers to `start`
            };
        }
        match active.ending {
            Some(outcome) if active.out == 0 => self.end(slot, &outcome),
            _ => Ok(()),
        }
    }

    /// Ends a command that storage was asked for.
    fn end(&mut self, slot: usize, outcome: &Outcome) -> Result<(), RingError> {
        let Active { token, job, .. } = self.active.remove(slot);
        let Some(token) = token else { return Ok(()) };
        match usize::try_from(job.data_in()) {
            Ok(len @ 1..) if matches!(outcome, Outcome::Good) => self.answer_data(token, len),
            _ if job.data_out() => self.answer(token, outcome, None),
            _ => self.complete(token, outcome),
        }
    }

    /// Answers a command that moved no data.
    fn complete(&mut self, token: Token, outcome: &Outcome) -> Result<(), RingError> {
        if !matches!(outcome, Outcome::Good) {
            return self.answer(token, outcome, None);
        }
        // Invariant "no foreign bytes": with GOOD the kernel hands the whole buffer to a reader.
        let token = self.still_ours(token)?;
        token.data().zero_from(0);
        self.answer(token, outcome, None)
    }

    /// The token, to write to its pages. After a reset of the ring they may be another command's.
    fn still_ours(&mut self, token: Token) -> Result<Token, RingError> {
        match self.ring.check() {
            Ok(()) => Ok(token),
            Err(error) => {
                self.ring.forget(token);
                Err(error)
            }
        }
    }

    /// Answers a command with the bytes in `self.reply`.
    fn reply(&mut self, token: Token) -> Result<(), RingError> {
        let token = self.still_ours(token)?;
        let len = token.data().write(0, &self.reply);
        self.answer_data(token, len)
    }

    /// Answers GOOD to a command whose buffer holds `len` valid bytes. Invariant "no foreign bytes": the
    /// rest, which is some earlier command's, is withheld, or zeroed where that cannot be said.
    fn answer_data(&mut self, token: Token, len: usize) -> Result<(), RingError> {
        let mut read_len = None;
        if len < token.data().len() {
            read_len =
                u32::try_from(len).ok().and_then(NonZeroU32::new).filter(|_| self.ring.features().read_len);
            if read_len.is_none() {
                token.data().zero_from(len);
            }
        }
        self.answer(token, &Outcome::Good, read_len)
    }

    fn answer(
        &mut self,
        token: Token,
        outcome: &Outcome,
        read_len: Option<NonZeroU32>,
    ) -> Result<(), RingError> {
        let sense = outcome.sense();
        self.ring.complete(token, &Response { status: outcome.status(), read_len, sense: sense.as_ref() })
    }

    /// Invariant "exactly once": a token dropped by a defect of ours is answered all the same.
    fn answer_lost(&mut self) -> Result<(), RingError> {
        let sense = DEFECT.sense();
        let response = Response { status: DEFECT.status(), read_len: None, sense: sense.as_ref() };
        let lost = self.ring.answer_lost(&response)?;
        if lost > 0 {
            tracing::error!(lost, "commands were dropped by a defect and answered with HARDWARE ERROR");
        }
        Ok(())
    }

    /// Ends everything in progress without answers: the kernel has answered, or no longer listens.
    ///
    /// Invariant "the buffer outlives librbd": waits until storage has returned every request.
    fn void_all(&mut self) {
        while self.out > 0 {
            while let Some(mut request) = self.completions.pop() {
                self.out -= 1;
                if let Buffer::Ring(token) = std::mem::replace(&mut request.buffer, Buffer::None) {
                    self.ring.forget(token);
                }
                self.idle.push(request);
            }
            self.waker.going_to_sleep();
            if self.out > 0 && self.completions.is_empty() {
                let _ = self.epoll.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::NONE);
            }
            self.waker.awake();
        }
        let active = self.active.drain().filter_map(|active| active.token);
        for token in active.chain(self.waiting.fetched().into_iter().map(|parked| parked.token)) {
            self.ring.forget(token);
        }
    }
}

/// The memory a request needs: the command's own, for which it takes the token along, or private memory.
fn lend(memory: Memory, token: &mut Option<Token>) -> Buffer {
    match memory {
        Memory::None => Buffer::None,
        Memory::Command => token.take().map_or(Buffer::None, Buffer::Ring),
        Memory::Private(len) => Buffer::Owned(vec![0; len]),
        Memory::Copy(len) => {
            let mut bytes = vec![0; len];
            let there = token.as_ref().map_or(0, |token| token.data().read(0, &mut bytes));
            bytes.truncate(there); // short, it is refused
            Buffer::Owned(bytes)
        }
    }
}

/// Runs a step of the pure layers; a panic there is that command's HARDWARE ERROR, never silence.
fn guarded<T>(step: impl FnOnce() -> T, defect: T) -> T {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or(defect)
}
