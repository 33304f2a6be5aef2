//! A disk that checks what it is asked, and fails and reorders as a script says.

use crate::input::Input;
use handler_rbd::block::{BackendError, ByteRange, ErrorKind, Limits, Op};
use handler_rbd::lun::Geometry;

/// After so many operations, or bytes read, nothing succeeds any more: a command for an endless disk must end all the
/// same.
const PATIENCE: usize = 1000;
const PATIENCE_BYTES: u64 = 16 << 20;

/// Storage knows of the bytes in a granule only whether there are any. No multiple of a block.
const GRANULE: u64 = 700;

/// From here on a fill is not the same byte everywhere.
const VARIED: u8 = 0x80;

/// Shapes: a small disk with short objects; blocks of 4096; many pieces, no atomic operation, and a last part of
/// a block; and one as large as numbers go, which keeps nothing.
#[rustfmt::skip]
const SHAPES: [(u64, u32, u64, u64); 4] = [
    (65_536, 512, 8192, 512),
    (65_536, 4096, 16_384, 4096),
    (307_300, 512, 4096, 0),
    (u64::MAX, 512, 4 << 20, 512),
];

#[derive(Debug)]
pub(crate) struct Disk {
    /// None if it keeps nothing.
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) geometry: Geometry,
    /// What is kept with the image.
    pub(crate) note: Vec<u8>,
    done: usize,
    read: u64,
}

impl Disk {
    /// One of the shapes, filled with this byte; if its high bit is set, with zeros in parts and with bytes that
    /// depend on where they are.
    pub(crate) fn new(shape: usize, fill: u8) -> Self {
        let (size, block_size, object_size, compare_and_write) = SHAPES[shape % SHAPES.len()];
        let limits =
            Limits { size, object_size, compare_and_write, discard_granularity: 4096, solid_state: false };
        let geometry = Geometry { block_size, size, max_sectors: 128, limits };
        let len = usize::try_from(size).unwrap();
        let bytes = (len < 1 << 20).then(|| (0..len).map(|at| byte(fill, at)).collect());
        Self { bytes, geometry, note: vec![], done: 0, read: 0 }
    }

    /// From now on so many operations may succeed again.
    pub(crate) fn recover(&mut self) {
        (self.done, self.read) = (0, 0);
    }

    /// Bytes of the disk that are blocks.
    pub(crate) fn usable(&self) -> u64 {
        let block = u64::from(self.geometry.block_size);
        self.geometry.size / block * block
    }

    /// Carries an operation out, or not. What it asks must be possible either way.
    pub(crate) fn carry_out(
        &mut self,
        op: Op,
        buffer: &mut [u8],
        extents: &mut Vec<ByteRange>,
        fate: Fate,
    ) -> Result<(), ErrorKind> {
        self.check(op, buffer);
        self.done += 1;
        if let Op::Read(range) = op {
            self.read += range.len;
        }
        let impatient = self.done > PATIENCE || self.read > PATIENCE_BYTES;
        match fate {
            // Late, but stored.
            Fate::Fails(ErrorKind::TimedOut) if op == Op::SetNote => {
                self.note = buffer.to_vec();
                return Err(ErrorKind::TimedOut);
            }
            Fate::Fails(kind) => return Err(kind),
            _ if impatient => return Err(ErrorKind::TimedOut),
            // As if somebody else had changed it, and changed it back.
            Fate::Loses if matches!(op, Op::CompareAndWrite(_)) => {
                return Err(ErrorKind::Miscompare { offset: 0 });
            }
            Fate::Loses | Fate::Succeeds => {}
        }
        if op == Op::SetNote {
            self.note = buffer.to_vec();
        }
        let Some(disk) = &mut self.bytes else {
            if let Op::Extents(ByteRange { offset, len }) = op {
                extents.push(ByteRange { offset, len: len.div_ceil(2) });
            }
            return Ok(());
        };
        match op {
            Op::Flush | Op::SetNote => {}
            Op::Extents(range) => *extents = extents_of(disk, range),
            Op::Read(range) => buffer[..len(range)].copy_from_slice(part(disk, range)),
            Op::Write(range) => part(disk, range).copy_from_slice(&buffer[..len(range)]),
            Op::Discard(range) | Op::WriteZeroes(range) => part(disk, range).fill(0),
            Op::WriteSame { range, pattern } => {
                let pattern = &buffer[..pattern as usize];
                part(disk, range).chunks_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(pattern));
            }
            Op::CompareAndWrite(range) => {
                let (compare, write) = buffer[..2 * len(range)].split_at(len(range));
                let have = part(disk, range);
                match have.iter().zip(compare).position(|(have, want)| have != want) {
                    Some(offset) => return Err(ErrorKind::Miscompare { offset: offset as u64 }),
                    None => have.copy_from_slice(write),
                }
            }
        }
        Ok(())
    }

    fn check(&self, op: Op, buffer: &[u8]) {
        let Some(range) = range_of(op) else { return };
        let block = u64::from(self.geometry.block_size);
        let end = range.offset.checked_add(range.len);
        assert!(end.is_some_and(|end| end <= self.usable()), "{op:?} leaves the disk");
        assert!(range.len > 0 && range.offset % block == 0 && range.len % block == 0, "{op:?}: whole blocks");
        let needed = match op {
            Op::Flush | Op::SetNote | Op::Discard(_) | Op::WriteZeroes(_) | Op::Extents(_) => 0,
            Op::Read(range) | Op::Write(range) => range.len,
            Op::WriteSame { pattern, range } => {
                assert!(pattern > 0 && range.len % u64::from(pattern) == 0, "{op:?}: whole patterns");
                pattern.into()
            }
            Op::CompareAndWrite(range) => {
                let object = self.geometry.limits.object_size;
                assert_eq!(
                    range.offset / object,
                    (range.offset + range.len - 1) / object,
                    "{op:?}: one object"
                );
                assert!(range.len <= self.geometry.limits.compare_and_write, "{op:?}: too long");
                2 * range.len
            }
        };
        assert!(needed <= buffer.len() as u64, "{op:?} has a buffer of {} bytes", buffer.len());
    }
}

