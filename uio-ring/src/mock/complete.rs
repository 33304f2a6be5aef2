//! The kernel's half of the ring: what comes back, and what user space must not have touched.
//!
//! Follows `tcmu_handle_completions` and `tcmu_handle_completion`. The kernel trusts `len_op`,
//! `cmd_id` and the tail; the model compares them with what it wrote and names the violation the
//! kernel would stumble over.

use super::Delivered;
use super::command::{Answer, Command, Direction, State};
use super::fault::Fault;
use super::kernel::{Entry, Kernel, offset32};
use super::layout::*;
use std::collections::HashSet;
use std::ops::Range;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;

impl Kernel {
    /// Kicks if user space wrote to the doorbell since the last time.
    pub(super) fn pump(&mut self) {
        let kicks = self.bell.take_kicks();
        self.stats.kicks += kicks.count;
        if let Some(len) = kicks.odd_len {
            self.fail(Fault::OddKick { len });
        }
        if kicks.count > 0 {
            self.kick(self.config.single_threaded && self.threads == 0);
        }
    }

    /// `tcmu_irqcontrol`. `settled`: user space has published everything it wrote, so entries
    /// beyond the tail must be untouched.
    pub(super) fn kick(&mut self, settled: bool) {
        if self.handle_completions(settled) {
            self.run_waiting();
        }
    }

    /// `tcmu_handle_completions`; true when waiting commands deserve a retry.
    fn handle_completions(&mut self, settled: bool) -> bool {
        if self.broken {
            return false;
        }
        let (progress, outcome) = self.clean();
        let outcome = outcome.and_then(|()| self.check_unpublished(settled));
        if let Err(fault) = outcome {
            // A second completion of a kept id leaves the kernel's loop by another exit than an
            // unknown id: the queues still run, and fail on the broken ring.
            let queues_run = matches!(fault, Fault::Broken { kept: true, .. });
            self.fail(fault);
            return queues_run && self.run_tmrs();
        }
        progress && self.run_tmrs()
    }

    fn clean(&mut self) -> (bool, Result<(), Fault>) {
        let mut progress = false;
        if let Err(fault) = self.check_mailbox() {
            return (progress, Err(fault));
        }
        loop {
            let tail = self.memory.load(MAILBOX_TAIL);
            if tail == self.cleaned {
                return (progress, Ok(()));
            }
            if let Err(fault) = self.check_tail(tail) {
                return (progress, Err(fault));
            }
            while self.cleaned != tail {
                progress = true;
                if let Err(fault) = self.clean_one() {
                    return (progress, Err(fault));
                }
            }
        }
    }

    fn clean_one(&mut self) -> Result<(), Fault> {
        let entry = *self.entries.front().expect("the tail is on a boundary ahead, so entries remain");
        self.check_entry(entry, false)?;
        if entry.op == OP_CMD {
            self.complete(entry)?;
        }
        self.entries.pop_front();
        self.cleaned = entry.end(self.size);
        if self.config.verify {
            let at = entry.slot as usize;
            self.memory.read(RING + at, &mut self.shadow[at..at + entry.len as usize]);
        }
        Ok(())
    }

    /// `tcmu_handle_completion`, preceded by the lookup of the id.
    fn complete(&mut self, entry: Entry) -> Result<(), Fault> {
        let mut rsp = [0; CMD_ENTRY];
        self.memory.read(RING + entry.slot as usize, &mut rsp);
        let cmd_id = u16::from_ne_bytes([rsp[CMD_ID], rsp[CMD_ID + 1]]);
        let keep = rsp[UFLAGS] & UFLAG_KEEP_BUF != 0 && self.offers(CAP_KEEP_BUF);
        if cmd_id != entry.cmd_id && !self.offers(CAP_OOOC) {
            return Err(Fault::OutOfOrder { slot: entry.slot, expected: entry.cmd_id, found: cmd_id });
        }
        let Some(command) = self.commands.get(&cmd_id) else {
            return Err(Fault::Broken { cmd_id, slot: entry.slot, kept: false });
        };
        match command.state {
            State::Live => {
                self.check_data(command)?;
                self.check_sense(command, entry, &rsp)?;
                let ticket = command.request.ticket;
                let delivered = command.verdict(self.outcome(command, &rsp));
                self.deliver(ticket, delivered);
            }
            State::Expired => {
                self.check_data(command)?;
                self.stats.late += 1;
            }
            State::Kept => {
                if !keep {
                    self.retire(cmd_id);
                }
                return Err(Fault::Broken { cmd_id, slot: entry.slot, kept: true });
            }
        }
        match self.commands.get_mut(&cmd_id) {
            Some(command) if keep => command.state = State::Kept,
            _ => drop(self.retire(cmd_id)),
        }
        Ok(())
    }

