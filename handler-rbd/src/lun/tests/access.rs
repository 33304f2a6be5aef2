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

fn compare_and_write(lba: u64, blocks: u8) -> [u8; 16] {
    let mut cdb = cdb_16(0x89, 0, lba, 0);
    cdb[13] = blocks;
    cdb
}

#[test]
fn compare_and_write_takes_one_block_twice() {
    let op = Op::CompareAndWrite(range(9, 1));
    assert_eq!(run(&compare_and_write(9, 1), 1024), End::Ops(vec![(op, true)]));
    assert_eq!(run(&compare_and_write(9, 0), 0), End::Good);
    assert_eq!(run(&compare_and_write(9, 2), 2048), BAD_FIELD);
    assert_eq!(run(&compare_and_write(9, 255), 0), BAD_FIELD);
    assert_eq!(run(&compare_and_write(BLOCKS, 1), 1024), OUT_OF_RANGE);
    for len in [0, 512, 1023, 1025, 2048] {
        assert_eq!(run(&compare_and_write(9, 1), len), BAD_FIELD, "{len}");
    }
    assert_eq!(run(&compare_and_write(9, 0), 512 * 512), BAD_FIELD); // 256 blocks do not fit the field
}

#[test]
fn compare_and_write_is_refused_where_storage_cannot() {
    let mut unit = LogicalUnit::new(Geometry { block_size: 4096, ..geometry() });
    assert_eq!(run_on(&mut unit, &compare_and_write(0, 1), &[0; 8192]), BAD_FIELD);
    let limits = Limits { compare_and_write: 4096, ..geometry().limits };
    let mut unit = LogicalUnit::new(Geometry { block_size: 4096, limits, ..geometry() });
    assert!(matches!(run_on(&mut unit, &compare_and_write(0, 1), &[0; 8192]), End::Ops(_)));
}

#[test]
fn compare_and_write_stays_in_one_object() {
    // No image has such objects; if one had, the answer would not be a promise of atomicity.
    let limits = Limits { object_size: 768, ..geometry().limits };
    let mut unit = LogicalUnit::new(Geometry { limits, ..geometry() });
    assert!(matches!(run_on(&mut unit, &compare_and_write(0, 1), &[0; 1024]), End::Ops(_)));
    // To the last byte of one.
    assert!(matches!(run_on(&mut unit, &compare_and_write(2, 1), &[0; 1024]), End::Ops(_)));
    assert_eq!(run_on(&mut unit, &compare_and_write(1, 1), &[0; 1024]), End::Check(4, 0x44, 0));
}

#[test]
fn a_miscompare_says_where() {
    let mut unit = unit();
    let command = decode(&compare_and_write(9, 1)).unwrap();
    let step = unit.start(&command, &Transfer { len: 1024 }, None, &[], &mut Vec::new());
    let Step::Run(mut job) = step else { panic!("{step:?}") };
    let op = job.next_task().unwrap().op;
    let step = resume(&mut unit, &mut job, op, Err(ErrorKind::Miscompare { offset: 300 }));
    let Step::Done(outcome) = step else { panic!("{step:?}") };
    let sense = outcome.sense().unwrap();
    assert_eq!(sense[..14], [0xf0, 0, 0x0e, 0, 0, 0x01, 0x2c, 0x0a, 0, 0, 0, 0, 0x1d, 0x00]);
    assert_eq!(sense[14..], [0; 82]);
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
        opcode in prop::sample::select(vec![8, 10, 0x28, 0x2a, 0x88, 0x8a, 0xa8, 0xaa, 0x89, 0x41, 0x93]),
        near in any::<bool>(),
        len in prop::sample::select(vec![0, 512, 1024, 65_536]),
    ) {
        cdb[0] = opcode;
        cdb[1] &= 0x18;
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
                    Op::Flush | Op::Discard(_) | Op::Extents(_) | Op::SetNote => panic!("{op:?}"),
                };
                prop_assert!(range.len > 0 && range.offset % 512 == 0 && range.len % 512 == 0);
                prop_assert!(range.offset.checked_add(range.len).is_some_and(|end| end <= 67_108_864));
                prop_assert!(used <= u64::try_from(len).unwrap());
            }
        }
    }
}
