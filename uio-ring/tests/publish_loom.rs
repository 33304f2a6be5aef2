//! The hand-over of entries and answers in every order that the memory model allows, on processors that reorder more than
//! those of the tests.
//!
//! The very sources of the ring and of its cursors are compiled here once more, the cursors on loom's atomics, over memory
//! whose bytes loom watches: an access that no cursor has put behind the other side's is a failure. What a kick orders in
//! addition is left out: the other side looks at the cursors by itself.
#![allow(
    unreachable_pub,
    dead_code,
    unused_imports,
    unsafe_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

#[path = "../src/crash.rs"]
#[macro_use]
pub mod crash;
#[path = "../src/cursor.rs"]
mod cursor;
#[path = "../src/entry.rs"]
mod entry;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/journal.rs"]
mod journal;
#[path = "../src/ring.rs"]
mod ring;
#[path = "../src/segments.rs"]
mod segments;
#[path = "../src/token.rs"]
mod token;

/// Stands for the crate's own.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
}

/// A kick that orders nothing.
mod doorbell {
    use std::io;

    #[derive(Debug)]
    pub struct Doorbell;

    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    impl Doorbell {
        pub(crate) fn kick(&self) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn read(&self) -> io::Result<()> {
            Ok(())
        }
    }
}

/// Mailbox and command ring, no data area, watched by loom.
mod mapping {
    use crate::cursor;
    use crate::sync::AtomicU32;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::os::fd::AsFd;
    use std::{fmt, io};
    use tcmu_sys::mailbox;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("out of bounds")]
    pub struct OutOfBounds;

    #[derive(Clone, Copy, Debug)]
    pub struct IoVec;

    impl IoVec {
        pub fn len(&self) -> usize {
            0
        }

        pub fn as_ptr(&self) -> *mut u8 {
            std::ptr::null_mut()
        }
    }

    #[derive(Clone)]
    pub struct Mapping(Arc<Shared>);

    struct Shared {
        head: AtomicU32,
        tail: AtomicU32,
        bytes: Vec<UnsafeCell<u8>>,
    }

    // SAFETY: that accesses to the cells do not overlap is what loom checks.
    unsafe impl Sync for Shared {}

    impl fmt::Debug for Mapping {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Mapping")
        }
    }

    impl Mapping {
        pub fn of(len: usize) -> Self {
            let bytes = (0..len).map(|_| UnsafeCell::new(0)).collect();
            Self(Arc::new(Shared { head: AtomicU32::new(0), tail: AtomicU32::new(0), bytes }))
        }

        pub fn new(_: impl AsFd, _: usize) -> io::Result<Self> {
            unreachable!("there is no journal here")
        }

        pub fn len(&self) -> usize {
            self.0.bytes.len()
        }

        pub(crate) fn contains(&self, _: *const u8) -> bool {
            false
        }

        pub(crate) fn read<const N: usize>(&self, offset: usize) -> Result<[u8; N], OutOfBounds> {
            let mut to = [0; N];
            self.read_into(offset, &mut to)?;
            Ok(to)
        }

        pub(crate) fn read_into(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
            let cells = self.0.bytes.get(offset..offset + to.len()).ok_or(OutOfBounds)?;
            for (byte, cell) in to.iter_mut().zip(cells) {
                // SAFETY: loom fails if somebody writes to it without being ordered against this.
                *byte = cell.with(|cell| unsafe { *cell });
            }
            Ok(())
        }

        pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
            let cells = self.0.bytes.get(offset..offset + bytes.len()).ok_or(OutOfBounds)?;
            for (byte, cell) in bytes.iter().zip(cells) {
                // SAFETY: loom fails if somebody accesses it without being ordered against this.
                cell.with_mut(|cell| unsafe { *cell = *byte });
            }
            Ok(())
        }

        fn cursor(&self, offset: usize) -> &AtomicU32 {
            match offset {
                mailbox::CMD_HEAD => &self.0.head,
                mailbox::CMD_TAIL => &self.0.tail,
                _ => unreachable!("no cursor"),
            }
        }

        pub(crate) fn load_acquire(&self, offset: usize) -> Result<u32, OutOfBounds> {
            Ok(cursor::load(self.cursor(offset)))
        }

        pub(crate) fn store_release(&self, offset: usize, value: u32) -> Result<(), OutOfBounds> {
            cursor::publish(self.cursor(offset), value);
            Ok(())
        }

        /// The kernel's own store and load, whatever ours are.
        pub(crate) fn kernel_head(&self, value: u32) {
            self.0.head.store(value, crate::sync::Ordering::Release);
        }

        pub(crate) fn kernel_tail(&self) -> u32 {
            self.0.tail.load(crate::sync::Ordering::Acquire)
        }

        pub(crate) fn load_word(&self, _: usize) -> Result<u64, OutOfBounds> {
            unreachable!("there is no journal here")
        }

        pub(crate) fn store_word(&self, _: usize, _: u64) -> Result<(), OutOfBounds> {
            unreachable!("there is no journal here")
        }

        pub(crate) fn offset_of(&self, _: &IoVec) -> usize {
            0
        }

        pub(crate) fn iovec(&self, _: usize, _: usize) -> Result<IoVec, OutOfBounds> {
            Err(OutOfBounds)
        }

        pub(crate) fn copy_from(&self, _: &IoVec, _: usize, _: &mut [u8]) -> Result<usize, OutOfBounds> {
            Err(OutOfBounds)
        }

        pub(crate) fn copy_to(&self, _: &IoVec, _: usize, _: &[u8]) -> Result<usize, OutOfBounds> {
            Err(OutOfBounds)
        }

        pub(crate) fn zero(&self, _: &IoVec, _: usize, _: usize) -> Result<usize, OutOfBounds> {
            Err(OutOfBounds)
        }
    }
}

