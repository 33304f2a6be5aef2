//! The oracle for many commands in flight: a [`Register`] for each block, [`Bits`] for those that are ORed.

use crate::bits::Bits;
use crate::command::{Command, Fill, Kind, Span};
use crate::content::{Value, repeated, stamp, stamped};
use crate::history::{Leaves, Register, Write};
use crate::oracle::{Checked, End, Flight, Oracle, Wrong};
use crate::status::not_mapped;
use crate::verdict::Verdict;
use std::collections::{BTreeSet, HashMap};

/// Which blocks serve what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) block: usize,
    /// Blocks in an object, within which a read is atomic.
    pub(crate) object: u64,
    /// Changed only by COMPARE AND WRITE.
    pub(crate) counters: Span,
    /// Changed only by ORWRITE and by writes of repeated words.
    pub(crate) words: Span,
    /// Everything else.
    pub(crate) general: Span,
}

impl Layout {
    pub(crate) fn disk(&self) -> u64 {
        self.general.end()
    }
}

pub(crate) struct Sets {
    layout: Layout,
    registers: Vec<Register>,
    bits: Vec<Bits>,
    /// The stamp that a COMPARE AND WRITE replaced, by block and the new stamp; and whether it was GOOD.
    links: HashMap<(u64, Value), (Value, bool)>,
    last_read: Vec<Value>,
}

fn at(lba: u64) -> usize {
    usize::try_from(lba).unwrap()
}

impl Sets {
    pub(crate) fn new(layout: Layout) -> Self {
        let blocks = at(layout.disk());
        Self {
            layout,
            registers: vec![Register::new(0); blocks],
            bits: vec![Bits::new(); blocks],
            links: HashMap::new(),
            last_read: vec![0; blocks],
        }
    }

    /// The blocks that a command writes, with what it leaves there; without it where words are.
    fn written(&self, command: &Command) -> Vec<(u64, Option<Leaves>, u64)> {
        let words = self.layout.words;
        let filled = |span: Span, fill: Fill| {
            (0..).zip(span.lbas()).map(move |(index, lba)| match fill {
                Fill::Word(word) => (lba, None, word),
                _ if words.contains(lba) => (lba, None, 0),
                _ => (lba, fill.value(index).map(Leaves::Stamp), 0),
            })
        };
        match &command.kind {
            Kind::Write { span, fill, .. } | Kind::CompareAndWrite { span, fill, .. } => {
                filled(*span, *fill).collect()
            }
            Kind::Whole(fill) => filled(Span::new(0, self.layout.disk()), *fill).collect(),
            Kind::Unmap(spans) => {
                let lbas: BTreeSet<_> = spans.iter().flat_map(|span| span.lbas()).collect();
                lbas.into_iter().flat_map(|lba| filled(Span::new(lba, 1), Fill::Same(0))).collect()
            }
            Kind::Or { span, word } => span.lbas().map(|lba| (lba, None, *word)).collect(),
            Kind::Copy(segments) => {
                let blocks = segments.iter().flat_map(|s| (0..s.blocks).map(|n| (s.to + n, s.from + n)));
                blocks.map(|(to, from)| (to, Some(Leaves::CopyOf(from)), 0)).collect()
            }
            Kind::Read(_)
            | Kind::Compare { .. }
            | Kind::Status { .. }
            | Kind::Nothing(_)
            | Kind::Illegal(_) => vec![],
        }
    }

    /// Everything that block may have held between the two moments.
    fn sources(&self, lba: u64, since: u64, now: u64, visited: &mut BTreeSet<u64>) -> BTreeSet<Value> {
        let mut values = BTreeSet::new();
        if visited.insert(lba) {
            for write in self.registers[at(lba)].possible(since, now) {
                match &write.leaves {
                    Leaves::Stamp(value) => drop(values.insert(*value)),
                    Leaves::OneOf(several) => values.extend(several),
                    Leaves::CopyOf(from) => values.extend(self.sources(*from, write.sent, now, visited)),
                }
            }
        }
        values
    }

    /// Unresolved copies that may have left this value in that block.
    fn copies(&self, lba: u64, value: Value, now: u64) -> Vec<u64> {
        let mut by = vec![];
        for write in self.registers[at(lba)].writes() {
            if let Leaves::CopyOf(from) = write.leaves
                && self.sources(from, write.sent, now, &mut BTreeSet::new()).contains(&value)
            {
                by.push(write.by);
            }
        }
        by
    }

    fn candidates(&self, lba: u64, value: Value, since: u64, now: u64) -> Vec<usize> {
        let copies = self.copies(lba, value, now);
        self.registers[at(lba)].writers(value, since, now, &copies)
    }

    /// A block was seen to hold this value; by whom it was written, if that is certain.
    fn observe(
        &mut self,
        lba: u64,
        value: Value,
        since: u64,
        now: u64,
    ) -> Result<Option<(usize, Write)>, Wrong> {
        let found = self.candidates(lba, value, since, now);
        match found[..] {
            [] => {
                let writes = self.registers[at(lba)].writes();
                let list: Vec<_> = writes.iter().map(|write| format!("\n  {write:x?}")).collect();
                let why =
                    format!("{value:x} was seen by a command of {since:#x}..{now:#x}, which is impossible:");
                Err(Wrong::at(lba, why + &list.concat()))
            }
            [one] => Ok(Some((one, self.registers[at(lba)].see(one, value, since, now).clone()))),
            _ => Ok(None),
        }
    }

