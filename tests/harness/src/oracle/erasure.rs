//! FORMAT UNIT and SANITIZE: a note is kept first and taken away last, and whatever comes in between, the disk is
//! erased by whoever opens it next.

use super::{Cdb, lists};
use crate::disk::{Disk, Script, is_write};
use crate::drive::{Around, End, resume_erasure, test_unit_ready};
use handler_rbd::block::{ErrorKind, Op};
use handler_rbd::lun::{LogicalUnit, Outcome};

/// Checks a command that had the disk to itself; lets a successor go on with it if it has failed.
pub(super) fn check(
    unit: &mut LogicalUnit,
    cdb: &Cdb,
    end: &End,
    given: &[u8],
    before: &[u8],
    disk: &mut Disk,
) {
    check_order(end);
    let good = end.at_last() == Outcome::Good;
    let ready = test_unit_ready(unit) == Outcome::Good;
    assert!(if good { ready } else { !ready || !may_be_noted(end) }, "{end:?}");
    assert!(!good || disk.note.is_empty(), "the disk is erased, and the note is there");
    let wrote = end.ops.iter().any(|(op, result)| is_write(*op) && result.is_ok());
    // Otherwise it is what was there before, if it is.
    let stored = matches!(end.ops[0].1, Ok(()) | Err(ErrorKind::TimedOut));
    let noted = stored && !disk.note.is_empty();
    if noted {
        let mut successor = LogicalUnit::with_note(disk.geometry, &disk.note);
        let mut around = Around { port: false, write_exclusive: false, fan_out: 3, script: Script::new(&[]) };
        disk.recover();
        let end = resume_erasure(&mut successor, disk, &mut around).expect("the note says so");
        check_order(&end);
        assert_eq!(end.at_last(), Outcome::Good);
        assert_eq!(test_unit_ready(&mut successor), Outcome::Good);
        assert!(disk.note.is_empty());
    }
    let mut want = before.to_vec();
    if good || wrote || noted {
        let block = lists::erased(cdb.bytes(), given, disk.geometry.block_size.into());
        let usable = usize::try_from(disk.usable()).unwrap();
        want[..usable].chunks_mut(block.len()).for_each(|one| one.copy_from_slice(&block));
    }
    assert!(
        disk.bytes.as_deref() == Some(&want),
        "the disk is not erased as opcode {:02x} says",
        cdb.bytes()[0]
    );
}

/// Nothing is written before the note is kept; it is taken away when all is durable.
fn check_order(end: &End) {
    let Some(((first, kept), rest)) = end.ops.split_first() else { panic!("nothing was done: {end:?}") };
    assert_eq!(*first, Op::SetNote);
    assert!(kept.is_ok() || rest.is_empty(), "{end:?}");
    let Some(away) = rest.iter().position(|(op, _)| *op == Op::SetNote) else {
        assert_ne!(end.at_last(), Outcome::Good);
        return;
    };
    let (flushed, all) = rest[..away].split_last().expect("a flush");
    assert!(*flushed == (Op::Flush, Ok(())) && away + 1 == rest.len(), "{end:?}");
    assert!(all.iter().all(|(op, result)| is_write(*op) && result.is_ok()), "{end:?}");
}

/// Whether a note may have been kept: if not, the disk is as good as before.
fn may_be_noted(end: &End) -> bool {
    use ErrorKind::{Invalid, NoResource, NoSpace, ReadOnly};
    !matches!(end.ops[..], [(_, Err(ReadOnly | NoSpace | NoResource | Invalid))])
}
