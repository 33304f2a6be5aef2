//! Vital product data pages (SPC-4 and SBC-3, "Vital product data parameters").
//!
//! Pages 80h and 83h are the unit's name. Multipath, libvirt and the initiators' databases keep it, so its
//! bytes are those that tcmu-runner answers, odd ones included.

use super::identity::{Identity, TargetPort};
use super::inquiry::VENDOR;

/// Supported VPD Pages.
pub const SUPPORTED_PAGES: u8 = 0x00;
/// Unit Serial Number.
pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
/// Device Identification.
pub const DEVICE_IDENTIFICATION: u8 = 0x83;
/// Extended INQUIRY Data.
pub const EXTENDED_INQUIRY_DATA: u8 = 0x86;
/// Block Limits.
pub const BLOCK_LIMITS: u8 = 0xb0;
/// Block Device Characteristics.
pub const BLOCK_DEVICE_CHARACTERISTICS: u8 = 0xb1;
/// Logical Block Provisioning.
pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xb2;

/// What the Block Limits page says, in logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// MAXIMUM COMPARE AND WRITE LENGTH.
    pub max_compare_and_write: u8,
    /// MAXIMUM and OPTIMAL TRANSFER LENGTH.
    pub max_transfer: u32,
    /// MAXIMUM UNMAP LBA COUNT.
    pub max_unmap: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
    pub max_unmap_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY.
    pub unmap_granularity: u32,
    /// MAXIMUM ATOMIC TRANSFER LENGTH, ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY, all in one: what
    /// they promise together is then true of each write that fits them, and of no longer one.
    pub atomic_write: u32,
}

/// Page 00h.
pub fn supported_pages(out: &mut Vec<u8>) {
    page(SUPPORTED_PAGES, out, |out| {
        out.extend_from_slice(&[
            SUPPORTED_PAGES,
            UNIT_SERIAL_NUMBER,
            DEVICE_IDENTIFICATION,
            EXTENDED_INQUIRY_DATA,
            BLOCK_LIMITS,
            BLOCK_DEVICE_CHARACTERISTICS,
            LOGICAL_BLOCK_PROVISIONING,
        ]);
    });
}

/// Page 80h: the serial number and a zero byte, as tcmu-runner counts it.
pub fn unit_serial_number(identity: &Identity, out: &mut Vec<u8>) {
    page(UNIT_SERIAL_NUMBER, out, |out| {
        out.extend_from_slice(identity.unit_serial.as_bytes());
        out.push(0);
    });
}

/// Page 83h.
pub fn device_identification(identity: &Identity, out: &mut Vec<u8>) {
    page(DEVICE_IDENTIFICATION, out, |out| {
        // T10 vendor ID based.
        designator([ASCII, T10_VENDOR], out, |out| {
            out.extend_from_slice(VENDOR);
            push_text(&identity.unit_serial, out);
        });
        designator([BINARY, NAA], out, |out| out.extend_from_slice(&naa(&identity.unit_serial)));
        designator([ASCII, VENDOR_SPECIFIC], out, |out| push_text(&identity.config, out));
        if let Some(port) = &identity.port {
            port_designators(port, out);
        }
    });
}

fn port_designators(port: &TargetPort, out: &mut Vec<u8>) {
    let protocol = port.protocol << 4;
    designator([protocol | BINARY, PORT | RELATIVE_PORT], out, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&port.relative_id.to_be_bytes());
    });
    designator([protocol | BINARY, PORT | PORT_GROUP], out, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&port.group_id.to_be_bytes());
    });
    designator([protocol | UTF_8, PORT | NAME_STRING], out, |out| {
        push_name(&port.wwn, &format!(",t,0x{:04x}", port.tpgt), out);
    });
    designator([protocol | UTF_8, DEVICE | NAME_STRING], out, |out| push_name(&port.wwn, "", out));
}

// CODE SET, in the first byte of a designation descriptor (SPC-4, "Device Identification VPD page").
const BINARY: u8 = 0x1;
const ASCII: u8 = 0x2;
const UTF_8: u8 = 0x3;

// DESIGNATOR TYPE, and PIV with ASSOCIATION, in the second.
const VENDOR_SPECIFIC: u8 = 0x0;
const T10_VENDOR: u8 = 0x1;
const NAA: u8 = 0x3;
const RELATIVE_PORT: u8 = 0x4;
const PORT_GROUP: u8 = 0x5;
const NAME_STRING: u8 = 0x8;
const PORT: u8 = 0x90;
const DEVICE: u8 = 0xa0;

/// A designator's length is one byte. The kernel's longest configuration string, 255 bytes, just fits without
/// its zero byte; tcmu-runner overflowed there.
const DESIGNATOR_MAX: usize = 255;

