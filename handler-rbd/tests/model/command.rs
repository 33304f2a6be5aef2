//! A command as the model understands it: bytes for the ring beside what they mean.

use crate::content::{Value, repeat, stamp};
use uio_ring::mock::Direction;

/// Logical blocks `[lba, lba + blocks)`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
}

impl Span {
    pub(crate) const fn new(lba: u64, blocks: u64) -> Self {
        Self { lba, blocks }
    }

    pub(crate) const fn end(self) -> u64 {
        self.lba + self.blocks
    }

    pub(crate) fn lbas(self) -> std::ops::Range<u64> {
        self.lba..self.end()
    }

    pub(crate) fn contains(self, lba: u64) -> bool {
        self.lbas().contains(&lba)
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.lba < other.end() && other.lba < self.end()
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.lba, self.blocks)
    }
}

/// What the blocks of a range are to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fill {
    /// Stamps counting up from this one.
    Run(Value),
    /// The same stamp in each.
    Same(Value),
    /// The same word all over.
    Word(u64),
}

impl Fill {
    /// The stamp of the range's block at `index`; none for words.
    pub(crate) fn value(self, index: u64) -> Option<Value> {
        match self {
            Self::Run(base) => Some(base + index),
            Self::Same(value) => Some(value),
            Self::Word(_) => None,
        }
    }

    pub(crate) fn put(self, index: u64, block: &mut [u8]) {
        match self {
            Self::Run(base) => stamp(base + index, block),
            Self::Same(value) => stamp(value, block),
            Self::Word(word) => repeat(word, block),
        }
    }

    /// The range's block at `index`.
    pub(crate) fn bytes_of(self, index: u64, block: usize) -> Vec<u8> {
        let mut bytes = vec![0; block];
        self.put(index, &mut bytes);
        bytes
    }

    pub(crate) fn bytes(self, blocks: u64, block: usize) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(blocks).unwrap() * block];
        (0..).zip(bytes.chunks_exact_mut(block)).for_each(|(index, part)| self.put(index, part));
        bytes
    }
}

/// One segment of an EXTENDED COPY.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) blocks: u64,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}->{}", self.from, self.blocks, self.to)
    }
}

/// SENSE KEY, ADDITIONAL SENSE CODE and its qualifier.
pub(crate) type Sense = (u8, u8, u8);

/// What a command does to the disk.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Read(Span),
    Write {
        span: Span,
        fill: Fill,
        /// All or nothing, for whoever reads at the same time too.
        atomic: bool,
        /// Read back and compared.
        verify: bool,
    },
    /// Zeros in all of these.
    Unmap(Vec<Span>),
    /// VERIFY with these bytes.
    Compare {
        span: Span,
        bytes: Vec<u8>,
    },
    CompareAndWrite {
        span: Span,
        compare: Vec<u8>,
        fill: Fill,
    },
    Or {
        span: Span,
        word: u64,
    },
    Copy(Vec<Segment>),
    /// GET LBA STATUS from here on, with this allocation length.
    Status {
        lba: u64,
        allocation: usize,
    },
    /// Touches no data: VERIFY without bytes, PRE-FETCH, SYNCHRONIZE CACHE.
    Nothing(Span),
    /// FORMAT UNIT, SANITIZE: the whole disk.
    Whole(Fill),
    /// To be refused with one of these.
    Illegal(Vec<Sense>),
}

/// A command and its meaning.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// As SBC calls it; with more behind a slash where one operation code does several things.
    pub(crate) name: &'static str,
    pub(crate) cdb: Vec<u8>,
    pub(crate) direction: Direction,
    pub(crate) kind: Kind,
}

impl Command {
    /// The ranges that storage may be asked about for it.
    pub(crate) fn spans(&self, disk: u64) -> Vec<Span> {
        match &self.kind {
            Kind::Read(span)
            | Kind::Nothing(span)
            | Kind::Write { span, .. }
            | Kind::Compare { span, .. }
            | Kind::CompareAndWrite { span, .. }
            | Kind::Or { span, .. } => vec![*span],
            Kind::Unmap(spans) => spans.clone(),
            Kind::Copy(segments) => {
                let both = |s: &Segment| [Span::new(s.from, s.blocks), Span::new(s.to, s.blocks)];
                segments.iter().flat_map(both).collect()
            }
            Kind::Status { .. } | Kind::Whole(_) => vec![Span::new(0, disk)],
            Kind::Illegal(_) => vec![],
        }
    }

    /// How much Data-In the answer may carry, and must not exceed.
    pub(crate) fn data_in(&self, block: usize) -> usize {
        match &self.kind {
            Kind::Read(span) => usize::try_from(span.blocks).unwrap() * block,
            Kind::Status { allocation, .. } => *allocation,
            _ => 0,
        }
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex: Vec<_> = self.cdb.iter().map(|byte| format!("{byte:02x}")).collect();
        let way = match &self.direction {
            Direction::None => "",
            Direction::Out(_) => "out ",
            Direction::In(_) => "in ",
            Direction::Bidi { .. } => "both ",
        };
        write!(f, "{} [{}] {way}", self.name, hex.join(" "))?;
        match &self.kind {
            Kind::Compare { span, .. } => write!(f, "Compare {span:?}"),
            Kind::CompareAndWrite { span, fill, .. } => write!(f, "CompareAndWrite {span:?} {fill:x?}"),
            kind => write!(f, "{kind:x?}"),
        }
    }
}
