//! UNMAP and WRITE SAME.

use super::*;
use proptest::prelude::*;

/// An UNMAP parameter list of (LBA, blocks).
fn list(extents: &[(u64, u32)]) -> Vec<u8> {
    let descriptors_len = u16::try_from(extents.len() * 16).unwrap();
    let mut list = Vec::new();
    list.extend_from_slice(&(descriptors_len + 6).to_be_bytes());
    list.extend_from_slice(&descriptors_len.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    for (lba, blocks) in extents {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

/// UNMAP with this PARAMETER LIST LENGTH and this buffer.
fn unmap_with(len: usize, buffer: &[u8]) -> End {
    run_on(&mut unit(), &cdb_10(0x42, 0, 0, u16::try_from(len).unwrap()), buffer)
}

fn unmap(extents: &[(u64, u32)]) -> End {
    let list = list(extents);
    unmap_with(list.len(), &list)
}

fn zeroes(extents: &[(u64, u64)]) -> End {
    End::Ops(extents.iter().map(|&(lba, blocks)| (Op::WriteZeroes(range(lba, blocks)), false)).collect())
}

#[test]
fn unmap_zeroes_each_extent() {
    assert_eq!(unmap(&[(128, 256)]), zeroes(&[(128, 256)]));
    assert_eq!(
        unmap(&[(0, 1), (2, 1), (4, 1), (BLOCKS - 1, 1)]),
        zeroes(&[(0, 1), (2, 1), (4, 1), (BLOCKS - 1, 1)])
    );
    assert_eq!(unmap(&[(0, 32_768)]), zeroes(&[(0, 32_768)])); // four objects
    assert_eq!(unmap(&[(0, 0), (7, 1), (9, 0)]), zeroes(&[(7, 1)]));
}

#[test]
fn unmap_of_nothing_is_good() {
    assert_eq!(unmap_with(0, &[]), End::Good);
    assert_eq!(unmap_with(0, &[0xff; 24]), End::Good);
    assert_eq!(unmap(&[]), End::Good);
    assert_eq!(unmap(&[(5, 0)]), End::Good);
}

#[test]
fn a_list_with_a_mistake_anywhere_unmaps_nothing() {
    assert_eq!(unmap(&[(0, 8), (BLOCKS, 1)]), OUT_OF_RANGE);
    assert_eq!(unmap(&[(0, 8), (u64::MAX, 2)]), OUT_OF_RANGE);
    assert_eq!(unmap(&[(0, 8), (BLOCKS + 1, 0)]), OUT_OF_RANGE);
    assert_eq!(unmap(&[(0, 8), (8, 32_768)]), BAD_LIST); // the sum exceeds the maximum
    assert_eq!(unmap(&[(0, 32_769)]), BAD_LIST);
    assert_eq!(unmap(&[(0, u32::MAX), (0, u32::MAX)]), BAD_LIST);
    assert_eq!(unmap(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]), BAD_LIST); // five
}

#[test]
fn the_list_must_be_all_there() {
    let whole = list(&[(0, 8)]);
    assert_eq!(unmap_with(24, &whole[..23]), BAD_LIST_LENGTH); // less data than the CDB says
    assert_eq!(unmap_with(24, &[]), BAD_LIST_LENGTH);
    assert_eq!(unmap_with(7, &whole), BAD_LIST_LENGTH); // no room for the header
    assert_eq!(unmap_with(23, &whole), BAD_LIST); // descriptor beyond the list
    let mut more = whole.clone();
    more.extend_from_slice(&[0xff; 100]);
    assert_eq!(unmap_with(24, &more), zeroes(&[(0, 8)])); // more data than the CDB says
}

#[test]
fn unmap_limits_follow_the_image() {
    let limits = Limits { object_size: 65_536, ..geometry().limits };
    let mut unit = LogicalUnit::new(Geometry { limits, ..geometry() });
    let cdb = cdb_10(0x42, 0, 0, 24);
    assert_eq!(run_on(&mut unit, &cdb, &list(&[(0, 512)])), zeroes(&[(0, 512)]));
    assert_eq!(run_on(&mut unit, &cdb, &list(&[(0, 513)])), BAD_LIST);
}

fn one(op: Op, uses_ring: bool) -> End {
    End::Ops(vec![(op, uses_ring)])
}

fn write_same(lba: u64, blocks: u64) -> End {
    one(Op::WriteSame { range: range(lba, blocks), pattern: 512 }, true)
}

#[test]
fn write_same_repeats_its_block() {
    assert_eq!(run(&cdb_10(0x41, 0, 8, 16), 512), write_same(8, 16));
    // Four objects at a time: 32768 blocks.
    let same = |lba, blocks| (Op::WriteSame { range: range(lba, blocks), pattern: 512 }, true);
    let pieces = vec![same(8, 32_760), same(32_768, 32_768), same(65_536, 32_768), same(98_304, 8)];
    assert_eq!(run(&cdb_16(0x93, 0, 8, 98_304), 512), End::Ops(pieces));
}

#[test]
fn write_same_unmaps_only_zeros() {
    let zeros = || one(Op::WriteZeroes(range(8, 16)), false);
    // only a block of zeros may be what deallocated blocks read as.
    for position in [0, 1, 255, 511] {
        let mut block = [0; 512];
        block[position] = 0x80;
        assert_eq!(run_on(&mut unit(), &cdb_16(0x93, 0x08, 8, 16), &block), write_same(8, 16));
        assert_eq!(run_on(&mut unit(), &cdb_10(0x41, 0x08, 8, 16), &block), write_same(8, 16));
    }
    assert_eq!(run(&cdb_16(0x93, 0x08, 8, 16), 512), zeros());
    assert_eq!(run(&cdb_10(0x41, 0x08, 8, 16), 512), zeros());
    // NDOB: there is no block.
    assert_eq!(run(&cdb_16(0x93, 0x09, 8, 16), 0), zeros());
    assert_eq!(run(&cdb_16(0x93, 0x01, 8, 16), 0), zeros());
}

#[test]
fn write_same_without_its_block_is_refused() {
    for len in [0, 511, 513, 1024] {
        assert_eq!(run(&cdb_10(0x41, 0x00, 8, 16), len), BAD_LENGTH, "{len}");
        assert_eq!(run(&cdb_16(0x93, 0x08, 8, 16), len), BAD_LENGTH, "{len}");
    }
    // The buffer is there but its block was not handed over: never taken for zeros.
    let command = decode(&cdb_16(0x93, 0x08, 8, 16)).unwrap();
    let step = unit().start(&command, &Transfer { len: 512 }, None, &[], &mut Vec::new());
    let Step::Done(outcome) = step else { panic!("{step:?}") };
    assert_eq!(end_of(outcome), End::Check(0x04, 0x44, 0x00));
}

#[test]
fn write_same_is_checked() {
    assert_eq!(run(&cdb_10(0x41, 0, 8, 0), 512), BAD_FIELD); // WSNZ
    assert_eq!(run(&cdb_16(0x93, 0x09, 8, 0), 0), BAD_FIELD);
    assert_eq!(run(&cdb_16(0x93, 0, BLOCKS - 1, 2), 512), OUT_OF_RANGE);
    assert_eq!(run(&cdb_16(0x93, 0x09, u64::MAX, 2), 0), OUT_OF_RANGE);
    assert_eq!(run(&cdb_16(0x93, 0x18, 8, 16), 512), BAD_FIELD); // ANCHOR
}

#[test]
fn only_these_commands_want_their_data_first() {
    let parameters = |cdb: &[u8]| unit().parameters(&decode(cdb).unwrap());
    assert_eq!(parameters(&cdb_10(0x42, 0, 0, 0x0118)), 0x0118);
    assert_eq!(parameters(&cdb_16(0x93, 0x08, 0, 1)), 512);
    assert_eq!(parameters(&cdb_10(0x41, 0x08, 0, 1)), 512);
    assert_eq!(parameters(&cdb_16(0x93, 0x09, 0, 1)), 0);
    assert_eq!(parameters(&cdb_16(0x93, 0x00, 0, 1)), 0);
    assert_eq!(parameters(&cdb_10(0x2a, 0x00, 0, 8)), 0);
}

proptest! {
    #[test]
    fn any_list_unmaps_on_the_disk_or_not_at_all(list in prop::collection::vec(any::<u8>(), 0..100)) {
        if let End::Ops(ops) = unmap_with(list.len(), &list) {
            prop_assert!(ops.len() <= 4 * 2); // none is longer than a piece
            for (op, uses_ring) in ops {
                prop_assert!(!uses_ring);
                let Op::WriteZeroes(range) = op else { panic!("{op:?}") };
                prop_assert!(range.offset + range.len <= 67_108_864);
            }
        }
    }

    #[test]
    fn small_extents_are_unmapped_as_asked(
        extents in prop::collection::vec((0..BLOCKS - 8192, 1..8192_u32), 1..=4),
    ) {
        // Cut where an operation ends: at multiples of four objects.
        let cut = |&(lba, blocks): &(u64, u32)| {
            let (end, border) = (lba + u64::from(blocks), lba.next_multiple_of(32_768).max(1));
            let border = if border == lba { lba + 32_768 } else { border };
            if border < end { vec![(lba, border - lba), (border, end - border)] } else { vec![(lba, end - lba)] }
        };
        let expected: Vec<_> = extents.iter().flat_map(cut).collect();
        prop_assert_eq!(unmap(&extents), zeroes(&expected));
    }
}

/// The kernel lets commands without data through a Write Exclusive reservation, whoever sends them.
#[test]
fn a_write_exclusive_reservation_holds_for_commands_without_data() {
    let mut unit = unit();
    let mut status = |cdb: &[u8], write_exclusive| {
        let command = decode(cdb).unwrap();
        assert!(LogicalUnit::needs_identity(&command), "{cdb:02x?}");
        // And some initiator may only read.
        let read_only = Identity { read_only: true, ..identity() };
        match unit.start(&command, &Transfer { len: 0 }, Some(&read_only), &[], &mut Vec::new()) {
            Step::Done(outcome) => assert_eq!(end_of(outcome), End::Check(0x07, 0x27, 0x00), "{cdb:02x?}"),
            step => panic!("{step:?}"),
        }
        let identity = Identity { write_exclusive, ..identity() };
        match unit.start(&command, &Transfer { len: 0 }, Some(&identity), &[], &mut Vec::new()) {
            Step::Done(outcome) => outcome.status(),
            Step::Run(_) => 0,
            step => panic!("{step:?}"),
        }
    };
    let same = [0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]; // NDOB
    for cdb in [
        &same[..],
        &[0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x04, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(status(cdb, true), 0x18, "{cdb:02x?}");
    }
    assert_eq!(status(&same, false), 0);
    assert_eq!(status(&[0x04, 0, 0, 0, 0, 0], false), 0);
}
