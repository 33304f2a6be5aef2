//! Any CDB with any data buffer, against storage that fails and reorders.
//!
//! ```text
//!  0  bits 0-1: shape of the disk; 2: a target port; 3: a unit attention; 4-5: length of the data buffer:
//!     the data's, what the CDB moves, that plus a little, or any; 6-7: what note the image has: none, FORMAT UNIT,
//!     SANITIZE, or one that nobody understands
//!  1  bits 0-2: operations side by side, less one; 3: somebody holds a Write Exclusive reservation
//!  2  what the disk is filled with
//!  3  the little, signed                      4  any length, two bytes, little-endian
//!  6  length of the CDB                       7  length of the script
//!  8  CDB, script, data
//! ```

use crate::disk::{Disk, Script};
use crate::drive::{Around, End, drive, resume_erasure, test_unit_ready};
use crate::input::Input;
use crate::oracle::{self, Before, Cdb};
use handler_rbd::lun::{Geometry, LogicalUnit, Outcome};
use handler_rbd::scsi::Command;

/// Longest data buffer; the disks that keep something fit into it.
const BUFFER_MAX: u64 = 320 << 10;

/// Runs one input; how its command ended.
pub fn run(bytes: &[u8]) -> End {
    let mut input = Input::new(bytes);
    let flags = input.byte();
    let around = input.byte();
    let (fan_out, write_exclusive) = (1 + usize::from(around & 7), around & 8 != 0);
    let mut disk = Disk::new(usize::from(flags & 3), input.byte());
    let (little, any) = (input.delta(), input.u16());
    let (cdb_len, script_len) = (input.below(65), input.below(64));
    let (cdb, script) = (input.bytes(cdb_len), input.bytes(script_len));
    let data = input.rest();
    let moves = Cdb::new(cdb).moves(disk.geometry.block_size.into());
    let len = match flags >> 4 & 3 {
        0 => data.len() as u64,
        1 => moves,
        2 => moves.saturating_add_signed(little.into()),
        _ => any.into(),
    };
    let mut buffer = data.to_vec();
    buffer.resize(usize::try_from(len.min(BUFFER_MAX)).unwrap(), 0);
    let mut around = Around { port: flags & 4 != 0, write_exclusive, fan_out, script: Script::new(script) };
    let mut unit = match (NOTES[usize::from(flags >> 6)], flags & 8) {
        ("", 0) => LogicalUnit::new(disk.geometry),
        ("", _) => attentive(&mut disk, cdb, &mut buffer, &mut around),
        (note, _) => return noted(note, &mut disk, cdb, &mut buffer, &mut around),
    };
    checked(&mut unit, &mut disk, cdb, &mut buffer, &mut around)
}

const NOTES: [&str; 4] =
    ["", "format", "sanitize overwrite passes=2 invert pattern=a5 unrestricted", "foramt"];

/// A command for an image that has a note: an erasure comes first, and may fail.
fn noted(note: &str, disk: &mut Disk, cdb: &[u8], buffer: &mut [u8], around: &mut Around<'_>) -> End {
    disk.note = note.into();
    let mut unit = LogicalUnit::with_note(disk.geometry, note.as_bytes());
    let erased = resume_erasure(&mut unit, disk, around).is_some_and(|end| end.at_last() == Outcome::Good);
    assert_eq!(test_unit_ready(&mut unit) == Outcome::Good, erased);
    assert!(!erased || disk.note.is_empty());
    disk.recover();
    let end = checked(&mut unit, disk, cdb, buffer, around);
    // Before it is erased nobody may touch it, but to erase it.
    assert!(erased || end.ops.is_empty() || matches!(cdb.first(), Some(0x04 | 0x48)), "{end:?}");
    // Of a FORMAT UNIT that failed EXIT FAILURE MODE knows nothing.
    let exits = matches!(cdb, [0x48, action, ..] if action & 0x1f == 0x1f) && note.starts_with("sanitize");
    if exits && end.outcome == Outcome::Good {
        assert!(disk.note.is_empty() && test_unit_ready(&mut unit) == Outcome::Good, "the failure is over");
    }
    end
}

/// A unit that has just told that its capacity changed, once.
fn attentive(disk: &mut Disk, cdb: &[u8], buffer: &mut [u8], around: &mut Around<'_>) -> LogicalUnit {
    let size = disk.geometry.size - u64::from(disk.geometry.block_size);
    let mut unit = LogicalUnit::new(Geometry { size, ..disk.geometry });
    unit.resize(disk.geometry.size);
    match unit.decode(cdb) {
        // SAM-4, "Unit attention condition": these are carried out all the same.
        Ok(Command::Inquiry { .. } | Command::RequestSense { .. }) | Err(_) => {}
        Ok(command) => {
            let end = checked(&mut unit, disk, cdb, buffer, around);
            let sense = end.outcome.sense().unwrap_or([0; 96]);
            assert_eq!((sense[2], sense[12], sense[13]), (0x06, 0x2a, 0x09), "{command:?}: {end:?}");
        }
    }
    unit
}

/// Drives a command and checks how it ended.
pub(crate) fn checked(
    unit: &mut LogicalUnit,
    disk: &mut Disk,
    cdb: &[u8],
    buffer: &mut [u8],
    around: &mut Around<'_>,
) -> End {
    let (before, given) = (disk.bytes.clone(), buffer.to_vec());
    let end = drive(unit, disk, cdb, buffer, around);
    oracle::check_reservation(cdb, &end, around.write_exclusive);
    let before = Before { given: &given, disk: before.as_deref() };
    oracle::check(unit, cdb, &end, before, buffer, disk);
    end
}

/// Whether the command is refused because of what the initiator asked: ILLEGAL REQUEST, or COPY ABORTED that has not
/// begun.
pub fn is_refusal(end: &End) -> bool {
    let key = end.outcome.sense().map(|sense| sense[2]);
    key == Some(0x05) || (key == Some(0x0a) && end.ops.is_empty())
}