    /// What the initiator gets for a response.
    fn outcome(&self, command: &Command, rsp: &[u8; CMD_ENTRY]) -> Delivered {
        if rsp[UFLAGS] & UFLAG_UNKNOWN_OP != 0 {
            return Answer::CommunicationFailure.into();
        }
        let status = rsp[STATUS];
        let (len, bidi_len) = command.request.direction.lengths();
        let read_len =
            u32::from_ne_bytes([rsp[READ_LEN], rsp[READ_LEN + 1], rsp[READ_LEN + 2], rsp[READ_LEN + 3]]);
        let read_len = (matches!(command.request.direction, Direction::In(_))
            && rsp[UFLAGS] & UFLAG_READ_LEN != 0
            && self.offers(CAP_READ_LEN)
            && read_len != 0)
            .then_some((read_len as usize).min(len));
        let mut sense = [0; SENSE_LEN];
        if status == CHECK_CONDITION {
            sense.copy_from_slice(&rsp[SENSE..]);
        }
        // With READ_LEN a CHECK CONDITION carries data as well (SCF_TREAT_READ_AS_NORMAL).
        let with_data = status == GOOD || (status == CHECK_CONDITION && read_len.is_some());
        if !with_data {
            return Delivered { status, sense, data: None, resid: 0 };
        }
        let len_in = read_len.unwrap_or(len);
        let data = match command.request.direction {
            Direction::In(_) => Some(self.data.get(&self.memory, &command.blocks, len_in)),
            // The kernel bounds this copy by the length of Data-Out; the rest stays as it was.
            Direction::Bidi { .. } => {
                let mut data = self.data.get(&self.memory, &command.bidi_blocks, len.min(bidi_len));
                data.resize(bidi_len, 0);
                Some(data)
            }
            Direction::None | Direction::Out(_) => None,
        };
        Delivered { status, sense, data, resid: read_len.map_or(0, |read_len| offset32(len - read_len)) }
    }

    fn offers(&self, capability: u16) -> bool {
        self.config.flags & capability != 0
    }

    /// The command timer (or, for a waiting command, the qfull timer) fires.
    pub(super) fn expire(&mut self, ticket: super::Ticket) {
        if let Some(at) = self.waiting.iter().position(|request| request.ticket == ticket) {
            self.waiting.remove(at);
            self.deliver(ticket, Answer::TaskSetFull.into());
            return;
        }
        let live = self
            .commands
            .values_mut()
            .find(|command| command.request.ticket == ticket && command.state == State::Live);
        if let Some(command) = live {
            command.state = State::Expired;
            let delivered = command.verdict(Answer::CommunicationFailure.into());
            self.deliver(ticket, delivered);
        }
    }

    /// `tcmu_block_dev` and its opposite.
    pub(super) fn block(&mut self, block: bool) {
        if block && !self.blocked {
            self.blocked = true;
            self.handle_completions(false);
            for request in std::mem::take(&mut self.waiting) {
                self.deliver(request.ticket, Answer::Busy.into());
            }
        }
        self.blocked = block;
    }

    /// `action/free_kept_buf`; false is its `EINVAL`.
    pub(super) fn free_kept_buf(&mut self, cmd_id: u16) -> bool {
        let kept = self.commands.get(&cmd_id).is_some_and(|command| command.state == State::Kept);
        if kept {
            self.retire(cmd_id);
            self.run_waiting_after_kept();
        }
        kept
    }

