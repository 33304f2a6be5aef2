//! The UNMAP parameter list (SBC-3), from memory that its sender can no longer change.

use super::sense::Sense;
use super::{Blocks, Extent, Lba};

/// Length of the list's header.
const HEADER: usize = 8;

/// Length of an UNMAP block descriptor.
const DESCRIPTOR: usize = 16;

/// Checks the list's lengths and gives its block descriptors. The last, incomplete one is no descriptor.
pub fn descriptors(list: &[u8]) -> Result<Descriptors<'_>, Sense> {
    if list.is_empty() {
        // PARAMETER LIST LENGTH 0 is not an error: there is nothing to do.
        return Ok(Descriptors { rest: &[] });
    }
    let Some((header, rest)) = list.split_first_chunk::<HEADER>() else {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    };
    let data_len = usize::from(u16::from_be_bytes([header[0], header[1]]));
    let descriptors_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // The three lengths must agree, or the list is not what its sender meant. UNMAP DATA LENGTH may exceed
    // the list (it says what is available), but not contradict UNMAP BLOCK DESCRIPTOR DATA LENGTH.
    if data_len < descriptors_len + (HEADER - 2) {
        return Err(Sense::invalid_parameter(0));
    }
    let Some(rest) = rest.get(..descriptors_len) else {
        return Err(Sense::invalid_parameter(2));
    };
    Ok(Descriptors { rest })
}

/// The block descriptors of a list.
#[derive(Clone, Debug)]
pub struct Descriptors<'a> {
    rest: &'a [u8],
}

impl Iterator for Descriptors<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let (descriptor, rest) = self.rest.split_first_chunk::<DESCRIPTOR>()?;
        self.rest = rest;
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *descriptor;
        Some(Extent {
            lba: Lba(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            blocks: Blocks(u32::from_be_bytes([i, j, k, l]).into()),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.rest.len() / DESCRIPTOR;
        (n, Some(n))
    }
}

impl ExactSizeIterator for Descriptors<'_> {}

/// Where descriptor `index` begins in the list, for field pointers.
pub fn descriptor_at(index: usize) -> u16 {
    index.checked_mul(DESCRIPTOR).and_then(|at| u16::try_from(at + HEADER).ok()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// ASC and field pointer of the refusal, or the extents.
    fn parse(list: &[u8]) -> Result<Vec<(u64, u64)>, (u8, u8)> {
        match descriptors(list) {
            Ok(list) => Ok(list.map(|extent| (extent.lba.0, extent.blocks.0)).collect()),
            Err(sense) => Err((sense.to_bytes()[12], sense.to_bytes()[17])),
        }
    }

    #[rustfmt::skip]
    const TWO: [u8; 40] = [
        0, 38, 0, 32, 0, 0, 0, 0, // UNMAP DATA LENGTH, UNMAP BLOCK DESCRIPTOR DATA LENGTH
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    fn with(at: usize, value: u8) -> [u8; 40] {
        let mut list = TWO;
        list[at] = value;
        list
    }

    #[test]
    fn well_formed_lists() {
        assert_eq!(parse(&[]), Ok(vec![]));
        assert_eq!(parse(&[0, 6, 0, 0, 0, 0, 0, 0]), Ok(vec![]));
        assert_eq!(parse(&TWO), Ok(vec![(0x0102_0304_0506_0708, 0x090a_0b0c), (7, 0)]));
        assert_eq!(parse(&with(3, 16)), Ok(vec![(0x0102_0304_0506_0708, 0x090a_0b0c)]));
        // The second descriptor is not complete and does not count.
        assert_eq!(parse(&with(3, 31)), Ok(vec![(0x0102_0304_0506_0708, 0x090a_0b0c)]));
        // More data is available than the list holds.
        assert_eq!(parse(&with(0, 1)).map(|extents| extents.len()), Ok(2));
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        assert_eq!(parse(&TWO[..7]), Err((0x1a, 0)));
        assert_eq!(parse(&TWO[..1]), Err((0x1a, 0)));
        assert_eq!(parse(&TWO[..39]), Err((0x26, 2))); // descriptors beyond the list
        assert_eq!(parse(&TWO[..8]), Err((0x26, 2)));
        assert_eq!(parse(&with(1, 37)), Err((0x26, 0)));
        assert_eq!(parse(&with(1, 0)), Err((0x26, 0)));
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), Err((0x26, 0)));
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xf9, 0, 0, 0, 0]), Err((0x26, 2)));
    }

    #[test]
    fn descriptors_are_pointed_at() {
        assert_eq!((descriptor_at(0), descriptor_at(3)), (8, 56));
        assert_eq!(descriptor_at(usize::MAX), 0xffff);
    }

    proptest! {
        #[test]
        fn any_list_has_an_answer(list in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(found) = descriptors(&list) {
                prop_assert_eq!(found.len(), found.clone().count());
                prop_assert!(found.len() * 16 + 8 <= list.len().max(8));
            }
        }
    }
}
