//! READ, WRITE, COMPARE AND WRITE, SYNCHRONIZE CACHE.

use super::*;
use proptest::prelude::*;

#[test]
fn reads_and_writes_become_byte_ranges() {
    let read = |lba, blocks| End::Ops(vec![(Op::Read(range(lba, blocks)), true)]);
    let write = |lba, blocks| End::Ops(vec![(Op::Write(range(lba, blocks)), true)]);
    assert_eq!(run(&[0x08, 0, 0, 3, 0, 0], 256 * 512), read(3, 256));
    assert_eq!(run(&[0x0a, 0, 0, 3, 0, 0], 256 * 512), write(3, 256));
    assert_eq!(run(&cdb_10(0x28, 0x18, 8, 8), 8 * 512), read(8, 8));
    assert_eq!(run(&cdb_10(0x2a, 0x18, 8, 8), 8 * 512), write(8, 8));
    assert_eq!(run(&[0xa8, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0], 8 * 512), read(8, 8));
    assert_eq!(run(&[0xaa, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0], 8 * 512), write(8, 8));
    assert_eq!(run(&cdb_16(0x88, 0, BLOCKS - 1, 1), 512), read(BLOCKS - 1, 1));
    assert_eq!(run(&cdb_16(0x8a, 0, BLOCKS - 1, 1), 512), write(BLOCKS - 1, 1));
}

#[test]
fn block_size_scales() {
    let mut unit = LogicalUnit::new(Geometry { block_size: 4096, ..geometry() });
    let op = Op::Write(ByteRange { offset: 4096 * 5, len: 8192 });
    assert_eq!(run_on(&mut unit, &cdb_10(0x2a, 0, 5, 2), &[0; 8192]), End::Ops(vec![(op, true)]));
    assert_eq!(run_on(&mut unit, &cdb_10(0x2a, 0, 16_384, 1), &[0; 4096]), OUT_OF_RANGE);
}

#[test]
fn what_is_not_on_the_disk_is_refused() {
    for opcode in [0x88, 0x8a] {
        assert_eq!(run(&cdb_16(opcode, 0, BLOCKS, 1), 512), OUT_OF_RANGE);
        assert_eq!(run(&cdb_16(opcode, 0, BLOCKS - 1, 2), 1024), OUT_OF_RANGE);
        assert_eq!(run(&cdb_16(opcode, 0, u64::MAX, 1), 512), OUT_OF_RANGE); // the sum wraps
        assert_eq!(run(&cdb_16(opcode, 0, 0, u32::MAX), 512), OUT_OF_RANGE);
        // 2^55 blocks of 512 bytes: the product wraps.
        assert_eq!(run(&cdb_16(opcode, 0, 1 << 55, 1), 512), OUT_OF_RANGE);
    }
    assert_eq!(run(&cdb_16(0x91, 0, BLOCKS, 1), 0), OUT_OF_RANGE);
    assert_eq!(run(&cdb_10(0x35, 0, u32::MAX, 0), 0), OUT_OF_RANGE);
    assert_eq!(run(&cdb_16(0x89, 0, BLOCKS, 0x0000_0000), 0), End::Good); // no blocks, at the end
}

#[test]
fn no_blocks_is_good_up_to_the_end_of_the_disk() {
    for opcode in [0x28, 0x2a] {
        assert_eq!(run(&cdb_10(opcode, 0, 0, 0), 0), End::Good);
        assert_eq!(run(&cdb_10(opcode, 0, 131_072, 0), 0), End::Good);
        assert_eq!(run(&cdb_10(opcode, 0, 131_073, 0), 0), OUT_OF_RANGE);
        assert_eq!(run(&cdb_10(opcode, 0, u32::MAX, 0), 0), OUT_OF_RANGE);
    }
}

#[test]
fn a_write_must_come_with_exactly_its_data() {
    for len in [0, 1, 512, 8 * 512 - 1, 8 * 512 + 1, 16 * 512] {
        assert_eq!(run(&cdb_10(0x2a, 0, 0, 8), len), BAD_LENGTH, "{len}");
    }
    assert_eq!(run(&cdb_10(0x2a, 0, 0, 0), 512), BAD_LENGTH);
}

