//! The disk as an array of bytes: what reads must return. A block that was unmapped may keep its data or read as zeros
//! (SBC-3 4.7.3.5 with LBPRZ=1; a target may ignore part of an UNMAP), but once read it must stay what it was.

/// A window of a disk, from block `base` on.
#[derive(Clone, Debug)]
pub struct Disk {
    base: u64,
    block: usize,
    bytes: Vec<u8>,
    maybe_zero: Vec<bool>,
}

impl Disk {
    /// A window whose content is known.
    #[must_use]
    pub fn new(base: u64, block: usize, bytes: Vec<u8>) -> Self {
        let maybe_zero = vec![false; bytes.len() / block];
        Self { base, block, bytes, maybe_zero }
    }

    /// First block of the window.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Blocks in the window.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.maybe_zero.len() as u64
    }

    fn index(&self, lba: u64) -> usize {
        usize::try_from(lba - self.base).expect("inside the window")
    }

    /// WRITE.
    pub fn write(&mut self, lba: u64, data: &[u8]) {
        let first = self.index(lba);
        self.bytes[first * self.block..][..data.len()].copy_from_slice(data);
        self.maybe_zero[first..][..data.len() / self.block].fill(false);
    }

    /// WRITE SAME: `data` is one block.
    pub fn write_same(&mut self, lba: u64, blocks: u64, data: &[u8]) {
        for lba in lba..lba + blocks {
            self.write(lba, data);
        }
    }

    /// UNMAP.
    pub fn unmap(&mut self, lba: u64, blocks: u64) {
        let range = self.index(lba)..self.index(lba + blocks);
        self.maybe_zero[range].fill(true);
    }

    /// The content at `lba`, if it is certain.
    #[must_use]
    pub fn content(&self, lba: u64) -> Option<&[u8]> {
        let n = self.index(lba);
        (!self.maybe_zero[n]).then(|| &self.bytes[n * self.block..][..self.block])
    }

    /// Compares what a READ at `lba` returned; undecided blocks are decided by it.
    pub fn check(&mut self, lba: u64, found: &[u8]) -> Result<(), String> {
        for (n, found) in (self.index(lba)..).zip(found.chunks(self.block)) {
            let wanted = &mut self.bytes[n * self.block..][..self.block];
            if self.maybe_zero[n] && found.iter().all(|byte| *byte == 0) {
                wanted.fill(0);
            }
            self.maybe_zero[n] = false;
            if let Some(at) = (0..self.block).find(|at| wanted[*at] != found[*at]) {
                return Err(format!(
                    "block {} differs from byte {at} on: expected {:02X?}, found {:02X?}",
                    self.base + n as u64,
                    &wanted[at..self.block.min(at + 8)],
                    &found[at..self.block.min(at + 8)]
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmapped_blocks_are_old_or_zero_and_then_stay() {
        let mut disk = Disk::new(10, 4, vec![1; 16]);
        disk.unmap(11, 2);
        assert_eq!(disk.check(10, &[1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]), Ok(()));
        assert!(disk.check(11, &[1, 1, 1, 1]).is_err(), "zeros were seen: no way back");
        assert!(disk.check(12, &[0, 0, 0, 0]).is_err(), "data was seen: no late discard");
        disk.unmap(13, 1);
        assert!(disk.check(13, &[1, 0, 0, 0]).is_err(), "neither old nor zero");
    }

    #[test]
    fn writes_are_certain() {
        let mut disk = Disk::new(0, 2, vec![0; 8]);
        disk.unmap(0, 4);
        disk.write_same(1, 2, &[7, 8]);
        assert_eq!(disk.content(0), None);
        assert_eq!(disk.content(2), Some(&[7, 8][..]));
        assert!(disk.check(1, &[7, 8, 0, 0]).is_err());
    }
}
