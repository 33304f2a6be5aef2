//! FORMAT UNIT and SANITIZE.

use super::*;
use ErrorKind::{Fenced, Io, NoResource, ReadOnly, TimedOut};
use proptest::prelude::*;

const FORMAT: &[u8] = &[0x04, 0, 0, 0, 0, 0];
const FORMAT_WITH_LIST: &[u8] = &[0x04, 0x10, 0, 0, 0, 0];
const BLOCK_ERASE: &[u8] = &[0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0];
const BLOCK_ERASE_AUSE: &[u8] = &[0x48, 0x22, 0, 0, 0, 0, 0, 0, 0, 0];
const BLOCK_ERASE_IMMED: &[u8] = &[0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
const EXIT: &[u8] = &[0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];
const READ: &[u8] = &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const TEST_UNIT_READY: &[u8] = &[0, 0, 0, 0, 0, 0];
const REQUEST_SENSE: &[u8] = &[0x03, 0, 0, 0, 252, 0];
const INQUIRY: &[u8] = &[0x12, 0, 0, 0, 36, 0];

fn geometry_of(size: u64) -> Geometry {
    Geometry { size, ..geometry() }
}

/// Begins a command that must become a job.
fn begin(unit: &mut LogicalUnit, cdb: &[u8], buffer: &[u8]) -> Job {
    let command = decode(cdb).unwrap();
    let params = &buffer[..unit.parameters(&command).min(buffer.len())];
    let transfer = Transfer { len: buffer.len() };
    match unit.start(&command, &transfer, Some(&identity()), params, &mut Vec::new()) {
        Step::Run(job) => job,
        step => panic!("{step:?}"),
    }
}

/// Carries the job out, one operation at a time, until one at which `fails` says how it fails; each operation that
/// was carried out with its memory, and the steps that were not [`Step::Wait`].
fn carry_out(
    unit: &mut LogicalUnit,
    job: &mut Job,
    mut fails: impl FnMut(&Op) -> Option<ErrorKind>,
) -> (Vec<(Op, Memory)>, Vec<End>) {
    let (mut done, mut ends) = (Vec::new(), Vec::new());
    while let Some(Task { op, memory }) = job.next_task() {
        let error = fails(&op);
        match resume(unit, job, op, error.map_or(Ok(()), Err)) {
            Step::Wait => {}
            Step::Done(outcome) | Step::Detach(outcome) => ends.push(end_of(outcome)),
            step => panic!("{step:?}"),
        }
        if error.is_none() {
            done.push((op, memory));
        }
    }
    (done, ends)
}

fn erase(unit: &mut LogicalUnit, cdb: &[u8]) {
    let mut job = begin(unit, cdb, &[]);
    assert_eq!(carry_out(unit, &mut job, |_| None).1, [End::Good]);
}

/// Has the erasure fail so at its first write.
fn fail(unit: &mut LogicalUnit, cdb: &[u8], kind: ErrorKind) -> End {
    let mut job = begin(unit, cdb, &[]);
    let fails = |op: &Op| matches!(op, Op::WriteZeroes(_)).then_some(kind);
    let (_, mut ends) = carry_out(unit, &mut job, fails);
    assert_eq!(ends.len(), 1);
    ends.remove(0)
}

/// Key, ASC, ASCQ, and the sense key specific bytes that REQUEST SENSE tells.
fn sense(unit: &mut LogicalUnit) -> ([u8; 3], [u8; 3]) {
    let End::Reply(reply) = run_on(unit, REQUEST_SENSE, &[]) else { panic!() };
    ([reply[2], reply[12], reply[13]], [reply[15], reply[16], reply[17]])
}

fn note(text: &str) -> (Op, Memory) {
    let memory = if text.is_empty() { Memory::None } else { Memory::Owned(text.into()) };
    (Op::SetNote, memory)
}

fn chain<const N: usize>(parts: [Vec<(Op, Memory)>; N]) -> Vec<(Op, Memory)> {
    parts.into_iter().flatten().collect()
}

const FLUSH: (Op, Memory) = (Op::Flush, Memory::None);

/// The first piece of the disk of 40,000 blocks, and the second: four objects, and the rest.
const PIECES: [(u64, u64); 2] = [(0, 32_768), (32_768, 7232)];

#[test]
fn a_format_is_a_note_and_zeros_and_the_end_of_the_note() {
    let mut unit = LogicalUnit::new(geometry_of(40_000 * 512));
    let mut job = begin(&mut unit, FORMAT, &[]);
    let zeroes = PIECES.map(|(lba, blocks)| (Op::WriteZeroes(range(lba, blocks)), Memory::None));
    let expected = chain([vec![note("format")], zeroes.into(), vec![FLUSH, note("")]]);
    assert_eq!(carry_out(&mut unit, &mut job, |_| None), (expected, vec![End::Good]));
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
    assert_eq!(sense(&mut unit), ([0; 3], [0; 3]));
}

#[test]
fn patterns_are_written() {
    let same = |block: [u8; 512]| {
        PIECES.map(|(lba, blocks)| {
            (Op::WriteSame { range: range(lba, blocks), pattern: 512 }, Memory::Owned(block.to_vec()))
        })
    };
    let one_two: [u8; 512] = std::array::from_fn(|n| if n % 2 == 0 { 1 } else { 2 });
    let mut unit = LogicalUnit::new(geometry_of(40_000 * 512));
    let mut job = begin(&mut unit, FORMAT_WITH_LIST, &[0, 0x88, 0, 0, 0, 1, 0, 2, 1, 2]);
    let note_of_it = vec![note("format passes=1 pattern=0102")];
    let expected = chain([note_of_it, same(one_two).into(), vec![FLUSH, note("")]]);
    assert_eq!(carry_out(&mut unit, &mut job, |_| None), (expected, vec![End::Good]));
    // A pattern of zeros is what blocks given back read as.
    let mut job = begin(&mut unit, FORMAT_WITH_LIST, &[0, 0x88, 0, 0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(job.next_task().map(|task| task.memory), Some(Memory::Owned(b"format".to_vec())));
    // Not so for SANITIZE, OVERWRITE, which is about writing. Data comes in words: three bytes too many.
    let mut unit = LogicalUnit::new(geometry_of(40_000 * 512));
    let overwrite = [0x48, 0x21, 0, 0, 0, 0, 0, 0, 5, 0];
    let mut job = begin(&mut unit, &overwrite, &[0x82, 0, 0, 1, 0, 9, 9, 9]);
    let expected = chain([
        vec![note("sanitize overwrite passes=2 invert pattern=00 unrestricted")],
        same([0; 512]).into(),
        same([0xff; 512]).into(),
        vec![FLUSH, note("")],
    ]);
    assert_eq!(carry_out(&mut unit, &mut job, |_| None), (expected, vec![End::Good]));
}

#[test]
fn parameters_are_asked_for_and_checked() {
    let parameters = |cdb: &[u8]| unit().parameters(&decode(cdb).unwrap());
    assert_eq!(parameters(FORMAT), 0);
    assert!(parameters(FORMAT_WITH_LIST) >= 4 + 4 + 512);
    assert!(parameters(&[0x04, 0x30, 0, 0, 0, 0]) >= 8 + 4 + 512);
    assert_eq!(parameters(&[0x48, 0x01, 0, 0, 0, 0, 0, 2, 4, 0]), 516);
    assert_eq!(parameters(BLOCK_ERASE), 0);
    let mut unit = unit();
    assert_eq!(run_on(&mut unit, FORMAT_WITH_LIST, &[]), BAD_LIST_LENGTH);
    assert_eq!(run_on(&mut unit, FORMAT_WITH_LIST, &[0, 0, 0, 8]), BAD_LIST);
    assert_eq!(run_on(&mut unit, &[0x48, 0x01, 0, 0, 0, 0, 0, 0, 4, 0], &[1, 0, 0, 1]), BAD_FIELD);
    assert_eq!(run_on(&mut unit, &[0x48, 0x01, 0, 0, 0, 0, 0, 0, 5, 0], &[0, 0, 0, 1, 7]), BAD_LIST);
    // What was refused has changed nothing.
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
}

#[test]
fn progress_is_told_to_all_that_ask() {
    for (cdb, qualifier) in [(FORMAT, 0x04), (BLOCK_ERASE, 0x1b)] {
        let mut unit = unit(); // four pieces
        let mut job = begin(&mut unit, cdb, &[]);
        let mut seen = Vec::new();
        let mut look = |unit: &mut LogicalUnit| {
            let refused = run_on(unit, READ, &[0; 512]);
            assert_eq!(refused, End::Check(2, 4, qualifier));
            let (code, [valid, high, low]) = sense(unit);
            assert_eq!((code, valid), ([2, 4, qualifier], 0x80));
            // The refusal has it too.
            let command = decode(TEST_UNIT_READY).unwrap();
            let step = unit.start(&command, &Transfer { len: 0 }, Some(&identity()), &[], &mut Vec::new());
            let Step::Done(Outcome::CheckCondition(sense)) = step else { panic!("{step:?}") };
            assert_eq!(sense.to_bytes()[15..18], [valid, high, low]);
            seen.push(u16::from_be_bytes([high, low]));
        };
        look(&mut unit);
        while let Some(task) = job.next_task() {
            if matches!(resume(&mut unit, &mut job, task.op, Ok(())), Step::Wait) {
                look(&mut unit);
            }
        }
        assert_eq!(seen, [0, 0, 0x4000, 0x8000, 0xc000, 0xffff, 0xffff]);
        // Descriptor format.
        let mut job = begin(&mut unit, cdb, &[]);
        let _ = (0..2).map(|_| job.next_task()).count();
        let End::Reply(reply) = run_on(&mut unit, &[0x03, 1, 0, 0, 252, 0], &[]) else { panic!() };
        assert_eq!(reply, [0x72, 2, 4, qualifier, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 0, 0, 0]);
    }
}

/// What is carried out during a SANITIZE, but not during a FORMAT UNIT.
#[rustfmt::skip]
const UNCHANGED: &[&[u8]] = &[
    &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],                                  // READ CAPACITY(10)
    &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
    &[0x1a, 0, 0x08, 0, 192, 0],                                         // MODE SENSE(6): Caching
    &[0x5a, 0, 0x0a, 0, 0, 0, 0, 0, 192, 0],                             // MODE SENSE(10): Control
];

/// Commands, and whether they are carried out during an erasure, after a failed one.
#[rustfmt::skip]
const OTHERS: &[(&[u8], bool, bool)] = &[
    (INQUIRY, true, true),
    (REQUEST_SENSE, true, true),
    (&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], true, true),           // REPORT SUPPORTED OPERATION CODES
    (&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], true, true),
    (&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], true, true),          // REPORT TARGET PORT GROUPS
    (&[0x1a, 0, 0x3f, 0, 192, 0], false, true),                          // MODE SENSE(6)
    (&[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 4, 0], false, true),                // LOG SENSE
    (TEST_UNIT_READY, false, false),
    (&[0x1b, 0, 0, 0, 1, 0], false, false),                              // START STOP UNIT
    (READ, false, false),
    (&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], false, false),
    (&[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0], false, false),                  // VERIFY(10)
    (&[0x34, 0, 0, 0, 0, 0, 0, 0, 1, 0], false, false),                  // PRE-FETCH(10)
    (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], false, false),                  // SYNCHRONIZE CACHE(10)
    (&[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], false, false),                  // WRITE SAME(10)
    (&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], false, false),                  // UNMAP
    (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], false, false),
];

