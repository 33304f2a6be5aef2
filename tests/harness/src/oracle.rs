//! What must hold for any command, from its bytes alone: the CDB is read here a second time.

mod copy;
mod erasure;
mod lists;

use crate::disk::{Disk, is_write, range_of};
use crate::drive::End;
use handler_rbd::block::{ErrorKind, Op};
use handler_rbd::lun::{LogicalUnit, Outcome};
use handler_rbd::scsi::decode;
use handler_rbd::scsi::sense::Key;

/// Opcodes that may change the disk: WRITE (6, 10, 12, 16), WRITE AND VERIFY (10, 12, 16), WRITE SAME (10, 16), UNMAP,
/// COMPARE AND WRITE, FORMAT UNIT, SANITIZE, EXTENDED COPY, ORWRITE, WRITE ATOMIC.
const WRITERS: [u8; 16] =
    [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x41, 0x93, 0x42, 0x89, 0x04, 0x48, 0x83, 0x8b, 0x9c];

/// CDB length by group; there is none for groups 3, 6 and 7. Of group 3 is GET LBA STATUS(32).
const CDB_LEN: [usize; 8] = [6, 10, 10, 32, 16, 12, 0, 0];

/// A CDB with zeros behind it.
#[derive(Clone, Copy)]
pub(crate) struct Cdb([u8; 64]);

impl Cdb {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut padded = [0; 64];
        padded[..bytes.len().min(64)].copy_from_slice(&bytes[..bytes.len().min(64)]);
        Self(padded)
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn number(&self, at: usize, len: usize) -> u64 {
        number(&self.0, at, len)
    }

    /// LBA and number of blocks, for commands on logical blocks.
    fn extent(&self) -> Option<(u64, u64)> {
        Some(match self.0[0] {
            0x08 | 0x0a => {
                let blocks = if self.0[4] == 0 { 256 } else { self.number(4, 1) };
                (self.number(1, 3) & 0x1f_ffff, blocks)
            }
            0x28 | 0x2a | 0x2e | 0x2f | 0x34 | 0x35 | 0x41 => (self.number(2, 4), self.number(7, 2)),
            0xa8 | 0xaa | 0xae | 0xaf => (self.number(2, 4), self.number(6, 4)),
            0x88 | 0x8a | 0x8b | 0x8e | 0x8f | 0x90 | 0x91 | 0x93 => (self.number(2, 8), self.number(10, 4)),
            0x89 => (self.number(2, 8), self.number(13, 1)),
            0x9c => (self.number(2, 8), self.number(12, 2)),
            _ => return None,
        })
    }

    /// ALLOCATION LENGTH, or the length of a reply that has none.
    fn allocation(&self) -> Option<u64> {
        Some(match (self.0[0], self.0[1] & 0x1f) {
            (0x03 | 0x1a, _) => self.number(4, 1),
            (0x12, _) => self.number(3, 2),
            (0x25, _) => 8,
            (0x7f, _) => self.number(28, 4),
            (0x37 | 0x4d | 0x5a | 0x5e, _) => self.number(7, 2),
            (0x84 | 0x9e, _) => self.number(10, 4),
            (0xa0 | 0xa3 | 0xb7, _) => self.number(6, 4),
            _ => return None,
        })
    }

    /// Bytes that the command moves either way.
    pub(crate) fn moves(&self, block: u64) -> u64 {
        let blocks = self.extent().map_or(0, |(_, blocks)| blocks.saturating_mul(block));
        match (self.0[0], self.0[1]) {
            (0x34 | 0x35 | 0x90 | 0x91, _) => 0,
            (0x93, flags) if flags & 1 != 0 => 0,
            (0x41 | 0x93, _) => block,
            (0x89, _) => blocks.saturating_mul(2),
            (0x2f | 0xaf | 0x8f, flags) => match flags & 0x06 {
                0 => 0,
                0x06 => block.min(blocks),
                _ => blocks,
            },
            (0x15, _) => self.number(4, 1),
            (0x42 | 0x48 | 0x55, _) => self.number(7, 2),
            (0x83, _) => self.number(10, 4),
            _ => self.allocation().unwrap_or(blocks),
        }
    }
}

/// The big-endian number of `len` bytes at `at`.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Disk and data buffer as they were.
pub(crate) struct Before<'a> {
    pub(crate) given: &'a [u8],
    pub(crate) disk: Option<&'a [u8]>,
}

