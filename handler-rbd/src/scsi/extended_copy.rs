//! EXTENDED COPY (LID1) parameter list and RECEIVE COPY RESULTS data (SPC-4, "Third-party copy commands").
//!
//! The only source and destination is the unit that got the command. Another device is refused as not reachable,
//! whether or not this gateway has it: the ring does not tell who asks, so nobody could say what he may touch
//! (CVE-2020-28374, CVE-2021-3139).

use super::bytes::{u16_at, u32_at, u64_at};
use super::sense::{Code, Key, Sense};

/// MAXIMUM CSCD DESCRIPTOR COUNT.
pub const MAX_DEVICES: u16 = 16;
/// MAXIMUM SEGMENT DESCRIPTOR COUNT.
pub const MAX_SEGMENTS: u16 = 256;
/// MAXIMUM DESCRIPTOR LIST LENGTH: both lists together.
pub const MAX_LISTS: u32 = 8192;
/// MAXIMUM SEGMENT LENGTH in bytes.
pub const MAX_SEGMENT: u32 = 32 << 20;
/// MAXIMUM CONCURRENT COPIES.
pub const MAX_COPIES: u8 = 8;

/// Bytes of a parameter list that are looked at.
pub const MAX_LIST: usize = HEADER + MAX_LISTS as usize;

/// Length of the list's header.
const HEADER: usize = 16;
/// Identification CSCD descriptor, and its length.
const IDENTIFICATION: u8 = 0xe4;
const DEVICE_LEN: usize = 32;
/// Segment descriptors: from block device to block device, and the same with byte offsets; their lengths.
const BLOCK_TO_BLOCK: u8 = 0x02;
const BLOCK_TO_BLOCK_LEN: usize = 28;
const BYTES_TO_BYTES: u8 = 0x0a;
const BYTES_TO_BYTES_LEN: usize = 32;

/// What one list asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyList {
    /// LIST IDENTIFIER, unless there is none.
    pub id: Option<u8>,
    /// LIST ID USAGE: what became of the copy is to be kept when it has ended.
    pub keep: bool,
    /// The segments, in their order.
    pub segments: Vec<Segment>,
}

/// One segment, in bytes of the disk; not yet checked against its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte to read.
    pub source: u64,
    /// First byte to write.
    pub destination: u64,
    /// Number of bytes.
    pub len: u64,
}

