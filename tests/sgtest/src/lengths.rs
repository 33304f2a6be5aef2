//! Lengths that disagree, lengths of zero, and addresses at and past every edge: the right answer, nothing beside the
//! named blocks changed, the LUN alive.

use sgtest::initiator::{
    Code, Data, FUA, INVALID_CDB, INVALID_PARAMETER, LENGTH_MISMATCH, Lun, NDOB, OUT_OF_RANGE,
    PARAMETER_LENGTH, Reply, Transport, compare_and_write, inquiry, mode_sense6, mode_sense10, op,
    read_capacity10, read_capacity16, report_opcodes, request_sense, rw6, rw10, rw12, rw16, unmap,
    unmap_list,
};
use sgtest::oracle::Disk;
use sgtest::random::Random;
use sgtest::report::{Report, Verdict};

/// The window under test: two 4 MiB objects meet in its middle.
const BASE: u64 = 8192 - 512;
const WINDOW: u32 = 1024;

/// What the buffer of a reply holds before.
const FILL: u8 = 0x5A;

fn prepare(lun: &Lun<'_>, base: u64) -> Result<Disk, String> {
    let bytes = Random::new(base + 1).bytes(WINDOW as usize * lun.block);
    for (n, part) in bytes.chunks(256 * lun.block).enumerate() {
        lun.write(base + n as u64 * 256, part)?;
    }
    Ok(Disk::new(base, lun.block, bytes))
}

fn unchanged(lun: &Lun<'_>, disk: &mut Disk) -> Verdict {
    for lba in (disk.base()..disk.base() + disk.blocks()).step_by(256) {
        disk.check(lba, &lun.read(lba, 256)?)?;
    }
    Ok(())
}

/// Refused with one of `codes`, data in: the buffer untouched or zeros.
fn refused_in(lun: &Lun<'_>, cdb: &[u8], len: usize, codes: &[Code]) -> Verdict {
    let mut data = vec![FILL; len];
    lun.send(cdb, Data::In(&mut data))?.refused_with(codes)
}

fn refused_out(lun: &Lun<'_>, cdb: &[u8], data: &[u8], codes: &[Code]) -> Verdict {
    lun.send(cdb, Data::Out(data))?.refused_with(codes)
}

/// GOOD, `wanted` bytes arrived (residual of the rest), nothing after them.
fn arrives(lun: &Lun<'_>, cdb: &[u8], len: usize, wanted: impl Fn(&[u8]) -> usize) -> Verdict {
    let mut data = vec![FILL; len];
    let reply = lun.good(cdb, Data::In(&mut data))?;
    let wanted = wanted(&data).min(len);
    let arrived = len - reply.resid;
    if let Some(at) = data[wanted..].iter().position(|b| !matches!(*b, 0 | FILL)) {
        return Err(format!("byte {} after the end of the reply is {:02X}h", wanted + at, data[wanted + at]));
    }
    // READ_LEN of 0 means "all" to the kernel, so an empty reply may be padded with zeros instead.
    if arrived != wanted && !(wanted == 0 && data.iter().all(|b| *b == 0)) {
        return Err(format!(
            "expected {wanted} bytes of {len} (resid {}), found resid {}",
            len - wanted,
            reply.resid
        ));
    }
    Ok(())
}

/// A residual is counted, or the command refused: what is never right is GOOD for bytes that did not move.
fn refused_or(reply: &Reply, resid: usize) -> Verdict {
    if reply.good().is_ok() && reply.resid == resid { Ok(()) } else { reply.refused_with(&LENGTH_MISMATCH) }
}

pub(crate) fn run(report: &Report, sg: &dyn Transport) {
    let prepared = Lun::attach(sg).and_then(|lun| {
        let disk = prepare(&lun, BASE)?;
        let tail = prepare(&lun, lun.blocks - u64::from(WINDOW))?;
        Ok((lun, disk, tail))
    });
    let (lun, mut disk, mut tail) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => return report.record("the LUN can be written before", &Err(why)),
    };
    let lun = &lun;
    let base = u32::try_from(BASE).expect("fits");

    mismatches(report, lun, base);
    report.check("no block was changed by a length that disagrees", || unchanged(lun, &mut disk));
    zero_lengths(report, lun, base, &mut disk);
    report.check("no block was changed by a zero length", || unchanged(lun, &mut disk));
    edges(report, lun, &mut tail);
    report.check("no block was changed at the end of the LUN", || unchanged(lun, &mut tail));
    report.check("no block was changed at the start of the window", || unchanged(lun, &mut disk));
    replies(report, lun);
    parameters(report, lun, base);
    report.check("no block was changed by a bad parameter list", || unchanged(lun, &mut disk));
    report.check("the LUN is alive", || lun.is_alive());
}