#[test]
fn a_read_must_have_room_and_may_have_more() {
    for len in [0, 1, 8 * 512 - 1] {
        assert_eq!(run(&cdb_10(0x28, 0, 0, 8), len), BAD_LENGTH, "{len}");
    }
    let command = decode(&cdb_10(0x28, 0, 0, 8)).unwrap();
    let step = unit().start(&command, &Transfer { len: 10_000 }, None, &[], &mut Vec::new());
    let Step::Run(job) = step else { panic!("{step:?}") };
    assert_eq!(job.data_in(), 4096);
}

fn compare_and_write_of(lba: u64, blocks: u8) -> [u8; 16] {
    let mut cdb = cdb_16(0x89, 0, lba, 0);
    cdb[13] = blocks;
    cdb
}

#[test]
fn compare_and_write_takes_one_block_twice() {
    let looks = Op::Read(range(9, 1)); // and then does it: `exchange`
    assert_eq!(run(&compare_and_write_of(9, 1), 1024), End::Ops(vec![(looks, true)]));
    assert_eq!(run(&compare_and_write_of(9, 0), 0), End::Good);
    assert_eq!(run(&compare_and_write_of(9, 2), 2048), BAD_FIELD);
    assert_eq!(run(&compare_and_write_of(9, 255), 0), BAD_FIELD);
    assert_eq!(run(&compare_and_write_of(BLOCKS, 1), 1024), OUT_OF_RANGE);
    for len in [0, 512, 1023, 1025, 2048] {
        assert_eq!(run(&compare_and_write_of(9, 1), len), BAD_FIELD, "{len}");
    }
    assert_eq!(run(&compare_and_write_of(9, 0), 512 * 512), BAD_FIELD); // 256 blocks do not fit the field
}

/// A disk whose storage compares and writes so many bytes.
fn comparing(compare_and_write: u64, object_size: u64) -> LogicalUnit {
    let limits = Limits { compare_and_write, object_size, ..geometry().limits };
    LogicalUnit::new(Geometry { limits, ..geometry() })
}

#[test]
fn as_many_blocks_are_compared_and_written_as_storage_can() {
    for (compare_and_write, object_size, max) in
        [(512, 4_194_304, 1), (4096, 4_194_304, 8), (4_194_304, 4_194_304, 255), (4_194_304, 65_536, 128)]
    {
        let mut unit = comparing(compare_and_write, object_size);
        let End::Reply(limits) = run_on(&mut unit, &[0x12, 1, 0xb0, 0, 64, 0], &[0; 64]) else { panic!() };
        assert_eq!(limits[5], max);
        let whole = End::Ops(vec![(Op::Read(range(0, max.into())), true)]);
        assert_eq!(
            run_on(&mut unit, &compare_and_write_of(0, max), &vec![0; usize::from(max) * 1024]),
            whole
        );
        if let Some(more) = max.checked_add(1) {
            let buffer = vec![0; usize::from(more) * 1024];
            assert_eq!(run_on(&mut unit, &compare_and_write_of(0, more), &buffer), BAD_FIELD);
        }
    }
}

#[test]
fn blocks_that_storage_does_not_keep_together_are_not_compared_and_written() {
    let mut unit = comparing(4096, 4_194_304);
    let mut ask = |lba, blocks: u8| {
        run_on(&mut unit, &compare_and_write_of(lba, blocks), &vec![0; usize::from(blocks) * 1024])
    };
    for (lba, blocks) in [(0, 8), (8, 8), (1, 7), (6, 2), (7, 1), (8, 1), (8190, 2)] {
        let looks = Op::Read(range(lba, blocks.into()));
        assert_eq!(ask(lba, blocks), End::Ops(vec![(looks, true)]));
    }
    for (lba, blocks) in [(7, 2), (1, 8), (8191, 2)] {
        assert_eq!(ask(lba, blocks), BAD_FIELD);
    }
    // Objects that are smaller than what could be compared.
    let mut unit = comparing(1 << 20, 65_536);
    assert!(matches!(run_on(&mut unit, &compare_and_write_of(126, 2), &[0; 2048]), End::Ops(_)));
    assert_eq!(run_on(&mut unit, &compare_and_write_of(127, 2), &[0; 2048]), BAD_FIELD);
}

