//! What an oracle is told, and asked.

use crate::command::{Command, Span};
use crate::verdict::Verdict;

/// A command in flight.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    /// Numbers count from 1.
    pub(crate) number: u64,
    pub(crate) sent: u64,
    /// Of the data buffer that went with it.
    pub(crate) length: usize,
    pub(crate) command: Command,
}

/// How a command ended, as far as that follows from the answer alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Good,
    Miscompare,
    /// Storage failed: each block is old or new.
    Failed,
    /// Refused: nothing happened.
    Refused,
}

/// Something that must not be.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// The blocks it is about.
    pub(crate) span: Option<Span>,
    pub(crate) why: String,
}

impl Wrong {
    pub(crate) fn at(lba: u64, why: impl Into<String>) -> Self {
        Self { span: Some(Span::new(lba, 1)), why: format!("LBA {lba}: {}", why.into()) }
    }

    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { span: None, why: why.into() }
    }
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::new(why)
    }
}

pub(crate) type Checked = Result<(), Wrong>;

/// Knows what answers are possible.
pub(crate) trait Oracle {
    /// A command is on its way.
    fn sent(&mut self, flight: &Flight);

    /// It was answered. `horizon` is when the oldest command still in flight was sent.
    fn answered(
        &mut self,
        flight: &Flight,
        now: u64,
        horizon: u64,
        end: End,
        verdict: Verdict,
        data: &[u8],
    ) -> Checked;

    /// What a block most likely holds, for commands that compare.
    fn likely(&self, lba: u64, block: &mut [u8]);

    /// Blocks to read before the next command, as it is not known what they hold.
    fn doubts(&mut self) -> Option<Span> {
        None
    }

    /// With nothing in flight and everything read.
    fn finish(&mut self) -> Checked {
        Ok(())
    }
}
