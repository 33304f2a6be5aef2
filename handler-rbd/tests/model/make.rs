//! Random commands: all that touch data, in all their widths, at ranges that overlap.

use crate::cdb::{self, Width};
use crate::command::{Command, Fill, Kind, Segment, Span};
use crate::content::{Rng, Value};
use crate::illegal::INVALID_FIELD_IN_CDB;
use crate::oracle::Oracle;
use crate::rig::Said;
use Width::{Six, Sixteen, Ten, Twelve};
use uio_ring::mock::Direction;

const FUA: u8 = 0x08;
const DPO: u8 = 0x10;

/// Which blocks serve what; with one command at a time every block serves everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Areas {
    pub(crate) general: Span,
    pub(crate) words: Span,
    pub(crate) counters: Span,
}

/// Makes commands.
pub(crate) struct Maker {
    pub(crate) rng: Rng,
    pub(crate) said: Said,
    pub(crate) block: usize,
    pub(crate) disk: u64,
    pub(crate) areas: Areas,
    /// One command at a time.
    pub(crate) alone: bool,
    next: Value,
}

pub(crate) type Named = (&'static str, u8, Width);

impl Maker {
    pub(crate) fn new(seed: u64, said: Said, block: usize, areas: Areas, alone: bool) -> Self {
        let disk = areas.general.end();
        Self { rng: Rng(seed), said, block, disk, areas, alone, next: 0x1000 }
    }

    /// Any command but those for the whole disk.
    pub(crate) fn any(&mut self, oracle: &dyn Oracle) -> Command {
        match self.rng.below(100) {
            0..9 if !self.alone => self.counter(oracle),
            9..18 if !self.alone => self.word(),
            18..20 => self.or(),
            _ => self.general(oracle),
        }
    }

    /// A command for the blocks without a special service.
    pub(crate) fn general(&mut self, oracle: &dyn Oracle) -> Command {
        let area = self.areas.general;
        match self.rng.below(100) {
            0..26 => {
                let span = self.span(area, self.said.transfer);
                self.read(span)
            }
            26..50 => self.write(area),
            50..55 => self.write_and_verify(area),
            55..62 => self.verify(oracle),
            62..72 => {
                let span = self.span(area, self.said.compare);
                self.compare_and_write(span, oracle)
            }
            72..79 => self.write_same(),
            79..85 => self.unmap(),
            85..88 => self.nothing(),
            88..90 => self.status(),
            90..93 => self.write_atomic(),
            93..96 => self.copy(),
            _ => self.illegal(),
        }
    }

    /// FORMAT UNIT or SANITIZE.
    pub(crate) fn whole(&mut self) -> Command {
        let fill = if self.alone { Fill::Same(self.stamps(1)) } else { Fill::Same(0) };
        let (name, cdb, list, fill) = match self.rng.below(3) {
            0 => ("FORMAT UNIT", cdb::format_unit(), vec![], Fill::Same(0)),
            1 => ("SANITIZE/BLOCK ERASE", cdb::sanitize(0x02, 0), vec![], Fill::Same(0)),
            _ => {
                // Once; the pattern is as long as a block.
                let mut list = vec![0x01, 0];
                list.extend(u16::try_from(self.block).unwrap().to_be_bytes());
                list.extend(fill.bytes(1, self.block));
                ("SANITIZE/OVERWRITE", cdb::sanitize(0x01, list.len()), list, fill)
            }
        };
        let direction = if list.is_empty() { Direction::None } else { Direction::Out(list) };
        Command { name, cdb, direction, kind: Kind::Whole(fill) }
    }

    /// READ(16) of this.
    pub(crate) fn plain_read(&self, span: Span) -> Command {
        let direction = Direction::In(self.len(span.blocks));
        Command {
            name: "READ(16)",
            cdb: cdb::extent(0x88, Sixteen, 0, span),
            direction,
            kind: Kind::Read(span),
        }
    }

    pub(crate) fn len(&self, blocks: u64) -> usize {
        usize::try_from(blocks).unwrap() * self.block
    }

    /// Fresh stamps.
    pub(crate) fn stamps(&mut self, count: u64) -> Value {
        self.next += count;
        self.next - count
    }

    /// A range within the area: mostly short, mostly where the others are too.
    pub(crate) fn span(&mut self, area: Span, most: u64) -> Span {
        let most = most.min(area.blocks).max(1);
        let wanted = match self.rng.below(100) {
            0..45 => 1,
            45..85 => 1 + self.rng.below(8),
            85..99 => 1 + self.rng.below(48),
            _ => 1 + self.rng.below(most),
        };
        let blocks = wanted.min(most);
        let hot = area.blocks.min(64);
        let within = if self.rng.once_in(4) { area.blocks } else { hot };
        let lba = area.lba + self.rng.below(within);
        Span::new(lba.min(area.end() - blocks), blocks)
    }

    fn flags(&mut self, allowed: u8) -> u8 {
        if self.rng.once_in(4) { u8::try_from(self.rng.below(256)).unwrap() & allowed } else { 0 }
    }

    fn width(&mut self, from: &[Named], span: Span, allowed: u8) -> (&'static str, Vec<u8>) {
        loop {
            let &(name, opcode, width) = self.rng.pick(from);
            if span.end() - 1 > width.last_lba() || span.blocks > width.most() {
                continue;
            }
            let flags = if width == Six { 0 } else { self.flags(allowed) };
            return (name, cdb::extent(opcode, width, flags, span));
        }
    }

    fn read(&mut self, span: Span) -> Command {
        let reads = [
            ("READ(6)", 0x08, Six),
            ("READ(10)", 0x28, Ten),
            ("READ(12)", 0xa8, Twelve),
            ("READ(16)", 0x88, Sixteen),
        ];
        if self.rng.once_in(100) {
            return self.empty(&reads[1..]);
        }
        let (name, cdb) = self.width(&reads, span, FUA | DPO);
        // Now and then the buffer is longer.
        let more = if self.rng.once_in(16) { 1 + self.rng.index(3 * self.block) } else { 0 };
        Command { name, cdb, direction: Direction::In(self.len(span.blocks) + more), kind: Kind::Read(span) }
    }

    fn write(&mut self, area: Span) -> Command {
        let writes = [
            ("WRITE(6)", 0x0a, Six),
            ("WRITE(10)", 0x2a, Ten),
            ("WRITE(12)", 0xaa, Twelve),
            ("WRITE(16)", 0x8a, Sixteen),
        ];
        if self.rng.once_in(100) {
            return self.empty(&writes[1..]);
        }
        let span = self.span(area, self.said.transfer);
        let (name, cdb) = self.width(&writes, span, FUA | DPO);
        let fill = if self.rng.once_in(20) { Fill::Same(0) } else { Fill::Run(self.stamps(span.blocks)) };
        self.out(name, cdb, span, fill, false)
    }

    /// A write of this fill, with all its bytes.
    fn out(&self, name: &'static str, cdb: Vec<u8>, span: Span, fill: Fill, verify: bool) -> Command {
        let direction = Direction::Out(fill.bytes(span.blocks, self.block));
        Command { name, cdb, direction, kind: Kind::Write { span, fill, atomic: false, verify } }
    }

    /// No blocks at all.
    fn empty(&mut self, from: &[Named]) -> Command {
        let &(name, opcode, width) = self.rng.pick(from);
        let span = Span::new(self.rng.below(self.disk), 0);
        let cdb = cdb::extent(opcode, width, 0, span);
        Command { name, cdb, direction: Direction::None, kind: Kind::Nothing(span) }
    }

    fn write_and_verify(&mut self, area: Span) -> Command {
        let span = self.span(area, self.said.transfer);
        let check = self.rng.once_in(2);
        let all = if check {
            [
                ("WRITE AND VERIFY(10)/BYTCHK", 0x2e, Ten),
                ("WRITE AND VERIFY(12)/BYTCHK", 0xae, Twelve),
                ("WRITE AND VERIFY(16)/BYTCHK", 0x8e, Sixteen),
            ]
        } else {
            [
                ("WRITE AND VERIFY(10)", 0x2e, Ten),
                ("WRITE AND VERIFY(12)", 0xae, Twelve),
                ("WRITE AND VERIFY(16)", 0x8e, Sixteen),
            ]
        };
        let (name, mut cdb) = self.width(&all, span, DPO);
        cdb[1] |= u8::from(check) << 1;
        let fill = Fill::Run(self.stamps(span.blocks));
        self.out(name, cdb, span, fill, check)
    }

    fn verify(&mut self, oracle: &dyn Oracle) -> Command {
        let span = self.span(self.areas.general, self.said.transfer);
        let (all, check) = match self.rng.below(3) {
            0 => {
                ([("VERIFY(10)", 0x2f, Ten), ("VERIFY(12)", 0xaf, Twelve), ("VERIFY(16)", 0x8f, Sixteen)], 0)
            }
            1 => (
                [
                    ("VERIFY(10)/BYTCHK 1", 0x2f, Ten),
                    ("VERIFY(12)/BYTCHK 1", 0xaf, Twelve),
                    ("VERIFY(16)/BYTCHK 1", 0x8f, Sixteen),
                ],
                1,
            ),
            _ => (
                [
                    ("VERIFY(10)/BYTCHK 3", 0x2f, Ten),
                    ("VERIFY(12)/BYTCHK 3", 0xaf, Twelve),
                    ("VERIFY(16)/BYTCHK 3", 0x8f, Sixteen),
                ],
                3,
            ),
        };
        let (name, mut cdb) = self.width(&all, span, DPO);
        cdb[1] |= check << 1;
        let (out, kind) = match check {
            0 => (None, Kind::Nothing(span)),
            1 => {
                let bytes = self.likely(span, oracle);
                (Some(bytes.clone()), Kind::Compare { span, bytes })
            }
            _ => {
                // One block is compared with each.
                let one = self.likely(Span::new(span.lba, 1), oracle);
                (
                    Some(one.clone()),
                    Kind::Compare { span, bytes: one.repeat(usize::try_from(span.blocks).unwrap()) },
                )
            }
        };
        Command { name, cdb, direction: out.map_or(Direction::None, Direction::Out), kind }
    }

    /// What the range most likely holds, now and then changed a little.
    fn likely(&mut self, span: Span, oracle: &dyn Oracle) -> Vec<u8> {
        let mut bytes = vec![0; self.len(span.blocks)];
        span.lbas()
            .zip(bytes.chunks_exact_mut(self.block))
            .for_each(|(lba, block)| oracle.likely(lba, block));
        if self.rng.once_in(6) {
            let at = self.rng.index(bytes.len());
            bytes[at] ^= 1 << self.rng.below(8);
        }
        bytes
    }

    fn compare_and_write(&mut self, span: Span, oracle: &dyn Oracle) -> Command {
        let cdb = cdb::compare_and_write(self.flags(FUA | DPO), span);
        let compare = self.likely(span, oracle);
        let fill = Fill::Run(self.stamps(span.blocks));
        let mut out = compare.clone();
        out.extend(fill.bytes(span.blocks, self.block));
        // Storage compares and writes between two multiples of its longest; the device refuses what crosses one,
        // which SBC has no word for.
        let unit = self.said.compare;
        let kind = if span.lba / unit == (span.end() - 1) / unit {
            Kind::CompareAndWrite { span, compare, fill }
        } else {
            Kind::Illegal(vec![INVALID_FIELD_IN_CDB])
        };
        Command { name: "COMPARE AND WRITE", cdb, direction: Direction::Out(out), kind }
    }

    fn counter(&mut self, oracle: &dyn Oracle) -> Command {
        let area = self.areas.counters;
        if self.rng.once_in(4) {
            let span = self.span(area, area.blocks);
            return self.read(span);
        }
        let span = self.span(area, self.said.compare.min(2));
        self.compare_and_write(span, oracle)
    }

    fn word(&mut self) -> Command {
        let area = self.areas.words;
        let span = self.span(area, area.blocks);
        match self.rng.below(4) {
            0 | 1 => self.or(),
            2 => self.read(span),
            _ => {
                let word = if self.rng.once_in(2) { 0 } else { self.rng.next() };
                let cdb = cdb::extent(0x8a, Sixteen, 0, span);
                self.out("WRITE(16)", cdb, span, Fill::Word(word), false)
            }
        }
    }

    fn or(&mut self) -> Command {
        let span = self.span(self.areas.words, self.said.transfer);
        let word = self.rng.next() & self.rng.next() & self.rng.next();
        let cdb = cdb::extent(0x8b, Sixteen, self.flags(FUA | DPO), span);
        let direction = Direction::Out(Fill::Word(word).bytes(span.blocks, self.block));
        Command { name: "ORWRITE(16)", cdb, direction, kind: Kind::Or { span, word } }
    }

    fn write_same(&mut self) -> Command {
        let most = if self.said.write_same == 0 { self.disk } else { self.said.write_same };
        let mut span = self.span(self.areas.general, most);
        let unmap = if self.rng.once_in(2) { 0x08 } else { 0 };
        let mut fill = if self.rng.once_in(2) { Fill::Same(0) } else { Fill::Same(self.stamps(1)) };
        let (name, cdb, out) = match self.rng.below(30) {
            0 if !self.said.nonzero && self.disk - span.lba <= most => {
                let rest = self.disk - span.lba;
                let cdb = cdb::extent(0x93, Sixteen, unmap, Span::new(span.lba, 0));
                span.blocks = rest;
                ("WRITE SAME(16)/to the end", cdb, true)
            }
            1..10 => ("WRITE SAME(10)", cdb::extent(0x41, Ten, unmap, span), true),
            10..20 => ("WRITE SAME(16)", cdb::extent(0x93, Sixteen, unmap, span), true),
            _ => {
                // NDOB: zeros, and no data.
                fill = Fill::Same(0);
                ("WRITE SAME(16)/NDOB", cdb::extent(0x93, Sixteen, unmap | 0x01, span), false)
            }
        };
        let direction = if out { Direction::Out(fill.bytes(1, self.block)) } else { Direction::None };
        Command { name, cdb, direction, kind: Kind::Write { span, fill, atomic: false, verify: false } }
    }

    fn unmap(&mut self) -> Command {
        let count = self.rng.below(self.said.descriptors.min(6) + 1);
        let most = (self.said.unmap / count.max(1)).max(1);
        let spans: Vec<_> = (0..count).map(|_| self.span(self.areas.general, most)).collect();
        let (cdb, list) = cdb::unmap(&spans);
        Command { name: "UNMAP", cdb, direction: Direction::Out(list), kind: Kind::Unmap(spans) }
    }

    fn nothing(&mut self) -> Command {
        let span = self.span(self.areas.general, self.disk);
        let all = [
            ("SYNCHRONIZE CACHE(10)", 0x35, Ten),
            ("SYNCHRONIZE CACHE(16)", 0x91, Sixteen),
            ("PRE-FETCH(10)", 0x34, Ten),
            ("PRE-FETCH(16)", 0x90, Sixteen),
        ];
        let (name, cdb) = self.width(&all, span, 0x02); // IMMED
        Command { name, cdb, direction: Direction::None, kind: Kind::Nothing(span) }
    }

    fn status(&mut self) -> Command {
        let lba = self.areas.general.lba + self.rng.below(self.areas.general.blocks);
        let allocation = *self.rng.pick(&[8, 24, 40, 256, 1024]);
        let cdb = cdb::get_lba_status(lba, allocation);
        let allocation = usize::try_from(allocation).unwrap();
        let direction = Direction::In(allocation);
        Command { name: "GET LBA STATUS(16)", cdb, direction, kind: Kind::Status { lba, allocation } }
    }

    fn write_atomic(&mut self) -> Command {
        let said = &self.said;
        let (unit, alignment) = (said.atomic_granularity, said.atomic_alignment);
        let most = if said.atomic == 0 { 8 } else { said.atomic };
        let mut span = self.span(self.areas.general, most);
        span.blocks = span.blocks.next_multiple_of(unit).min(most / unit * unit);
        span.lba = span.lba.next_multiple_of(alignment);
        if span.end() > self.areas.general.end() {
            span.lba -= (span.end() - self.areas.general.end()).next_multiple_of(alignment);
        }
        let fill = Fill::Run(self.stamps(span.blocks));
        let direction = Direction::Out(fill.bytes(span.blocks, self.block));
        let cdb = cdb::write_atomic(self.flags(FUA | DPO), span);
        let kind = Kind::Write { span, fill, atomic: true, verify: false };
        Command { name: "WRITE ATOMIC(16)", cdb, direction, kind }
    }

    fn copy(&mut self) -> Command {
        let area = self.areas.general;
        let count = 1 + self.rng.below(3);
        let mut segments: Vec<Segment> = vec![];
        for _ in 0..count {
            let (from, to) = (self.span(area, 32), self.span(area, 32));
            let blocks = from.blocks.min(to.blocks);
            segments.push(Segment { from: from.lba, to: to.lba, blocks });
        }
        // A segment that runs into itself comes alone, so that what it leaves stays easy to say.
        let own = |s: &Segment| Span::new(s.from, s.blocks).meets(Span::new(s.to, s.blocks));
        if let Some(overlap) = segments.iter().copied().find(own) {
            segments = vec![overlap];
        }
        let block = u32::try_from(self.block).unwrap();
        let (cdb, list) = cdb::extended_copy(&self.said.naa, block, &segments);
        Command {
            name: "EXTENDED COPY(LID1)",
            cdb,
            direction: Direction::Out(list),
            kind: Kind::Copy(segments),
        }
    }
}