#[test]
fn a_miscompare_says_where() {
    let mut unit = unit();
    let command = decode(&compare_and_write_of(9, 1)).unwrap();
    let step = unit.start(&command, &Transfer { len: 1024 }, None, &[], &mut Vec::new());
    let Step::Run(mut job) = step else { panic!("{step:?}") };
    let op = job.next_task().unwrap().op;
    let step = resume(&mut unit, &mut job, op, Err(ErrorKind::Miscompare { offset: 300 }));
    let Step::Done(outcome) = step else { panic!("{step:?}") };
    let sense = outcome.sense().unwrap();
    assert_eq!(sense[..14], [0xf0, 0, 0x0e, 0, 0, 0x01, 0x2c, 0x0a, 0, 0, 0, 0, 0x1d, 0x00]);
    assert_eq!(sense[14..], [0; 82]);
}

/// WRITE ATOMIC(16).
fn write_atomic(lba: u64, blocks: u16) -> [u8; 16] {
    cdb_16(0x9c, 0x18, lba, blocks.into())
}

/// The end of a WRITE ATOMIC with its data, and where its sense points.
fn atomic(unit: &mut LogicalUnit, lba: u64, blocks: u16) -> (End, u16) {
    let command = unit.decode(&write_atomic(lba, blocks)).unwrap();
    let transfer = Transfer { len: usize::from(blocks) * usize::try_from(unit.block_size()).unwrap() };
    match unit.start(&command, &transfer, None, &[], &mut Vec::new()) {
        Step::Done(outcome) => {
            let at = outcome.sense().map_or(0, |sense| u16::from_be_bytes([sense[16], sense[17]]));
            (end_of(outcome), at)
        }
        Step::Run(mut job) => {
            let Some(Task { op: op @ Op::Write(_), memory: Memory::Command }) = job.next_task() else {
                panic!()
            };
            assert_eq!(job.next_task(), None, "one operation");
            (End::Ops(vec![(op, true)]), 0)
        }
        step => panic!("{step:?}"),
    }
}

#[test]
fn an_atomic_write_is_one_operation_on_one_object() {
    let mut unit = unit();
    // 16 KiB are 32 blocks, 4 MiB are 8192.
    for (lba, blocks) in
        [(0, 32), (32, 64), (0, 8192), (8192, 8192), (8160, 32), (BLOCKS - 32, 32), (4096, 4096)]
    {
        let op = Op::Write(range(lba, blocks.into()));
        assert_eq!(atomic(&mut unit, lba, blocks), (End::Ops(vec![(op, true)]), 0), "{lba} {blocks}");
    }
    for (lba, blocks) in [(1, 32), (16, 32), (31, 1), (8191, 32)] {
        assert_eq!(atomic(&mut unit, lba, blocks), (BAD_FIELD, 2), "{lba} {blocks}");
    }
    for (lba, blocks) in [(0, 1), (32, 33), (0, 31), (8160, 64), (32, 8192), (0, 16_384)] {
        assert_eq!(atomic(&mut unit, lba, blocks), (BAD_FIELD, 12), "{lba} {blocks}");
    }
    assert_eq!(run(&write_atomic(0, 32), 31 * 512), BAD_LENGTH);
    assert_eq!(run(&write_atomic(0, 0), 512), BAD_LENGTH);
}

#[test]
fn what_an_atomic_write_is_refused_for_first_is_the_end_of_the_disk() {
    let mut unit = unit();
    for (lba, blocks) in
        [(BLOCKS, 32), (BLOCKS - 1, 2), (BLOCKS - 33, 512), (BLOCKS + 1, 0), (1 << 63, 0), (u64::MAX, 1)]
    {
        assert_eq!(atomic(&mut unit, lba, blocks).0, OUT_OF_RANGE, "{lba} {blocks}");
    }
    for lba in [0, 1, BLOCKS - 1, BLOCKS] {
        assert_eq!(atomic(&mut unit, lba, 0).0, End::Good);
    }
}

