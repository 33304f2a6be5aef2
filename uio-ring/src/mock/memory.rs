//! The memory both sides share: a memfd instead of vmalloc'ed ring pages and the page array.
//!
//! The only module of the model with unsafe code. Nothing here hands out a reference into the
//! mapping: bytes are copied out and in, and 32-bit cursors are atomics.
#![allow(unsafe_code)]

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// The kernel's view of the shared memory.
#[derive(Debug)]
pub(super) struct Memory {
    map: MmapRaw,
    file: File,
}

impl Memory {
    /// Creates `len` zeroed bytes.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("tcmu-mock", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(len as u64)?;
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        Ok(Self { map, file })
    }

    /// A descriptor for the user side to map on its own.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Bytes in the mapping.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Copies `into.len()` bytes out, starting at `offset`.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `at` checked that the range lies in the mapping, which lives as long as `self`;
        // `into` is private memory, so the ranges are disjoint. The protocol keeps user space from
        // writing what the kernel reads at the same time; a peer that does so anyway garbles
        // bytes, which the model then reports.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// The bytes of one range.
    pub(super) fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.read(offset, &mut out);
        out
    }

    /// Copies `from` in, starting at `offset`.
    pub(super) fn write(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: in bounds by `at`; `from` is private memory. `Kernel` writes only what the kernel
        // owns at that moment: free ring space, blocks it has just allocated or freed, the mailbox.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
    }

    /// Loads a cursor or a `len_op`.
    pub(super) fn load(&self, offset: usize) -> u32 {
        self.cell(offset).load(Ordering::Acquire)
    }

    /// Publishes a cursor: everything written before is visible to whoever loads it.
    pub(super) fn store(&self, offset: usize, value: u32) {
        self.cell(offset).store(value, Ordering::Release);
    }

    fn cell(&self, offset: usize) -> &AtomicU32 {
        assert_eq!(offset % 4, 0, "cursors are aligned");
        let cell = self.at(offset, 4).cast::<u32>();
        // SAFETY: in bounds by `at`, aligned by the assertion because a mapping starts on a page,
        // and these words are only ever accessed as atomics or while no entry is published there.
        unsafe { AtomicU32::from_ptr(cell) }
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len).expect("the model computes small offsets");
        assert!(end <= self.map.len(), "model bug: {offset}+{len} lies outside the mapping");
        // SAFETY: `offset <= end <= len`, so the pointer stays inside the mapping or at its end.
        unsafe { self.map.as_mut_ptr().add(offset) }
    }
}
