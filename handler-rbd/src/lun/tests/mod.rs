//! CDBs and buffers in; operations, replies and outcomes out.

mod access;
mod erase;
mod inform;
mod lba_status;
mod orwrite;
mod provision;
mod verify;

use super::*;
use crate::block::{BackendError, ErrorKind, Op};
use crate::scsi::decode;

/// 64 MiB in blocks of 512 bytes, objects of 4 MiB, discards of 64 KiB: the disk that tcmu-runner was asked about.
const BLOCKS: u64 = 131_072;

fn geometry() -> Geometry {
    Geometry {
        block_size: 512,
        size: 67_108_864,
        max_sectors: 1024,
        limits: Limits {
            size: 67_108_864,
            object_size: 4_194_304,
            compare_and_write: 512,
            discard_granularity: 65_536,
            solid_state: false,
        },
    }
}

pub(super) fn unit() -> LogicalUnit {
    LogicalUnit::new(geometry())
}

fn identity() -> Identity {
    Identity {
        unit_serial: "f8cc0e02-e1d0-403a-907b-2f3e44e14bd0".into(),
        config: "rbd/rbd/disk_1;osd_op_timeout=30".into(),
        port: Some(TargetPort {
            protocol: 5,
            relative_id: 1,
            group_id: 1,
            tpgt: 1,
            wwn: "iqn.2003-01.com.redhat.iscsi-gw:iscsi-igw".into(),
        }),
        groups: vec![PortGroup { id: 1, supported: 0x8f, ports: vec![1], ..PortGroup::default() }],
        implicit_trans_secs: 45,
        write_exclusive: false,
        read_only: false,
    }
}

/// What became of a command, in numbers.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Good,
    /// Key, ASC, ASCQ.
    Check(u8, u8, u8),
    Status(u8),
    Reply(Vec<u8>),
    /// Operations and whether each has a buffer.
    Ops(Vec<(Op, bool)>),
}

fn end_of(outcome: Outcome) -> End {
    match outcome.sense() {
        Some(sense) => End::Check(sense[2], sense[12], sense[13]),
        None if outcome.status() == 0 => End::Good,
        None => End::Status(outcome.status()),
    }
}

/// Runs a CDB as the device does, with this buffer.
fn run_on(unit: &mut LogicalUnit, cdb: &[u8], buffer: &[u8]) -> End {
    let command = match unit.decode(cdb) {
        Ok(command) => command,
        Err(sense) => return end_of(sense.into()),
    };
    let identity = LogicalUnit::needs_identity(&command).then(identity);
    let params = &buffer[..unit.parameters(&command).min(buffer.len())];
    let mut reply = vec![0xee; 4];
    let transfer = Transfer { len: buffer.len() };
    match unit.start(&command, &transfer, identity.as_ref(), params, &mut reply) {
        Step::Done(outcome) => end_of(outcome),
        Step::Reply => End::Reply(reply),
        Step::Run(mut job) => End::Ops(
            std::iter::from_fn(|| job.next_task())
                .map(|task| (task.op, task.memory != Memory::None))
                .collect(),
        ),
        step @ (Step::Wait | Step::Detach(_)) => panic!("start never answers {step:?}"),
    }
}

/// Reports the result of a task whose command has no data.
fn resume(unit: &mut LogicalUnit, job: &mut Job, op: Op, result: Result<(), ErrorKind>) -> Step {
    let result = result.map_err(BackendError::new);
    let finished = Finished { op, result, answer: Answer::default() };
    unit.resume(job, finished, &|_, _| 0, &mut Vec::new())
}

/// Runs a CDB on a new unit with a zeroed buffer of `len` bytes.
fn run(cdb: &[u8], len: usize) -> End {
    run_on(&mut unit(), cdb, &vec![0; len])
}

/// Bytes, from blocks of 512.
fn range(lba: u64, blocks: u64) -> ByteRange {
    ByteRange { offset: lba * 512, len: blocks * 512 }
}

const OUT_OF_RANGE: End = End::Check(0x05, 0x21, 0x00);
const BAD_LENGTH: End = End::Check(0x05, 0x0e, 0x03);
const BAD_FIELD: End = End::Check(0x05, 0x24, 0x00);
const BAD_LIST: End = End::Check(0x05, 0x26, 0x00);
const BAD_LIST_LENGTH: End = End::Check(0x05, 0x1a, 0x00);

