//! GET LBA STATUS data (SBC-3, "GET LBA STATUS command").

use super::{Blocks, Lba};

/// Length of the header, and of a descriptor.
const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

/// PROVISIONING STATUS: mapped, or not known; deallocated.
const MAPPED: u8 = 0x0;
const DEALLOCATED: u8 = 0x1;

/// Consecutive blocks of one status. At most `u32::MAX` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub lba: Lba,
    /// How many.
    pub blocks: Blocks,
    /// Whether storage has something for them, or it is not known.
    pub mapped: bool,
}

/// How many descriptors a reply of this length has room for; one at least, cut off or not. Not one in part
/// behind whole ones: some initiators take the bytes that are not there for zeros.
pub fn room(allocation: u32) -> usize {
    let bytes = usize::try_from(allocation).unwrap_or(usize::MAX).saturating_sub(HEADER);
    (bytes / DESCRIPTOR).max(1)
}

/// Appends the reply. RTP and COMPLETION CONDITION, of SBC-4, stay 0: nothing said.
pub fn report(runs: &[Run], out: &mut Vec<u8>) {
    let len = (HEADER - 4).saturating_add(runs.len().saturating_mul(DESCRIPTOR));
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    for run in runs {
        out.extend_from_slice(&run.lba.0.to_be_bytes());
        out.extend_from_slice(&u32::try_from(run.blocks.0).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&[if run.mapped { MAPPED } else { DEALLOCATED }, 0, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors() {
        let mut out = Vec::new();
        report(
            &[
                Run { lba: Lba(0x0102_0304_0506_0708), blocks: Blocks(0xffff_ffff), mapped: true },
                Run { lba: Lba(0x0102_0305_0506_0707), blocks: Blocks(9), mapped: false },
            ],
            &mut out,
        );
        assert_eq!(out[..8], [0, 0, 0, 36, 0, 0, 0, 0]);
        assert_eq!(out[8..24], [1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(out[24..], [1, 2, 3, 5, 5, 6, 7, 7, 0, 0, 0, 9, 1, 0, 0, 0]);
    }

    #[test]
    fn room_is_for_one_at_least() {
        let rooms =
            [(0, 1), (4, 1), (8, 1), (23, 1), (24, 1), (39, 1), (40, 2), (256, 15), (u32::MAX, 268_435_455)];
        for (allocation, descriptors) in rooms {
            assert_eq!(room(allocation), descriptors, "{allocation}");
        }
    }
}
