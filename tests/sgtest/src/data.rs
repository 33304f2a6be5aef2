//! Every command that moves or removes data, against the model of the disk.

use std::path::Path;
use std::thread;

use sgtest::initiator::{
    Data, FUA, INVALID_PARAMETER, Lun, MISCOMPARE, NDOB, OUT_OF_RANGE, UNMAP_BIT, compare_and_write, op, rw6,
    rw10, rw12, rw16,
};
use sgtest::oracle::Disk;
use sgtest::random::Random;
use sgtest::report::{Report, Verdict};
use sgtest::sg::Sg;

/// The window: the second and the third 4 MiB object meet at its block 2048.
const BASE: u64 = 16384 - 2048;
const WINDOW: u64 = 4096;
/// UNMAP granularity of the incumbent (64 KiB), and of librbd's discard.
const GRAIN: u64 = 128;

fn lba32(lba: u64) -> u32 {
    u32::try_from(lba).expect("a small LUN")
}

fn count(blocks: usize) -> u16 {
    u16::try_from(blocks).expect("few blocks")
}

fn compare(lun: &Lun<'_>, disk: &mut Disk) -> Verdict {
    let end = disk.base() + disk.blocks();
    for lba in (disk.base()..end).step_by(256) {
        let blocks = lba32((end - lba).min(256));
        disk.check(lba, &lun.read(lba, blocks)?)?;
    }
    Ok(())
}

/// Writes random data to a window, with one WRITE per 256 blocks.
fn fill(lun: &Lun<'_>, base: u64, blocks: u64, random: &mut Random) -> Result<Disk, String> {
    let bytes = random.bytes(usize::try_from(blocks).expect("fits") * lun.block);
    for (n, part) in bytes.chunks(256 * lun.block).enumerate() {
        lun.write(base + n as u64 * 256, part)?;
    }
    Ok(Disk::new(base, lun.block, bytes))
}

pub(crate) fn run(report: &Report, device: &Path, seed: u64) {
    println!("seed {seed}");
    let sg = match Sg::open(device) {
        Ok(sg) => sg,
        Err(error) => return report.record("open", &Err(error.to_string())),
    };
    let mut random = Random::new(seed);
    let prepared =
        Lun::attach(&sg).and_then(|lun| fill(&lun, BASE, WINDOW, &mut random).map(|disk| (lun, disk)));
    let (lun, mut disk) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => return report.record("attach and fill", &Err(why)),
    };
    report.check("what was filled is read", || compare(&lun, &mut disk));
    round_trips(report, &lun, &mut disk, &mut random);
    write_same(report, &lun, &mut disk, &mut random);
    unmap(report, &lun, &mut disk);
    caw(report, &lun, &mut disk, &mut random);
    step(report, &lun, &mut disk, "the whole window is as the model says", |disk| compare(&lun, disk));
    step(report, &lun, &mut disk, "300 random commands against the model", |disk| {
        mixed(&lun, disk, &mut random, 300)
    });
    report.check("the whole window is as the model says, again", || compare(&lun, &mut disk));
    report.check("8 descriptors at once, windows of their own", || deep(device, seed));
    report.check("the LUN is alive", || lun.is_alive());
}

/// One check; if it fails, the model takes over what the disk holds, so that later checks speak for themselves.
fn step(
    report: &Report,
    lun: &Lun<'_>,
    disk: &mut Disk,
    name: &str,
    body: impl FnOnce(&mut Disk) -> Verdict,
) {
    report.check(name, || {
        body(disk).map_err(|why| match take_over(lun, disk) {
            Ok(()) => why,
            Err(more) => format!("{why}; and then {more}"),
        })
    });
}

fn take_over(lun: &Lun<'_>, disk: &mut Disk) -> Verdict {
    let mut bytes = Vec::new();
    for lba in (disk.base()..disk.base() + disk.blocks()).step_by(256) {
        bytes.extend(lun.read(lba, 256)?);
    }
    *disk = Disk::new(disk.base(), lun.block, bytes);
    Ok(())
}