fn answer(unit: &mut LogicalUnit, cdb: &[u8], refusal: &End, accepted: bool) {
    let end = run_on(unit, cdb, &[0; 512]);
    assert_eq!(end != *refusal, accepted, "{cdb:02x?}: {end:?}");
    assert!(!accepted || matches!(end, End::Reply(_)), "{cdb:02x?}: {end:?}");
}

fn others(unit: &mut LogicalUnit, refusal: &End, during: bool) {
    for (cdb, while_erasing, after_failure) in OTHERS {
        let accepted = if during { *while_erasing } else { *after_failure };
        answer(unit, cdb, refusal, accepted);
    }
    for cdb in UNCHANGED {
        answer(unit, cdb, refusal, *refusal != End::Check(2, 4, 4));
    }
}

#[test]
fn others_have_to_wait() {
    let mut unit = unit();
    let formatting = End::Check(2, 4, 4);
    let mut job = begin(&mut unit, FORMAT, &[]);
    others(&mut unit, &formatting, true);
    for cdb in [FORMAT, BLOCK_ERASE, EXIT] {
        assert_eq!(run_on(&mut unit, cdb, &[]), formatting);
    }
    let _ = carry_out(&mut unit, &mut job, |_| None);
    let _job = begin(&mut unit, BLOCK_ERASE, &[]);
    others(&mut unit, &End::Check(2, 4, 0x1b), true);
}

