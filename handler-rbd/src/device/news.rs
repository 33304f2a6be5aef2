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

/// Storage answers again when for so long nothing has timed out: time-outs come in crowds, among answers.
const CALM: Duration = Duration::from_secs(1);

/// A doubt that nobody clears up ends after so long without another one.
const LONGEST_DOUBT: Duration = Duration::from_secs(60);

/// Whether storage answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Silence {
    #[default]
    None,
    /// Operations that only read were not answered in time, the last one at this time.
    Reads { at: Instant },
    /// And others, too.
    Writes {
        /// Of the last one.
        range: ByteRange,
        at: Instant,
    },
}

impl Silence {
    /// An operation came back; what there is to tell. Asks for the time only if something has timed out.
    pub(super) fn heard(
        &mut self,
        op: &Op,
        result: Result<(), BackendError>,
        now: impl FnOnce() -> Instant,
    ) -> Option<News> {
        match (*self, result) {
            (Self::None, Ok(())) => None, // nearly always
            (Self::Reads { at }, Ok(())) => {
                let over = now().saturating_duration_since(at) >= CALM;
                self.end_if(over, News::Answered)
            }
            (Self::Writes { range, at }, Ok(())) => {
                let over = meets(range, op.range()) || now().saturating_duration_since(at) >= LONGEST_DOUBT;
                self.end_if(over, News::Settled)
            }
            (before, Err(error)) if error.kind == ErrorKind::TimedOut && op.changes() => {
                let range = op.range().unwrap_or(ByteRange { offset: 0, len: u64::MAX });
                *self = Self::Writes { range, at: now() };
                (!matches!(before, Self::Writes { .. })).then_some(News::InDoubt)
            }
            (Self::Writes { .. }, Err(_)) => None,
            (before, Err(error)) if error.kind == ErrorKind::TimedOut => {
                *self = Self::Reads { at: now() };
                matches!(before, Self::None).then_some(News::TimedOut)
            }
            (_, Err(_)) => None,
        }
    }

    fn end_if(&mut self, over: bool, news: News) -> Option<News> {
        over.then(|| {
            *self = Self::None;
            news
        })
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

    /// A clock that is set, and what is heard by it.
    struct Ear {
        silence: Silence,
        now: Instant,
    }

    impl Ear {
        fn new() -> Self {
            Self { silence: Silence::default(), now: Instant::now() }
        }

        fn heard(&mut self, op: Op, result: Result<(), BackendError>) -> Option<News> {
            self.silence.heard(&op, result, || self.now)
        }
    }

    #[test]
    fn a_read_that_timed_out_leaves_no_doubt() {
        let mut ear = Ear::new();
        assert_eq!(ear.heard(Op::Read(at(0)), Ok(())), None);
        assert_eq!(ear.heard(Op::Read(at(0)), LATE), Some(News::TimedOut));
        assert_eq!(ear.heard(Op::Read(at(0)), LATE), None, "told once");
        ear.now += CALM;
        assert_eq!(ear.heard(Op::Read(at(4096)), Ok(())), Some(News::Answered));
        assert_eq!(ear.heard(Op::Read(at(0)), LATE), Some(News::TimedOut));
    }

    /// One OSD of many is slow: else every command would be news.
    #[test]
    fn answers_among_time_outs_are_no_news() {
        let mut ear = Ear::new();
        assert_eq!(ear.heard(Op::Read(at(0)), LATE), Some(News::TimedOut));
        for _ in 0..10 {
            ear.now += CALM - Duration::from_millis(1);
            assert_eq!(ear.heard(Op::Read(at(4096)), Ok(())), None);
            assert_eq!(ear.heard(Op::Read(at(0)), LATE), None);
        }
        ear.now += CALM;
        assert_eq!(ear.heard(Op::Flush, Ok(())), Some(News::Answered));
    }

    #[test]
    fn a_write_is_in_doubt_until_its_range_is_answered() {
        let mut ear = Ear::new();
        assert_eq!(ear.heard(Op::Write(at(512)), LATE), Some(News::InDoubt));
        assert_eq!(ear.heard(Op::Discard(at(4096)), LATE), None, "told once");
        for elsewhere in [Op::Write(at(512)), Op::Read(at(3584)), Op::Read(at(4608)), Op::Flush] {
            assert_eq!(ear.heard(elsewhere, Ok(())), None, "{elsewhere:?}");
        }
        let fenced = Err(BackendError::new(ErrorKind::Fenced));
        assert_eq!(ear.heard(Op::Read(at(4096)), fenced), None);
        let over = Op::Read(ByteRange { offset: 4000, len: 97 });
        assert_eq!(ear.heard(over, Ok(())), Some(News::Settled));
        assert_eq!(ear.heard(over, Ok(())), None);
    }

    #[test]
    fn a_doubt_that_nobody_clears_up_ends_with_any_answer() {
        let mut ear = Ear::new();
        assert_eq!(ear.heard(Op::Write(at(0)), LATE), Some(News::InDoubt));
        ear.now += LONGEST_DOUBT - Duration::from_secs(1);
        assert_eq!(ear.heard(Op::Read(at(4096)), Ok(())), None);
        assert_eq!(ear.heard(Op::Read(at(0)), LATE), None, "a read adds no doubt");
        ear.now += Duration::from_secs(1);
        assert_eq!(ear.heard(Op::Read(at(4096)), Ok(())), Some(News::Settled));
    }

    #[test]
    fn a_write_after_a_read_is_told_too() {
        let mut ear = Ear::new();
        assert_eq!(ear.heard(Op::Read(at(0)), LATE), Some(News::TimedOut));
        assert_eq!(ear.heard(Op::Write(at(0)), LATE), Some(News::InDoubt));
        assert_eq!(ear.heard(Op::Read(at(0)), LATE), None);
        assert_eq!(ear.heard(Op::Write(at(0)), Ok(())), Some(News::Settled));
        // A note has no place: whatever is answered shows that storage answers.
        assert_eq!(ear.heard(Op::SetNote, LATE), Some(News::InDoubt));
        assert_eq!(ear.heard(Op::Read(at(1 << 40)), Ok(())), Some(News::Settled));
    }
}
