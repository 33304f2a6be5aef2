//! The UNMAP parameter list (SBC-3 5.28.2), from memory that its sender can no longer change.

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
