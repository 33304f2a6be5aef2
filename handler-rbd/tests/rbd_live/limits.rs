//! Numbers of an image that depend on how it and its pool were made.

use crate::setup::{MIB, TestImage, connect_as, run};
use handler_rbd::block::{Backend, Limits};
use handler_rbd::rbd::Image;

fn limits(size_and_options: &str) -> Limits {
    TestImage::create("limits-of", size_and_options).open().limits()
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn atomic_operations_end_at_stripe_units() {
    assert_eq!(limits("64M --object-size 1M").object_size, MIB);
    assert_eq!(limits("64M --stripe-unit 65536 --stripe-count 4").object_size, 65536);
    assert_eq!(limits("64M --stripe-unit 65536 --stripe-count 1").object_size, 4 * MIB);
    let small = limits("64M --stripe-unit 16384 --stripe-count 4");
    assert_eq!((small.object_size, small.discard_granularity), (16384, 4 * 65536));
}

/// Puts the cluster's devices and pools back as they were.
struct Reverted;

impl Drop for Reverted {
    fn drop(&mut self) {
        for command in [
            "ceph osd pool set rbd crush_rule replicated_rule",
            "ceph osd pool set solid-data crush_rule replicated_rule",
            "ceph osd crush rule rm solid",
            "ceph osd crush rm-device-class osd.0",
            "ceph osd crush set-device-class hdd osd.0",
            "ceph auth rm client.solid",
        ] {
            let words: Vec<_> = command.split(' ').collect();
            let _ = std::process::Command::new(words[0]).args(&words[1..]).output();
        }
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn the_data_pools_device_class_tells_what_does_not_rotate() {
    // The documented capabilities are enough to ask.
    let cluster = connect_as("solid", r#"["mon","profile rbd","osd","profile rbd"]"#);
    run("ceph osd pool create solid-data 1");
    run("rbd pool init solid-data");
    let _reverted = Reverted;
    let plain = TestImage::create("solid", "16M");
    let split = TestImage::create("solid-split", "16M --data-pool solid-data");
    let is_solid =
        |test: &TestImage| Image::open(cluster.clone(), "rbd", &test.0).unwrap().limits().solid_state;
    assert_eq!((is_solid(&plain), is_solid(&split)), (false, false), "any device");
    for class in ["ssd", "nvme"] {
        run("ceph osd crush rm-device-class osd.0");
        run(&format!("ceph osd crush set-device-class {class} osd.0"));
        assert_eq!((is_solid(&plain), is_solid(&split)), (false, false), "a rule that takes any class");
        run(&format!("ceph osd crush rule create-replicated solid default osd {class}"));
        run("ceph osd pool set rbd crush_rule solid");
        assert_eq!((is_solid(&plain), is_solid(&split)), (true, false), "{class} for the images' pool");
        run("ceph osd pool set rbd crush_rule replicated_rule");
        run("ceph osd pool set solid-data crush_rule solid");
        assert_eq!((is_solid(&plain), is_solid(&split)), (false, true), "{class} for the data pool");
        run("ceph osd pool set solid-data crush_rule replicated_rule");
        run("ceph osd crush rule rm solid");
    }
}