/// Appends a designation descriptor; what does not fit is cut off.
fn designator(head: [u8; 2], out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[head[0], head[1], 0]);
    let at = out.len();
    out.push(0);
    body(out);
    out.truncate(at + 1 + DESIGNATOR_MAX);
    out[at] = u8::try_from(out.len() - at - 1).unwrap_or(u8::MAX);
}

/// Appends text and the zero byte that tcmu-runner counts in.
fn push_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// Appends a SCSI name string: zero terminated and padded to a multiple of four (SPC-4, "SCSI name
/// string designator format").
///
/// 252 bytes at most, the largest multiple of four that the length can say; iSCSI names end at 223.
fn push_name(name: &str, suffix: &str, out: &mut Vec<u8>) {
    const MAX: usize = DESIGNATOR_MAX / 4 * 4;
    let room = MAX - 1 - suffix.len();
    out.extend_from_slice(&name.as_bytes()[..name.len().min(room)]);
    out.extend_from_slice(suffix.as_bytes());
    let len = name.len().min(room) + suffix.len();
    out.resize(out.len() + 4 - len % 4, 0);
}

/// The NAA IEEE Registered Extended designator that the kernel, too, makes of a unit serial: NAA 6, the
/// company identifier 001405h, then the serial's first 25 hexadecimal digits, other characters skipped.
pub fn naa(unit_serial: &str) -> [u8; 16] {
    let mut bytes = [0x60, 0x01, 0x40, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let digits = unit_serial.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok());
    for (position, digit) in (7..32).zip(digits) {
        bytes[position / 2] |= if position % 2 == 0 { digit << 4 } else { digit };
    }
    bytes
}

/// Page 86h: SIMPSUP, and nothing else is so. There is no volatile cache, and for backstores like ours the kernel
/// does not keep the order that ORDERED and HEAD OF QUEUE ask for (`target_handle_task_attr`).
pub fn extended_inquiry_data(out: &mut Vec<u8>) {
    page(EXTENDED_INQUIRY_DATA, out, |out| {
        out.extend_from_slice(&[0, 0x01]);
        out.extend_from_slice(&[0; 58]);
    });
}

/// Page B0h.
pub fn block_limits(limits: &BlockLimits, out: &mut Vec<u8>) {
    page(BLOCK_LIMITS, out, |out| {
        out.extend_from_slice(&[0x01, limits.max_compare_and_write]); // WSNZ
        out.extend_from_slice(&[0, 0]); // OPTIMAL TRANSFER LENGTH GRANULARITY: not reported
        out.extend_from_slice(&limits.max_transfer.to_be_bytes());
        out.extend_from_slice(&limits.max_transfer.to_be_bytes());
        out.extend_from_slice(&[0; 4]); // no PRE-FETCH
        out.extend_from_slice(&limits.max_unmap.to_be_bytes());
        out.extend_from_slice(&limits.max_unmap_descriptors.to_be_bytes());
        out.extend_from_slice(&limits.unmap_granularity.to_be_bytes());
        // UGAVALID. An alignment of one whole granule says the same as 0; tcmu-runner puts it so.
        let alignment = UGAVALID | (limits.unmap_granularity & !UGAVALID);
        out.extend_from_slice(&alignment.to_be_bytes());
        out.extend_from_slice(&u64::from(u32::MAX).to_be_bytes()); // MAXIMUM WRITE SAME LENGTH
        for _ in 0..3 {
            out.extend_from_slice(&limits.atomic_write.to_be_bytes());
        }
        out.extend_from_slice(&[0; 8]); // no ATOMIC BOUNDARY
    });
}

/// UNMAP GRANULARITY ALIGNMENT is valid.
const UGAVALID: u32 = 1 << 31;

/// Page B1h.
pub fn block_device_characteristics(solid_state: bool, out: &mut Vec<u8>) {
    page(BLOCK_DEVICE_CHARACTERISTICS, out, |out| {
        // MEDIUM ROTATION RATE: 0001h is solid state, 0 not reported.
        out.extend_from_slice(&[0, solid_state.into()]);
        // WABEREQ 01b: after SANITIZE, BLOCK ERASE reads succeed.
        out.extend_from_slice(&[0, 0x40]);
        out.extend_from_slice(&[0; 56]);
    });
}

/// Page B2h.
pub fn logical_block_provisioning(out: &mut Vec<u8>) {
    page(LOGICAL_BLOCK_PROVISIONING, out, |out| {
        // LBPU, LBPWS, LBPWS10, LBPRZ. Storage leaves the parts of a discard that are smaller than its
        // granule as they were. LBPRZ = 1 promises zeros only for blocks that became
        // deallocated, and UNMAP may leave any block mapped, so both are true. WRITE SAME promises zeros
        // throughout and is not carried out as a discard.
        out.extend_from_slice(&[0, 0xe4, 0, 0]);
    });
}

/// Appends a page: its header and what `body` appends.
fn page(code: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, code, 0, 0]);
    body(out);
    let len = u16::try_from(out.len() - start - 4).unwrap_or(u16::MAX);
    out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests;
