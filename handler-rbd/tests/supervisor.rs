//! What a service manager hears of us, on a socket of our own in systemd's place.
#![allow(clippy::unwrap_used)]

mod device_rig;

use device_rig::{Rig, SOON, until, verdict};
use handler_rbd::device::BEAT;
use handler_rbd::service::supervisor::{STUCK, Supervisor};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};
use uio_ring::mock::Direction;

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const READ: [u8; 10] = device_rig::read(0);

/// Runs `child` with a manager's socket and time-out, and says what the manager heard.
fn heard(child: &str, watchdog: Option<Duration>) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON * 4)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", child, "--ignored", "--nocapture"]).env("NOTIFY_SOCKET", &path);
    command.env_remove("WATCHDOG_PID").env_remove("WATCHDOG_USEC");
    if let Some(watchdog) = watchdog {
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }
    let mut process = command.spawn().unwrap();
    let mut words = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let len = manager.recv(&mut buffer).expect("the child says nothing any more");
        match str::from_utf8(&buffer[..len]).unwrap().trim_end() {
            "END" => break,
            word => words.push(word.replace('\n', " ")),
        }
    }
    assert!(process.wait().unwrap().success());
    words
}

/// The child's last word.
fn end() {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound().unwrap().send_to(b"END", path).unwrap();
    }
}

#[test]
#[ignore = "the child of the tests below"]
fn child_is_stuck() {
    let (rig, gate) = Rig::gated();
    let neighbour = Rig::new();
    let mut supervisor = Supervisor::new();
    let start = Instant::now();
    let mut look = |second| {
        // An idle device beats by itself, but only every few seconds: here it has something to do.
        let before = neighbour.handle.beats();
        neighbour.ask(&TEST_UNIT_READY, Direction::None);
        until(|| neighbour.handle.beats() > before);
        let beats = vec![("disk".into(), rig.handle.beats()), ("neighbour".into(), neighbour.handle.beats())];
        supervisor.look(start + Duration::from_secs(second), beats, "serving 2 devices".into());
    };
    look(0);
    look(10);
    let held = gate.lock().unwrap();
    let before = rig.handle.beats();
    let ticket = rig.send(&READ, Direction::In(512));
    until(|| rig.handle.beats() > before);
    look(20);
    look(20 + STUCK.as_secs());
    look(21 + STUCK.as_secs());
    look(25 + STUCK.as_secs());
    drop(held);
    assert_eq!(verdict(&rig.wait(ticket)).0, 0);
    look(30 + STUCK.as_secs());
    end();
}

/// A device that stands still costs the watchdog its food, by name, although its neighbour moves; it gets it again.
#[test]
fn a_stuck_device_is_named_and_the_watchdog_not_fed() {
    let words = heard("child_is_stuck", Some(Duration::from_secs(30)));
    assert_eq!(
        words,
        [
            "WATCHDOG=1 STATUS=serving 2 devices",
            "WATCHDOG=1",
            "WATCHDOG=1",
            "WATCHDOG=1",
            "STATUS=stuck: disk",
            "STATUS=stuck: disk",
            "WATCHDOG=1 STATUS=serving 2 devices",
        ]
    );
}

/// Without a watchdog the manager still hears who is stuck.
#[test]
fn without_a_watchdog_only_the_status_is_told() {
    let words = heard("child_is_stuck", None);
    let stuck = "STATUS=stuck: disk";
    assert_eq!(words, ["STATUS=serving 2 devices", stuck, stuck, "STATUS=serving 2 devices"]);
}

#[test]
#[ignore = "the child of the test below"]
fn child_lives() {
    let mut supervisor = Supervisor::new();
    supervisor.ready("serving 0 devices, 32 not open yet".into());
    assert!(supervisor.interval() <= Duration::from_secs(2), "thrice within the time-out");
    supervisor.look(Instant::now(), Vec::new(), "serving 0 devices, 32 not open yet".into());
    supervisor.reloading();
    supervisor.reloaded();
    supervisor.stopping(Duration::from_secs(45));
    supervisor.alive();
    end();
}

#[test]
fn start_reload_and_end_are_told() {
    let words = heard("child_lives", Some(Duration::from_secs(6)));
    assert_eq!(words[0], "READY=1 STATUS=serving 0 devices, 32 not open yet");
    assert_eq!(words[1], "WATCHDOG=1");
    assert!(words[2].starts_with("RELOADING=1 MONOTONIC_USEC="), "{}", words[2]);
    assert_eq!(words[3], "READY=1");
    assert!(words[4].starts_with("STOPPING=1 EXTEND_TIMEOUT_USEC=75000000 STATUS="), "{}", words[4]);
    assert_eq!(words[5..], ["WATCHDOG=1"]);
}

#[test]
fn without_a_manager_nothing_happens() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_lives", "child_is_stuck", "--ignored"]);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command.env("WATCHDOG_USEC", "6000000"); // a manager that is not there, as after sudo
    assert!(command.status().unwrap().success());
}

/// The supervisor's patience is made of this.
#[test]
fn an_idle_device_beats() {
    assert!(BEAT * 2 < STUCK);
    let rig = Rig::new();
    rig.ask(&TEST_UNIT_READY, Direction::None);
    let (start, mut turns) = (Instant::now(), 0);
    let mut last = rig.handle.beats();
    while turns < 1 {
        assert!(start.elapsed() < BEAT * 3, "it does not beat");
        std::thread::sleep(Duration::from_millis(100));
        let now = rig.handle.beats();
        turns += u32::from(now > last);
        last = now;
    }
}

/// Waiting for storage is not being stuck, whatever it takes, also when the device was removed meanwhile.
#[test]
fn a_device_that_waits_for_storage_beats() {
    let rig = Rig::new();
    rig.disk.hold();
    rig.send(&READ, Direction::In(512));
    rig.held(1);
    rig.kernel.unregister();
    let before = rig.handle.beats();
    let start = Instant::now();
    while rig.handle.beats() < before + 2 {
        assert!(start.elapsed() < BEAT * 4, "it does not beat");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(rig.runs(), "storage has not returned the request");
    rig.disk.release_all();
    assert_eq!(rig.exit(), "Removed");
}
