//! What blocks hold: a stamp fills a whole block, so that any foreign or torn byte in it shows.

/// What a block holds: 0 is zeros, anything else is the stamp of one write of one block.
pub(crate) type Value = u64;

/// splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}

fn word(value: Value, index: u32) -> u64 {
    if value == 0 {
        0
    } else {
        value.rotate_left(index % 64) ^ u64::from(index).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}

/// Fills a block with the stamp.
pub(crate) fn stamp(value: Value, block: &mut [u8]) {
    for (index, part) in (0..).zip(block.chunks_exact_mut(8)) {
        part.copy_from_slice(&word(value, index).to_le_bytes());
    }
}

/// The stamp that fills all of the block, if one does.
pub(crate) fn stamped(block: &[u8]) -> Option<Value> {
    let value = first(block);
    let whole =
        (0..).zip(block.chunks_exact(8)).all(|(index, part)| part == word(value, index).to_le_bytes());
    whole.then_some(value)
}

/// Fills a block with copies of a word, for blocks that are ORed.
pub(crate) fn repeat(value: u64, block: &mut [u8]) {
    block.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&value.to_le_bytes()));
}

/// The word that fills all of the block, if one does.
pub(crate) fn repeated(block: &[u8]) -> Option<u64> {
    let value = first(block);
    block.chunks_exact(8).all(|part| part == value.to_le_bytes()).then_some(value)
}

fn first(block: &[u8]) -> u64 {
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

#[test]
fn a_stamp_shows_every_changed_byte() {
    for value in [0, 1, 0x1234_5678_9abc] {
        let mut block = [0xee; 512];
        stamp(value, &mut block);
        assert_eq!(stamped(&block), Some(value));
        for at in 0..512 {
            block[at] ^= 0x10;
            assert!(stamped(&block).is_none(), "{value:x} {at}");
            block[at] ^= 0x10;
        }
    }
}
