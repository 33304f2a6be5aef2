//! The oracle for blocks that are only changed by COMPARE AND WRITE (each a lock, or a counter) and by ORWRITE (each a
//! set of bits).
//!
//! Locks: every token that is written is unique, and names by the command that wrote it the one that it replaced. So the
//! values a block had form a chain. Each token is replaced by one GOOD at most; all that were answered GOOD are in the
//! chain that leads to the last one; none that was refused is, except if an earlier try of the same command was answered
//! BUSY, which leaves it open.

use std::collections::{HashMap, HashSet};

use crate::stamp::BLOCK;

/// The tokens of one block.
#[derive(Debug)]
pub(crate) struct Chain {
    parent: HashMap<u64, u64>,
    replaced: HashMap<u64, u64>,
    good: HashSet<u64>,
    refused: HashSet<u64>,
    unsure: HashSet<u64>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self {
            parent: HashMap::new(),
            replaced: HashMap::new(),
            good: HashSet::new(),
            refused: HashSet::new(),
            unsure: HashSet::new(),
        }
    }

    /// COMPARE AND WRITE of `old` to `new` is issued.
    pub(crate) fn issued(&mut self, old: u64, new: u64) {
        self.parent.insert(new, old);
    }

    /// It is answered GOOD.
    pub(crate) fn good(&mut self, new: u64) -> Result<(), String> {
        self.good.insert(new);
        let old = self.parent[&new];
        self.replaced.insert(old, new).map_or(Ok(()), |first| {
            Err(format!("COMPARE AND WRITE: #{old} was replaced twice, by #{first} and by #{new}"))
        })
    }

    /// It is answered MISCOMPARE; `busy` if an earlier try was answered BUSY.
    pub(crate) fn miscompare(&mut self, new: u64, busy: bool) {
        if busy {
            self.unsure.insert(new)
        } else {
            self.refused.insert(new)
        };
    }

    /// The block holds `last` in the end: (tokens that took effect, of those: answered MISCOMPARE after BUSY).
    pub(crate) fn close(&self, last: u64) -> Result<(u64, u64), String> {
        let (mut at, mut passed) = (last, HashSet::new());
        while at != 0 {
            if !passed.insert(at) {
                return Err(format!("COMPARE AND WRITE: the chain meets #{at} twice"));
            }
            if self.refused.contains(&at) {
                return Err(format!("COMPARE AND WRITE: #{at} was answered MISCOMPARE and is there"));
            }
            at =
                *self.parent.get(&at).ok_or_else(|| format!("COMPARE AND WRITE: #{at} was never written"))?;
        }
        if let Some(lost) = self.good.difference(&passed).min() {
            return Err(format!(
                "COMPARE AND WRITE: #{lost} was answered GOOD and is not in the chain to #{last}"
            ));
        }
        let hidden = passed.difference(&self.good);
        if let Some(extra) = hidden.clone().find(|token| !self.unsure.contains(token)) {
            return Err(format!("COMPARE AND WRITE: #{extra} is in the chain and was not answered GOOD"));
        }
        Ok((passed.len() as u64, hidden.count() as u64))
    }
}

/// The bits of one block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    issued: u32,
    set: HashSet<u32>,
}

impl Bits {
    /// The next bit, and the block that sets it; `None` if all have been.
    pub(crate) fn next(&mut self) -> Option<(u32, [u8; BLOCK])> {
        let bit = self.issued;
        if usize::try_from(bit).expect("small") >= BLOCK * 8 {
            return None;
        }
        self.issued += 1;
        let mut block = [0; BLOCK];
        block[usize::try_from(bit / 8).expect("small")] = 1 << (bit % 8);
        Some((bit, block))
    }

    /// ORWRITE of `bit` is acknowledged.
    pub(crate) fn done(&mut self, bit: u32) {
        self.set.insert(bit);
    }

    /// What a read that is issued now must find.
    pub(crate) fn known(&self) -> HashSet<u32> {
        self.set.clone()
    }

    /// A read brought `block`; `known` was set when it was issued.
    pub(crate) fn check(&self, lba: u64, known: &HashSet<u32>, block: &[u8]) -> Result<(), String> {
        let found = |bit: u32| block[usize::try_from(bit / 8).expect("small")] & (1 << (bit % 8)) != 0;
        if let Some(lost) = known.iter().find(|bit| !found(**bit)) {
            return Err(format!("block {lba}: bit {lost}, set by ORWRITE and acknowledged, is lost"));
        }
        if let Some(extra) = (self.issued..u32::try_from(BLOCK * 8).expect("small")).find(|bit| found(*bit)) {
            return Err(format!("block {lba}: bit {extra} is set, which nobody has set"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(tokens: &[(u64, u64)]) -> Chain {
        let mut chain = Chain::new();
        for (old, new) in tokens {
            chain.issued(*old, *new);
            chain.good(*new).expect("first");
        }
        chain
    }

    #[test]
    fn a_chain_of_successes_adds_up() {
        assert_eq!(chain(&[(0, 1), (1, 2), (2, 3)]).close(3), Ok((3, 0)));
        assert_eq!(Chain::new().close(0), Ok((0, 0)));
    }

    #[test]
    fn two_successes_on_one_value_are_noticed() {
        let mut two = chain(&[(0, 1), (1, 2)]);
        two.issued(1, 3);
        assert!(two.good(3).is_err_and(|e| e.contains("twice")));
    }

    #[test]
    fn a_good_that_changed_nothing_and_a_lost_one_are_noticed() {
        assert!(chain(&[(0, 1), (1, 2)]).close(1).is_err_and(|e| e.contains("#2 was answered GOOD")));
        // 3 replaced 1, so 2 was never there: its GOOD was false.
        let mut two = chain(&[(0, 1), (1, 2)]);
        two.issued(1, 3);
        let _ = two.good(3);
        assert!(two.close(3).is_err());
    }

    #[test]
    fn a_miscompare_after_a_hidden_success_is_noticed_unless_busy_came_before() {
        for busy in [false, true] {
            let mut one = chain(&[(0, 1)]);
            one.issued(1, 2);
            one.miscompare(2, busy);
            assert_eq!(one.close(1), Ok((1, 0)));
            assert_eq!(one.close(2).ok(), busy.then_some((2, 1)));
            one.issued(2, 3);
            one.good(3).expect("first");
            assert_eq!(one.close(3).ok(), busy.then_some((3, 1)));
        }
    }

    #[test]
    fn a_token_that_never_was_is_noticed() {
        assert!(chain(&[(0, 1)]).close(9).is_err());
    }

    #[test]
    fn lost_and_foreign_bits_are_noticed() {
        let mut bits = Bits::default();
        let (first, one) = bits.next().expect("a bit");
        let (second, two) = bits.next().expect("a bit");
        assert_eq!((first, second, one[0], two[0]), (0, 1, 1, 2));
        bits.done(first);
        let known = bits.known();
        let mut block = [0; BLOCK];
        assert!(bits.check(0, &known, &block).is_err_and(|e| e.contains("lost")));
        block[0] = 1;
        assert_eq!(bits.check(0, &known, &block), Ok(()));
        block[0] = 3;
        assert_eq!(bits.check(0, &known, &block), Ok(()));
        block[0] = 7;
        assert!(bits.check(0, &known, &block).is_err_and(|e| e.contains("nobody")));
    }
}
