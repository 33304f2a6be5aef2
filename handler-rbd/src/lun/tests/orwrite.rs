//! ORWRITE, on a disk that is an array and, in between, somebody else's.

use super::*;
use proptest::prelude::*;

fn cdb(lba: u64, blocks: u32) -> [u8; 16] {
    cdb_16(0x8b, 0, lba, blocks)
}

fn unit_of(block_size: u32, compare_and_write: u64) -> LogicalUnit {
    let limits = Limits { compare_and_write, ..geometry().limits };
    LogicalUnit::new(Geometry { block_size, size: 4 << 20, limits, ..geometry() })
}

/// What came of a command, and what it asked of storage.
struct Ran {
    end: End,
    reads: Vec<ByteRange>,
    writes: Vec<ByteRange>,
    /// Most bytes of private memory at a time.
    private: usize,
}

/// Runs a CDB to its end, `depth` tasks side by side, the last finished first. Before each operation `meddle` gets
/// at the disk, or fails it.
fn drive(
    unit: &mut LogicalUnit,
    disk: &mut [u8],
    cdb: &[u8],
    buffer: &[u8],
    depth: usize,
    mut meddle: impl FnMut(Op, &mut [u8]) -> Option<ErrorKind>,
) -> Ran {
    let mut ran = Ran { end: End::Good, reads: vec![], writes: vec![], private: 0 };
    let command = unit.decode(cdb).unwrap();
    let transfer = Transfer { len: buffer.len() };
    let mut job = match unit.start(&command, &transfer, None, &[], &mut Vec::new()) {
        Step::Done(outcome) => return Ran { end: end_of(outcome), ..ran },
        Step::Run(job) => job,
        step => panic!("{step:?}"),
    };
    assert!(job.data_in() == 0);
    let data_out = |at: usize, to: &mut [u8]| {
        let there = &buffer[at.min(buffer.len())..];
        let len = there.len().min(to.len());
        to[..len].copy_from_slice(&there[..len]);
        len
    };
    let size = |memory: &Memory| match memory {
        Memory::Private(len) => *len,
        Memory::Owned(bytes) => bytes.len(),
        memory => panic!("{memory:?}"),
    };
    let mut out: Vec<Task> = Vec::new();
    loop {
        while out.len() < depth {
            let Some(task) = job.next_task() else { break };
            out.push(task);
        }
        ran.private = ran.private.max(out.iter().map(|task| size(&task.memory)).sum());
        let Task { op, memory } = out.pop().expect("a job that goes on has tasks");
        let (Op::Read(range) | Op::CompareAndWrite(range)) = op else { panic!("{op:?}") };
        let mut result = meddle(op, disk).map_or(Ok(()), Err);
        let start = usize::try_from(range.offset).unwrap();
        let part = &mut disk[start..start + usize::try_from(range.len).unwrap()];
        let mut data = match memory {
            Memory::Owned(bytes) => bytes,
            Memory::Private(len) => vec![0xee; len],
            memory => panic!("{memory:?}"),
        };
        match op {
            _ if result.is_err() => {}
            Op::Read(range) => {
                ran.reads.push(range);
                data.copy_from_slice(part);
            }
            _ => {
                let (old, new) = data.split_at(part.len());
                match old.iter().zip(&*part).position(|(a, b)| a != b) {
                    Some(offset) => result = Err(ErrorKind::Miscompare { offset: offset as u64 }),
                    None => {
                        ran.writes.push(range);
                        part.copy_from_slice(new);
                    }
                }
            }
        }
        let result = result.map_err(BackendError::new);
        let finished = Finished { op, result, answer: Answer { data, ..Answer::default() } };
        if let Step::Done(outcome) = unit.resume(&mut job, finished, &data_out, &mut Vec::new()) {
            assert!(out.is_empty() && job.next_task().is_none(), "it ended with tasks out");
            return Ran { end: end_of(outcome), ..ran };
        }
    }
}

fn alone(_: Op, _: &mut [u8]) -> Option<ErrorKind> {
    None
}

#[test]
fn bits_are_added_where_they_are_not() {
    let mut disk = vec![0xa5; 4 << 20];
    disk[512 * 10..512 * 11].fill(0xff);
    let mut expected = disk.clone();
    expected[512 * 8..512 * 12].fill(0xff);
    for depth in [1, 8] {
        let mut disk = disk.clone();
        let ran = drive(&mut unit_of(512, 512), &mut disk, &cdb(8, 4), &[0x5a; 2048], depth, alone);
        assert_eq!((ran.end, ran.reads), (End::Good, vec![range(8, 4)]));
        // The block with all bits set is not written.
        let mut writes = ran.writes;
        writes.sort_by_key(|range| range.offset);
        assert_eq!(writes, [range(8, 1), range(9, 1), range(11, 1)]);
        assert!(disk == expected);
    }
}

