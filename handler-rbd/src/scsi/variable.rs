//! Variable-length commands (SPC-4, "Variable type data format"): opcode 7Fh, the service action in bytes 8 and 9.
//!
//! A table of their own, beside [`opcode::TABLE`](super::opcode::TABLE), so that decoding the commands that initiators
//! send all the time need not look beyond 16 bytes. The same law: a bit that the usage data does not name
//! must not be set.

use super::bytes::{u16_at, u32_at, u64_at};
use super::command::Command;
use super::sense::Sense;
use super::{Blocks, Lba};

/// OPERATION CODE of all of them.
pub const OPCODE: u8 = 0x7f;
/// Their length here.
const LEN: usize = 32;
/// What ADDITIONAL CDB LENGTH counts begins here.
const ADDITIONAL: usize = 8;

/// A command of 32 bytes.
#[derive(Debug)]
pub struct LongRow {
    /// The command's name in the standard.
    pub name: &'static str,
    /// SERVICE ACTION.
    pub service_action: u16,
    /// CDB usage data.
    pub usage: [u8; LEN],
    parse: fn(&[u8; LEN]) -> Command,
}

/// Every one, by service action.
#[rustfmt::skip]
pub const TABLE: &[LongRow] = &[
    LongRow {
        name: "GET LBA STATUS(32)",
        service_action: 0x0012,
        usage: [
            OPCODE, 0, 0, 0, 0, 0, 0x1f, 0x18, 0x00, 0x12, 0xff, 0, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        ],
        parse: get_lba_status_32,
    },
];

/// Reads a CDB whose opcode is 7Fh; what follows its length is ignored.
pub(super) fn decode(cdb: &[u8]) -> Result<Command, Sense> {
    // The kernel copies as many bytes as ADDITIONAL CDB LENGTH says; it may say fewer than a service action needs.
    let action = u16_at(cdb, 8);
    let Some(row) = TABLE.iter().find(|row| row.service_action == action && cdb.len() > ADDITIONAL + 1)
    else {
        return Err(if cdb.len() > ADDITIONAL + 1 {
            Sense::invalid_cdb_field(8, Some(7))
        } else {
            Sense::INVALID_OPCODE
        });
    };
    let Some(cdb) = cdb.first_chunk::<LEN>().filter(|cdb| usize::from(cdb[7]) == LEN - ADDITIONAL) else {
        return Err(Sense::invalid_cdb_field(7, Some(7)));
    };
    for ((byte, usage), at) in cdb.iter().zip(row.usage).zip(0_u16..) {
        // Opcode, length and service action are the row's already.
        let wrong = byte & !usage;
        if wrong != 0 && at != 0 {
            return Err(Sense::invalid_cdb_field(at, u8::try_from(wrong.ilog2()).ok()));
        }
    }
    Ok((row.parse)(cdb))
}

fn get_lba_status_32(cdb: &[u8; LEN]) -> Command {
    Command::GetLbaStatus {
        lba: Lba(u64_at(cdb, 12)),
        scan: Blocks(u32_at(cdb, 20).into()),
        allocation: u32_at(cdb, 28),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get_lba_status() -> [u8; 32] {
        let mut cdb = [0; 32];
        (cdb[0], cdb[7], cdb[9]) = (0x7f, 0x18, 0x12);
        cdb[12..20].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        cdb[20..24].copy_from_slice(&[9, 10, 11, 12]);
        cdb[28..].copy_from_slice(&[13, 14, 15, 16]);
        cdb
    }

    fn refused(cdb: &[u8]) -> ([u8; 3], u8, u16) {
        let sense = super::super::decode(cdb).unwrap_err().to_bytes();
        ([sense[2], sense[12], sense[13]], sense[15], u16::from_be_bytes([sense[16], sense[17]]))
    }

    #[test]
    fn fields_are_where_the_standard_puts_them() {
        let lba = Lba(0x0102_0304_0506_0708);
        let command = Command::GetLbaStatus { lba, scan: Blocks(0x090a_0b0c), allocation: 0x0d0e_0f10 };
        assert_eq!(super::super::decode(&get_lba_status()), Ok(command));
        let mut longer = [0xff; 40];
        longer[..32].copy_from_slice(&get_lba_status());
        assert_eq!(super::super::decode(&longer), Ok(command));
        let mut typed = get_lba_status();
        typed[10] = 2; // REPORT TYPE: ignored, as RTP = 0 says
        assert_eq!(super::super::decode(&typed), Ok(command));
    }

    #[test]
    fn refusals() {
        let field = [5, 0x24, 0];
        let with = |at: usize, value| {
            let mut cdb = get_lba_status();
            cdb[at] = value;
            cdb
        };
        assert_eq!(refused(&with(9, 0x09)), (field, 0xcf, 8)); // READ(32)
        assert_eq!(refused(&with(7, 0x17)), (field, 0xcf, 7));
        assert_eq!(refused(&with(1, 0x04)), (field, 0xca, 1)); // NACA
        assert_eq!(refused(&with(11, 0x80)), (field, 0xcf, 11));
        assert_eq!(refused(&with(27, 0x01)), (field, 0xc8, 27)); // ELEMENT IDENTIFIER
        assert_eq!(refused(&get_lba_status()[..31]), (field, 0xcf, 7));
        assert_eq!(refused(&[0x7f; 9]).0, [5, 0x20, 0]);
        assert_eq!(refused(&[0x7f]).0, [5, 0x20, 0]);
    }
}
