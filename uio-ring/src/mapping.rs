//! The shared mapping, and every access to it. The only unsafe file of the crate.
//!
//! Two rules: no reference or slice into shared memory ever exists, because the kernel writes there;
//! and every access is bounds-checked against the mapping, so that no value read from shared memory can
//! lead outside it. Accesses that do not fit return [`OutOfBounds`].
#![allow(unsafe_code)]

use memmap2::{Advice, MmapOptions, MmapRaw};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{fmt, io, ptr};

/// An access that does not lie inside the mapping (or, for the two cursors, is misaligned).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {offset:#x} do not lie in the mapping of {mapped:#x} bytes")]
pub struct OutOfBounds {
    /// First byte asked for.
    pub offset: usize,
    /// Number of bytes asked for.
    pub len: usize,
    /// Size of the mapping.
    pub mapped: usize,
}

/// The mapped mailbox, command ring and data area of one device. Unmapped on drop.
pub struct Mapping {
    map: MmapRaw,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("len", &self.len()).finish()
    }
}

impl Mapping {
    /// Maps `len` bytes of `file`, shared. For a UIO device `len` must be exactly the size of its map 0
    /// (target_core_user.c, `tcmu_mmap`). A forked child does not inherit the mapping: it would keep the
    /// device busy for our successor.
    pub fn new(file: impl AsFd, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(len).map_raw(file.as_fd().as_raw_fd())?;
        map.advise(Advice::DontFork)?;
        Ok(Self { map })
    }

    /// Size of the mapping in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the mapping is empty; it never is.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// Whether `address` points into the mapping.
    pub(crate) fn contains(&self, address: *const u8) -> bool {
        (address as usize).wrapping_sub(self.map.as_ptr() as usize) < self.map.len()
    }

    fn at(&self, offset: usize, len: usize) -> Result<*mut u8, OutOfBounds> {
        let mapped = self.map.len();
        match offset.checked_add(len) {
            // SAFETY: `offset` is at most `mapped`, so the result is in or one past the mapping, which
            // `self.map` keeps alive.
            Some(end) if end <= mapped => Ok(unsafe { self.map.as_mut_ptr().add(offset) }),
            _ => Err(OutOfBounds { offset, len, mapped }),
        }
    }

    /// Copies `N` bytes out.
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> Result<[u8; N], OutOfBounds> {
        let from = self.at(offset, N)?;
        // SAFETY: `at` checked that N bytes lie in the live mapping; a byte array has no alignment. Volatile:
        // the kernel may write at any time and the value must be read exactly once.
        Ok(unsafe { ptr::read_volatile(from.cast::<[u8; N]>()) })
    }