    fn read(&mut self, span: Span, since: u64, now: u64, data: &[u8]) -> Checked {
        let mut writers = vec![];
        for (lba, block) in span.lbas().zip(data.chunks_exact(self.layout.block)) {
            if self.layout.words.contains(lba) {
                let word =
                    repeated(block).ok_or_else(|| Wrong::at(lba, format!("torn: {:02x?}", &block[..64])))?;
                self.bits[at(lba)].see(word, since).map_err(|why| Wrong::at(lba, why))?;
                continue;
            }
            let value = stamped(block)
                .ok_or_else(|| Wrong::at(lba, format!("torn or foreign: {}", pieces(block))))?;
            self.last_read[at(lba)] = value;
            writers.push((lba, self.observe(lba, value, since, now)?.map(|(_, write)| write)));
        }
        self.untorn(&writers, since)
    }

    /// Whoever sees one block of an atomic write sees none of its other blocks as it was before.
    fn untorn(&self, writers: &[(u64, Option<Write>)], since: u64) -> Checked {
        for (new_lba, new) in writers.iter().filter_map(|(lba, write)| Some((lba, write.as_ref()?))) {
            let Some(span) = new.atomic.filter(|span| span.blocks > 1) else { continue };
            for (old_lba, old) in writers.iter().filter_map(|(lba, write)| Some((lba, write.as_ref()?))) {
                // While the write is in flight, a read is atomic only within one object.
                let object = self.layout.object;
                let together = old_lba / object == new_lba / object || new.answered < since;
                if span.contains(*old_lba) && together && old.answered < new.sent {
                    let why = format!(
                        "LBA {new_lba} shows what #{} wrote atomically, LBA {old_lba} what #{} wrote before",
                        new.by, old.by
                    );
                    return Err(Wrong { span: Some(span), why });
                }
            }
        }
        Ok(())
    }

    /// A difference from these bytes was reported: some block must possibly have differed.
    fn differed(&self, flight: &Flight, span: Span, bytes: &[u8], now: u64) -> Checked {
        for (lba, block) in span.lbas().zip(bytes.chunks_exact(self.layout.block)) {
            let Some(value) = stamped(block) else { return Ok(()) };
            let mut possible = self.registers[at(lba)].possible(flight.sent, now);
            if possible.any(|write| write.by != flight.number && write.leaves != Leaves::Stamp(value)) {
                return Ok(());
            }
        }
        let why = format!("#{} met a difference where none can have been", flight.number);
        Err(Wrong { span: Some(span), why })
    }

