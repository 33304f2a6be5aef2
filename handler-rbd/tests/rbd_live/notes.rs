//! What is kept with an image for whoever opens it next.

use crate::setup::{Device, MIB, TestImage, conf, eventually, pattern, range, run};
use handler_rbd::block::{Backend, BackendError, Buffer, ErrorKind, Op};
use handler_rbd::rbd::{Cluster, ClusterConfig, Image};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn set(device: &Device, image: &Image, buffer: Buffer) -> Result<(), ErrorKind> {
    image.submit(device.request(Op::SetNote, buffer));
    device.wait().result.map_err(|error| error.kind)
}

fn text(bytes: &[u8]) -> Buffer {
    Buffer::Owned(bytes.to_vec())
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_note_is_kept_until_it_is_replaced_or_removed() {
    let device = Device::new(4096);
    for features in ["layering", "layering,exclusive-lock", "layering,exclusive-lock,journaling"] {
        let test = TestImage::create("note", &format!("16M --image-feature {features}"));
        let image = test.open();
        assert_eq!(image.note(), Ok(vec![]), "{features}: none yet");
        assert_eq!(set(&device, &image, Buffer::None), Ok(()), "{features}: nothing to remove");
        assert_eq!(set(&device, &image, text(b"reserved by \"a\"\nb = 'c'\t")), Ok(()));
        assert_eq!(image.note(), Ok(b"reserved by \"a\"\nb = 'c'\t".to_vec()), "{features}");
        let other = test.open();
        assert_eq!(other.note(), Ok(b"reserved by \"a\"\nb = 'c'\t".to_vec()), "{features}: other client");
        drop((image, other));
        let image = test.open();
        assert_eq!(image.note(), Ok(b"reserved by \"a\"\nb = 'c'\t".to_vec()), "{features}: reopened");
        let long = vec![b'x'; 100_000];
        assert_eq!(set(&device, &image, text(&long)), Ok(()), "{features}: long");
        assert!(image.note() == Ok(long), "{features}: long");
        assert_eq!(set(&device, &image, text(b"")), Ok(()), "{features}");
        assert_eq!(image.note(), Ok(vec![]), "{features}: removed");
        let metadata = run(&format!("rbd image-meta ls --format json {}", test.path()));
        assert!(!metadata.contains("note"), "{metadata}");
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn only_text_is_taken() {
    let device = Device::new(4096);
    let test = TestImage::create("note-text", "16M");
    let image = test.open();
    assert_eq!(set(&device, &image, text(b"text")), Ok(()));
    for bytes in [&b"\xff"[..], b"a\0b", "é".as_bytes()] {
        assert_eq!(set(&device, &image, text(bytes)), Err(ErrorKind::Invalid), "{bytes:?}");
    }
    assert_eq!(image.note(), Ok(b"text".to_vec()));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_note_in_ring_pages_is_kept() {
    let mut device = Device::new(4096);
    let test = TestImage::create("note-ring", "16M");
    let image = test.open();
    let (result, _) = device.with_pages(&image, Op::SetNote, &[(0, 3), (64, 4)], b"one two");
    assert_eq!(result, Ok(()));
    assert_eq!(image.note(), Ok(b"one two".to_vec()));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_clone_or_copy_does_not_inherit_the_note() {
    let device = Device::new(4096);
    let test = TestImage::create("note-origin", "16M");
    let image = test.open();
    assert_eq!(set(&device, &image, text(b"mine")), Ok(()));
    run(&format!("rbd snap create --no-progress {}@s", test.path()));
    let clone = TestImage(format!("{}-clone", test.0));
    let copy = TestImage(format!("{}-copy", test.0));
    run(&format!("rbd clone --rbd-default-clone-format 2 {}@s {}", test.path(), clone.path()));
    run(&format!("rbd cp --no-progress {} {}", test.path(), copy.path()));
    for other in [&clone, &copy] {
        let metadata = run(&format!("rbd image-meta ls --format json {}", other.path()));
        assert!(metadata.contains("mine"), "rbd copies metadata: {metadata}");
        assert_eq!(other.open().note(), Ok(vec![]));
    }
    assert_eq!(image.note(), Ok(b"mine".to_vec()));
    drop((clone, copy));
    run(&format!("rbd snap rm --no-progress {}@s", test.path()));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn notes_of_two_clients_take_the_lock_in_turns() {
    let device = Device::new(4096);
    let test = TestImage::create("note-lock", "16M");
    let (one, two) = (test.open(), test.open());
    for round in 0..3 {
        for (image, name) in [(&one, "one"), (&two, "two")] {
            let note = format!("{name} {round}");
            assert_eq!(set(&device, image, text(note.as_bytes())), Ok(()), "{note}");
            assert_eq!(one.note(), Ok(note.clone().into_bytes()));
            let write = Op::Write(range(0, 4096));
            image.submit(device.request(write, Buffer::Owned(pattern(round, 4096))));
            assert_eq!(device.wait().result, Ok(()), "{note}");
        }
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_fenced_client_keeps_nothing() {
    let device = Device::new(4096);
    for features in ["layering", "layering,exclusive-lock,object-map,fast-diff"] {
        for first in [Some("before"), None] {
            let test = TestImage::create("note-fenced", &format!("16M --image-feature {features}"));
            let old = test.open();
            if let Some(first) = first {
                assert_eq!(set(&device, &old, text(first.as_bytes())), Ok(())); // has the lock now
            }
            let successor = test.fence(&old);
            let start = Instant::now();
            let case = format!("{features}, {first:?}");
            // By name, not EROFS, which only says that there is no lock.
            old.submit(device.request(Op::SetNote, text(b"late")));
            let fenced = BackendError { kind: ErrorKind::Fenced, errno: libc::ESHUTDOWN };
            assert_eq!(device.wait().result, Err(fenced), "{case}");
            assert_eq!(set(&device, &old, Buffer::None), Err(ErrorKind::Fenced), "{case}");
            assert_eq!(old.note().map_err(|error| error.kind), Err(ErrorKind::Fenced), "{case}");
            assert!(start.elapsed() < Duration::from_secs(10), "{case}: {:?}", start.elapsed());
            assert_eq!(successor.note(), Ok(first.unwrap_or("").into()), "{case}");
        }
    }
}

/// A cluster that answers again when this is dropped.
struct Paused;

impl Paused {
    /// The map that says so reaches the image's client some time after the monitors have it.
    fn new(image: &Image) -> Self {
        let paused = Self;
        run("ceph osd set pause");
        eventually("the pause", || image.note().is_err());
        paused
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ceph").args(["osd", "unset", "pause"]).output();
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn errands_end_with_the_time_out_of_operations() {
    // Time-outs of less than the half minute that these settings are for.
    let (_file, config) = conf(|line| {
        let quick = "[global]\nosd_heartbeat_grace = 1\nosd_heartbeat_interval = 1";
        Some(if line == "[global]" { quick.into() } else { line.to_owned() })
    });
    let config = ClusterConfig { op_timeout: Some(Duration::from_secs(3)), ..config };
    let device = Device::new(4096);
    for has_lock in [true, false] {
        let test = TestImage::create("note-paused", "16M --image-feature layering,exclusive-lock");
        let image = Image::open(Arc::new(Cluster::connect(&config).unwrap()), "rbd", &test.0).unwrap();
        if has_lock {
            assert_eq!(set(&device, &image, text(b"before")), Ok(()));
        }
        let paused = Paused::new(&image);
        for op in [Op::SetNote, Op::Extents(range(0, 16 * MIB))] {
            let start = Instant::now();
            image.submit(device.request(op, text(b"late")));
            let kind = device.wait().result.map_err(|error| error.kind);
            assert_eq!(kind, Err(ErrorKind::TimedOut), "{op:?}, {has_lock}");
            let took = start.elapsed();
            println!("{op:?}, has lock: {has_lock}, took {took:?}");
            assert!(took < Duration::from_secs(4 * 3), "{op:?}, {has_lock}: {took:?}");
        }
        assert_eq!(image.note().map_err(|error| error.kind), Err(ErrorKind::TimedOut));
        drop(paused);
        drop(image);
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn an_image_dropped_with_errands_out_gives_them_back_and_is_closed() {
    const DEPTH: usize = 64;
    let test = TestImage::create("note-dropped", "2G --image-feature layering,exclusive-lock");
    let image = test.open();
    let device = Device::new(4096);
    let start = Instant::now();
    for i in 0..DEPTH {
        let (op, buffer) = match i % 2 {
            0 => (Op::Extents(range(0, 1024 * MIB)), Buffer::None),
            _ => (Op::SetNote, text(i.to_string().as_bytes())),
        };
        let mut request = device.request(op, buffer);
        request.slot = i;
        image.submit(request);
    }
    println!("submitting {DEPTH} took {:?}", start.elapsed());
    drop(image);
    println!("closing took {:?} from there", start.elapsed());
    let watchers = run(&format!("rbd status --format json {}", test.path()));
    assert!(watchers.contains("\"watchers\":[]"), "{watchers}");
    let mut undone = 0;
    for i in 0..DEPTH {
        let request = device.done.pop().expect("all are back once the image is closed");
        assert_eq!(request.slot, i, "one after the other");
        match request.result.map_err(|error| error.kind) {
            Ok(()) => assert_eq!(undone, 0, "{i} was done after others were given up"),
            Err(kind) => {
                assert_eq!(kind, ErrorKind::NoResource);
                undone += 1;
            }
        }
    }
    assert!(undone > DEPTH / 2, "closing waits for one at most: {undone} undone");
    assert!(device.done.is_empty());
}
