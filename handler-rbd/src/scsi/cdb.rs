//! A command descriptor block, and its fields.
//!
//! Held as one number, so that fields are shifts and no length is checked at run time: a field that would
//! lie outside does not compile.

/// Longest CDB known here.
pub(super) const CDB_MAX: usize = 16;

/// A command descriptor block, padded with zeros. The first byte is the most significant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cdb(pub(super) u128);

impl Cdb {
    pub(super) const fn new(bytes: [u8; CDB_MAX]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The byte at `AT`.
    pub(super) const fn byte<const AT: usize>(self) -> u8 {
        let [.., a] = self.ending_at::<AT, 1>();
        a
    }

    /// The two-byte field at `AT`.
    pub(super) const fn u16<const AT: usize>(self) -> u16 {
        let [.., a, b] = self.ending_at::<AT, 2>();
        u16::from_be_bytes([a, b])
    }

    /// The four-byte field at `AT`.
    pub(super) const fn u32<const AT: usize>(self) -> u32 {
        let [.., a, b, c, d] = self.ending_at::<AT, 4>();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The eight-byte field at `AT`.
    pub(super) const fn u64<const AT: usize>(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.ending_at::<AT, 8>();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The CDB moved so that the field of `LEN` bytes at `AT` is its end.
    const fn ending_at<const AT: usize, const LEN: usize>(self) -> [u8; CDB_MAX] {
        const { assert!(AT + LEN <= CDB_MAX, "field outside the CDB") };
        (self.0 >> (8 * (CDB_MAX - AT - LEN))).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_big_endian() {
        let cdb = Cdb::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!((cdb.byte::<0>(), cdb.byte::<1>(), cdb.byte::<15>()), (0, 1, 15));
        assert_eq!((cdb.u16::<0>(), cdb.u16::<7>(), cdb.u16::<14>()), (0x0001, 0x0708, 0x0e0f));
        assert_eq!((cdb.u32::<2>(), cdb.u32::<12>()), (0x0203_0405, 0x0c0d_0e0f));
        assert_eq!((cdb.u64::<2>(), cdb.u64::<8>()), (0x0203_0405_0607_0809, 0x0809_0a0b_0c0d_0e0f));
    }
}
