//! What parameter lists say, read a second time. Only of lists that were taken.

use super::number;
use std::ops::Range;

/// The byte ranges of an UNMAP list's descriptors.
pub(super) fn unmapped(list: &[u8], block: u64) -> impl Iterator<Item = Range<usize>> {
    let len = if list.is_empty() { 0 } else { usize::try_from(number(list, 2, 2)).unwrap() };
    list.get(8..8 + len).unwrap_or_default().chunks_exact(16).map(move |descriptor| {
        let start = usize::try_from(number(descriptor, 0, 8) * block).unwrap();
        start..start + usize::try_from(number(descriptor, 8, 4) * block).unwrap()
    })
}

/// One segment of EXTENDED COPY, in bytes: what is read, where it is written.
pub(super) struct Segment {
    pub(super) source: Range<u64>,
    pub(super) destination: Range<u64>,
}

/// The segments of an EXTENDED COPY list: 02h, from blocks to blocks, and 0Ah, the same with offsets in bytes.
pub(super) fn segments(list: &[u8], block: u64) -> Vec<Segment> {
    let (devices, len) = (number(list, 2, 2), number(list, 8, 4));
    let at = usize::try_from(16 + devices).unwrap();
    let mut rest = &list[at..at + usize::try_from(len).unwrap()];
    let mut segments = vec![];
    while !rest.is_empty() {
        let (segment, behind) = rest.split_at(4 + usize::try_from(number(rest, 2, 2)).unwrap());
        let (source, destination) = (number(segment, 12, 8) * block, number(segment, 20, 8) * block);
        let (source, destination, len) = match segment[0] {
            0x02 => (source, destination, number(segment, 10, 2) * block),
            0x0a => {
                (source + number(segment, 28, 2), destination + number(segment, 30, 2), number(segment, 8, 4))
            }
            other => panic!("segment descriptor {other:02x} was taken"),
        };
        segments.push(Segment { source: source..source + len, destination: destination..destination + len });
        rest = behind;
    }
    segments
}

/// What FORMAT UNIT or SANITIZE leaves in each block.
pub(super) fn erased(cdb: &[u8], list: &[u8], block: u64) -> Vec<u8> {
    let block = usize::try_from(block).unwrap();
    let filled = |pattern: &[u8], mask: u8| -> Vec<u8> {
        pattern.iter().cycle().take(block).map(|byte| byte ^ mask).collect()
    };
    let word = |at| usize::try_from(number(list, at, 2)).unwrap();
    match (cdb[0], cdb[1] & 0x1f) {
        // FMTDATA, LONGLIST; IP in the list's header, INITIALIZATION PATTERN TYPE behind it.
        (0x04, flags) if flags & 0x10 != 0 && list[1] & 0x08 != 0 => {
            let at = if cdb[1] & 0x20 == 0 { 4 } else { 8 };
            match list[at + 1] {
                0 => vec![0; block],
                _ => filled(&list[at + 4..at + 4 + word(at + 2)], 0),
            }
        }
        // INVERT: every second pass.
        (0x48, 0x01) => {
            let inverted = list[0] & 0x80 != 0 && list[0] & 0x1f & 1 == 0;
            filled(&list[4..4 + word(2)], if inverted { 0xff } else { 0 })
        }
        (0x04, _) | (0x48, 0x02) => vec![0; block],
        (opcode, action) => panic!("{opcode:02x}/{action:02x} erases nothing"),
    }
}
