//! A command ring in a memfd, to make tokens whose data lies in a real shared mapping.

use std::fs::File;
use std::os::unix::fs::FileExt;
use uio_ring::{Doorbell, Entry, Mapping, Response, Ring, Token};

const CMDR_OFF: u32 = 128;
const CMDR_SIZE: u32 = 1 << 20;
const DATA_OFF: usize = (CMDR_OFF + CMDR_SIZE) as usize;
const PAD: u32 = 0;
const CMD: u32 = 1;

/// The kernel's side, as far as these tests need it: it queues commands and believes every answer.
pub(crate) struct FakeRing {
    ring: Ring,
    file: File,
    head: u32,
    next_id: u16,
}

impl FakeRing {
    pub(crate) fn new(data: usize) -> Self {
        let len = DATA_OFF + data;
        let fd = nix::sys::memfd::memfd_create(c"ring", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(len as u64).unwrap();
        file.write_all_at(&2u16.to_ne_bytes(), 0).unwrap(); // version
        file.write_all_at(&3u16.to_ne_bytes(), 2).unwrap(); // out of order, read_len
        file.write_all_at(&CMDR_OFF.to_ne_bytes(), 4).unwrap();
        file.write_all_at(&CMDR_SIZE.to_ne_bytes(), 8).unwrap();
        let doorbell = Doorbell::new(File::options().write(true).open("/dev/null").unwrap().into());
        let ring = Ring::attach(doorbell, Mapping::new(&file, len).unwrap()).unwrap();
        Self { ring, file, head: 0, next_id: 0 }
    }

    /// Queues a command with these pieces (offset in the data area, length) and consumes it.
    pub(crate) fn token(&mut self, pieces: &[(usize, usize)]) -> Token {
        let iovs = 48 + 16 * pieces.len();
        let len = u32::try_from((iovs + 16).max(112)).unwrap();
        if self.head + len > CMDR_SIZE {
            self.put(0, &((CMDR_SIZE - self.head) | PAD).to_ne_bytes());
            self.head = 0;
        }
        self.put(0, &(len | CMD).to_ne_bytes());
        self.put(4, &self.next_id.to_ne_bytes());
        self.put(8, &u32::try_from(pieces.len()).unwrap().to_ne_bytes()); // iov_cnt
        self.put(12, &0u32.to_ne_bytes()); // iov_bidi_cnt
        self.put(24, &(u64::from(CMDR_OFF + self.head) + iovs as u64).to_ne_bytes()); // cdb_off
        for (i, (offset, len)) in pieces.iter().enumerate() {
            self.put(48 + 16 * i, &((DATA_OFF + offset) as u64).to_ne_bytes());
            self.put(56 + 16 * i, &(*len as u64).to_ne_bytes());
        }
        self.head = (self.head + len) % CMDR_SIZE;
        self.file.write_all_at(&self.head.to_ne_bytes(), 12).unwrap();
        self.next_id = self.next_id.wrapping_add(1);
        match self.ring.next().unwrap().unwrap() {
            Entry::Command(command) => command.token,
            Entry::Tmr(tmr) => panic!("{tmr:?}"),
        }
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        self.file.write_all_at(bytes, u64::from(CMDR_OFF + self.head) + at as u64).unwrap();
    }

    pub(crate) fn answer(&mut self, token: Token) {
        self.ring.complete(token, &Response { status: 0, read_len: None, sense: None }).unwrap();
        self.ring.flush().unwrap();
    }
}
