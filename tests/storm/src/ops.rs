//! Which commands the load consists of.

use std::collections::HashSet;
use std::fmt;
use std::time::Instant;

use sgtest::initiator::{UNMAP_BIT, bare, compare_and_write, op, rw10, rw16, unmap, unmap_list};

use crate::iscsi::Command;
use crate::load::{DATA, LOCKS, Load};
use crate::stamp::{BLOCK, Value};

/// Blocks per RBD object.
const OBJECT: u64 = 8192;
const ORWRITE_16: u8 = 0x8B;
const VERIFY_16: u8 = 0x8F;
const BYTE_CHECK: u8 = 0x02;
const FUA: u8 = 0x08;

/// The kinds of commands and their weights.
pub(crate) const MIX: [(&str, u64); 10] = [
    ("read", 38),
    ("write", 38),
    ("same", 3),
    ("zero", 2),
    ("unmap", 3),
    ("verify", 3),
    ("sync", 1),
    ("lock", 7),
    ("or", 5),
    ("copy", 2),
];

/// What an answer is judged by.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Read {
        lba: u64,
        n: u64,
    },
    /// WRITE, WRITE SAME, UNMAP.
    Change {
        lba: u64,
        values: Vec<Value>,
    },
    /// VERIFY of blocks that nobody changes meanwhile; `differs` if one byte was turned.
    Verify {
        lba: u64,
        n: u64,
        differs: bool,
    },
    Copy {
        from: u64,
        to: u64,
        values: Vec<Value>,
    },
    Lock {
        lba: u64,
        old: Value,
        new: Value,
    },
    Or {
        lba: u64,
        bit: u32,
    },
    ReadBits {
        lba: u64,
        known: HashSet<u32>,
    },
    Sync,
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::ReadBits { .. } => "read",
            Self::Change { .. } => "write",
            Self::Verify { .. } => "verify",
            Self::Copy { .. } => "copy",
            Self::Lock { .. } => "lock",
            Self::Or { .. } => "or",
            Self::Sync => "sync",
        }
    }

    pub(crate) fn range(&self) -> (u64, u64) {
        match self {
            Self::Read { lba, n } | Self::Verify { lba, n, .. } => (*lba, *n),
            Self::Change { lba, values } => (*lba, values.len() as u64),
            Self::Copy { to, values, .. } => (*to, values.len() as u64),
            Self::Lock { lba, .. } | Self::Or { lba, .. } | Self::ReadBits { lba, .. } => (*lba, 1),
            Self::Sync => (0, 0),
        }
    }
}

/// A command under way.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) command: Command,
    /// When it was issued, as a count of events and on the clock.
    pub(crate) start: u64,
    pub(crate) sent: Instant,
    /// A try was answered BUSY.
    pub(crate) busy: bool,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lba, n) = self.kind.range();
        write!(f, "{:02X}h at {lba}, {n} blocks", self.command.cdb[0])?;
        match &self.kind {
            Kind::Change { values, .. } | Kind::Copy { values, .. } => {
                write!(f, ", {}", values.first().copied().unwrap_or(Value::ZERO))
            }
            Kind::Lock { old, new, .. } => write!(f, ", {old} to {new}"),
            Kind::Or { bit, .. } => write!(f, ", bit {bit}"),
            _ => Ok(()),
        }
    }
}

fn n32(n: u64) -> u32 {
    u32::try_from(n).expect("few blocks")
}

impl Load {
    fn op(&mut self, kind: Kind, cdb: Vec<u8>, out: Vec<u8>, expect: u64) -> Op {
        self.now += 1;
        let expect = usize::try_from(expect).expect("small") * BLOCK;
        Op { kind, command: Command { cdb, out, expect }, start: self.now, sent: Instant::now(), busy: false }
    }