#[test]
fn immediate_commands_are_answered_once_the_note_is_safe() {
    let immediate = [(BLOCK_ERASE_IMMED, &[][..]), (FORMAT_WITH_LIST, &[0, 0x02, 0, 0])];
    for (cdb, list) in immediate {
        let mut unit = unit();
        let mut job = begin(&mut unit, cdb, list);
        let op = job.next_task().unwrap().op;
        assert_eq!((op, job.next_task()), (Op::SetNote, None));
        assert!(matches!(resume(&mut unit, &mut job, op, Ok(())), Step::Detach(Outcome::Good)));
        let (_, ends) = carry_out(&mut unit, &mut job, |_| None);
        assert_eq!(ends, [End::Good]); // for nobody
        // A failure of the note is still told.
        let mut job = begin(&mut unit, cdb, list);
        let (done, ends) = carry_out(&mut unit, &mut job, |_| Some(TimedOut));
        assert_eq!((done, ends), (vec![], vec![End::Status(0x08)]));
    }
}

#[test]
fn a_format_that_failed_is_told_until_one_succeeds() {
    let mut unit = unit();
    assert_eq!(fail(&mut unit, FORMAT, Io), End::Check(3, 0x31, 1));
    let corrupted = End::Check(3, 0x31, 0);
    others(&mut unit, &corrupted, false);
    assert_eq!(sense(&mut unit).0, [3, 0x31, 0]);
    assert_eq!(run_on(&mut unit, EXIT, &[]), End::Good); // no SANITIZE has failed
    assert_eq!(run_on(&mut unit, READ, &[0; 512]), corrupted);
    assert_eq!(fail(&mut unit, FORMAT, NoResource), End::Status(0x28));
    assert_eq!(run_on(&mut unit, READ, &[0; 512]), corrupted);
    erase(&mut unit, FORMAT);
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
    let _ = fail(&mut unit, FORMAT, Io);
    erase(&mut unit, BLOCK_ERASE);
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
}