use doorbell::Doorbell;
use entry::Entry;
use loom::thread;
use mapping::Mapping;
use ring::{Response, Ring};
use tcmu_sys::{MAILBOX_SIZE, MAILBOX_VERSION, SENSE_SIZE, cap, entry as at, mailbox, op};

/// The ring has room for three entries, of which two can be queued at a time.
const ENTRY: u32 = at::CMD_SIZE as u32;
const RING: u32 = 3 * ENTRY;

fn after(cursor: u32) -> u32 {
    (cursor + ENTRY) % RING
}

/// The kernel: writes an entry, then tells of it.
fn queue(memory: &Mapping, head: u32, id: u16) -> u32 {
    let entry = MAILBOX_SIZE + head as usize;
    let cdb = at::IOV;
    memory.write(entry + at::LEN_OP, &(ENTRY | op::CMD).to_ne_bytes()).unwrap();
    memory.write(entry + at::CMD_ID, &id.to_ne_bytes()).unwrap();
    memory.write(entry + at::UFLAGS, &[0]).unwrap();
    memory.write(entry + at::IOV_CNT, &[0; 8]).unwrap();
    memory.write(entry + at::CDB_OFF, &((entry + cdb) as u64).to_ne_bytes()).unwrap();
    memory.write(entry + cdb, &[0x40 + id as u8; 16]).unwrap();
    memory.kernel_head(after(head));
    after(head)
}

/// What the answer to a command is.
fn sense(id: u16) -> [u8; SENSE_SIZE] {
    [0x80 + id as u8; SENSE_SIZE]
}

/// The kernel's side, as far as it has come.
struct Kernel {
    memory: Mapping,
    head: u32,
    cleaned: u32,
    queued: u16,
    answered: Vec<u16>,
}

impl Kernel {
    /// Queues as many as there is room for, at most so many: the cursors must never meet.
    fn queue(&mut self, most: u16) {
        for _ in 0..most {
            if after(self.head) != self.cleaned {
                self.head = queue(&self.memory, self.head, self.queued);
                self.queued += 1;
            }
        }
    }

    /// Takes the answers that are published.
    fn clean(&mut self) {
        let tail = self.memory.kernel_tail();
        while self.cleaned != tail {
            let entry = MAILBOX_SIZE + self.cleaned as usize;
            let id = u16::from_ne_bytes(self.memory.read(entry + at::CMD_ID).unwrap());
            assert_eq!(self.memory.read(entry + at::RSP_STATUS).unwrap(), [id as u8 + 1], "of {id}");
            assert_eq!(self.memory.read(entry + at::RSP_SENSE).unwrap(), sense(id), "of {id}");
            self.answered.push(id);
            self.cleaned = after(self.cleaned);
        }
    }
}

/// The ring's owner: answers what it finds, the last first, and publishes once.
fn pass(ring: &mut Ring) {
    let mut batch = Vec::new();
    for entry in ring.by_ref() {
        let Entry::Command(command) = entry.unwrap() else { unreachable!("commands only") };
        let id = command.token.id().0;
        assert_eq!(command.cdb.as_bytes()[..16], [0x40 + id as u8; 16], "of {id}");
        batch.push(command.token);
    }
    while let Some(token) = batch.pop() {
        let id = token.id().0;
        let response = Response { status: id as u8 + 1, read_len: None, sense: Some(&sense(id)) };
        ring.complete(token, &response).unwrap();
    }
    ring.flush().unwrap();
}

/// `before` entries are queued, then both sides work at once; what is left is done when both have come to their end.
fn hands_over(before: u16) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = None;
    model.check(move || {
        let memory = Mapping::of(MAILBOX_SIZE + RING as usize);
        memory.write(mailbox::VERSION, &MAILBOX_VERSION.to_ne_bytes()).unwrap();
        memory.write(mailbox::FLAGS, &cap::OUT_OF_ORDER.to_ne_bytes()).unwrap();
        memory.write(mailbox::CMDR_OFF, &(MAILBOX_SIZE as u32).to_ne_bytes()).unwrap();
        memory.write(mailbox::CMDR_SIZE, &RING.to_ne_bytes()).unwrap();
        let mut ring = Ring::attach(Doorbell, memory.clone()).unwrap();
        let mut kernel = Kernel { memory, head: 0, cleaned: 0, queued: 0, answered: Vec::new() };
        kernel.queue(before);
        let owner = thread::spawn(move || {
            pass(&mut ring);
            ring
        });
        kernel.clean();
        kernel.queue(2);
        kernel.clean();
        let mut ring = owner.join().unwrap();
        pass(&mut ring);
        kernel.clean();
        kernel.answered.sort_unstable();
        assert_eq!(kernel.answered, (0..kernel.queued).collect::<Vec<_>>());
    });
}

/// What is told of is there, and what is answered is whole.
#[test]
fn entries_and_answers_are_whole_when_their_cursor_shows_them() {
    hands_over(0);
}

/// The fourth entry is queued where the first was: after it was read, and its answer too.
#[test]
fn a_slot_is_used_again_only_when_it_is_done_with() {
    hands_over(2);
}
