//! The loop: drain completions, take messages, start commands, publish once, sleep.

mod answer;
mod exchanges;
mod standstill;
mod storage;

use super::identity::{self, Parked, Waiting};
use super::news::{News, Silence};
use super::{BEAT, Message, Replacement};
use crate::block::completions::{Completions, Waker};
use crate::block::{Backend, Request};
use crate::clock;
use crate::lun::{Again, LogicalUnit, Outcome, Step, Transfer};
use crate::scsi::identity::Identity;
use crate::scsi::{Command, Sense};
use crossbeam_channel::{Receiver, Sender};
use exchanges::Exchanges;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;
use std::fmt;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use storage::{Active, REQUESTS};
use uio_ring::{Entry, Recovered, Ring, RingError, Stage, Token};

/// Commands in progress at a time, per device. More than that stay on the ring, which is what it is for. The
/// kernel's default queue depth is 128.
const COMMANDS: usize = 4096;
/// The answer to a command that a defect of ours has spoilt.
const DEFECT: Outcome = Outcome::CheckCondition(Sense::INTERNAL_FAILURE);

/// In one of so many rounds the journal is told the time.
const ROUNDS: u32 = 16;

const DOORBELL: u64 = 0;
const WAKER: u64 = 1;

/// Reads a device's identity from configfs. Called on a thread that may block.
pub type IdentitySource = Arc<dyn Fn() -> Result<Identity, String> + Send + Sync>;

/// Why a device's thread ended. In every case all storage operations had returned before.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to; every command that it had begun has been answered. All others are still on the ring.
    Stopped,
    /// The kernel removed the device.
    Removed,
    /// The ring is not usable.
    Failed(String),
}

/// A device that is being served, and everything its thread owns.
pub struct Served {
    ring: Ring,
    lun: LogicalUnit,
    backend: Arc<dyn Backend>,
    identity: IdentitySource,
    /// Told what becomes of storage: somebody may send a replacement.
    news: Box<dyn FnMut(News) + Send>,
    silence: Silence,
    /// Whether a replacement has been asked for.
    asked: bool,
    replacement: Option<Replacement>,

    completions: Arc<Completions>,
    waker: Arc<Waker>,
    inbox: Receiver<Message>,
    sender: Sender<Message>,
    epoll: Epoll,
    beats: Arc<AtomicU64>,

