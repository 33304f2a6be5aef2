//! The kernel's half of the ring: how commands get there.
//!
//! State and order of checks follow `queue_cmd_ring`, `ring_insert_padding`, `queue_tmr_ring` and
//! `run_qfull_queue` of `drivers/target/target_core_user.c` (6.1 and 6.12, whose ring behaviour is
//! identical). What comes back from user space is in the sibling module `complete`, entries that are no
//! commands in `notice`.

use super::blocks::{DataArea, Iov};
use super::command::{Answer, Command, Direction, Request, State};
use super::doorbell::Doorbell;
use super::fault::Fault;
use super::layout::*;
use super::memory::Memory;
use super::notice::Tmr;
use super::{Cursors, Delivered, Enqueued, MockConfig, Place, Stats, Ticket, UserSide};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;

/// One entry between last cleaned and head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) slot: u32,
    pub(super) len: u32,
    pub(super) op: u32,
    pub(super) cmd_id: u16,
}

impl Entry {
    pub(super) fn end(self, size: u32) -> u32 {
        (self.slot + self.len) % size
    }
}

/// Everything `struct tcmu_dev` holds, and what the model remembers to check user space.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) config: MockConfig,
    pub(super) memory: Memory,
    pub(super) bell: Doorbell,
    /// `cmdr_size`.
    pub(super) size: u32,
    pub(super) head: u32,
    /// `cmdr_last_cleaned`.
    pub(super) cleaned: u32,
    /// The entries in `[cleaned, head)`.
    pub(super) entries: VecDeque<Entry>,
    /// `commands`, by id.
    pub(super) commands: BTreeMap<u16, Command>,
    /// Ids below `next_id` that are free.
    free_ids: BTreeSet<u16>,
    next_id: u32,
    pub(super) data: DataArea,
    /// `qfull_queue`.
    pub(super) waiting: VecDeque<Request>,
    /// `tmr_queue`.
    pub(super) tmrs: VecDeque<Tmr>,
    pub(super) results: HashMap<Ticket, Delivered>,
    next_ticket: u64,
    pub(super) undelivered: usize,
    pub(super) blocked: bool,
    pub(super) broken: bool,
    plugged: bool,
    /// Commands left in a random batch, and whether it holds back an event.
    batch: u32,
    held_event: bool,
    random: u64,
    pub(super) threads: usize,
    pub(super) faults: Vec<Fault>,
    /// The ring as the model knows it; empty when verification is off.
    pub(super) shadow: Vec<u8>,
    pub(super) stats: Stats,
}

impl Kernel {
    pub(super) fn new(config: MockConfig) -> io::Result<Self> {
        config.check();
        let memory = Memory::new(config.ring_bytes + config.data_bytes)?;
        let size = offset32(config.ring_bytes - RING);
        memory.write(MAILBOX_VERSION, &VERSION.to_ne_bytes());
        memory.write(MAILBOX_FLAGS, &config.flags.to_ne_bytes());
        memory.write(MAILBOX_CMDR_OFF, &offset32(RING).to_ne_bytes());
        memory.write(MAILBOX_CMDR_SIZE, &size.to_ne_bytes());
        let data = DataArea::new(
            config.ring_bytes,
            config.data_bytes,
            config.block_bytes,
            config.poison_on_free,
            config.verify,
        );
        Ok(Self {
            bell: Doorbell::new()?,
            size,
            head: 0,
            cleaned: 0,
            entries: VecDeque::new(),
            commands: BTreeMap::new(),
            free_ids: BTreeSet::new(),
            next_id: 1,
            data,
            waiting: VecDeque::new(),
            tmrs: VecDeque::new(),
            results: HashMap::new(),
            next_ticket: 1,
            undelivered: 0,
            blocked: false,
            broken: false,
            plugged: false,
            batch: 0,
            held_event: false,
            random: config.seed.unwrap_or(0) ^ 0x9e37_79b9_7f4a_7c15,
            threads: 0,
            faults: Vec::new(),
            shadow: vec![0; if config.verify { size as usize } else { 0 }],
            stats: Stats::default(),
            config,
            memory,
        })
    }

    /// `open` + `mmap`, after the last `close` of whoever had it before: kept buffers are freed.
    pub(super) fn user_side(&mut self) -> io::Result<UserSide> {
        self.pump();
        let kept: Vec<u16> =
            self.commands.iter().filter(|(_, cmd)| cmd.state == State::Kept).map(|(&id, _)| id).collect();
        for &id in &kept {
            self.retire(id);
        }
        if !kept.is_empty() {
            self.run_waiting_after_kept();
        }
        Ok(UserSide { doorbell: self.bell.open()?, memory: self.memory.share()?, len: self.memory.len() })
    }

