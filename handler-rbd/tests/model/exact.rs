//! The oracle for one command at a time: an array of bytes.

use crate::command::{Command, Fill, Kind, Segment, Span};
use crate::oracle::{Checked, End, Flight, Oracle, Wrong};
use crate::status::not_mapped;
use crate::verdict::Verdict;
use std::collections::BTreeMap;

pub(crate) struct Exact {
    block: usize,
    bytes: Vec<u8>,
    /// What blocks may hold instead, after a failure or an overlapping copy, until they are read.
    doubts: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Exact {
    pub(crate) fn new(block: usize, blocks: u64) -> Self {
        let bytes = vec![0; usize::try_from(blocks).unwrap() * block];
        Self { block, bytes, doubts: BTreeMap::new() }
    }

    fn blocks(&self) -> u64 {
        (self.bytes.len() / self.block) as u64
    }

    fn range(&self, span: Span) -> std::ops::Range<usize> {
        let start = usize::try_from(span.lba).unwrap() * self.block;
        start..start + usize::try_from(span.blocks).unwrap() * self.block
    }

    fn at(&self, lba: u64) -> &[u8] {
        &self.bytes[self.range(Span::new(lba, 1))]
    }

    /// What the command writes, in its order.
    fn written(&self, command: &Command) -> Vec<(u64, Vec<u8>)> {
        let filled = |span: Span, fill: Fill| {
            let blocks = (0..span.blocks).map(|index| (span.lba + index, fill.bytes_of(index, self.block)));
            blocks.collect::<Vec<_>>()
        };
        match &command.kind {
            Kind::Write { span, fill, .. } | Kind::CompareAndWrite { span, fill, .. } => filled(*span, *fill),
            Kind::Whole(fill) => filled(Span::new(0, self.blocks()), *fill),
            Kind::Unmap(spans) => spans.iter().flat_map(|span| filled(*span, Fill::Same(0))).collect(),
            Kind::Or { span, word } => {
                let or = |lba: u64| {
                    let ored =
                        self.at(lba).iter().zip(word.to_le_bytes().into_iter().cycle()).map(|(a, b)| a | b);
                    (lba, ored.collect())
                };
                span.lbas().map(or).collect()
            }
            Kind::Copy(segments) => self.copied(segments),
            Kind::Read(_)
            | Kind::Compare { .. }
            | Kind::Status { .. }
            | Kind::Nothing(_)
            | Kind::Illegal(_) => {
                vec![]
            }
        }
    }

    /// Segments one after the other, each as if its source were read before its destination is written.
    fn copied(&self, segments: &[Segment]) -> Vec<(u64, Vec<u8>)> {
        let mut new = BTreeMap::new();
        let mut written = vec![];
        for s in segments {
            let read = |lba: u64| new.get(&lba).cloned().unwrap_or_else(|| self.at(lba).to_vec());
            let blocks: Vec<(u64, Vec<u8>)> = (0..s.blocks).map(|n| (s.to + n, read(s.from + n))).collect();
            new.extend(blocks.iter().cloned());
            written.extend(blocks);
        }
        written
    }

    /// What a copy may leave that runs into its own destination: how much is read before the first write is not
    /// said anywhere, so a block may be that many steps further on.
    fn overlapping(&self, segments: &[Segment]) -> Vec<(u64, Vec<Vec<u8>>)> {
        let mut doubts = vec![];
        for s in segments {
            let (source, target) = (Span::new(s.from, s.blocks), Span::new(s.to, s.blocks));
            for n in (0..s.blocks).filter(|_| s.from != s.to && source.meets(target)) {
                let mut from = s.from + n;
                let mut possible = vec![self.at(from).to_vec()];
                while target.contains(from) {
                    from = from - s.to + s.from;
                    possible.push(self.at(from).to_vec());
                }
                doubts.push((s.to + n, possible));
            }
        }
        doubts
    }

    /// Nothing is known of these but that they are old or one of the new ones.
    fn doubt(&mut self, written: Vec<(u64, Vec<u8>)>) {
        for (lba, bytes) in written {
            let old = self.at(lba).to_vec();
            self.doubts.entry(lba).or_insert_with(|| vec![old]).push(bytes);
        }
    }

    fn apply(&mut self, command: &Command) {
        let written = self.written(command);
        if let Kind::Copy(segments) = &command.kind
            && let doubts = self.overlapping(segments)
            && !doubts.is_empty()
        {
            // A segment that runs into itself, and whatever the others make of that.
            self.doubt(written);
            for (lba, possible) in doubts {
                self.doubts.entry(lba).or_default().extend(possible);
            }
            return;
        }
        for (lba, bytes) in written {
            let range = self.range(Span::new(lba, 1));
            self.bytes[range].copy_from_slice(&bytes);
        }
    }

    fn same(&self, span: Span, bytes: &[u8]) -> Checked {
        match self.difference(span, bytes) {
            None => Ok(()),
            Some(at) => {
                let lba = span.lba + (at / self.block) as u64;
                let want = &self.bytes[self.range(span)];
                let near = at..want.len().min(at + 16);
                let (have, want) = (&bytes[near.clone()], &want[near]);
                Err(Wrong::at(
                    lba,
                    format!("byte {}: {have:02x?}.. instead of {want:02x?}..", at % self.block),
                ))
            }
        }
    }

    fn difference(&self, span: Span, bytes: &[u8]) -> Option<usize> {
        self.bytes[self.range(span)].iter().zip(bytes).position(|(want, have)| want != have)
    }

    /// A block that was in doubt is what was read of it, if that is possible.
    fn resolve(&mut self, span: Span, data: &[u8]) -> Checked {
        for (lba, block) in span.lbas().zip(data.chunks_exact(self.block)) {
            if let Some(possible) = self.doubts.remove(&lba) {
                if !possible.iter().any(|bytes| bytes == block) {
                    return Err(Wrong::at(lba, format!("neither old nor new: {:02x?}..", &block[..16])));
                }
                let range = self.range(Span::new(lba, 1));
                self.bytes[range].copy_from_slice(block);
            }
        }
        Ok(())
    }

    fn status(&self, lba: u64, allocation: usize, data: &[u8]) -> Checked {
        for span in not_mapped(lba, allocation, self.blocks(), data)? {
            if let Some(lba) = span.lbas().find(|&lba| self.at(lba).iter().any(|&byte| byte != 0)) {
                return Err(Wrong::at(lba, "a difference from the zeros that it is said to hold"));
            }
        }
        Ok(())
    }

    /// MISCOMPARE must be so, and say where.
    fn differs(&self, span: Span, bytes: &[u8], said: Option<u32>, unit: usize) -> Checked {
        let Some(at) = self.difference(span, bytes) else {
            return Err(Wrong { span: Some(span), why: "a difference where there is none".into() });
        };
        let want = if unit == 1 { at as u64 } else { span.lba + (at / unit) as u64 };
        if said.map(u64::from) == Some(want) {
            return Ok(());
        }
        Err(Wrong {
            span: Some(span),
            why: format!("the difference is at {want:#x}, INFORMATION is {said:x?}"),
        })
    }
}

impl Oracle for Exact {
    fn sent(&mut self, _: &Flight) {}

