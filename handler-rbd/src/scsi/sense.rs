//! Sense data: why a command ended with CHECK CONDITION (SPC-4, "Sense data").
//!
//! Always fixed format, current: the Control mode page says D_SENSE = 0. The buffer is built in full, zero
//! padded, because the kernel copies all of it to the initiator whatever its length byte says.

use super::Lba;

/// Length of the kernel's sense buffer (TCMU_SENSE_BUFFERSIZE).
pub const LEN: usize = 96;

/// SENSE KEY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Key {
    /// Nothing to report.
    NoSense = 0x0,
    /// Cannot be accessed now.
    NotReady = 0x2,
    /// The medium failed.
    MediumError = 0x3,
    /// The device, or this program, failed.
    HardwareError = 0x4,
    /// The initiator asked for something wrong.
    IllegalRequest = 0x5,
    /// Something changed behind the initiator's back.
    UnitAttention = 0x6,
    /// The medium may not be written.
    DataProtect = 0x7,
    /// The command was given up.
    AbortedCommand = 0xb,
    /// A copy ended early.
    CopyAborted = 0xa,
    /// The data compared differs.
    Miscompare = 0xe,
}

/// ADDITIONAL SENSE CODE and its QUALIFIER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8, pub u8);

/// What the bytes beyond key and code say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    None,
    /// INFORMATION, with VALID = 1.
    Information(u32),
    /// COMMAND-SPECIFIC INFORMATION: the number of a copy's segment.
    Segment(u16),
    /// FIELD POINTER: in the CDB or the parameter list, a byte and perhaps a bit.
    Field {
        in_cdb: bool,
        byte: u16,
        bit: Option<u8>,
    },
    /// PROGRESS INDICATION: so many parts of 65536 are done.
    Progress(u16),
}

/// A sense key, a code and a detail. Small enough to be returned in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    key: Key,
    code: Code,
    detail: Detail,
}

impl Sense {
    /// NO SENSE.
    pub const NONE: Self = Self::new(Key::NoSense, Code(0x00, 0x00));
    /// LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED.
    pub const MANUAL_INTERVENTION: Self = Self::new(Key::NotReady, Code(0x04, 0x03));
    /// UNRECOVERED READ ERROR.
    pub const READ_ERROR: Self = Self::new(Key::MediumError, Code(0x11, 0x00));
    /// WRITE ERROR.
    pub const WRITE_ERROR: Self = Self::new(Key::MediumError, Code(0x0c, 0x00));
    /// INTERNAL TARGET FAILURE.
    pub const INTERNAL_FAILURE: Self = Self::new(Key::HardwareError, Code(0x44, 0x00));
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPCODE: Self = Self::new(Key::IllegalRequest, Code(0x20, 0x00));
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Self = Self::new(Key::IllegalRequest, Code(0x21, 0x00));
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH: Self = Self::new(Key::IllegalRequest, Code(0x1a, 0x00));
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the transport's length contradicts the CDB's.
    pub const TRANSFER_LENGTH: Self = Self::new(Key::IllegalRequest, Code(0x0e, 0x03));
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const NO_SAVED_PARAMETERS: Self = Self::new(Key::IllegalRequest, Code(0x39, 0x00));
    /// CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: Self = Self::new(Key::UnitAttention, Code(0x2a, 0x09));
    /// Given up at the initiator's own wish; nothing more to say.
    pub const ABORTED: Self = Self::new(Key::AbortedCommand, Code(0x00, 0x00));
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: Self = Self::new(Key::DataProtect, Code(0x27, 0x00));
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const SPACE_ALLOCATION_FAILED: Self = Self::new(Key::DataProtect, Code(0x27, 0x07));

    /// MEDIUM FORMAT CORRUPTED.
    pub const FORMAT_CORRUPTED: Self = Self::new(Key::MediumError, Code(0x31, 0x00));
    /// FORMAT COMMAND FAILED.
    pub const FORMAT_FAILED: Self = Self::new(Key::MediumError, Code(0x31, 0x01));
    /// SANITIZE COMMAND FAILED.
    pub const SANITIZE_FAILED: Self = Self::new(Key::MediumError, Code(0x31, 0x03));

    /// Sense without further detail.
    pub const fn new(key: Key, code: Code) -> Self {
        Self { key, code, detail: Detail::None }
    }

