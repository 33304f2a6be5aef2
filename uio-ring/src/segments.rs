//! A command's data as a scatter list in the shared data area.

use crate::mapping::{IoVec, Mapping};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

/// The data buffer of one command: checked, contiguous pieces of the shared data area, in order.
///
/// The pages belong to the command until it is completed; they hold whatever an earlier command left
/// there. The total length is the initiator's expected transfer length, not what the CDB says.
#[derive(Debug)]
pub struct Segments {
    mapping: Arc<Mapping>,
    iov: Vec<IoVec>,
    len: usize,
    /// Not `Sync`: two threads could write to the pages at once through shared references.
    _one_thread: PhantomData<Cell<()>>,
}

impl Segments {
    /// An empty list that reuses the allocation of `spare`.
    pub(crate) fn new(mapping: Arc<Mapping>, mut spare: Vec<IoVec>) -> Self {
        spare.clear();
        Self { mapping, iov: spare, len: 0, _one_thread: PhantomData }
    }

    pub(crate) fn push(&mut self, piece: IoVec) {
        self.len = self.len.saturating_add(piece.len());
        self.iov.push(piece);
    }

    pub(crate) fn take_allocation(&mut self) -> Vec<IoVec> {
        self.len = 0;
        std::mem::take(&mut self.iov)
    }

    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the command carries no data.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, for system calls and storage libraries.
    pub fn as_iovecs(&self) -> &[IoVec] {
        &self.iov
    }

    /// Whether `address` lies in the mapping that the pieces are part of.
    pub fn maps(&self, address: *const u8) -> bool {
        self.mapping.contains(address)
    }

    /// Copies bytes from position `at` on into `to`; returns how many there were.
    pub fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        self.pieces_from(at, |piece, skip| {
            let n = self.mapping.copy_from(piece, skip, &mut to[done..]).unwrap_or(0);
            done += n;
            done < to.len() && n > 0
        });
        done
    }

    /// Copies `from` to position `at` on; returns how many bytes fitted.
    pub fn write(&self, at: usize, from: &[u8]) -> usize {
        let mut done = 0;
        self.pieces_from(at, |piece, skip| {
            let n = self.mapping.copy_to(piece, skip, &from[done..]).unwrap_or(0);
            done += n;
            done < from.len() && n > 0
        });
        done
    }

    /// Zeroes everything from position `at` on: the pages hold another command's bytes.
    pub fn zero_from(&self, at: usize) {
        self.pieces_from(at, |piece, skip| self.mapping.zero(piece, skip, usize::MAX).is_ok());
    }

    /// Calls `visit` with each piece that holds bytes at or after position `at`, and how many of its bytes
    /// lie before that, until it returns false.
    fn pieces_from(&self, at: usize, mut visit: impl FnMut(&IoVec, usize) -> bool) {
        let mut start = 0;
        for piece in &self.iov {
            let end = start + piece.len();
            if end > at && !visit(piece, at.saturating_sub(start)) {
                return;
            }
            start = end;
        }
    }
}
