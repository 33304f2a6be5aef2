//! Shutting a predecessor out and taking its place.

use crate::setup::{Device, MIB, TestImage, config, connect, connect_as, pattern, range, run, take_over};
use handler_rbd::block::{Backend, Buffer, ErrorKind, Op};
use handler_rbd::rbd::{Cluster, ClusterConfig, Image, Owner};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn write(device: &Device, image: &Image, seed: u64) -> Result<(), ErrorKind> {
    image.submit(device.request(Op::Write(range(0, 4096)), Buffer::Owned(pattern(seed, 4096))));
    device.wait().result.map_err(|error| error.kind)
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_blocklisted_client_is_fenced_and_its_successor_writes_at_once() {
    let test = TestImage::create("fence", "16M");
    let device = Device::new(4096);
    let old = test.open();
    assert_eq!(write(&device, &old, 1), Ok(()));
    let predecessor = old.cluster().addresses().unwrap();

    // The documented capabilities are enough to fence.
    let successor = connect_as("gateway", r#"["mon","profile rbd","osd","profile rbd pool=rbd"]"#);
    let start = Instant::now();
    successor.blocklist(&predecessor).unwrap();
    let new = Image::open(successor, "rbd", &test.0).unwrap();
    assert_eq!(take_over(&new, &predecessor), Ok(true));
    assert_eq!(write(&device, &new, 2), Ok(()));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "no watch time-out is waited for: {took:?}");

    assert_eq!(write(&device, &old, 3), Err(ErrorKind::Fenced));
    for op in [
        Op::Read(range(0, 4096)),
        Op::WriteSame { range: range(0, 4096), pattern: 512 },
        Op::CompareAndWrite(range(0, 512)),
        Op::WriteZeroes(range(0, 4096)),
        Op::Discard(range(0, 65536)),
    ] {
        old.submit(device.request(op, Buffer::Owned(vec![0; 4096])));
        let result = device.wait().result.map_err(|error| error.kind);
        assert_eq!(result, Err(ErrorKind::Fenced), "{op:?}");
    }
    assert!(device.read(&new, 0, 4096) == pattern(2, 4096), "the fenced write did not land");
    println!("taking over took {took:?}");
    let start = Instant::now();
    drop(old);
    println!("closing the fenced image took {:?}", start.elapsed());
    drop(new);
    run("ceph auth rm client.gateway");
}

/// Why `zero_copy_writes` is off. When this fails, librbd has been mended and it can be on.
#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn librbd_loses_the_zero_copy_write_of_a_fenced_client() {
    let test = TestImage::create("fence-zero-copy", "16M");
    let device = Device::new(4096);
    let cluster = Cluster::connect(&ClusterConfig { zero_copy_writes: true, ..config() }).unwrap();
    let old = Image::open(Arc::new(cluster), "rbd", &test.0).unwrap();
    assert_eq!(write(&device, &old, 1), Ok(()));
    let _successor = test.fence(&old);
    old.submit(device.request(Op::Write(range(0, 4096)), Buffer::Owned(pattern(2, 4096))));
    // A copied one comes back in less than a millisecond.
    std::thread::sleep(Duration::from_secs(5));
    assert!(device.done.is_empty());
    std::mem::forget(old); // closing would wait for it for ever
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn writes_in_flight_when_the_client_is_fenced_all_come_back() {
    const DEPTH: usize = 64;
    let test = TestImage::create("fence-flight", "64M");
    let device = Device::new(4096);
    let old = test.open();
    assert_eq!(write(&device, &old, 1), Ok(()));
    let predecessor = old.cluster().addresses().unwrap();
    let successor = connect();
    let fence = std::thread::spawn(move || successor.blocklist(&predecessor));
    let submit = |i: u64| {
        let op = Op::Write(range(i % 64 * MIB, 65536));
        old.submit(device.request(op, Buffer::Owned(pattern(i, 65536))));
    };
    (0..DEPTH as u64).for_each(submit);
    let (mut fenced, mut started) = (0, DEPTH as u64);
    while fenced < 4 * DEPTH {
        match device.wait().result.map_err(|error| error.kind) {
            Ok(()) => {}
            Err(ErrorKind::Fenced) => fenced += 1,
            Err(other) => panic!("{other:?}"),
        }
        submit(started);
        started += 1;
    }
    for _ in 0..DEPTH {
        assert_eq!(device.wait().result.map_err(|error| error.kind), Err(ErrorKind::Fenced));
    }
    fence.join().unwrap().unwrap();
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_lock_of_somebody_else_is_not_broken() {
    let test = TestImage::create("others-lock", "16M");
    let device = Device::new(4096);
    let owner = test.open();
    assert_eq!(write(&device, &owner, 1), Ok(()));
    let other = test.open();
    let stranger = connect().addresses().unwrap();
    for clients in [vec![], vec![String::new()], vec![stranger]] {
        assert_eq!(other.lock().unwrap().owner(&clients), Ok(Owner::Other));
    }
    assert_eq!(write(&device, &owner, 2), Ok(()));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn an_image_without_locks_needs_no_breaking() {
    let test = TestImage::create("fence-lockless", "16M --image-feature layering");
    let device = Device::new(4096);
    let old = test.open();
    assert_eq!(write(&device, &old, 1), Ok(()));
    let predecessor = old.cluster().addresses().unwrap();
    let successor = connect();
    successor.blocklist(&predecessor).unwrap();
    let new = Image::open(successor, "rbd", &test.0).unwrap();
    assert!(new.lock().is_none());
    assert_eq!(write(&device, &new, 2), Ok(()));
    assert_eq!(write(&device, &old, 3), Err(ErrorKind::Fenced));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_free_lock_needs_no_breaking() {
    let test = TestImage::create("free-lock", "16M");
    let image = test.open();
    let addresses = [image.cluster().addresses().unwrap()];
    assert_eq!(image.lock().unwrap().owner(&addresses), Ok(Owner::Nobody));
    let taken = image.lock().unwrap().take_over(&[]).unwrap().expect("without a gap");
    assert!(taken.alone);
    assert_eq!(image.tenure(), Some(taken.mark), "the mark is what is seen later too");
    assert!(matches!(image.lock().unwrap().owner(&addresses), Ok(Owner::Predecessor(_))));
}

/// A gateway that has the image open could have had the lock between two looks at it.
#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_lock_is_not_taken_over_without_a_gap_while_others_have_the_image_open() {
    let test = TestImage::create("gap", "16M");
    let device = Device::new(4096);
    let old = test.open();
    assert_eq!(write(&device, &old, 1), Ok(()));
    let predecessor = old.cluster().addresses().unwrap();
    let gateway = test.open();
    let successor = connect();
    successor.blocklist(&predecessor).unwrap();
    let new = Image::open(successor, "rbd", &test.0).unwrap();
    assert_eq!(take_over(&new, &predecessor), Ok(false));
    assert_eq!(write(&device, &new, 2), Ok(()), "but it is taken");
    drop(gateway);
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_refused_monitor_command_says_why() {
    let error =
        connect().mon_command(r#"{"prefix":"osd blocklist","blocklistop":"rm","addr":"x"}"#).unwrap_err();
    assert_eq!(error.errno, libc::EINVAL);
    assert!(!error.message.is_empty());
    let reply = connect().mon_command(r#"{"prefix":"fsid"}"#).unwrap();
    assert!(reply.len() >= 36);
}

/// What lets a successor go on with what waits on a ring: the mark tells whether anybody has had the lock since.
#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn an_image_that_was_left_tells_whether_somebody_has_had_its_lock_since() {
    let test = TestImage::create("left", "16M");
    let device = Device::new(4096);
    let mark = |image: &Image| image.lock().unwrap().mark().unwrap();
    let first = test.open();
    assert_eq!(write(&device, &first, 1), Ok(()));
    assert_eq!(mark(&first), None, "it has the lock");
    let since = first.tenure().expect("it has the lock itself");
    let left = first.leave(&since).expect("nobody has it any more");
    drop(first);
    // Opening, watching and reading change nothing.
    let second = test.open();
    second.watch(Box::new(|| ())).unwrap();
    assert!(device.read(&second, 0, 4096) == pattern(1, 4096));
    assert_eq!(mark(&second), Some(left.clone()));
    // Somebody takes the lock.
    let other = test.open();
    assert_eq!(write(&device, &other, 2), Ok(()));
    assert_eq!(mark(&second), None, "the other has it");
    assert_eq!((second.tenure(), second.leave(&left)), (None, None), "and nothing can be told");
    // And is gone again.
    drop(other);
    let later = mark(&second).expect("it is free");
    assert_ne!(later, left);
    // One who has never had it leaves it as it is.
    assert_eq!(second.leave(&left), None, "somebody has had it since");
    assert_eq!(second.tenure(), Some(later.clone()));
    assert_eq!(second.leave(&later), Some(later.clone()));
    drop(second);
    assert_eq!(mark(&test.open()), Some(later));
}
