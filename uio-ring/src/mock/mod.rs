//! The other half of the protocol: a model of the kernel side, for tests, benches and fuzzers.
//!
//! [`MockKernel`] does to a memfd and a socket what `target_core_user` does to `/dev/uioN`: it puts
//! commands on the ring, consumes completions when it is kicked, and hands each command's outcome
//! to the test that plays the initiator. Where the real kernel would print "ring is broken", loop
//! for ever, or not notice at all, it records a [`Fault`] that says what user space did wrong.
//!
//! The model is written from the kernel's source and shares no code, constant or arithmetic with
//! the user side of this crate. It knows nothing about SCSI beyond the length of a CDB and the
//! sense the target core makes up.
//!
//! One test drives both sides on one thread with [`MockKernel::pump`], or lets a device thread run
//! against [`MockKernel::spawn`].
//!
//! # Where the model differs from the device
//!
//! * A kick is processed when the model is pumped, not inside `write`; more than some 250 kicks
//!   without a pump fill the socket.
//! * After [`MockKernel::unregister`], `read` returns 0 instead of `EIO`, `write` fails with `EPIPE`
//!   instead of `EINVAL`, and poll reports `IN|HUP` without `ERR`.
//! * A `read` with another count than 4 is not refused. A `write` is recorded as a fault.
//! * A second opener is not refused with `EBUSY`: the first one sees end of file.
//! * Data pages that no command ever used read as zeroes instead of raising `SIGBUS`; writes to them
//!   are found.
//! * Where the kernel would accept garbage or hang, the model stops at the first [`Fault`], before it
//!   takes effect.

mod blocks;
mod command;
mod complete;
mod doorbell;
mod fault;
mod kernel;
mod layout;
mod memory;
mod notice;
mod pump;

pub use command::Direction;
pub use fault::Fault;
pub use pump::Pump;

use command::Answer;
use kernel::Kernel;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shape and temper of the device.
#[derive(Debug, Clone)]
pub struct MockConfig {
    /// Mailbox and ring together, a multiple of 4096; the ring proper is 128 bytes smaller.
    pub ring_bytes: usize,
    /// The data area, a multiple of `block_bytes`.
    pub data_bytes: usize,
    /// Allocation unit of the data area (`data_pages_per_blk`), a multiple of 4096.
    pub block_bytes: usize,
    /// Mailbox flags. A capability that is not offered is not honoured.
    pub flags: u16,
    /// Commands that do not fit wait for space; false is `qfull_time_out=0`, TASK SET FULL.
    pub qfull_wait: bool,
    /// Task management functions show up on the ring (`tmr_notification=1`).
    pub tmr_notification: bool,
    /// Freed data blocks are filled with A5h instead of keeping their contents.
    pub poison_on_free: bool,
    /// Compare ring and data with what user space may have changed. Costs copies: off for benches.
    pub verify: bool,
    /// User space runs on the thread that calls [`MockKernel::pump`], so whatever it wrote is
    /// published by then and entries beyond the tail must be pristine.
    pub single_threaded: bool,
    /// Batches events at random, as a plugged device does: up to 8 commands share one event. The
    /// last event of a batch comes with the next call of anything but `enqueue`. A background
    /// [`Pump`] also looks at the ring now and then without having been kicked.
    pub seed: Option<u64>,
}

impl Default for MockConfig {
    /// 64 KiB ring, 1 MiB of 4 KiB blocks, all capabilities, all checks, no randomness.
    fn default() -> Self {
        Self {
            ring_bytes: 64 << 10,
            data_bytes: 1 << 20,
            block_bytes: 4096,
            flags: 0xf,
            qfull_wait: true,
            tmr_notification: true,
            poison_on_free: false,
            verify: true,
            single_threaded: true,
            seed: None,
        }
    }
}

impl MockConfig {
    fn check(&self) {
        assert!(self.ring_bytes > 0 && self.ring_bytes.is_multiple_of(4096), "ring_bytes: whole pages");
        assert!(self.block_bytes > 0 && self.block_bytes.is_multiple_of(4096), "block_bytes: whole pages");
        assert!(self.data_bytes.is_multiple_of(self.block_bytes), "data_bytes: whole blocks");
    }
}

