//! Command descriptor blocks and parameter lists, byte by byte as SBC and SPC lay them out.

use crate::command::{Segment, Span};

/// Length of a CDB, which decides the width of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Six,
    Ten,
    Twelve,
    Sixteen,
}

impl Width {
    /// The highest LBA that fits.
    pub(crate) fn last_lba(self) -> u64 {
        match self {
            Self::Six => 0x1f_ffff,
            Self::Ten | Self::Twelve => 0xffff_ffff,
            Self::Sixteen => u64::MAX,
        }
    }

    /// The longest range that fits.
    pub(crate) fn most(self) -> u64 {
        match self {
            Self::Six => 256,
            Self::Ten => 0xffff,
            Self::Twelve | Self::Sixteen => 0xffff_ffff,
        }
    }
}

/// A CDB with LBA and number of blocks at the usual places.
pub(crate) fn extent(opcode: u8, width: Width, flags: u8, span: Span) -> Vec<u8> {
    let (lba, len) = (span.lba.to_be_bytes(), span.blocks.to_be_bytes());
    let mut cdb = vec![opcode];
    match width {
        Width::Six => {
            assert!((1..=256).contains(&span.blocks) && flags == 0);
            cdb.extend([lba[5], lba[6], lba[7], len[7], 0]); // 256 is written as 0
        }
        Width::Ten => {
            cdb.push(flags);
            cdb.extend(&lba[4..]);
            cdb.extend([0, len[6], len[7], 0]);
        }
        Width::Twelve => {
            cdb.push(flags);
            cdb.extend(&lba[4..]);
            cdb.extend(&len[4..]);
            cdb.extend([0, 0]);
        }
        Width::Sixteen => {
            cdb.push(flags);
            cdb.extend(lba);
            cdb.extend(&len[4..]);
            cdb.extend([0, 0]);
        }
    }
    cdb
}

pub(crate) fn compare_and_write(flags: u8, span: Span) -> Vec<u8> {
    let mut cdb = vec![0x89, flags];
    cdb.extend(span.lba.to_be_bytes());
    cdb.extend([0, 0, 0, u8::try_from(span.blocks).unwrap(), 0, 0]);
    cdb
}

pub(crate) fn write_atomic(flags: u8, span: Span) -> Vec<u8> {
    let mut cdb = vec![0x9c, flags];
    cdb.extend(span.lba.to_be_bytes());
    cdb.extend([0, 0]); // ATOMIC BOUNDARY
    cdb.extend(u16::try_from(span.blocks).unwrap().to_be_bytes());
    cdb.extend([0, 0]);
    cdb
}

pub(crate) fn get_lba_status(lba: u64, allocation: u32) -> Vec<u8> {
    let mut cdb = vec![0x9e, 0x12];
    cdb.extend(lba.to_be_bytes());
    cdb.extend(allocation.to_be_bytes());
    cdb.extend([0, 0]);
    cdb
}

/// UNMAP: its CDB and its parameter list.
pub(crate) fn unmap(spans: &[Span]) -> (Vec<u8>, Vec<u8>) {
    let descriptors = u16::try_from(spans.len() * 16).unwrap();
    let mut list = Vec::new();
    list.extend((descriptors + 6).to_be_bytes());
    list.extend(descriptors.to_be_bytes());
    list.extend([0; 4]);
    for span in spans {
        list.extend(span.lba.to_be_bytes());
        list.extend(u32::try_from(span.blocks).unwrap().to_be_bytes());
        list.extend([0; 4]);
    }
    let mut cdb = vec![0x42, 0, 0, 0, 0, 0, 0];
    cdb.extend((descriptors + 8).to_be_bytes());
    cdb.push(0);
    (cdb, list)
}

/// EXTENDED COPY(LID1) within one logical unit of this NAA designator: its CDB and its parameter list.
pub(crate) fn extended_copy(naa: &[u8], block: u32, segments: &[Segment]) -> (Vec<u8>, Vec<u8>) {
    let mut list = vec![0, 0x18]; // LIST IDENTIFIER 0, LIST ID USAGE 11b: nothing is held
    list.extend(32u16.to_be_bytes());
    list.extend([0; 4]);
    list.extend(u32::try_from(segments.len() * 28).unwrap().to_be_bytes());
    list.extend([0; 4]);
    // CSCD descriptor: identification, binary NAA designator of the logical unit, block device.
    list.extend([0xe4, 0, 0, 0, 0x01, 0x03, 0, u8::try_from(naa.len()).unwrap()]);
    list.extend(naa);
    list.resize(16 + 28, 0);
    list.push(0);
    list.extend(&block.to_be_bytes()[1..]);
    for segment in segments {
        list.extend([0x02, 0x02, 0, 0x18, 0, 0, 0, 0, 0, 0]); // block to block, DC, both CSCD 0
        list.extend(u16::try_from(segment.blocks).unwrap().to_be_bytes());
        list.extend(segment.from.to_be_bytes());
        list.extend(segment.to.to_be_bytes());
    }
    let mut cdb = vec![0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    cdb.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
    cdb.extend([0, 0]);
    (cdb, list)
}

pub(crate) fn format_unit() -> Vec<u8> {
    vec![0x04, 0, 0, 0, 0, 0]
}

/// SANITIZE with this service action, at once or not at all, and this parameter list length.
pub(crate) fn sanitize(action: u8, list: usize) -> Vec<u8> {
    let len = u16::try_from(list).unwrap().to_be_bytes();
    vec![0x48, action, 0, 0, 0, 0, 0, len[0], len[1], 0]
}

pub(crate) fn inquiry(page: u8) -> Vec<u8> {
    vec![0x12, 1, page, 0, 252, 0]
}
