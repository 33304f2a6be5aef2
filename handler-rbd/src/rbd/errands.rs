//! What librbd has only blocking calls for, on a thread of its own: which parts of an image have data, and
//! the note that is kept with it. The thread is made with an image's first such request.
//!
//! # What bounds a call
//! All wait for RADOS, where each operation ends with the operation time-out at the latest ([`Cluster`]); a
//! request is a few of them in a row.
//! * Extents: `rbd_diff_iterate2` first waits for the writes in flight, so it tells of all that completed
//!   before it began, and of one that runs beside it either way. It neither needs nor takes the exclusive
//!   lock, and it holds no writes up. Then comes one read of the object map for each snapshot and one for
//!   the image, or one `list_snaps` for each object of the range, ten at a time
//!   (`rbd_concurrent_management_ops`).
//! * Notes: like a write, setting and removing take the exclusive lock from another client that has it. One
//!   that lives gives it up when its own writes are done; one that is dead or frozen is shut out once its
//!   watch has timed out (30 s). A lock that is not to be had (`rbd lock add`) makes it fail with EROFS at
//!   once, a blocklist entry with ESHUTDOWN: [`ErrorKind::Fenced`] both. Reading takes no lock.
//!
//! [`Cluster`]: super::Cluster

use super::error::backend_error;
use super::ffi::{Errno, RawImage, c_string};
use crate::block::{BackendError, Buffer, ByteRange, ErrorKind, Op, Request};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Key of the note in the image's metadata. Keys that librbd gives a meaning begin with `conf_` or `.rbd`.
pub const KEY: &CStr = c"tcmu-rbd.note";

const INVALID: BackendError = BackendError::new(ErrorKind::Invalid);

/// The requests that are carried out one after the other on a thread.
pub(super) struct Errands {
    image: Arc<RawImage>,
    signature: Arc<Signature>,
    worker: Mutex<Option<Worker>>,
    closing: Arc<AtomicBool>,
}

/// Whose a note is.
struct Signature {
    /// The image's id.
    image: String,
    /// The addresses of the client that stores notes here.
    owner: String,
    /// Whether there may be a note.
    noted: AtomicBool,
}

struct Worker {
    requests: Sender<Box<Request>>,
    thread: JoinHandle<()>,
}

impl Errands {
    /// For the image of this id, which the client of these addresses has opened.
    pub(super) fn new(image: &Arc<RawImage>, id: &str, owner: &str) -> Self {
        let (worker, closing) = (Mutex::new(None), Arc::new(AtomicBool::new(false)));
        let signature = Signature { image: id.into(), owner: owner.into(), noted: AtomicBool::new(false) };
        Self { image: image.clone(), signature: Arc::new(signature), worker, closing }
    }

    /// Addresses of the client that has the image open.
    pub(super) fn owner(&self) -> &str {
        &self.signature.owner
    }

    pub(super) fn has_note(&self) -> bool {
        self.signature.noted.load(Ordering::Relaxed)
    }

    /// The note that is kept with the image, and who stored it; both empty if there is none. Blocks.
    pub(super) fn note(&self) -> Result<(String, Vec<u8>), BackendError> {
        let found = match self.image.metadata(KEY) {
            Ok(value) => own(&value, &self.signature.image),
            Err(Errno(libc::ENOENT)) => None,
            Err(errno) => return Err(backend_error(errno)),
        };
        self.signature.noted.store(found.is_some(), Ordering::Relaxed);
        Ok(found.unwrap_or_default())
    }

