//! Storage as nasty as the contract of [`Backend`] lets it be.
//!
//! A thread of its own carries out what it has been given in random order. What crosses an object boundary is
//! carried out object by object, in any order, with other requests in between; only within one object is
//! anything atomic. An answer comes some time after the effect. Now and then a request fails, with none, a part,
//! or all of its effect.

use crate::command::Span;
use crate::content::Rng;
use crate::mutants::{Mutant, Mutation};
use handler_rbd::block::{Backend, BackendError, Buffer, ByteRange, ErrorKind, Limits, Op, Request};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the disk is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) block: u64,
    pub(crate) blocks: u64,
    pub(crate) object: u64,
    /// Longest compare and write, in bytes.
    pub(crate) compare: u64,
    /// How many requests it likes to have before it carries out any; 1: at once.
    pub(crate) hold: u64,
    pub(crate) seed: u64,
    pub(crate) mutant: Option<Mutant>,
}

impl Shape {
    pub(crate) fn size(&self) -> u64 {
        self.block * self.blocks
    }
}

/// A failure that was reported to the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Injected {
    pub(crate) at: u64,
    /// None for a flush, which concerns every block.
    pub(crate) span: Option<Span>,
    pub(crate) write: bool,
    pub(crate) kind: ErrorKind,
}

/// The storage of one run.
pub(crate) struct Disk {
    shape: Shape,
    inner: Arc<Inner>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Inner {
    inbox: Mutex<Inbox>,
    news: Condvar,
    bytes: Mutex<Vec<u8>>,
    note: Mutex<Vec<u8>>,
    faults: AtomicBool,
    /// The driver's clock.
    now: AtomicU64,
    injected: Mutex<Vec<Injected>>,
    failures: AtomicU64,
    misuse: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Inbox {
    #[allow(clippy::vec_box, reason = "requests travel boxed")]
    requests: Vec<Box<Request>>,
    stop: bool,
}

impl Disk {
    pub(crate) fn new(shape: Shape) -> Arc<Self> {
        let inner = Arc::new(Inner::default());
        *lock(&inner.bytes) = vec![0; usize::try_from(shape.size()).unwrap()];
        let mut worker = Worker::new(shape, inner.clone());
        let thread = std::thread::Builder::new().name("storage".into()).spawn(move || worker.run()).unwrap();
        Arc::new(Self { shape, inner, worker: Mutex::new(Some(thread)) })
    }

    /// Whether requests fail now and then from now on.
    pub(crate) fn faults(&self, on: bool) {
        self.inner.faults.store(on, Ordering::SeqCst);
    }

    /// Tells the time, for the record of failures.
    pub(crate) fn tell(&self, now: u64) {
        self.inner.now.store(now, Ordering::SeqCst);
    }

    pub(crate) fn injected(&self) -> MutexGuard<'_, Vec<Injected>> {
        lock(&self.inner.injected)
    }

    /// How many there were, forgotten ones as well.
    pub(crate) fn failures(&self) -> u64 {
        self.inner.failures.load(Ordering::SeqCst)
    }

    /// What the device asked for that the contract forbids.
    pub(crate) fn misuse(&self) -> Vec<String> {
        lock(&self.inner.misuse).clone()
    }

    /// Carries out everything and ends.
    pub(crate) fn stop(&self) {
        lock(&self.inner.inbox).stop = true;
        self.inner.news.notify_one();
        if let Some(thread) = lock(&self.worker).take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the storage thread panicked");
        }
    }
}

impl Backend for Disk {
    fn submit(&self, request: Box<Request>) {
        lock(&self.inner.inbox).requests.push(request);
        self.inner.news.notify_one();
    }

    fn limits(&self) -> Limits {
        Limits {
            size: self.shape.size(),
            object_size: self.shape.object,
            compare_and_write: self.shape.compare,
            discard_granularity: self.shape.object / 4,
            solid_state: false,
        }
    }

    fn has_note(&self) -> bool {
        self.note().is_ok_and(|note| !note.is_empty())
    }

    fn note(&self) -> Result<Vec<u8>, BackendError> {
        Ok(lock(&self.inner.note).clone())
    }

