//! A disk in memory, behind the same trait as the real one: for tests, and to price everything else.
//!
//! Completes inline, on the thread that submits, unless requests are held back to be finished later, out of
//! order, or with an error.

use super::{Backend, BackendError, Buffer, ByteRange, ErrorKind, Limits, Op, Request};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Size of the pretended objects.
const OBJECT_SIZE: u64 = 256 << 10;

/// Bytes that are allocated together, from wherever one begins to look.
const PIECE: usize = 4096;

/// A disk whose content is a `Vec<u8>`.
pub struct Memory {
    state: Mutex<State>,
    size: u64,
}

struct State {
    bytes: Vec<u8>,
    note: Vec<u8>,
    /// Requests not carried out yet, in the order of submission; `None` while nothing is held back.
    #[allow(clippy::vec_box, reason = "requests travel boxed")]
    held: Option<Vec<Box<Request>>>,
    fail: Option<(Box<Fail>, BackendError)>,
}

type Fail = dyn FnMut(&Op) -> bool + Send;

impl Memory {
    /// A disk of zeros.
    ///
    /// # Panics
    /// If the size does not fit the address space.
    pub fn new(size: u64) -> Self {
        let bytes = vec![0; usize::try_from(size).expect("the disk fits the address space")];
        Self { state: Mutex::new(State { bytes, note: Vec::new(), held: None, fail: None }), size }
    }

    /// From now on, keeps requests until [`Memory::release`].
    pub fn hold(&self) {
        self.state().held.get_or_insert_default();
    }

    /// How many requests are held back.
    pub fn held(&self) -> usize {
        self.state().held.as_ref().map_or(0, Vec::len)
    }

    /// Carries out and finishes the held request at `position` in the order of submission; false if there
    /// is none.
    pub fn release(&self, position: usize) -> bool {
        let mut state = self.state();
        let Some(held) = state.held.as_mut().filter(|held| position < held.len()) else { return false };
        let request = held.remove(position);
        finish(state, request);
        true
    }

    /// Finishes all held requests in order and holds no more.
    pub fn release_all(&self) {
        while self.release(0) {}
        let rest = self.state().held.take().unwrap_or_default();
        for request in rest {
            finish(self.state(), request);
        }
    }

    /// From now on, operations for which `fails` says so fail with `error` and change nothing.
    pub fn fail(&self, error: BackendError, fails: impl FnMut(&Op) -> bool + Send + 'static) {
        self.state().fail = Some((Box::new(fails), error));
    }

    /// From now on, operations succeed again.
    pub fn recover(&self) {
        self.state().fail = None;
    }

