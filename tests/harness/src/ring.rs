//! Any calls by kernel and user space on one ring, against the model of the kernel; the oracle is that of
//! `uio-ring/tests/property.rs`.
//!
//! ```text
//!  0  bits 0-1: size of the ring; 2-3: mailbox flags; 4: task management shows; 5: freed pages are overwritten;
//!     6: user space has published all it wrote when the kernel looks; 7: events come in batches
//!  1  pages of data           2  seed of the batches           3  calls: a number, then what it takes
//! ```

#[path = "../../../uio-ring/tests/run/mod.rs"]
mod run;

use crate::input::Input;
use run::{Answer, BLOCK, BUSY, Dir, Op, Pick, Run, SeenBy, TASK_SET_FULL};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use uio_ring::Token;
use uio_ring::mock::MockConfig;

/// More calls than that only take time.
const CALLS_MAX: usize = 120;

/// Runs one input; the number of calls.
pub fn run(bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let mut run = Run::new(config(&mut input), lose);
    let mut calls = 0;
    while !input.is_empty() && calls < CALLS_MAX {
        run.step(&op(&mut input));
        calls += 1;
    }
    run.finish();
    calls
}

fn config(input: &mut Input<'_>) -> MockConfig {
    let flags = input.byte();
    MockConfig {
        ring_bytes: [4096, 4096, 8192, 65536][usize::from(flags & 3)],
        flags: [0xf, 0xf, 0x5, 0x1][usize::from(flags >> 2 & 3)],
        tmr_notification: flags & 0x10 != 0,
        poison_on_free: flags & 0x20 != 0,
        single_threaded: flags & 0x40 != 0,
        data_bytes: (4 + input.below(36)) * BLOCK,
        seed: Some(input.byte().into()).filter(|_| flags & 0x80 != 0),
        ..MockConfig::default()
    }
}

fn op(input: &mut Input<'_>) -> Op {
    // Frequent calls have more than one number.
    match input.byte() & 0x1f {
        0..=7 => {
            let (opcode, dir) = (input.byte(), [Dir::None, Dir::Out, Dir::In, Dir::Bidi][input.below(4)]);
            Op::Enqueue { opcode, dir, len: usize::from(input.u16()) % (4 * BLOCK + 1) }
        }
        8..=10 => Op::Consume { at_most: 1 + input.below(12) },
        11 => Op::Consume { at_most: usize::MAX },
        12..=16 => Op::Complete { which: pick(input), answer: answer(input) },
        17 => Op::Lose(pick(input)),
        18..=19 => Op::Flush,
        20 => Op::Pump,
        21 => Op::KernelLooks,
        22 => Op::Expire(pick(input)),
        23 => {
            let (kind, count) = (1 + input.byte() % 7, input.below(6));
            Op::Tmr { kind, which: (0..count).map(|_| pick(input)).collect() }
        }
        24 => Op::Unknown { op: 3 + input.byte() % 5, len: 8 * (1 + input.below(23)) },
        25 => Op::Block,
        26 => Op::Unblock,
        27 => {
            let seen_by = [SeenBy::Next, SeenBy::Complete, SeenBy::Flush][input.below(3)];
            Op::Reset { retry: input.bit(), seen_by }
        }
        28 => Op::Plug,
        29 => Op::Unplug,
        _ => Op::HandOver,
    }
}

fn pick(input: &mut Input<'_>) -> Pick {
    Pick(input.byte().into())
}

fn answer(input: &mut Input<'_>) -> Answer {
    match input.byte() {
        byte @ 0..=100 => Answer::Short(byte.into()),
        101..=120 => Answer::Sense,
        121..=140 => Answer::Status([BUSY, 0x18, TASK_SET_FULL][input.below(3)]),
        _ => Answer::Good,
    }
}

/// Drops a token as a defect would. That panics where debug assertions are on, which a fuzzer would take for its
/// find, so its hook is out of the way meanwhile.
fn lose(token: Token) {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(token)));
    set_hook(hook);
    assert_eq!(dropped.is_err(), cfg!(debug_assertions));
}