/// What a handler gets from opening the device.
#[derive(Debug)]
pub struct UserSide {
    /// Stands for the open `/dev/uioN`: `read` and `write` of 4 bytes, poll, epoll. Blocking until
    /// the user sets `O_NONBLOCK`.
    pub doorbell: OwnedFd,
    /// The memory to map, shared, from offset 0.
    pub memory: OwnedFd,
    /// Bytes to map.
    pub len: usize,
}

/// A command from the initiator's point of view. Never reused, unlike ids on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What became of a command at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// Ask for the outcome with this.
    pub ticket: Ticket,
    /// Where the command is now.
    pub place: Place,
}

/// Where a new command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Onto the ring.
    Ring {
        /// Its id.
        cmd_id: u16,
        /// Its entry, from the start of the ring.
        slot: u32,
    },
    /// Into the kernel's queue, until there is room and nothing waits before it.
    Waiting,
    /// Nowhere: the kernel has answered it.
    Answered,
}

/// What the initiator gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// SCSI status.
    pub status: u8,
    /// Sense data, for CHECK CONDITION; zeroes otherwise.
    pub sense: [u8; 96],
    /// Data-In, as many bytes as are said to be valid.
    pub data: Option<Vec<u8>>,
    /// Bytes of the expected Data-In that did not come.
    pub resid: u32,
}

/// The ring's three offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursors {
    /// `cmd_head`, the kernel's.
    pub head: u32,
    /// `cmd_tail`, as user space left it.
    pub tail: u32,
    /// Up to where the kernel has consumed completions.
    pub cleaned: u32,
}

/// Things counted since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Writes to the doorbell.
    pub kicks: u64,
    /// PAD entries inserted.
    pub pads: u64,
    /// Commands answered to the initiator.
    pub delivered: u64,
    /// Completions of commands that had already timed out.
    pub late: u64,
}

/// How `reset_ring` answers the commands it throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// `reset_ring=1`: BUSY.
    Retry,
    /// `reset_ring=2`: NOT READY 08h/00h.
    Fail,
}

/// One TCMU device and the initiator behind it. Clones share the device.
#[derive(Debug, Clone)]
pub struct MockKernel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kernel: Mutex<Kernel>,
    changed: Condvar,
}

