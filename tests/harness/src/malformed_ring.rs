//! Any bytes as mailbox and ring: errors, never a panic, nothing read or written outside.
//!
//! ```text
//!  0  cmd_head, u32      4  cmd_tail, u32
//!  8  version, u16      10  flags, u16      12  cmdr_off, u32      16  cmdr_size, u32: zero is what is right
//! 20  what the kernel does after the first batch: cmd_head, u32; 24  cmd_tail, u32, zero is
//!     what is there; 28  bit 0: it does
//! 29  commands left unanswered                 30  the ring
//! ```

use crate::input::Input;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use uio_ring::{Doorbell, Entry, Mapping, Response, Ring, RingError, Token};

const RING: usize = 128;
const RING_SIZE: u32 = 4096 - 128;
const MAPPED: usize = 4 * 4096;
const HEAD: u64 = 12;
const TAIL: u64 = 64;
/// The part of an entry that an answer may overwrite ends here.
const ANSWER: usize = 112;
const GOOD: Response<'_> = Response { status: 0, read_len: None, sense: Some(&[0x5a; 96]) };

/// What became of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The mailbox was accepted.
    pub attached: bool,
    /// Commands consumed.
    pub commands: usize,
    /// Task management notifications consumed.
    pub notifications: usize,
    /// What was wrong with the ring, first.
    pub error: Option<String>,
}

struct Device {
    memory: File,
    kernel_end: UnixStream,
}

impl Device {
    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).unwrap();
    }

    fn all(&self) -> Vec<u8> {
        let mut all = vec![0; MAPPED];
        self.memory.read_exact_at(&mut all, 0).unwrap();
        all
    }

    fn kicks(&mut self) -> usize {
        self.kernel_end.read(&mut [0; 64]).unwrap_or(0) / 4
    }
}

/// Runs one input; what became of it.
pub fn run(bytes: &[u8]) -> End {
    let mut input = Input::new(bytes);
    let memory = File::from(memfd_create("malformed", MFdFlags::MFD_CLOEXEC).unwrap());
    memory.set_len(MAPPED as u64).unwrap();
    let (kernel_end, user_end) = UnixStream::pair().unwrap();
    kernel_end.set_nonblocking(true).unwrap();
    let mut device = Device { memory, kernel_end };
    device.put(HEAD, &input.u32().to_ne_bytes());
    device.put(TAIL, &input.u32().to_ne_bytes());
    device.put(0, &(input.u16() ^ 2).to_ne_bytes());
    device.put(2, &(input.u16() ^ 0xf).to_ne_bytes());
    let (cmdr_off, cmdr_size) = (input.u32() ^ 128, input.u32() ^ RING_SIZE);
    device.put(4, &cmdr_off.to_ne_bytes());
    device.put(8, &cmdr_size.to_ne_bytes());
    let (later_head, later_tail, later) = (input.u32(), input.u32(), input.bit());
    let unanswered = usize::from(input.byte());
    device.put(RING as u64, input.bytes(MAPPED - RING));
    let mapping = Mapping::new(&device.memory, MAPPED).unwrap();
    let mut end = End::default();
    let mut ring = match Ring::attach(Doorbell::new(user_end.into()), mapping) {
        Ok(ring) => ring,
        Err(error) => {
            assert_eq!(device.kicks(), 0);
            return End { error: Some(error.to_string()), ..end };
        }
    };
    end.attached = true;
    let data_at = cmdr_off as usize + cmdr_size as usize;
    if batch(&mut ring, &mut device, data_at, unanswered, &mut end) && later {
        device.put(HEAD, &later_head.to_ne_bytes());
        let there = u32::from_ne_bytes(device.all()[64..68].try_into().unwrap());
        device.put(TAIL, &(there ^ later_tail).to_ne_bytes());
        batch(&mut ring, &mut device, data_at, 0, &mut end);
    }
    assert_eq!(ring.outstanding(), 0);
    end
}

/// Consumes what there is, fills its data, answers all but a few commands, and publishes. Whether the ring may be
/// used further.
fn batch(ring: &mut Ring, device: &mut Device, data_at: usize, unanswered: usize, end: &mut End) -> bool {
    let before = device.all();
    let mut tokens: Vec<Token> = vec![];
    let mut failed = None;
    for entry in ring.by_ref() {
        match entry {
            Ok(Entry::Command(command)) => {
                assert!(!command.cdb.as_bytes().is_empty() && command.cdb.as_bytes().len() <= 32);
                tokens.push(command.token);
            }
            Ok(Entry::Tmr(_)) => end.notifications += 1,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
        assert!(tokens.len() < MAPPED / ANSWER, "more commands than there is room for");
    }
    end.commands += tokens.len();
    for token in &tokens {
        fill(token);
    }
    // Up to here: the commands' data, and `uflags` of what was consumed.
    let now = device.all();
    let marked = (0..data_at).filter(|&at| now[at] != before[at]);
    for at in marked {
        let flags = |op: u8| if op > 2 { 0x81 } else { 0x80 };
        assert!(
            at >= RING && at % 8 == 7 && now[at] == flags(before[at - 7] & 7),
            "byte {at:#x} was written"
        );
    }
    let answered = if failed.is_some() { 0 } else { tokens.len().saturating_sub(unanswered) };
    for (index, token) in tokens.into_iter().enumerate() {
        if index >= answered || failed.is_some() {
            ring.forget(token);
        } else {
            failed = ring.complete(token, &GOOD).err();
        }
    }
    assert_eq!(device.kicks(), 0, "kicked before anything was published");
    if failed.is_none() {
        match ring.flush() {
            Ok(published) => assert_eq!(device.kicks(), usize::from(published)),
            Err(error) => failed = Some(error),
        }
    }
    // After a reset nothing of before counts any more.
    let usable = match failed {
        None => true,
        Some(RingError::Reset { .. }) => {
            let started_over = ring.rewind().is_ok();
            assert_eq!(device.kicks(), 1);
            started_over
        }
        Some(_) => false,
    };
    // The mailbox is the kernel's, but for cmd_tail.
    let now = device.all();
    assert_eq!(now[..64], before[..64]);
    assert_eq!(now[68..RING], before[68..RING]);
    if failed.is_some() {
        assert_eq!(now[64..68], before[64..68], "published although the ring is broken");
    }
    let failed = failed.map(|error| error.to_string());
    end.error = end.error.take().or(failed);
    usable
}

/// Writes to all of a command's data and reads it back, and a byte more.
fn fill(token: &Token) {
    let data = token.data();
    let mut len: usize = 0;
    for piece in data.as_iovecs().iter().filter(|piece| !piece.is_empty()) {
        assert!(data.maps(piece.as_ptr()));
        assert!(data.maps(piece.as_ptr().wrapping_add(piece.len() - 1)));
        len += piece.len();
    }
    assert_eq!(len, data.len());
    // A list may name the same pages again and again.
    let mut bytes = vec![0xc3; len.min(MAPPED)];
    assert_eq!(data.write(0, &bytes), bytes.len());
    bytes.push(0);
    assert_eq!(data.read(0, &mut bytes), len.min(bytes.len()));
    assert!(bytes[..len.min(MAPPED)].iter().all(|&byte| byte == 0xc3));
    data.zero_from(len.saturating_sub(1));
}