/// The four sizes of READ or WRITE of the same blocks.
fn four(six: u8, lba: u64, blocks: usize, flags: u8) -> Vec<(&'static str, Vec<u8>)> {
    let (n16, n32) = (count(blocks), u32::from(count(blocks)));
    let mut list = vec![
        ("(10)", rw10(six + 0x20, flags, lba32(lba), n16)),
        ("(12)", rw12(six + 0xA0, flags, lba32(lba), n32)),
        ("(16)", rw16(six + 0x80, flags, lba, n32)),
    ];
    if blocks <= 256 && flags == 0 {
        list.push(("(6)", rw6(six, lba32(lba), u8::try_from(blocks % 256).expect("0 means 256"))));
    }
    list
}

fn round_trips(report: &Report, lun: &Lun<'_>, disk: &mut Disk, random: &mut Random) {
    // Each with another start, so that a wrong address shows; the odd ones cross the border of two objects.
    for (blocks, offset) in [(1, 3), (8, 2045), (129, 1990), (256, 0), (1000, 1500)] {
        for flags in [0, FUA] {
            let about = if flags == 0 { "" } else { " with FUA" };
            for (size, cdb) in four(op::WRITE_6, BASE + offset, blocks, flags) {
                step(
                    report,
                    lun,
                    disk,
                    &format!("WRITE{size}{about} of {blocks} blocks, read by every READ"),
                    |disk| {
                        let data = random.bytes(blocks * lun.block);
                        lun.good(&cdb, Data::Out(&data))?;
                        disk.write(BASE + offset, &data);
                        for (size, cdb) in four(op::READ_6, BASE + offset, blocks, flags) {
                            let mut found = vec![0x5A; data.len()];
                            let reply = lun.good(&cdb, Data::In(&mut found))?;
                            if reply.resid != 0 {
                                return Err(format!("READ{size}: resid {}", reply.resid));
                            }
                            disk.check(BASE + offset, &found).map_err(|e| format!("READ{size}: {e}"))?;
                        }
                        // The neighbours.
                        let first = (BASE + offset).saturating_sub(2).max(BASE);
                        disk.check(first, &lun.read(first, u32::from(count(blocks)) + 4)?)
                    },
                );
            }
        }
    }
    for (name, cdb) in [
        ("SYNCHRONIZE CACHE(10)", rw10(op::SYNCHRONIZE_CACHE_10, 0, lba32(BASE), 8)),
        ("SYNCHRONIZE CACHE(16)", rw16(op::SYNCHRONIZE_CACHE_16, 0, BASE, 8)),
        ("SYNCHRONIZE CACHE(10) with IMMED", rw10(op::SYNCHRONIZE_CACHE_10, 2, 0, 0)),
    ] {
        report.check(name, || lun.good(&cdb, Data::None).map(drop));
    }
}

fn write_same(report: &Report, lun: &Lun<'_>, disk: &mut Disk, random: &mut Random) {
    let aligned = BASE.next_multiple_of(GRAIN) + GRAIN;
    let cases: [(&str, u8, bool, u64, u32); 7] = [
        ("WRITE SAME of a pattern", 0, true, aligned + 5, 37),
        ("WRITE SAME of a pattern, aligned", 0, true, aligned, 256),
        ("WRITE SAME of a pattern over the border of two objects", 0, true, BASE + 2047, 3),
        ("WRITE SAME of zeros", 0, false, aligned + 300, 200),
        ("WRITE SAME with UNMAP of zeros", UNMAP_BIT, false, aligned + 512, 256),
        ("WRITE SAME with UNMAP of zeros, unaligned", UNMAP_BIT, false, aligned + 900, 77),
        ("WRITE SAME with UNMAP of a pattern writes the pattern", UNMAP_BIT, true, aligned + 1024, 256),
    ];
    for (name, flags, pattern, lba, blocks) in cases {
        for (size, cdb) in [
            ("16", rw16(op::WRITE_SAME_16, flags, lba, blocks)),
            ("10", rw10(op::WRITE_SAME_10, flags, lba32(lba), count(blocks as usize))),
        ] {
            step(report, lun, disk, &format!("{name} ({size})"), |disk| {
                // Other data first: what was there must go.
                let before = random.bytes((blocks as usize + 2) * lun.block);
                lun.write(lba - 1, &before)?;
                disk.write(lba - 1, &before);
                let payload = if pattern { random.bytes(lun.block) } else { vec![0; lun.block] };
                lun.good(&cdb, Data::Out(&payload))?;
                disk.write_same(lba, u64::from(blocks), &payload);
                disk.check(lba - 1, &lun.read(lba - 1, blocks + 2)?)
            });
        }
    }
    step(report, lun, disk, "WRITE SAME(16) with NDOB writes zeros", |disk| {
        let (lba, blocks) = (aligned + 1300, 300);
        lun.good(&rw16(op::WRITE_SAME_16, NDOB, lba, blocks), Data::None)?;
        disk.write_same(lba, u64::from(blocks), &vec![0; lun.block]);
        disk.check(lba - 1, &lun.read(lba - 1, blocks + 2)?)
    });
    step(report, lun, disk, "WRITE SAME(16) with NDOB and UNMAP writes zeros", |disk| {
        let (lba, blocks) = (aligned + 1701, 300);
        lun.good(&rw16(op::WRITE_SAME_16, NDOB | UNMAP_BIT, lba, blocks), Data::None)?;
        disk.write_same(lba, u64::from(blocks), &vec![0; lun.block]);
        disk.check(lba - 1, &lun.read(lba - 1, blocks + 2)?)
    });
}