    /// `tcmu_queue_cmd`.
    pub(super) fn enqueue(&mut self, cdb: &[u8], direction: Direction) -> Enqueued {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.undelivered += 1;
        let mut padded = vec![0; cdb_len(cdb)];
        let given = cdb.len().min(padded.len());
        padded[..given].copy_from_slice(&cdb[..given]);
        let request = Request { ticket, cdb: padded, direction };
        let place = match self.queue(request) {
            Attempt::OnRing(place) => place,
            Attempt::NoRoom(request) if self.config.qfull_wait => {
                self.waiting.push_back(request);
                Place::Waiting
            }
            Attempt::NoRoom(_) => self.answer(ticket, Answer::TaskSetFull),
            Attempt::Refused(answer) => self.answer(ticket, answer),
        };
        Enqueued { ticket, place }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) -> Place {
        self.deliver(ticket, answer.into());
        Place::Answered
    }

    /// `queue_cmd_ring`, its checks in the kernel's order.
    fn queue(&mut self, request: Request) -> Attempt {
        if self.blocked {
            return Attempt::Refused(Answer::Busy);
        }
        if self.broken {
            return Attempt::Refused(Answer::CommunicationFailure);
        }
        if !self.waiting.is_empty() {
            return Attempt::NoRoom(request);
        }
        let (len, bidi_len) = request.direction.lengths();
        let (n, bidi_n) = (self.data.blocks_for(len), self.data.blocks_for(bidi_len));
        if n + bidi_n > self.data.capacity() {
            return Attempt::Refused(Answer::InvalidField);
        }
        let Some(mut blocks) = self.data.choose(n + bidi_n) else { return Attempt::NoRoom(request) };
        let bidi_blocks = blocks.split_off(n);
        let iovs = self.data.iovecs(&blocks, len);
        let bidi_iovs = self.data.iovecs(&bidi_blocks, bidi_len);
        let base = (IOV + 16 * (iovs.len() + bidi_iovs.len())).max(CMD_ENTRY);
        let entry_len = base + request.cdb.len().next_multiple_of(8);
        if entry_len > self.size as usize / 2 {
            return Attempt::Refused(Answer::InvalidField);
        }
        let entry_len = offset32(entry_len);
        if !self.ring_has_room(entry_len) {
            return Attempt::NoRoom(request);
        }
        let Some(id) = self.take_id() else { return Attempt::Refused(Answer::TaskSetFull) };
        let sound = self.check_mailbox();
        let taken = self.data.take(&self.memory, &blocks);
        let taken = taken.and(self.data.take(&self.memory, &bidi_blocks));
        if let Err(fault) = sound.and(taken).and_then(|()| self.check_free_space(entry_len)) {
            self.fail(fault);
            self.data.release(&self.memory, &blocks);
            self.data.release(&self.memory, &bidi_blocks);
            self.free_ids.insert(id);
            return Attempt::Refused(Answer::CommunicationFailure);
        }
        self.data.put(&self.memory, &blocks, request.direction.data_out());
        let slot = self.insert_padding(entry_len);
        let bytes = command_bytes(&request, id, slot, base, &iovs, &bidi_iovs, entry_len);
        let command = Command {
            slack: self.data.slack(&self.memory, &blocks, len),
            bidi_slack: self.data.slack(&self.memory, &bidi_blocks, bidi_len),
            request,
            blocks,
            bidi_blocks,
            state: State::Live,
            aborted: false,
        };
        self.commands.insert(id, command);
        self.publish(&bytes, OP_CMD, id);
        self.command_event();
        Attempt::OnRing(Place::Ring { cmd_id: id, slot })
    }

    /// `is_ring_space_avail`: against last cleaned, not the tail; one byte stays free.
    pub(super) fn ring_has_room(&self, len: u32) -> bool {
        let to_end = self.size - self.head;
        let needed = if to_end >= len { len } else { len + to_end };
        let used = (self.head + self.size - self.cleaned) % self.size;
        self.size - used > needed
    }

    /// `ring_insert_padding`: fills up to the ring's end and publishes that on its own.
    pub(super) fn insert_padding(&mut self, len: u32) -> u32 {
        let to_end = self.size - self.head;
        if to_end < len {
            let mut pad = vec![0; HEADER];
            pad[..4].copy_from_slice(&(to_end | OP_PAD).to_ne_bytes());
            self.stats.pads += 1;
            self.publish_len(&pad, to_end, OP_PAD, 0);
        }
        self.head
    }

    pub(super) fn publish(&mut self, bytes: &[u8], op: u32, cmd_id: u16) -> u32 {
        self.publish_len(bytes, offset32(bytes.len()), op, cmd_id)
    }

    fn publish_len(&mut self, bytes: &[u8], len: u32, op: u32, cmd_id: u16) -> u32 {
        let slot = self.head;
        self.memory.write(RING + slot as usize, bytes);
        if self.config.verify {
            self.shadow[slot as usize..slot as usize + bytes.len()].copy_from_slice(bytes);
        }
        self.entries.push_back(Entry { slot, len, op, cmd_id });
        self.head = (slot + len) % self.size;
        self.memory.store(MAILBOX_HEAD, self.head);
        slot
    }