/// Checks how a command ended. It may be that `disk` is erased to the end.
pub(crate) fn check(
    unit: &mut LogicalUnit,
    cdb: &[u8],
    end: &End,
    Before { given, disk: before }: Before<'_>,
    buffer: &[u8],
    disk: &mut Disk,
) {
    let fields = Cdb::new(cdb);
    let opcode = fields.0[0];
    let group_len = CDB_LEN[usize::from(opcode >> 5)];
    check_decoding(cdb, group_len);
    check_sense(end.outcome, group_len, given.len());
    end.late.into_iter().for_each(|late| check_sense(late, group_len, given.len()));
    let refused = matches!(end.outcome, Outcome::CheckCondition(sense) if sense.key() == Key::IllegalRequest);
    assert!(!refused || end.ops.is_empty(), "ILLEGAL REQUEST after {:?}", end.ops);
    let failed = end.ops.iter().any(|(op, result)| result.is_err_and(|kind| !may_go_on(opcode, *op, kind)));
    assert!(!failed || end.at_last() != Outcome::Good, "GOOD although storage failed: {:?}", end.ops);
    if let Some(reply) = &end.reply {
        let allocation = fields.allocation().expect("this command has no reply");
        assert!(reply.len() as u64 <= allocation, "{} bytes for {allocation}", reply.len());
    }
    let block = u64::from(disk.geometry.block_size);
    let writes = WRITERS.contains(&opcode);
    for (op, _) in &end.ops {
        assert!(writes || !is_write(*op), "{op:?} for opcode {opcode:02x}");
        assert!(*op != Op::SetNote || matches!(opcode, 0x04 | 0x48), "{op:?} for opcode {opcode:02x}");
        if let (Some(range), Some((lba, blocks))) = (range_of(*op), fields.extent()) {
            let (start, end) = (lba * block, (lba + blocks) * block);
            assert!(range.offset >= start && range.offset + range.len <= end, "{op:?} outside the extent");
        }
    }
    if opcode == 0x83 && !end.ops.is_empty() {
        copy::check(unit, end, given, disk);
    }
    assert!(opcode != 0x9c || end.ops.len() <= 1, "an atomic write in parts: {end:?}");
    match (opcode, fields.0[1] & 0x1f, &end.reply) {
        (0x9e, 0x12, Some(reply)) => check_lba_status(fields.number(2, 8), 0, reply, disk),
        // SCAN LENGTH.
        (0x7f, _, Some(reply)) => check_lba_status(fields.number(12, 8), fields.number(20, 4), reply, disk),
        _ => {}
    }
    match before {
        Some(before) if end.exclusive => erasure::check(unit, &fields, end, given, before, disk),
        Some(before) => {
            let now = disk.bytes.as_deref().unwrap();
            check_content(&fields, end, given, buffer, before, now, block);
        }
        None => {}
    }
}

/// A reservation of a Write Exclusive type holds for what writes without data: FORMAT UNIT without FMTDATA, WRITE SAME
/// with NDOB, SANITIZE other than OVERWRITE. The kernel sees to all else.
pub(crate) fn check_reservation(cdb: &[u8], end: &End, write_exclusive: bool) {
    let holds = write_exclusive
        && match Cdb::new(cdb).0 {
            [0x04, flags, ..] => flags & 0x10 == 0,
            [0x93, flags, ..] => flags & 0x01 != 0,
            [0x48, flags, ..] => flags & 0x1f != 0x01,
            _ => false,
        };
    assert!(end.outcome.status() != 0x18 || holds, "{end:?}");
    assert!(!holds || (end.ops.is_empty() && end.outcome != Outcome::Good), "{end:?}");
}

/// Whether a command may be GOOD although this operation of it failed like this: ORWRITE tries again what it found
/// changed, GET LBA STATUS says of storage that cannot tell that all is mapped.
fn may_go_on(opcode: u8, op: Op, kind: ErrorKind) -> bool {
    matches!(
        (opcode, op, kind),
        (0x8b, Op::CompareAndWrite(_), ErrorKind::Miscompare { .. })
            | (0x7f | 0x9e, Op::Extents(_), ErrorKind::Invalid)
    )
}

