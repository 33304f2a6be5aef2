//! Random sequences of calls, by kernel and user space; what must hold is in `run`.

mod run;

use proptest::prelude::*;
use run::{Answer, BLOCK, BUSY, Dir, Op, Pick, Run, SeenBy, TASK_SET_FULL};
use std::panic::{AssertUnwindSafe, catch_unwind};
use uio_ring::Token;
use uio_ring::mock::MockConfig;

fn pick() -> impl Strategy<Value = Pick> {
    any::<u16>().prop_map(|which| Pick(which.into()))
}

fn op() -> impl Strategy<Value = Op> {
    let opcode = prop::sample::select(&[0x00u8, 0x12, 0x28, 0x2a, 0x5a, 0x7f, 0x88, 0x8a, 0xa8, 0xc1][..]);
    let dir = prop_oneof![
        2 => Just(Dir::None),
        4 => Just(Dir::Out),
        4 => Just(Dir::In),
        1 => Just(Dir::Bidi),
    ];
    let len = prop_oneof![
        1 => Just(0usize),
        3 => 1..=BLOCK,
        3 => (1..=3usize).prop_map(|n| n * BLOCK),
        1 => 1..=4 * BLOCK,
    ];
    let answer = prop_oneof![
        5 => Just(Answer::Good),
        3 => (0..=100usize).prop_map(Answer::Short),
        2 => Just(Answer::Sense),
        1 => prop::sample::select(&[BUSY, 0x18, TASK_SET_FULL][..]).prop_map(Answer::Status),
    ];
    prop_oneof![
        30 => (opcode, dir, len).prop_map(|(opcode, dir, len)| Op::Enqueue { opcode, dir, len }),
        14 => (1..12usize).prop_map(|at_most| Op::Consume { at_most }),
        6 => Just(Op::Consume { at_most: usize::MAX }),
        28 => (pick(), answer).prop_map(|(which, answer)| Op::Complete { which, answer }),
        1 => pick().prop_map(Op::Lose),
        8 => Just(Op::Flush),
        6 => Just(Op::Pump),
        3 => Just(Op::KernelLooks),
        2 => pick().prop_map(Op::Expire),
        2 => (1..=7u8, prop::collection::vec(pick(), 0..6))
            .prop_map(|(kind, which)| Op::Tmr { kind, which }),
        2 => (3..=7u8, 1..24usize).prop_map(|(op, words)| Op::Unknown { op, len: 8 * words }),
        1 => Just(Op::Block),
        2 => Just(Op::Unblock),
        1 => (any::<bool>(), prop::sample::select(&[SeenBy::Next, SeenBy::Complete, SeenBy::Flush][..]))
            .prop_map(|(retry, seen_by)| Op::Reset { retry, seen_by }),
        2 => Just(Op::Plug),
        2 => Just(Op::Unplug),
        1 => Just(Op::HandOver),
    ]
}

fn config() -> impl Strategy<Value = MockConfig> {
    let ring = prop::sample::select(&[4096usize, 4096, 8192, 65536][..]);
    let flags = prop::sample::select(&[0xfu16, 0xf, 0xf, 0x5, 0x1][..]);
    (ring, 4..40usize, flags, any::<[bool; 3]>(), any::<Option<u64>>()).prop_map(
        |(ring_bytes, blocks, flags, [tmr_notification, poison_on_free, single_threaded], seed)| MockConfig {
            ring_bytes,
            data_bytes: blocks * BLOCK,
            flags,
            tmr_notification,
            poison_on_free,
            single_threaded,
            seed,
            ..MockConfig::default()
        },
    )
}

fn lose(token: Token) {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(token)));
    assert_eq!(dropped.is_err(), cfg!(debug_assertions));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_gets_its_own_answer(
        config in config(),
        steps in prop::collection::vec(op(), 100..300),
    ) {
        let mut run = Run::new(config, lose);
        for step in &steps {
            run.step(step);
        }
        run.finish();
    }
}