    fn answered(
        &mut self,
        flight: &Flight,
        _: u64,
        _: u64,
        end: End,
        verdict: Verdict,
        data: &[u8],
    ) -> Checked {
        let command = &flight.command;
        match (end, &command.kind) {
            (End::Good, Kind::Read(span)) => {
                self.resolve(*span, data)?;
                self.same(*span, data)
            }
            (End::Good, Kind::Compare { span, bytes }) => self.same(*span, bytes),
            (End::Good, Kind::Status { lba, allocation }) => self.status(*lba, *allocation, data),
            (End::Good, Kind::CompareAndWrite { span, compare, .. }) => {
                self.same(*span, compare)?;
                self.apply(command);
                Ok(())
            }
            (End::Good, _) => {
                self.apply(command);
                Ok(())
            }
            (End::Miscompare, Kind::Compare { span, bytes }) => {
                self.differs(*span, bytes, verdict.information, self.block)
            }
            (End::Miscompare, Kind::CompareAndWrite { span, compare, .. }) => {
                self.differs(*span, compare, verdict.information, 1)
            }
            (End::Miscompare, _) => Err(Wrong::new("a difference from what was just written")),
            (End::Failed, kind) => {
                let written = self.written(command);
                let doubts =
                    if let Kind::Copy(segments) = kind { self.overlapping(segments) } else { vec![] };
                self.doubt(written);
                for (lba, possible) in doubts {
                    self.doubts.entry(lba).or_default().extend(possible);
                }
                Ok(())
            }
            (End::Refused, _) => Ok(()),
        }
    }

    fn likely(&self, lba: u64, block: &mut [u8]) {
        block.copy_from_slice(self.at(lba));
    }

    fn doubts(&mut self) -> Option<Span> {
        let (&first, _) = self.doubts.first_key_value()?;
        let mut blocks = 1;
        while self.doubts.contains_key(&(first + blocks)) {
            blocks += 1;
        }
        Some(Span::new(first, blocks))
    }
}
