//! Standard INQUIRY data (SPC-4, "Standard INQUIRY data").

/// T10 VENDOR IDENTIFICATION. Initiators' multipath rules match vendor, product and revision, so these are
/// tcmu-runner's for ever.
pub(super) const VENDOR: &[u8; 8] = b"LIO-ORG ";

/// PRODUCT IDENTIFICATION.
const PRODUCT: &[u8; 16] = b"TCMU device     ";

/// PRODUCT REVISION LEVEL.
const REVISION: &[u8; 4] = b"0002";

/// Appends the standard data. With `alua`, the unit says that it has implicit asymmetric access.
pub fn standard(alua: bool, out: &mut Vec<u8>) {
    // TPGS. tcmu-runner sets 3PC (08h) beside it because it has EXTENDED COPY; here it stays 0 until that
    // command exists, or initiators would try third-party copies.
    let byte_5 = if alua { 0x10 } else { 0x00 };
    out.extend_from_slice(&[
        0x00, // connected; a direct access block device
        0x00, // not removable
        0x05, // SPC-3
        0x02, // response data format; no HISUP, no NormACA
        0x1f, // 31 more bytes
        byte_5, 0x00, 0x02, // CMDQUE
    ]);
    out.extend_from_slice(VENDOR);
    out.extend_from_slice(PRODUCT);
    out.extend_from_slice(REVISION);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_data_names_the_device_as_tcmu_runner_did() {
        let mut out = Vec::new();
        standard(true, &mut out);
        assert_eq!(out[..8], [0, 0, 5, 2, 0x1f, 0x10, 0, 2]);
        assert_eq!(&out[8..], b"LIO-ORG TCMU device     0002");
        assert_eq!(out.len(), 36);
        out.clear();
        standard(false, &mut out);
        assert_eq!(out[5], 0);
    }
}