#[test]
fn the_last_steps_can_fail_too() {
    let flush: fn(&Op) -> bool = |op| *op == Op::Flush;
    for (what, fails) in [("flush", flush), ("end of the note", |op| *op == Op::SetNote)] {
        let (mut unit, mut seen) = (unit(), 0);
        let mut job = begin(&mut unit, FORMAT, &[]);
        let (_, ends) = carry_out(&mut unit, &mut job, |op| {
            seen += 1;
            (seen > 1 && fails(op)).then_some(Io)
        });
        assert_eq!(ends, [End::Check(3, 0x31, 1)], "{what}");
        assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Check(3, 0x31, 0), "{what}");
    }
}

#[test]
fn a_restricted_sanitize_that_failed_is_told_until_one_succeeds() {
    let mut unit = unit();
    let failed = End::Check(3, 0x31, 3);
    assert_eq!(fail(&mut unit, BLOCK_ERASE, Io), failed);
    others(&mut unit, &failed, false);
    assert_eq!(sense(&mut unit).0, [3, 0x31, 3]);
    assert_eq!(run_on(&mut unit, FORMAT, &[]), failed);
    assert_eq!(run_on(&mut unit, EXIT, &[]), BAD_FIELD);
    assert_eq!(run_on(&mut unit, BLOCK_ERASE_AUSE, &[]), BAD_FIELD);
    erase(&mut unit, BLOCK_ERASE);
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
    assert_eq!(run_on(&mut unit, EXIT, &[]), End::Good);
}

