//! REPORT SUPPORTED OPERATION CODES data (SPC-4, the command's clause), from the opcode table.

use super::command::Selection;
use super::opcode::{Row, TABLE};
use super::sense::Sense;

/// Command timeouts descriptor (SPC-4, same clause): its length, and no time-outs indicated.
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// CTDP in a command descriptor, in the one-command format, and SERVACTV.
const CTDP: u8 = 0x02;
const CTDP_ONE: u8 = 0x80;
const SERVACTV: u8 = 0x01;

/// SUPPORT: not supported; supported as the standard has it.
const NOT_SUPPORTED: u8 = 0x01;
const SUPPORTED: u8 = 0x03;

/// Appends what was asked for.
pub fn report(selection: Selection, timeouts: bool, out: &mut Vec<u8>) -> Result<(), Sense> {
    match selection {
        Selection::All => push_all(timeouts, out),
        Selection::Opcode(opcode) => {
            let row = TABLE.iter().find(|row| row.opcode() == opcode);
            if row.is_some_and(|row| row.service_action().is_some()) {
                return Err(Sense::invalid_cdb_field(2, Some(2)));
            }
            push_one(row, timeouts, out);
        }
        Selection::ServiceAction(opcode, action) => {
            if TABLE.iter().any(|row| row.opcode() == opcode && row.service_action().is_none()) {
                return Err(Sense::invalid_cdb_field(2, Some(2)));
            }
            push_one(find(opcode, action), timeouts, out);
        }
        Selection::Either(opcode, action) => push_one(find(opcode, action), timeouts, out),
    }
    Ok(())
}

/// The row of an opcode and service action; the action is 0 where the opcode has none.
fn find(opcode: u8, action: u16) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.opcode() == opcode && u16::from(row.service_action().unwrap_or(0)) == action)
}

fn push_all(timeouts: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    for row in TABLE {
        let action = u16::from(row.service_action().unwrap_or(0)).to_be_bytes();
        let flags =
            if row.service_action().is_some() { SERVACTV } else { 0 } | if timeouts { CTDP } else { 0 };
        out.extend_from_slice(&[row.opcode(), 0, action[0], action[1], 0, flags]);
        out.extend_from_slice(&cdb_len(row));
        if timeouts {
            out.extend_from_slice(&TIMEOUTS);
        }
    }
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn push_one(row: Option<&Row>, timeouts: bool, out: &mut Vec<u8>) {
    let Some(row) = row else {
        // With SUPPORT = 001b all data after byte 1 is undefined.
        out.extend_from_slice(&[0, NOT_SUPPORTED, 0, 0]);
        return;
    };
    out.extend_from_slice(&[0, SUPPORTED | if timeouts { CTDP_ONE } else { 0 }]);
    out.extend_from_slice(&cdb_len(row));
    out.extend_from_slice(row.usage());
    if timeouts {
        out.extend_from_slice(&TIMEOUTS);
    }
}

fn cdb_len(row: &Row) -> [u8; 2] {
    u16::try_from(row.usage().len()).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(selection: Selection, timeouts: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        report(selection, timeouts, &mut out).ok().map(|()| out)
    }

    #[test]
    fn all_commands() {
        let out = ask(Selection::All, false).unwrap();
        assert_eq!(out[..4], [0, 0, 0x01, 0x58]); // 43 * 8
        assert_eq!(out[4..12], [0x00, 0, 0, 0, 0, 0, 0, 6]);
        assert_eq!(out.len(), 4 + 43 * 8);
        assert_eq!(out[4..12], [0x00, 0, 0, 0, 0, 0, 0, 6]); // TEST UNIT READY
        let read_16 = [0x88, 0, 0, 0, 0, 0, 0, 16];
        let report_groups = [0xa3, 0, 0, 0x0a, 0, 1, 0, 12]; // SERVACTV
        for descriptor in [read_16, report_groups] {
            assert_eq!(out[4..].chunks(8).filter(|d| *d == descriptor).count(), 1);
        }
    }

    #[test]
    fn all_commands_with_timeouts() {
        let out = ask(Selection::All, true).unwrap();
        assert_eq!(out[..4], [0, 0, 0x03, 0x5c]); // 43 * 20
        assert_eq!(out.len(), 4 + 43 * 20);
        assert_eq!(out[4..24], [0x00, 0, 0, 0, 0, 2, 0, 6, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn one_command() {
        let read_10 = [0, 0x03, 0, 10, 0x28, 0x1a, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0x00];
        assert_eq!(ask(Selection::Opcode(0x28), false).unwrap(), read_10);
        assert_eq!(ask(Selection::Either(0x28, 0), false).unwrap(), read_10);
        let report_groups = [0, 0x83, 0, 12, 0xa3, 0x2a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
        let out = ask(Selection::ServiceAction(0xa3, 0x0a), true).unwrap();
        assert_eq!(out[..16], report_groups);
        assert_eq!(out[16..], [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn unknown_commands_are_not_supported() {
        for selection in [
            Selection::Opcode(0xc0),
            Selection::ServiceAction(0xc0, 1),
            Selection::ServiceAction(0xa3, 0x05),
            Selection::ServiceAction(0xa3, 0x010a),
            Selection::Either(0x28, 1),
            Selection::Either(0xa3, 0),
        ] {
            assert_eq!(ask(selection, true).unwrap(), [0, 0x01, 0, 0], "{selection:?}");
        }
    }

    #[test]
    fn options_must_fit_the_opcode() {
        assert_eq!(ask(Selection::Opcode(0xa3), false), None);
        assert_eq!(ask(Selection::ServiceAction(0x28, 0), false), None);
    }
}
