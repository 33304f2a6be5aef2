//! Devices that are there when the daemon starts, in files that stand for sysfs and configfs.
#![allow(clippy::unwrap_used)]

use handler_rbd::daemon::{Daemon, Settings, StorageKind};
use handler_rbd::kernel::Sys;
use handler_rbd::records::Records;
use nix::sys::stat::Mode;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let machine = Self(root);
        machine.add();
        for (file, content) in [("action/block_dev", "0"), ("action/reset_ring", "0")] {
            let path = machine.backstore().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(machine.backstore().join("attrib")).unwrap();
        machine
    }

    fn class(&self) -> PathBuf {
        self.0.path().join("sys/class/uio/uio0")
    }

    fn backstore(&self) -> PathBuf {
        self.0.path().join("sys/kernel/config/target/core/user_0/d0")
    }

    fn add(&self) {
        fs::create_dir_all(self.class().join("maps/map0")).unwrap();
        fs::write(self.class().join("name"), "tcm-user/0/d0/rbd/p/i\n").unwrap();
        fs::write(self.class().join("maps/map0/size"), "0x0000000000500000\n").unwrap();
    }

    fn is(&self, file: &str, content: &str) -> bool {
        fs::read_to_string(self.backstore().join(file)).unwrap() == content
    }

    fn daemon(&self, run: &Path) -> std::sync::Arc<Daemon> {
        let settings = Settings {
            sys: Sys::at(self.0.path()),
            open_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            zero_copy_writes: false,
            storage: StorageKind::Memory,
        };
        Daemon::new(settings, Records::load(run).unwrap())
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "not in a minute");
        std::thread::yield_now();
    }
}

/// It was removed while its image was being opened, and that failed then; the one that has its name by now is somebody
/// else's to care for.
#[test]
fn a_device_that_is_gone_is_not_mistaken_for_the_next_of_its_name() {
    let (machine, run) = (Machine::new(), tempfile::tempdir().unwrap());
    fs::create_dir_all(machine.0.path().join("dev")).unwrap();
    fs::write(machine.0.path().join("dev/uio0"), "").unwrap();
    let size = machine.backstore().join("attrib/dev_size");
    nix::unistd::mkfifo(&size, Mode::S_IRWXU).unwrap();
    let daemon = machine.daemon(run.path());
    daemon.adopt_all();
    until(|| machine.is("action/block_dev", "1")); // it waits for what stands for its image
    fs::rename(machine.class(), machine.0.path().join("gone")).unwrap();
    machine.add(); // another inode
    fs::write(machine.backstore().join("action/block_dev"), "0").unwrap();
    fs::write(&size, "nonsense").unwrap(); // opening fails
    until(|| daemon.luns().is_empty());
    assert!(machine.is("action/block_dev", "0"), "the new device is blocked");
}

/// Whoever has the ring open may be at work on it: another handler in another container, say, whose lock file is not ours.
#[test]
fn a_ring_that_cannot_be_opened_is_not_reset() {
    let (machine, run) = (Machine::new(), tempfile::tempdir().unwrap());
    for (file, content) in [("dev_size", "1048576"), ("hw_block_size", "512"), ("hw_max_sectors", "128")] {
        fs::write(machine.backstore().join("attrib").join(file), content).unwrap();
    }
    fs::create_dir_all(machine.0.path().join("dev/uio0")).unwrap(); // no file: opening fails at once, as with EBUSY later
    let daemon = machine.daemon(run.path());
    daemon.adopt_all();
    until(|| format!("{:?}", daemon.luns()).contains("cannot open"));
    assert!(machine.is("action/reset_ring", "0"), "it was reset");
}

/// For want of memory or of a file descriptor, say. It would stay as it is, perhaps blocked, until the next start.
#[test]
fn a_device_that_cannot_be_looked_at_for_a_moment_is_not_given_up() {
    let (machine, run) = (Machine::new(), tempfile::tempdir().unwrap());
    let node = machine.0.path().join("dev/uio0");
    fs::create_dir_all(&node).unwrap(); // no file: opening fails
    let daemon = machine.daemon(run.path());
    daemon.adopt_all();
    until(|| format!("{:?}", daemon.luns()).contains("cannot open"));
    // What it looks at is such that it waits for us, and then no name of a device.
    let (name, away) = (machine.class().join("name"), machine.0.path().join("name"));
    let sane = fs::read(&name).unwrap();
    nix::unistd::mkfifo(&away, Mode::S_IRWXU).unwrap();
    fs::rename(&away, &name).unwrap();
    let mut looked_at = fs::OpenOptions::new().write(true).open(&name).unwrap();
    fs::write(&away, sane).unwrap();
    fs::rename(&away, &name).unwrap();
    looked_at.write_all(b"tcm-user/no-number/d0/rbd/p/i\n").unwrap();
    drop(looked_at);
    fs::remove_dir(&node).unwrap();
    fs::write(&node, "").unwrap();
    until(|| machine.is("action/block_dev", "1")); // it is being taken on
}