    /// Everything that must hold while user space rests with all its completions published.
    pub(super) fn check_all(&self) -> Result<(), Fault> {
        self.check_mailbox()?;
        let tail = self.memory.load(MAILBOX_TAIL);
        if tail != self.cleaned {
            self.check_tail(tail)?;
        }
        self.check_unpublished(true)?;
        self.commands
            .values()
            .filter(|command| command.state != State::Kept)
            .try_for_each(|command| self.check_data(command))?;
        self.check_ring(self.head..self.cleaned)?;
        self.data.check_free(&self.memory)
    }

    pub(super) fn check_mailbox(&self) -> Result<(), Fault> {
        let found = self.memory.load(MAILBOX_HEAD);
        if found != self.head {
            return Err(Fault::HeadModified { expected: self.head, found });
        }
        let version_and_flags = self.memory.load(MAILBOX_VERSION).to_ne_bytes();
        let intact = version_and_flags[..MAILBOX_FLAGS] == VERSION.to_ne_bytes()
            && version_and_flags[MAILBOX_FLAGS..] == self.config.flags.to_ne_bytes()
            && self.memory.load(MAILBOX_CMDR_OFF) == offset32(RING)
            && self.memory.load(MAILBOX_CMDR_SIZE) == self.size;
        if intact { Ok(()) } else { Err(Fault::MailboxModified) }
    }

    /// The tail must be the end of an entry between last cleaned and head.
    fn check_tail(&self, tail: u32) -> Result<(), Fault> {
        if tail >= self.size {
            return Err(Fault::TailOutOfRange { tail });
        }
        if self.entries.iter().any(|entry| entry.end(self.size) == tail) {
            return Ok(());
        }
        let ahead = |cursor: u32| (cursor + self.size - self.cleaned) % self.size;
        if ahead(tail) < ahead(self.head) {
            return Err(Fault::TailNotOnBoundary { tail });
        }
        match self.dry_run(tail) {
            Some(slot) => Err(Fault::WouldSpin { tail, slot }),
            None => Err(Fault::TailPastHead { tail }),
        }
    }

    /// Walks as the kernel would; returns the entry on which it would turn for ever.
    fn dry_run(&self, tail: u32) -> Option<u32> {
        let mut seen = HashSet::new();
        let mut slot = self.cleaned;
        for _ in 0..self.size / 8 {
            if slot == tail {
                return None;
            }
            let len_op = self.memory.load(RING + slot as usize);
            if len_op & OP_MASK == OP_CMD {
                let header = self.memory.bytes(RING + slot as usize, HEADER);
                let id = u16::from_ne_bytes([header[CMD_ID], header[CMD_ID + 1]]);
                if !self.commands.contains_key(&id) || !seen.insert(id) {
                    return None;
                }
            }
            if len_op == OP_PAD || len_op == OP_TMR {
                return Some(slot);
            }
            slot = (slot + (len_op & !OP_MASK) % self.size) % self.size;
        }
        Some(slot)
    }

    /// Entries beyond the tail. Unless user space has `settled`, it may be preparing responses in
    /// them right now, so only what it never owns is compared.
    fn check_unpublished(&self, settled: bool) -> Result<(), Fault> {
        let tail = self.memory.load(MAILBOX_TAIL);
        let mut beyond = tail == self.cleaned;
        for &entry in &self.entries {
            self.check_entry(entry, settled && beyond)?;
            beyond |= entry.end(self.size) == tail;
        }
        Ok(())
    }

    /// Compares an entry with what the kernel wrote: all of it, or all but the response area.
    fn check_entry(&self, entry: Entry, whole: bool) -> Result<(), Fault> {
        let at = RING + entry.slot as usize;
        let (expected, found) = (entry.len | entry.op, self.memory.load(at));
        if found != expected {
            return Err(Fault::LenOpModified { slot: entry.slot, expected, found });
        }
        if entry.op == OP_CMD && !whole {
            self.check_bytes(entry, KFLAGS..UFLAGS)?;
            return self.check_bytes(entry, CMD_ENTRY..entry.len as usize);
        }
        // `uflags` are user space's, of whatever op: the kernel looks at those of a completed command.
        self.check_bytes(entry, 0..UFLAGS)?;
        self.check_bytes(entry, HEADER..entry.len as usize)
    }

