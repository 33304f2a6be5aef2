//! Calls on a ring, and rings written by hand.

use super::{Became, Seed};
use Became::{Good, Nothing, Refused};

// Calls: a number, and what it takes; see `ring`.
const OUT: [u8; 5] = [0, 0x2a, 1, 0, 16];
const IN: [u8; 5] = [0, 0x28, 2, 1, 16];
const NONE: [u8; 5] = [0, 0x00, 0, 0, 0];
const BIDI: [u8; 5] = [0, 0x7f, 3, 0, 32];
const CONSUME: [u8; 1] = [11];
const FIRST: [u8; 3] = [12, 0, 255];
const SECOND_SHORT: [u8; 3] = [12, 1, 50];
const SENSE: [u8; 3] = [12, 0, 110];
const LOSE: [u8; 2] = [17, 0];
const FLUSH: [u8; 1] = [18];
const PUMP: [u8; 1] = [20];
const LOOK: [u8; 1] = [21];
const EXPIRE: [u8; 2] = [22, 0];
const TMR: [u8; 5] = [23, 4, 2, 0, 1];
const UNKNOWN: [u8; 3] = [24, 1, 5];
const BLOCK: [u8; 1] = [25];
const UNBLOCK: [u8; 1] = [26];
const RESET: [u8; 3] = [27, 1, 1];
const PLUG: [u8; 1] = [28];
const UNPLUG: [u8; 1] = [29];
const HAND_OVER: [u8; 1] = [30];

pub(super) fn seeds() -> Vec<Seed> {
    let calls = |flags: u8, calls: &[&[u8]]| [&[flags, 10, 1], calls.concat().as_slice()].concat();
    let again = |calls: &[&[u8]], times| calls.concat().repeat(times);
    let round: &[&[u8]] = &[&OUT, &IN, &NONE, &CONSUME, &SECOND_SHORT, &FIRST, &FIRST, &FLUSH, &PUMP];
    let ring = [
        ("in_any_order", calls(0x50, round)),
        ("around_the_ring", calls(0x90, &[&again(round, 12)])),
        ("both_ways", calls(0x00, &[&BIDI, &IN, &CONSUME, &FIRST, &SENSE, &FLUSH])),
        ("lost", calls(0x10, &[&OUT, &IN, &CONSUME, &LOSE, &LOSE, &NONE, &CONSUME, &FIRST, &FLUSH, &PUMP])),
        ("expired", calls(0x10, &[&OUT, &IN, &CONSUME, &EXPIRE, &FIRST, &FLUSH, &LOOK])),
        ("task_management", calls(0x10, &[&OUT, &IN, &CONSUME, &TMR, &CONSUME, &FIRST, &FLUSH, &PUMP])),
        ("unknown_entries", calls(0x20, &[&UNKNOWN, &OUT, &UNKNOWN, &CONSUME, &FIRST, &FLUSH, &PUMP])),
        ("blocked", calls(0x10, &[&OUT, &CONSUME, &BLOCK, &IN, &FIRST, &FLUSH, &UNBLOCK, &IN])),
        ("reset", calls(0x10, &[&OUT, &IN, &CONSUME, &LOSE, &RESET, &OUT, &CONSUME, &FIRST])),
        ("plugged", calls(0x12, &[&PLUG, &OUT, &IN, &UNPLUG, &CONSUME, &FIRST, &FLUSH])),
        ("handed_over", calls(0x10, &[&OUT, &CONSUME, &FIRST, &HAND_OVER, &IN, &CONSUME, &FIRST])),
        ("full", calls(0x10, &[&again(&[&OUT, &NONE], 40), &CONSUME, &again(&[&FIRST], 30), &FLUSH, &PUMP])),
    ];
    let ring = ring.map(|(name, bytes)| Seed { target: "ring", name: name.into(), bytes, want: Good });
    let one = entry(1, 1, 0);
    let tmr = [&40u32.to_ne_bytes()[..], &[0; 4]].concat();
    let malformed = [
        ("empty", written(0, 0, None, &[]), Nothing),
        ("one", written(128, 0, None, &one), Good),
        ("tmr", written(128, 0, None, &task_management()), Good),
        (
            "three_then_more",
            written(256, 0, Some((384, 0)), &[entry(1, 1, 0), task_management(), entry(3, 0, 256)].concat()),
            Good,
        ),
        ("reset", written(256, 0, Some((128, 256)), &[entry(1, 1, 0), entry(2, 1, 128)].concat()), Refused),
        (
            "unknown_entry",
            written(168, 0, None, &[&45u32.to_ne_bytes()[..], &[0; 36], &entry(1, 1, 40)].concat()),
            Good,
        ),
        ("pad_only", written(40, 0, None, &tmr), Nothing),
        ("zeroes", written(128, 0, None, &[]), Refused),
        ("tail_within", written(128, 132, None, &one), Refused),
        ("too_many_iovecs", written(128, 0, None, &entry(1, 6, 0)), Refused),
        ("head_beyond", written(4096, 0, None, &one), Refused),
    ];
    let malformed = malformed.map(|(name, bytes, want)| Seed {
        target: "malformed_ring",
        name: name.into(),
        bytes,
        want,
    });
    ring.into_iter().chain(malformed).collect()
}

/// A ring with these cursors and this content; perhaps another head and a changed tail later.
fn written(head: u32, tail: u32, later: Option<(u32, u32)>, content: &[u8]) -> Vec<u8> {
    let mut bytes = [head.to_le_bytes(), tail.to_le_bytes()].concat();
    bytes.extend([0; 12]);
    let (later_head, later_tail) = later.unwrap_or_default();
    bytes.extend([later_head.to_le_bytes(), later_tail.to_le_bytes()].concat());
    bytes.extend([u8::from(later.is_some()), 0]);
    bytes.extend(content);
    bytes
}

/// A READ(10) of 128 bytes, at this offset of the ring.
fn entry(id: u16, iovecs: u32, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &(128u32 | 1).to_ne_bytes());
    put(4, &id.to_ne_bytes());
    put(8, &iovecs.to_ne_bytes());
    put(24, &(128 + offset + 112).to_ne_bytes());
    put(48, &4096u64.to_ne_bytes());
    put(56, &4096u64.to_ne_bytes());
    put(112, &[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
    bytes
}

/// A notification of 128 bytes about one command.
fn task_management() -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes[..4].copy_from_slice(&(128u32 | 2).to_ne_bytes());
    bytes[8] = 5;
    bytes[12] = 1;
    bytes[32] = 1;
    bytes
}