fn mismatches(report: &Report, lun: &Lun<'_>, base: u32) {
    let lba = u64::from(base);
    let junk = vec![0xC3; 256 * 512];
    let writes = [
        ("WRITE(6)", rw6(op::WRITE_6, base, 8)),
        ("WRITE(10)", rw10(op::WRITE_10, 0, base, 8)),
        ("WRITE(12)", rw12(op::WRITE_12, 0, base, 8)),
        ("WRITE(16)", rw16(op::WRITE_16, 0, lba, 8)),
        ("WRITE(10) with FUA", rw10(op::WRITE_10, FUA, base, 8)),
        ("WRITE(16) of 2^32-1 blocks", rw16(op::WRITE_16, 0, 0, u32::MAX)),
    ];
    for (name, cdb) in &writes {
        report.check(&format!("{name} with data of 1 block of 8"), || {
            let codes = [&LENGTH_MISMATCH[..], &[OUT_OF_RANGE]].concat();
            refused_out(lun, cdb, &junk[..512], if name.contains("2^32") { &codes } else { &LENGTH_MISMATCH })
        });
    }
    for (name, cdb) in &writes[..5] {
        report.check(&format!("{name} with data of 100 bytes"), || {
            refused_out(lun, cdb, &junk[..100], &LENGTH_MISMATCH)
        });
        report.check(&format!("{name} without data"), || {
            lun.send(cdb, Data::None)?.refused_with(&LENGTH_MISMATCH)
        });
        report.check(&format!("{name} with data in the wrong direction, too short"), || {
            refused_in(lun, cdb, 512, &LENGTH_MISMATCH)
        });
    }
    let reads = [
        ("READ(6)", rw6(op::READ_6, base, 8)),
        ("READ(10)", rw10(op::READ_10, 0, base, 8)),
        ("READ(12)", rw12(op::READ_12, 0, base, 8)),
        ("READ(16)", rw16(op::READ_16, 0, lba, 8)),
    ];
    for (name, cdb) in &reads {
        report.check(&format!("{name} of 8 blocks into 1"), || {
            let mut data = vec![FILL; 512];
            refused_or(&lun.send(cdb, Data::In(&mut data))?, 0)
        });
        report.check(&format!("{name} of 8 blocks into 16"), || {
            let mut data = vec![FILL; 16 * 512];
            let reply = lun.send(cdb, Data::In(&mut data))?;
            refused_or(&reply, 8 * 512)?;
            if data[8 * 512..].iter().all(|b| matches!(*b, 0 | FILL)) {
                Ok(())
            } else {
                Err("bytes after block 8".into())
            }
        });
        report.check(&format!("{name} without a buffer"), || {
            lun.send(cdb, Data::None)?.refused_with(&LENGTH_MISMATCH)
        });
    }
    report.check("COMPARE AND WRITE with data of one block of two", || {
        refused_out(lun, &compare_and_write(lba, 1), &lun.read(lba, 1)?, &LENGTH_MISMATCH)
    });
    report.check("COMPARE AND WRITE without data", || {
        lun.send(&compare_and_write(lba, 1), Data::None)?.refused_with(&LENGTH_MISMATCH)
    });
    report.check("WRITE SAME(16) with half a block", || {
        refused_out(lun, &rw16(op::WRITE_SAME_16, 0, lba, 8), &junk[..256], &LENGTH_MISMATCH)
    });
    report.check("WRITE SAME(16) without data", || {
        lun.send(&rw16(op::WRITE_SAME_16, 0, lba, 8), Data::None)?.refused_with(&LENGTH_MISMATCH)
    });
    report.check("WRITE SAME(10) with data of two blocks is refused or writes the first", || {
        // Written over blocks that already hold block one: either way nothing changes.
        let mut data = lun.read(lba, 1)?;
        data.extend(&junk[..512]);
        let reply = lun.send(&rw10(op::WRITE_SAME_10, 0, base, 1), Data::Out(&data))?;
        if reply.good().is_ok() { Ok(()) } else { reply.refused_with(&LENGTH_MISMATCH) }
    });
}