    /// Copies `to.len()` bytes out.
    pub(crate) fn read_into(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.at(offset, to.len())?;
        // SAFETY: `at` checked the source; `to` is private memory, so the two cannot overlap.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies `bytes` in.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.at(offset, bytes.len())?;
        // SAFETY: `at` checked the destination; `bytes` is private memory, so the two cannot overlap: no
        // slice into the mapping exists (module contract).
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn cursor(&self, offset: usize) -> Result<&AtomicU32, OutOfBounds> {
        let word = self.at(offset, 4)?.cast::<u32>();
        if !word.is_aligned() {
            return Err(OutOfBounds { offset, len: 4, mapped: self.map.len() });
        }
        // SAFETY: aligned (checked) and inside the mapping for `self`'s life (`at`). Every access we make to
        // the two cursor words goes through this function, so none of ours is non-atomic.
        Ok(unsafe { AtomicU32::from_ptr(word) })
    }

    /// Reads a cursor that the kernel publishes with `smp_store_release` (`UPDATE_HEAD`).
    pub(crate) fn load_acquire(&self, offset: usize) -> Result<u32, OutOfBounds> {
        Ok(self.cursor(offset)?.load(Ordering::Acquire))
    }

    /// Publishes a cursor: everything written before is visible to whoever reads the new value.
    pub(crate) fn store_release(&self, offset: usize, value: u32) -> Result<(), OutOfBounds> {
        self.cursor(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    /// The same for a word of 8 bytes, in memory that only we write to.
    fn word(&self, offset: usize) -> Result<&AtomicU64, OutOfBounds> {
        let word = self.at(offset, 8)?.cast::<u64>();
        if !word.is_aligned() {
            return Err(OutOfBounds { offset, len: 8, mapped: self.map.len() });
        }
        // SAFETY: aligned (checked) and inside the mapping for `self`'s life (`at`). Used for the journal's words only,
        // which are accessed through this function alone.
        Ok(unsafe { AtomicU64::from_ptr(word) })
    }

    /// Reads a word of 8 bytes.
    pub(crate) fn load_word(&self, offset: usize) -> Result<u64, OutOfBounds> {
        Ok(self.word(offset)?.load(Ordering::Acquire))
    }

    /// Writes a word of 8 bytes, whole, after everything that was written before.
    pub(crate) fn store_word(&self, offset: usize, value: u64) -> Result<(), OutOfBounds> {
        self.word(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    /// How far into the mapping `iov`, which stems from it, begins.
    pub(crate) fn offset_of(&self, iov: &IoVec) -> usize {
        (iov.0.iov_base as usize).wrapping_sub(self.map.as_ptr() as usize)
    }

    /// The memory `[offset, offset + len)` as an iovec for system calls and storage libraries.
    pub(crate) fn iovec(&self, offset: usize, len: usize) -> Result<IoVec, OutOfBounds> {
        let base = self.at(offset, len)?;
        Ok(IoVec(libc::iovec { iov_base: base.cast(), iov_len: len }))
    }

    /// Copies out of `iov`, from byte `at` of it, as much as both hold; `iov` must stem from this mapping.
    pub(crate) fn copy_from(&self, iov: &IoVec, at: usize, to: &mut [u8]) -> Result<usize, OutOfBounds> {
        let (from, len) = self.part_of(iov, at, to.len())?;
        // SAFETY: `part_of` checked that `len` bytes at `from` lie in this mapping; `to` is private memory.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), len) };
        Ok(len)
    }

    /// Copies into `iov`, from byte `at` of it, as much as both hold; `iov` must stem from this mapping.
    pub(crate) fn copy_to(&self, iov: &IoVec, at: usize, from: &[u8]) -> Result<usize, OutOfBounds> {
        let (to, len) = self.part_of(iov, at, from.len())?;
        // SAFETY: `part_of` checked that `len` bytes at `to` lie in this mapping; `from` is private memory.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, len) };
        Ok(len)
    }

    /// Zeroes `iov` from byte `at` of it, at most `len` bytes; `iov` must stem from this mapping.
    pub(crate) fn zero(&self, iov: &IoVec, at: usize, len: usize) -> Result<usize, OutOfBounds> {
        let (to, len) = self.part_of(iov, at, len)?;
        // SAFETY: `part_of` checked that `len` bytes at `to` lie in this mapping.
        unsafe { ptr::write_bytes(to, 0, len) };
        Ok(len)
    }

    /// Start and length of the part of `iov` that begins at `at` and has at most `len` bytes.
    fn part_of(&self, iov: &IoVec, at: usize, len: usize) -> Result<(*mut u8, usize), OutOfBounds> {
        let len = len.min(iov.len().saturating_sub(at));
        let offset = self.offset_of(iov).wrapping_add(at);
        Ok((self.at(offset, len)?, len))
    }
}

/// One contiguous piece of a command's data, laid out as the C `struct iovec`.
///
/// The pointer is into a [`Mapping`]; whoever dereferences it must hold the [`Token`](crate::Token) it came
/// from, which keeps the mapping alive and the pages ours.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct IoVec(libc::iovec);

// SAFETY: an address and a length. Nothing in this crate dereferences the address without checking it
// against a live mapping; what others do with `as_ptr` is theirs to justify.
unsafe impl Send for IoVec {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for IoVec {}

impl IoVec {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether the piece is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }

    /// Address of the first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// The C view of a list of pieces.
    pub fn as_raw(list: &[Self]) -> *const libc::iovec {
        list.as_ptr().cast()
    }
}

impl fmt::Debug for IoVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}+{}", self.0.iov_base, self.0.iov_len)
    }
}
