//! One operation on its way to storage and back.

use super::completions::Completions;
use super::{BackendError, ByteRange, ErrorKind, Op};
use std::fmt;
use std::sync::Arc;
use uio_ring::Token;

/// The memory a request lends to storage.
#[derive(Debug)]
pub enum Buffer {
    /// None: the operation carries no data.
    None,
    /// The command's own pages on the ring, lent without a copy. The token keeps them ours.
    Ring(Token),
    /// Private memory, for operations that are steps of a larger command.
    Owned(Vec<u8>),
}

/// An operation, its buffer and the way back.
///
/// Whoever holds the box holds the memory: a backend keeps it until its storage library no longer touches
/// the buffer, then calls [`Request::finish`]. The device reuses the box, so steady traffic allocates
/// nothing.
pub struct Request {
    /// What to do.
    pub op: Op,
    /// With what memory.
    pub buffer: Buffer,
    /// How it ended; meaningful once the request came back.
    pub result: Result<(), BackendError>,
    /// The device's own mark: which of its commands this belongs to.
    pub slot: usize,
    /// The answer to [`Op::Extents`]: ascending, apart from each other, within the range.
    pub extents: Vec<ByteRange>,
    /// Room for the backend: where storage reports the first difference of a compare.
    pub mismatch: u64,
    /// Room for the backend: a copy of the buffer for operations that need it in one piece.
    pub bounce: Vec<u8>,
    done: Arc<Completions>,
}

impl Request {
    /// A request that will come back through `done`.
    pub fn new(done: Arc<Completions>) -> Box<Self> {
        let unset = Err(BackendError::new(ErrorKind::Io));
        Box::new(Self {
            op: Op::Flush,
            buffer: Buffer::None,
            result: unset,
            slot: 0,
            extents: Vec::new(),
            mismatch: 0,
            bounce: Vec::new(),
            done,
        })
    }

    /// Gives the request back with its result. Called exactly once for each submission, from any thread.
    pub fn finish(mut self: Box<Self>, result: Result<(), BackendError>) {
        self.result = result;
        let done = self.done.clone();
        done.push(self);
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("slot", &self.slot).field("op", &self.op).finish_non_exhaustive()
    }
}
