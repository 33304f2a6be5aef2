//! No reply carries a byte of another command's data. The kernel hands data pages on without clearing them (tcmu: "pages
//! are recycled"), so before every command the low pages of the data area are filled with [`MARK`] by writes, and the
//! reply's buffer with [`FILL`]; each command has a descriptor of its own, whose driver buffer starts as zeros.

use std::path::Path;

use sgtest::initiator::{
    Data, Lun, Reply, be, inquiry, mode_sense6, mode_sense10, op, read_capacity10, read_capacity16,
    report_opcodes, request_sense, rw6, rw10, rw12, rw16, status,
};
use sgtest::report::{Report, Verdict};
use sgtest::sg::Sg;

/// What the writes contain: a byte that no reply of a disk has three times in a row.
const MARK: u8 = 0xE7;
/// What the buffer of a reply holds before.
const FILL: u8 = 0x5A;
/// Blocks that hold MARK.
const MARKED: u64 = 4096;
/// Blocks that hold zeros.
const CLEAN: u64 = 16384;

/// Bytes that the reply itself says it has.
type Stated = fn(&[u8]) -> usize;

fn small(n: u64) -> usize {
    usize::try_from(n).expect("fits")
}

fn dirty(lun: &Lun<'_>) -> Verdict {
    for (n, blocks) in [256_u64, 8, 1, 64].into_iter().enumerate() {
        lun.write(MARKED + n as u64 * 256, &vec![MARK; small(blocks) * lun.block])?;
    }
    Ok(())
}

fn judge(data: &[u8], reply: &Reply, stated: usize) -> Verdict {
    let arrived = data.len() - reply.resid;
    if reply.host_status != 0 || !matches!(reply.status, status::GOOD | status::CHECK_CONDITION) {
        return Err(format!("no answer of use: {reply}"));
    }
    let stated = if reply.status == status::GOOD { stated.min(data.len()) } else { 0 };
    if let Some(at) = data[stated..].iter().position(|byte| *byte == MARK) {
        let count = data[stated..].iter().filter(|byte| **byte == MARK).count();
        return Err(format!(
            "{count} bytes written by other commands, first at byte {} ({reply})",
            stated + at
        ));
    }
    if let Some(at) = data[..stated].windows(3).position(|w| w == [MARK; 3]) {
        return Err(format!("bytes written by other commands inside the reply, at byte {at}"));
    }
    // What arrives after the reply's own end must be zeros.
    if let Some(at) =
        data[stated..].iter().take(arrived.saturating_sub(stated)).position(|b| !matches!(*b, 0 | FILL))
    {
        return Err(format!("byte {} after the end of the reply is {:02X}h", stated + at, data[stated + at]));
    }
    Ok(())
}