    fn check_bytes(&self, entry: Entry, part: Range<usize>) -> Result<(), Fault> {
        let slot = entry.slot as usize;
        self.first_change(slot + part.start..slot + part.end)
            .map_or(Ok(()), |at| Err(Fault::EntryModified { slot: entry.slot, at }))
    }

    /// Ring space that the next entry (and the PAD before it) is going to cover.
    pub(super) fn check_free_space(&self, len: u32) -> Result<(), Fault> {
        let to_end = self.size - self.head;
        let end = if to_end >= len { self.head + len } else { len };
        self.check_ring(self.head..end % self.size)
    }

    /// A free part of the ring, which may wrap; an empty range is the whole ring when it is empty.
    fn check_ring(&self, part: Range<u32>) -> Result<(), Fault> {
        let (start, end, size) = (part.start as usize, part.end as usize, self.size as usize);
        let change = if start < end {
            self.first_change(start..end)
        } else {
            self.first_change(start..size).or_else(|| self.first_change(0..end))
        };
        change.map_or(Ok(()), |at| Err(Fault::FreeRingModified { at }))
    }

    fn first_change(&self, ring: Range<usize>) -> Option<usize> {
        if !self.config.verify {
            return None;
        }
        let found = self.memory.bytes(RING + ring.start, ring.len());
        let expected = &self.shadow[ring.clone()];
        first_difference(&found, expected).map(|index| RING + ring.start + index)
    }

    fn check_data(&self, command: &Command) -> Result<(), Fault> {
        if !self.config.verify {
            return Ok(());
        }
        let ticket = command.request.ticket;
        let (len, bidi_len) = command.request.direction.lengths();
        let out = command.request.direction.data_out();
        let found = self.data.get(&self.memory, &command.blocks, out.len());
        // The kernel never looks at what it sent, but hands it to an initiator that lied about the direction. So to
        // blank all of it is no fault.
        let blanked = found.iter().all(|&byte| byte == 0);
        if let Some(index) = first_difference(&found, out).filter(|_| !blanked) {
            return Err(Fault::DataModified { ticket, at: self.data.locate(&command.blocks, index) });
        }
        for (blocks, len, slack) in
            [(&command.blocks, len, &command.slack), (&command.bidi_blocks, bidi_len, &command.bidi_slack)]
        {
            let found = self.data.slack(&self.memory, blocks, len);
            if let Some(index) = first_difference(&found, slack) {
                return Err(Fault::DataModified { ticket, at: self.data.locate(blocks, len + index) });
            }
        }
        Ok(())
    }

    /// CHECK CONDITION makes the kernel copy 96 bytes; a request field that is still among them
    /// shows that they were not all written. Only non-zero 8-byte fields count, as zeroes may be
    /// sense.
    fn check_sense(&self, command: &Command, entry: Entry, rsp: &[u8; CMD_ENTRY]) -> Result<(), Fault> {
        if !self.config.verify || rsp[STATUS] != CHECK_CONDITION || rsp[UFLAGS] & UFLAG_UNKNOWN_OP != 0 {
            return Ok(());
        }
        let request = &self.shadow[entry.slot as usize..][..CMD_ENTRY];
        let mut fields = [CDB_OFF].into_iter().chain((IOV..CMD_ENTRY).step_by(8));
        let stale =
            fields.find(|&at| request[at..at + 8] != [0; 8] && request[at..at + 8] == rsp[at..at + 8]);
        stale.map_or(Ok(()), |at| {
            let ticket = command.request.ticket;
            Err(Fault::SenseNotFullyWritten { ticket, slot: entry.slot, sense_byte: at - SENSE })
        })
    }
}

fn first_difference(found: &[u8], expected: &[u8]) -> Option<usize> {
    if found == expected { None } else { found.iter().zip(expected).position(|(a, b)| a != b) }
}