fn unmap(report: &Report, lun: &Lun<'_>, disk: &mut Disk) {
    let aligned = BASE.next_multiple_of(GRAIN) + 4 * GRAIN;
    step(report, lun, disk, "UNMAP of an aligned range reads as zeros", |disk| {
        let blocks = lba32(2 * GRAIN);
        lun.write(aligned, &vec![0x77; blocks as usize * lun.block])?;
        lun.unmap(&[(aligned, blocks)])?.good()?;
        disk.write_same(aligned, u64::from(blocks), &vec![0; lun.block]);
        disk.check(aligned - 1, &lun.read(aligned - 1, blocks + 2)?)
    });
    step(
        report,
        lun,
        disk,
        "UNMAP of unaligned ranges: old data or zeros, the neighbours untouched",
        |disk| {
            let ranges = [(aligned + 3, 200), (aligned + 700, 1), (BASE + 2040, 20), (BASE + 3000, 500)];
            lun.unmap(&ranges)?.good()?;
            for (lba, blocks) in ranges {
                disk.unmap(lba, u64::from(blocks));
            }
            compare(lun, disk)
        },
    );
    let nothing_changes = |disk: &mut Disk, ranges: &[(u64, u32)], codes: &[_]| -> Verdict {
        let base = disk.base();
        let filled = vec![0x99; 256 * lun.block];
        lun.write(base, &filled)?;
        disk.write(base, &filled);
        lun.unmap(ranges)?.refused_with(codes)?;
        compare(lun, disk)
    };
    step(report, lun, disk, "UNMAP whose second range is past the end discards nothing", |disk| {
        nothing_changes(disk, &[(BASE, 256), (lun.blocks, 1)], &[OUT_OF_RANGE])
    });
    step(report, lun, disk, "UNMAP whose last range is over the end discards nothing", |disk| {
        nothing_changes(disk, &[(BASE, 128), (BASE + 128, 128), (lun.blocks - 1, 2)], &[OUT_OF_RANGE])
    });
    step(report, lun, disk, "UNMAP of five ranges (at most four) discards nothing", |disk| {
        nothing_changes(disk, &[(BASE, 128); 5], &[INVALID_PARAMETER])
    });
    step(report, lun, disk, "UNMAP of more blocks than its limit discards nothing", |disk| {
        nothing_changes(disk, &[(BASE, 128), (BASE, 32769)], &[INVALID_PARAMETER])
    });
}

