//! What can be asked of an image.

/// Bytes `[offset, offset + len)` of an image. The device has checked it against the image's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ByteRange {
    /// Whether the two have a byte in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.offset.saturating_add(other.len)
            && other.offset < self.offset.saturating_add(self.len)
    }
}

/// One operation. Writes are durable when they complete: no backend here has a volatile cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the first `len` bytes of the buffer.
    Read(ByteRange),
    /// Write the first `len` bytes of the buffer.
    Write(ByteRange),
    /// Make everything completed before durable.
    Flush,
    /// Give the range's space back; it reads as zeros where the granularity allows, else unchanged.
    Discard(ByteRange),
    /// Make the range read as zeros, and give back what space of it can be.
    WriteZeroes(ByteRange),
    /// Fill the range with copies of the buffer's first `pattern` bytes; `pattern` divides its length.
    WriteSame {
        /// Where.
        range: ByteRange,
        /// Length of the pattern in bytes.
        pattern: u32,
    },
    /// Atomically: if the range equals the buffer's first `len` bytes, write the next `len` bytes to it.
    /// Otherwise fail with [`ErrorKind::Miscompare`](super::ErrorKind::Miscompare). Within one object.
    CompareAndWrite(ByteRange),
    /// Find out which parts of the range storage has data for; all else reads as zeros. The answer is in
    /// [`Request::extents`](super::Request::extents).
    Extents(ByteRange),
    /// Keep the bytes of the buffer with the image, for whoever opens it next; none: keep nothing.
    SetNote,
}

impl Op {
    /// The bytes of the image that it is about.
    pub const fn range(&self) -> Option<ByteRange> {
        match *self {
            Self::Read(range)
            | Self::Write(range)
            | Self::Discard(range)
            | Self::WriteZeroes(range)
            | Self::WriteSame { range, .. }
            | Self::CompareAndWrite(range)
            | Self::Extents(range) => Some(range),
            Self::Flush | Self::SetNote => None,
        }
    }

    /// Whether it may change the image.
    pub const fn changes(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Flush | Self::Extents(_))
    }
}
