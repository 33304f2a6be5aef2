//! Operations that time out on the client's side while an OSD stands still: docs/recovery.md, "Time-outs".

use crate::setup::{Device, TestImage, conf, config, connect, eventually, pattern, range, take_over};
use handler_rbd::block::{Backend, Buffer, ErrorKind, Op};
use handler_rbd::rbd::{Cluster, ClusterConfig, Image};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::Arc;
use std::time::Duration;

const BLOCK: usize = 4096;

/// The lab's OSD, standing still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn osd() -> Self {
        let pid = config().conf.unwrap().with_file_name("osd.pid");
        let pid = Pid::from_raw(std::fs::read_to_string(pid).unwrap().trim().parse().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        // Each thread stops by itself: one that runs on another CPU may still answer for a moment.
        eventually("the OSD stands still", || all_threads_stand_still(pid));
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).unwrap();
    }
}

fn all_threads_stand_still(pid: Pid) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
    })
}

/// A client whose operations time out after three seconds.
fn impatient() -> Arc<Cluster> {
    let (_file, config) = conf(|line| {
        let grace = "osd_heartbeat_grace = 1\nosd_heartbeat_interval = 1";
        Some(if line == "[global]" { format!("{line}\n{grace}") } else { line.to_owned() })
    });
    let config = ClusterConfig { op_timeout: Some(Duration::from_secs(3)), ..config };
    let cluster = Cluster::connect(&config).unwrap();
    assert_eq!(cluster.time_outs().operation, Duration::from_secs(3));
    Arc::new(cluster)
}

fn submit(device: &Device, image: &Image, block: u64, seed: u64) {
    let op = Op::Write(range(block * BLOCK as u64, BLOCK as u64));
    image.submit(device.request(op, Buffer::Owned(pattern(seed, BLOCK))));
}

fn result(device: &Device) -> Result<(), ErrorKind> {
    device.wait().result.map_err(|error| error.kind)
}

fn holds(device: &Device, image: &Image, block: u64, seed: u64) -> bool {
    device.read(image, block * BLOCK as u64, BLOCK as u64) == pattern(seed, BLOCK)
}

/// Block 0 gets a write that times out and a newer one; block 1, in the same object, only one that times out. That
/// one lands: so the first was under way too, and did not come last.
#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_late_write_does_not_overtake_a_newer_one_of_the_same_client() {
    let test = TestImage::create("late", "16M");
    let device = Device::new(BLOCK);
    let image = Image::open(impatient(), "rbd", &test.0).unwrap();
    for block in [0, 1] {
        submit(&device, &image, block, 1);
        assert_eq!(result(&device), Ok(()));
    }
    for round in 1..=5 {
        let (late, newer, alone) = (3 * round, 3 * round + 1, 3 * round + 2);
        let stopped = Stopped::osd();
        submit(&device, &image, 0, late);
        submit(&device, &image, 1, alone);
        assert_eq!([result(&device), result(&device)], [Err(ErrorKind::TimedOut); 2]);
        // Before the OSD goes on, and after.
        if round % 2 == 0 {
            submit(&device, &image, 0, newer);
            drop(stopped);
        } else {
            drop(stopped);
            submit(&device, &image, 0, newer);
        }
        assert_eq!(result(&device), Ok(()));
        assert!(holds(&device, &image, 0, newer), "round {round}");
        assert!(holds(&device, &image, 1, alone), "round {round}: the late write has landed");
    }
    let other = test.open();
    assert!(holds(&device, &other, 0, 16));
}