    /// INVALID FIELD IN CDB, pointing at a byte and, if known, the highest bit of the field in it.
    pub const fn invalid_cdb_field(byte: u16, bit: Option<u8>) -> Self {
        let detail = Detail::Field { in_cdb: true, byte, bit };
        Self { key: Key::IllegalRequest, code: Code(0x24, 0x00), detail }
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at a byte of the list.
    pub const fn invalid_parameter(byte: u16) -> Self {
        let detail = Detail::Field { in_cdb: false, byte, bit: None };
        Self { key: Key::IllegalRequest, code: Code(0x26, 0x00), detail }
    }

    /// LOGICAL UNIT NOT READY, FORMAT IN PROGRESS, and how far it is.
    pub const fn format_in_progress(progress: u16) -> Self {
        Self { key: Key::NotReady, code: Code(0x04, 0x04), detail: Detail::Progress(progress) }
    }

    /// LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS, and how far it is.
    pub const fn sanitize_in_progress(progress: u16) -> Self {
        Self { key: Key::NotReady, code: Code(0x04, 0x1b), detail: Detail::Progress(progress) }
    }

    /// MISCOMPARE DURING VERIFY OPERATION, and where. INFORMATION is a byte of the compared data for COMPARE AND
    /// WRITE (SBC-3, "COMPARE AND WRITE command"), otherwise an LBA (SBC-3, "Error reporting").
    pub fn miscompare(information: u64) -> Self {
        // INFORMATION has four bytes here; what does not fit leaves VALID at 0.
        let detail = u32::try_from(information).map_or(Detail::None, Detail::Information);
        Self { key: Key::Miscompare, code: Code(0x1d, 0x00), detail }
    }

    /// COPY ABORTED while this segment was being copied (SPC-4, "Errors detected during processing of segment
    /// descriptors").
    pub(super) const fn copy_aborted(code: Code, segment: u16) -> Self {
        Self { key: Key::CopyAborted, code, detail: Detail::Segment(segment) }
    }

    /// The same with the first block that may be bad in INFORMATION, if it is the medium's fault (SBC-3, "Error
    /// reporting"). INFORMATION has four bytes in fixed format; what does not fit leaves VALID at 0.
    pub fn at(self, lba: Lba) -> Self {
        match (self.key, self.detail, u32::try_from(lba.0)) {
            (Key::MediumError, Detail::None, Ok(lba)) => Self { detail: Detail::Information(lba), ..self },
            _ => self,
        }
    }

    /// The sense key.
    pub const fn key(self) -> Key {
        self.key
    }

    /// The additional sense code and qualifier.
    pub const fn code(self) -> Code {
        self.code
    }

    /// Fixed format.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        bytes[7] = FIXED_LEN - 8;
        bytes[12] = self.code.0;
        bytes[13] = self.code.1;
        match self.detail {
            Detail::None => {}
            Detail::Information(value) => {
                bytes[0] |= 0x80;
                bytes[3..7].copy_from_slice(&value.to_be_bytes());
            }
            Detail::Segment(number) => bytes[10..12].copy_from_slice(&number.to_be_bytes()),
            Detail::Field { in_cdb, byte, bit } => {
                bytes[15] = SKSV | if in_cdb { 0x40 } else { 0 } | bit.map_or(0, |bit| 0x08 | (bit & 7));
                bytes[16..18].copy_from_slice(&byte.to_be_bytes());
            }
            Detail::Progress(progress) => {
                bytes[15] = SKSV;
                bytes[16..18].copy_from_slice(&progress.to_be_bytes());
            }
        }
        bytes
    }

    /// Fixed format without the padding, as REQUEST SENSE returns it.
    pub fn fixed(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes()[..usize::from(FIXED_LEN)]);
    }

    /// Descriptor format, for REQUEST SENSE with DESC = 1. Nothing that REQUEST SENSE reports here has a detail
    /// other than progress.
    pub fn descriptor(self, out: &mut Vec<u8>) {
        let header = |len| [0x72, self.key as u8, self.code.0, self.code.1, 0, 0, 0, len];
        let Detail::Progress(progress) = self.detail else { return out.extend_from_slice(&header(0)) };
        let [high, low] = progress.to_be_bytes();
        out.extend_from_slice(&header(8));
        out.extend_from_slice(&[0x02, 0x06, 0, 0, SKSV, high, low, 0]); // sense key specific
    }
}

