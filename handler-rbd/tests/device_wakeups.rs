//! How often a device thread is woken. Alone in its process: it counts in every eventfd there is.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, verdict};
use uio_ring::mock::Direction;

const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Writes to eventfds so far. The device never reads its own, so the counter tells.
fn rings() -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc/self/fdinfo").unwrap() {
        let Ok(info) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
        for count in info.lines().filter_map(|line| line.strip_prefix("eventfd-count:")) {
            sum += u64::from_str_radix(count.trim(), 16).unwrap();
        }
    }
    sum
}

#[test]
fn wake_ups_are_bounded() {
    let rig = Rig::new();
    let send = || rig.send(&WRITE, Direction::Out(vec![7; 512]));
    let good = |ticket| assert_eq!(verdict(&rig.wait(ticket)), (0, [0; 3]));
    good(send());

    // Completed inline: the thread is awake, nobody needs to wake it.
    let before = (rings(), rig.kernel.stats());
    (0..500).for_each(|_| good(send()));
    assert_eq!(rings(), before.0);
    let kicks = rig.kernel.stats().kicks - before.1.kicks;
    assert!(kicks <= 500, "{kicks}");

    // Completed by others: at most one ring for each completion, and only while the thread sleeps.
    rig.disk.hold();
    let (before, beats) = ((rings(), rig.kernel.stats()), rig.handle.beats());
    for _ in 0..100 {
        let batch: Vec<_> = (0..32).map(|_| send()).collect();
        rig.held(32);
        while rig.disk.release(0) {}
        batch.into_iter().for_each(good);
    }
    let rung = rings() - before.0;
    let kicks = rig.kernel.stats().kicks - before.1.kicks;
    let rounds = rig.handle.beats() - beats;
    assert!((1..=3200).contains(&rung), "{rung}");
    assert!((100..=3200).contains(&kicks) && kicks <= rounds, "{kicks} kicks, {rounds} rounds");
    println!("3200 completions in 100 batches: {rung} rings, {kicks} kicks");
    rig.clean();
}