/// Reads a parameter list of `len` bytes, of which `list` are the first. `name` is the NAA designator of the unit,
/// the only device there is.
pub fn parse(len: u32, list: &[u8], name: &[u8; 16], block_size: u32) -> Result<CopyList, Sense> {
    let Some(header) = list.get(..HEADER) else { return Err(Sense::PARAMETER_LIST_LENGTH) };
    let (devices_len, segments_len) = (u32::from(u16_at(header, 2)), u32_at(header, 8));
    // Longer than any list may be comes before too many descriptors.
    let both = devices_len.checked_add(segments_len).filter(|both| *both <= MAX_LISTS);
    let both = both.ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    if u32_at(header, 12) != 0 {
        return Err(Sense::new(Key::IllegalRequest, INLINE_DATA_LENGTH_EXCEEDED));
    }
    let end = HEADER + usize::try_from(both).unwrap_or(usize::MAX);
    if u64::from(len) < end as u64 || list.len() < end {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let usage = (header[1] >> 3) & 0x03;
    let id = match usage {
        0b00 | 0b10 => Some(header[0]),
        0b11 if header[0] == 0 => None,
        0b11 => return Err(Sense::invalid_parameter(0)),
        _ => return Err(Sense::invalid_parameter(1)),
    };
    let (devices, segments) = list[HEADER..end].split_at(usize::try_from(devices_len).unwrap_or(usize::MAX));
    let devices = devices_of(devices, name, block_size)?;
    let segments = segments_of(segments, end - segments.len(), &devices, block_size)?;
    Ok(CopyList { id, keep: usage == 0b00, segments })
}

/// The LIST IDENTIFIER of a list that is perhaps wrong elsewhere.
pub fn identifier(list: &[u8]) -> Option<u8> {
    match *list {
        [id, flags, ..] if (flags >> 3) & 0x03 != 0b11 => Some(id),
        _ => None,
    }
}

const INLINE_DATA_LENGTH_EXCEEDED: Code = Code(0x26, 0x0b);
const TOO_MANY_DEVICES: Code = Code(0x26, 0x06);
const UNSUPPORTED_DEVICE: Code = Code(0x26, 0x07);
const TOO_MANY_SEGMENTS: Code = Code(0x26, 0x08);
const UNSUPPORTED_SEGMENT: Code = Code(0x26, 0x09);

/// For each CSCD descriptor, whether it is this unit.
fn devices_of(list: &[u8], name: &[u8; 16], block_size: u32) -> Result<Vec<bool>, Sense> {
    if list.len() > usize::from(MAX_DEVICES) * DEVICE_LEN {
        return Err(Sense::new(Key::IllegalRequest, TOO_MANY_DEVICES));
    }
    let mut devices = Vec::new();
    for (device, at) in list.chunks(DEVICE_LEN).zip((HEADER..).step_by(DEVICE_LEN)) {
        let wrong = |byte: usize| Err(Sense::invalid_parameter(u16::try_from(at + byte).unwrap_or(u16::MAX)));
        if device[0] != IDENTIFICATION {
            return Err(Sense::new(Key::IllegalRequest, UNSUPPORTED_DEVICE));
        }
        if device.len() < DEVICE_LEN {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        // LU ID TYPE: not that of a logical unit number (SPC-3).
        if device[1] & 0xc0 != 0 {
            return wrong(1);
        }
        let designator_len = usize::from(device[7]);
        if designator_len > 20 {
            return wrong(7);
        }
        // CODE SET, ASSOCIATION with DESIGNATOR TYPE: those of the NAA designator in VPD page 83h.
        // NUL and other types of device are not this unit.
        let ours = device[1] == 0 && device[4] & 0x0f == 0x01 && device[5] & 0x3f == 0x03;
        let named = ours && device[8..8 + designator_len] == *name;
        // DISK BLOCK LENGTH: that of the device the descriptor names; another's is not for us to know.
        if named && u32_at(device, 28) & 0x00ff_ffff != block_size {
            return wrong(29);
        }
        devices.push(named);
    }
    Ok(devices)
}

fn segments_of(
    list: &[u8],
    list_at: usize,
    devices: &[bool],
    block_size: u32,
) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    let mut rest = list;
    while let Some(&kind) = rest.first() {
        let number = u16::try_from(segments.len()).unwrap_or(u16::MAX);
        if number == MAX_SEGMENTS {
            return Err(Sense::new(Key::IllegalRequest, TOO_MANY_SEGMENTS));
        }
        let at = list_at + (list.len() - rest.len());
        let wrong = |byte: usize| Sense::invalid_parameter(u16::try_from(at + byte).unwrap_or(u16::MAX));
        let len = match kind {
            BLOCK_TO_BLOCK => BLOCK_TO_BLOCK_LEN,
            BYTES_TO_BYTES => BYTES_TO_BYTES_LEN,
            _ => return Err(Sense::new(Key::IllegalRequest, UNSUPPORTED_SEGMENT)),
        };
        let Some((segment, behind)) = rest.split_at_checked(len) else {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        };
        rest = behind;
        if usize::from(u16_at(segment, 2)) != len - 4 {
            return Err(wrong(2));
        }
        let (source, destination, bytes) = if kind == BLOCK_TO_BLOCK {
            let block = u64::from(block_size);
            let byte = |at| u64_at(segment, at).checked_mul(block);
            (byte(12), byte(20), u64::from(u16_at(segment, 10)) * block)
        } else {
            offsets(segment, block_size).map_err(wrong)?
        };
        if bytes > u64::from(MAX_SEGMENT) {
            return Err(wrong(if kind == BLOCK_TO_BLOCK { 10 } else { 8 }));
        }
        let is_ours = |at| devices.get(usize::from(u16_at(segment, at))).copied() == Some(true);
        match (source, destination) {
            (Some(source), Some(destination)) if is_ours(4) && is_ours(6) => {
                segments.push(Segment { source, destination, len: bytes });
            }
            _ => return Err(not_reachable(number)),
        }
    }
    Ok(segments)
}

/// Source and destination, if they can be said in bytes, and the length of a segment with byte offsets; or the byte
/// of it that is wrong. Parts of blocks are not copied.
#[allow(clippy::type_complexity, reason = "two addresses and a length")]
fn offsets(segment: &[u8], block_size: u32) -> Result<(Option<u64>, Option<u64>, u64), usize> {
    for at in [8, 28, 30] {
        let value = if at == 8 { u32_at(segment, 8) } else { u16_at(segment, at).into() };
        if !value.is_multiple_of(block_size) {
            return Err(at);
        }
    }
    let byte = |lba, offset| {
        let start = u64_at(segment, lba).checked_mul(u64::from(block_size))?;
        start.checked_add(u16_at(segment, offset).into())
    };
    Ok((byte(12, 28), byte(20, 30), u32_at(segment, 8).into()))
}

/// COPY TARGET DEVICE NOT REACHABLE: no such device, or no such blocks on it.
pub fn not_reachable(segment: u16) -> Sense {
    Sense::copy_aborted(Code(0x0d, 0x02), segment)
}

/// THIRD PARTY DEVICE FAILURE: reading or writing failed.
pub fn failed(segment: u16) -> Sense {
    Sense::copy_aborted(Code(0x0d, 0x01), segment)
}

/// Which of the results of copies RECEIVE COPY RESULTS asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyResults {
    /// COPY STATUS of the copy with this list identifier.
    Status(u8),
    /// OPERATING PARAMETERS.
    OperatingParameters,
    /// FAILED SEGMENT DETAILS of the copy with this list identifier.
    FailedSegmentDetails(u8),
}