    fn settle(&mut self, flight: &Flight, now: u64, good: bool) -> Checked {
        let written = self.written(&flight.command);
        let mut copied = vec![];
        for (lba, leaves, _) in &written {
            if let Some(Leaves::CopyOf(from)) = leaves {
                let values = self.sources(*from, flight.sent, now, &mut BTreeSet::new());
                copied.push((*lba, *from, values.into_iter().collect::<Vec<_>>()));
            }
        }
        for (lba, from, values) in copied {
            self.registers[at(lba)].resolve(flight.number, from, &values);
        }
        for (lba, leaves, _) in written {
            if leaves.is_some() {
                self.registers[at(lba)]
                    .answer(flight.number, now, good)
                    .map_err(|why| Wrong::at(lba, why))?;
            } else {
                self.bits[at(lba)].answer(flight.number, now, good);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, flight: &Flight) -> Checked {
        for (lba, leaves, _) in self.written(&flight.command) {
            match leaves {
                Some(_) => {
                    self.registers[at(lba)].refuse(flight.number).map_err(|why| Wrong::at(lba, why))?
                }
                None => self.bits[at(lba)].refuse(flight.number),
            }
        }
        Ok(())
    }

    /// A COMPARE AND WRITE found what it expected.
    fn exchanged(&mut self, flight: &Flight, span: Span, compare: &[u8], fill: Fill, now: u64) -> Checked {
        let found = span.lbas().zip(compare.chunks_exact(self.layout.block));
        for (index, (lba, block)) in (0..).zip(found) {
            let old = stamped(block).ok_or_else(|| Wrong::at(lba, "what is no stamp was found equal"))?;
            let seen = self.observe(lba, old, flight.sent, now)?;
            if let Some((write, _)) = seen.filter(|_| old != 0) {
                self.registers[at(lba)].take(write, flight.number).map_err(|why| Wrong::at(lba, why))?;
            }
            if let Some(link) = fill.value(index).and_then(|new| self.links.get_mut(&(lba, new))) {
                link.1 = true;
            }
        }
        Ok(())
    }

    fn status(&self, lba: u64, allocation: usize, since: u64, now: u64, data: &[u8]) -> Checked {
        for span in not_mapped(lba, allocation, self.layout.disk(), data)? {
            for lba in span.lbas().filter(|&lba| !self.layout.words.contains(lba)) {
                if self.candidates(lba, 0, since, now).is_empty() {
                    return Err(Wrong::at(lba, "a difference from the zeros that it is said to hold"));
                }
            }
        }
        Ok(())
    }
}

impl Oracle for Sets {
    fn sent(&mut self, flight: &Flight) {
        let (number, sent) = (flight.number, flight.sent);
        let atomic = match flight.command.kind {
            Kind::Write { span, atomic: true, .. } | Kind::CompareAndWrite { span, .. } => Some(span),
            _ => None,
        };
        let or = matches!(flight.command.kind, Kind::Or { .. });
        for (lba, leaves, word) in self.written(&flight.command) {
            match leaves {
                Some(leaves) => self.registers[at(lba)].send(number, sent, leaves, atomic),
                None if or => self.bits[at(lba)].or(number, sent, word),
                None => self.bits[at(lba)].store(number, sent, word),
            }
        }
        if let Kind::CompareAndWrite { span, compare, fill } = &flight.command.kind
            && self.layout.counters.contains(span.lba)
        {
            let blocks = span.lbas().zip(compare.chunks_exact(self.layout.block));
            for (index, (lba, block)) in (0..).zip(blocks) {
                if let (Some(old), Some(new)) = (stamped(block), fill.value(index)) {
                    self.links.insert((lba, new), (old, false));
                }
            }
        }
    }

    fn answered(
        &mut self,
        flight: &Flight,
        now: u64,
        horizon: u64,
        end: End,
        _: Verdict,
        data: &[u8],
    ) -> Checked {
        let since = flight.sent;
        let kind = &flight.command.kind;
        match (end, kind) {
            (End::Good, Kind::Read(span)) => self.read(*span, since, now, data)?,
            (End::Good, Kind::Compare { span, bytes }) => self.read(*span, since, now, bytes)?,
            (End::Good, Kind::Status { lba, allocation }) => {
                self.status(*lba, *allocation, since, now, data)?
            }
            (End::Good, Kind::CompareAndWrite { span, compare, fill }) => {
                self.exchanged(flight, *span, compare, *fill, now)?;
                self.settle(flight, now, true)?;
            }
            (End::Good, _) => self.settle(flight, now, true)?,
            (End::Failed, _) => self.settle(flight, now, false)?,
            (End::Refused, _) => self.refuse(flight)?,
            (End::Miscompare, Kind::Compare { span, bytes }) => self.differed(flight, *span, bytes, now)?,
            (End::Miscompare, Kind::CompareAndWrite { span, compare, .. }) => {
                self.differed(flight, *span, compare, now)?;
                self.refuse(flight)?;
            }
            (End::Miscompare, Kind::Write { span, .. }) => {
                let together = |write: &Write| write.by != flight.number && write.answered > since;
                if !span.lbas().any(|lba| self.registers[at(lba)].writes().iter().any(together)) {
                    return Err(Wrong {
                        span: Some(*span),
                        why: "differs from what nobody else wrote".into(),
                    });
                }
                self.settle(flight, now, false)?;
            }
            (End::Miscompare, _) => return Err(Wrong::new("a difference from nothing")),
        }
        if let (End::Good, Kind::Whole(_)) = (end, kind) {
            self.links.clear();
        }
        for (lba, leaves, _) in self.written(&flight.command) {
            if leaves.is_some() {
                self.registers[at(lba)].forget(horizon);
            } else {
                self.bits[at(lba)].forget(horizon);
            }
        }
        Ok(())
    }

    fn likely(&self, lba: u64, block: &mut [u8]) {
        stamp(self.registers[at(lba)].likely(), block);
    }

    /// No COMPARE AND WRITE that was GOOD is lost: all are on the way from the last value to the first.
    fn finish(&mut self) -> Checked {
        for lba in self.layout.counters.lbas() {
            let mut on_the_way = BTreeSet::new();
            let mut value = self.last_read[at(lba)];
            while value != 0 && on_the_way.insert(value) {
                let Some(link) = self.links.get(&(lba, value)) else {
                    return Err(Wrong::at(lba, format!("{value:x} was written by no COMPARE AND WRITE")));
                };
                value = link.0;
            }
            for ((_, new), _) in self.links.iter().filter(|((at, _), (_, good))| *at == lba && *good) {
                if !on_the_way.contains(new) {
                    return Err(Wrong::at(lba, format!("the COMPARE AND WRITE of {new:x} is lost")));
                }
            }
        }
        Ok(())
    }
}

/// A block that holds no stamp, in short.
fn pieces(block: &[u8]) -> String {
    let mut runs: Vec<(usize, String)> = vec![];
    for (at, part) in (0..).step_by(64).zip(block.chunks(64)) {
        let text = format!("{:02x?}", &part[..16]);
        if runs.last().is_none_or(|last| last.1 != text) {
            runs.push((at, text));
        }
    }
    runs.iter().take(3).map(|(at, text)| format!("+{at} {text} ")).collect()
}
