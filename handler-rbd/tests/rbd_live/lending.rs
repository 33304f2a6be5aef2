//! Ring pages are free again at completion, and a closed image is one that librbd is done with.

use crate::setup::{Device, TestImage, config, pattern, range};
use handler_rbd::block::{Backend, Buffer, Op};
use handler_rbd::rbd::{Cluster, ClusterConfig, Image};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEPTH: u32 = 32;

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn pages_may_be_overwritten_as_soon_as_a_copied_write_completed() {
    overwrite_pages_at_completion(&config());
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn pages_may_be_overwritten_as_soon_as_a_zero_copy_write_completed() {
    overwrite_pages_at_completion(&ClusterConfig { zero_copy_writes: true, ..config() });
}

fn overwrite_pages_at_completion(config: &ClusterConfig) {
    const SIZES: [usize; 4] = [4096, 512, 65536, 12288];
    const ROUNDS: usize = 8000;
    const STRIDE: usize = 65536;
    const PAGES: usize = 131_072;
    let test = TestImage::create(&format!("overwrite-{}", config.zero_copy_writes), "512M");
    let image = Image::open(Arc::new(Cluster::connect(config).unwrap()), "rbd", &test.0).unwrap();
    let mut device = Device::new(DEPTH as usize * PAGES);
    let place = |round: usize, len: usize| range((round * STRIDE) as u64, len as u64);
    let mut started = 0;
    let mut idle: Vec<usize> = (0..DEPTH as usize).collect();
    for _ in 0..ROUNDS {
        while started < ROUNDS && !idle.is_empty() {
            let slot = idle.pop().unwrap();
            let len = SIZES[started % SIZES.len()];
            let (at, half) = (slot * PAGES, len / 2);
            let one_piece = [(at, len)];
            let two_pieces = [(at, half), (at + 69632, len - half)];
            let pieces = if started % 3 == 0 { &two_pieces[..] } else { &one_piece[..] };
            let token = device.ring.token(pieces);
            token.data().write(0, &pattern(started as u64, len));
            let mut request = device.request(Op::Write(place(started, len)), Buffer::Ring(token));
            request.slot = slot;
            image.submit(request);
            started += 1;
        }
        let mut request = device.wait();
        assert_eq!(request.result, Ok(()));
        let Buffer::Ring(token) = std::mem::replace(&mut request.buffer, Buffer::None) else { panic!() };
        // What the next command's data does to the pages, at once.
        token.data().write(0, &[0xff; 65536]);
        device.ring.answer(token);
        idle.push(request.slot);
    }
    for round in 0..ROUNDS {
        let len = SIZES[round % SIZES.len()];
        let at = place(round, len);
        assert!(device.read(&image, at.offset, at.len) == pattern(round as u64, len), "write {round}");
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn an_image_dropped_with_requests_out_still_gives_them_back() {
    let test = TestImage::create("dropped", "64M");
    let image = test.open();
    let device = Device::new(4096);
    for i in 0..u64::from(DEPTH) {
        let op = Op::Write(range(i * 65536, 65536));
        image.submit(device.request(op, Buffer::Owned(pattern(i, 65536))));
    }
    drop(image);
    for _ in 0..DEPTH {
        assert_eq!(device.wait().result, Ok(()));
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn closing_after_the_last_completion_never_loses_a_race() {
    let test = TestImage::create("close-race", "64M");
    let device = Device::new(4096);
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(3) {
        let image = test.open();
        for i in 0..4 {
            image.submit(device.request(Op::Read(range(i * 4096, 4096)), Buffer::Owned(vec![0; 4096])));
        }
        for _ in 0..4 {
            assert_eq!(device.wait().result, Ok(()));
        }
        drop(image);
        rounds += 1;
    }
    assert!(rounds > 0);
    let status = crate::setup::run(&format!("rbd status --format json {}", test.path()));
    assert!(status.contains("\"watchers\":[]"), "every image was closed: {status}");
}