    /// The next command, `None` if the dice fell on one that cannot be sent now.
    pub(crate) fn choose(&mut self) -> Option<Op> {
        let total = self.options.mix.iter().map(|(_, weight)| weight).sum();
        let mut dice = self.random.below(total);
        let at = self.options.mix.iter().position(|(_, weight)| {
            let hit = dice < *weight;
            dice = dice.saturating_sub(*weight);
            hit
        })?;
        let what = self.options.mix[at].0.clone();
        match what.as_str() {
            "read" => {
                let (lba, n) = self.place();
                Some(self.read(lba, n))
            }
            "write" => self.write(),
            "same" | "zero" => self.same(what == "zero"),
            "unmap" => self.unmap(),
            "verify" => self.verify(),
            "lock" => Some(self.lock()),
            "or" => self.or(),
            "copy" => self.copy(),
            _ => {
                let cdb = rw10(op::SYNCHRONIZE_CACHE_10, 0, 0, 0);
                Some(self.op(Kind::Sync, cdb, Vec::new(), 0))
            }
        }
    }

    /// A range of data blocks: small and large, aligned and not, some across two objects, half of all in a hot spot.
    fn place(&mut self) -> (u64, u64) {
        let blocks = self.registers.blocks();
        let random = &mut self.random;
        let n = match random.below(20) {
            0..10 => 1 + random.below(8),
            10..17 => 8 + random.below(57),
            _ => 128 + random.below(129),
        };
        let lba = match random.below(10) {
            0 => (1 + random.below((blocks / OBJECT).max(2) - 1)) * OBJECT - n / 2,
            1..6 => DATA + random.below(2048),
            _ => DATA + random.below(blocks - DATA - n),
        };
        let lba = if random.below(2) == 0 { lba.next_multiple_of(8) } else { lba };
        (lba.min(blocks - n).max(DATA), n)
    }

    pub(crate) fn read(&mut self, lba: u64, n: u64) -> Op {
        for lba in lba..lba + n {
            self.registers.read_begin(lba);
        }
        self.op(Kind::Read { lba, n }, rw16(op::READ_16, 0, lba, n32(n)), Vec::new(), n)
    }

    fn is_held(&self, lba: u64, n: u64) -> bool {
        (lba..lba + n).any(|lba| self.held.contains_key(&lba))
    }