    /// Takes a request for the thread, which is made if there is none; it always comes back through its
    /// queue. Waits for nobody.
    pub(super) fn take(&self, request: Box<Request>) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_none() {
            *worker = match self.hire() {
                Ok(worker) => Some(worker),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    return request.finish(Err(BackendError { kind: ErrorKind::NoResource, errno }));
                }
            };
        }
        if let Some(worker) = &*worker
            && let Err(refused) = worker.requests.send(request)
        {
            refused.into_inner().finish(Err(BackendError::new(ErrorKind::Io))); // there is no thread any more
        }
    }

    fn hire(&self) -> std::io::Result<Worker> {
        let (requests, queue) = unbounded();
        let (image, by, closing) = (self.image.clone(), self.signature.clone(), self.closing.clone());
        let thread = std::thread::Builder::new().name("rbd-errands".into());
        let thread = thread.spawn(move || work(&image, &by, &queue, &closing))?;
        Ok(Worker { requests, thread })
    }

    /// Waits for the request that is being carried out and gives those behind it back undone. The image is
    /// not touched by a thread any more then.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Worker { requests, thread }) = worker {
            drop(requests);
            if thread.join().is_err() {
                tracing::error!("the thread for an image's errands panicked");
            }
        }
    }
}

/// The thread: ends when all requests are answered and none can come any more.
fn work(image: &RawImage, by: &Signature, queue: &Receiver<Box<Request>>, closing: &AtomicBool) {
    for mut request in queue {
        let result = if closing.load(Ordering::Relaxed) {
            Err(BackendError::new(ErrorKind::NoResource)) // whoever opens the image next may do it
        } else {
            // A request must come back, whatever happens.
            catch_unwind(AssertUnwindSafe(|| carry_out(image, by, &mut request)))
                .unwrap_or(Err(BackendError::new(ErrorKind::Io)))
        };
        request.finish(result);
    }
}

fn carry_out(image: &RawImage, by: &Signature, request: &mut Request) -> Result<(), BackendError> {
    match request.op {
        Op::Extents(range) => {
            request.extents.clear();
            request.extents = extents(image, range)?;
            Ok(())
        }
        Op::SetNote => set_note(image, by, &bytes(&request.buffer)),
        _ => Err(INVALID), // has an asynchronous call
    }
}

/// Which parts of the range have data, perhaps more than there is but never less: with a map whole objects,
/// without one each object up to where it ends, holes in it included, and what a clone has discarded counts if
/// its parent has it.
///
/// A clone's map is not asked: with a map, librbd looks at the parent from end to end whatever the range is,
/// object by object if that has no map of its own.
fn extents(image: &RawImage, range: ByteRange) -> Result<Vec<ByteRange>, BackendError> {
    if range.len == 0 {
        return Ok(Vec::new());
    }
    let objects =
        image.has_valid_map().map_err(backend_error)? && !image.overlaps_parent().map_err(backend_error)?;
    let found = image.extents(range, objects).map_err(backend_error)?;
    Ok(tidied(found, range))
}

/// In order, joined where they touch, and nothing outside of the range.
fn tidied(mut found: Vec<ByteRange>, within: ByteRange) -> Vec<ByteRange> {
    found.sort_unstable_by_key(|extent| extent.offset);
    let limit = within.offset.saturating_add(within.len);
    let mut tidy: Vec<ByteRange> = Vec::new();
    for extent in found {
        let start = extent.offset.max(within.offset);
        let end = extent.offset.saturating_add(extent.len).min(limit);
        match tidy.last_mut() {
            _ if start >= end => {}
            Some(last) if start <= last.offset + last.len => last.len = last.len.max(end - last.offset),
            _ => tidy.push(ByteRange { offset: start, len: end - start }),
        }
    }
    tidy
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    match buffer {
        Buffer::None => Vec::new(),
        Buffer::Owned(bytes) => bytes.clone(),
        Buffer::Ring(token) => {
            let mut bytes = vec![0; token.data().len()];
            token.data().read(0, &mut bytes);
            bytes
        }
    }
}

