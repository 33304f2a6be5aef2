//! What a block of 512 bytes holds: its writer's sequence number, its own address, and bytes that follow from both. A
//! block is whole if it is what its head says, so any mixture of two writes, and any byte of somebody else, shows.

use sgtest::random::Random;

/// Bytes per block.
pub(crate) const BLOCK: usize = 512;
const MAGIC: u64 = 0x7354_4F72_4D21_0001;
/// In `Value::home`: a WRITE SAME, whose blocks are all alike; the rest is its first block.
const SAME: u64 = 1 << 63;

/// The content of a block, told apart from every other one of a run. `ZERO` is the only one that is not unique.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Value {
    /// The command that wrote it.
    pub(crate) sequence: u64,
    /// The block it was written to first: a copy elsewhere, wanted or not, still shows where it comes from.
    pub(crate) home: u64,
}

impl Value {
    pub(crate) const ZERO: Self = Self { sequence: 0, home: 0 };

    pub(crate) fn write(sequence: u64, lba: u64) -> Self {
        Self { sequence, home: lba }
    }
    pub(crate) fn same(sequence: u64, first: u64) -> Self {
        Self { sequence, home: first | SAME }
    }

    /// Its bytes. `run` tells the blocks of one run (and of one LUN) from those of another.
    pub(crate) fn bytes(self, run: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        if self == Self::ZERO {
            return block;
        }
        Random::new(run ^ self.home.rotate_left(17) ^ self.sequence.rotate_left(40)).fill(&mut block);
        for (n, word) in [MAGIC, run, self.sequence, self.home].into_iter().enumerate() {
            block[n * 8..n * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        block
    }

    /// Reads a block.
    pub(crate) fn of(block: &[u8], run: u64) -> Result<Self, String> {
        let word = |n: usize| block[n * 8..n * 8 + 8].iter().rev().fold(0_u64, |w, b| w << 8 | u64::from(*b));
        if block.iter().all(|byte| *byte == 0) {
            return Ok(Self::ZERO);
        }
        if word(0) != MAGIC {
            return Err("foreign bytes, no stamp".to_owned());
        }
        if word(1) != run {
            return Err(format!("a block of another run or LUN ({:x})", word(1)));
        }
        let value = Self { sequence: word(2), home: word(3) };
        if value.bytes(run) != block {
            return Err(format!("torn: its head says {value}, its bytes do not"));
        }
        Ok(value)
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            &Self::ZERO => f.write_str("zeros"),
            Self { sequence, home } if home & SAME != 0 => {
                write!(f, "#{sequence} (same from {})", home & !SAME)
            }
            Self { sequence, home } => write!(f, "#{sequence} (for block {home})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_as_it_was_written() {
        for value in [Value::ZERO, Value::write(7, 9), Value::same(8, 100)] {
            assert_eq!(Value::of(&value.bytes(3), 3), Ok(value));
        }
    }

    #[test]
    fn torn_and_foreign_blocks_are_noticed() {
        let (old, new) = (Value::write(7, 9).bytes(3), Value::write(8, 9).bytes(3));
        for cut in [32, 40, 256, 504] {
            let mut torn = new;
            torn[cut..].copy_from_slice(&old[cut..]);
            assert!(Value::of(&torn, 3).is_err_and(|e| e.contains("torn")), "at {cut}");
            torn[cut..].fill(0);
            assert!(Value::of(&torn, 3).is_err(), "zeros from {cut}");
        }
        assert!(Value::of(&[0xA5; BLOCK], 3).is_err_and(|e| e.contains("foreign")));
        assert!(Value::of(&new, 4).is_err_and(|e| e.contains("another run")));
        let mut flipped = new;
        flipped[511] ^= 1;
        assert!(Value::of(&flipped, 3).is_err());
    }
}