#[test]
fn exit_failure_mode_takes_the_note_away() {
    let mut unit = unit();
    let failed = End::Check(3, 0x31, 3);
    assert_eq!(fail(&mut unit, BLOCK_ERASE_AUSE, Io), failed);
    let mut exit = begin(&mut unit, EXIT, &[]);
    assert!(!exit.is_exclusive());
    assert_eq!(carry_out(&mut unit, &mut exit, |_| Some(Io)).1, [End::Check(3, 0x0c, 0)]);
    assert_eq!(run_on(&mut unit, READ, &[0; 512]), failed);
    let mut exit = begin(&mut unit, EXIT, &[]);
    assert_eq!(carry_out(&mut unit, &mut exit, |_| None), (vec![note("")], vec![End::Good]));
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
    // A SANITIZE that was accepted meanwhile is not affected.
    let _ = fail(&mut unit, BLOCK_ERASE_AUSE, Io);
    let mut exit = begin(&mut unit, EXIT, &[]);
    let mut again = begin(&mut unit, BLOCK_ERASE_AUSE, &[]);
    assert_eq!(carry_out(&mut unit, &mut exit, |_| None).1, [End::Good]);
    assert_eq!(run_on(&mut unit, READ, &[0; 512]), End::Check(2, 4, 0x1b));
    assert_eq!(carry_out(&mut unit, &mut again, |_| None).1, [End::Good]);
}

#[test]
fn a_note_that_was_surely_not_stored_changes_nothing() {
    let mut unit = unit();
    for kind in [ReadOnly, NoResource] {
        let mut job = begin(&mut unit, FORMAT, &[]);
        let _ = carry_out(&mut unit, &mut job, |_| Some(kind));
        assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good, "{kind:?}");
    }
    let _ = fail(&mut unit, BLOCK_ERASE_AUSE, Io);
    let mut job = begin(&mut unit, BLOCK_ERASE, &[]);
    let _ = carry_out(&mut unit, &mut job, |_| Some(ReadOnly));
    assert_eq!(run_on(&mut unit, READ, &[0; 512]), End::Check(3, 0x31, 3));
    assert!(matches!(run_on(&mut unit, EXIT, &[]), End::Ops(_))); // as the first one allowed
}

/// A write after that would be destroyed by a successor that finds the note after all.
#[test]
fn a_note_that_was_perhaps_stored_is_a_failure() {
    for kind in [TimedOut, Io] {
        let mut unit = unit();
        let mut job = begin(&mut unit, FORMAT, &[]);
        let _ = carry_out(&mut unit, &mut job, |_| Some(kind));
        assert_eq!(run_on(&mut unit, READ, &[0; 512]), End::Check(3, 0x31, 0), "{kind:?}");
    }
}

#[test]
fn a_fenced_client_leaves_it_to_others() {
    let mut unit = unit();
    assert_eq!(fail(&mut unit, FORMAT, Fenced), End::Status(0x08));
    assert_eq!(run_on(&mut unit, READ, &[0; 512]), End::Status(0x08));
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Status(0x08));
    assert!(matches!(run_on(&mut unit, INQUIRY, &[]), End::Reply(_)));
}

