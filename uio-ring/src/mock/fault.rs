//! What a user side can do wrong, told apart the way the real kernel would not.

use super::Ticket;

/// One violation of the protocol by user space.
///
/// The first one breaks the ring: later kicks are ignored and new commands fail until a reset.
/// Offsets called `slot` count from the start of the ring, offsets called `at` from the start of
/// the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A completion names an id that is not in flight, or one already completed with `KEEP_BUF`:
    /// the kernel marks the ring BROKEN.
    Broken {
        /// The id found in the slot.
        cmd_id: u16,
        /// The slot.
        slot: u32,
        /// The id was completed with `KEEP_BUF` before.
        kept: bool,
    },
    /// The tail leads the kernel into ring space that decodes as PAD of length 0: it would loop for
    /// ever with its locks held.
    WouldSpin {
        /// The tail found in the mailbox.
        tail: u32,
        /// Where the loop would hang.
        slot: u32,
    },
    /// The tail is not smaller than the ring; the kernel's cursor can never equal it.
    TailOutOfRange {
        /// The tail found in the mailbox.
        tail: u32,
    },
    /// The tail lies between last completion and head, in the middle of an entry.
    TailNotOnBoundary {
        /// The tail found in the mailbox.
        tail: u32,
    },
    /// The tail lies beyond the head (or moved backwards, which is the same on a ring), and stale
    /// entries would be taken for completions.
    TailPastHead {
        /// The tail found in the mailbox.
        tail: u32,
    },
    /// A slot was completed with another command's id although the mailbox does not offer OOOC.
    OutOfOrder {
        /// The slot.
        slot: u32,
        /// The id the kernel put there.
        expected: u16,
        /// The id found.
        found: u16,
    },
    /// `cmd_head` was written by user space.
    HeadModified {
        /// The kernel's head.
        expected: u32,
        /// The head found in the mailbox.
        found: u32,
    },
    /// Another kernel field of the mailbox was written by user space.
    MailboxModified,
    /// `len_op` of an entry was written by user space.
    LenOpModified {
        /// The entry.
        slot: u32,
        /// What the kernel wrote.
        expected: u32,
        /// What is there.
        found: u32,
    },
    /// Bytes of an entry that user space does not own were written: a PAD, a TMR, `kflags`, an
    /// entry's iovecs or CDB behind the response area, or any part of an entry beyond the tail.
    EntryModified {
        /// The entry.
        slot: u32,
        /// The first changed byte.
        at: usize,
    },
    /// Ring space that holds no entry was written, for instance a response after its tail was
    /// published.
    FreeRingModified {
        /// The first changed byte.
        at: usize,
    },
    /// CHECK CONDITION with request bytes still in the 96 bytes of sense that the kernel copies.
    SenseNotFullyWritten {
        /// The command that was completed.
        ticket: Ticket,
        /// The slot.
        slot: u32,
        /// The first stale byte in the sense buffer.
        sense_byte: usize,
    },
    /// Data-Out of a command changed while it was in flight, or bytes of its last block behind the
    /// end of the transfer were written.
    DataModified {
        /// The command whose blocks changed.
        ticket: Ticket,
        /// The first changed byte.
        at: usize,
    },
    /// A data block was written while no command owned it: use after completion, or a stray write.
    UseAfterComplete {
        /// Index of the block in the data area.
        block: u32,
        /// Where the block starts.
        at: usize,
    },
    /// A write to the doorbell that was not 4 bytes; UIO answers `EINVAL` and does not kick.
    OddKick {
        /// Its length.
        len: usize,
    },
}
