//! Random traffic against random, correct behaviour: nothing is lost, nothing is answered twice.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
enum Step {
    Send {
        len: usize,
        out: bool,
        long_cdb: bool,
    },
    /// Complete the n-th command in flight, out of order.
    Complete(usize),
    Kick,
    Expire(usize),
    Abort(usize),
    Future(u8),
    Unsolicited,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3 * BLOCK, any::<bool>(), any::<bool>())
            .prop_map(|(len, out, long_cdb)| Step::Send { len, out, long_cdb }),
        6 => (0..64_usize).prop_map(Step::Complete),
        3 => Just(Step::Kick),
        1 => (0..64_usize).prop_map(Step::Expire),
        1 => (0..64_usize).prop_map(Step::Abort),
        1 => (3..=7_u8).prop_map(Step::Future),
        1 => Just(Step::Unsolicited),
    ]
}

/// What the handler holds of a consumed command.
struct Held {
    entry: Entry,
    tag: u8,
}

struct Run {
    kernel: MockKernel,
    user: User,
    consumed: u32,
    held: HashMap<u16, Held>,
    order: Vec<u16>,
    tickets: Vec<(Ticket, u8, usize, bool)>,
    touched: Vec<Ticket>,
}

impl Run {
    fn consume(&mut self) {
        while self.consumed != self.user.head() {
            let entry = self.user.entry(self.consumed);
            self.consumed = (entry.slot + entry.len) % self.user.size;
            if entry.op == 1 {
                let tag = entry.cdb[2];
                if entry.cdb[0] & 2 != 0 {
                    let data = self.user.read_data(&entry);
                    assert!(data.iter().all(|&byte| byte == tag), "Data-Out of command {tag}");
                }
                self.order.push(entry.id);
                assert!(self.held.insert(entry.id, Held { entry, tag }).is_none(), "id reused in flight");
            }
        }
    }

    fn complete(&mut self, n: usize) {
        self.consume();
        if self.order.is_empty() {
            return;
        }
        let id = self.order.remove(n % self.order.len());
        let held = self.held.remove(&id).unwrap();
        if held.entry.cdb[0] & 2 == 0 {
            let len = held.entry.iovs.iter().map(|iov| as_usize(iov.1)).sum();
            self.user.write_data(&held.entry, &vec![held.tag; len]);
        }
        self.user.complete(id, OK);
    }

    fn kick(&self) {
        self.user.skip_to(self.consumed);
        self.user.kick();
        self.kernel.pump();
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Send { len, out, long_cdb } => {
                let tag = u8::try_from(self.tickets.len() % 251).unwrap();
                let mut cdb = [0; 16];
                cdb[0] = if long_cdb { 0x88 } else { 0x28 } | if out { 2 } else { 0 };
                cdb[2] = tag;
                let direction = if out { Direction::Out(vec![tag; len]) } else { Direction::In(len) };
                let sent = self.kernel.enqueue(cdb, direction);
                self.tickets.push((sent.ticket, tag, len, out));
            }
            Step::Complete(n) => self.complete(n),
            Step::Kick => {
                self.consume();
                self.kick();
            }
            Step::Expire(n) | Step::Abort(n) => {
                let index = self.tickets.len().wrapping_sub(n + 1);
                let target = self.tickets.get(index).map(|&(ticket, ..)| ticket);
                if let Some(ticket) = target.filter(|&ticket| self.kernel.result(ticket).is_none()) {
                    self.touched.push(ticket);
                    match step {
                        Step::Expire(_) => self.kernel.expire(ticket),
                        _ => self.kernel.abort(ticket),
                    }
                }
            }
            Step::Future(op) => drop(self.kernel.insert_unknown_op(op, 8 * usize::from(op))),
            Step::Unsolicited => self.kernel.kick(),
        }
    }
}

impl User {
    /// Skips entries that are no commands, but none that was not consumed.
    fn skip_to(&self, consumed: u32) {
        while self.tail() != consumed && self.entry(self.tail()).op != 1 {
            let entry = self.entry(self.tail());
            self.set_tail((entry.slot + entry.len) % self.size);
        }
    }
}

proptest! {
    #[test]
    fn every_command_is_answered_once(
        steps in prop::collection::vec(step(), 1..200),
        poison_on_free: bool,
        seed: Option<u64>,
    ) {
        let (kernel, user) = device(MockConfig { poison_on_free, seed, ..small() });
        let mut run = Run {
            kernel, user, consumed: 0, held: HashMap::new(), order: vec![], tickets: vec![], touched: vec![],
        };
        for step in &steps {
            run.take(step);
            prop_assert_eq!(run.kernel.faults(), vec![]);
        }
        // Quiescence: complete all there is, until nothing waits.
        while run.kernel.outstanding() > 0 || !run.kernel.ids().is_empty() {
            run.consume();
            run.complete(0);
            run.kick();
            prop_assert_eq!(run.kernel.faults(), vec![]);
        }
        clean(&run.kernel);
        for &(ticket, tag, len, out) in &run.tickets {
            let delivered = run.kernel.result(ticket).unwrap();
            if !run.touched.contains(&ticket) {
                prop_assert_eq!(delivered.status, GOOD);
                prop_assert_eq!(delivered.data, (!out).then(|| vec![tag; len]));
            }
        }
    }
}