fn caw(report: &Report, lun: &Lun<'_>, disk: &mut Disk, random: &mut Random) {
    let lba = BASE + 77;
    step(report, lun, disk, "COMPARE AND WRITE that matches writes", |disk| {
        let now = lun.read(lba, 1)?;
        disk.check(lba, &now)?;
        let new = random.bytes(lun.block);
        lun.good(&compare_and_write(lba, 1), Data::Out(&[now, new.clone()].concat()))?;
        disk.write(lba, &new);
        disk.check(lba - 1, &lun.read(lba - 1, 3)?)
    });
    for at in [0, 1, 255, 511] {
        step(
            report,
            lun,
            disk,
            &format!("COMPARE AND WRITE that differs in byte {at} says so and writes nothing"),
            |disk| {
                let mut wrong = lun.read(lba, 1)?;
                wrong[at] ^= 0x10;
                let both = [wrong, random.bytes(lun.block)].concat();
                let reply = lun.send(&compare_and_write(lba, 1), Data::Out(&both))?;
                reply.refused_with(&[MISCOMPARE])?;
                let found = reply.sense.and_then(|sense| sense.information);
                if found != Some(at as u64) {
                    return Err(format!("INFORMATION: expected {at}, found {found:?}"));
                }
                disk.check(lba - 1, &lun.read(lba - 1, 3)?)
            },
        );
    }
}

fn mixed(lun: &Lun<'_>, disk: &mut Disk, random: &mut Random, steps: u32) -> Verdict {
    for step in 0..steps {
        let blocks = 1 + usize::try_from(random.below(if step % 8 == 0 { 600 } else { 24 })).expect("small");
        let lba = BASE + random.below(WINDOW - blocks as u64);
        let pick = usize::try_from(random.below(3)).expect("small");
        let flags = if random.below(4) == 0 { FUA } else { 0 };
        let n32 = u32::from(count(blocks));
        let kind = random.below(10);
        let result = match kind {
            0..=3 => {
                let mut found = vec![0x5A; blocks * lun.block];
                lun.good(&four(op::READ_6, lba, blocks, flags)[pick].1, Data::In(&mut found))
                    .and_then(|_| disk.check(lba, &found))
            }
            4..=6 => {
                let data = random.bytes(blocks * lun.block);
                disk.write(lba, &data);
                lun.good(&four(op::WRITE_6, lba, blocks, flags)[pick].1, Data::Out(&data)).map(drop)
            }
            7 => {
                let payload = if random.below(2) == 0 { vec![0; lun.block] } else { random.bytes(lun.block) };
                disk.write_same(lba, blocks as u64, &payload);
                let unmap = if random.below(2) == 0 { UNMAP_BIT } else { 0 };
                lun.good(&rw16(op::WRITE_SAME_16, unmap, lba, n32), Data::Out(&payload)).map(drop)
            }
            8 => {
                disk.unmap(lba, blocks as u64);
                lun.unmap(&[(lba, n32)]).and_then(|reply| reply.good())
            }
            _ => lun.read(lba, 1).and_then(|now| {
                disk.check(lba, &now)?;
                let new = random.bytes(lun.block);
                disk.write(lba, &new);
                lun.good(&compare_and_write(lba, 1), Data::Out(&[now, new].concat())).map(drop)
            }),
        };
        result.map_err(|e| format!("step {step}, kind {kind}, {blocks} blocks at {lba}: {e}"))?;
    }
    Ok(())
}

/// Eight threads with a descriptor and a window each; neighbouring windows share 4 MiB objects and grains.
fn deep(device: &Path, seed: u64) -> Verdict {
    const THREADS: u64 = 8;
    const EACH: u64 = 321;
    let one = |thread: u64| -> Verdict {
        let sg = Sg::open(device).map_err(|e| e.to_string())?;
        let lun = Lun::attach(&sg)?;
        let mut random = Random::new(seed ^ (thread << 32));
        let base = 32768 - 1000 + thread * EACH;
        let mut disk = fill(&lun, base, EACH, &mut random)?;
        for step in 0..40 {
            let blocks = 1 + random.below(64);
            let lba = base + random.below(EACH - blocks);
            if random.below(2) == 0 {
                let data = random.bytes(usize::try_from(blocks).expect("small") * lun.block);
                lun.write(lba, &data)?;
                disk.write(lba, &data);
            } else {
                disk.check(lba, &lun.read(lba, lba32(blocks))?).map_err(|e| format!("step {step}: {e}"))?;
            }
        }
        compare(&lun, &mut disk)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || one(n))).collect();
        threads.into_iter().enumerate().try_for_each(|(n, thread)| {
            thread.join().map_err(|_| format!("thread {n} panicked"))?.map_err(|e| format!("thread {n}: {e}"))
        })
    })
}
