//! From a request to a librbd call and from librbd's callback back to the request. Unsafe code is allowed
//! here.
//!
//! # Ownership
//! A request in flight, and with it all memory that librbd reads and writes, belongs to a [`Flight`], and the
//! flight to librbd's completion: as its argument it is owned by nobody else until the callback. librbd calls back
//! once for each call that it accepted and never for one that it refused. Flights are kept for reuse, so
//! reading and writing allocate nothing here.
//!
//! # Threads
//! librbd runs callbacks on a thread of the RADOS client, one at a time for each image (a strand): a slow
//! one would delay every other completion of the image. So the callback does nothing but take the result,
//! push the request and, if its device sleeps, wake it.
#![allow(unsafe_code)]

use super::bindings as b;
use super::call::{Call, Memory, plan};
use super::error::backend_error;
use super::ffi::{Errno, RawImage};
use crate::block::{BackendError, ByteRange, ErrorKind, Op, Request};
use crossbeam_queue::ArrayQueue;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Flights kept for reuse; more than this many at once are allocated and freed.
const SPARE_FLIGHTS: usize = 1024;

/// The requests of one image that are with librbd.
pub(super) struct Flights(Arc<Shared>);

struct Shared {
    spare: ArrayQueue<Box<Flight>>,
    out: AtomicUsize,
}

/// What a librbd completion owns.
struct Flight {
    /// From `Box::into_raw` of the request that this flight owns; null while spare. A raw pointer, because
    /// librbd writes to its `mismatch` while it is here.
    request: *mut Request,
    /// Room for a list of pieces that differs from the ring's own.
    iov: Vec<libc::iovec>,
    shared: Option<Arc<Shared>>,
}

// SAFETY: `request` is an owned box in disguise and requests are `Send`; `iov` holds addresses that only
// librbd follows, under the ownership rules of the module.
unsafe impl Send for Flight {}

impl Flights {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { spare: ArrayQueue::new(SPARE_FLIGHTS), out: AtomicUsize::new(0) }))
    }

    /// Requests that librbd still has. Not one of them is touched by librbd any more once this is 0.
    pub(super) fn out(&self) -> usize {
        self.0.out.load(Ordering::Acquire)
    }

    /// Starts a request; it always comes back through its queue.
    pub(super) fn start(&self, image: &RawImage, mut request: Box<Request>) {
        let mut flight = self.0.spare.pop().unwrap_or_else(Flight::spare);
        let call = match plan(&mut request, &mut flight.iov) {
            Ok(Call::Nothing) => return request.finish(Ok(())),
            Ok(call) => call,
            Err(error) => return request.finish(Err(error)),
        };
        self.0.out.fetch_add(1, Ordering::Relaxed);
        flight.request = Box::into_raw(request);
        flight.shared = Some(self.0.clone());
        let flight = Box::into_raw(flight);
        if let Err(errno) = launch(image, call, flight) {
            // SAFETY: `flight` is from `Box::into_raw` above, and librbd, which refused it, has it no more.
            let request = unsafe { land(flight) };
            request.finish(Err(backend_error(errno)));
        }
    }
}

impl Flight {
    fn spare() -> Box<Self> {
        Box::new(Self { request: ptr::null_mut(), iov: Vec::new(), shared: None })
    }
}

