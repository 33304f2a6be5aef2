//! Who the LUN says it is, byte by byte, as tcmu-runner 1.5.4 answered: initiators find their disk
//! by these. For a LUN in the default port group only (no port designators, TPGS 0).

use sgtest::initiator::{Data, Lun, Transport, inquiry};
use sgtest::report::{Report, Verdict};

fn designator(header: [u8; 3], body: &[u8]) -> Vec<u8> {
    let mut out = header.to_vec();
    out.push(u8::try_from(body.len()).expect("short"));
    out.extend(body);
    out
}

fn page(code: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x00, code];
    out.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    out.extend(body);
    out
}

fn with_nul(text: &str) -> Vec<u8> {
    let mut out = text.as_bytes().to_vec();
    out.push(0);
    out
}

/// NAA 6, IEEE company 001405h, then the serial's hexadecimal digits.
fn naa(serial: &str) -> Vec<u8> {
    let digits = serial.chars().filter_map(|c| c.to_digit(16));
    let nibbles: Vec<u32> = [6, 0, 0, 1, 4, 0, 5].into_iter().chain(digits).take(32).collect();
    nibbles.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("two nibbles")).collect()
}

fn block_limits(max_sectors: u64) -> Vec<u8> {
    let sectors = u32::try_from(max_sectors).expect("fits").to_be_bytes();
    let mut page = vec![
        0x00, 0xB0, 0x00, 0x3C, // page length 60
        0x01, 0x01, // WSNZ; at most one block in COMPARE AND WRITE
        0x00, 0x00, // no transfer granularity
    ];
    page.extend(sectors); // maximum transfer length
    page.extend(sectors); // optimal transfer length
    page.extend([
        0x00, 0x00, 0x00, 0x00, // prefetch
        0x00, 0x00, 0x80, 0x00, // at most 32768 blocks per UNMAP
        0x00, 0x00, 0x00, 0x04, // at most 4 descriptors
        0x00, 0x00, 0x00, 0x80, // granularity of 128 blocks
        0x80, 0x00, 0x00, 0x80, // alignment valid: 128
        0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, // WRITE SAME length
    ]);
    // Atomic writes of 16 KiB, no longer than any transfer, and of no other length.
    let atomic: u32 = if max_sectors >= 32 { 32 } else { 1 };
    for _ in 0..3 {
        page.extend(atomic.to_be_bytes());
    }
    page.resize(64, 0);
    page
}

fn differ(found: &[u8], wanted: &[u8]) -> Verdict {
    if found == wanted {
        return Ok(());
    }
    let at = (0..wanted.len()).find(|n| found.get(*n) != wanted.get(*n)).unwrap_or(wanted.len());
    Err(format!("differs from byte {at} on:\n      expected {wanted:02X?}\n      found    {found:02X?}"))
}

pub(crate) fn run(report: &Report, sg: &dyn Transport, serial: &str, config: &str, max_sectors: u64) {
    let lun = match Lun::attach(sg) {
        Ok(lun) => lun,
        Err(why) => return report.record("attach", &Err(why)),
    };
    let ask = |page: Option<u8>, len: usize| -> Result<Vec<u8>, String> {
        let mut data = vec![0xAB; 512];
        let reply = lun.good(&inquiry(page, 512), Data::In(&mut data))?;
        // The incumbent never reports a residual: the reply's own length counts.
        let used = data.len() - reply.resid;
        if used < len {
            return Err(format!("only {used} bytes of {len} arrived"));
        }
        let stated = if page.is_some() {
            4 + usize::from(data[2]) * 256 + usize::from(data[3])
        } else {
            5 + usize::from(data[4])
        };
        data.truncate(stated.min(used));
        Ok(data)
    };
    report.check("standard INQUIRY data", || {
        let mut wanted = vec![
            0x00, // a disk, connected
            0x00, // not removable
            0x05, // SPC-3
            0x02, // response data format
            0x45, // 69 more bytes: there are version descriptors
            0x08, // 3PC
            0x00, // single port
            0x02, // CMDQUE
        ];
        wanted.extend(b"LIO-ORG TCMU device     0002");
        wanted.resize(58, 0);
        wanted.extend([0x00, 0x80, 0x03, 0x00, 0x04, 0xC0]); // SAM-4, SPC-3, SBC-3
        wanted.resize(74, 0);
        differ(&ask(None, 74)?, &wanted)
    });
    let mut vendor = b"LIO-ORG ".to_vec();
    vendor.extend(with_nul(serial));
    let devices = [
        designator([0x02, 0x01, 0x00], &vendor), // ASCII, T10 vendor identification
        designator([0x01, 0x03, 0x00], &naa(serial)), // binary, NAA
        designator([0x02, 0x00, 0x00], &with_nul(config)), // ASCII, vendor specific
    ];
    let mut characteristics = [0; 60];
    characteristics[3] = 0x40; // WABEREQ 01b: what was block erased reads without an error
    let pages = [
        ("supported pages", page(0x00, &[0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2])),
        ("unit serial number", page(0x80, &with_nul(serial))),
        ("device identification", page(0x83, &devices.concat())),
        ("block limits", block_limits(max_sectors)),
        ("block device characteristics", page(0xB1, &characteristics)),
        ("logical block provisioning", page(0xB2, &[0x00, 0xE4, 0x00, 0x00])),
    ];
    for (name, wanted) in pages {
        report.check(&format!("VPD page {:02X}h, {name}", wanted[1]), || {
            differ(&ask(Some(wanted[1]), wanted.len())?, &wanted)
        });
    }
    report.check("EVPD 0 with a page code is refused", || {
        let mut cdb = inquiry(None, 255);
        cdb[2] = 0x80;
        lun.send(&cdb, Data::In(&mut [0; 255]))?.refused_with(&[sgtest::initiator::INVALID_CDB])
    });
    report.check("an unknown page is refused", || {
        lun.send(&inquiry(Some(0xC7), 255), Data::In(&mut [0; 255]))?
            .refused_with(&[sgtest::initiator::INVALID_CDB])
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn naa_is_that_of_tcmu_runner() {
        let wanted =
            [0x60, 0x01, 0x40, 0x5f, 0x8c, 0xc0, 0xe0, 0x2e, 0x1d, 0x04, 0x03, 0xa9, 0x07, 0xb2, 0xf3, 0xe4];
        assert_eq!(super::naa("f8cc0e02-e1d0-403a-907b-2f3e44e14bd0"), wanted);
    }
}
