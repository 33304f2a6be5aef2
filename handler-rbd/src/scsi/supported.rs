//! REPORT SUPPORTED OPERATION CODES data (SPC-4, the command's clause), from the opcode table.

use super::command::Selection;
use super::opcode::{Described, Need, described};
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

/// Whether the answer depends on the logical unit having this.
pub fn depends_on(selection: Selection, need: Need) -> bool {
    match selection {
        Selection::All => true,
        // An opcode without service actions.
        Selection::Opcode(opcode) => find(opcode, 0).is_some_and(|row| row.need == need),
        Selection::ServiceAction(opcode, action) | Selection::Either(opcode, action) => {
            find(opcode, action).is_some_and(|row| row.need == need)
        }
    }
}

/// Appends what was asked for, about a logical unit that has what `has` says.
pub fn report(
    selection: Selection,
    timeouts: bool,
    has: &dyn Fn(Need) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), Sense> {
    let there = |row: &Described| has(row.need);
    match selection {
        Selection::All => push_all(described().filter(there), timeouts, out),
        Selection::Opcode(opcode) => {
            let row = described().filter(there).find(|row| row.opcode == opcode);
            if row.is_some_and(|row| row.service_action.is_some()) {
                return Err(Sense::invalid_cdb_field(2, Some(2)));
            }
            push_one(row, timeouts, out);
        }
        Selection::ServiceAction(opcode, action) => {
            let none = |row: Described| row.opcode == opcode && row.service_action.is_none();
            if described().filter(there).any(none) {
                return Err(Sense::invalid_cdb_field(2, Some(2)));
            }
            push_one(find(opcode, action).filter(there), timeouts, out);
        }
        Selection::Either(opcode, action) => push_one(find(opcode, action).filter(there), timeouts, out),
    }
    Ok(())
}

/// The row of an opcode and service action; the action is 0 where the opcode has none.
fn find(opcode: u8, action: u16) -> Option<Described> {
    described().find(|row| row.opcode == opcode && row.service_action.unwrap_or(0) == action)
}

fn push_all(rows: impl Iterator<Item = Described>, timeouts: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    for row in rows {
        let action = row.service_action.unwrap_or(0).to_be_bytes();
        let flags = if row.service_action.is_some() { SERVACTV } else { 0 } | if timeouts { CTDP } else { 0 };
        out.extend_from_slice(&[row.opcode, 0, action[0], action[1], 0, flags]);
        out.extend_from_slice(&cdb_len(row));
        if timeouts {
            out.extend_from_slice(&TIMEOUTS);
        }
    }
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn push_one(row: Option<Described>, timeouts: bool, out: &mut Vec<u8>) {
    let Some(row) = row else {
        // With SUPPORT = 001b all data after byte 1 is undefined.
        out.extend_from_slice(&[0, NOT_SUPPORTED, 0, 0]);
        return;
    };
    out.extend_from_slice(&[0, SUPPORTED | if timeouts { CTDP_ONE } else { 0 }]);
    out.extend_from_slice(&cdb_len(row));
    out.extend_from_slice(row.usage);
    if timeouts {
        out.extend_from_slice(&TIMEOUTS);
    }
}

fn cdb_len(row: Described) -> [u8; 2] {
    u16::try_from(row.usage.len()).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(selection: Selection, timeouts: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        report(selection, timeouts, &|_| true, &mut out).ok().map(|()| out)
    }

    #[test]
    fn all_commands() {
        let out = ask(Selection::All, false).unwrap();
        assert_eq!(out[..4], [0, 0, 0x01, 0x98]); // 51 * 8
        assert_eq!(out[4..12], [0x00, 0, 0, 0, 0, 0, 0, 6]);
        assert_eq!(out.len(), 4 + 51 * 8);
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
        assert_eq!(out[..4], [0, 0, 0x03, 0xfc]); // 51 * 20
        assert_eq!(out.len(), 4 + 51 * 20);
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
    fn what_the_unit_lacks_is_not_there() {
        let without = |need, selection| {
            let mut out = Vec::new();
            report(selection, false, &|asked| asked != need, &mut out).unwrap();
            out
        };
        let not_supported = [0, 0x01, 0, 0];
        for (need, opcode) in
            [(Need::CompareAndWrite, 0x89), (Need::CompareAndWrite, 0x8b), (Need::AtomicWrite, 0x9c)]
        {
            assert_eq!(without(need, Selection::Opcode(opcode)), not_supported);
            assert_eq!(without(need, Selection::Either(opcode, 0)), not_supported);
            assert_eq!(without(Need::Port, Selection::Opcode(opcode))[..5], [0, 3, 0, 16, opcode]);
            assert!(
                depends_on(Selection::Opcode(opcode), need) && depends_on(Selection::Either(opcode, 0), need)
            );
        }
        let groups = Selection::ServiceAction(0xa3, 0x0a);
        assert_eq!(without(Need::Port, groups), not_supported);
        assert_eq!(without(Need::Port, Selection::Either(0xa3, 0x0a)), not_supported);
        assert!(depends_on(groups, Need::Port) && depends_on(Selection::All, Need::Port));
        assert!(
            !depends_on(Selection::Opcode(0x28), Need::Port) && !depends_on(groups, Need::CompareAndWrite)
        );
        assert!(
            without(Need::CompareAndWrite, Selection::All)[4..]
                .chunks(8)
                .all(|d| d[0] != 0x89 && d[0] != 0x8b)
        );
        assert!(without(Need::Port, Selection::All)[4..].chunks(8).all(|d| (d[0], d[3]) != (0xa3, 0x0a)));
        assert!(without(Need::Port, Selection::All)[4..].chunks(8).any(|d| (d[0], d[3]) == (0xa3, 0x0c)));
    }

    #[test]
    fn options_must_fit_the_opcode() {
        assert_eq!(ask(Selection::Opcode(0xa3), false), None);
        assert_eq!(ask(Selection::ServiceAction(0x28, 0), false), None);
    }
}
