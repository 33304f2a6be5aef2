//! READ DEFECT DATA (SBC-3, "READ DEFECT DATA (10) command"): there are no defects.

/// PLISTV, GLISTV and DEFECT LIST FORMAT stand where REQ_PLIST, REQ_GLIST and the format asked for stood: both
/// lists are empty and valid, in any format.
pub fn none(long: bool, lists_and_format: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, lists_and_format, 0, 0]);
    if long {
        // Behind GENERATION CODE, DEFECT LIST LENGTH in four bytes.
        out.extend_from_slice(&[0; 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lists() {
        let mut out = Vec::new();
        none(false, 0x18, &mut out); // both lists, short block format
        assert_eq!(out, [0, 0x18, 0, 0]);
        out.clear();
        none(true, 0x0b, &mut out); // GLIST, long block format
        assert_eq!(out, [0, 0x0b, 0, 0, 0, 0, 0, 0]);
    }
}