    fn refresh(&self) -> Result<u64, BackendError> {
        Ok(self.shape.size())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request and what is left to do of it.
struct Held {
    request: Box<Request>,
    parts: Vec<ByteRange>,
    result: Result<(), BackendError>,
    failed: Option<ErrorKind>,
}

struct Worker {
    shape: Shape,
    inner: Arc<Inner>,
    rng: Rng,
    held: Vec<Held>,
    mutation: Mutation,
}

impl Worker {
    fn new(shape: Shape, inner: Arc<Inner>) -> Self {
        let mutation = Mutation::new(shape.mutant, shape.seed);
        Self { shape, inner, rng: Rng(shape.seed ^ 0xd15c), held: Vec::new(), mutation }
    }

    fn run(&mut self) {
        while self.collect() {
            let steps = 1 + self.rng.below(2 * self.shape.hold);
            for _ in 0..steps {
                if self.held.is_empty() {
                    break;
                }
                self.step();
            }
        }
    }

    /// Takes new requests in, and waits until there are some, or as many as it likes. False at the end.
    fn collect(&mut self) -> bool {
        let wanted = 1 + self.rng.index(usize::try_from(self.shape.hold).unwrap());
        let inner = self.inner.clone();
        let mut inbox = lock(&inner.inbox);
        loop {
            for request in std::mem::take(&mut inbox.requests) {
                let held = self.take(request);
                self.held.push(held);
            }
            if inbox.stop || self.held.len() >= wanted {
                return !(inbox.stop && self.held.is_empty());
            }
            if self.held.is_empty() {
                inbox = inner.news.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            } else {
                let patience = Duration::from_micros(50);
                let woken = inner.news.wait_timeout(inbox, patience).unwrap_or_else(PoisonError::into_inner);
                inbox = woken.0;
                if woken.1.timed_out() && inbox.requests.is_empty() {
                    return true;
                }
            }
        }
    }

    /// Plans a request: its parts, and whether it is going to fail.
    fn take(&mut self, request: Box<Request>) -> Held {
        let mut held = Held { request, parts: vec![], result: Ok(()), failed: None };
        held.request.extents.clear();
        if let Err(why) = self.check(&held.request) {
            lock(&self.inner.misuse).push(format!("{:?}: {why}", held.request.op));
            held.result = Err(BackendError::new(ErrorKind::Invalid));
            return held;
        }
        held.parts = match held.request.op {
            Op::Flush | Op::SetNote => vec![],
            op => self.split(range(op).unwrap_or(ByteRange { offset: 0, len: 0 })),
        };
        if self.inner.faults.load(Ordering::SeqCst) && self.rng.once_in(50) {
            let kinds = [ErrorKind::Io, ErrorKind::TimedOut, ErrorKind::NoResource, ErrorKind::NoSpace];
            let write = !matches!(held.request.op, Op::Read(_) | Op::Extents(_) | Op::Flush | Op::SetNote);
            held.failed = Some(kinds[self.rng.index(if write { 4 } else { 3 })]);
            for part in (0..held.parts.len()).rev() {
                if self.rng.once_in(2) {
                    held.parts.swap_remove(part);
                }
            }
        }
        held
    }

    /// The parts of a range that lie in one object each.
    fn split(&mut self, range: ByteRange) -> Vec<ByteRange> {
        let object = self.mutation.atom(self.shape.object, self.shape.block);
        let (mut at, end) = (range.offset, range.offset + range.len);
        let mut parts = vec![];
        while at < end {
            let next = end.min((at / object + 1) * object);
            parts.push(ByteRange { offset: at, len: next - at });
            at = next;
        }
        parts
    }

    fn check(&self, request: &Request) -> Result<(), String> {
        let Some(range) = range(request.op) else { return Ok(()) };
        let end = range.offset.checked_add(range.len).ok_or("wraps")?;
        if end > self.shape.size() {
            return Err("beyond the end".into());
        }
        let needed = match request.op {
            Op::Read(range) | Op::Write(range) => range.len,
            Op::CompareAndWrite(range) => {
                let unit = self.shape.compare;
                if range.len == 0 || range.offset / unit != (end - 1) / unit {
                    return Err(format!("crosses a multiple of {unit}"));
                }
                2 * range.len
            }
            Op::WriteSame { pattern: 0, .. } => return Err("empty pattern".into()),
            Op::WriteSame { range, pattern } if range.len % u64::from(pattern) != 0 => {
                return Err("the pattern does not divide the range".into());
            }
            Op::WriteSame { pattern, .. } => pattern.into(),
            Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) | Op::Extents(_) | Op::SetNote => 0,
        };
        let have = match &request.buffer {
            Buffer::None => 0,
            Buffer::Ring(token) => token.data().len(),
            Buffer::Owned(bytes) => bytes.len(),
        };
        if (have as u64) < needed { Err(format!("buffer of {have} for {needed} bytes")) } else { Ok(()) }
    }

    /// Carries out a part of one request, or gives one back.
    fn step(&mut self) {
        let inner = self.inner.clone();
        let mut bytes = lock(&inner.bytes);
        self.mutation.step(&mut bytes);
        let at = self.rng.index(self.held.len());
        let held = &mut self.held[at];
        if !held.parts.is_empty() {
            let part = held.parts.swap_remove(self.rng.index(held.parts.len()));
            let result = perform(&mut held.request, part, &mut bytes, &mut self.mutation, self.shape);
            match result {
                Ok(Some(again)) => held.parts.push(again),
                Ok(None) => {}
                Err(error) => held.result = Err(error),
            }
            return;
        }
        if self.shape.hold > 1 && self.rng.once_in(2) {
            return; // later
        }
        drop(bytes);
        let mut held = self.held.swap_remove(at);
        if let Some(kind) = held.failed {
            self.record(held.request.op, kind);
            if let Op::Read(_) = held.request.op {
                put(&mut held.request.buffer, 0, &[0xee; 64]);
            }
            held.result = Err(BackendError::new(kind));
        }
        match (held.request.op, &held.request.buffer) {
            (Op::SetNote, Buffer::Owned(bytes)) if held.result.is_ok() => {
                *lock(&self.inner.note) = bytes.clone()
            }
            (Op::SetNote, _) if held.result.is_ok() => lock(&self.inner.note).clear(),
            (Op::Extents(_), _) => join(&mut held.request.extents),
            _ => {}
        }
        held.request.finish(held.result);
    }

    fn record(&self, op: Op, kind: ErrorKind) {
        let block = self.shape.block;
        let span = range(op).map(|range| {
            let first = range.offset / block;
            Span::new(first, (range.offset + range.len).div_ceil(block) - first)
        });
        let write = !matches!(op, Op::Read(_) | Op::Extents(_));
        let at = self.inner.now.load(Ordering::SeqCst);
        self.inner.failures.fetch_add(1, Ordering::SeqCst);
        lock(&self.inner.injected).push(Injected { at, span, write, kind });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.stop();
    }
}

fn range(op: Op) -> Option<ByteRange> {
    match op {
        Op::Flush | Op::SetNote => None,
        Op::Extents(range)
        | Op::Read(range)
        | Op::Write(range)
        | Op::Discard(range)
        | Op::WriteZeroes(range)
        | Op::WriteSame { range, .. }
        | Op::CompareAndWrite(range) => Some(range),
    }
}

/// Carries out one part within one object; more to do of it only where a mutant tears it.
fn perform(
    request: &mut Request,
    part: ByteRange,
    disk: &mut [u8],
    mutation: &mut Mutation,
    shape: Shape,
) -> Result<Option<ByteRange>, BackendError> {
    let whole = range(request.op).expect("only operations on a range have parts");
    let place = usize::try_from(part.offset).unwrap()..usize::try_from(part.offset + part.len).unwrap();
    let skip = usize::try_from(part.offset - whole.offset).unwrap();
    let mut new = vec![0; place.len()];
    match request.op {
        Op::Flush | Op::SetNote => {}
        Op::Extents(_) => mutation.extents(disk, place, shape, &mut request.extents),
        Op::Read(_) => put(&mut request.buffer, skip, mutation.read(disk, place)),
        Op::Write(_) => {
            get(&request.buffer, skip, &mut new);
            mutation.write(disk, place.start, new, shape);
        }
        Op::WriteZeroes(_) => mutation.zero(disk, place),
        Op::Discard(_) => {
            // Only what is given back whole reads as zeros.
            let granule = usize::try_from(shape.object / 4).unwrap();
            let inner = place.start.next_multiple_of(granule)..place.end / granule * granule;
            if inner.start < inner.end {
                mutation.zero(disk, inner);
            }
        }
        Op::WriteSame { pattern, .. } => {
            let mut unit = vec![0; pattern as usize];
            get(&request.buffer, 0, &mut unit);
            for (at, byte) in (skip..).zip(&mut new) {
                *byte = unit[at % unit.len()];
            }
            mutation.write(disk, place.start, new, shape);
        }
        Op::CompareAndWrite(_) => {
            let mut compare = vec![0; place.len()];
            get(&request.buffer, 0, &mut compare);
            get(&request.buffer, place.len(), &mut new);
            // The second half of a torn one compares no more.
            let torn = std::mem::take(&mut request.mismatch) == TORN;
            let differs = disk[place.clone()].iter().zip(&compare).position(|(have, want)| have != want);
            if let Some(offset) = differs.or(mutation.refuses().then_some(0)).filter(|_| !torn) {
                return Err(BackendError::new(ErrorKind::Miscompare { offset: offset as u64 }));
            }
            if !torn && mutation.tears_compare() {
                request.mismatch = TORN;
                return Ok(Some(part));
            }
            mutation.write(disk, place.start, new, shape);
        }
    }
    Ok(None)
}

/// Puts extents in order, those that touch together.
fn join(extents: &mut Vec<ByteRange>) {
    extents.sort_unstable_by_key(|extent| extent.offset);
    extents.dedup_by(|next, last| {
        let touches = last.offset + last.len == next.offset;
        last.len += if touches { next.len } else { 0 };
        touches
    });
}

/// Marks, in the request's room for the backend, a compare and write that has compared.
const TORN: u64 = 0x7042;

fn put(buffer: &mut Buffer, at: usize, bytes: &[u8]) {
    match buffer {
        Buffer::None => {}
        Buffer::Ring(token) => drop(token.data().write(at, bytes)),
        Buffer::Owned(owned) => {
            let end = owned.len().min(at + bytes.len());
            owned[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }
}

fn get(buffer: &Buffer, at: usize, bytes: &mut [u8]) {
    match buffer {
        Buffer::None => {}
        Buffer::Ring(token) => drop(token.data().read(at, bytes)),
        Buffer::Owned(owned) => bytes.copy_from_slice(&owned[at..at + bytes.len()]),
    }
}
