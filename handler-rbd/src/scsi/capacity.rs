//! READ CAPACITY data (SBC-3, "READ CAPACITY (10) command", "READ CAPACITY (16) command").

/// Appends READ CAPACITY(10) data for a disk of `blocks` blocks.
pub fn capacity_10(blocks: u64, block_size: u32, out: &mut Vec<u8>) {
    // A last LBA that does not fit, or that is FFFFFFFFh itself, sends the initiator to READ CAPACITY(16).
    let last = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&block_size.to_be_bytes());
}

/// Appends READ CAPACITY(16) data for a disk of `blocks` blocks.
pub fn capacity_16(blocks: u64, block_size: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&blocks.saturating_sub(1).to_be_bytes());
    out.extend_from_slice(&block_size.to_be_bytes());
    out.extend_from_slice(&[0, 0]); // no protection; one logical block per physical block
    out.extend_from_slice(&[0xc0, 0]); // LBPME, LBPRZ: thin, and what is deallocated reads as zeros
    out.extend_from_slice(&[0; 16]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_bytes_saturate() {
        let table: [(u64, u32, [u8; 8]); 4] = [
            (131_072, 512, [0x00, 0x01, 0xff, 0xff, 0, 0, 2, 0]),
            (0xffff_ffff, 512, [0xff, 0xff, 0xff, 0xfe, 0, 0, 2, 0]),
            (0x1_0000_0000, 4096, [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]),
            (0x1_0000_0001, 4096, [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]),
        ];
        for (blocks, block_size, expected) in table {
            let mut out = Vec::new();
            capacity_10(blocks, block_size, &mut out);
            assert_eq!(out, expected, "{blocks}");
        }
    }

    #[test]
    fn sixteen_says_thin() {
        let mut out = Vec::new();
        capacity_16(0x1_0000_0001, 4096, &mut out);
        let mut expected = [0; 32];
        expected[3] = 0x01; // last LBA 1_0000_0000h
        expected[10] = 0x10; // 4096
        expected[14] = 0xc0; // LBPME, LBPRZ
        assert_eq!(out, expected);
    }
}
