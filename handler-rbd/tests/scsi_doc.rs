//! docs/scsi.md says what the code says: its tables, between `<!-- begin NAME -->` and `<!-- end NAME -->`, are
//! generated here. This fails when they are stale; `OVERWRITE_DOCS=1 cargo test -p handler-rbd --test scsi_doc` writes
//! them anew.
#![allow(clippy::unwrap_used)]

use handler_rbd::block::{BackendError, ErrorKind, Limits};
use handler_rbd::lun::outcome::{Direction, of_failure};
use handler_rbd::lun::{Geometry, LogicalUnit, Outcome, Step, Transfer};
use handler_rbd::scsi::decode;
use handler_rbd::scsi::opcode::{Need, described};
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn commands() -> String {
    let mut text = String::from("| opcode | command | CDB usage data | where |\n|---|---|---|---|\n");
    for row in described() {
        let action = row.service_action.map_or(String::new(), |action| format!("/{action:02X}"));
        let usage: Vec<_> = row.usage.iter().skip(1).map(|byte| format!("{byte:02x}")).collect();
        let needs = match row.need {
            Need::Nothing => "",
            Need::CompareAndWrite => "a block fits storage's compare-and-write",
            Need::AtomicWrite => "a block fits an object",
            Need::Port => "in a target port group",
        };
        let (opcode, name, usage) = (row.opcode, row.name, usage.join(" "));
        writeln!(text, "| {opcode:02X}{action} | {name} | `{usage}` | {needs} |").unwrap();
    }
    text
}

fn told(outcome: Outcome) -> String {
    match (outcome.status(), outcome.sense()) {
        (0x02, Some(sense)) => format!("{:X}/{:02X}/{:02X}", sense[2], sense[12], sense[13]),
        (0x08, None) => "BUSY".into(),
        (0x28, None) => "TASK SET FULL".into(),
        (status, _) => format!("{status:02X}h"),
    }
}

/// A new kind does not compile until it is here; then `errors` wants it too.
fn meaning(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Fenced => "fenced: the cluster has blocklisted this client",
        ErrorKind::TimedOut => "no answer within the time-out",
        ErrorKind::NoResource => "no memory for it, or too much at once",
        ErrorKind::NoSpace => "pool or cluster full, quota reached",
        ErrorKind::ReadOnly => "read-only",
        ErrorKind::Miscompare { .. } => "compared data differ",
        ErrorKind::PastEnd => "beyond the end of an image that was shrunk",
        ErrorKind::Invalid => "storage finds our request wrong",
        ErrorKind::Gone => "image or pool is gone",
        ErrorKind::Io => "anything else",
    }
}

fn errors() -> String {
    use ErrorKind::{
        Fenced, Gone, Invalid, Io, Miscompare, NoResource, NoSpace, PastEnd, ReadOnly, TimedOut,
    };
    let compared = Miscompare { offset: 0 };
    let kinds = [Fenced, TimedOut, NoResource, NoSpace, ReadOnly, compared, PastEnd, Invalid, Gone, Io];
    let mut text = String::from("| storage says | reading | writing |\n|---|---|---|\n");
    for kind in kinds {
        let of = |direction| told(of_failure(BackendError::new(kind), direction));
        writeln!(text, "| {} | {} | {} |", meaning(kind), of(Direction::Read), of(Direction::Write)).unwrap();
    }
    text
}

/// The Block Limits page of a disk with objects of 4 MiB, discards of 64 KiB and librbd 16.
fn limits() -> String {
    const FIELDS: &[(&str, usize, usize)] = &[
        ("MAXIMUM COMPARE AND WRITE LENGTH", 5, 1),
        ("MAXIMUM TRANSFER LENGTH (`hw_max_sectors`, here 1024)", 8, 4),
        ("MAXIMUM UNMAP LBA COUNT", 20, 4),
        ("MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT", 24, 4),
        ("OPTIMAL UNMAP GRANULARITY", 28, 4),
        ("MAXIMUM WRITE SAME LENGTH", 36, 8),
        ("MAXIMUM ATOMIC TRANSFER LENGTH", 44, 4),
        ("ATOMIC ALIGNMENT", 48, 4),
        ("ATOMIC TRANSFER LENGTH GRANULARITY", 52, 4),
    ];
    let page = |block_size| {
        let size = 1 << 40;
        let limits = Limits {
            size,
            object_size: 4 << 20,
            compare_and_write: 512,
            discard_granularity: 65536,
            solid_state: false,
        };
        let mut unit = LogicalUnit::new(Geometry { block_size, size, max_sectors: 1024, limits });
        let mut page = Vec::new();
        let command = decode(&[0x12, 1, 0xb0, 0, 64, 0]).unwrap();
        let step = unit.start(&command, &Transfer { len: 64 }, None, &[], &mut page);
        assert!(matches!(step, Step::Reply));
        page
    };
    let (small, large) = (page(512), page(4096));
    let mut text = String::from("| field of page B0h | 512 byte blocks | 4096 |\n|---|---|---|\n");
    for &(name, at, len) in FIELDS {
        let field =
            |page: &[u8]| page[at..at + len].iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        writeln!(text, "| {name} | {} | {} |", field(&small), field(&large)).unwrap();
    }
    text
}

/// The text with one table replaced.
fn with(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no '{begin}' in docs/scsi.md"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no '{end}' in docs/scsi.md"));
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_document_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scsi.md");
    let found = fs::read_to_string(&path).unwrap();
    let mut wanted = found.clone();
    for (name, table) in [("commands", commands()), ("errors", errors()), ("limits", limits())] {
        wanted = with(&wanted, name, &table);
    }
    if std::env::var_os("OVERWRITE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    } else {
        assert!(
            found == wanted,
            "docs/scsi.md is stale: run 'OVERWRITE_DOCS=1 cargo test -p handler-rbd --test scsi_doc' and commit it"
        );
    }
}