    /// A command that changes blocks to `values`.
    fn change(&mut self, lba: u64, values: Vec<Value>, optional: bool, cdb: Vec<u8>, out: Vec<u8>) -> Op {
        let op = self.op(Kind::Change { lba, values: values.clone() }, cdb, out, 0);
        for (lba, value) in (lba..).zip(values) {
            self.registers.write_begin(lba, value, op.start, optional);
        }
        op
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn write(&mut self) -> Option<Op> {
        let (lba, n) = self.place();
        if self.is_held(lba, n) {
            return None;
        }
        let sequence = self.next_sequence();
        let values: Vec<_> = (lba..lba + n).map(|lba| Value::write(sequence, lba)).collect();
        let out = values.iter().flat_map(|value| value.bytes(self.options.run)).collect();
        let flags = if self.random.below(8) == 0 { FUA } else { 0 };
        Some(self.change(lba, values, false, rw16(op::WRITE_16, flags, lba, n32(n)), out))
    }

    fn same(&mut self, zeros: bool) -> Option<Op> {
        let (lba, n) = self.place();
        if self.is_held(lba, n) {
            return None;
        }
        let value = if zeros { Value::ZERO } else { Value::same(self.next_sequence(), lba) };
        let flags = if zeros { UNMAP_BIT } else { 0 };
        let count = usize::try_from(n).expect("small");
        let cdb = rw16(op::WRITE_SAME_16, flags, lba, n32(n));
        Some(self.change(lba, vec![value; count], false, cdb, value.bytes(self.options.run).to_vec()))
    }

    fn unmap(&mut self) -> Option<Op> {
        let (lba, n) = self.place();
        if self.is_held(lba, n) {
            return None;
        }
        let list = unmap_list(&[(lba, n32(n))]);
        let cdb = unmap(u16::try_from(list.len()).expect("short"));
        Some(self.change(lba, vec![Value::ZERO; usize::try_from(n).expect("small")], true, cdb, list))
    }

    /// The contents of a range if they are certain and may be held.
    fn certain(&self, lba: u64, n: u64) -> Option<Vec<Value>> {
        (lba..lba + n).map(|lba| self.registers.certain(lba)).collect()
    }

    fn verify(&mut self) -> Option<Op> {
        let (lba, n) = self.place();
        let values = self.certain(lba, n)?;
        let mut out: Vec<u8> = values.iter().flat_map(|value| value.bytes(self.options.run)).collect();
        let differs = self.random.below(2) == 0;
        if differs {
            let at = usize::try_from(self.random.below(out.len() as u64)).expect("small");
            out[at] ^= 0x10;
        }
        self.hold(lba, n);
        Some(self.op(Kind::Verify { lba, n, differs }, rw16(VERIFY_16, BYTE_CHECK, lba, n32(n)), out, 0))
    }

    fn lock(&mut self) -> Op {
        let lba = self.random.below(LOCKS);
        let Some(old) = self.believed[usize::try_from(lba).expect("small")] else { return self.read(lba, 1) };
        let new = Value::write(self.next_sequence(), lba);
        let out = [old.bytes(self.options.run), new.bytes(self.options.run)].concat();
        let op = self.op(Kind::Lock { lba, old, new }, compare_and_write(lba, 1), out, 0);
        self.registers.write_begin(lba, new, op.start, false);
        self.chains[usize::try_from(lba).expect("small")].issued(old.sequence, new.sequence);
        op
    }

    fn or(&mut self) -> Option<Op> {
        let lba = LOCKS + self.random.below(DATA - LOCKS);
        let bits = &mut self.bits[usize::try_from(lba - LOCKS).expect("small")];
        if self.random.below(2) == 0 {
            let known = bits.known();
            let kind = Kind::ReadBits { lba, known };
            return Some(self.op(kind, rw16(op::READ_16, 0, lba, 1), Vec::new(), 1));
        }
        let (bit, block) = bits.next()?;
        Some(self.op(Kind::Or { lba, bit }, rw16(ORWRITE_16, 0, lba, 1), block.to_vec(), 0))
    }

    /// EXTENDED COPY within the disk, of blocks that nobody changes meanwhile.
    fn copy(&mut self) -> Option<Op> {
        let naa = self.naa?;
        let (from, n) = self.place();
        let (to, _) = self.place();
        let n = n.min(self.registers.blocks() - to);
        if from.abs_diff(to) < n || self.is_held(to, n) {
            return None;
        }
        let values = self.certain(from, n)?;
        // A value that is there already would not be unique.
        if (to..).zip(&values).any(|(lba, value)| self.registers.possible(lba).contains(value)) {
            return None;
        }
        let list = copy_list(naa, from, to, n);
        let mut cdb = bare(0x83, 16);
        cdb[10..14].copy_from_slice(&u32::try_from(list.len()).expect("short").to_be_bytes());
        self.hold(from, n);
        let op = self.op(Kind::Copy { from, to, values: values.clone() }, cdb, list, 0);
        for (lba, value) in (to..).zip(values) {
            self.registers.write_begin(lba, value, op.start, false);
        }
        Some(op)
    }
}

/// The parameter list of EXTENDED COPY(LID1): one CSCD descriptor, one block-to-block segment (SPC-4 6.3).
fn copy_list(naa: [u8; 16], from: u64, to: u64, n: u64) -> Vec<u8> {
    let mut list = vec![0; 16 + 32 + 28];
    list[3] = 32;
    list[11] = 28;
    let (cscd, segment) = list[16..].split_at_mut(32);
    cscd[0] = 0xE4;
    cscd[4..8].copy_from_slice(&[1, 3, 0, 16]);
    cscd[8..24].copy_from_slice(&naa);
    cscd[30] = 2;
    segment[0] = 0x02;
    segment[3] = 0x18;
    segment[10..12].copy_from_slice(&u16::try_from(n).expect("few").to_be_bytes());
    segment[12..20].copy_from_slice(&from.to_be_bytes());
    segment[20..28].copy_from_slice(&to.to_be_bytes());
    list
}