    /// A copy of the disk's content.
    pub fn snapshot(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The content is bytes: a panic elsewhere cannot leave it half made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn tenure(&self) -> Option<String> {
        Some(String::new()) // it is nobody else's
    }

    fn submit(&self, request: Box<Request>) {
        let mut state = self.state();
        match &mut state.held {
            Some(held) => held.push(request),
            None => finish(state, request),
        }
    }

    fn refresh(&self) -> Result<u64, BackendError> {
        Ok(self.size)
    }

    fn note(&self) -> Result<Vec<u8>, BackendError> {
        Ok(self.state().note.clone())
    }

    fn has_note(&self) -> bool {
        !self.state().note.is_empty()
    }

    fn limits(&self) -> Limits {
        Limits {
            size: self.size,
            object_size: OBJECT_SIZE,
            compare_and_write: 4096,
            discard_granularity: 65536,
            solid_state: false,
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("size", &self.size).field("held", &self.held()).finish()
    }
}

/// Carries a request out and, with the lock given back, returns it.
fn finish(mut state: MutexGuard<'_, State>, mut request: Box<Request>) {
    let failure = state.fail.as_mut().and_then(|(fails, error)| fails(&request.op).then_some(*error));
    let result = failure.map_or_else(|| carry_out(&mut state, &mut request), Err);
    drop(state);
    request.finish(result);
}

fn carry_out(state: &mut State, request: &mut Request) -> Result<(), BackendError> {
    let invalid = BackendError::new(ErrorKind::Invalid);
    let disk = &mut state.bytes;
    match request.op {
        Op::Flush => Ok(()),
        Op::Read(range) => put(&mut request.buffer, part(disk, range)?).ok_or(invalid),
        Op::Write(range) => get(&request.buffer, part(disk, range)?).ok_or(invalid),
        Op::Discard(range) | Op::WriteZeroes(range) => {
            part(disk, range)?.fill(0);
            Ok(())
        }
        Op::WriteSame { range, pattern } => {
            let len = usize::try_from(pattern).map_err(|_| invalid)?;
            let target = part(disk, range)?;
            if len == 0 || !target.len().is_multiple_of(len) {
                return Err(invalid);
            }
            let mut bytes = vec![0; len];
            get(&request.buffer, &mut bytes).ok_or(invalid)?;
            target.chunks_mut(len).for_each(|chunk| chunk.copy_from_slice(&bytes));
            Ok(())
        }
        Op::Extents(range) => {
            request.extents = extents(part(disk, range)?, range.offset);
            Ok(())
        }
        Op::SetNote => {
            state.note = match &request.buffer {
                Buffer::Owned(bytes) => bytes.clone(),
                Buffer::None | Buffer::Ring(_) => Vec::new(),
            };
            Ok(())
        }
        Op::CompareAndWrite(range) => {
            let target = part(disk, range)?;
            let mut both = vec![0; target.len() * 2];
            get(&request.buffer, &mut both).ok_or(invalid)?;
            let (compare, write) = both.split_at(target.len());
            match target.iter().zip(compare).position(|(have, want)| have != want) {
                Some(offset) => Err(BackendError::new(ErrorKind::Miscompare { offset: offset as u64 })),
                None => {
                    target.copy_from_slice(write);
                    Ok(())
                }
            }
        }
    }
}

/// The pieces that hold something other than zeros; `at` is where `bytes` begin on the disk.
fn extents(bytes: &[u8], at: u64) -> Vec<ByteRange> {
    let mut extents: Vec<ByteRange> = Vec::new();
    for (piece, offset) in bytes.chunks(PIECE).zip((at..).step_by(PIECE)) {
        if piece.iter().all(|&byte| byte == 0) {
            continue;
        }
        let len = piece.len() as u64;
        match extents.last_mut() {
            Some(last) if last.offset + last.len == offset => last.len += len,
            _ => extents.push(ByteRange { offset, len }),
        }
    }
    extents
}

fn part(disk: &mut [u8], range: ByteRange) -> Result<&mut [u8], BackendError> {
    let start = usize::try_from(range.offset).ok();
    let end = range.offset.checked_add(range.len).and_then(|end| usize::try_from(end).ok());
    start
        .zip(end)
        .and_then(|(start, end)| disk.get_mut(start..end))
        .ok_or(BackendError::new(ErrorKind::Invalid))
}

/// Fills the start of the buffer; `None` if it is too short.
fn put(buffer: &mut Buffer, bytes: &[u8]) -> Option<()> {
    match buffer {
        Buffer::None => bytes.is_empty().then_some(()),
        Buffer::Ring(token) => (token.data().write(0, bytes) == bytes.len()).then_some(()),
        Buffer::Owned(owned) => owned.get_mut(..bytes.len()).map(|start| start.copy_from_slice(bytes)),
    }
}

/// Fills `bytes` from the start of the buffer; `None` if it is too short.
fn get(buffer: &Buffer, bytes: &mut [u8]) -> Option<()> {
    match buffer {
        Buffer::None => bytes.is_empty().then_some(()),
        Buffer::Ring(token) => (token.data().read(0, bytes) == bytes.len()).then_some(()),
        Buffer::Owned(owned) => owned.get(..bytes.len()).map(|start| bytes.copy_from_slice(start)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::completions::{Completions, Waker};
    use std::sync::Arc;

    const IO: BackendError = BackendError::new(ErrorKind::Io);
    const INVALID: BackendError = BackendError::new(ErrorKind::Invalid);

    fn queue() -> Arc<Completions> {
        Completions::new(8, Arc::new(Waker::new().unwrap()))
    }

    fn request(done: &Arc<Completions>, op: Op, bytes: &[u8]) -> Box<Request> {
        let mut request = Request::new(done.clone());
        (request.op, request.buffer) = (op, Buffer::Owned(bytes.to_vec()));
        request
    }

    fn run(disk: &Memory, op: Op, bytes: &[u8]) -> (Result<(), BackendError>, Vec<u8>) {
        let done = queue();
        disk.submit(request(&done, op, bytes));
        let mut request = done.pop().unwrap();
        match std::mem::replace(&mut request.buffer, Buffer::None) {
            Buffer::Owned(bytes) => (request.result, bytes),
            other => panic!("{other:?}"),
        }
    }

    const fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange { offset, len }
    }

    #[test]
    fn operations_do_what_they_say() {
        let disk = Memory::new(16);
        assert_eq!(run(&disk, Op::Write(range(2, 4)), b"abcdef").0, Ok(()));
        assert_eq!(run(&disk, Op::Read(range(0, 8)), &[9; 9]), (Ok(()), b"\0\0abcd\0\0\x09".to_vec()));
        assert_eq!(run(&disk, Op::WriteSame { range: range(8, 6), pattern: 2 }, b"xy").0, Ok(()));
        assert_eq!(run(&disk, Op::WriteZeroes(range(3, 1)), &[]).0, Ok(()));
        assert_eq!(run(&disk, Op::Discard(range(9, 1)), &[]).0, Ok(()));
        assert_eq!(run(&disk, Op::Flush, &[]).0, Ok(()));
        assert_eq!(disk.snapshot(), b"\0\0a\0cd\0\0x\0xyxy\0\0");
    }

    #[test]
    fn compare_and_write_is_all_or_nothing() {
        let disk = Memory::new(4);
        let op = Op::CompareAndWrite(range(0, 4));
        assert_eq!(run(&disk, op, b"\0\0\0\0wxyz").0, Ok(()));
        let miscompare = BackendError::new(ErrorKind::Miscompare { offset: 2 });
        assert_eq!(run(&disk, op, b"wxXzabcd").0, Err(miscompare));
        assert_eq!(disk.snapshot(), b"wxyz");
    }

    #[test]
    fn what_does_not_fit_is_invalid() {
        let disk = Memory::new(4);
        assert_eq!(run(&disk, Op::Read(range(0, 5)), &[0; 8]).0, Err(INVALID)); // disk too small
        assert_eq!(run(&disk, Op::Read(range(0, 4)), &[0; 3]).0, Err(INVALID)); // buffer too small
        assert_eq!(run(&disk, Op::Write(range(u64::MAX, 2)), &[0; 8]).0, Err(INVALID));
        assert_eq!(run(&disk, Op::WriteSame { range: range(0, 4), pattern: 3 }, &[0; 3]).0, Err(INVALID));
        assert_eq!(run(&disk, Op::WriteSame { range: range(0, 4), pattern: 0 }, &[]).0, Err(INVALID));
    }

    #[test]
    fn held_requests_finish_in_the_order_they_are_released() {
        let (disk, done) = (Memory::new(4), queue());
        disk.hold();
        for slot in 0..3 {
            let mut write = request(&done, Op::Write(range(0, 1)), &[slot]);
            write.slot = usize::from(slot);
            disk.submit(write);
        }
        assert_eq!((disk.held(), done.is_empty()), (3, true));
        assert!(disk.release(1) && !disk.release(2));
        disk.release_all();
        let order: Vec<_> = std::iter::from_fn(|| done.pop()).map(|request| request.slot).collect();
        assert_eq!(order, [1, 0, 2]);
        assert_eq!(disk.snapshot()[0], 2);
        assert_eq!(run(&disk, Op::Flush, &[]).0, Ok(()), "nothing is held any more");
    }

    #[test]
    fn scripted_failures_change_nothing() {
        let disk = Memory::new(1);
        disk.fail(IO, |op| matches!(op, Op::Write(_)));
        assert_eq!(run(&disk, Op::Write(range(0, 1)), b"a").0, Err(IO));
        assert_eq!(run(&disk, Op::Flush, &[]).0, Ok(()));
        disk.recover();
        assert_eq!(disk.snapshot(), [0]);
        assert_eq!(run(&disk, Op::Write(range(0, 1)), b"a").0, Ok(()));
    }
}