fn zero_lengths(report: &Report, lun: &Lun<'_>, base: u32, disk: &mut Disk) {
    let lba = u64::from(base);
    for (name, cdb) in [
        ("READ(10)", rw10(op::READ_10, 0, base, 0)),
        ("READ(12)", rw12(op::READ_12, 0, base, 0)),
        ("READ(16)", rw16(op::READ_16, 0, lba, 0)),
        ("WRITE(10)", rw10(op::WRITE_10, 0, base, 0)),
        ("WRITE(12)", rw12(op::WRITE_12, 0, base, 0)),
        ("WRITE(16)", rw16(op::WRITE_16, 0, lba, 0)),
        ("COMPARE AND WRITE", compare_and_write(lba, 0)),
        ("UNMAP", unmap(0)),
        ("SYNCHRONIZE CACHE(10)", rw10(op::SYNCHRONIZE_CACHE_10, 0, 0, 0)),
        ("SYNCHRONIZE CACHE(16)", rw16(op::SYNCHRONIZE_CACHE_16, 0, 0, 0)),
    ] {
        report.check(&format!("{name} of nothing"), || lun.good(&cdb, Data::None).map(drop));
    }
    report.check("WRITE SAME of nothing is refused (WSNZ=1)", || {
        refused_out(lun, &rw16(op::WRITE_SAME_16, 0, lba, 0), &[0xC3; 512], &[INVALID_CDB])
    });
    report.check("WRITE SAME with UNMAP of nothing is refused", || {
        refused_out(lun, &rw16(op::WRITE_SAME_16, 8, 0, 0), &[0; 512], &[INVALID_CDB])
    });
    report.check("READ(6) of 0 means 256 blocks", || {
        let mut data = vec![FILL; 256 * lun.block];
        let reply = lun.good(&rw6(op::READ_6, base, 0), Data::In(&mut data))?;
        if reply.resid != 0 {
            return Err(format!("resid {}", reply.resid));
        }
        disk.check(lba, &data)
    });
    report.check("WRITE(6) of 0 means 256 blocks", || {
        let data = Random::new(6).bytes(256 * lun.block);
        lun.good(&rw6(op::WRITE_6, base + 256, 0), Data::Out(&data))?;
        disk.write(lba + 256, &data);
        unchanged(lun, disk)
    });
    report.check("INQUIRY of no byte", || lun.good(&inquiry(None, 0), Data::None).map(drop));
    report.check("MODE SENSE(10) of no byte", || lun.good(&mode_sense10(0x3F, 0), Data::None).map(drop));
    report.check("READ CAPACITY(16) of no byte", || lun.good(&read_capacity16(0), Data::None).map(drop));
    report.check("REQUEST SENSE of no byte", || lun.good(&request_sense(0), Data::None).map(drop));
}

