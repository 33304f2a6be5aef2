//! The parameter data of GET LBA STATUS.

use crate::command::Span;
use crate::oracle::Wrong;

/// Bytes before the first descriptor, and of each.
const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

/// The ranges that are said not to be mapped, of those that fit into the allocation length. The descriptors must
/// begin where it was asked, follow each other, and stay on the disk.
pub(crate) fn not_mapped(lba: u64, allocation: usize, disk: u64, data: &[u8]) -> Result<Vec<Span>, Wrong> {
    let Some(length) = data.get(..4) else { return Err(Wrong::at(lba, "no length")) };
    let length = usize::try_from(u32::from_be_bytes(length.try_into().unwrap())).unwrap();
    if length < HEADER - 4 + DESCRIPTOR || (length - 4) % DESCRIPTOR != 0 {
        return Err(Wrong::at(lba, format!("a list of {length} bytes")));
    }
    let end = data.len().min(allocation).min(length + 4);
    let mut next = lba;
    let mut spans = vec![];
    for descriptor in data.get(HEADER..end).unwrap_or(&[]).chunks_exact(DESCRIPTOR) {
        let start = u64::from_be_bytes(descriptor[..8].try_into().unwrap());
        let blocks = u64::from(u32::from_be_bytes(descriptor[8..12].try_into().unwrap()));
        if start != next || blocks == 0 || start + blocks > disk {
            return Err(Wrong::at(next, format!("the next descriptor is of {start}, {blocks} blocks")));
        }
        next = start + blocks;
        if descriptor[12] & 0xf != 0 {
            spans.push(Span::new(start, blocks));
        }
    }
    if next == lba && allocation >= HEADER + DESCRIPTOR {
        return Err(Wrong::at(lba, "no descriptor"));
    }
    Ok(spans)
}
