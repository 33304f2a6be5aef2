//! The tests.

use crate::drive::{NOT_YET, Plan, Tally, run};
use crate::mutants::Mutant;
use std::collections::BTreeMap;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs of this kind, some with a sound disk and some with one that fails; all together as many commands.
fn runs(depth: usize, block: u64, commands: u64) {
    let total = number("MODEL_COMMANDS").map_or(commands, |all| all / 4);
    let seeds = match number("MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=4).map(|n| n + 10 * depth as u64 + block).collect(),
    };
    let mut good = BTreeMap::new();
    for &seed in &seeds {
        let commands = total / seeds.len() as u64;
        let plan = Plan { seed, commands, depth, block, faults: seed % 4 > 1, mutant: None };
        let tally = run(plan).unwrap_or_else(|report| panic!("{report}"));
        println!(
            "{plan:?}\n  {:?}, most in flight {}, {} on average",
            tally.ends,
            tally.depth.0,
            mean(&tally)
        );
        for (name, count) in tally.good {
            *good.entry(name).or_insert(0) += count;
        }
    }
    assert!(
        seeds.len() == 1 || ALL.iter().all(|name| good.contains_key(name) != NOT_YET.contains(name)),
        "{good:?}"
    );
}

fn mean(tally: &Tally) -> u64 {
    tally.depth.1 / tally.answers.max(1)
}

/// Everything that must have been GOOD at least once.
const ALL: &[&str] = &[
    "READ(6)",
    "READ(10)",
    "READ(12)",
    "READ(16)",
    "WRITE(6)",
    "WRITE(10)",
    "WRITE(12)",
    "WRITE(16)",
    "WRITE AND VERIFY(10)",
    "WRITE AND VERIFY(12)",
    "WRITE AND VERIFY(16)",
    "WRITE AND VERIFY(10)/BYTCHK",
    "WRITE AND VERIFY(12)/BYTCHK",
    "WRITE AND VERIFY(16)/BYTCHK",
    "VERIFY(10)",
    "VERIFY(12)",
    "VERIFY(16)",
    "VERIFY(10)/BYTCHK 1",
    "VERIFY(12)/BYTCHK 1",
    "VERIFY(16)/BYTCHK 1",
    "VERIFY(10)/BYTCHK 3",
    "VERIFY(12)/BYTCHK 3",
    "VERIFY(16)/BYTCHK 3",
    "COMPARE AND WRITE",
    "WRITE SAME(10)",
    "WRITE SAME(16)",
    "WRITE SAME(16)/NDOB",
    "UNMAP",
    "SYNCHRONIZE CACHE(10)",
    "SYNCHRONIZE CACHE(16)",
    "PRE-FETCH(10)",
    "PRE-FETCH(16)",
    "ORWRITE(16)",
    "WRITE ATOMIC(16)",
    "EXTENDED COPY(LID1)",
    "GET LBA STATUS(16)",
    "FORMAT UNIT",
    "SANITIZE/BLOCK ERASE",
    "SANITIZE/OVERWRITE",
];

#[test]
fn random_alone_512() {
    runs(1, 512, 8_000);
}

#[test]
fn random_alone_4096() {
    runs(1, 4096, 8_000);
}

#[test]
fn random_side_by_side_512() {
    runs(64, 512, 20_000);
}

#[test]
fn random_side_by_side_4096() {
    runs(64, 4096, 20_000);
}

/// What the oracles say of data that is not what it must be.
const FINDINGS: &[&str] = &[
    "is impossible",
    "found equal",
    "differs from",
    "neither old nor new",
    "was refused, but",
    "was written by no",
    "both found",
    "torn",
    "instead of",
    "a difference",
    "neither can",
    "is lost",
    "cannot be",
    "INFORMATION is",
    "atomically",
];

/// Storage that breaks this promise is found out, and for that.
fn noticed(mutant: Mutant, depth: usize) {
    // Two that only one command can tell, for as long as the device does not have it.
    let told_by = match mutant {
        Mutant::HideData => "GET LBA STATUS(16)",
        Mutant::TearAtomic => "WRITE ATOMIC(16)",
        _ => "",
    };
    if NOT_YET.contains(&told_by) {
        return;
    }
    let plan = Plan { seed: 77, commands: 60_000, depth, block: 512, faults: false, mutant: Some(mutant) };
    let report = run(plan).map(drop).expect_err("nothing was noticed");
    println!("{mutant:?}: {}", report.lines().next().unwrap_or_default());
    assert!(FINDINGS.iter().any(|finding| report.contains(finding)), "{report}");
}

macro_rules! noticed {
    ($($name:ident: $mutant:ident at $($depth:literal),+;)*) => {
        $(#[test]
        fn $name() {
            $(noticed(Mutant::$mutant, $depth);)+
        })*
    };
}

noticed! {
    mutant_drop_write: DropWrite at 1, 64;
    mutant_swap_writes: SwapWrites at 1, 64;
    mutant_revert_write: RevertWrite at 1, 64;
    mutant_replay_write: ReplayWrite at 1, 64;
    mutant_misplace: Misplace at 1, 64;
    mutant_tear_block: TearBlock at 1, 64;
    mutant_tear_compare_and_write: TearCompareAndWrite at 64; // alone nobody comes in between
    mutant_false_miscompare: FalseMiscompare at 1, 64;
    mutant_keep_zeroed: KeepZeroed at 1, 64;
    mutant_hide_data: HideData at 1, 64;
    mutant_tear_atomic: TearAtomic at 64;
    mutant_short_read: ShortRead at 1, 64;
    mutant_stale_read: StaleRead at 1, 64;
}