/// How far a copy is or came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Segments that are done.
    pub segments: u16,
    /// Bytes written.
    pub bytes: u64,
}

/// What a copy has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// In progress.
    Running,
    /// Completed without errors.
    Good,
    /// Completed with errors: status and sense.
    Failed(u8, Option<Sense>),
}

/// Appends COPY STATUS data.
pub fn status(state: CopyState, progress: Progress, out: &mut Vec<u8>) {
    let code = match state {
        CopyState::Running => 0x00,
        CopyState::Good => 0x01,
        CopyState::Failed(..) => 0x02,
    };
    // TRANSFER COUNT UNITS: bytes as long as the count can say them, then mebibytes.
    let (units, count) = match u32::try_from(progress.bytes) {
        Ok(bytes) => (0x00, bytes),
        Err(_) => (0x02, u32::try_from(progress.bytes >> 20).unwrap_or(u32::MAX)),
    };
    out.extend_from_slice(&[0, 0, 0, 8, code]);
    out.extend_from_slice(&progress.segments.to_be_bytes());
    out.push(units);
    out.extend_from_slice(&count.to_be_bytes());
}

/// Appends FAILED SEGMENT DETAILS data: that of a copy which did not fail is empty.
pub fn failed_segment_details(state: CopyState, out: &mut Vec<u8>) {
    let CopyState::Failed(status, sense) = state else {
        out.extend_from_slice(&[0; 4]);
        return;
    };
    let start = out.len();
    out.resize(start + 56, 0);
    out.extend_from_slice(&[status, 0, 0, 0]);
    if let Some(sense) = sense {
        sense.fixed(out);
    }
    let sense_len = u16::try_from(out.len() - start - 60).unwrap_or(u16::MAX);
    out[start + 58..start + 60].copy_from_slice(&sense_len.to_be_bytes());
    let available = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&available.to_be_bytes());
}

/// Appends OPERATING PARAMETERS data.
pub fn operating_parameters(block_size: u32, out: &mut Vec<u8>) {
    let kinds = [BLOCK_TO_BLOCK, BYTES_TO_BYTES, IDENTIFICATION];
    let start = out.len();
    out.resize(start + 44, 0);
    let data = &mut out[start..];
    data[4] = 0x01; // SNLID: a list identifier is not needed
    data[8..10].copy_from_slice(&MAX_DEVICES.to_be_bytes());
    data[10..12].copy_from_slice(&MAX_SEGMENTS.to_be_bytes());
    data[12..16].copy_from_slice(&MAX_LISTS.to_be_bytes());
    data[16..20].copy_from_slice(&MAX_SEGMENT.to_be_bytes());
    // No inline data, no held data, no streams.
    data[34..36].copy_from_slice(&u16::from(MAX_COPIES).to_be_bytes());
    data[36] = MAX_COPIES;
    data[37] = u8::try_from(block_size.ilog2()).unwrap_or(0); // DATA SEGMENT GRANULARITY
    data[43] = u8::try_from(kinds.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&kinds);
    let available = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&available.to_be_bytes());
}

#[cfg(test)]
mod tests;
