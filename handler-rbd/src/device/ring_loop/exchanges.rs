//! COMPARE AND WRITE in progress, and who else is at their blocks meanwhile.
//!
//! A successor must know of such a command whether what it finds in the blocks can only be this command's doing
//! (`lun::exchange`). So the journal is told that the blocks held what was to be compared ([`Stage::Compared`]) only
//! while nobody else may have changed them since they were looked at; and told otherwise before somebody may.

use crate::block::{ByteRange, Op};
use uio_ring::{CmdId, Ring, Stage};

#[derive(Debug)]
struct Exchange {
    slot: usize,
    id: CmdId,
    range: ByteRange,
    /// Somebody else may have changed the blocks since they were looked at, or may do so.
    contended: bool,
}

/// The commands in progress. Mostly none.
#[derive(Debug, Default)]
pub(super) struct Exchanges(Vec<Exchange>);

impl Exchanges {
    /// One begins to look at its blocks.
    pub(super) fn begin(&mut self, slot: usize, id: CmdId, range: ByteRange, contended: bool) {
        self.0.push(Exchange { slot, id, range, contended });
    }

    /// Storage is about to be asked for something, on behalf of the command in `slot`: how far that one is then. `None`
    /// if it is no further than it was.
    pub(super) fn about_to(&mut self, ring: &mut Ring, slot: usize, op: &Op) -> Option<Stage> {
        if self.0.is_empty() {
            return Some(Stage::Begun);
        }
        if op.changes() {
            let touches = |other: &&mut Exchange| {
                other.slot != slot && op.range().is_none_or(|range| range.overlaps(other.range))
            };
            for other in self.0.iter_mut().filter(touches) {
                if !std::mem::replace(&mut other.contended, true) {
                    ring.reached(other.id, Stage::Begun);
                }
            }
        }
        match self.0.iter().find(|own| own.slot == slot) {
            None => Some(Stage::Begun),
            Some(_) if !op.changes() => None,
            Some(own) => Some(if own.contended { Stage::Begun } else { Stage::Compared }),
        }
    }

    /// Whether somebody else may have changed the blocks of the command in `slot` since they were looked at.
    pub(super) fn is_contended(&self, slot: usize) -> bool {
        self.0.iter().any(|own| own.slot == slot && own.contended)
    }

    /// Storage has not done it: what its blocks hold is not its doing.
    pub(super) fn failed(&mut self, ring: &mut Ring, slot: usize) {
        if let Some(own) = self.0.iter_mut().find(|own| own.slot == slot) {
            own.contended = true;
            ring.reached(own.id, Stage::Begun);
        }
    }

    /// The command in `slot` is over.
    pub(super) fn end(&mut self, slot: usize) {
        self.0.retain(|exchange| exchange.slot != slot);
    }

    /// All are.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