#[test]
fn a_note_found_is_carried_out() {
    let text = "sanitize overwrite passes=1 pattern=07";
    let mut unit = LogicalUnit::with_note(geometry_of(40_000 * 512), text.as_bytes());
    assert!(!unit.needs_intervention());
    others(&mut unit, &End::Check(2, 4, 0x1b), true);
    let mut job = unit.resume_erasure().unwrap();
    assert!(job.is_exclusive());
    let (done, ends) = carry_out(&mut unit, &mut job, |_| None);
    let written = (Op::WriteSame { range: range(0, 32_768), pattern: 512 }, Memory::Owned(vec![7; 512]));
    assert_eq!((&done[0], &done[1], done.len()), (&note(text), &written, 5));
    assert_eq!(ends, [End::Good]);
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
    assert!(unit.resume_erasure().is_none());
    // Its failure counts although the note cannot be stored once more.
    let mut unit = LogicalUnit::with_note(geometry(), b"format");
    let mut job = unit.resume_erasure().unwrap();
    let _ = carry_out(&mut unit, &mut job, |_| Some(ReadOnly));
    assert_eq!(run_on(&mut unit, READ, &[0; 512]), End::Check(3, 0x31, 0));
    assert!(unit.resume_erasure().is_none());
}

#[test]
fn an_erasure_whose_job_was_dropped_begins_again() {
    let mut unit = unit();
    let mut job = begin(&mut unit, FORMAT, &[]);
    for _ in 0..3 {
        let op = job.next_task().unwrap().op;
        let _ = resume(&mut unit, &mut job, op, Ok(()));
    }
    assert_eq!(sense(&mut unit).1, [0x80, 0x80, 0]);
    drop(job);
    let mut job = unit.resume_erasure().unwrap();
    let (done, _) = carry_out(&mut unit, &mut job, |_| None);
    assert_eq!(done.len(), 1 + 4 + 2);
    assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]), End::Good);
}

#[test]
fn a_note_that_is_not_understood_needs_somebody() {
    let mut unit = LogicalUnit::with_note(geometry(), b"sanitize crypto-erase");
    let manual = End::Check(2, 4, 3);
    assert!(unit.needs_intervention() && unit.resume_erasure().is_none());
    others(&mut unit, &manual, false);
    assert_eq!(sense(&mut unit).0, [2, 4, 3]);
    for cdb in [FORMAT, BLOCK_ERASE, EXIT] {
        assert_eq!(run_on(&mut unit, cdb, &[]), manual);
    }
    assert!(!LogicalUnit::with_note(geometry(), b"").needs_intervention());
}

/// A command, and which of its operations fails.
#[derive(Clone, Debug)]
struct Trace {
    fails: Option<(usize, ErrorKind)>,
    cdb: &'static [u8],
}

fn traces() -> impl Strategy<Value = Trace> {
    let kinds = prop::sample::select(vec![Io, Fenced, TimedOut, NoResource, ReadOnly]);
    let cdbs = prop::sample::select(vec![FORMAT, BLOCK_ERASE, BLOCK_ERASE_AUSE, BLOCK_ERASE_IMMED]);
    (prop::option::of((0..9_usize, kinds)), cdbs).prop_map(|(fails, cdb)| Trace { fails, cdb })
}

proptest! {
    #[test]
    fn the_disk_is_ready_only_if_all_is_done_or_nothing(Trace { fails, cdb } in traces()) {
        let mut unit = unit();
        let mut job = begin(&mut unit, cdb, &[]);
        let mut n = 0;
        let (done, ends) = carry_out(&mut unit, &mut job, |_| {
            n += 1;
            fails.filter(|(at, _)| *at == n - 1).map(|(_, kind)| kind)
        });
        let complete = done.len() == 1 + 4 + 2;
        prop_assert_eq!(ends.last() == Some(&End::Good), complete);
        let untouched = done.is_empty() && matches!(fails, Some((0, ReadOnly | NoResource)));
        prop_assert_eq!(run_on(&mut unit, TEST_UNIT_READY, &[]) == End::Good, complete || untouched);
    }
}