    active: Slab<Active>,
    waiting: Waiting,
    #[allow(clippy::vec_box, reason = "requests travel boxed")]
    idle: Vec<Box<Request>>,
    /// COMPARE AND WRITE commands in progress.
    exchanges: Exchanges,
    /// The job that wants the disk to itself.
    exclusive: Option<usize>,
    /// Requests at storage.
    out: usize,
    /// Bytes of private memory at storage.
    private: usize,
    reply: Vec<u8>,
    params: Vec<u8>,
    /// What a predecessor had consumed and not answered.
    recovered: Vec<Recovered>,
    /// Takes no more commands: what is on the ring is for the successor.
    stopping: bool,
    /// Counts rounds, to look at the clock in a few of them only.
    rounds: u32,
    /// Of the last look at the ring before which it was known that what is on it may be begun.
    awake_at: Duration,
    /// It has stood still, and what had waited then is not refused yet.
    is_late: bool,
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
            news: Box::new(|_| ()),
            silence: Silence::default(),
            asked: false,
            replacement: None,
            completions: Completions::new(REQUESTS, waker.clone()),
            waker,
            inbox,
            sender,
            epoll,
            beats: Arc::default(),
            active: Slab::new(),
            waiting: Waiting::default(),
            idle: Vec::new(),
            exchanges: Exchanges::default(),
            exclusive: None,
            out: 0,
            private: 0,
            reply: Vec::new(),
            params: Vec::new(),
            recovered: Vec::new(),
            stopping: false,
            rounds: 0,
            awake_at: clock::since_boot(),
            is_late: false,
        })
    }

    /// The same, with somebody to tell what becomes of storage, on the device's thread, which must not be held up. If
    /// it has shut the client out, commands get BUSY until a replacement comes ([`Handle::replace`]).
    ///
    /// [`Handle::replace`]: super::Handle::replace
    pub fn on_news(self, news: impl FnMut(News) + Send + 'static) -> Self {
        Self { news: Box::new(news), ..self }
    }

    /// The same, with commands that a predecessor had consumed. They are carried out first.
    pub fn with_recovered(self, recovered: Vec<Recovered>) -> Self {
        Self { recovered, ..self }
    }

    /// The same, for a ring of which it is known since then ([`clock::since_boot`]) that what is on it may be carried out.
    pub fn known_at(self, then: Duration) -> Self {
        Self { awake_at: then, ..self }
    }

    pub(super) fn address(&self) -> (Sender<Message>, Arc<Waker>, Weak<dyn Backend>) {
        (self.sender.clone(), self.waker.clone(), Arc::downgrade(&self.backend))
    }

    pub(super) fn beats(&self) -> Arc<AtomicU64> {
        self.beats.clone()
    }

    /// Tells that the thread is not stuck. Nobody else writes, so a store does.
    fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Size of the disk and of its blocks, in bytes.
    pub(super) fn geometry(&self) -> (u64, u32) {
        (self.lun.size(), self.lun.block_size())
    }

    /// Serves the device until it is stopped, removed or broken, or a defect stops it. On return no storage operation
    /// is under way, so backend and mapping may be closed.
    pub fn run(mut self) -> Exit {
        catch_unwind(AssertUnwindSafe(|| self.serve_until_exit())).unwrap_or_else(|_| {
            tracing::error!(
                "a defect has stopped the device's thread; once storage is done it is taken on anew"
            );
            // Invariant "the buffer outlives librbd": unwinding must not take the ring from under storage.
            self.recall();
            self.void_all();
            Exit::Failed("its thread panicked".into())
        })
    }

    fn serve_until_exit(&mut self) -> Exit {
        // A predecessor may have published answers and died before it kicked.
        let mut ended =
            self.ring.kick().and_then(|()| self.resume_erasure()).and_then(|()| self.begin_again());
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
                    ended = self
                        .ring
                        .rewind()
                        .and_then(|()| self.refuse_queued())
                        .and_then(|()| self.resume_erasure());
                }
                Err(error) => {
                    // A successor that went on with it would end here again.
                    tracing::error!(%error, "the ring cannot be used any more and will be reset");
                    self.ring.abandon_journal();
                    self.void_all();
                    return Exit::Failed(error.to_string());
                }
            }
        }
    }

    fn serve(&mut self) -> Result<Exit, RingError> {
        loop {
            self.beat();
            self.refuse_stale()?;
            while let Some(request) = self.completions.pop() {
                self.finished(request)?;
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.receive(message)?;
            }
            if self.out == 0 && self.replacement.is_some() && !self.stopping {
                self.refuse_waiting()?;
                self.refuse_queued()?; // it is still to be replaced should this find a reset
            }
            if self.out == 0
                && let Some(Replacement { backend, note, done }) = self.replacement.take()
            {
                self.backend = backend;
                (self.asked, self.silence) = (false, Silence::default());
                let _ = done.send(());
                if self.exclusive.is_none() {
                    self.lun.renew(&note.text, note.ours);
                    self.resume_erasure()?;
                }
            }
            self.consume()?;
            self.answer_lost()?;
            self.ring.flush()?;
            if self.stopping && self.ring.outstanding() == 0 && self.out == 0 {
                return Ok(Exit::Stopped);
            }
            if let Some(exit) = self.sleep()? {
                return Ok(exit);
            }
        }
    }

    /// Starts what is on the ring.
    fn consume(&mut self) -> Result<(), RingError> {
        // Before the ring is looked at: what comes later was queued later.
        self.rounds = self.rounds.wrapping_add(1);
        let now = self.rounds.is_multiple_of(ROUNDS).then(clock::awake);
        while !self.stopping
            && self.replacement.is_none()
            && self.waiting.len() + self.active.len() < COMMANDS
        {
            if self.ring.is_spent() {
                self.refuse_stale()?;
            }
            match self.ring.next() {
                Some(Ok(Entry::Command(command))) => self.begin(command)?,
                Some(Ok(Entry::Tmr(tmr))) => self.abort(&tmr)?,
                Some(Err(error)) => return Err(error),
                None => {
                    now.into_iter().for_each(|now| self.ring.rested(now));
                    break;
                }
            }
        }
        if let Some(error) = self.ring.journal_failure() {
            tracing::warn!(%error, "without a journal: after a crash initiators get BUSY for what was in progress");
        }
        Ok(())
    }

    /// Begins what a predecessor had consumed, oldest first. Nothing of it is still under way, and nobody else has had
    /// the image since (`daemon::adopt`).
    fn begin_again(&mut self) -> Result<(), RingError> {
        let mut result = Ok(());
        for Recovered { command, stage } in std::mem::take(&mut self.recovered) {
            match result {
                Ok(()) => result = self.begin_recovered(command, stage),
                Err(_) => self.ring.forget(command.token),
            }
        }
        result
    }

    fn begin_recovered(&mut self, command: uio_ring::Command, stage: Stage) -> Result<(), RingError> {
        if stage == Stage::Good {
            return self.complete(command.token, &Outcome::Good);
        }
        let again = match stage {
            Stage::Begun => Some(Again::Begun),
            Stage::Compared => Some(Again::Compared),
            Stage::New | Stage::Good => None,
        };
        if let Some(again) = again
            && let Ok(decoded) =
                guarded(|| self.lun.decode(command.cdb.as_bytes()), Err(Sense::INTERNAL_FAILURE))
        {
            let transfer = Transfer { len: command.token.data().len() };
            match guarded(|| self.lun.start_again(&decoded, &transfer, again), Some(Step::Done(DEFECT))) {
                None => {}
                Some(Step::Run(job)) => return self.run_job(job, Some(command.token)),
                Some(Step::Done(outcome)) => return self.complete(command.token, &outcome),
                Some(_) => return self.complete(command.token, &DEFECT), // nothing else begins
            }
        }
        self.begin(command)
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) -> Result<Option<Exit>, RingError> {
        let late = self.waiting.overdue();
        self.for_each(late, |device, Parked { token, .. }| {
            tracing::warn!("configfs has not shown the device's identity in time, answering BUSY");
            device.complete(token, &Outcome::Busy)
        })?;
        self.ring.flush()?;
        let patience = self.waiting.timeout().map_or(BEAT, |patience| patience.min(BEAT));
        let timeout = EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::ZERO);
        self.waker.going_to_sleep();
        if !self.completions.is_empty() || !self.inbox.is_empty() {
            self.waker.awake();
            return Ok(None);
        }
        let mut events = [EpollEvent::empty(); 2];
        let ready = self.epoll.wait(&mut events, timeout);
        self.waker.awake();
        let count = match ready {
            Ok(count) => {
                if count == 0 {
                    self.rounds = u32::MAX; // it has been quiet: the next round looks at the clock
                }
                count
            }
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
                let parked = self.waiting.fetched(self.fetch_identity());
                self.for_each(parked, |device, Parked { command, token, .. }| match &identity {
                    Ok(identity) => device.execute(&command, token, Some(identity)),
                    Err(_) => device.complete(token, &Outcome::Busy),
                })?;
            }
            Message::Replace(replacement) => self.replacement = Some(replacement),
            Message::Resize(size) => self.lun.resize(size),
            Message::Stop => {
                self.stopping = true;
                self.detach_exclusive()?;
            }
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

    /// What starts reading the identity, on a thread of its own.
    fn fetch_identity(&self) -> impl FnOnce() + use<> {
        let (source, sender, waker) = (self.identity.clone(), self.sender.clone(), self.waker.clone());
        move || {
            identity::fetch(source, move |message| {
                let _ = sender.send(message);
                waker.wake();
            });
        }
    }

    fn begin(&mut self, uio_ring::Command { cdb, token }: uio_ring::Command) -> Result<(), RingError> {
        match guarded(|| self.lun.decode(cdb.as_bytes()), Err(Sense::INTERNAL_FAILURE)) {
            Ok(command) if LogicalUnit::needs_identity(&command) => {
                let fetch = self.fetch_identity();
                self.waiting.park(command, token, fetch);
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
            Step::Run(job) => self.run_job(job, Some(token)),
            Step::Wait | Step::Detach(_) => self.complete(token, &DEFECT), // only ever answers to `resume`
        }
    }
}

/// Runs a step of the pure layers; a panic there is that command's HARDWARE ERROR, never silence.
fn guarded<T>(step: impl FnOnce() -> T, defect: T) -> T {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or(defect)
}
