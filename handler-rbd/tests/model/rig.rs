//! A device thread between the model of the kernel and the model's storage; and what the device says of itself.

use crate::cdb;
use crate::disk::{Disk, Shape};
use handler_rbd::block::Backend;
use handler_rbd::device::{Handle, Message, Served};
use handler_rbd::lun::{Geometry, Identity, LogicalUnit};
use std::sync::Arc;
use std::time::Duration;
use uio_ring::mock::{Delivered, Direction, MockConfig, MockKernel, Pump, Ticket};
use uio_ring::{Doorbell, Mapping, Ring};

/// No command takes as long, unless it is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) kernel: MockKernel,
    pub(crate) disk: Arc<Disk>,
    handle: Handle,
    _pump: Pump,
}

impl Rig {
    pub(crate) fn new(shape: Shape, max_blocks: u32) -> Self {
        let config = MockConfig {
            data_bytes: 8 << 20,
            single_threaded: false,
            // Both tempers: all events at once, and batches of them.
            seed: shape.seed.is_multiple_of(2).then_some(shape.seed),
            poison_on_free: shape.seed.is_multiple_of(3),
            // Without READ_LEN what is not filled must be zeroed.
            flags: if shape.seed.is_multiple_of(4) { 0xd } else { 0xf },
            ..MockConfig::default()
        };
        let kernel = MockKernel::new(config).unwrap();
        let disk = Disk::new(shape);
        let side = kernel.user_side().unwrap();
        let mapping = Mapping::new(&side.memory, side.len).unwrap();
        let ring = Ring::attach(Doorbell::new(side.doorbell), mapping).unwrap();
        let limits = disk.limits();
        let block_size = u32::try_from(shape.block).unwrap();
        let geometry = Geometry { block_size, size: shape.size(), max_sectors: max_blocks, limits };
        let identity = || {
            let unit_serial = "0badc0de-0001-0002-0003-000400050006".into();
            Ok(Identity { unit_serial, config: "rbd/pool/model".into(), ..Identity::default() })
        };
        let unit = LogicalUnit::new(geometry);
        let served = Served::new(ring, unit, disk.clone(), Arc::new(identity)).unwrap();
        let pump = kernel.spawn();
        let handle = Handle::spawn("model", served, |_: &_| ()).unwrap();
        Self { kernel, disk, handle, _pump: pump }
    }

    pub(crate) fn send(&self, cdb: &[u8], direction: Direction) -> Ticket {
        self.kernel.enqueue(cdb, direction).ticket
    }

    /// The data that a command without risk yields.
    fn ask(&self, cdb: &[u8]) -> Result<Vec<u8>, String> {
        let ticket = self.send(cdb, Direction::In(252));
        let Delivered { status, data, .. } =
            self.kernel.wait(ticket, PATIENCE).ok_or_else(|| format!("no answer to {cdb:02x?}"))?;
        if status == 0 { Ok(data.unwrap()) } else { Err(format!("{cdb:02x?} was answered {status:02x}")) }
    }

    /// Ends the device, then storage.
    pub(crate) fn stop(&self) -> Result<(), String> {
        self.handle.send(Message::Stop);
        let ended = self.handle.wait(PATIENCE);
        self.disk.stop();
        if ended { Ok(()) } else { Err("the device thread did not stop".into()) }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let stopped = self.stop();
        assert!(stopped.is_ok() || std::thread::panicking(), "{stopped:?}");
    }
}

/// What the device says of itself, as an initiator hears it.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) transfer: u64,
    pub(crate) compare: u64,
    pub(crate) unmap: u64,
    pub(crate) descriptors: u64,
    pub(crate) write_same: u64,
    /// WRITE SAME of 0 blocks is refused.
    pub(crate) nonzero: bool,
    pub(crate) atomic: u64,
    pub(crate) atomic_alignment: u64,
    pub(crate) atomic_granularity: u64,
    pub(crate) naa: Vec<u8>,
}

impl Said {
    pub(crate) fn hear(rig: &Rig) -> Result<Self, String> {
        let limits = rig.ask(&cdb::inquiry(0xb0))?;
        let names = rig.ask(&cdb::inquiry(0x83))?;
        let short = |at: usize| u64::from(u32::from_be_bytes(limits[at..at + 4].try_into().unwrap()));
        if limits.len() < 64 {
            return Err("the Block Limits page is short".into());
        }
        Ok(Self {
            transfer: short(8),
            compare: limits[5].into(),
            unmap: short(20),
            descriptors: short(24),
            write_same: u64::from_be_bytes(limits[36..44].try_into().unwrap()),
            nonzero: limits[4] & 1 != 0,
            atomic: short(44),
            atomic_alignment: short(48).max(1),
            atomic_granularity: short(52).max(1),
            naa: naa(&names).ok_or("no NAA designator")?,
        })
    }
}

/// The logical unit's NAA designator.
fn naa(page: &[u8]) -> Option<Vec<u8>> {
    let mut rest = page.get(4..)?;
    while rest.len() >= 4 {
        let (head, tail) = rest.split_at(4);
        let designator = tail.get(..head[3].into())?;
        if head[1] & 0x3f == 0x03 {
            return Some(designator.to_vec());
        }
        rest = &tail[designator.len()..];
    }
    None
}
