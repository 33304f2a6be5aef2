//! A ring that the kernel cannot have written: refused with the precise reason, nothing published.
//!
//! The shared memory is written by hand at offsets from the UAPI header, so neither the crate's constants nor
//! the model of the kernel are trusted.
#![allow(clippy::unwrap_used)]

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use uio_ring::{
    AttachError, CmdId, Doorbell, Entry, Malformed, Mapping, OutOfBounds, Response, Ring, RingError, Tmr,
};

const RING_SIZE: usize = 4096 - 128;
const DATA: u64 = 4096;
const MAPPED: usize = 4 * 4096;
const GOOD: Response<'_> = Response { status: 0, read_len: None, sense: None };

/// Shared memory and the far end of the doorbell.
struct Device {
    memory: File,
    kernel_end: UnixStream,
    user_end: Option<UnixStream>,
}

impl Device {
    /// A sound and empty ring of 4 KiB in front of three pages of data.
    fn new() -> Self {
        let memory = File::from(memfd_create("malformed", MFdFlags::MFD_CLOEXEC).unwrap());
        memory.set_len(MAPPED as u64).unwrap();
        let (kernel_end, user_end) = UnixStream::pair().unwrap();
        kernel_end.set_nonblocking(true).unwrap();
        let device = Self { memory, kernel_end, user_end: Some(user_end) };
        device.put(0, &2u16.to_ne_bytes());
        device.put(2, &0xfu16.to_ne_bytes());
        device.word(4, 128);
        device.word(8, u32::try_from(RING_SIZE).unwrap());
        device
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at as u64).unwrap();
    }

    fn word(&self, at: usize, value: u32) {
        self.put(at, &value.to_ne_bytes());
    }

    fn long(&self, at: usize, value: u64) {
        self.put(at, &value.to_ne_bytes());
    }

    fn head(&self, value: u32) {
        self.word(12, value);
    }

    fn tail(&self) -> u32 {
        let mut tail = [0; 4];
        self.memory.read_exact_at(&mut tail, 64).unwrap();
        u32::from_ne_bytes(tail)
    }

    fn all(&self) -> Vec<u8> {
        let mut all = vec![0; MAPPED];
        self.memory.read_exact_at(&mut all, 0).unwrap();
        all
    }

    /// A READ(10) of one page with everything as it should be, at a ring offset.
    fn read_10(&self, slot: usize) {
        let at = 128 + slot;
        self.word(at, 128 | 1);
        self.put(at + 4, &7u16.to_ne_bytes());
        self.word(at + 8, 1);
        self.long(at + 24, (at + 112) as u64);
        self.long(at + 48, DATA);
        self.long(at + 56, 4096);
        self.put(at + 112, &[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
    }

    fn attach(&mut self) -> Result<Ring, AttachError> {
        self.attach_with(MAPPED)
    }

    fn attach_with(&mut self, len: usize) -> Result<Ring, AttachError> {
        let mapping = Mapping::new(&self.memory, len).unwrap();
        Ring::attach(Doorbell::new(self.user_end.take().unwrap().into()), mapping)
    }

    fn kicks(&mut self) -> usize {
        let mut bytes = [0; 64];
        self.kernel_end.read(&mut bytes).unwrap_or(0) / 4
    }
}

/// Prepares a sound entry at offset 0, lets `spoil` at it, and expects this error from it. Nothing may be
/// published or kicked for, however often the ring is asked.
fn refused(head: u32, spoil: impl FnOnce(&Device), want: &RingError) {
    let mut device = Device::new();
    device.read_10(0);
    device.head(head);
    spoil(&device);
    let before = device.all();
    let mut ring = device.attach().unwrap();
    for _ in 0..3 {
        let got = ring.next().unwrap().unwrap_err();
        assert_eq!(format!("{got:?}"), format!("{want:?}"));
    }
    assert_eq!(ring.outstanding(), 0);
    let _ = ring.flush();
    assert_eq!((device.tail(), device.kicks()), (0, 0));
    assert!(device.all() == before, "a refused ring was written to");
}

fn malformed(spoil: impl FnOnce(&Device), what: Malformed) {
    refused(128, spoil, &RingError::Malformed { ring_offset: 0, what });
}

#[test]
fn the_sound_ring_is_served() {
    let mut device = Device::new();
    device.read_10(0);
    device.head(128);
    let mut ring = device.attach().unwrap();
    let Some(Ok(Entry::Command(command))) = ring.next() else { panic!("no command") };
    assert_eq!(command.cdb.as_bytes()[..10], [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
    assert_eq!(command.token.id(), CmdId(7));
    assert_eq!(command.token.data().len(), 4096);
    assert!(ring.next().is_none());
    ring.complete(command.token, &GOOD).unwrap();
    assert_eq!((device.tail(), device.kicks()), (0, 0)); // not before the flush
    assert!(ring.flush().unwrap());
    assert_eq!((device.tail(), device.kicks()), (128, 1));
    assert!(!ring.flush().unwrap());
    assert_eq!(device.kicks(), 0);
}

#[test]
fn entry_lengths() {
    // The three low bits of the word are the op, so a length can be small or zero but never unaligned.
    malformed(|device| device.word(128, 1), Malformed::Length(0));
    malformed(|device| device.word(128, 0), Malformed::Length(0));
    malformed(|device| device.word(128, 2), Malformed::Length(0));
    malformed(|device| device.word(128, 104 | 1), Malformed::Length(104));
    malformed(|device| device.word(128, 8 | 1), Malformed::Length(8));
    malformed(|device| device.word(128, 24 | 2), Malformed::Length(24));
    malformed(|device| device.word(128, 136 | 1), Malformed::Length(136)); // past the head
    malformed(|device| device.word(128, 136), Malformed::Length(136));
    malformed(|device| device.word(128, 0xffff_fff8 | 1), Malformed::Length(0xffff_fff8));
    // Every op from 3 on is passed over by its length, which must be one.
    malformed(|device| device.word(128, 5), Malformed::Length(0));
    malformed(|device| device.word(128, 4096 | 7), Malformed::Length(4096));
}

#[test]
fn an_entry_past_the_end_of_the_ring() {
    let mut device = Device::new();
    let slot = RING_SIZE - 128;
    device.word(64, u32::try_from(slot).unwrap());
    device.head(64); // wrapped
    device.read_10(slot);
    device.word(128 + slot, 136 | 1);
    let mut ring = device.attach().unwrap();
    let ring_offset = u32::try_from(slot).unwrap();
    let what = Malformed::Length(136);
    let got = ring.next().unwrap().unwrap_err();
    assert_eq!(format!("{got:?}"), format!("{:?}", RingError::Malformed { ring_offset, what }));
    // One that ends with the ring is fine.
    device.word(128 + slot, 128 | 1);
    let Some(Ok(Entry::Command(command))) = ring.next() else { panic!("no command") };
    ring.complete(command.token, &GOOD).unwrap();
    assert!(ring.flush().unwrap());
    assert_eq!((device.tail(), device.kicks()), (0, 1));
}

#[test]
fn iovec_counts() {
    malformed(|device| device.word(136, 6), Malformed::IovCount(6)); // 48 + 6 * 16 > 128
    malformed(|device| device.word(136, u32::MAX), Malformed::IovCount(u32::MAX as usize));
    malformed(|device| device.word(140, 5), Malformed::IovCount(6));
    malformed(
        |device| {
            device.word(136, u32::MAX);
            device.word(140, u32::MAX);
        },
        Malformed::IovCount(2 * (u32::MAX as usize)),
    );
}

#[test]
fn iovecs_outside_the_data_area() {
    let iov = |base, len| Malformed::Iov { base, len };
    malformed(|device| device.long(176, 0), iov(0, 4096));
    malformed(|device| device.long(176, DATA - 1), iov(DATA - 1, 4096));
    for (base, len) in [
        (DATA, MAPPED as u64),
        (DATA, 3 * 4096 + 1),
        (MAPPED as u64, 1),
        (MAPPED as u64 + 1, 0),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (DATA, u64::MAX),
        (u64::MAX - 4095, 4096),
    ] {
        let (offset, len) = (usize::try_from(base).unwrap(), usize::try_from(len).unwrap());
        let spoil = |device: &Device| {
            device.long(176, base);
            device.long(184, len as u64);
        };
        refused(128, spoil, &RingError::OutOfBounds(OutOfBounds { offset, len, mapped: MAPPED }));
    }
}

#[test]
fn cdbs_outside_the_entry() {
    // Entry and mapping offset 128 to 256, its one iovec up to 192.
    for at in [0, 127, 128, 191, 256, 257, MAPPED as u64, u64::MAX] {
        malformed(|device| device.long(152, at), Malformed::CdbOffset(at));
    }
}

#[test]
fn task_management_ids() {
    let tmr = |count| {
        move |device: &Device| {
            device.word(128, 128 | 2);
            device.put(136, &[5]);
            device.word(140, count);
        }
    };
    malformed(tmr(49), Malformed::IdCount(49));
    malformed(tmr(u32::MAX), Malformed::IdCount(u32::MAX as usize));
    let mut device = Device::new();
    device.head(128);
    tmr(48)(&device);
    device.put(160, &[1u16.to_ne_bytes(), 0x1234u16.to_ne_bytes()].concat());
    let mut ring = device.attach().unwrap();
    let Some(Ok(Entry::Tmr(Tmr { function, commands }))) = ring.next() else { panic!("no notification") };
    assert_eq!((function, commands.len()), (5, 48));
    assert_eq!(commands[..3], [CmdId(1), CmdId(0x1234), CmdId(0)]);
    assert!(ring.flush().unwrap());
    assert_eq!((device.tail(), device.kicks()), (128, 1));
}

#[test]
fn heads_that_are_no_boundary() {
    let cmdr_size = u32::try_from(RING_SIZE).unwrap();
    for value in [1, 7, 132, cmdr_size, cmdr_size + 8, u32::MAX] {
        refused(value, |_| {}, &RingError::Cursor { cursor: "cmd_head", value, cmdr_size });
    }
}

#[test]
fn tails_that_are_no_boundary() {
    let cmdr_size = u32::try_from(RING_SIZE).unwrap();
    for value in [4, 129, cmdr_size, u32::MAX] {
        let mut device = Device::new();
        device.word(64, value);
        let got = device.attach().unwrap_err();
        let want = AttachError::Ring(RingError::Cursor { cursor: "cmd_tail", value, cmdr_size });
        assert_eq!(format!("{got:?}"), format!("{want:?}"));
        assert_eq!((device.tail(), device.kicks()), (value, 0));
    }
}

#[test]
fn a_second_entry_spoils_nothing_before_it() {
    // What was consumed before the malformed entry is still held; nothing of it is published by accident.
    let mut device = Device::new();
    device.read_10(0);
    device.head(256); // zeroes follow
    let mut ring = device.attach().unwrap();
    let Some(Ok(Entry::Command(command))) = ring.next() else { panic!("no command") };
    let got = ring.next().unwrap().unwrap_err();
    assert!(matches!(got, RingError::Malformed { ring_offset: 128, what: Malformed::Length(0) }), "{got:?}");
    assert_eq!((device.tail(), device.kicks(), ring.outstanding()), (0, 0, 1));
    ring.forget(command.token);
    assert_eq!(ring.outstanding(), 0);
}

#[test]
fn mailboxes() {
    for version in [0u16, 1, 3, u16::MAX] {
        let mut device = Device::new();
        device.put(0, &version.to_ne_bytes());
        assert!(matches!(device.attach().unwrap_err(), AttachError::Version(found) if found == version));
        assert_eq!(device.kicks(), 0);
    }
    for flags in [0u16, 0xe, 0xfffe] {
        let mut device = Device::new();
        device.put(2, &flags.to_ne_bytes());
        assert!(matches!(device.attach().unwrap_err(), AttachError::NoOutOfOrder(found) if found == flags));
    }
    let size = u32::try_from(RING_SIZE).unwrap();
    for (off, size) in [
        (0, size),
        (120, size),
        (132, size),
        (u32::MAX, size),
        (0xffff_fff8, size),
        (128, 0),
        (128, 104),
        (128, size + 4),
        (128, u32::try_from(MAPPED).unwrap()),
        (128, u32::MAX),
        (128, 0xffff_fff8),
        (0xffff_fff8, 0xffff_fff8),
    ] {
        let mut device = Device::new();
        device.word(4, off);
        device.word(8, size);
        let got = device.attach().unwrap_err();
        let AttachError::Geometry { cmdr_off, cmdr_size, mapped } = got else { panic!("{got:?}") };
        assert_eq!((cmdr_off, cmdr_size, mapped), (off, size, MAPPED));
    }
}

#[test]
fn truncated_mappings() {
    // Too short for the mailbox.
    for len in [1, 2, 4, 11, 12] {
        let got = Device::new().attach_with(len).unwrap_err();
        let short = matches!(&got, AttachError::Ring(RingError::OutOfBounds(at)) if at.mapped == len);
        let no_ring = matches!(&got, AttachError::Geometry { mapped, .. } if *mapped == len);
        assert!(short || no_ring, "{len}: {got:?}");
    }
    // Too short for the ring.
    for len in [64, 68, 128, 4095] {
        let got = Device::new().attach_with(len).unwrap_err();
        assert!(matches!(&got, AttachError::Geometry { mapped, .. } if *mapped == len), "{got:?}");
    }
    // Too short for the data that an entry points to.
    let mut device = Device::new();
    device.read_10(0);
    device.head(128);
    let mut ring = device.attach_with(2 * 4096 - 1).unwrap();
    let got = ring.next().unwrap().unwrap_err();
    let want = OutOfBounds { offset: 4096, len: 4096, mapped: 2 * 4096 - 1 };
    assert!(matches!(&got, RingError::OutOfBounds(found) if *found == want), "{got:?}");
    assert_eq!((device.tail(), device.kicks()), (0, 0));
}

#[test]
fn no_mapping_of_nothing() {
    let device = Device::new();
    let empty = Mapping::new(&device.memory, 0);
    let refused = empty.is_ok_and(|mapping| {
        Ring::attach(Doorbell::new(device.kernel_end.try_clone().unwrap().into()), mapping).is_ok()
    });
    assert!(!refused);
}

/// Words that are likely to get past one check and to the next.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => Just(0u32),
        2 => (0..64u32).prop_map(|n| n * 8),
        2 => (0..48u32, 0..8u32).prop_map(|(n, op)| (n * 8) | op),
        2 => (14..20u32).prop_map(|n| (n * 8) | 1),
        1 => 0..5u32,
        1 => any::<u32>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the ring holds: no panic, no access outside (that would be a signal), data buffers inside the
    /// data area only, and no write but answers to what was consumed.
    #[test]
    fn any_bytes(
        words in prop::collection::vec(word(), RING_SIZE / 4),
        sound in prop::collection::vec(0..RING_SIZE / 128, 0..8),
        head in prop_oneof![4 => (0..496u32).prop_map(|n| n * 8), 1 => any::<u32>()],
        tail in prop_oneof![Just(0u32), (0..496u32).prop_map(|n| n * 8)],
    ) {
        let mut device = Device::new();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        device.put(128, &bytes);
        for slot in sound {
            device.read_10(slot * 128);
        }
        device.word(64, tail);
        device.head(head);
        let before = device.all();
        let mut ring = device.attach().unwrap();
        let mut tokens = vec![];
        for entry in ring.by_ref() {
            match entry {
                Ok(Entry::Command(command)) => tokens.push(command.token),
                Ok(Entry::Tmr(_)) => {}
                Err(_) => break,
            }
        }
        for token in &tokens {
            let mut sum = 0;
            for piece in token.data().as_iovecs() {
                sum += piece.len();
                prop_assert!(piece.is_empty() || token.data().maps(piece.as_ptr()));
                prop_assert!(piece.is_empty() || token.data().maps(piece.as_ptr().wrapping_add(piece.len() - 1)));
            }
            prop_assert_eq!(sum, token.data().len());
            token.data().zero_from(0);
        }
        // Up to here only `uflags` of what was consumed and the data area were written.
        let now = device.all();
        prop_assert_eq!(&now[..128], &before[..128]);
        let marked = (128..4096).filter(|&at| now[at] != before[at]);
        let mark = |at: usize| if before[at - 7] & 7 > 2 { 0x81 } else { 0x80 };
        prop_assert!(marked.clone().all(|at| at % 8 == 7 && now[at] == mark(at)));
        for token in tokens {
            ring.complete(token, &GOOD).unwrap();
        }
        prop_assert_eq!(device.tail(), tail);
        prop_assert_eq!(device.kicks(), 0);
        let published = ring.flush().unwrap_or(false);
        prop_assert_eq!(device.kicks(), usize::from(published));
    }
}