/// What follows a CDB does not matter, and what is refused is refused as SPC has it.
fn check_decoding(cdb: &[u8], group_len: usize) {
    let decoded = decode(cdb);
    if group_len > 0 && cdb.len() > group_len {
        assert_eq!(decoded, decode(&cdb[..group_len]), "bytes behind the CDB matter");
    }
    match decoded {
        Ok(_) => assert!(group_len > 0 && cdb.len() >= group_len, "a CDB cut short was taken"),
        Err(sense) => assert_eq!(sense.key(), Key::IllegalRequest),
    }
}

/// Fixed format in 96 bytes, and pointers that point at something.
fn check_sense(outcome: Outcome, group_len: usize, list_len: usize) {
    assert_eq!(outcome.status() == 0x02, outcome.sense().is_some());
    let Some(sense) = outcome.sense() else { return };
    assert_eq!(sense.len(), 96);
    assert!(matches!(sense[0], 0x70 | 0xf0) && sense[1] == 0 && sense[7] == 10, "{sense:02x?}");
    assert!(matches!(sense[2], 0x02 | 0x03 | 0x04 | 0x05 | 0x06 | 0x07 | 0x0a | 0x0e), "{sense:02x?}");
    // COPY ABORTED says which segment.
    let specific = if sense[2] == 0x0a { 8..10 } else { 8..12 };
    assert!(sense[specific].iter().all(|&byte| byte == 0), "{sense:02x?}");
    assert!(sense[14] == 0 && sense[18..] == [0; 78], "{sense:02x?}");
    assert!(sense[0] == 0xf0 || sense[3..7] == [0; 4], "INFORMATION without VALID: {sense:02x?}");
    if sense[15] & 0x80 != 0 && sense[2] == 0x02 {
        // How far a FORMAT UNIT or SANITIZE is.
        assert!(sense[15] == 0x80 && sense[12] == 0x04 && matches!(sense[13], 0x04 | 0x1b), "{sense:02x?}");
    } else if sense[15] & 0x80 != 0 {
        assert_eq!(sense[2], 0x05, "a field pointer goes with ILLEGAL REQUEST");
        let (in_cdb, pointer) =
            (sense[15] & 0x40 != 0, usize::from(u16::from_be_bytes([sense[16], sense[17]])));
        let len = if in_cdb { group_len } else { list_len };
        assert!(pointer < len, "field pointer {pointer} into {len} bytes: {sense:02x?}");
        assert_eq!(sense[12], if in_cdb { 0x24 } else { 0x26 });
    } else {
        assert_eq!(sense[15..18], [0; 3]);
    }
}

/// What is on the disk and in the buffer afterwards.
fn check_content(cdb: &Cdb, end: &End, given: &[u8], buffer: &[u8], before: &[u8], now: &[u8], block: u64) {
    let opcode = cdb.0[0];
    if !end.ops.iter().any(|(op, result)| is_write(*op) && result.is_ok()) {
        assert!(before == now, "nothing wrote, and the disk is another");
    }
    let extent = cdb.extent().and_then(|(lba, blocks)| {
        let start = usize::try_from(lba.checked_mul(block)?).ok()?;
        let len = usize::try_from(blocks.checked_mul(block)?).ok()?;
        (start.checked_add(len)? <= before.len()).then_some(start..start + len)
    });
    if end.outcome == Outcome::Good && end.reply.is_none() {
        // What the disk must look like.
        let mut want = before.to_vec();
        let zeroes = opcode == 0x93 && cdb.0[1] & 1 != 0;
        match (opcode, extent.clone()) {
            // SANITIZE, EXIT FAILURE MODE; the others have the disk to themselves.
            (0x48, _) => assert_eq!(cdb.0[1] & 0x1f, 0x1f, "the disk was not erased"),
            (0x83, _) if cdb.moves(block) > 0 => {
                for lists::Segment { source, destination } in lists::segments(given, block) {
                    let place = |at: u64| usize::try_from(at).unwrap();
                    want.copy_within(place(source.start)..place(source.end), place(destination.start));
                }
            }
            (0x8b, Some(extent)) => want[extent].iter_mut().zip(given).for_each(|(old, new)| *old |= new),
            (0x0a | 0x2a | 0xaa | 0x8a | 0x2e | 0xae | 0x8e | 0x9c, Some(extent)) => {
                want[extent].copy_from_slice(given)
            }
            (0x93, Some(extent)) if zeroes => want[extent].fill(0),
            (0x41 | 0x93, Some(extent)) => {
                want[extent].chunks_mut(given.len()).for_each(|chunk| chunk.copy_from_slice(given));
            }
            (0x89, Some(extent)) => {
                let (compare, write) = given.split_at(extent.len());
                assert!(want[extent.clone()] == *compare, "COMPARE AND WRITE of what differs");
                want[extent].copy_from_slice(write);
            }
            (0x08 | 0x28 | 0xa8 | 0x88, Some(extent)) => {
                assert!(buffer[..extent.len()] == before[extent.clone()], "READ of something else");
                assert_eq!(end.data_in, extent.len() as u64);
            }
            (0x42, _) => {
                let list = usize::try_from(cdb.moves(block)).unwrap();
                lists::unmapped(&given[..list], block).for_each(|range| want[range].fill(0));
            }
            (_, extent) => assert!(cdb.extent().is_none() || extent.is_some(), "GOOD outside the disk"),
        }
        assert!(now == want, "the disk does not hold what opcode {opcode:02x} says");
    }
    match (opcode, extent) {
        (0x2f | 0xaf | 0x8f, Some(extent)) => {
            check_verify(cdb, end, given, &before[extent.clone()], extent.start, block);
        }
        (0x8b, Some(extent)) if !end.ops.is_empty() => {
            // Also of one that failed each block is as it was, or has all the bits.
            let block = usize::try_from(block).unwrap();
            let (old, now) = (before[extent.clone()].chunks(block), now[extent].chunks(block));
            for ((old, now), given) in old.zip(now).zip(given.chunks(block)) {
                let all = old.iter().zip(given).map(|(old, given)| old | given);
                assert!(now == old || now.iter().copied().eq(all), "a block ORed in part");
            }
        }
        _ => {}
    }
}

