//! Long ranges in pieces that storage takes well.

use crate::block::ByteRange;

/// What is left of a range, to be cut where multiples of `at` are: pieces that end where objects end touch
/// no object twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces {
    rest: ByteRange,
    at: u64,
}

impl Pieces {
    /// All of `range`; one piece if `at` is 0.
    pub(super) fn new(range: ByteRange, at: u64) -> Self {
        Self { rest: range, at }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.len == 0
    }

    /// Whether no more than one piece is left.
    pub(super) fn is_one(mut self) -> bool {
        self.next();
        self.is_empty()
    }
}

impl Iterator for Pieces {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let ByteRange { offset, len } = self.rest;
        if len == 0 {
            return None;
        }
        let room = offset.checked_rem(self.at).map_or(len, |into| self.at - into);
        let piece = len.min(room);
        self.rest = ByteRange { offset: offset.saturating_add(piece), len: len - piece };
        Some(ByteRange { offset, len: piece })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(offset: u64, len: u64, at: u64) -> Vec<(u64, u64)> {
        Pieces::new(ByteRange { offset, len }, at).map(|piece| (piece.offset, piece.len)).collect()
    }

    #[test]
    fn cut_at_multiples() {
        assert_eq!(cut(0, 8192, 4096), [(0, 4096), (4096, 4096)]);
        assert_eq!(cut(512, 4096, 4096), [(512, 3584), (4096, 512)]);
        assert_eq!(cut(512, 3584, 4096), [(512, 3584)]);
        assert_eq!(cut(512, 8192, 0), [(512, 8192)]);
        assert_eq!(cut(512, 0, 4096), []);
        assert_eq!(cut(u64::MAX - 1, 1, 4096), [(u64::MAX - 1, 1)]);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once(offset in 0..100_000u64, len in 0..100_000u64, at in 1..9_999u64) {
            let mut end = offset;
            for (offset, len) in cut(offset, len, at) {
                prop_assert!(offset == end && len > 0 && offset / at == (offset + len - 1) / at);
                end = offset + len;
            }
            prop_assert_eq!(end, offset + len);
        }
    }
}
