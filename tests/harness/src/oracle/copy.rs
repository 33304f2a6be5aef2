//! EXTENDED COPY, and what RECEIVE COPY RESULTS tells of it.

use super::{lists, number};
use crate::disk::{Disk, Script, is_write, range_of};
use crate::drive::{Around, End, drive};
use handler_rbd::lun::{LogicalUnit, Outcome};

/// Checks a copy that was begun: it reads within sources and writes within destinations.
pub(super) fn check(unit: &mut LogicalUnit, end: &End, given: &[u8], disk: &mut Disk) {
    let segments = lists::segments(given, disk.geometry.block_size.into());
    for (op, _) in &end.ops {
        let range = range_of(*op).expect("a copy reads and writes");
        let is_within = |segment: &lists::Segment| {
            let all = if is_write(*op) { &segment.destination } else { &segment.source };
            all.start <= range.offset && range.offset + range.len <= all.end
        };
        assert!(segments.iter().any(is_within), "{op:?} is no part of a segment");
    }
    let (status, details) = (received(unit, 0x00, given[0], disk), received(unit, 0x04, given[0], disk));
    // LIST ID USAGE: 00b, the results are kept; and the status is told once.
    let kept = given[1] >> 3 & 3 == 0;
    assert!(status.is_some() == kept && details.is_some() == kept, "{status:02x?}, {details:02x?}");
    assert_eq!(received(unit, 0x00, given[0], disk), None);
    status.inspect(|status| check_status(status, end, &segments));
    details.inspect(|details| check_details(details, end));
}

/// COPY STATUS: segments and bytes that are done.
fn check_status(status: &[u8], end: &End, segments: &[lists::Segment]) {
    assert!(status.len() == 12 && number(status, 0, 4) == 8 && status[7] == 0, "{status:02x?}");
    let written = end.ops.iter().filter(|(op, result)| is_write(*op) && result.is_ok());
    let bytes: u64 = written.filter_map(|(op, _)| range_of(*op)).map(|range| range.len).sum();
    let done = usize::try_from(number(status, 5, 2)).unwrap();
    assert_eq!(number(status, 8, 4), bytes, "{status:02x?}");
    let len = |segments: &[lists::Segment]| {
        segments.iter().map(|one| one.source.end - one.source.start).sum::<u64>()
    };
    assert!(len(&segments[..done]) <= bytes, "{status:02x?}");
    if end.outcome == Outcome::Good {
        assert!(status[4] == 1 && done == segments.len() && bytes == len(segments), "{status:02x?}");
    } else {
        assert!(status[4] == 2 && done < segments.len(), "{status:02x?}");
        let sense = end.outcome.sense().expect("COPY ABORTED");
        assert_eq!((sense[2], usize::try_from(number(&sense, 10, 2)).unwrap()), (0x0a, done));
    }
}

/// FAILED SEGMENT DETAILS: status and sense, if it has failed.
fn check_details(details: &[u8], end: &End) {
    assert_eq!(number(details, 0, 4), details.len() as u64 - 4);
    match end.outcome.sense() {
        None => assert_eq!(details.len(), 4),
        Some(sense) => {
            assert_eq!((details[56], number(details, 58, 2)), (0x02, details.len() as u64 - 60));
            assert!(details.len() > 60 && sense.starts_with(&details[60..]), "{details:02x?}");
        }
    }
}

/// What RECEIVE COPY RESULTS tells; nothing of a copy that it does not know.
fn received(unit: &mut LogicalUnit, action: u8, id: u8, disk: &mut Disk) -> Option<Vec<u8>> {
    let cdb = [0x84, action, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let mut around = Around { port: false, write_exclusive: false, fan_out: 1, script: Script::new(&[]) };
    drive(unit, disk, &cdb, &mut [0; 256], &mut around).reply
}
