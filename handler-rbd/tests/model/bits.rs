//! What a block may hold that is ORed: 64 registers, one for each bit of a word that is repeated all over it.
//!
//! An ORWRITE sets bits and leaves the others alone, a WRITE stores all. A bit of a reader's word is possible if
//! something left it so that was not overwritten, for certain and before the reader was sent, by what came later
//! for certain.

use crate::history::NEVER;

#[derive(Debug, Clone)]
struct Change {
    by: u64,
    sent: u64,
    answered: u64,
    real: bool,
    /// The bits it makes 1, and those it makes 0.
    ones: u64,
    zeros: u64,
}

/// One block.
#[derive(Debug, Clone)]
pub(crate) struct Bits {
    changes: Vec<Change>,
}

impl Bits {
    /// Holds zeros from the start.
    pub(crate) fn new() -> Self {
        let first = Change { by: 0, sent: 0, answered: 0, real: true, ones: 0, zeros: u64::MAX };
        Self { changes: vec![first] }
    }

    /// An ORWRITE of the word was sent.
    pub(crate) fn or(&mut self, by: u64, now: u64, word: u64) {
        self.changes.push(Change { by, sent: now, answered: NEVER, real: false, ones: word, zeros: 0 });
    }

    /// A write of the word was sent.
    pub(crate) fn store(&mut self, by: u64, now: u64, word: u64) {
        self.changes.push(Change { by, sent: now, answered: NEVER, real: false, ones: word, zeros: !word });
    }

    pub(crate) fn answer(&mut self, by: u64, now: u64, good: bool) {
        for change in self.changes.iter_mut().filter(|change| change.by == by) {
            change.answered = now;
            change.real |= good;
        }
    }

    pub(crate) fn refuse(&mut self, by: u64) {
        self.changes.retain(|change| change.by != by);
    }

    /// Someone sent at `since` saw this word.
    pub(crate) fn see(&self, word: u64, since: u64) -> Result<(), String> {
        let (mut ones, mut zeros) = (0, 0);
        for change in &self.changes {
            let later =
                self.changes.iter().filter(|x| x.real && change.answered < x.sent && x.answered < since);
            let (gone_ones, gone_zeros) =
                later.fold((0, 0), |(ones, zeros), x| (ones | x.zeros, zeros | x.ones));
            ones |= change.ones & !gone_ones;
            zeros |= change.zeros & !gone_zeros;
        }
        if word & !ones == 0 && !word & !zeros == 0 {
            return Ok(());
        }
        let (set, clear) = (word & !ones, !word & !zeros);
        Err(format!(
            "read {word:016x}: bits {set:016x} cannot be 1, bits {clear:016x} cannot be 0; {self:x?}"
        ))
    }

    /// Forgets what nobody sent at `horizon` or later can see any more.
    pub(crate) fn forget(&mut self, horizon: u64) {
        if self.changes.len() < 16 {
            return;
        }
        let gone = |change: &Change| {
            let stores = self.changes.iter().filter(|x| x.real && x.ones | x.zeros == u64::MAX);
            stores.into_iter().any(|x| change.answered < x.sent && x.answered < horizon)
        };
        let keep: Vec<_> = self.changes.iter().map(|change| !gone(change)).collect();
        let mut keep = keep.into_iter();
        self.changes.retain(|_| keep.next().unwrap_or(true));
    }
}
