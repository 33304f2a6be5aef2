//! The data checker: every 4 KiB block carries its address, a sequence number, its writer and a checksum. The state file
//! keeps, per block, the last acknowledged and the last attempted sequence number (16 bytes, written before and after
//! each write), so that after a crash of anything but this machine `verify` knows what must be there: a block may hold
//! its acknowledged stamp, or that of a later attempt that was never acknowledged; nothing older, nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sgtest::random::Random;
use sgtest::report::{Report, Verdict};

const BLOCK: usize = 4096;
const MAGIC: u64 = 0x7363_7369_7374_6D70;
const THREADS: u64 = 8;
/// These two do only that, the others what chance says: whatever is stopped under the load has a write and a read in progress.
const WRITER: u64 = 0;
const READER: u64 = 1;
/// Blocks per I/O, at most.
const RUN: u64 = 8;
/// A device is checked up to here.
const MOST: u64 = 65536;

/// What `check` shall do.
pub(crate) struct Plan {
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) allow_errors: bool,
}

/// A buffer for O_DIRECT: `len` bytes at a multiple of 4096.
struct Aligned(Vec<u8>, usize, usize);

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + BLOCK];
        let skip = bytes.as_ptr().align_offset(BLOCK);
        Self(bytes, skip, len)
    }
    fn get(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.2, "longer than the buffer");
        &mut self.0[self.1..][..len]
    }
}

/// FNV-1a over 8-byte words.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0xCBF2_9CE4_8422_2325, |sum, word| {
        (sum ^ u64::from_le_bytes(word.try_into().expect("eight bytes")))
            .wrapping_mul(0x0100_0000_01B3)
            .rotate_left(29)
    })
}

fn word(block: &[u8], n: usize) -> u64 {
    u64::from_le_bytes(block[n * 8..n * 8 + 8].try_into().expect("eight bytes"))
}

fn stamp(block: &mut [u8], lba: u64, sequence: u64, writer: u64) {
    Random::new(lba ^ sequence.rotate_left(32) ^ writer.rotate_left(48)).fill(block);
    for (n, value) in [MAGIC, lba, sequence, writer].into_iter().enumerate() {
        block[n * 8..n * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    let sum = checksum(&block[..BLOCK - 8]);
    block[BLOCK - 8..].copy_from_slice(&sum.to_le_bytes());
}

/// The sequence number of a block that is whole and in its place.
fn sequence_of(block: &[u8], lba: u64) -> Result<u64, String> {
    let sum = checksum(&block[..BLOCK - 8]);
    if word(block, 0) != MAGIC {
        let what = if block.iter().all(|b| *b == 0) { "is all zeros" } else { "carries no stamp" };
        return Err(format!("block {lba} {what}"));
    }
    if word(block, BLOCK / 8 - 1) != sum {
        return Err(format!(
            "block {lba} is torn: checksum wrong, stamp lba {} sequence {}",
            word(block, 1),
            word(block, 2)
        ));
    }
    if word(block, 1) != lba {
        return Err(format!("block {lba} holds block {}, sequence {}", word(block, 1), word(block, 2)));
    }
    Ok(word(block, 2))
}

struct State(File);

impl State {
    fn open(path: &Path, create: bool) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create(create).truncate(create).open(path).map(Self)
    }
    fn load(&self, lba: u64) -> io::Result<(u64, u64)> {
        let mut pair = [0; 16];
        self.0.read_exact_at(&mut pair, lba * 16)?;
        Ok((word(&pair, 0), word(&pair, 1)))
    }
    /// Adjacent blocks at once: one write, so that a crash leaves all or nothing.
    fn store(&self, lba: u64, pairs: &[(u64, u64)]) -> io::Result<()> {
        let bytes: Vec<u8> = pairs
            .iter()
            .flat_map(|(acked, tried)| [acked.to_le_bytes(), tried.to_le_bytes()].concat())
            .collect();
        self.0.write_all_at(&bytes, lba * 16)
    }
    fn blocks(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len() / 16)
    }
}

fn open_device(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)
}

fn size_of_device(file: &mut File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::End(0))
}