/// Makes the call. On success the flight is librbd's, and may have landed already.
fn launch(image: &RawImage, call: Call, flight: *mut Flight) -> Result<(), Errno> {
    let mut completion = b::rbd_completion_t(ptr::null_mut());
    // SAFETY: `on_complete` has the callback's type and takes exactly this argument.
    let ret = unsafe { b::rbd_aio_create_completion(flight.cast(), Some(on_complete), &raw mut completion) };
    if ret < 0 {
        return Err(Errno(ret.saturating_neg()));
    }
    let (image, c) = (image.handle(), completion);
    // SAFETY: the image is open, because closing waits for `out` to be 0 (`Image`). All addresses and
    // lengths come from `plan`, which checked them against the request's own buffer; the flight owns
    // request and list until the callback, so they outlive librbd's use. Reads write only to ring pages
    // or to the request's private buffer, to which no reference exists while it is in flight.
    let ret = unsafe {
        match call {
            Call::Nothing => 0,
            Call::Read { offset, len, memory: Memory::Linear(to) } => {
                b::rbd_aio_read(image, offset, len, to.cast(), c)
            }
            Call::Read { offset, memory: Memory::Vector(iov, count), .. } => {
                b::rbd_aio_readv(image, iov, count, offset, c)
            }
            Call::Write { offset, len, memory: Memory::Linear(from) } => {
                b::rbd_aio_write(image, offset, len, from.cast(), c)
            }
            Call::Write { offset, memory: Memory::Vector(iov, count), .. } => {
                b::rbd_aio_writev(image, iov, count, offset, c)
            }
            Call::Flush => b::rbd_aio_flush(image, c),
            Call::Discard { offset, len } => b::rbd_aio_discard(image, offset, len, c),
            Call::WriteZeroes { offset, len } => b::rbd_aio_write_zeroes(image, offset, len, c, 0, 0),
            Call::WriteSame { offset, len, pattern, pattern_len } => {
                b::rbd_aio_writesame(image, offset, len, pattern.cast(), pattern_len, c, 0)
            }
            Call::CompareAndWrite { offset, len, compare, write } => {
                let mismatch = &raw mut (*(*flight).request).mismatch;
                let (compare, write) = (compare.cast(), write.cast());
                let ret = b::rbd_aio_compare_and_write(image, offset, len, compare, write, c, mismatch, 0);
                c_int::try_from(ret).unwrap_or(-libc::EIO)
            }
        }
    };
    if ret < 0 {
        // SAFETY: ours since its creation above; librbd refused the call and dropped its own reference.
        unsafe { b::rbd_aio_release(completion) };
        return Err(Errno(ret.saturating_neg()));
    }
    Ok(())
}

/// Ends a flight: the request is ours again and the image may be closed as far as it is concerned.
///
/// # Safety
/// `flight` is from `Box::into_raw` and librbd touches neither it nor the request's memory any more.
unsafe fn land(flight: *mut Flight) -> Box<Request> {
    // SAFETY: the caller passes what `Flights::start` made with `Box::into_raw`, for the only time.
    let mut flight = unsafe { Box::from_raw(flight) };
    // SAFETY: set by `Flights::start` from `Box::into_raw`, taken once: it is null from here on.
    let request = unsafe { Box::from_raw(std::mem::replace(&mut flight.request, ptr::null_mut())) };
    if let Some(shared) = flight.shared.take() {
        // Full only when more were out than are kept; then this one is freed.
        drop(shared.spare.push(flight));
        // Before the request is given back: whoever has all requests back may close the image.
        shared.out.fetch_sub(1, Ordering::Release);
    }
    request
}

/// librbd's callback. Should anything in it panic, the process aborts at this frame: `extern "C"`.
///
/// # Safety
/// Called by librbd only, with the completion and argument of one [`launch`].
unsafe extern "C" fn on_complete(completion: b::rbd_completion_t, flight: *mut c_void) {
    // SAFETY: librbd passes the live completion that it calls back for.
    let ret = unsafe { b::rbd_aio_get_return_value(completion) };
    // SAFETY: the reference that `launch` created, given up once; librbd holds its own during the callback.
    unsafe { b::rbd_aio_release(completion) };
    // SAFETY: `launch` passed this flight as argument. librbd copied what it writes at submission and has
    // filled what it reads before it calls back, so it is done with the memory.
    let request = unsafe { land(flight.cast()) };
    let result = outcome(&request, ret);
    request.finish(result);
}