impl MockKernel {
    /// Enables a device: zeroed memory, empty ring, nobody has it open.
    pub fn new(config: MockConfig) -> io::Result<Self> {
        let shared = Shared { kernel: Mutex::new(Kernel::new(config)?), changed: Condvar::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Opens the device, which closes it for the previous opener (and so frees kept buffers). Work
    /// already on the ring is not reported by an event.
    pub fn user_side(&self) -> io::Result<UserSide> {
        self.with(Kernel::user_side)
    }

    /// Sends a command. The CDB is cut or zero-filled to the length its opcode implies.
    pub fn enqueue(&self, cdb: impl AsRef<[u8]>, direction: Direction) -> Enqueued {
        let enqueued = self.lock().enqueue(cdb.as_ref(), direction);
        self.shared.changed.notify_all();
        enqueued
    }

    /// Consumes completions if user space has written to the doorbell since the last time.
    pub fn pump(&self) {
        self.with(Kernel::pump);
    }

    /// Consumes completions although nobody kicked, as `block_dev` and the unmap worker do.
    pub fn kick(&self) {
        self.with(|kernel| kernel.kick(false));
    }

    /// Starts a thread that pumps whenever user space kicks, until the guard is dropped.
    #[must_use = "dropping the guard ends the thread"]
    pub fn spawn(&self) -> Pump {
        Pump::start(self.clone())
    }

    /// The outcome of a command, once there is one.
    pub fn result(&self, ticket: Ticket) -> Option<Delivered> {
        self.with(|kernel| kernel.results.get(&ticket).cloned())
    }

    /// Like [`result`](Self::result), and forgets it.
    pub fn take_result(&self, ticket: Ticket) -> Option<Delivered> {
        self.with(|kernel| kernel.results.remove(&ticket))
    }

    /// Waits for the outcome of a command. None after `timeout`, or when the ring breaks meanwhile.
    pub fn wait(&self, ticket: Ticket, timeout: Duration) -> Option<Delivered> {
        let deadline = Instant::now() + timeout;
        let mut kernel = self.lock();
        kernel.flush_events();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let result = kernel.results.get(&ticket);
            if result.is_some() || kernel.broken || left.is_zero() {
                return result.cloned();
            }
            let woken = self.shared.changed.wait_timeout(kernel, left);
            kernel = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The kernel's timer gives up on a command: 02/08/00, or TASK SET FULL if it was waiting.
    /// Nothing happens to a command already answered.
    pub fn expire(&self, ticket: Ticket) {
        self.with(|kernel| kernel.expire(ticket));
    }

    /// A task management function hits these commands. Waiting ones are answered TASK ABORTED; those
    /// on the ring as soon as user space completes them, whatever it says.
    pub fn tmr(&self, kind: u8, tickets: &[Ticket]) {
        self.with(|kernel| kernel.tmr(kind, tickets));
    }

    /// ABORT TASK for one command.
    pub fn abort(&self, ticket: Ticket) {
        self.tmr(1, &[ticket]);
    }

    /// `action/block_dev`: takes completions in, answers waiting and new commands BUSY.
    pub fn block(&self, block: bool) {
        self.with(|kernel| kernel.block(block));
    }

    /// `action/reset_ring`. Heals a broken ring; faults stay on record.
    pub fn reset(&self, reset: Reset) {
        let answer = match reset {
            Reset::Retry => Answer::Busy,
            Reset::Fail => Answer::CommunicationFailure,
        };
        self.with(|kernel| kernel.reset(answer));
    }

    /// `action/free_kept_buf`; false for an id that is not kept.
    pub fn free_kept_buf(&self, cmd_id: u16) -> bool {
        self.with(|kernel| kernel.free_kept_buf(cmd_id))
    }

    /// Puts an entry with op 3 to 7 and `len` bytes of noise on the ring, as a future kernel might.
    /// False when there is no room.
    pub fn insert_unknown_op(&self, op: u8, len: usize) -> bool {
        self.lock().insert_unknown_op(op, len)
    }

    /// Holds back the events of commands until [`unplug`](Self::unplug).
    pub fn plug(&self) {
        self.with(Kernel::plug);
    }

    /// Sends one event, whether or not something was queued meanwhile.
    pub fn unplug(&self) {
        self.with(Kernel::unplug);
    }

    /// Removes the device: the doorbell hangs up, the memory stays.
    pub fn unregister(&self) {
        self.with(|kernel| kernel.bell.hang_up());
    }

    /// Commands without an outcome.
    pub fn outstanding(&self) -> usize {
        self.with(|kernel| kernel.undelivered)
    }

    /// Commands that wait for room.
    pub fn waiting(&self) -> usize {
        self.with(|kernel| kernel.waiting.len())
    }

    /// Ids in use: in flight, expired or kept.
    pub fn ids(&self) -> Vec<u16> {
        self.with(|kernel| kernel.commands.keys().copied().collect())
    }

    /// Whether the ring is BROKEN.
    pub fn is_broken(&self) -> bool {
        self.with(|kernel| kernel.broken)
    }

    /// Everything user space did wrong so far.
    pub fn faults(&self) -> Vec<Fault> {
        self.with(|kernel| kernel.faults.clone())
    }

    /// Checks ring, mailbox and data for stray writes while user space rests; records and returns
    /// what it finds.
    pub fn verify(&self) -> Result<(), Fault> {
        self.with(|kernel| {
            let found = kernel.check_all();
            if let Err(fault) = &found {
                kernel.fail(fault.clone());
            }
            found
        })
    }

    /// Events sent since the device exists, what a `read` of the doorbell returns.
    pub fn events(&self) -> u32 {
        self.with(|kernel| kernel.bell.events())
    }

    /// The ring's offsets.
    pub fn cursors(&self) -> Cursors {
        self.with(|kernel| kernel.cursors())
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.with(|kernel| kernel.stats)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kernel) -> T) -> T {
        let mut kernel = self.lock();
        kernel.flush_events();
        let out = act(&mut kernel);
        drop(kernel);
        self.shared.changed.notify_all();
        out
    }

    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.shared.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
