//! A device thread between the model of the kernel and a disk in memory.
#![allow(dead_code)] // each test program uses its part

use crossbeam_channel::{Receiver, unbounded};
use handler_rbd::block::memory::Memory;
use handler_rbd::block::{Backend, BackendError, Limits, Request};
use handler_rbd::device::{Handle, IdentitySource, Message, Served};
use handler_rbd::lun::{Geometry, Identity, LogicalUnit};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uio_ring::mock::{Delivered, Direction, MockConfig, MockKernel, Pump, Ticket};
use uio_ring::{Doorbell, Mapping, Ring};

pub(crate) const DISK: u64 = 4 << 20;
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Rig {
    pub(crate) kernel: MockKernel,
    pub(crate) disk: Arc<Memory>,
    pub(crate) handle: Handle,
    exit: Receiver<String>,
    _pump: Pump,
}

pub(crate) fn identity(serial: &str) -> Identity {
    Identity { unit_serial: serial.into(), config: "rbd/pool/image".into(), ..Identity::default() }
}

pub(crate) fn served(kernel: &MockKernel, disk: &Arc<Memory>, source: IdentitySource) -> Served {
    served_by(kernel, disk.clone(), source)
}

pub(crate) fn served_by(kernel: &MockKernel, disk: Arc<dyn Backend>, source: IdentitySource) -> Served {
    let side = kernel.user_side().unwrap();
    let mapping = Mapping::new(&side.memory, side.len).unwrap();
    served_on(Ring::attach(Doorbell::new(side.doorbell), mapping).unwrap(), disk, source)
}

pub(crate) fn served_on(ring: Ring, disk: Arc<dyn Backend>, source: IdentitySource) -> Served {
    let limits = disk.limits();
    let geometry = Geometry { block_size: 512, size: DISK, max_sectors: 1024, limits };
    let unit = LogicalUnit::with_note(geometry, &disk.note().unwrap());
    Served::new(ring, unit, disk, source).unwrap()
}

pub(crate) fn model() -> MockConfig {
    MockConfig { single_threaded: false, ..MockConfig::default() }
}

/// A disk to which requests go as the test wants.
struct Between<F> {
    disk: Arc<Memory>,
    submit: F,
}

impl<F: Fn(&Memory, Box<Request>) + Send + Sync> Backend for Between<F> {
    fn submit(&self, request: Box<Request>) {
        (self.submit)(&self.disk, request);
    }
    fn limits(&self) -> Limits {
        self.disk.limits()
    }
    fn refresh(&self) -> Result<u64, BackendError> {
        self.disk.refresh()
    }
    fn note(&self) -> Result<Vec<u8>, BackendError> {
        self.disk.note()
    }
    fn has_note(&self) -> bool {
        self.disk.has_note()
    }
}

impl Rig {
    /// `submit` stands between the device and its disk.
    pub(crate) fn between(submit: impl Fn(&Memory, Box<Request>) + Send + Sync + 'static) -> Self {
        Self::between_with(Arc::new(|| Ok(identity("x"))), submit)
    }

    pub(crate) fn between_with(
        source: IdentitySource,
        submit: impl Fn(&Memory, Box<Request>) + Send + Sync + 'static,
    ) -> Self {
        let kernel = MockKernel::new(model()).unwrap();
        let disk = Arc::new(Memory::new(DISK));
        let backend = Arc::new(Between { disk: disk.clone(), submit });
        let served = served_by(&kernel, backend, source);
        Self::run(kernel, disk, served)
    }

    /// With storage whose calls do not return while the gate is held: a device thread that stands still.
    pub(crate) fn gated() -> (Self, Arc<Mutex<()>>) {
        let gate = Arc::new(Mutex::new(()));
        let passed = gate.clone();
        let rig = Self::between(move |disk, request| {
            drop(passed.lock().unwrap());
            disk.submit(request);
        });
        (rig, gate)
    }

    pub(crate) fn new() -> Self {
        Self::with(model(), Arc::new(|| Ok(identity("11111111-2222-3333-4444-555555555555"))))
    }

    pub(crate) fn with(config: MockConfig, source: IdentitySource) -> Self {
        Self::on(MockKernel::new(config).unwrap(), source)
    }

    /// Serves a device that exists, as a successor does.
    pub(crate) fn on(kernel: MockKernel, source: IdentitySource) -> Self {
        Self::on_disk(kernel, Arc::new(Memory::new(DISK)), source)
    }

    /// Serves a disk that exists, as a successor does.
    pub(crate) fn on_disk(kernel: MockKernel, disk: Arc<Memory>, source: IdentitySource) -> Self {
        let served = served(&kernel, &disk, source);
        Self::run(kernel, disk, served)
    }

    pub(crate) fn run(kernel: MockKernel, disk: Arc<Memory>, served: Served) -> Self {
        let pump = kernel.spawn();
        let (sender, exit) = unbounded();
        let ended = move |why: &_| sender.send(format!("{why:?}")).unwrap_or(());
        let handle = Handle::spawn("device", served, ended).unwrap();
        Self { kernel, disk, handle, exit, _pump: pump }
    }

    pub(crate) fn send(&self, cdb: &[u8], direction: Direction) -> Ticket {
        self.kernel.enqueue(cdb, direction).ticket
    }

    pub(crate) fn wait(&self, ticket: Ticket) -> Delivered {
        let faults = || self.kernel.faults();
        self.kernel.wait(ticket, SOON).unwrap_or_else(|| panic!("no answer; {:?}", faults()))
    }

    pub(crate) fn ask(&self, cdb: &[u8], direction: Direction) -> Delivered {
        self.wait(self.send(cdb, direction))
    }

    /// Whether the command has been answered by now.
    pub(crate) fn answered(&self, ticket: Ticket) -> bool {
        self.kernel.result(ticket).is_some()
    }

    /// Waits until storage holds so many requests.
    pub(crate) fn held(&self, count: usize) {
        until(|| self.disk.held() == count);
    }

    /// How the thread ended, once it has.
    pub(crate) fn exit(&self) -> String {
        let why = self.exit.recv_timeout(SOON).expect("the device thread goes on");
        assert!(self.handle.wait(SOON));
        why
    }

    pub(crate) fn runs(&self) -> bool {
        !self.handle.wait(Duration::from_millis(50))
    }

    pub(crate) fn clean(&self) {
        assert_eq!(self.kernel.faults(), []);
        assert_eq!(self.kernel.outstanding(), 0);
        self.kernel.verify().unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.disk.release_all();
        self.handle.send(Message::Stop);
        let ended = self.handle.wait(SOON);
        assert!(ended || std::thread::panicking(), "the device thread did not stop");
    }
}

pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < SOON, "it did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Status and, if there is sense, SENSE KEY, ASC and ASCQ.
pub(crate) fn verdict(got: &Delivered) -> (u8, [u8; 3]) {
    (got.status, [got.sense[2], got.sense[12], got.sense[13]])
}

/// READ(10) of one block.
pub(crate) const fn read(block: u8) -> [u8; 10] {
    [0x28, 0, 0, 0, 0, block, 0, 0, 1, 0]
}

/// WRITE(10) of one block.
pub(crate) const fn write(block: u8) -> [u8; 10] {
    [0x2a, 0, 0, 0, 0, block, 0, 0, 1, 0]
}

/// Data for one block, full of this byte.
pub(crate) fn block(byte: u8) -> Direction {
    Direction::Out(vec![byte; 512])
}