#[test]
fn a_long_one_is_done_in_pieces_of_bounded_memory() {
    let mut disk = vec![0x01; 4 << 20];
    let ran = drive(&mut unit_of(512, 512), &mut disk, &cdb(1, 8191), &vec![0x80; 8191 * 512], 8, alone);
    assert_eq!((ran.end, ran.reads.len(), ran.writes.len()), (End::Good, 64, 8191));
    assert!(ran.private <= (64 << 10) + 8 * 1024, "{}", ran.private);
    assert!(disk[..512] == [0x01; 512] && disk[512..].iter().all(|&byte| byte == 0x81));
}

#[test]
fn blocks_are_as_large_as_the_disk_says() {
    let mut disk = vec![0x01; 4 << 20];
    let ran = drive(&mut unit_of(4096, 4096), &mut disk, &cdb(1, 2), &[0x10; 8192], 8, alone);
    let at = |offset, len| ByteRange { offset, len };
    assert_eq!((ran.end, ran.reads), (End::Good, vec![at(4096, 8192)]));
    assert_eq!(ran.writes, [at(8192, 4096), at(4096, 4096)]); // the last finished first
}

#[test]
fn a_block_changed_in_between_is_read_again() {
    let mut disk = vec![0; 4 << 20];
    // Before each of the first ten writes somebody sets another bit.
    let mut n = 0;
    let meddle = |op, disk: &mut [u8]| {
        if matches!(op, Op::CompareAndWrite(_)) && n < 10 {
            disk[512 * 3 + n] |= 0x02;
            n += 1;
        }
        None
    };
    let ran = drive(&mut unit_of(512, 512), &mut disk, &cdb(3, 1), &[0x01; 512], 8, meddle);
    assert_eq!((ran.end, ran.reads.len(), ran.writes.len()), (End::Good, 11, 1));
    assert!(disk[512 * 3..512 * 3 + 10] == [0x03; 10] && disk[512 * 3 + 10..512 * 4] == [0x01; 502]);
    // Somebody else does the same: nothing is left to write.
    let mut disk = vec![0; 4 << 20];
    let meddle = |op, disk: &mut [u8]| {
        if matches!(op, Op::CompareAndWrite(_)) {
            disk[..512].fill(0x07);
        }
        None
    };
    let ran = drive(&mut unit_of(512, 512), &mut disk, &cdb(0, 1), &[0x01; 512], 8, meddle);
    assert_eq!((ran.end, ran.reads.len(), ran.writes.len()), (End::Good, 2, 0));
}

#[test]
fn who_always_loses_is_told_to_come_back() {
    let mut disk = vec![0; 4 << 20];
    let mut n = 0;
    let meddle = |op, disk: &mut [u8]| {
        if matches!(op, Op::CompareAndWrite(_)) {
            n += 1;
            disk[512] ^= 2;
        }
        None
    };
    let ran = drive(&mut unit_of(512, 512), &mut disk, &cdb(1, 1), &[0x01; 512], 8, meddle);
    assert_eq!((ran.end, ran.writes), (End::Status(0x08), vec![]));
    assert_eq!(n, 1025);
}

#[test]
fn failures_are_told() {
    let mut disk = vec![0; 4 << 20];
    let mut fails = |kind, reads: bool| {
        let meddle = |op, _: &mut [u8]| (matches!(op, Op::Read(_)) == reads).then_some(kind);
        drive(&mut unit_of(512, 512), &mut disk, &cdb(1, 4), &[0x01; 2048], 8, meddle).end
    };
    assert_eq!(fails(ErrorKind::Io, true), End::Check(0x03, 0x11, 0x00));
    assert_eq!(fails(ErrorKind::Io, false), End::Check(0x03, 0x0c, 0x00));
    assert_eq!(fails(ErrorKind::TimedOut, false), End::Status(0x08));
    assert_eq!(fails(ErrorKind::NoSpace, false), End::Check(0x07, 0x27, 0x07));
}

