//! Answers: status, sense and data go to the ring, whole, and never more than is the initiator's business.

use super::{DEFECT, Served};
use crate::lun::Outcome;
use std::num::NonZeroU32;
use uio_ring::{Response, RingError, Stage, Token};

impl Served {
    /// Answers a command that moved no data.
    pub(super) fn complete(&mut self, token: Token, outcome: &Outcome) -> Result<(), RingError> {
        if !matches!(outcome, Outcome::Good) {
            return self.answer(token, outcome, None);
        }
        // Invariant "no foreign bytes": with GOOD the kernel hands the whole buffer to a reader. What the initiator has
        // sent is gone then, so that a successor must not do the command again.
        let token = self.still_ours(token)?;
        self.ring.reached(token.id(), Stage::Good);
        token.data().zero_from(0);
        self.answer(token, outcome, None)
    }

    /// The token, to write to its pages. After a reset of the ring they may be another command's.
    fn still_ours(&mut self, token: Token) -> Result<Token, RingError> {
        match self.ring.check() {
            Ok(()) => Ok(token),
            Err(error) => {
                self.ring.forget(token);
                Err(error)
            }
        }
    }

    /// Answers a command with the bytes in `self.reply`.
    pub(super) fn reply(&mut self, token: Token) -> Result<(), RingError> {
        let token = self.still_ours(token)?;
        let len = token.data().write(0, &self.reply);
        self.answer_data(token, len)
    }

    /// Answers GOOD to a command whose buffer holds `len` valid bytes. Invariant "no foreign bytes": the
    /// rest, which is some earlier command's, is withheld, or zeroed where that cannot be said.
    pub(super) fn answer_data(&mut self, token: Token, len: usize) -> Result<(), RingError> {
        let mut read_len = None;
        if len < token.data().len() {
            read_len =
                u32::try_from(len).ok().and_then(NonZeroU32::new).filter(|_| self.ring.features().read_len);
            if read_len.is_none() {
                token.data().zero_from(len);
            }
        }
        self.answer(token, &Outcome::Good, read_len)
    }

    pub(super) fn answer(
        &mut self,
        token: Token,
        outcome: &Outcome,
        read_len: Option<NonZeroU32>,
    ) -> Result<(), RingError> {
        let sense = outcome.sense();
        self.ring.complete(token, &Response { status: outcome.status(), read_len, sense: sense.as_ref() })
    }

    /// Invariant "exactly once": a token dropped by a defect of ours is answered all the same.
    pub(super) fn answer_lost(&mut self) -> Result<(), RingError> {
        let sense = DEFECT.sense();
        let response = Response { status: DEFECT.status(), read_len: None, sense: sense.as_ref() };
        let lost = self.ring.answer_lost(&response)?;
        if lost > 0 {
            tracing::error!(lost, "commands were dropped by a defect and answered with HARDWARE ERROR");
        }
        Ok(())
    }
}
