//! GET LBA STATUS, driven to its end by storage that is a list of extents.

use super::*;
use proptest::prelude::*;

/// LBA, blocks, provisioning status.
type Found = (u64, u32, u8);

fn cdb(lba: u64, allocation: u32) -> [u8; 16] {
    cdb_16(0x9e, 0x12, lba, allocation)
}

/// Takes a reply apart, which must be whole.
fn parse(reply: &[u8]) -> Vec<Found> {
    let len = u32::from_be_bytes(reply[..4].try_into().unwrap());
    assert_eq!(usize::try_from(len).unwrap(), reply.len() - 4);
    assert_eq!(reply[4..8], [0; 4]);
    let descriptors = reply[8..].chunks_exact(16);
    assert!(descriptors.remainder().is_empty());
    descriptors
        .map(|d| {
            assert_eq!(d[13..], [0; 3]);
            let blocks = u32::from_be_bytes(d[8..12].try_into().unwrap());
            (u64::from_be_bytes(d[..8].try_into().unwrap()), blocks, d[12])
        })
        .collect()
}

/// Runs a CDB to its end: the reply or another end, and the operations there were. `extents` tells, of an
/// operation's range, what storage has something for.
fn drive(
    unit: &mut LogicalUnit,
    cdb: &[u8],
    extents: impl Fn(ByteRange) -> Result<Vec<ByteRange>, ErrorKind>,
) -> (End, Vec<ByteRange>) {
    let command = decode(cdb).unwrap();
    let mut job = match unit.start(&command, &Transfer { len: 4096 }, None, &[], &mut Vec::new()) {
        Step::Done(outcome) => return (end_of(outcome), vec![]),
        Step::Run(job) => job,
        step => panic!("{step:?}"),
    };
    assert!(job.data_in() == 0);
    let (mut ran, mut reply) = (Vec::new(), vec![0xee; 9]);
    loop {
        let Task { op, memory } = job.next_task().expect("a job that goes on has tasks");
        assert_eq!((memory, job.next_task()), (Memory::None, None), "one at a time");
        let Op::Extents(range) = op else { panic!("{op:?}") };
        ran.push(range);
        let (result, extents) = match extents(range) {
            Ok(extents) => (Ok(()), extents),
            Err(kind) => (Err(BackendError::new(kind)), vec![]),
        };
        let finished = Finished { op, result, answer: Answer { extents, ..Answer::default() } };
        match unit.resume(&mut job, finished, &|_, _| 0, &mut reply) {
            Step::Wait => {}
            Step::Reply => return (End::Reply(reply), ran),
            Step::Done(outcome) => return (end_of(outcome), ran),
            step => panic!("{step:?}"),
        }
    }
}

/// The parts of `mapped`, in bytes, that lie in a range.
fn within(range: ByteRange, mapped: &[(u64, u64)]) -> Vec<ByteRange> {
    let end = range.offset + range.len;
    mapped
        .iter()
        .map(|&(from, to)| (from.max(range.offset), to.min(end)))
        .filter(|(from, to)| from < to)
        .map(|(from, to)| ByteRange { offset: from, len: to - from })
        .collect()
}

fn statuses(lba: u64, allocation: u32, mapped: &[(u64, u64)]) -> Vec<Found> {
    match drive(&mut unit(), &cdb(lba, allocation), |range| Ok(within(range, mapped))).0 {
        End::Reply(reply) => parse(&reply),
        end => panic!("{end:?}"),
    }
}

/// Many blocks of everything.
const ROOM: u32 = 8 + 16 * 100;

#[test]
fn blocks_are_mapped_or_deallocated() {
    assert_eq!(statuses(0, ROOM, &[]), [(0, 131_072, 1)]);
    assert_eq!(statuses(0, ROOM, &[(0, 67_108_864)]), [(0, 131_072, 0)]);
    assert_eq!(statuses(131_071, ROOM, &[]), [(131_071, 1, 1)]);
    let mapped = [(4096, 8192), (1 << 20, 2 << 20)];
    let all = [(0, 8, 1), (8, 8, 0), (16, 2032, 1), (2048, 2048, 0), (4096, 126_976, 1)];
    assert_eq!(statuses(0, ROOM, &mapped), all);
    // From the block asked for, wherever its run began.
    assert_eq!(statuses(9, ROOM, &mapped)[..2], [(9, 7, 0), (16, 2032, 1)]);
    assert_eq!(statuses(100, ROOM, &mapped)[..2], [(100, 1948, 1), (2048, 2048, 0)]);
}