pub(crate) fn run(report: &Report, device: &Path) {
    let commands: Vec<(String, Vec<u8>, usize, Stated)> = commands();
    let writer = match Sg::open(device) {
        Ok(sg) => sg,
        Err(error) => return report.record("open", &Err(error.to_string())),
    };
    let lun = match Lun::attach(&writer) {
        Ok(lun) => lun,
        Err(why) => return report.record("attach", &Err(why)),
    };
    report.check("zeros for the reads", || lun.write(CLEAN, &vec![0; 256 * lun.block]));
    let send = |cdb: &[u8], len: usize| -> Result<(Vec<u8>, Reply), String> {
        dirty(&lun)?;
        let mut data = vec![FILL; len];
        let reply = lun.send(cdb, Data::In(&mut data))?;
        Ok((data, reply))
    };
    for (name, cdb, len, stated) in &commands {
        report.check(&format!("{name}, buffer of {len}"), || {
            let (data, reply) = send(cdb, *len)?;
            let stated = stated(&data);
            judge(&data, &reply, stated)
        });
    }
    let last = lun.blocks;
    let reads = [
        ("READ(6) of one clean block", rw6(op::READ_6, u32::try_from(CLEAN).expect("fits"), 1), 512),
        ("READ(10) of one clean block", rw10(op::READ_10, 0, u32::try_from(CLEAN).expect("fits"), 1), 512),
        ("READ(16) of 64 clean blocks", rw16(op::READ_16, 0, CLEAN, 64), 64 * 512),
        (
            "READ(10) of one clean block, more room",
            rw10(op::READ_10, 0, u32::try_from(CLEAN).expect("fits"), 1),
            8192,
        ),
        (
            "READ(10) of eight clean blocks, less room",
            rw10(op::READ_10, 0, u32::try_from(CLEAN).expect("fits"), 8),
            512,
        ),
        ("READ(10) of no block, room for one", rw10(op::READ_10, 0, 0, 0), 512),
        ("READ(12) of no block, room for 16", rw12(op::READ_12, 0, 0, 0), 8192),
        ("READ(16) of no block, room for one", rw16(op::READ_16, 0, 0, 0), 512),
        ("READ(16) past the end", rw16(op::READ_16, 0, last, 1), 512),
        ("READ(16) over the end", rw16(op::READ_16, 0, last - 1, 8), 4096),
        ("READ(16) far past the end", rw16(op::READ_16, 0, u64::MAX, 8), 4096),
    ];
    for (name, cdb, len) in reads {
        report.check(name, || {
            let (data, reply) = send(&cdb, len)?;
            judge(&data, &reply, 0)
        });
    }
    report.check("the LUN is alive", || lun.is_alive());
}

fn commands() -> Vec<(String, Vec<u8>, usize, Stated)> {
    let mut list: Vec<(String, Vec<u8>, usize, Stated)> = Vec::new();
    for len in [96_u16, 255, 4096] {
        list.push((format!("INQUIRY, allocation {len}"), inquiry(None, len), usize::from(len), |d| {
            5 + usize::from(d[4])
        }));
        for page in [0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2] {
            list.push((
                format!("VPD page {page:02X}h, allocation {len}"),
                inquiry(Some(page), len),
                usize::from(len),
                |d| 4 + small(be(&d[2..4])),
            ));
        }
    }
    list.push(("INQUIRY, allocation 36, more room".into(), inquiry(None, 36), 4096, |_| 36));
    list.push(("INQUIRY, allocation 5".into(), inquiry(None, 5), 512, |_| 5));
    list.push(("VPD page without a meaning".into(), inquiry(Some(0xC7), 255), 255, |_| 0));
    for page in [0x3F, 0x08, 0x0A, 0x01] {
        list.push((format!("MODE SENSE(6) page {page:02X}h"), mode_sense6(page, 252), 252, |d| {
            1 + usize::from(d[0])
        }));
        list.push((format!("MODE SENSE(10) page {page:02X}h"), mode_sense10(page, 4096), 4096, |d| {
            2 + small(be(&d[0..2]))
        }));
    }
    list.push(("READ CAPACITY(10)".into(), read_capacity10(), 512, |_| 8));
    list.push(("READ CAPACITY(16), allocation 32, more room".into(), read_capacity16(32), 512, |_| 32));
    list.push(("READ CAPACITY(16), allocation 512".into(), read_capacity16(512), 512, |_| 32));
    list.push(("READ CAPACITY(16), allocation 12".into(), read_capacity16(12), 512, |_| 12));
    list.push(("REQUEST SENSE".into(), request_sense(252), 252, |d| 8 + usize::from(d[7])));
    list.push(("REQUEST SENSE, allocation 18, more room".into(), request_sense(18), 512, |_| 18));
    list.push(("REPORT SUPPORTED OPERATION CODES".into(), report_opcodes(8192), 8192, |d| {
        4 + small(be(&d[0..4]))
    }));
    list.push(("REPORT SUPPORTED OPERATION CODES, allocation 4".into(), report_opcodes(4), 512, |_| 4));
    list.push(("TEST UNIT READY with room for data".into(), vec![0; 6], 512, |_| 0));
    list
}
