//! Every operation against a real image.

use crate::setup::{Device, MIB, TestImage, pattern, range, run};
use handler_rbd::block::{Backend, BackendError, ErrorKind, Op};

const KIB: usize = 1024;
/// One piece, and three that lie out of order.
const LAYOUTS: [&[(usize, usize)]; 2] =
    [&[(0, 64 * KIB)], &[(128 * KIB, 4 * KIB), (64 * KIB, 40 * KIB), (8 * KIB, 20 * KIB)]];

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn what_is_written_from_pages_is_read_into_pages() {
    let test = TestImage::create("round-trip", "64M");
    let image = test.open();
    let mut device = Device::new(256 * KIB);
    // Within an object, across two objects, and fewer bytes than the buffer has.
    for (seed, (offset, len)) in
        [(4096, 65536), (4 * MIB - 512, 65536), (8 * MIB, 61440), (12 * MIB, 512)].into_iter().enumerate()
    {
        for (layout, pieces) in LAYOUTS.into_iter().enumerate() {
            let data = pattern((seed * 2 + layout) as u64, 64 * KIB);
            let before = device.read(&image, offset, 65536);
            let (result, _) = device.with_pages(&image, Op::Write(range(offset, len)), pieces, &data);
            assert_eq!(result, Ok(()));
            let stored = device.read(&image, offset, 65536);
            let written = usize::try_from(len).unwrap();
            assert!(stored[..written] == data[..written], "{offset} {len} {layout}: written data");
            assert!(stored[written..] == before[written..], "{offset} {len} {layout}: beyond the range");
            let (result, pages) =
                device.with_pages(&image, Op::Read(range(offset, len)), pieces, &[0xaa; 64 * KIB]);
            assert_eq!(result, Ok(()));
            assert!(pages[..written] == data[..written], "{offset} {len} {layout}: read data");
            assert!(pages[written..].iter().all(|byte| *byte == 0xaa), "a page beyond the range is touched");
        }
    }
    assert_eq!(device.without_data(&image, Op::Flush), Ok(()));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn discarded_and_zeroed_ranges_read_as_zeros_and_nothing_else_changes() {
    let test = TestImage::create("zeros", "64M");
    let image = test.open();
    let mut device = Device::new(4 << 20);
    let data = pattern(7, 4 << 20);
    let whole: &[_] = &[(0, 4 << 20)];
    // (operation, range in which zeros are due); the discard's odd ends are not given back.
    let cases = [
        (Op::WriteZeroes(range(512, 1024)), 512..1536),
        (Op::WriteZeroes(range(512, 1_000_448)), 512..1_000_960),
        (Op::WriteZeroes(range(0, 4 * MIB)), 0..4 << 20),
        (Op::Discard(range(65536, 131_072)), 65536..196_608),
        (Op::Discard(range(0, 4 * MIB)), 0..4 << 20),
    ];
    for (op, zeros) in cases {
        assert_eq!(device.with_pages(&image, Op::Write(range(0, 4 * MIB)), whole, &data).0, Ok(()));
        assert_eq!(device.without_data(&image, op), Ok(()), "{op:?}");
        let mut expected = data.clone();
        expected[zeros].fill(0);
        assert!(device.read(&image, 0, 4 * MIB) == expected, "{op:?}");
    }
    assert_eq!(device.with_pages(&image, Op::Write(range(0, 4 * MIB)), whole, &data).0, Ok(()));
    assert_eq!(device.without_data(&image, Op::Discard(range(512, 1024))), Ok(()));
    assert!(device.read(&image, 0, 4 * MIB) == data, "less than the granularity is left alone");
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn write_same_repeats_the_pattern() {
    let test = TestImage::create("same", "64M");
    let image = test.open();
    let mut device = Device::new(256 * KIB);
    let one: &[_] = &[(0, 512)];
    let two: &[_] = &[(0, 256), (4096, 256)];
    for (seed, pieces) in [(1, one), (2, two)] {
        let data = pattern(seed, 512);
        // Across an object's end.
        let op = Op::WriteSame { range: range(4 * MIB - 1024, 65536), pattern: 512 };
        assert_eq!(device.with_pages(&image, op, pieces, &data).0, Ok(()));
        assert!(device.read(&image, 4 * MIB - 1024, 65536) == data.repeat(128));
    }
    // librbd turns zeros into a discard or write-zeroes.
    let op = Op::WriteSame { range: range(4 * MIB - 512, 1024), pattern: 512 };
    assert_eq!(device.with_pages(&image, op, one, &[0; 512]).0, Ok(()));
    assert!(device.read(&image, 4 * MIB - 512, 1024) == [0; 1024]);
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn compare_and_write_swaps_or_says_where_the_difference_is() {
    let test = TestImage::create("caw", "64M");
    let image = test.open();
    let mut device = Device::new(256 * KIB);
    let one: &[_] = &[(0, 16384)];
    let several: &[_] = &[(0, 256), (4096, 256), (65536, 512)];
    let len = 512; // as much as librbd 16 takes
    for pieces in [one, several] {
        // Start of the image, of an object, within an object, close to an object's ends.
        for offset in [0, 4 * MIB, 5 * MIB + 1536, 8 * MIB + 512, 12 * MIB - 512] {
            let (old, new) = (pattern(offset, len), pattern(offset + 1, len));
            let op = Op::Write(range(offset, len as u64));
            assert_eq!(device.with_pages(&image, op, pieces, &old).0, Ok(()));
            let op = Op::CompareAndWrite(range(offset, len as u64));
            for differs_at in [0, 1, len / 2, len - 1] {
                let mut other = old.clone();
                other[differs_at] ^= 1;
                let (result, _) = device.with_pages(&image, op, pieces, &[&other[..], &new].concat());
                let kind = ErrorKind::Miscompare { offset: differs_at as u64 };
                assert_eq!(result, Err(BackendError { kind, errno: libc::EILSEQ }), "{offset}");
            }
            assert!(device.read(&image, offset, len as u64) == old, "a miscompare writes nothing");
            let (result, _) = device.with_pages(&image, op, pieces, &[&old[..], &new].concat());
            assert_eq!(result, Ok(()));
            assert!(device.read(&image, offset, len as u64) == new);
        }
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn compare_and_write_on_an_unwritten_range_compares_with_zeros() {
    let test = TestImage::create("caw-empty", "64M");
    let image = test.open();
    let mut device = Device::new(256 * KIB);
    let op = Op::CompareAndWrite(range(4 * MIB + 512, 512));
    let new = pattern(3, 512);
    let (result, _) = device.with_pages(&image, op, &[(0, 1024)], &[&[1; 512][..], &new].concat());
    assert!(matches!(result, Err(BackendError { kind: ErrorKind::Miscompare { .. }, .. })), "{result:?}");
    let (result, _) = device.with_pages(&image, op, &[(0, 1024)], &[&[0; 512][..], &new].concat());
    assert_eq!(result, Ok(()));
    assert!(device.read(&image, 4 * MIB + 512, 512) == new);
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_read_beyond_the_end_is_an_error_not_old_bytes() {
    let test = TestImage::create("short", "1M");
    let image = test.open();
    let mut device = Device::new(64 * KIB);
    let op = Op::Read(range(MIB - 512, 1024));
    let (result, _) = device.with_pages(&image, op, &[(0, 1024)], &[]);
    assert_eq!(result, Err(BackendError::new(ErrorKind::PastEnd)));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn limits_are_the_images() {
    let test = TestImage::create("limits", "64M");
    let image = test.open();
    let limits = image.limits();
    assert_eq!((limits.size, limits.object_size), (64 * MIB, 4 * MIB));
    assert_eq!((limits.discard_granularity, limits.solid_state), (65536, false));
    run(&format!("rbd resize --no-progress --size 96M {}", test.path()));
    crate::setup::eventually("the new size", || image.refresh() == Ok(96 * MIB));
    assert_eq!(image.limits().size, 96 * MIB);
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_clone_with_a_journal_reads_its_parent_and_copies_up() {
    let parent = TestImage::create("parent", "16M");
    let mut device = Device::new(64 * KIB);
    let old = pattern(1, 64 * KIB);
    let image = parent.open();
    let pieces: &[_] = &[(0, 64 * KIB)];
    assert_eq!(device.with_pages(&image, Op::Write(range(0, 65536)), pieces, &old).0, Ok(()));
    drop(image);
    let (snap, name) = (format!("{}@s", parent.path()), format!("{}-clone", parent.0));
    run(&format!("rbd snap create --no-progress {snap}"));
    run(&format!("rbd clone --rbd-default-clone-format 2 {snap} rbd/{name}"));
    run(&format!("rbd feature enable rbd/{name} journaling"));
    {
        let clone = TestImage(name);
        let image = clone.open();
        assert!(device.read(&image, 0, 65536) == old);
        let new = pattern(2, 512);
        assert_eq!(device.with_pages(&image, Op::Write(range(512, 512)), &[(0, 512)], &new).0, Ok(()));
        let stored = device.read(&image, 0, 65536);
        assert!(stored[..512] == old[..512] && stored[512..1024] == new && stored[1024..] == old[1024..]);
    }
    run(&format!("rbd snap rm --no-progress {snap}"));
}
