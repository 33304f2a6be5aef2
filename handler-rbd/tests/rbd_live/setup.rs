//! Images for a test, and carrying out requests one at a time.

use crate::ring::FakeRing;
use handler_rbd::block::completions::{Completions, Waker};
use handler_rbd::block::{Backend, BackendError, Buffer, ByteRange, Op, Request};
use handler_rbd::rbd::{Cluster, ClusterConfig, Image, Owner};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const NEEDS: &str = "CEPH_CONF names the lab's cluster";

pub(crate) fn config() -> ClusterConfig {
    ClusterConfig {
        id: None,
        conf: Some(std::env::var_os("CEPH_CONF").expect(NEEDS).into()),
        op_timeout: None,
        connect_timeout: Duration::from_secs(5),
        zero_copy_writes: false,
    }
}

pub(crate) fn connect() -> Arc<Cluster> {
    Arc::new(Cluster::connect(&config()).unwrap())
}

/// A configuration file like the lab's but for some lines.
pub(crate) fn conf(change: impl Fn(&str) -> Option<String>) -> (tempfile::NamedTempFile, ClusterConfig) {
    let lab = std::fs::read_to_string(config().conf.unwrap()).unwrap();
    let lines: Vec<_> = lab.lines().filter_map(change).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.join("\n") + "\n").unwrap();
    let config = ClusterConfig { conf: Some(file.path().into()), ..config() };
    (file, config)
}

/// Connects as a user with these capabilities.
pub(crate) fn connect_as(user: &str, caps: &str) -> Arc<Cluster> {
    let create = format!(r#"{{"prefix":"auth get-or-create","entity":"client.{user}","caps":{caps}}}"#);
    let keyring = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keyring.path(), connect().mon_command(&create).unwrap()).unwrap();
    let replacement = format!("keyring = {}", keyring.path().display());
    let (_file, config) =
        conf(|line| Some(if line.starts_with("keyring") { replacement.clone() } else { line.to_owned() }));
    Arc::new(Cluster::connect(&ClusterConfig { id: Some(user.into()), ..config }).unwrap())
}

/// Runs a command-line tool and returns what it prints.
pub(crate) fn run(command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `holds`, at most ten seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An image that is removed at the end.
pub(crate) struct TestImage(pub(crate) String);

impl TestImage {
    pub(crate) fn create(name: &str, size: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        run(&format!("rbd create --size {size} rbd/{name}"));
        Self(name)
    }

    pub(crate) fn open(&self) -> Image {
        Image::open(connect(), "rbd", &self.0).unwrap()
    }

    /// Shuts the client of `old` out, and opens the image with the one that did. Opening asks the OSD with
    /// the map that says so, for which it waits: until then it would still serve the old client.
    pub(crate) fn fence(&self, old: &Image) -> Image {
        let successor = connect();
        successor.blocklist(&old.cluster().addresses().unwrap()).unwrap();
        Image::open(successor, "rbd", &self.0).unwrap()
    }

    pub(crate) fn path(&self) -> String {
        format!("rbd/{}", self.0)
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        let _ = Command::new("rbd").args(["rm", "--no-progress", &self.path()]).output();
    }
}

/// A device's end: a ring with pages and a completion queue.
pub(crate) struct Device {
    pub(crate) ring: FakeRing,
    pub(crate) done: Arc<Completions>,
}

impl Device {
    pub(crate) fn new(data: usize) -> Self {
        let done = Completions::new(256, Arc::new(Waker::new().unwrap()));
        Self { ring: FakeRing::new(data), done }
    }

    pub(crate) fn request(&self, op: Op, buffer: Buffer) -> Box<Request> {
        let mut request = Request::new(self.done.clone());
        (request.op, request.buffer) = (op, buffer);
        request
    }

    /// The next finished request.
    pub(crate) fn wait(&self) -> Box<Request> {
        let start = Instant::now();
        loop {
            if let Some(request) = self.done.pop() {
                return request;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no completion in 60 s");
            std::thread::yield_now();
        }
    }

    /// Carries out one operation with ring pages that hold `content` first; returns what they hold then.
    pub(crate) fn with_pages(
        &mut self,
        backend: &dyn Backend,
        op: Op,
        pieces: &[(usize, usize)],
        content: &[u8],
    ) -> (Result<(), BackendError>, Vec<u8>) {
        let token = self.ring.token(pieces);
        token.data().write(0, content);
        backend.submit(self.request(op, Buffer::Ring(token)));
        let mut request = self.wait();
        let Buffer::Ring(token) = std::mem::replace(&mut request.buffer, Buffer::None) else { panic!() };
        let mut pages = vec![0; token.data().len()];
        token.data().read(0, &mut pages);
        self.ring.answer(token);
        (request.result, pages)
    }

    pub(crate) fn without_data(&self, backend: &dyn Backend, op: Op) -> Result<(), BackendError> {
        backend.submit(self.request(op, Buffer::None));
        self.wait().result
    }

    /// Reads a range into private memory.
    pub(crate) fn read(&self, backend: &dyn Backend, offset: u64, len: u64) -> Vec<u8> {
        let buffer = Buffer::Owned(vec![0xee; usize::try_from(len).unwrap()]);
        backend.submit(self.request(Op::Read(range(offset, len)), buffer));
        let mut request = self.wait();
        assert_eq!(request.result, Ok(()));
        match std::mem::replace(&mut request.buffer, Buffer::None) {
            Buffer::Owned(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn range(offset: u64, len: u64) -> ByteRange {
    ByteRange { offset, len }
}

/// Bytes that differ from page to page and from seed to seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let word = |i: u64| {
        (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i.wrapping_mul(0xff51_afd7_ed55_8ccd)).to_le_bytes()
    };
    (0..len.div_ceil(8) as u64).flat_map(word).take(len).collect()
}

/// Breaks the lock of a fenced client and takes it; whether nobody else can have had it in between.
pub(crate) fn take_over(image: &Image, predecessor: &str) -> Result<bool, BackendError> {
    let (lock, predecessors) = (image.lock().unwrap(), [predecessor.to_owned()]);
    match lock.owner(&predecessors)? {
        Owner::Predecessor(owner) => lock.break_of(&owner)?,
        owner => panic!("{owner:?}"),
    }
    Ok(lock.take_over(&predecessors)?.is_some_and(|taken| taken.alone))
}