/// The sense key specific bytes are valid.
const SKSV: u8 = 0x80;

/// Fixed format up to and including the sense key specific bytes.
const FIXED_LEN: u8 = 18;
const _: () = assert!((FIXED_LEN as usize) <= LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_sense_is_eighteen_bytes_of_fixed_format_and_zeros() {
        let mut expected = [0; 96];
        expected[0] = 0x70; // current, fixed
        expected[2] = 0x05; // ILLEGAL REQUEST
        expected[7] = 0x0a; // ten more bytes
        expected[12] = 0x20; // INVALID COMMAND OPERATION CODE
        assert_eq!(Sense::INVALID_OPCODE.to_bytes(), expected);
    }

    #[test]
    fn miscompare_carries_its_offset() {
        let bytes = Sense::miscompare(0x1fe).to_bytes();
        assert_eq!(bytes[..14], [0xf0, 0, 0x0e, 0, 0, 0x01, 0xfe, 0x0a, 0, 0, 0, 0, 0x1d, 0x00]);
        assert_eq!(bytes[14..], [0; 82]);
        let beyond = Sense::miscompare(1 << 32).to_bytes();
        assert_eq!(beyond[..8], [0x70, 0, 0x0e, 0, 0, 0, 0, 0x0a]);
    }

    #[test]
    fn field_pointers_say_where() {
        let bytes = Sense::invalid_cdb_field(1, Some(7)).to_bytes();
        assert_eq!(bytes[12..18], [0x24, 0x00, 0, 0xcf, 0x00, 0x01]); // SKSV, C/D, BPV, bit 7; byte 1
        let bytes = Sense::invalid_parameter(0x0118).to_bytes();
        assert_eq!(bytes[12..18], [0x26, 0x00, 0, 0x80, 0x01, 0x18]); // SKSV; byte 0118h
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        for (sense, key, asc, ascq) in [
            (Sense::NONE, 0x0, 0x00, 0x00),
            (Sense::MANUAL_INTERVENTION, 0x2, 0x04, 0x03),
            (Sense::READ_ERROR, 0x3, 0x11, 0x00),
            (Sense::WRITE_ERROR, 0x3, 0x0c, 0x00),
            (Sense::INTERNAL_FAILURE, 0x4, 0x44, 0x00),
            (Sense::INVALID_OPCODE, 0x5, 0x20, 0x00),
            (Sense::LBA_OUT_OF_RANGE, 0x5, 0x21, 0x00),
            (Sense::PARAMETER_LIST_LENGTH, 0x5, 0x1a, 0x00),
            (Sense::TRANSFER_LENGTH, 0x5, 0x0e, 0x03),
            (Sense::NO_SAVED_PARAMETERS, 0x5, 0x39, 0x00),
            (Sense::CAPACITY_CHANGED, 0x6, 0x2a, 0x09),
            (Sense::WRITE_PROTECTED, 0x7, 0x27, 0x00),
            (Sense::SPACE_ALLOCATION_FAILED, 0x7, 0x27, 0x07),
            (Sense::FORMAT_CORRUPTED, 0x3, 0x31, 0x00),
            (Sense::FORMAT_FAILED, 0x3, 0x31, 0x01),
            (Sense::SANITIZE_FAILED, 0x3, 0x31, 0x03),
        ] {
            let bytes = sense.to_bytes();
            assert_eq!((bytes[2], bytes[12], bytes[13]), (key, asc, ascq), "{sense:?}");
        }
    }

    #[test]
    fn request_sense_formats() {
        let mut out = Vec::new();
        Sense::CAPACITY_CHANGED.fixed(&mut out);
        assert_eq!(out, [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 0x09, 0, 0, 0, 0]);
        out.clear();
        Sense::CAPACITY_CHANGED.descriptor(&mut out);
        assert_eq!(out, [0x72, 6, 0x2a, 0x09, 0, 0, 0, 0]);
    }

    #[test]
    fn progress_in_both_formats() {
        let sense = Sense::sanitize_in_progress(0x8001);
        let mut out = Vec::new();
        sense.fixed(&mut out);
        assert_eq!(out, [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x1b, 0, 0x80, 0x80, 0x01]);
        out.clear();
        Sense::format_in_progress(0x0102).descriptor(&mut out);
        assert_eq!(out, [0x72, 2, 0x04, 0x04, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 1, 2, 0]);
    }
}