    /// `run_qfull_queue(false)`: in order, up to the first that still does not fit. A command that
    /// fails here loses its reason: the initiator sees 02/08/00.
    pub(super) fn run_waiting(&mut self) {
        let mut queue = std::mem::take(&mut self.waiting);
        while let Some(request) = queue.pop_front() {
            let ticket = request.ticket;
            match self.queue(request) {
                Attempt::OnRing(_) => {}
                Attempt::Refused(_) => self.deliver(ticket, Answer::CommunicationFailure.into()),
                Attempt::NoRoom(request) => {
                    queue.push_front(request);
                    break;
                }
            }
        }
        self.waiting = queue;
    }

    /// Kept buffers free data but no ring space, so a task management function goes on waiting, and
    /// nothing may overtake it.
    pub(super) fn run_waiting_after_kept(&mut self) {
        if self.tmrs.is_empty() {
            self.run_waiting();
        }
    }

    /// `tcmu_reset_ring`. No event; the memory keeps its contents, the cursors go to zero.
    pub(super) fn reset(&mut self, answer: Answer) {
        for id in self.commands.keys().copied().collect::<Vec<_>>() {
            let command = self.retire(id);
            if command.state == State::Live {
                self.deliver(command.request.ticket, command.verdict(answer.into()));
            }
        }
        self.entries.clear();
        self.head = 0;
        self.cleaned = 0;
        self.memory.store(MAILBOX_TAIL, 0);
        self.memory.store(MAILBOX_HEAD, 0);
        self.memory.read(RING, &mut self.shadow);
        self.broken = false;
        self.tmrs.clear();
        self.run_waiting();
    }

    /// Takes a command out of the table and frees its id and blocks.
    pub(super) fn retire(&mut self, id: u16) -> Command {
        let command = self.commands.remove(&id).expect("the caller found the id in the table");
        self.free_ids.insert(id);
        self.data.release(&self.memory, &command.blocks);
        self.data.release(&self.memory, &command.bidi_blocks);
        command
    }

    fn take_id(&mut self) -> Option<u16> {
        if let Some(id) = self.free_ids.pop_first() {
            return Some(id);
        }
        let id = u16::try_from(self.next_id).ok()?;
        self.next_id += 1;
        Some(id)
    }

    /// Answers a command once and for all.
    pub(super) fn deliver(&mut self, ticket: Ticket, delivered: Delivered) {
        self.undelivered -= 1;
        self.stats.delivered += 1;
        let earlier = self.results.insert(ticket, delivered);
        assert!(earlier.is_none(), "model bug: {ticket:?} was answered twice");
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.broken = true;
    }

    /// `uio_event_notify`.
    pub(super) fn event(&mut self) {
        self.held_event = false;
        self.bell.notify();
    }

    /// The event of one queued command: held back while plugged or inside a random batch.
    pub(super) fn command_event(&mut self) {
        if self.plugged {
            return;
        }
        if self.batch > 0 {
            self.batch -= 1;
        } else if self.config.seed.is_some() {
            self.batch = u32::try_from(self.next_random() % 8).expect("less than 8");
        }
        self.held_event = true;
        if self.batch == 0 {
            self.event();
        }
    }

    /// Ends a random batch.
    pub(super) fn flush_events(&mut self) {
        self.batch = 0;
        if self.held_event {
            self.event();
        }
    }

    pub(super) fn plug(&mut self) {
        self.flush_events();
        self.plugged = true;
    }

    /// `tcmu_unplug_device` notifies whether or not something was queued.
    pub(super) fn unplug(&mut self) {
        self.plugged = false;
        self.event();
    }

    /// xorshift64: repeatable, and good enough to choose batch sizes.
    pub(super) fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub(super) fn cursors(&self) -> Cursors {
        Cursors { head: self.head, tail: self.memory.load(MAILBOX_TAIL), cleaned: self.cleaned }
    }
}

/// What `queue_cmd_ring` made of a command.
enum Attempt {
    OnRing(Place),
    NoRoom(Request),
    Refused(Answer),
}

/// A CMD entry: header, counts, iovecs (Data-Out or Data-In, then the bidirectional Data-In), CDB.
fn command_bytes(
    request: &Request,
    id: u16,
    slot: u32,
    base: usize,
    iovs: &[Iov],
    bidi_iovs: &[Iov],
    len: u32,
) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &(len | OP_CMD).to_ne_bytes());
    put(CMD_ID, &id.to_ne_bytes());
    put(IOV_CNT, &offset32(iovs.len()).to_ne_bytes());
    put(IOV_BIDI_CNT, &offset32(bidi_iovs.len()).to_ne_bytes());
    put(CDB_OFF, &((RING + slot as usize + base) as u64).to_ne_bytes());
    for (index, &(offset, part)) in iovs.iter().chain(bidi_iovs).enumerate() {
        put(IOV + 16 * index, &offset.to_ne_bytes());
        put(IOV + 16 * index + 8, &part.to_ne_bytes());
    }
    put(base, &request.cdb);
    bytes
}

/// Ring offsets and lengths are 32 bits wide.
pub(super) fn offset32(value: usize) -> u32 {
    u32::try_from(value).expect("rings and counts are far smaller than 4 GiB")
}
