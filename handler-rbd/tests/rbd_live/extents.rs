//! Which parts of an image have data.

use crate::setup::{Device, MIB, TestImage, pattern, range, run};
use handler_rbd::block::{Backend, Buffer, ByteRange, ErrorKind, Op};
use handler_rbd::rbd::Image;

/// With a map of its objects, and without.
const MAP: &str = "--image-feature layering,exclusive-lock,object-map,fast-diff";
const NO_MAP: &str = "--image-feature layering,exclusive-lock";
/// With one that does not tell differences; without any, removing a large image takes minutes.
const POOR_MAP: &str = "--image-feature layering,exclusive-lock,object-map";
const OBJECT: u64 = 4 * MIB;

fn extents(device: &Device, image: &Image, within: ByteRange) -> Result<Vec<ByteRange>, ErrorKind> {
    let mut request = device.request(Op::Extents(within), Buffer::None);
    request.extents = vec![range(1, 1)]; // of an earlier request
    image.submit(request);
    let request = device.wait();
    request.result.map(|()| request.extents).map_err(|error| error.kind)
}

fn write(device: &Device, image: &Image, at: ByteRange) {
    let bytes = pattern(at.offset, usize::try_from(at.len).unwrap());
    image.submit(device.request(Op::Write(at), Buffer::Owned(bytes)));
    assert_eq!(device.wait().result, Ok(()));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn extents_come_and_go_with_the_data() {
    let device = Device::new(4096);
    // Data in the 3rd object ends in its middle; only without a map that is seen.
    for (features, third) in [(MAP, OBJECT), (NO_MAP, MIB + 4096)] {
        let test = TestImage::create("extents", &format!("64M {features}"));
        let image = test.open();
        let all = range(0, 64 * MIB);
        assert_eq!(extents(&device, &image, all), Ok(vec![]), "{features}: empty");
        write(&device, &image, range(0, 2 * OBJECT));
        write(&device, &image, range(2 * OBJECT + MIB, 4096));
        write(&device, &image, range(63 * MIB, MIB)); // ends with its object
        let last = range(60 * MIB, OBJECT);
        let expected = vec![range(0, 2 * OBJECT + third), last];
        assert_eq!(extents(&device, &image, all), Ok(expected), "{features}: written");
        assert_eq!(device.without_data(&image, Op::Discard(range(OBJECT, OBJECT))), Ok(()));
        let expected = vec![range(0, OBJECT), range(2 * OBJECT, third), last];
        assert_eq!(extents(&device, &image, all), Ok(expected), "{features}: discarded");
        assert_eq!(device.without_data(&image, Op::WriteZeroes(range(0, OBJECT))), Ok(()));
        let expected = vec![range(2 * OBJECT, third), last];
        assert_eq!(extents(&device, &image, all), Ok(expected), "{features}: zeroed");
        // What a snapshot keeps is not the image's any more.
        run(&format!("rbd snap create --no-progress {}@s", test.path()));
        assert_eq!(device.without_data(&image, Op::Discard(range(2 * OBJECT, OBJECT))), Ok(()));
        assert_eq!(extents(&device, &image, all), Ok(vec![last]), "{features}: discarded after a snapshot");
        drop(image);
        run(&format!("rbd snap rm --no-progress {}@s", test.path()));
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn extents_end_with_the_range_that_was_asked_for() {
    let device = Device::new(4096);
    for features in [MAP, NO_MAP] {
        let test = TestImage::create("extents-clip", &format!("64M {features}"));
        let image = test.open();
        write(&device, &image, range(OBJECT, 2 * OBJECT));
        for (asked, expected) in [
            (range(0, OBJECT), vec![]),
            (range(0, OBJECT + 1), vec![range(OBJECT, 1)]),
            (range(OBJECT - 1000, 3000), vec![range(OBJECT, 2000)]),
            (range(OBJECT + 513, 1), vec![range(OBJECT + 513, 1)]),
            (range(2 * OBJECT - 7, 9), vec![range(2 * OBJECT - 7, 9)]),
            (range(3 * OBJECT - 1, 4096), vec![range(3 * OBJECT - 1, 1)]),
            (range(3 * OBJECT, 4096), vec![]),
            (range(2 * OBJECT, 0), vec![]),
        ] {
            assert_eq!(extents(&device, &image, asked), Ok(expected), "{features}: {asked:?}");
        }
        assert_eq!(extents(&device, &image, range(65 * MIB, 512)), Err(ErrorKind::PastEnd));
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn extents_are_found_beyond_two_to_the_32_blocks() {
    const TIB: u64 = 1 << 40;
    let device = Device::new(4096);
    for features in [MAP, POOR_MAP] {
        let test = TestImage::create("extents-large", &format!("3T {features}"));
        let image = test.open();
        write(&device, &image, range(3 * TIB - OBJECT, OBJECT));
        write(&device, &image, range(3 * TIB - 256 * OBJECT, OBJECT));
        let last = range(3 * TIB - 256 * OBJECT, 256 * OBJECT);
        let start = std::time::Instant::now();
        let found = extents(&device, &image, last);
        println!("{features}: 256 objects of 3 TiB took {:?}", start.elapsed());
        let expected = vec![range(last.offset, OBJECT), range(3 * TIB - OBJECT, OBJECT)];
        assert_eq!(found, Ok(expected), "{features}");
        assert_eq!(extents(&device, &image, range(0, 256 * OBJECT)), Ok(vec![]), "{features}");
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn what_a_clone_has_from_its_parent_counts() {
    let device = Device::new(4096);
    for (of_parent, of_clone) in [(MAP, MAP), (NO_MAP, MAP), (MAP, NO_MAP)] {
        let parent = TestImage::create("extents-parent", &format!("64M {of_parent}"));
        let image = parent.open();
        write(&device, &image, range(0, 3 * OBJECT));
        run(&format!("rbd snap create --no-progress {}@old", parent.path()));
        // Gone before the clone was made.
        assert_eq!(device.without_data(&image, Op::Discard(range(2 * OBJECT, OBJECT))), Ok(()));
        drop(image);
        let (snap, name) = (format!("{}@s", parent.path()), format!("{}-clone", parent.0));
        run(&format!("rbd snap create --no-progress {snap}"));
        run(&format!("rbd clone --rbd-default-clone-format 2 {of_clone} {snap} rbd/{name}"));
        {
            let clone = TestImage(name);
            let image = clone.open();
            let all = range(0, 64 * MIB);
            let found = extents(&device, &image, all);
            assert_eq!(found, Ok(vec![range(0, 2 * OBJECT)]), "{of_parent} {of_clone}");
            write(&device, &image, range(8 * OBJECT, OBJECT));
            // librbd 16 tells the parent's data also where an empty object hides it: more than there is.
            assert_eq!(device.without_data(&image, Op::Discard(range(0, OBJECT))), Ok(()));
            assert!(device.read(&image, 0, OBJECT).iter().all(|byte| *byte == 0));
            let expected = vec![range(0, 2 * OBJECT), range(8 * OBJECT, OBJECT)];
            assert_eq!(extents(&device, &image, all), Ok(expected), "{of_parent} {of_clone}");
            let found = extents(&device, &image, range(OBJECT + 5, 10));
            assert_eq!(found, Ok(vec![range(OBJECT + 5, 10)]), "{of_parent} {of_clone}");
        }
        run(&format!("rbd snap rm --no-progress {snap}"));
        run(&format!("rbd snap rm --no-progress {}@old", parent.path()));
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_map_that_is_taken_away_is_not_asked_any_more() {
    let device = Device::new(4096);
    let test = TestImage::create("extents-feature", &format!("64M {MAP}"));
    let image = test.open();
    write(&device, &image, range(OBJECT, 4096));
    assert_eq!(extents(&device, &image, range(0, 64 * MIB)), Ok(vec![range(OBJECT, OBJECT)]));
    run(&format!("rbd feature disable {} fast-diff,object-map", test.path()));
    assert_eq!(extents(&device, &image, range(0, 64 * MIB)), Ok(vec![range(OBJECT, 4096)]));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn extents_of_striped_images_lie_where_the_data_is() {
    let device = Device::new(4096);
    for features in [MAP, NO_MAP] {
        let striping = "--stripe-unit 65536 --stripe-count 4";
        let test = TestImage::create("extents-striped", &format!("64M {striping} {features}"));
        let image = test.open();
        // The 2nd units of the 2nd and 3rd object.
        write(&device, &image, range(5 * 65536, 2 * 65536));
        let found = extents(&device, &image, range(4 * 65536, 4 * 65536));
        assert_eq!(found, Ok(vec![range(5 * 65536, 2 * 65536)]), "{features}");
        assert_eq!(extents(&device, &image, range(16 * MIB, 48 * MIB)), Ok(vec![]), "{features}");
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_fenced_client_learns_no_extents() {
    let device = Device::new(4096);
    for features in [MAP, NO_MAP] {
        let test = TestImage::create("extents-fenced", &format!("64M {features}"));
        let image = test.open();
        write(&device, &image, range(0, 4096));
        let _successor = test.fence(&image);
        assert_eq!(extents(&device, &image, range(0, 64 * MIB)), Err(ErrorKind::Fenced), "{features}");
    }
}