#[test]
fn what_is_asked_must_be_there_with_exactly_its_data() {
    assert_eq!(run(&cdb(BLOCKS, 1), 512), OUT_OF_RANGE);
    assert_eq!(run(&cdb(BLOCKS - 1, 2), 1024), OUT_OF_RANGE);
    assert_eq!(run(&cdb(u64::MAX, 1), 512), OUT_OF_RANGE);
    assert_eq!(run(&cdb(0, 0), 0), End::Good);
    assert_eq!(run(&cdb(BLOCKS, 0), 0), End::Good);
    assert_eq!(run(&cdb(BLOCKS + 1, 0), 0), OUT_OF_RANGE);
    for len in [0, 512, 1023, 1025, 2048] {
        assert_eq!(run(&cdb(0, 2), len), BAD_LENGTH, "{len}");
    }
    assert_eq!(run(&cdb(0, 0), 512), BAD_LENGTH);
    assert!(matches!(run(&cdb_16(0x8b, 0x18, 0, 1), 512), End::Ops(_)), "DPO and FUA");
    for protect in 1..8 {
        assert_eq!(run(&cdb_16(0x8b, protect << 5, 0, 1), 512), BAD_FIELD);
    }
}

#[test]
fn where_storage_cannot_there_is_no_such_command() {
    const UNKNOWN: End = End::Check(0x05, 0x20, 0x00);
    let mut compare_and_write = cdb_16(0x89, 0, 0, 0);
    compare_and_write[13] = 1;
    let limits = Limits { object_size: 768, ..geometry().limits };
    let objects_end_in_blocks = LogicalUnit::new(Geometry { limits, ..geometry() });
    for mut unit in
        [unit_of(4096, 512), unit_of(512, 0), unit_of(512, 256), unit_of(512, 768), objects_end_in_blocks]
    {
        let block = usize::try_from(unit.block_size()).unwrap();
        assert_eq!(run_on(&mut unit, &cdb(0, 1), &vec![0; block]), UNKNOWN);
        assert_eq!(run_on(&mut unit, &compare_and_write, &vec![0; 2 * block]), UNKNOWN);
        // Whatever is wrong with it besides.
        assert_eq!(run_on(&mut unit, &cdb_16(0x8b, 0x20, u64::MAX, 1), &[]), UNKNOWN);
        assert_eq!(run_on(&mut unit, &cdb_16(0x89, 0x20, u64::MAX, 1), &[]), UNKNOWN);
        let End::Reply(limits) = run_on(&mut unit, &[0x12, 1, 0xb0, 0, 64, 0], &[0; 64]) else { panic!() };
        assert_eq!(limits[5], 0, "MAXIMUM COMPARE AND WRITE LENGTH");
        for opcode in [0x89, 0x8b] {
            let one = [0xa3, 0x0c, 0x01, opcode, 0, 0, 0, 0, 1, 0, 0, 0];
            assert_eq!(run_on(&mut unit, &one, &[0; 256]), End::Reply(vec![0, 1, 0, 0]));
        }
        let all = [0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
        let End::Reply(all) = run_on(&mut unit, &all, &[0; 1024]) else { panic!() };
        assert!(all[4..].chunks(8).all(|d| ![0x89, 0x8b].contains(&d[0])));
    }
    let one = [0xa3, 0x0c, 0x01, 0x8b, 0, 0, 0, 0, 1, 0, 0, 0];
    let End::Reply(there) = run(&one, 256) else { panic!() };
    assert_eq!(there[..6], [0, 3, 0, 16, 0x8b, 0x1a]);
}

proptest! {
    /// Whoever meddles, bits that were asked for are there in the end and no others but the meddler's.
    #[test]
    fn bits_are_ored(
        before in prop::collection::vec(any::<u8>(), 4 * 512),
        data in prop::collection::vec(any::<u8>(), 4 * 512),
        others in prop::collection::vec((0..2048usize, any::<u8>()), 0..20),
        depth in 1..9usize,
    ) {
        let mut disk = vec![0; 4 << 20];
        disk[..2048].copy_from_slice(&before);
        let mut expected: Vec<u8> = before.iter().zip(&data).map(|(a, b)| a | b).collect();
        let mut meddlers = others.into_iter();
        let meddle = |_, disk: &mut [u8]| {
            if let Some((at, bits)) = meddlers.next() {
                disk[at] |= bits;
                expected[at] |= bits;
            }
            None
        };
        let ran = drive(&mut unit_of(512, 512), &mut disk, &cdb(0, 4), &data, depth, meddle);
        prop_assert_eq!(ran.end, End::Good);
        prop_assert!(disk[..2048] == expected);
    }
}