fn edges(report: &Report, lun: &Lun<'_>, tail: &mut Disk) {
    let end = lun.blocks;
    report.check("the last block is read", || tail.check(end - 1, &lun.read(end - 1, 1)?));
    report.check("the last block is written", || {
        let data = Random::new(7).bytes(lun.block);
        lun.write(end - 1, &data)?;
        tail.write(end - 1, &data);
        tail.check(end - 1, &lun.read(end - 1, 1)?)
    });
    let past = [
        ("at the end", end, 1_u32),
        ("over the end", end - 1, 2),
        ("over the end by one, long", end - 63, 64),
        ("at 2^32", 1 << 32, 1),
        ("at 2^55 (2^64 bytes)", 1 << 55, 1),
        ("at 2^63", 1 << 63, 1),
        ("at 2^64-1", u64::MAX, 1),
        ("at 2^64-2, over the top", u64::MAX - 1, 8),
    ];
    let junk = vec![0xC3; 64 * 512];
    for (place, lba, blocks) in past {
        let data = &junk[..blocks as usize * 512];
        report.check(&format!("READ(16) {place}"), || {
            refused_in(lun, &rw16(op::READ_16, 0, lba, blocks), data.len(), &[OUT_OF_RANGE])
        });
        report.check(&format!("WRITE(16) {place}"), || {
            refused_out(lun, &rw16(op::WRITE_16, 0, lba, blocks), data, &[OUT_OF_RANGE])
        });
        report.check(&format!("WRITE SAME(16) {place}"), || {
            refused_out(lun, &rw16(op::WRITE_SAME_16, 0, lba, blocks), &junk[..512], &[OUT_OF_RANGE])
        });
        report.check(&format!("WRITE SAME(16) with UNMAP {place}"), || {
            refused_out(lun, &rw16(op::WRITE_SAME_16, 8, lba, blocks), &[0; 512], &[OUT_OF_RANGE])
        });
        report
            .check(&format!("UNMAP {place}"), || lun.unmap(&[(lba, blocks)])?.refused_with(&[OUT_OF_RANGE]));
        if lba >= end {
            report.check(&format!("COMPARE AND WRITE {place}"), || {
                refused_out(lun, &compare_and_write(lba, 1), &junk[..1024], &[OUT_OF_RANGE])
            });
        }
        // A target that always flushes everything may ignore the range.
        report.check(&format!("SYNCHRONIZE CACHE(16) {place} is answered"), || {
            let reply = lun.send(&rw16(op::SYNCHRONIZE_CACHE_16, 0, lba, blocks), Data::None)?;
            if reply.good().is_ok() { Ok(()) } else { reply.refused_with(&[OUT_OF_RANGE]) }
        });
    }
    let end32 = u32::try_from(end).expect("a small LUN");
    report.check("READ(6) over the end of a LUN below 2^21 blocks", || {
        refused_in(lun, &rw6(op::READ_6, end32 - 1, 2), 1024, &[OUT_OF_RANGE])
    });
    report.check("READ(10) at the end", || {
        refused_in(lun, &rw10(op::READ_10, 0, end32, 1), 512, &[OUT_OF_RANGE])
    });
    report.check("WRITE(10) at 2^32-1", || {
        refused_out(lun, &rw10(op::WRITE_10, 0, u32::MAX, 1), &junk[..512], &[OUT_OF_RANGE])
    });
    report.check("READ(12) at the end", || {
        refused_in(lun, &rw12(op::READ_12, 0, end32, 1), 512, &[OUT_OF_RANGE])
    });
    report.check("WRITE(12) over the end", || {
        refused_out(lun, &rw12(op::WRITE_12, 0, end32 - 1, 2), &junk[..1024], &[OUT_OF_RANGE])
    });
    report.check("WRITE SAME(16) of 2^32-1 blocks", || {
        refused_out(lun, &rw16(op::WRITE_SAME_16, 0, 1, u32::MAX), &junk[..512], &[OUT_OF_RANGE])
    });
    report.check("WRITE SAME(16) with NDOB over the end", || {
        lun.send(&rw16(op::WRITE_SAME_16, NDOB, end - 1, 2), Data::None)?
            .refused_with(&[OUT_OF_RANGE, INVALID_CDB])
    });
}

