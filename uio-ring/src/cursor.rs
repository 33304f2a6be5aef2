//! The two words by which the kernel and we tell each other how far the ring is filled. Nothing else orders our accesses
//! to it (R2, R7); `tests/publish_loom.rs` compiles this file on loom's atomics.

use crate::sync::{AtomicU32, Ordering};

/// Reads a cursor of the other side's: what it wrote before it stored that is there.
pub(crate) fn load(word: &AtomicU32) -> u32 {
    word.load(Ordering::Acquire)
}

/// Stores ours: everything written before is there for whoever reads the new value, everything read before was read.
pub(crate) fn publish(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
}
