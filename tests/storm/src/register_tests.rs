//! The oracle must accept what a correct disk can do, and notice each way to be wrong.

use super::*;
use sgtest::random::Random;

fn v(n: u64) -> Value {
    Value::write(n, 0)
}

/// One block; time goes on by itself.
struct Block(Registers, u64);

impl Block {
    fn new() -> Self {
        Self(Registers::new(1), 0)
    }
    fn tick(&mut self) -> u64 {
        self.1 += 1;
        self.1
    }
    fn issue(&mut self, n: u64) -> u64 {
        let now = self.tick();
        self.0.write_begin(0, v(n), now, false);
        now
    }
    fn end(&mut self, n: u64, start: u64, end: End) -> Result<(), String> {
        let now = self.tick();
        self.0.write_end(0, v(n), start, now, end)
    }
    fn write(&mut self, n: u64) {
        let start = self.issue(n);
        self.end(n, start, End::Done).expect("a write");
    }
    fn ask(&mut self) -> u64 {
        self.0.read_begin(0);
        self.tick()
    }
    fn got(&mut self, start: u64, value: Value) -> Result<(), String> {
        let now = self.tick();
        self.0.read_end(0, Some(value), start, now)
    }
    fn read(&mut self, value: Value) -> Result<(), String> {
        let start = self.ask();
        self.got(start, value)
    }
}

#[test]
fn the_last_acknowledged_write_is_read() {
    let mut block = Block::new();
    assert_eq!(block.read(Value::ZERO), Ok(()));
    block.write(1);
    assert_eq!(block.read(v(1)), Ok(()));
    assert_eq!(block.0.certain(0), Some(v(1)));
}

#[test]
fn a_lost_write_is_noticed() {
    let mut block = Block::new();
    block.write(1);
    assert!(block.read(Value::ZERO).is_err());
}

#[test]
fn a_reverted_write_is_noticed() {
    let mut block = Block::new();
    block.write(1);
    block.write(2);
    assert_eq!(block.read(v(2)), Ok(()));
    assert!(block.read(v(1)).is_err_and(|e| e.contains("reverted")));
}

#[test]
fn a_late_write_is_noticed_although_other_reads_are_under_way() {
    let mut block = Block::new();
    let open = block.ask();
    block.write(1);
    block.write(2);
    assert!(block.read(v(1)).is_err_and(|e| e.contains("stale or reverted")));
    // The read that was there from the start may still bring any of them.
    assert_eq!(block.got(open, v(1)), Ok(()));
}

#[test]
fn a_write_under_way_may_be_seen_or_not_but_not_unseen_again() {
    let mut block = Block::new();
    block.write(1);
    let start = block.issue(2);
    assert_eq!(block.read(v(1)), Ok(()));
    assert_eq!(block.read(v(2)), Ok(()));
    assert!(block.read(v(1)).is_err());
    assert_eq!(block.end(2, start, End::Done), Ok(()));
    assert_eq!(block.read(v(2)), Ok(()));
}

#[test]
fn of_two_writes_under_way_either_may_win_but_the_answer_stays() {
    for winner in [1, 2] {
        let mut block = Block::new();
        let (a, b) = (block.issue(1), block.issue(2));
        assert_eq!(block.end(1, a, End::Done), Ok(()));
        assert_eq!(block.end(2, b, End::Done), Ok(()));
        assert_eq!(block.read(v(winner)), Ok(()));
        assert!(block.read(v(3 - winner)).is_err());
        assert_eq!(block.read(v(winner)), Ok(()));
    }
}

#[test]
fn a_read_issued_before_the_answer_may_bring_the_old_and_one_issued_after_it_not() {
    let mut block = Block::new();
    block.write(1);
    let early = block.ask();
    block.write(2);
    let late = block.ask();
    assert_eq!(block.got(early, v(1)), Ok(()));
    assert!(block.got(late, v(1)).is_err());
}

#[test]
fn an_unanswered_write_may_come_later_but_stays_then() {
    let mut block = Block::new();
    block.write(1);
    let start = block.issue(2);
    assert_eq!(block.end(2, start, End::Unknown), Ok(()));
    assert_eq!(block.read(v(1)), Ok(()));
    assert_eq!(block.read(v(2)), Ok(()));
    assert!(block.read(v(1)).is_err());
}