fn set_note(image: &RawImage, by: &Signature, note: &[u8]) -> Result<(), BackendError> {
    if note.is_empty() {
        match image.remove_metadata(KEY) {
            Ok(()) | Err(Errno(libc::ENOENT)) => {} // gone, or there was none
            Err(errno) => return Err(not_kept(image, errno)),
        }
        by.noted.store(false, Ordering::Relaxed);
        return Ok(());
    }
    let value = signed(note, by).ok_or(INVALID)?;
    let value = c_string(&value).map_err(backend_error)?;
    by.noted.store(true, Ordering::Relaxed); // whatever comes of it
    image.set_metadata(KEY, &value).map_err(|errno| not_kept(image, errno))
}

/// Why a note was not kept. Without the lock librbd says EROFS, whatever kept it from getting it; another
/// question tells whether it was RADOS.
fn not_kept(image: &RawImage, errno: Errno) -> BackendError {
    if errno == Errno(libc::EROFS)
        && let Err(cause) = image.metadata(KEY)
        && cause != Errno(libc::ENOENT)
    {
        return backend_error(cause);
    }
    backend_error(errno)
}

/// What is stored: the image's id, who stores it, and the note. Cloning and copying an image copies its metadata, and
/// the new one must not take the note for its own. `None` if the note is not text, which is all that the tools of RBD
/// handle.
fn signed(note: &[u8], Signature { image, owner, .. }: &Signature) -> Option<String> {
    let text = str::from_utf8(note).ok().filter(|text| text.is_ascii() && !text.contains('\0'))?;
    Some(format!("{image} {owner} {text}"))
}

/// Who stored a note, and the note, if it is this image's.
fn own(value: &[u8], image: &str) -> Option<(String, Vec<u8>)> {
    let rest = value.strip_prefix(image.as_bytes())?.strip_prefix(b" ")?;
    let (owner, note) = match rest.iter().position(|&byte| byte == b' ') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (&b""[..], rest), // not ours, and somebody must look
    };
    Some((String::from_utf8_lossy(owner).into_owned(), note.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(offset: u64, end: u64) -> ByteRange {
        ByteRange { offset, len: end - offset }
    }

    #[test]
    fn extents_are_in_order_apart_and_within_the_range() {
        let found = vec![at(40, 50), at(0, 10), at(10, 12), at(45, 47), at(20, 30), at(25, 35), at(60, 99)];
        assert_eq!(tidied(found.clone(), at(0, 100)), [at(0, 12), at(20, 35), at(40, 50), at(60, 99)]);
        assert_eq!(tidied(found.clone(), at(11, 61)), [at(11, 12), at(20, 35), at(40, 50), at(60, 61)]);
        assert_eq!(tidied(found.clone(), at(12, 20)), []);
        assert_eq!(tidied(found, at(35, 40)), []);
        let last = ByteRange { offset: u64::MAX - 1, len: 9 };
        assert_eq!(tidied(vec![last], at(0, u64::MAX)), [at(u64::MAX - 1, u64::MAX)]);
    }

    fn by(image: &str) -> Signature {
        Signature { image: image.into(), owner: "10.0.0.1:0/7".into(), noted: AtomicBool::new(false) }
    }

    #[test]
    fn a_note_belongs_to_one_image() {
        let value = signed(b"a b", &by("12ab")).unwrap();
        assert_eq!(value, "12ab 10.0.0.1:0/7 a b");
        assert_eq!(own(value.as_bytes(), "12ab"), Some(("10.0.0.1:0/7".into(), b"a b".to_vec())));
        for other in ["12a", "12ab ", "12abc", "34cd", ""] {
            assert_eq!(own(value.as_bytes(), other), None, "{other}");
        }
        assert_eq!(own(b"", "12ab"), None);
        assert_eq!(own(b"12ab x", "12ab"), Some((String::new(), b"x".to_vec())));
    }

    #[test]
    fn a_note_is_ascii_text() {
        assert!(signed(b"\n~ \t", &by("1")).is_some());
        for bytes in [&b"a\0b"[..], b"\xff", "é".as_bytes()] {
            assert_eq!(signed(bytes, &by("1")), None, "{bytes:?}");
        }
    }
}