fn text(error: io::Error) -> String {
    error.to_string()
}

pub(crate) fn fill(report: &Report, device: &Path, state: &Path) {
    report.check("every block stamped", || {
        let mut disk = open_device(device).map_err(text)?;
        let blocks = (size_of_device(&mut disk).map_err(text)? / BLOCK as u64).min(MOST);
        let state = State::open(state, true).map_err(text)?;
        let mut buffer = Aligned::new(64 * BLOCK);
        for first in (0..blocks).step_by(64) {
            let n = (blocks - first).min(64);
            let bytes = buffer.get(usize::try_from(n).expect("small") * BLOCK);
            for (lba, block) in (first..).zip(bytes.chunks_mut(BLOCK)) {
                stamp(block, lba, 1, 0);
            }
            disk.write_all_at(bytes, first * BLOCK as u64).map_err(text)?;
            state.store(first, &vec![(1, 1); usize::try_from(n).expect("small")]).map_err(text)?;
        }
        println!("{blocks} blocks of {BLOCK} bytes");
        Ok(())
    });
}

pub(crate) fn verify(report: &Report, device: &Path, state: &Path) {
    report.check("every block is what was last acknowledged", || {
        let disk = open_device(device).map_err(text)?;
        let state = State::open(state, false).map_err(text)?;
        let blocks = state.blocks().map_err(text)?;
        if blocks == 0 {
            return Err("the state names no block".to_owned());
        }
        let mut buffer = Aligned::new(64 * BLOCK);
        let (mut wrong, mut first_wrong, mut newest) = (0_u64, None, 0);
        for first in (0..blocks).step_by(64) {
            let n = usize::try_from((blocks - first).min(64)).expect("small");
            let bytes = buffer.get(n * BLOCK);
            disk.read_exact_at(bytes, first * BLOCK as u64)
                .map_err(|e| format!("read at block {first}: {e}"))?;
            for (lba, block) in (first..).zip(bytes.chunks(BLOCK)) {
                let (acked, tried) = state.load(lba).map_err(text)?;
                newest = newest.max(acked);
                if let Err(why) = acceptable(block, lba, acked, tried) {
                    wrong += 1;
                    first_wrong.get_or_insert(why);
                }
            }
        }
        println!("{blocks} blocks read, newest sequence number {newest}");
        first_wrong.map_or(Ok(()), |why| Err(format!("{wrong} blocks are wrong, the first: {why}")))
    });
}

fn acceptable(block: &[u8], lba: u64, acked: u64, tried: u64) -> Result<u64, String> {
    let found = sequence_of(block, lba)?;
    if (acked..=tried).contains(&found) {
        Ok(found)
    } else if found < acked {
        Err(format!(
            "block {lba} has lost an acknowledged write: sequence {found}, acknowledged {acked}, attempted {tried}"
        ))
    } else {
        Err(format!("block {lba} holds sequence {found}, acknowledged {acked}, attempted {tried}"))
    }
}

#[derive(Default)]
struct Totals {
    writes: AtomicU64,
    reads: AtomicU64,
    errors: AtomicU64,
    slowest: AtomicU64,
}

pub(crate) fn check(report: &Report, device: &Path, state: &Path, plan: &Plan) {
    let totals = Totals::default();
    report.check("random writes and reads, every read verified", || {
        let disk = open_device(device).map_err(text)?;
        let state = State::open(state, false).map_err(text)?;
        let blocks = state.blocks().map_err(text)?;
        let share = blocks / THREADS;
        if share < RUN {
            return Err(format!("the state names {blocks} blocks; run `sgtest fill` first"));
        }
        let end = Instant::now() + plan.time;
        let (disk, state, totals) = (&disk, &state, &totals);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|n| scope.spawn(move || work(disk, state, (n * share, share), n, plan, end, totals)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
        })
    });
    let [writes, reads, errors, slowest] =
        [&totals.writes, &totals.reads, &totals.errors, &totals.slowest].map(|n| n.load(Ordering::Relaxed));
    println!("{writes} writes, {reads} reads, {errors} I/O errors, slowest {slowest} ms");
    report.record(
        "writes and reads were done",
        &if writes > 0 && reads > 0 { Ok(()) } else { Err("none".to_owned()) },
    );
    if !plan.allow_errors {
        report
            .record("no I/O error", &if errors == 0 { Ok(()) } else { Err(format!("{errors} I/O errors")) });
    }
}

