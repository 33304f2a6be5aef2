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
    // 3PC, and TPGS.
    let byte_5 = if alua { 0x18 } else { 0x08 };
    out.extend_from_slice(&[
        0x00, // connected; a direct access block device
        0x00, // not removable
        0x05, // SPC-3
        0x02, // response data format; no HISUP, no NormACA
        0x45, // 69 more bytes
        byte_5, 0x00, 0x02, // CMDQUE
    ]);
    out.extend_from_slice(VENDOR);
    out.extend_from_slice(PRODUCT);
    out.extend_from_slice(REVISION);
    out.extend_from_slice(&[0; 22]);
    for version in VERSIONS {
        out.extend_from_slice(&version.to_be_bytes());
    }
    out.extend_from_slice(&[0; 16 - 2 * VERSIONS.len()]);
}

/// VERSION DESCRIPTORs: SAM-4, SPC-3 and SBC-3, no version claimed. tcmu-runner had none, but its Block Limits page,
/// like this one, is as long as SBC-3 makes it.
const VERSIONS: [u16; 3] = [0x0080, 0x0300, 0x04c0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_data_names_the_device_as_tcmu_runner_did() {
        let mut out = Vec::new();
        standard(true, &mut out);
        assert_eq!(out[..8], [0, 0, 5, 2, 0x45, 0x18, 0, 2]);
        assert_eq!(&out[8..36], b"LIO-ORG TCMU device     0002");
        assert_eq!(out[36..58], [0; 22]);
        assert_eq!(out[58..], [0x00, 0x80, 0x03, 0x00, 0x04, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.clear();
        standard(false, &mut out);
        assert_eq!(out[5], 0x08);
    }
}