/// What a client has left behind does not land after its successor's first operation.
#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_late_write_of_a_fenced_client_does_not_overtake_its_successor() {
    for round in 1..=3 {
        let test = TestImage::create(&format!("late-fenced-{round}"), "16M");
        let device = Device::new(BLOCK);
        let old = Image::open(impatient(), "rbd", &test.0).unwrap();
        submit(&device, &old, 0, 1);
        assert_eq!(result(&device), Ok(()));
        let stopped = Stopped::osd();
        (0..64).for_each(|block| submit(&device, &old, block, 2));
        assert!((0..64).all(|_| result(&device) == Err(ErrorKind::TimedOut)));
        let successor = connect();
        let addresses = old.cluster().addresses().unwrap();
        successor.blocklist(&addresses).unwrap();
        drop(stopped);
        let new = Image::open(successor, "rbd", &test.0).unwrap();
        assert_eq!(take_over(&new, &addresses), Ok(true));
        submit(&device, &new, 0, 3);
        assert_eq!(result(&device), Ok(()));
        let all = || device.read(&new, 0, 64 * BLOCK as u64);
        let then = all();
        std::thread::sleep(Duration::from_millis(500));
        assert!(all() == then, "round {round}: something landed late");
        assert!(holds(&device, &new, 0, 3), "round {round}");
        submit(&device, &old, 1, 4);
        assert_eq!(result(&device), Err(ErrorKind::Fenced));
    }
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn who_holds_on_to_the_image_must_be_fenced_for_it() {
    let test = TestImage::create("hold-on", "16M");
    let device = Device::new(BLOCK);
    let owner = test.open();
    assert_eq!(owner.hold_on(), Ok(()), "without the lock there is nothing to hold on to");
    submit(&device, &owner, 0, 1);
    assert_eq!(result(&device), Ok(()));
    let polite = test.open();
    submit(&device, &polite, 0, 2);
    assert_eq!(result(&device), Ok(()), "given on request");
    submit(&device, &owner, 0, 3);
    assert_eq!(result(&device), Ok(()));
    assert_eq!(owner.hold_on(), Ok(()));
    submit(&device, &polite, 0, 4);
    assert_eq!(result(&device), Err(ErrorKind::Fenced));
    submit(&device, &owner, 0, 5);
    assert_eq!(result(&device), Ok(()));
    let new = test.fence(&owner);
    take_over(&new, &owner.cluster().addresses().unwrap()).unwrap();
    submit(&device, &new, 0, 6);
    assert_eq!(result(&device), Ok(()));
    assert!(holds(&device, &new, 0, 6));
}

/// The cluster says so at once: nothing waits for a time-out, and what frees space is not held up.
#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_full_pool_refuses_what_needs_space_and_nothing_else() {
    let pool = FullPool::make("full");
    let test = format!("image-{}", std::process::id());
    crate::setup::run(&format!("rbd create --size 64G full/{test}"));
    let device = Device::new(BLOCK);
    let image = Image::open(impatient(), "full", &test).unwrap();
    submit(&device, &image, 0, 1);
    assert_eq!(result(&device), Ok(()));
    pool.quota(1);
    // Each in an object of its own, which is not there yet.
    let mut block = 0;
    eventually("the quota is noticed", || {
        block += 1024;
        submit(&device, &image, block, 2);
        result(&device) == Err(ErrorKind::NoSpace)
    });
    submit(&device, &image, block + 1024, 2);
    assert_eq!(result(&device), Err(ErrorKind::NoSpace));
    assert!(holds(&device, &image, 0, 1), "reading");
    submit(&device, &image, 0, 3);
    assert_eq!(result(&device), Ok(()), "overwriting");
    assert_eq!(device.without_data(&image, Op::Discard(range(0, 4 << 20))), Ok(()));
    pool.quota(0);
    eventually("there is space again", || {
        submit(&device, &image, block + 1024, 4);
        result(&device) == Ok(())
    });
}

struct FullPool(&'static str);

impl FullPool {
    fn make(name: &'static str) -> Self {
        crate::setup::run(&format!("ceph osd pool create {name} 8"));
        let pool = Self(name);
        crate::setup::run(&format!("ceph osd pool application enable {name} rbd"));
        pool
    }

    /// So many objects; 0 is no limit.
    fn quota(&self, objects: u32) {
        crate::setup::run(&format!("ceph osd pool set-quota {} max_objects {objects}", self.0));
    }
}

impl Drop for FullPool {
    fn drop(&mut self) {
        let _ = connect().mon_command(
            r#"{"prefix":"config set","who":"mon","name":"mon_allow_pool_delete","value":"true"}"#,
        );
        let delete = format!(
            r#"{{"prefix":"osd pool delete","pool":"{0}","pool2":"{0}","yes_i_really_really_mean_it":true}}"#,
            self.0
        );
        let _ = connect().mon_command(&delete);
    }
}
