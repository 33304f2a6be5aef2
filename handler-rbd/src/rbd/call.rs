//! Which librbd call an operation is, and with which memory: a pure function from [`Request`] to [`Call`].
//!
//! The memory is the request's own: ring pages where they lie, or its private buffer. Nothing is copied
//! except for the two operations for which librbd wants a pattern in one piece and the pages are not. The
//! addresses stay valid as long as the request, and `iov` besides, is neither dropped nor changed.

use crate::block::{BackendError, Buffer, ByteRange, ErrorKind, Op, Request};
use libc::iovec;
use std::ffi::c_int;
use uio_ring::IoVec;

/// Memory lent to librbd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// One piece. librbd reads into it without an intermediate buffer.
    Linear(*mut u8),
    /// Several pieces; librbd keeps the list's address until it is done.
    Vector(*const iovec, c_int),
}

/// One librbd call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are the call's arguments")]
pub enum Call {
    /// None: there is nothing to do.
    Nothing,
    /// `rbd_aio_read` or `rbd_aio_readv`.
    Read { offset: u64, len: usize, memory: Memory },
    /// `rbd_aio_write` or `rbd_aio_writev`.
    Write { offset: u64, len: usize, memory: Memory },
    /// `rbd_aio_flush`.
    Flush,
    /// `rbd_aio_discard`.
    Discard { offset: u64, len: u64 },
    /// `rbd_aio_write_zeroes`.
    WriteZeroes { offset: u64, len: usize },
    /// `rbd_aio_writesame`.
    WriteSame { offset: u64, len: usize, pattern: *const u8, pattern_len: usize },
    /// `rbd_aio_compare_and_write`. librbd 16 refuses a range that is not within one sector of 512 bytes.
    CompareAndWrite { offset: u64, len: usize, compare: *const u8, write: *const u8 },
}

const INVALID: BackendError = BackendError::new(ErrorKind::Invalid);

/// Chooses the call. Lengths are checked against the buffer: a request that does not fit is refused.
/// `iov` is room for a list that must end within a piece; it is left alone otherwise.
pub fn plan(request: &mut Request, iov: &mut Vec<iovec>) -> Result<Call, BackendError> {
    let (op, buffer) = (request.op, &mut request.buffer);
    Ok(match op {
        Op::Flush => Call::Flush,
        Op::Read(range)
        | Op::Write(range)
        | Op::Discard(range)
        | Op::WriteZeroes(range)
        | Op::WriteSame { range, .. }
        | Op::CompareAndWrite(range)
            if range.len == 0 =>
        {
            Call::Nothing
        }
        Op::Extents(_) | Op::SetNote => return Err(INVALID), // no call that completes later: see `errands`
        Op::Discard(ByteRange { offset, len }) => Call::Discard { offset, len },
        Op::WriteZeroes(ByteRange { offset, len }) => Call::WriteZeroes { offset, len: size(len)? },
        Op::Read(ByteRange { offset, len }) => {
            let len = size(len)?;
            Call::Read { offset, len, memory: lend(buffer, len, iov)? }
        }
        Op::Write(ByteRange { offset, len }) => {
            let len = size(len)?;
            Call::Write { offset, len, memory: lend(buffer, len, iov)? }
        }
        Op::WriteSame { range: ByteRange { offset, len }, pattern } => {
            let (len, pattern_len) = (size(len)?, size(pattern.into())?);
            if pattern_len == 0 || !len.is_multiple_of(pattern_len) {
                return Err(INVALID);
            }
            let pattern = in_one_piece(buffer, pattern_len, &mut request.bounce)?;
            Call::WriteSame { offset, len, pattern, pattern_len }
        }
        Op::CompareAndWrite(ByteRange { offset, len }) => {
            let len = size(len)?;
            let both = len.checked_mul(2).ok_or(INVALID)?;
            let compare = in_one_piece(buffer, both, &mut request.bounce)?;
            Call::CompareAndWrite { offset, len, compare, write: compare.wrapping_add(len) }
        }
    })
}

fn size(len: u64) -> Result<usize, BackendError> {
    usize::try_from(len).map_err(|_| INVALID)
}

/// The first `len` bytes of the buffer, where they lie.
fn lend(buffer: &mut Buffer, len: usize, room: &mut Vec<iovec>) -> Result<Memory, BackendError> {
    let token = match buffer {
        Buffer::Ring(token) if token.data().len() >= len => token,
        Buffer::Owned(bytes) if bytes.len() >= len => return Ok(Memory::Linear(bytes.as_mut_ptr())),
        _ => return Err(INVALID),
    };
    let pieces = token.data().as_iovecs();
    if let Some(first) = pieces.first().filter(|first| first.len() >= len) {
        return Ok(Memory::Linear(first.as_ptr()));
    }
    let mut list = IoVec::as_raw(pieces);
    let mut count = pieces.len();
    if token.data().len() > len {
        let mut left = len;
        count = pieces.iter().take_while(|piece| take(&mut left, piece.len())).count();
        if left > 0 {
            // The range ends within a piece: the list is copied up to there and its end shortened.
            room.clear();
            let raw = |piece: &IoVec| iovec { iov_base: piece.as_ptr().cast(), iov_len: piece.len() };
            room.extend(pieces[..=count].iter().map(raw));
            room[count].iov_len = left;
            count += 1;
            list = room.as_ptr();
        }
    }
    Ok(Memory::Vector(list, c_int::try_from(count).map_err(|_| INVALID)?))
}

/// Subtracts a whole piece from what is left, if it fits and something is left.
fn take(left: &mut usize, piece: usize) -> bool {
    let fits = *left > 0 && piece <= *left;
    if fits {
        *left -= piece;
    }
    fits
}

/// The address of the buffer's first `len` bytes, copied to `bounce` if they are in several pieces.
fn in_one_piece(buffer: &Buffer, len: usize, bounce: &mut Vec<u8>) -> Result<*const u8, BackendError> {
    match buffer {
        Buffer::Owned(bytes) if bytes.len() >= len => Ok(bytes.as_ptr()),
        Buffer::Ring(token) if token.data().len() >= len => {
            let data = token.data();
            if let Some(first) = data.as_iovecs().first().filter(|first| first.len() >= len) {
                return Ok(first.as_ptr());
            }
            bounce.resize(len, 0);
            data.read(0, bounce);
            Ok(bounce.as_ptr())
        }
        _ => Err(INVALID),
    }
}
