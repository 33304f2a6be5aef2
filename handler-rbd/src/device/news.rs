//! What a device's thread notices of its storage and tells its owner.
//!
//! An operation that timed out may still happen: it may be on its way or wait in an OSD. Within one client it cannot
//! happen after a later one on the same object, but after another client's it can (docs/recovery.md, "Time-outs"). So
//! a client with such a write is in doubt until a later operation on its range has been answered.

use crate::block::{BackendError, ByteRange, ErrorKind, Op};
use std::time::{Duration, Instant};

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Storage has shut the client out: told once for each backend.
    Fenced,
    /// An operation that only reads was not answered in time, the first one.
    TimedOut,
    /// The same of one that may have changed the image: what it was about may still change.
    InDoubt,
    /// Operations are answered again.
    Answered,
    /// The same, and nothing is in doubt any more as far as this client goes. Another one must not meet what this
    /// one has left: told once for each backend, to have it replaced.
    Settled,
}

/// A doubt that nobody clears up ends after so long without another one.
const LONGEST_DOUBT: Duration = Duration::from_secs(60);

/// Whether storage answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Silence {
    #[default]
    None,
    Reads,
    Writes {
        /// Of the last one.
        range: ByteRange,
        at: Instant,
    },
}

impl Silence {
    /// An operation came back; what there is to tell.
    pub(super) fn heard(&mut self, op: &Op, result: Result<(), BackendError>) -> Option<News> {
        match (*self, result) {
            (Self::None, Ok(())) => None, // nearly always
            (Self::Reads, Ok(())) => {
                *self = Self::None;
                Some(News::Answered)
            }
            (Self::Writes { range, at }, Ok(())) => {
                let over = meets(range, op.range()) || at.elapsed() >= LONGEST_DOUBT;
                over.then(|| {
                    *self = Self::None;
                    News::Settled
                })
            }
            (before, Err(error)) if error.kind == ErrorKind::TimedOut => {
                if op.changes() {
                    let everything = ByteRange { offset: 0, len: u64::MAX };
                    *self = Self::Writes { range: op.range().unwrap_or(everything), at: Instant::now() };
                    return (!matches!(before, Self::Writes { .. })).then_some(News::InDoubt);
                }
                if matches!(before, Self::None) {
                    *self = Self::Reads;
                    return Some(News::TimedOut);
                }
                None
            }
            _ => None,
        }
    }
}

fn meets(doubtful: ByteRange, answered: Option<ByteRange>) -> bool {
    let end = |range: ByteRange| range.offset.saturating_add(range.len);
    answered.is_some_and(|answered| answered.offset < end(doubtful) && doubtful.offset < end(answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Result<(), BackendError> = Err(BackendError::new(ErrorKind::TimedOut));

    const fn at(offset: u64) -> ByteRange {
        ByteRange { offset, len: 512 }
    }

    #[test]
    fn a_read_that_timed_out_leaves_no_doubt() {
        let mut silence = Silence::default();
        assert_eq!(silence.heard(&Op::Read(at(0)), Ok(())), None);
        assert_eq!(silence.heard(&Op::Read(at(0)), LATE), Some(News::TimedOut));
        assert_eq!(silence.heard(&Op::Read(at(0)), LATE), None, "told once");
        assert_eq!(silence.heard(&Op::Read(at(4096)), Ok(())), Some(News::Answered));
        assert_eq!(silence.heard(&Op::Read(at(0)), LATE), Some(News::TimedOut));
    }

    #[test]
    fn a_write_is_in_doubt_until_its_range_is_answered() {
        let mut silence = Silence::default();
        assert_eq!(silence.heard(&Op::Write(at(512)), LATE), Some(News::InDoubt));
        assert_eq!(silence.heard(&Op::Discard(at(4096)), LATE), None, "told once");
        for elsewhere in [Op::Write(at(512)), Op::Read(at(3584)), Op::Read(at(4608)), Op::Flush] {
            assert_eq!(silence.heard(&elsewhere, Ok(())), None, "{elsewhere:?}");
        }
        let fenced = Err(BackendError::new(ErrorKind::Fenced));
        assert_eq!(silence.heard(&Op::Read(at(4096)), fenced), None);
        let over = Op::Read(ByteRange { offset: 4000, len: 97 });
        assert_eq!(silence.heard(&over, Ok(())), Some(News::Settled));
        assert_eq!(silence.heard(&over, Ok(())), None);
    }

    #[test]
    fn a_write_after_a_read_is_told_too() {
        let mut silence = Silence::default();
        assert_eq!(silence.heard(&Op::Read(at(0)), LATE), Some(News::TimedOut));
        assert_eq!(silence.heard(&Op::Write(at(0)), LATE), Some(News::InDoubt));
        assert_eq!(silence.heard(&Op::Read(at(0)), LATE), None);
        assert_eq!(silence.heard(&Op::Write(at(0)), Ok(())), Some(News::Settled));
        // A note has no place: whatever is answered shows that storage answers.
        assert_eq!(silence.heard(&Op::SetNote, LATE), Some(News::InDoubt));
        assert_eq!(silence.heard(&Op::Read(at(1 << 40)), Ok(())), Some(News::Settled));
    }
}