#[test]
fn a_block_in_part_is_mapped() {
    assert_eq!(statuses(0, ROOM, &[(511, 512)])[..2], [(0, 1, 0), (1, 131_071, 1)]);
    assert_eq!(statuses(0, ROOM, &[(511, 513)])[..2], [(0, 2, 0), (2, 131_070, 1)]);
    // Two extents in one block, and one that begins where the other's block ends.
    assert_eq!(statuses(0, ROOM, &[(10, 20), (30, 40), (512, 513)])[..2], [(0, 2, 0), (2, 131_070, 1)]);
    let limits = Limits { size: 67_108_864 + 100, ..geometry().limits };
    let mut unit = LogicalUnit::new(Geometry { size: 67_108_964, limits, ..geometry() });
    let (end, _) = drive(&mut unit, &cdb(131_071, ROOM), |range| Ok(within(range, &[(0, 67_108_964)])));
    let End::Reply(reply) = end else { panic!("{end:?}") };
    assert_eq!(parse(&reply), [(131_071, 1, 0)], "the rest of a block is not part of the disk");
}

#[test]
fn the_allocation_length_ends_the_list() {
    let mapped = [(512, 1024), (1536, 2048), (2560, 3072)];
    for (allocation, count) in [(24, 1), (39, 1), (40, 2), (55, 2), (56, 3)] {
        assert_eq!(statuses(0, allocation, &mapped).len(), count, "{allocation}");
    }
    // One status twice, another between them: not taken for one run.
    assert_eq!(statuses(0, 24, &mapped), [(0, 1, 1)]);
    let short = |allocation| match drive(&mut unit(), &cdb(5, allocation), |_| Ok(vec![])).0 {
        End::Reply(reply) => reply,
        end => panic!("{end:?}"),
    };
    let whole = [0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 0xff, 0xfb, 1, 0, 0, 0];
    for allocation in [1, 4, 8, 23, 24, 25, 39] {
        assert_eq!(short(allocation), whole[..usize::try_from(allocation).unwrap().min(24)]);
    }
    assert_eq!(run(&cdb(5, 0), 0), End::Good);
}

#[test]
fn what_is_not_on_the_disk_is_refused() {
    for lba in [131_072, 131_073, 1 << 55, 1 << 63, u64::MAX] {
        assert_eq!(run(&cdb(lba, 24), 24), OUT_OF_RANGE, "{lba}");
        assert_eq!(run(&cdb(lba, 0), 0), OUT_OF_RANGE, "{lba}");
    }
    let mut empty = LogicalUnit::new(Geometry { size: 0, ..geometry() });
    assert_eq!(run_on(&mut empty, &cdb(0, 24), &[0; 24]), OUT_OF_RANGE);
}

/// 1 TiB in objects of 4 MiB.
fn large() -> LogicalUnit {
    let limits = Limits { size: 1 << 40, ..geometry().limits };
    LogicalUnit::new(Geometry { size: 1 << 40, limits, ..geometry() })
}

#[test]
fn a_large_disk_is_looked_at_in_pieces_and_not_to_its_end() {
    // Objects 255 up to 256, then 1 GiB at a time.
    let (end, ran) = drive(&mut large(), &cdb(2_088_961, ROOM), |_| Ok(vec![]));
    let first = ByteRange { offset: 2_088_961 * 512, len: (1 << 30) - 2_088_961 * 512 };
    assert_eq!(ran[..2], [first, ByteRange { offset: 1 << 30, len: 1 << 30 }]);
    assert_eq!(ran.len(), 8);
    let End::Reply(reply) = end else { panic!("{end:?}") };
    assert_eq!(parse(&reply), [(2_088_961, 16_777_216 - 2_088_961, 1)]); // to 8 GiB
    // One descriptor needs no more than what storage looks at in one go.
    let (end, ran) = drive(&mut large(), &cdb(0, 24), |range| Ok(vec![range]));
    let End::Reply(reply) = end else { panic!("{end:?}") };
    assert_eq!((parse(&reply), ran.len()), (vec![(0, 2_097_152, 0)], 1));
}

#[test]
fn a_reply_has_a_bounded_number_of_descriptors() {
    // Every second block, and all the room there can be.
    let every_second = |range: ByteRange| {
        let from = range.offset / 1024 * 1024;
        Ok((from..range.offset + range.len)
            .step_by(1024)
            .map(|offset| ByteRange { offset, len: 512 })
            .collect())
    };
    let (end, ran) = drive(&mut unit(), &cdb(0, u32::MAX), every_second);
    let End::Reply(reply) = end else { panic!("{end:?}") };
    let found = parse(&reply);
    assert_eq!((found.len(), ran.len()), (4096, 1));
    for (n, found) in (0..).zip(found) {
        assert_eq!(found, (n, 1, u8::from(n % 2 == 1)));
    }
}