#[test]
fn the_length_of_an_atomic_write_follows_the_disk() {
    for (block_size, object_size, max_sectors, atomic_write) in [
        (512, 4_194_304, 1024, 32),
        (512, 4_194_304, 0, 32),
        (4096, 4_194_304, 128, 4),
        (4096, 4096, 128, 1),
        (512, 8192, 1024, 16),
        (512, 4_194_304, 31, 1), // no longer than any transfer
        (65_536, 4_194_304, 128, 1),
        (512, 20_480, 1024, 1), // 16 KiB do not divide it
        (65_536, 4096, 128, 0),
        (512, 768, 1024, 0),
    ] {
        let limits = Limits { object_size, ..geometry().limits };
        let mut unit = LogicalUnit::new(Geometry { block_size, max_sectors, limits, ..geometry() });
        let End::Reply(page) = run_on(&mut unit, &[0x12, 1, 0xb0, 0, 64, 0], &[0; 64]) else { panic!() };
        let fields: Vec<_> =
            page[44..64].chunks(4).map(|f| u32::from_be_bytes(f.try_into().unwrap())).collect();
        assert_eq!(fields, [atomic_write, atomic_write, atomic_write, 0, 0], "{block_size} {object_size}");
        let ask = [0xa3, 0x0c, 0x01, 0x9c, 0, 0, 0, 0, 1, 0, 0, 0];
        let End::Reply(known) = run_on(&mut unit, &ask, &[0; 256]) else { panic!() };
        if atomic_write == 0 {
            assert_eq!(known, [0, 1, 0, 0]);
            let buffer = vec![0; usize::try_from(block_size).unwrap()];
            assert_eq!(run_on(&mut unit, &write_atomic(0, 1), &buffer), End::Check(0x05, 0x20, 0x00));
        } else {
            assert_eq!(known[..6], [0, 3, 0, 16, 0x9c, 0x18]);
            let blocks = u16::try_from(atomic_write).unwrap();
            // Wherever such a range lies it is written in one.
            for n in 0..64 {
                let (end, _) = atomic(&mut unit, n * u64::from(blocks), blocks);
                let End::Ops(ops) = end else { panic!("{end:?}") };
                let Op::Write(range) = ops[0].0 else { panic!() };
                assert_eq!(range.offset / object_size, (range.offset + range.len - 1) / object_size);
            }
        }
    }
}

#[test]
fn pre_fetch_is_good_where_there_are_blocks() {
    assert_eq!(run(&cdb_10(0x34, 0x02, 0, 0), 0), End::Good);
    assert_eq!(run(&cdb_10(0x34, 0x00, 131_071, 1), 0), End::Good);
    assert_eq!(run(&cdb_16(0x90, 0x00, BLOCKS, 0), 0), End::Good);
    assert_eq!(run(&cdb_10(0x34, 0x02, 131_071, 2), 0), OUT_OF_RANGE);
    assert_eq!(run(&cdb_16(0x90, 0x00, u64::MAX, 1), 0), OUT_OF_RANGE);
}

#[test]
fn synchronize_cache_flushes() {
    let flush = || End::Ops(vec![(Op::Flush, false)]);
    assert_eq!(run(&cdb_10(0x35, 0, 0, 0), 0), flush());
    assert_eq!(run(&cdb_10(0x35, 0x02, 131_071, 1), 0), flush());
    assert_eq!(run(&cdb_16(0x91, 0x02, 0, 131_072), 0), flush());
}

proptest! {
    /// Whatever is asked for, an operation stays on the disk and in the buffer.
    #[test]
    fn operations_stay_in_bounds(
        mut cdb in any::<[u8; 16]>(),
        opcode in prop::sample::select(vec![8, 10, 0x28, 0x2a, 0x88, 0x8a, 0xa8, 0xaa, 0x89, 0x8b, 0x9c, 0x9e, 0x41, 0x93]),
        near in any::<bool>(),
        len in prop::sample::select(vec![0, 512, 1024, 65_536]),
    ) {
        cdb[0] = opcode;
        cdb[1] = if opcode == 0x9e { 0x12 } else { cdb[1] & 0x18 };
        if opcode == 0x9e {
            cdb[14] = 0;
        }
        if opcode == 0x9c {
            cdb[10..12].fill(0);
        }
        cdb[15] = 0;
        if near {
            cdb[2..8].fill(0);
            cdb[10..13].fill(0);
        }
        let mut unit = unit();
        if let End::Ops(ops) = run_on(&mut unit, &cdb, &vec![0; len]) {
            for (op, _) in ops {
                let (range, used) = match op {
                    Op::Read(range) | Op::Write(range) => (range, range.len),
                    Op::CompareAndWrite(range) => (range, range.len * 2),
                    Op::WriteSame { range, pattern } => (range, pattern.into()),
                    Op::WriteZeroes(range) => (range, 0),
                    Op::Extents(range) => (range, 0),
                    Op::Flush | Op::Discard(_) | Op::SetNote => panic!("{op:?}"),
                };
                prop_assert!(range.len > 0 && range.offset % 512 == 0 && range.len % 512 == 0);
                prop_assert!(range.offset.checked_add(range.len).is_some_and(|end| end <= 67_108_864));
                prop_assert!(used <= u64::try_from(len).unwrap());
            }
        }
    }
}