fn cdb_16(opcode: u8, byte_1: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..2].copy_from_slice(&[opcode, byte_1]);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn cdb_10(opcode: u8, byte_1: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[..2].copy_from_slice(&[opcode, byte_1]);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

#[test]
fn results_become_outcomes() {
    let mut unit = unit();
    let mut reply = Vec::new();
    let transfer = Transfer { len: 512 };
    for (opcode, kind, end) in [
        (0x28, ErrorKind::Io, End::Check(0x03, 0x11, 0x00)),
        (0x2a, ErrorKind::Io, End::Check(0x03, 0x0c, 0x00)),
        (0x28, ErrorKind::Fenced, End::Status(0x08)),
        (0x2a, ErrorKind::NoSpace, End::Check(0x07, 0x27, 0x07)),
    ] {
        let command = decode(&cdb_10(opcode, 0, 0, 1)).unwrap();
        let step = unit.start(&command, &transfer, None, &[], &mut reply);
        let Step::Run(mut job) = step else { panic!("{step:?}") };
        let op = job.next_task().unwrap().op;
        let Step::Done(outcome) = resume(&mut unit, &mut job, op, Err(kind)) else { panic!() };
        assert_eq!(end_of(outcome), end);
    }
}

#[test]
fn an_unmap_waits_for_all_its_extents() {
    // an error in any of them is the command's.
    let mut unit = unit();
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for lba in [0, 1] {
        list.extend_from_slice(&[0, 0, 0, 0, 0, 0, lba, 0, 0, 0, 0, 8, 0, 0, 0, 0]);
    }
    for (first, second, end) in [
        (Ok(()), Ok(()), End::Good),
        (Err(ErrorKind::NoSpace), Ok(()), End::Check(0x07, 0x27, 0x07)),
        (Ok(()), Err(ErrorKind::TimedOut), End::Status(0x08)),
    ] {
        let command = decode(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0]).unwrap();
        let step = unit.start(&command, &Transfer { len: 40 }, None, &list, &mut Vec::new());
        let Step::Run(mut job) = step else { panic!("{step:?}") };
        let ops = [(); 2].map(|()| job.next_task().unwrap().op);
        assert!(matches!(resume(&mut unit, &mut job, ops[0], first), Step::Wait));
        let step = resume(&mut unit, &mut job, ops[1], second);
        let Step::Done(outcome) = step else { panic!("{step:?}") };
        assert_eq!(end_of(outcome), end);
    }
}

#[test]
fn a_new_size_is_told_once_and_not_to_inquiry() {
    let mut unit = unit();
    unit.resize(67_108_864);
    assert_eq!(run_on(&mut unit, &[0, 0, 0, 0, 0, 0], &[]), End::Good, "the same size is no news");

    unit.resize(100_663_296);
    assert!(matches!(run_on(&mut unit, &[0x12, 0, 0, 0, 36, 0], &[0; 36]), End::Reply(_)));
    assert_eq!(run_on(&mut unit, &cdb_10(0x25, 0, 0, 0), &[0; 8]), End::Check(0x06, 0x2a, 0x09));
    let capacity = End::Reply(vec![0x00, 0x02, 0xff, 0xff, 0, 0, 2, 0]);
    assert_eq!(run_on(&mut unit, &cdb_10(0x25, 0, 0, 0), &[0; 8]), capacity);
    let last = range(196_607, 1);
    assert_eq!(
        run_on(&mut unit, &cdb_10(0x28, 0, 196_607, 1), &[0; 512]),
        End::Ops(vec![(Op::Read(last), true)])
    );

    unit.resize(33_554_432);
    let sense = vec![0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 0x09, 0, 0, 0, 0];
    assert_eq!(run_on(&mut unit, &[0x03, 0, 0, 0, 252, 0], &[0; 252]), End::Reply(sense));
    assert_eq!(run_on(&mut unit, &cdb_10(0x28, 0, 196_607, 1), &[0; 512]), OUT_OF_RANGE);
}