fn replies(report: &Report, lun: &Lun<'_>) {
    for (allocation, buffer, wanted) in
        [(36, 36, 36), (96, 96, 74), (36, 96, 36), (5, 96, 5), (255, 16, 16), (255, 252, 74)]
    {
        report.check(&format!("INQUIRY, allocation {allocation}, buffer {buffer}"), || {
            arrives(lun, &inquiry(None, allocation), buffer, |_| wanted)
        });
    }
    report.check("VPD page 83h, allocation 8, buffer 255", || {
        arrives(lun, &inquiry(Some(0x83), 8), 255, |_| 8)
    });
    report.check("VPD page B0h, allocation 255, buffer 255", || {
        arrives(lun, &inquiry(Some(0xB0), 255), 255, |_| 64)
    });
    report.check("READ CAPACITY(10), buffer 64", || arrives(lun, &read_capacity10(), 64, |_| 8));
    report
        .check("READ CAPACITY(16), allocation 8, buffer 32", || arrives(lun, &read_capacity16(8), 32, |_| 8));
    report.check("READ CAPACITY(16), allocation 64, buffer 64", || {
        arrives(lun, &read_capacity16(64), 64, |_| 32)
    });
    report.check("READ CAPACITY(16), allocation 32, buffer 12", || {
        arrives(lun, &read_capacity16(32), 12, |_| 12)
    });
    report.check("MODE SENSE(6), allocation 4, buffer 64", || arrives(lun, &mode_sense6(0x3F, 4), 64, |_| 4));
    report.check("MODE SENSE(6), allocation 192", || {
        arrives(lun, &mode_sense6(0x3F, 192), 192, |d| 1 + usize::from(d[0]))
    });
    report
        .check("MODE SENSE(10), allocation 8, buffer 64", || arrives(lun, &mode_sense10(0x3F, 8), 64, |_| 8));
    report.check("REQUEST SENSE, allocation 8, buffer 32", || arrives(lun, &request_sense(8), 32, |_| 8));
    report.check("REQUEST SENSE, allocation 252", || {
        arrives(lun, &request_sense(252), 252, |d| 8 + usize::from(d[7]))
    });
    report.check("REPORT SUPPORTED OPERATION CODES, allocation 4, buffer 64", || {
        arrives(lun, &report_opcodes(4), 64, |_| 4)
    });
    report.check("READ CAPACITY(10) and (16) agree", || {
        let (mut ten, mut sixteen) = ([0; 8], [0; 32]);
        lun.good(&read_capacity10(), Data::In(&mut ten))?;
        lun.good(&read_capacity16(32), Data::In(&mut sixteen))?;
        if ten[..] == sixteen[4..12] && sixteen[..4] == [0; 4] && sixteen[14] & 0xC0 == 0xC0 {
            Ok(())
        } else {
            Err(format!("{ten:02X?} and {sixteen:02X?} (LBPME and LBPRZ wanted in byte 14)"))
        }
    });
}

fn parameters(report: &Report, lun: &Lun<'_>, base: u32) {
    let lba = u64::from(base);
    let good = unmap_list(&[(lba, 128)]);
    let errors = [PARAMETER_LENGTH, INVALID_PARAMETER, INVALID_CDB, (5, 0x0E, 0x03), (0x0B, 0x0E, 0x03)];
    for len in [1_usize, 4, 7] {
        report.check(&format!("UNMAP with a list of {len} bytes"), || {
            let cdb = unmap(u16::try_from(len).expect("fits"));
            refused_out(lun, &cdb, &good[..len], &[PARAMETER_LENGTH])
        });
    }
    report.check("UNMAP with a list longer than its data", || refused_out(lun, &unmap(40), &good, &errors));
    report.check("UNMAP whose list is cut within the descriptor", || {
        // A truncated descriptor is to be ignored or refused; either way nothing is discarded.
        let reply = lun.send(&unmap(16), Data::Out(&good[..16]))?;
        if reply.good().is_ok() { Ok(()) } else { reply.refused_with(&errors) }
    });
    report.check("UNMAP whose list claims more descriptors than it has", || {
        let mut list = unmap_list(&[]);
        list[1] = 6 + 64;
        list[3] = 64;
        let reply = lun.send(&unmap(8), Data::Out(&list))?;
        if reply.good().is_ok() { Ok(()) } else { reply.refused_with(&errors) }
    });
    report.check("UNMAP of no descriptor", || lun.good(&unmap(8), Data::Out(&unmap_list(&[]))).map(drop));
    report.check("UNMAP of no block", || lun.unmap(&[(lba, 0)])?.good());
    report.check("UNMAP without its data", || lun.send(&unmap(24), Data::None)?.refused_with(&errors));
    report.check("UNMAP with ANCHOR", || {
        let mut cdb = unmap(24);
        cdb[1] = 1;
        refused_out(lun, &cdb, &good, &[INVALID_CDB])
    });
    report.check("COMPARE AND WRITE of two blocks is refused (at most one)", || {
        let two = lun.read(lba, 2)?;
        refused_out(lun, &compare_and_write(lba, 2), &[two.clone(), two].concat(), &[INVALID_CDB])
    });
}