/// VERIFY is GOOD if and only if the blocks are those given; otherwise it says which block differs first.
fn check_verify(cdb: &Cdb, end: &End, given: &[u8], have: &[u8], start: usize, block: u64) {
    if end.ops.iter().any(|(_, result)| result.is_err()) || end.ops.is_empty() {
        return;
    }
    let block = usize::try_from(block).unwrap();
    let difference = match cdb.0[1] & 0x06 {
        0 => None,
        0x06 => have.chunks(block).position(|one| one != given),
        _ => have.chunks(block).zip(given.chunks(block)).position(|(one, other)| one != other),
    };
    match (difference, end.outcome) {
        (None, outcome) => assert_eq!(outcome, Outcome::Good),
        (Some(at), Outcome::CheckCondition(sense)) => {
            let bytes = sense.to_bytes();
            assert_eq!((bytes[2], bytes[12]), (0x0e, 0x1d));
            let lba = u32::from_be_bytes(bytes[3..7].try_into().unwrap());
            assert_eq!(usize::try_from(lba).unwrap(), start / block + at, "the block that differs");
        }
        (Some(_), outcome) => panic!("{outcome:?} although the blocks differ"),
    }
}

/// GET LBA STATUS: runs of blocks that follow each other from the LBA on; what is deallocated reads as zeros.
fn check_lba_status(lba: u64, scan: u64, reply: &[u8], disk: &Disk) {
    let Some((header, descriptors)) = reply.split_at_checked(8) else { return };
    let len = number(header, 0, 4);
    assert!(len >= 4 + 16 && len % 16 == 4, "{reply:02x?}");
    let whole = usize::try_from(len - 4).unwrap().min(descriptors.len()) / 16;
    assert!(whole * 16 == descriptors.len() || whole == 0, "a descriptor in part behind whole ones");
    let (from, mut at, block) = (lba, lba, u64::from(disk.geometry.block_size));
    let most = if scan == 0 { u64::MAX } else { scan };
    for descriptor in descriptors.chunks_exact(16) {
        let (lba, blocks) = (number(descriptor, 0, 8), number(descriptor, 8, 4));
        assert!(lba == at && blocks > 0 && descriptor[13..] == [0; 3], "{reply:02x?}");
        at += blocks;
        assert!(at * block <= disk.usable() && at - from <= most, "{reply:02x?}");
        let range = |bytes: &[u8]| {
            let place = |lba: u64| usize::try_from(lba * block).unwrap();
            bytes[place(lba)..place(at)].iter().all(|&byte| byte == 0)
        };
        let zeros = disk.bytes.as_deref().is_none_or(range);
        assert!(descriptor[12] == 0 || (descriptor[12] == 1 && zeros), "deallocated, and not zeros");
    }
}