#[test]
fn storage_that_cannot_tell_makes_blocks_mapped() {
    let (end, ran) = drive(&mut unit(), &cdb(7, ROOM), |_| Err(ErrorKind::Invalid));
    let End::Reply(reply) = end else { panic!("{end:?}") };
    assert_eq!((parse(&reply), ran.len()), (vec![(7, 131_065, 0)], 1));
    // More blocks than a descriptor can say: 4 TiB are 2^33.
    let limits = Limits { size: 4 << 40, ..geometry().limits };
    let mut huge = LogicalUnit::new(Geometry { size: 4 << 40, limits, ..geometry() });
    let (end, _) = drive(&mut huge, &cdb(1, ROOM), |_| Err(ErrorKind::Invalid));
    let End::Reply(reply) = end else { panic!("{end:?}") };
    let all = [(1, 0xffff_ffff, 0), (0x1_0000_0000, 0xffff_ffff, 0), (0x1_ffff_ffff, 1, 0)];
    assert_eq!(parse(&reply), all);
    let (end, _) = drive(&mut huge, &cdb(1, 24), |_| Err(ErrorKind::Invalid));
    let End::Reply(reply) = end else { panic!("{end:?}") };
    assert_eq!(parse(&reply), all[..1]);
}

#[test]
fn an_image_that_was_shrunk_is_told_of_up_to_its_last_pieces() {
    // It ends in the third piece.
    let shrunk = |range: ByteRange| match range.offset + range.len <= 2 << 30 {
        true => Ok(vec![range]),
        false => Err(ErrorKind::PastEnd),
    };
    let (end, ran) = drive(&mut large(), &cdb(2_097_152, ROOM), shrunk);
    let End::Reply(reply) = end else { panic!("{end:?}") };
    assert_eq!((parse(&reply), ran.len()), (vec![(2_097_152, 2_097_152, 0)], 2));
    assert_eq!(drive(&mut large(), &cdb(4_194_304, ROOM), shrunk).0, OUT_OF_RANGE);
}

#[test]
fn storage_that_fails_fails_the_command() {
    for (kind, end) in [
        (ErrorKind::Io, End::Check(0x03, 0x11, 0x00)),
        (ErrorKind::Fenced, End::Status(0x08)),
        (ErrorKind::NoResource, End::Status(0x28)),
    ] {
        let (got, ran) = drive(&mut unit(), &cdb(0, ROOM), |_| Err(kind));
        assert_eq!((got, ran.len()), (end, 1), "{kind:?}");
    }
}

proptest! {
    /// Against a list of blocks: the reply is a run of statuses from the block asked for, none in doubt, no two
    /// neighbours alike.
    #[test]
    fn replies_are_what_storage_says(
        cuts in prop::collection::btree_set(0..2_000_000u64, 0..40),
        lba in 0..4096u64,
        descriptors in 1..50u32,
        object in prop::sample::select(vec![4096u64, 65_536, 4_194_304]),
    ) {
        let cuts: Vec<u64> = cuts.into_iter().collect();
        let mapped: Vec<_> = cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let limits = Limits { object_size: object, ..geometry().limits };
        let mut unit = LogicalUnit::new(Geometry { size: 4096 * 512, limits, ..geometry() });
        let (end, _) = drive(&mut unit, &cdb(lba, 8 + 16 * descriptors), |range| Ok(within(range, &mapped)));
        let End::Reply(reply) = end else { panic!("{end:?}") };
        let found = parse(&reply);
        prop_assert!((1..=usize::try_from(descriptors).unwrap()).contains(&found.len()));
        let mut at = lba;
        let mut before = None;
        for (first, blocks, status) in found {
            prop_assert!(first == at && blocks > 0 && before != Some(status));
            for block in at..at + u64::from(blocks) {
                let has = mapped.iter().any(|&(from, to)| from < (block + 1) * 512 && to > block * 512);
                prop_assert_eq!(status == 0, has, "{}", block);
            }
            at += u64::from(blocks);
            before = Some(status);
        }
        prop_assert!(at <= 4096);
    }
}

#[test]
fn the_long_command_can_bound_what_is_scanned() {
    let mut cdb = [0; 32];
    (cdb[0], cdb[7], cdb[9]) = (0x7f, 0x18, 0x12);
    cdb[19] = 8; // from LBA 8 on
    cdb[23] = 24; // 24 blocks
    cdb[30] = 1;
    let End::Ops(ops) = run(&cdb, 256) else { panic!() };
    assert_eq!(ops, [(Op::Extents(range(8, 24)), false)]);
    cdb[23] = 0; // no bound
    let End::Ops(ops) = run(&cdb, 256) else { panic!() };
    assert_eq!(ops, [(Op::Extents(range(8, BLOCKS - 8)), false)]);
    cdb[12..20].copy_from_slice(&BLOCKS.to_be_bytes());
    assert_eq!(run(&cdb, 256), OUT_OF_RANGE);
}