#[test]
fn a_refused_write_is_never_seen() {
    let mut block = Block::new();
    let start = block.issue(1);
    assert_eq!(block.end(1, start, End::Refused), Ok(()));
    assert!(block.read(v(1)).is_err_and(|e| e.contains("refused")));
    let start = block.issue(2);
    assert_eq!(block.read(v(2)), Ok(()));
    assert!(block.end(2, start, End::Refused).is_err());
    // Unsure: both are right, afterwards only what was seen.
    for seen in [false, true] {
        let mut block = Block::new();
        let start = block.issue(1);
        assert_eq!(block.end(1, start, End::Unsure), Ok(()));
        assert_eq!(block.read(if seen { v(1) } else { Value::ZERO }), Ok(()));
        assert_eq!(block.read(v(1)).is_ok(), seen);
    }
}

#[test]
fn unmap_leaves_the_data_or_zeros_and_no_later_zeros() {
    for zeros in [false, true] {
        let mut block = Block::new();
        block.write(1);
        let start = block.tick();
        block.0.write_begin(0, Value::ZERO, start, true);
        let now = block.tick();
        assert_eq!(block.0.write_end(0, Value::ZERO, start, now, End::Done), Ok(()));
        assert_eq!(block.read(if zeros { Value::ZERO } else { v(1) }), Ok(()));
        if zeros {
            assert!(block.read(v(1)).is_err());
        }
        block.write(2);
        assert!(block.read(Value::ZERO).is_err());
        assert_eq!(block.read(v(2)), Ok(()));
    }
}

#[test]
fn a_block_of_elsewhere_is_noticed() {
    let mut disk = Registers::new(2);
    for lba in 0..2 {
        disk.write_begin(lba, Value::write(1, lba), 1, false);
        disk.write_end(lba, Value::write(1, lba), 1, 2, End::Done).expect("a write");
    }
    disk.read_begin(0);
    assert!(disk.read_end(0, Some(Value::write(1, 1)), 3, 4).is_err());
}

/// A correct disk: each of at most `depth` commands takes effect at a random moment between issue and answer. With
/// `mutant`, now and then it does something wrong; the number of complaints comes back.
fn random_disk(seed: u64, depth: usize, mutant: Option<&str>) -> u32 {
    let mut random = Random::new(seed);
    let (mut block, mut content, mut complaints) = (Block::new(), Value::ZERO, 0);
    // (write?, issued, what is written or was read, has taken effect)
    let mut open: Vec<(bool, u64, Value, bool)> = Vec::new();
    let mut written = vec![Value::ZERO];
    for step in 1..=2000_u32 {
        match random.below(4) {
            0 if open.len() < depth => {
                let start = block.issue(u64::from(step));
                open.push((true, start, v(u64::from(step)), false));
            }
            1 if open.len() < depth => {
                let start = block.ask();
                open.push((false, start, Value::ZERO, false));
            }
            2 => {
                if let Some(op) = open.iter_mut().find(|op| !op.3) {
                    op.3 = true;
                    if op.0 { content = op.2 } else { op.2 = content }
                }
            }
            _ => {
                let Some(at) = (!open.is_empty()).then(|| random.below(open.len() as u64)) else { continue };
                let mut op = open.swap_remove(usize::try_from(at).expect("small"));
                let wrong = random.below(20) == 0;
                if !op.3 {
                    match mutant {
                        Some("lost") if op.0 && wrong => (),
                        _ if op.0 => content = op.2,
                        _ => op.2 = content,
                    }
                }
                if op.0 {
                    written.push(op.2);
                    complaints += u32::from(block.end(op.2.sequence, op.1, End::Done).is_err());
                } else {
                    complaints += u32::from(block.got(op.1, op.2).is_err());
                }
                if wrong && mutant == Some("reverted") && written.len() > 4 {
                    content = written[written.len() - 4];
                }
                if wrong && mutant == Some("swapped") {
                    content = Value::write(content.sequence, 5);
                }
            }
        }
    }
    complaints
}

#[test]
fn a_correct_disk_is_never_accused_and_mutants_are() {
    for seed in 0..300 {
        for depth in [1, 2, 6] {
            assert_eq!(random_disk(seed, depth, None), 0, "seed {seed}, depth {depth}");
        }
    }
    // One command at a time, nothing excuses it. With several, a lost write may pass for one that was overwritten at once.
    for mutant in ["lost", "reverted", "swapped"] {
        let noticed = |depth| (0..20).filter(|seed| random_disk(*seed, depth, Some(mutant)) > 0).count();
        assert_eq!(noticed(1), 20, "{mutant}");
        assert!(noticed(3) >= 10, "{mutant}");
    }
}
