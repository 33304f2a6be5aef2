//! Parameter lists that are nearly right: their lengths are the true ones plus a little, single bytes are damaged.
//!
//! ```text
//!  0  which list             1  shape of the disk   2  what the disk is filled with
//!  3  PARAMETER LIST LENGTH, 4  the data buffer's length, 5, 6 two lengths in the list: a little more, signed
//!  7  number of damages, and so many offsets and bytes; then what the list is made from
//! ```

use crate::command::{checked, is_refusal};
use crate::disk::{Disk, Script};
use crate::drive::{Around, End, NAA};
use crate::input::Input;
use handler_rbd::lun::{LogicalUnit, Outcome};

/// A list and the command that it belongs to.
struct List {
    /// PARAMETER LIST LENGTH is filled in where `len_at` says.
    cdb: Vec<u8>,
    len_at: std::ops::Range<usize>,
    bytes: Vec<u8>,
    /// What must become of it if nothing is wrong with its lengths and nothing is damaged.
    sound: bool,
}

/// Makes a list from the fuzzer's bytes. The two numbers are added to lengths within it.
type Make = fn(&mut Input<'_>, &Disk, i32, i32) -> List;

/// All the lists. A new one is a function and a line here.
pub const LISTS: [&str; 7] =
    ["unmap", "mode_select_6", "mode_select_10", "write_same", "extended_copy", "format_unit", "overwrite"];
const MAKE: [Make; LISTS.len()] =
    [unmap, mode_select_6, mode_select_10, write_same, extended_copy, format_unit, overwrite];

/// Runs one input; how its command ended.
pub fn run(bytes: &[u8]) -> End {
    let mut input = Input::new(bytes);
    let make = MAKE[input.below(MAKE.len())];
    let mut disk = Disk::new(input.below(3), input.byte());
    let little = [(); 4].map(|()| input.delta());
    let damages = input.below(8);
    let damages: Vec<_> = (0..damages).map(|_| (input.u16(), input.byte())).collect();
    let List { mut cdb, len_at, mut bytes, sound } = make(&mut input, &disk, little[2], little[3]);
    for &(offset, byte) in &damages {
        if let Some(at) = bytes.get_mut(usize::from(offset)) {
            *at = byte;
        }
    }
    put(&mut cdb, len_at, bytes.len(), little[0]);
    bytes.resize(bytes.len().saturating_add_signed(little[1].try_into().unwrap()), 0);
    let mut around = Around { port: false, write_exclusive: false, fan_out: 8, script: Script::new(&[]) };
    let mut unit = LogicalUnit::new(disk.geometry);
    let end = checked(&mut unit, &mut disk, &cdb, &mut bytes, &mut around);
    if little == [0; 4] && damages.is_empty() {
        let want = if sound { end.at_last() == Outcome::Good } else { is_refusal(&end) };
        assert!(want, "a list that is {}sound: {end:?}", if sound { "" } else { "un" });
    }
    assert!(end.at_last() == Outcome::Good || is_refusal(&end), "{end:?}");
    end
}

/// Writes a length, plus a little, as the big-endian number at `at`.
fn put(bytes: &mut [u8], at: std::ops::Range<usize>, len: usize, little: i32) {
    let number = u64::try_from(i64::try_from(len).unwrap() + i64::from(little)).unwrap_or(0);
    let field = &mut bytes[at];
    let from = 8 - field.len();
    field.copy_from_slice(&number.to_be_bytes()[from..]);
}

/// A number of descriptors; each an LBA, which is near the disk's end if its high bit is set, and blocks.
fn unmap(input: &mut Input<'_>, disk: &Disk, data_len: i32, descriptors_len: i32) -> List {
    let block = u64::from(disk.geometry.block_size);
    let capacity = disk.geometry.size / block;
    let (mut bytes, mut total, mut on_the_disk) = (vec![0; 8], 0, true);
    let count = input.below(7);
    for _ in 0..count {
        let (lba, blocks) = (input.u16(), u64::from(input.byte()));
        let near = u64::from(lba & 0x7fff);
        let lba = if lba & 0x8000 == 0 { near % (capacity + 1) } else { capacity.saturating_sub(near % 16) };
        on_the_disk &= lba + blocks <= capacity;
        total += blocks;
        bytes.extend_from_slice(&lba.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(blocks).unwrap().to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
    }
    let len = bytes.len();
    put(&mut bytes, 0..2, len - 2, data_len);
    put(&mut bytes, 2..4, len - 8, descriptors_len);
    // Block Limits: four descriptors, and as many blocks as four objects have.
    let sound = on_the_disk && count <= 4 && total * block <= 4 * disk.geometry.limits.object_size;
    List { cdb: vec![0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], len_at: 7..9, bytes, sound }
}

/// The mode pages as MODE SENSE returns them: Read-Write Error Recovery, Caching, Control.
const PAGES: [&[u8]; 3] = [
    &[0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x0a, 0x0a, 0x02, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0],
];

fn mode_select_6(input: &mut Input<'_>, _: &Disk, page_len: i32, descriptors_len: i32) -> List {
    let (bytes, sound) = mode_parameters(input, 4, 3..4, page_len, descriptors_len);
    List { cdb: vec![0x15, 0x10, 0, 0, 0, 0], len_at: 4..5, bytes, sound }
}

fn mode_select_10(input: &mut Input<'_>, _: &Disk, page_len: i32, descriptors_len: i32) -> List {
    let (bytes, sound) = mode_parameters(input, 8, 6..8, page_len, descriptors_len);
    List { cdb: vec![0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], len_at: 7..9, bytes, sound }
}

/// Header and some pages, among them one that is not there.
fn mode_parameters(
    input: &mut Input<'_>,
    header: usize,
    descriptors_at: std::ops::Range<usize>,
    page_len: i32,
    descriptors_len: i32,
) -> (Vec<u8>, bool) {
    let (mut bytes, mut sound) = (vec![0; header], true);
    put(&mut bytes, descriptors_at, 0, descriptors_len);
    for _ in 0..input.below(6) {
        let page = PAGES.get(input.below(4)).copied();
        sound &= page.is_some();
        let at = bytes.len();
        bytes.extend_from_slice(page.unwrap_or(&[0x1c, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let len = bytes.len() - at - 2;
        put(&mut bytes, at + 1..at + 2, len, page_len);
    }
    (bytes, sound)
}

/// WRITE SAME(10) or (16), with or without UNMAP and NDOB; the block of zeros or of the bytes that are left. The two
/// lengths are LBA and number of blocks.
fn write_same(input: &mut Input<'_>, disk: &Disk, lba: i32, blocks: i32) -> List {
    let block = usize::try_from(disk.geometry.block_size).unwrap();
    let flags = input.byte();
    let (long, unmap, no_data) = (flags & 1 != 0, flags & 2 != 0, flags & 5 == 5);
    let (from, count) = (input.u16() & 0x3f, input.byte());
    let mut cdb = if long { vec![0; 16] } else { vec![0; 10] };
    (cdb[0], cdb[1]) = (if long { 0x93 } else { 0x41 }, u8::from(unmap) << 3 | u8::from(no_data));
    put(&mut cdb, if long { 2..10 } else { 2..6 }, from.into(), lba);
    put(&mut cdb, if long { 10..14 } else { 7..9 }, count.into(), blocks);
    let mut bytes = if no_data { vec![] } else { input.rest()[..input.rest().len().min(block)].to_vec() };
    bytes.resize(if no_data { 0 } else { block }, 0);
    let capacity = disk.geometry.size / u64::from(disk.geometry.block_size);
    let sound = count > 0 && u64::from(from) + u64::from(count) <= capacity;
    List { cdb, len_at: 0..0, bytes, sound }
}

/// EXTENDED COPY: two descriptors that both name the disk, and some segments. Each segment: how it is described; LBAs
/// of its source and of its destination, which is near the source or anywhere; and blocks, no more than there are or
/// any.
fn extended_copy(input: &mut Input<'_>, disk: &Disk, devices_len: i32, segments_len: i32) -> List {
    let block_size = disk.geometry.block_size;
    let capacity = disk.usable() / u64::from(block_size);
    let mut bytes = vec![input.byte(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..2 {
        // Identification CSCD descriptor: code set binary, NAA designator.
        bytes.extend_from_slice(&[0xe4, 0, 0, 0, 0x01, 0x03, 0, 16]);
        bytes.extend_from_slice(&NAA);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&block_size.to_be_bytes());
    }
    let (start, mut sound) = (bytes.len(), true);
    for _ in 0..input.below(9) {
        let flags = input.byte();
        let (offsets, near, any) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        let (source, place, blocks) = (u64::from(input.u16()) % (capacity + 1), input.u16(), input.byte());
        let destination = match near {
            true => source.saturating_add_signed(i64::from(place % 16) - 8).min(capacity),
            false => u64::from(place) % (capacity + 1),
        };
        let room = capacity - source.max(destination);
        let blocks = if any { u64::from(blocks) } else { u64::from(blocks) % (room + 1) };
        sound &= blocks <= room;
        let device = u8::from(flags & 8 != 0);
        let (kind, len) = if offsets { (0x0a, 28) } else { (0x02, 24) };
        bytes.extend_from_slice(&[kind, 0, 0, len, 0, device, 0, 1 - device]);
        let number = match offsets {
            true => blocks * u64::from(block_size),
            false => blocks,
        };
        bytes.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
        bytes.extend_from_slice(&source.to_be_bytes());
        bytes.extend_from_slice(&destination.to_be_bytes());
        bytes.extend_from_slice(if offsets { &[0; 4] } else { &[] });
    }
    let end = bytes.len();
    put(&mut bytes, 2..4, start - 16, devices_len);
    put(&mut bytes, 8..12, end - start, segments_len);
    List { cdb: [&[0x83][..], &[0; 15]].concat(), len_at: 10..14, bytes, sound }
}

/// FORMAT UNIT: flags, header, and perhaps a pattern of so many bytes, the rest. The two lengths are that of the list
/// of defects, which has none, and the pattern's.
fn format_unit(input: &mut Input<'_>, disk: &Disk, defects_len: i32, pattern_len: i32) -> List {
    let flags = input.byte();
    let (long, immediate, pattern) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    let options = if pattern { 0x88 } else { 0 } | if immediate { 0x02 } else { 0 };
    let mut bytes = vec![0, options, 0, 0];
    bytes.extend_from_slice(if long { &[0; 4] } else { &[] });
    put(&mut bytes, if long { 4..8 } else { 2..4 }, 0, defects_len);
    let mut sound = true;
    if pattern {
        let of = repeated(input, disk);
        sound = !of.is_empty() && of.len() <= block_len(disk);
        let at = bytes.len();
        bytes.extend_from_slice(&[0, 0x01, 0, 0]);
        bytes.extend_from_slice(&of);
        put(&mut bytes, at + 2..at + 4, of.len(), pattern_len);
    }
    let cdb = vec![0x04, if long { 0x30 } else { 0x10 }, 0, 0, 0, 0];
    List { cdb, len_at: 0..0, bytes, sound }
}

/// SANITIZE, OVERWRITE: flags, INVERT with OVERWRITE COUNT, and a pattern of so many bytes, the rest. Both lengths are
/// added to the pattern's.
fn overwrite(input: &mut Input<'_>, disk: &Disk, pattern_len: i32, more: i32) -> List {
    let (flags, options) = (input.byte(), input.byte());
    let pattern = repeated(input, disk);
    let mut bytes = vec![options & 0x9f, 0, 0, 0];
    bytes.extend_from_slice(&pattern);
    put(&mut bytes, 2..4, pattern.len(), pattern_len + more);
    let sound = options & 0x1f > 0 && !pattern.is_empty() && pattern.len() <= block_len(disk);
    let cdb = vec![0x48, 0x01 | (flags & 0x05) << 5, 0, 0, 0, 0, 0, 0, 0, 0];
    List { cdb, len_at: 7..9, bytes, sound }
}

/// A pattern of so many bytes, two more than a block at most; it begins with those that are left.
fn repeated(input: &mut Input<'_>, disk: &Disk) -> Vec<u8> {
    let len = usize::from(input.u16()) % (block_len(disk) + 3);
    let mut pattern = input.bytes(len).to_vec();
    pattern.resize(len, 0);
    pattern
}

fn block_len(disk: &Disk) -> usize {
    usize::try_from(disk.geometry.block_size).unwrap()
}
