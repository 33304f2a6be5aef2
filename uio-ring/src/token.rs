//! The duty to answer one command, and the right to touch its data.

use crate::mapping::IoVec;
use crate::segments::Segments;
use crossbeam_queue::SegQueue;
use std::fmt;
use std::sync::Arc;

/// The kernel's id of a command. Unique among the commands not yet completed; the lowest free id is
/// reused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CmdId(pub u16);

impl fmt::Display for CmdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ids whose tokens were dropped unanswered; [`Ring::answer_lost`](crate::Ring::answer_lost) empties it.
pub(crate) type Lost = SegQueue<CmdId>;

/// One consumed command that must be answered exactly once, by [`Ring::complete`](crate::Ring::complete).
///
/// It owns the command's data buffer: without the token there is no way to the pages, and the pages stay
/// the command's until it is completed. Whoever lends them to another library keeps the token until that
/// library is done with them.
///
/// It cannot be cloned. Dropping it is a bug: debug builds panic; the id goes back to the ring all the
/// same, so that the command is still answered ([`Ring::answer_lost`](crate::Ring::answer_lost)).
///
/// ```compile_fail,E0382
/// fn twice(ring: &mut uio_ring::Ring, token: uio_ring::Token, answer: &uio_ring::Response<'_>) {
///     let _ = ring.complete(token, answer);
///     let _ = ring.complete(token, answer);
/// }
/// ```
/// ```compile_fail,E0599
/// fn copy(token: &uio_ring::Token) -> uio_ring::Token {
///     token.clone()
/// }
/// ```
#[must_use = "a consumed command must be completed"]
pub struct Token {
    id: CmdId,
    data: Segments,
    lost: Option<Arc<Lost>>,
}

impl Token {
    pub(crate) fn new(id: CmdId, data: Segments, lost: Arc<Lost>) -> Self {
        Self { id, data, lost: Some(lost) }
    }

    /// The command's id.
    pub fn id(&self) -> CmdId {
        self.id
    }

    /// The command's data buffer.
    pub fn data(&self) -> &Segments {
        &self.data
    }

    /// Ends the duty. Only the ring calls this: once the answer is written, or once a reset of the ring
    /// has made it void.
    pub(crate) fn discharge(mut self) -> (CmdId, Vec<IoVec>) {
        self.lost = None;
        (self.id, self.data.take_allocation())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(lost) = self.lost.take() {
            lost.push(self.id);
            debug_assert!(std::thread::panicking(), "command {} was dropped without an answer", self.id);
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).field("data", &self.data.len()).finish()
    }
}
