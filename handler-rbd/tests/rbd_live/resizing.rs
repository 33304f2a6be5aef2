//! An image that changes its size while it is open.

use crate::setup::{Device, MIB, TestImage, eventually, pattern, range, run};
use handler_rbd::block::{Backend, BackendError, Buffer, ErrorKind, Op};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_resize_is_told_and_what_is_past_the_end_is_refused() {
    let test = TestImage::create("resize", "16M");
    let device = Device::new(4096);
    let image = test.open();
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    let tell = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    image.watch(Box::new(tell)).unwrap();
    let write = |offset, len| {
        image.submit(device.request(Op::Write(range(offset, len)), Buffer::Owned(pattern(1, 8192))));
        device.wait().result
    };
    let past_end = Err(BackendError::new(ErrorKind::PastEnd));
    // Without the lock, then with it: then this client's librbd carries the resize out.
    for (lock, grown) in [(false, 24), (true, 32)] {
        if lock {
            assert_eq!(write(0, 4096), Ok(()));
        }
        let before = told.load(Ordering::Relaxed);
        run(&format!("rbd resize --no-progress --size {grown}M {}", test.path()));
        eventually("the resize is told", || told.load(Ordering::Relaxed) > before);
        eventually("the new size", || image.refresh() == Ok(grown * MIB));
        assert_eq!(write(grown * MIB - 4096, 4096), Ok(()));
        assert_eq!(write(grown * MIB - 4096, 8192), past_end);
    }
    let before = told.load(Ordering::Relaxed);
    run(&format!("rbd resize --no-progress --allow-shrink --size 8M {}", test.path()));
    eventually("the shrinking is told", || told.load(Ordering::Relaxed) > before);
    eventually("the new size", || image.refresh() == Ok(8 * MIB));
    assert_eq!(write(8 * MIB - 4096, 4096), Ok(()));
    for op in [
        Op::Read(range(8 * MIB - 4096, 8192)),
        Op::Write(range(8 * MIB - 4096, 8192)),
        Op::Discard(range(8 * MIB, 65536)),
        Op::WriteZeroes(range(9 * MIB, 4096)),
        Op::WriteSame { range: range(8 * MIB - 4096, 8192), pattern: 512 },
        Op::CompareAndWrite(range(8 * MIB, 512)),
        Op::Extents(range(8 * MIB - 4096, 8192)),
        Op::Read(range(u64::MAX - 511, 512)),
    ] {
        image.submit(device.request(op, Buffer::Owned(vec![0; 8192])));
        assert_eq!(device.wait().result, past_end, "{op:?}");
    }
    assert!(device.read(&image, 8 * MIB - 4096, 4096) == pattern(1, 4096), "the part within is untouched");
    drop(image);
    let before = told.load(Ordering::Relaxed);
    run(&format!("rbd resize --no-progress --size 16M {}", test.path()));
    assert_eq!(told.load(Ordering::Relaxed), before, "not after it was closed");
}