/// What a return value means for this request.
fn outcome(request: &Request, ret: isize) -> Result<(), BackendError> {
    let errno = || i32::try_from(ret.saturating_neg()).unwrap_or(libc::EIO);
    match request.op {
        Op::CompareAndWrite(range) if ret == -(libc::EILSEQ as isize) => {
            let offset = mismatch_in(range, request.mismatch);
            Err(BackendError { kind: ErrorKind::Miscompare { offset }, errno: libc::EILSEQ })
        }
        _ if ret < 0 => Err(backend_error(Errno(errno()))),
        Op::Read(range) if (ret.unsigned_abs() as u64) < range.len => {
            // Past the image's end, which has just shrunk: the rest of the buffer holds an old command's bytes.
            Err(BackendError::new(ErrorKind::PastEnd))
        }
        _ => Ok(()),
    }
}

/// Where in the range the difference is. librbd 16 reports it as if the image began where the object
/// does; what should be reported is its offset in the image. Both agree modulo any power of two that
/// divides the size of objects: the smallest one between two multiples of which the range lies is among them.
fn mismatch_in(range: ByteRange, reported: u64) -> u64 {
    let last = range.offset.saturating_add(range.len.saturating_sub(1));
    let within =
        (1_u64.checked_shl(u64::BITS - (range.offset ^ last).leading_zeros())).unwrap_or(0).wrapping_sub(1);
    let offset = (reported & within).checked_sub(range.offset & within);
    offset.filter(|offset| *offset < range.len).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::completions::{Completions, Waker};

    fn request(op: Op) -> Box<Request> {
        let mut request = Request::new(Completions::new(1, Arc::new(Waker::new().unwrap())));
        request.op = op;
        request
    }

    #[test]
    fn mismatch_is_relative_to_the_range() {
        let at = |offset| ByteRange { offset, len: 512 };
        assert_eq!(mismatch_in(at(0), 7), 7);
        assert_eq!(mismatch_in(at(5_244_416), 5_244_416 + 511), 511); // offset in the image
        assert_eq!(mismatch_in(at(5_244_416), 4_194_304 + 511), 511); // from the object's start
        let unaligned = ByteRange { offset: 512, len: 1024 };
        assert_eq!(mismatch_in(unaligned, 513), 1);
        assert_eq!(mismatch_in(unaligned, 2048), 0); // not of the range
        // Three blocks of an object of 4 MiB.
        let three = ByteRange { offset: 4_194_304 + 2560, len: 1536 };
        assert_eq!(mismatch_in(three, 4_194_304 + 2560 + 1000), 1000); // offset in the image
        assert_eq!(mismatch_in(three, 2560 + 1000), 1000); // from the object's start
    }

    #[test]
    fn a_short_read_is_an_error_and_other_positive_results_are_not() {
        let range = ByteRange { offset: 0, len: 512 };
        assert_eq!(outcome(&request(Op::Read(range)), 512), Ok(()));
        let short = BackendError::new(ErrorKind::PastEnd);
        assert_eq!(outcome(&request(Op::Read(range)), 511), Err(short));
        assert_eq!(outcome(&request(Op::Write(range)), 0), Ok(()));
        assert_eq!(outcome(&request(Op::CompareAndWrite(range)), 0), Ok(()));
    }

    #[test]
    fn only_compare_and_write_miscompares() {
        let range = ByteRange { offset: 1024, len: 512 };
        let mut compare = request(Op::CompareAndWrite(range));
        compare.mismatch = 1030;
        let miscompare = BackendError { kind: ErrorKind::Miscompare { offset: 6 }, errno: 84 };
        assert_eq!(outcome(&compare, -84), Err(miscompare));
        assert_eq!(outcome(&request(Op::Write(range)), -84).unwrap_err().kind, ErrorKind::Io);
        assert_eq!(outcome(&request(Op::Read(range)), -108).unwrap_err().kind, ErrorKind::Fenced);
        assert_eq!(outcome(&request(Op::Read(range)), isize::MIN).unwrap_err().kind, ErrorKind::Io);
    }
}
