//! The model of the kernel side, proved by a deliberately naive user side.
//!
//! Nothing of the crate's own ring code is used here: this user side reads and writes the shared
//! memory with `pread` and `pwrite` at offsets written down once more, one entry at a time.
#![allow(clippy::unwrap_used)] // the helpers are test code too

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use uio_ring::mock::{Cursors, Delivered, Direction, Enqueued, Fault, MockConfig, MockKernel, Place, Ticket};

#[path = "mock_selftest/completion.rs"]
mod completion;
#[path = "mock_selftest/device.rs"]
mod device_life;
#[path = "mock_selftest/faults.rs"]
mod faults;
#[path = "mock_selftest/layout.rs"]
mod layout;
#[path = "mock_selftest/random.rs"]
mod random;

/// TEST UNIT READY: an entry of 112 + 8 bytes.
const TUR: [u8; 6] = [0; 6];
/// INQUIRY, allocation length 96.
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
/// READ(10): an entry of 112 + 16 bytes with up to four iovecs.
const READ10: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
/// WRITE(10).
const WRITE10: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0];

const GOOD: u8 = 0x00;
const CHECK: u8 = 0x02;
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;
const TASK_ABORTED: u8 = 0x40;

const BLOCK: usize = 4096;

/// One entry as found on the ring.
#[derive(Debug, Clone)]
struct Entry {
    slot: u32,
    len: u32,
    op: u32,
    id: u16,
    bytes: Vec<u8>,
    iovs: Vec<(u64, u64)>,
    bidi: u32,
    cdb: Vec<u8>,
}

/// What to answer.
#[derive(Debug, Clone, Copy)]
struct Reply {
    uflags: u8,
    status: u8,
    read_len: u32,
    sense: [u8; 96],
}

const OK: Reply = Reply { uflags: 0, status: GOOD, read_len: 0, sense: [0; 96] };

struct User {
    memory: File,
    doorbell: File,
    size: u32,
}

impl User {
    fn open(kernel: &MockKernel) -> Self {
        let side = kernel.user_side().unwrap();
        let mut user = Self { memory: side.memory.into(), doorbell: side.doorbell.into(), size: 0 };
        assert_eq!(user.bytes(0, 2), [2, 0], "mailbox version");
        assert_eq!(user.u32(4), 128, "cmdr_off");
        user.size = user.u32(8);
        assert_eq!(user.memory.metadata().unwrap().len(), side.len as u64);
        user
    }

    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.memory.read_exact_at(&mut out, at as u64).unwrap();
        out
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at as u64).unwrap();
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at, 4).try_into().unwrap())
    }

    fn head(&self) -> u32 {
        self.u32(12)
    }

    fn tail(&self) -> u32 {
        self.u32(64)
    }

    fn set_tail(&self, tail: u32) {
        self.put(64, &tail.to_ne_bytes());
    }

    fn kick(&self) {
        assert_eq!((&self.doorbell).write(&[0; 4]).unwrap(), 4);
    }

    /// The entry at a ring offset.
    fn entry(&self, slot: u32) -> Entry {
        let at = 128 + slot as usize;
        let len_op = self.u32(at);
        let (op, len) = (len_op & 7, len_op & !7);
        let bytes = self.bytes(at, len as usize);
        let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let (mut iovs, mut bidi, mut cdb) = (vec![], 0, vec![]);
        if op == 1 {
            bidi = word(12);
            iovs = (0..(word(8) + bidi) as usize).map(|i| (long(48 + 16 * i), long(56 + 16 * i))).collect();
            let cdb_at = as_usize(long(24));
            cdb = self.bytes(cdb_at, at + len as usize - cdb_at);
        }
        let id = half(4);
        Entry { slot, len, op, id, iovs, bidi, cdb, bytes }
    }

    /// Everything between tail and head.
    fn entries(&self) -> Vec<Entry> {
        let mut out = vec![];
        let mut slot = self.tail();
        while slot != self.head() {
            let entry = self.entry(slot);
            slot = (slot + entry.len) % self.size;
            out.push(entry);
        }
        out
    }

    fn commands(&self) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| entry.op == 1).collect()
    }

    /// Writes a response into a slot.
    fn respond(&self, slot: u32, id: u16, reply: Reply) {
        let at = 128 + slot as usize;
        self.put(at + 4, &id.to_ne_bytes());
        self.put(at + 7, &[reply.uflags]);
        let mut rsp = [0; 104];
        rsp[0] = reply.status;
        rsp[4..8].copy_from_slice(&reply.read_len.to_ne_bytes());
        rsp[8..].copy_from_slice(&reply.sense);
        self.put(at + 8, &rsp);
    }

    /// Skips what is no command, completes `id` in the slot at the tail, moves the tail.
    fn complete(&self, id: u16, reply: Reply) {
        self.skip();
        let slot = self.entry(self.tail());
        self.respond(slot.slot, id, reply);
        self.set_tail((slot.slot + slot.len) % self.size);
    }

    fn skip(&self) {
        while self.tail() != self.head() {
            let entry = self.entry(self.tail());
            if entry.op == 1 {
                break;
            }
            self.set_tail((entry.slot + entry.len) % self.size);
        }
    }

    /// Completes, kicks, and lets the kernel see it.
    fn finish(&self, kernel: &MockKernel, id: u16, reply: Reply) {
        self.complete(id, reply);
        self.kick();
        kernel.pump();
    }

    fn read_data(&self, entry: &Entry) -> Vec<u8> {
        entry.iovs.iter().flat_map(|&(at, len)| self.bytes(as_usize(at), as_usize(len))).collect()
    }

    /// Fills the data buffers from the front.
    fn write_data(&self, entry: &Entry, mut data: &[u8]) {
        for &(at, len) in &entry.iovs {
            let (part, rest) = data.split_at(data.len().min(as_usize(len)));
            self.put(as_usize(at), part);
            data = rest;
        }
    }

    fn read_event(&self) -> u32 {
        let mut count = [0; 4];
        assert_eq!((&self.doorbell).read(&mut count).unwrap(), 4);
        u32::from_ne_bytes(count)
    }
}

fn as_usize(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

/// A ring of one page, 3968 bytes, and eight data blocks.
fn small() -> MockConfig {
    MockConfig { ring_bytes: 4096, data_bytes: 8 * BLOCK, ..MockConfig::default() }
}

fn device(config: MockConfig) -> (MockKernel, User) {
    let kernel = MockKernel::new(config).unwrap();
    let user = User::open(&kernel);
    (kernel, user)
}

fn id_of(enqueued: Enqueued) -> u16 {
    match enqueued.place {
        Place::Ring { cmd_id, .. } => cmd_id,
        place => panic!("not on the ring: {place:?}"),
    }
}

fn status(kernel: &MockKernel, ticket: Ticket) -> Option<u8> {
    kernel.result(ticket).map(|delivered| delivered.status)
}

/// Status, sense key, ASC, ASCQ of fixed-format sense.
fn sense(delivered: &Delivered) -> (u8, u8, u8, u8) {
    (delivered.status, delivered.sense[2], delivered.sense[12], delivered.sense[13])
}

fn clean(kernel: &MockKernel) {
    kernel.verify().unwrap();
    assert_eq!(kernel.faults(), []);
    assert!(!kernel.is_broken());
}
