//! Entries that are no commands: task management functions, and what later kernels may add.
//!
//! Follows `tcmu_tmr_notify`, `queue_tmr_ring` and `tcmu_run_tmr_queue`.

use super::Ticket;
use super::command::{Answer, State};
use super::kernel::{Kernel, offset32};
use super::layout::*;

/// A task management function that found no ring space.
#[derive(Debug, Clone)]
pub(super) struct Tmr {
    kind: u8,
    ids: Vec<u16>,
}

impl Kernel {
    /// `tcmu_tmr_notify`.
    pub(super) fn tmr(&mut self, kind: u8, tickets: &[Ticket]) {
        let mut ids = Vec::new();
        for &ticket in tickets {
            if let Some(at) = self.waiting.iter().position(|request| request.ticket == ticket) {
                self.waiting.remove(at);
                self.deliver(ticket, Answer::TaskAborted.into());
            } else if let Some((&id, command)) = self
                .commands
                .iter_mut()
                .find(|(_, cmd)| cmd.request.ticket == ticket && cmd.state == State::Live)
            {
                command.aborted = true;
                ids.push(id);
            }
        }
        let notify = self.config.tmr_notification && self.config.flags & CAP_TMR != 0;
        if notify && !self.queue_tmr(&Tmr { kind, ids: ids.clone() }) {
            self.tmrs.push_back(Tmr { kind, ids });
        }
    }

    /// `queue_tmr_ring`; false when it has to wait. A broken ring swallows it.
    fn queue_tmr(&mut self, tmr: &Tmr) -> bool {
        if self.broken {
            return true;
        }
        let len = (TMR_CMD_IDS + 2 * tmr.ids.len()).next_multiple_of(8);
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&(offset32(len) | OP_TMR).to_ne_bytes());
        bytes[TMR_TYPE] = tmr.kind;
        bytes[TMR_CMD_CNT..TMR_CMD_CNT + 4].copy_from_slice(&offset32(tmr.ids.len()).to_ne_bytes());
        for (index, id) in tmr.ids.iter().enumerate() {
            let at = TMR_CMD_IDS + 2 * index;
            bytes[at..at + 2].copy_from_slice(&id.to_ne_bytes());
        }
        let queued = self.tmrs.is_empty() && self.insert(&bytes, OP_TMR);
        if queued {
            self.event();
        }
        queued || self.broken
    }

    /// `tcmu_run_tmr_queue`; false when the ring is full again.
    pub(super) fn run_tmrs(&mut self) -> bool {
        let mut queue = std::mem::take(&mut self.tmrs);
        while let Some(tmr) = queue.pop_front() {
            if !self.queue_tmr(&tmr) {
                queue.push_front(tmr);
                self.tmrs = queue;
                return false;
            }
        }
        true
    }

    /// An entry of a kind this kernel does not have yet.
    pub(super) fn insert_unknown_op(&mut self, op: u8, len: usize) -> bool {
        assert!((3..=7).contains(&op) && len >= HEADER && len.is_multiple_of(8), "not a future entry");
        let mut bytes: Vec<u8> = (0..len).map(|_| self.next_random().to_le_bytes()[0]).collect();
        bytes[..4].copy_from_slice(&(offset32(len) | u32::from(op)).to_ne_bytes());
        let inserted = !self.broken && self.insert(&bytes, u32::from(op));
        if inserted {
            self.command_event();
        }
        inserted
    }

    /// An entry that is neither PAD nor CMD, if there is room for it.
    fn insert(&mut self, bytes: &[u8], op: u32) -> bool {
        let len = offset32(bytes.len());
        if !self.ring_has_room(len) {
            return false;
        }
        if let Err(fault) = self.check_mailbox().and_then(|()| self.check_free_space(len)) {
            self.fail(fault);
            return false;
        }
        self.insert_padding(len);
        self.publish(bytes, op, 0);
        true
    }
}