fn work(
    disk: &File,
    state: &State,
    (first, share): (u64, u64),
    writer: u64,
    plan: &Plan,
    end: Instant,
    totals: &Totals,
) -> Verdict {
    let mut random = Random::new(plan.seed ^ (writer + 1) << 40);
    let mut buffer = Aligned::new(usize::try_from(RUN).expect("small") * BLOCK);
    let bump = |n: &AtomicU64| n.fetch_add(1, Ordering::Relaxed);
    while Instant::now() < end {
        let run = 1 + random.below(RUN);
        let lba = first + random.below(share - run + 1);
        let bytes = buffer.get(usize::try_from(run).expect("small") * BLOCK);
        let known: Vec<(u64, u64)> =
            (lba..lba + run).map(|n| state.load(n)).collect::<Result<_, _>>().map_err(text)?;
        let start = Instant::now();
        if writer == WRITER || (writer != READER && random.below(2) == 0) {
            // Above everything ever attempted here: a late write of an older attempt cannot pass for this one.
            let next: Vec<(u64, u64)> =
                known.iter().map(|(acked, tried)| (*acked, (*acked).max(*tried) + 1)).collect();
            for (n, block) in bytes.chunks_mut(BLOCK).enumerate() {
                stamp(block, lba + n as u64, next[n].1, writer);
            }
            state.store(lba, &next).map_err(text)?;
            match disk.write_all_at(bytes, lba * BLOCK as u64) {
                Ok(()) => {
                    let acked: Vec<_> = next.iter().map(|(_, tried)| (*tried, *tried)).collect();
                    state.store(lba, &acked).map_err(text)?;
                    bump(&totals.writes);
                }
                Err(error) => {
                    // Whether it arrived is unknown: the next read decides, and then it must stay so.
                    println!("write of {run} blocks at {lba}: {error}");
                    bump(&totals.errors);
                }
            }
        } else {
            match disk.read_exact_at(bytes, lba * BLOCK as u64) {
                Ok(()) => {
                    for (n, block) in bytes.chunks(BLOCK).enumerate() {
                        let (acked, tried) = known[n];
                        let found = acceptable(block, lba + n as u64, acked, tried)?;
                        if acked != tried {
                            state.store(lba + n as u64, &[(found, found)]).map_err(text)?;
                        }
                    }
                    bump(&totals.reads);
                }
                Err(error) => {
                    println!("read of {run} blocks at {lba}: {error}");
                    bump(&totals.errors);
                }
            }
        }
        totals
            .slowest
            .fetch_max(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(lba: u64, sequence: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        stamp(&mut block, lba, sequence, 3);
        block
    }

    #[test]
    fn a_whole_block_in_its_place_is_accepted() {
        assert_eq!(acceptable(&stamped(9, 5), 9, 5, 5), Ok(5));
        assert_eq!(acceptable(&stamped(9, 6), 9, 5, 6), Ok(6));
    }

    #[test]
    fn lost_torn_misplaced_and_unknown_blocks_are_noticed() {
        assert!(acceptable(&stamped(9, 4), 9, 5, 5).is_err_and(|e| e.contains("lost an acknowledged write")));
        assert!(acceptable(&stamped(9, 7), 9, 5, 6).is_err());
        assert!(acceptable(&stamped(8, 5), 9, 5, 5).is_err_and(|e| e.contains("holds block 8")));
        assert!(acceptable(&[0; BLOCK], 9, 5, 5).is_err_and(|e| e.contains("zeros")));
        let mut torn = stamped(9, 5);
        torn[2048..].copy_from_slice(&stamped(9, 4)[2048..]);
        assert!(acceptable(&torn, 9, 5, 5).is_err_and(|e| e.contains("torn")));
    }
}