/// What an operation touches.
pub(crate) fn range_of(op: Op) -> Option<ByteRange> {
    match op {
        Op::Flush | Op::SetNote => None,
        Op::Read(range)
        | Op::Write(range)
        | Op::Discard(range)
        | Op::WriteZeroes(range)
        | Op::WriteSame { range, .. }
        | Op::CompareAndWrite(range)
        | Op::Extents(range) => Some(range),
    }
}

pub(crate) fn is_write(op: Op) -> bool {
    !matches!(op, Op::Read(_) | Op::Flush | Op::Extents(_) | Op::SetNote)
}

/// What the disk is filled with at this place.
fn byte(fill: u8, at: usize) -> u8 {
    let number = |at: usize| u8::try_from(at % 251).unwrap();
    let stretch = number(at / 2048).wrapping_mul(fill | 1);
    match fill {
        ..VARIED => fill,
        // Some stretches are zeros.
        _ if stretch & 3 == 0 => 0,
        _ => number(at).wrapping_mul(fill | 1).wrapping_add(stretch),
    }
}

/// The parts of a range in whose granules something is.
fn extents_of(disk: &[u8], range: ByteRange) -> Vec<ByteRange> {
    let end = range.offset + range.len;
    let mut extents = vec![];
    for granule in range.offset / GRANULE..end.div_ceil(GRANULE) {
        let (from, to) = (granule * GRANULE, ((granule + 1) * GRANULE).min(disk.len() as u64));
        let there = &disk[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
        if there.iter().any(|&byte| byte != 0) {
            let (from, to) = (from.max(range.offset), to.min(end));
            extents.push(ByteRange { offset: from, len: to - from });
        }
    }
    extents
}

fn len(range: ByteRange) -> usize {
    usize::try_from(range.len).unwrap()
}

fn part(disk: &mut [u8], range: ByteRange) -> &mut [u8] {
    &mut disk[usize::try_from(range.offset).unwrap()..][..len(range)]
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    Fails(ErrorKind),
    /// A comparison finds something else; any other operation succeeds.
    Loses,
}

/// Which operation comes back next, and whether it failed. Without bytes: in order, and none did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a>(Input<'a>);

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Input::new(bytes))
    }

    /// One of `count` operations, and its fate: one in 16 fails, one in 16 loses.
    pub(crate) fn next(&mut self, count: usize) -> (usize, Fate) {
        let byte = self.0.byte();
        let fate = match byte {
            ..0xe0 => Fate::Succeeds,
            0xe0..0xf0 => Fate::Loses,
            0xf0.. => Fate::Fails(self.failure()),
        };
        (usize::from(byte & 0x0f) % count, fate)
    }

    fn failure(&mut self) -> ErrorKind {
        [
            ErrorKind::Io,
            ErrorKind::Fenced,
            ErrorKind::TimedOut,
            ErrorKind::NoSpace,
            ErrorKind::ReadOnly,
            ErrorKind::NoResource,
            ErrorKind::Invalid,
            ErrorKind::Gone,
        ][self.0.below(8)]
    }
}

pub(crate) fn error(kind: ErrorKind) -> BackendError {
    BackendError { kind, errno: 5 }
}
