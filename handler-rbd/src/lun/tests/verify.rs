//! VERIFY and WRITE AND VERIFY, driven to their end on a disk that is an array.

use super::*;

/// A disk of 2 MiB whose every block holds its number's low byte.
fn disk() -> Vec<u8> {
    blocks(0, 4096)
}

/// Runs a CDB to its end, `depth` tasks side by side, the last finished first. Operations for which `fails`
/// says so fail. Gives the end, SENSE's VALID and INFORMATION, and how many operations ran.
fn drive_on(
    disk: &mut [u8],
    cdb: &[u8],
    buffer: &[u8],
    depth: usize,
    fails: impl Fn(Op) -> Option<ErrorKind>,
) -> (End, Option<u32>, usize) {
    let mut unit = LogicalUnit::new(Geometry { size: 4096 * 512, ..geometry() });
    let command = decode(cdb).unwrap();
    let transfer = Transfer { len: buffer.len() };
    let mut job = match unit.start(&command, &transfer, None, &[], &mut Vec::new()) {
        Step::Done(outcome) => return (end_of(outcome), None, 0),
        Step::Run(job) => job,
        step => panic!("{step:?}"),
    };
    assert_eq!(job.data_in(), 0);
    let data_out = |at: usize, to: &mut [u8]| {
        let there = &buffer[at.min(buffer.len())..];
        let len = there.len().min(to.len());
        to[..len].copy_from_slice(&there[..len]);
        len
    };
    let (mut out, mut ran) = (Vec::new(), 0);
    loop {
        while out.len() < depth {
            let Some(task) = job.next_task() else { break };
            out.push(task);
        }
        let Task { op, memory } = out.pop().expect("a job that goes on has tasks");
        ran += 1;
        let mut data = match memory {
            Memory::Private(len) => vec![0xee; len],
            _ => vec![],
        };
        let result = fails(op).map_or(Ok(()), |kind| Err(BackendError::new(kind)));
        let part = |range: ByteRange| {
            usize::try_from(range.offset).unwrap()..usize::try_from(range.offset + range.len).unwrap()
        };
        match op {
            _ if result.is_err() => {}
            Op::Read(range) => data.copy_from_slice(&disk[part(range)]),
            Op::Write(range) => disk[part(range)].copy_from_slice(buffer),
            op => panic!("{op:?}"),
        }
        let finished = Finished { op, result, answer: Answer { data, ..Answer::default() } };
        if let Step::Done(outcome) = unit.resume(&mut job, finished, &data_out, &mut Vec::new()) {
            assert!(out.is_empty() && job.next_task().is_none(), "it ended with tasks out");
            let sense = outcome.sense().filter(|sense| sense[0] == 0xf0);
            let information = sense.map(|s| u32::from_be_bytes([s[3], s[4], s[5], s[6]]));
            return (end_of(outcome), information, ran);
        }
    }
}

fn drive(cdb: &[u8], buffer: &[u8]) -> (End, Option<u32>) {
    let ends = [1, 3, 100].map(|depth| {
        let (end, information, _) = drive_on(&mut disk(), cdb, buffer, depth, |_| None);
        (end, information)
    });
    let [one, three, many] = ends;
    assert!(one == three && three == many, "{one:?} {three:?} {many:?}");
    one
}

const GOOD: (End, Option<u32>) = (End::Good, None);

fn miscompare(lba: u32) -> (End, Option<u32>) {
    (End::Check(0x0e, 0x1d, 0x00), Some(lba))
}

/// The blocks that are there.
fn blocks(lba: u64, count: u64) -> Vec<u8> {
    (lba..lba + count).flat_map(|lba| [lba.to_le_bytes()[0]; 512]).collect()
}

const VERIFY_10: u8 = 0x2f;
const VERIFY_16: u8 = 0x8f;

#[test]
fn verify_reads_in_pieces() {
    let private = |lba, blocks| (Op::Read(range(lba, blocks)), true);
    assert_eq!(run(&cdb_10(VERIFY_10, 0x10, 8, 1), 0), End::Ops(vec![private(8, 1)]));
    // 256 KiB are 512 blocks.
    let pieces = vec![private(100, 412), private(512, 512), private(1024, 76)];
    assert_eq!(run(&cdb_16(VERIFY_16, 0, 100, 1000), 0), End::Ops(pieces));
    assert_eq!(run(&[0xaf, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0], 0), End::Ops(vec![private(8, 1)]));
    assert_eq!(drive(&cdb_16(VERIFY_16, 0, 100, 1000), &[]), GOOD);
}

#[test]
fn verify_compares_every_byte() {
    for count in [1, 8, 255, 1500] {
        let cdb = cdb_16(VERIFY_16, 0x02, 100, u32::try_from(count).unwrap());
        let data = blocks(100, count);
        assert_eq!(drive(&cdb, &data), GOOD);
        for at in [0, 511, data.len() / 2, data.len() - 1] {
            let mut other = data.clone();
            other[at] ^= 1;
            let lba = 100 + u32::try_from(at / 512).unwrap();
            assert_eq!(drive(&cdb, &other), miscompare(lba), "{at}");
        }
        // Of several differences the first is told.
        let mut other = data.clone();
        other[data.len() - 1] ^= 0x80;
        other[7] ^= 0x80;
        assert_eq!(drive(&cdb, &other), miscompare(100));
    }
}

#[test]
fn verify_with_one_block_compares_each() {
    let cdb = |lba, count| cdb_10(VERIFY_10, 0x06, lba, count);
    assert_eq!(drive(&cdb(7, 1), &[7; 512]), GOOD);
    assert_eq!(drive(&cdb(7, 2), &[7; 512]), miscompare(8));
    assert_eq!(drive(&cdb(7, 2), &[8; 512]), miscompare(7));
    let mut zeros = vec![0; 2 << 20];
    let ask = cdb(100, 2000);
    assert_eq!(drive_on(&mut zeros, &ask, &[0; 512], 8, |_| None).0, End::Good);
    zeros[2099 * 512 + 511] = 1;
    let last = (End::Check(0x0e, 0x1d, 0x00), Some(2099), 5);
    assert_eq!(drive_on(&mut zeros, &ask, &[0; 512], 8, |_| None), last);
}

#[test]
fn a_miscompare_far_away_is_not_valid_information() {
    let limits = Limits { size: 4 << 40, ..geometry().limits };
    let mut unit = LogicalUnit::new(Geometry { size: 4 << 40, limits, ..geometry() });
    let command = decode(&cdb_16(VERIFY_16, 0x02, 0x1_0000_0000, 1)).unwrap();
    let step = unit.start(&command, &Transfer { len: 512 }, None, &[], &mut Vec::new());
    let Step::Run(mut job) = step else { panic!("{step:?}") };
    let op = job.next_task().unwrap().op;
    let answer = Answer { data: vec![1; 512], ..Answer::default() };
    let finished = Finished { op, result: Ok(()), answer };
    let zeros = |_: usize, to: &mut [u8]| {
        to.fill(0);
        to.len()
    };
    let Step::Done(outcome) = unit.resume(&mut job, finished, &zeros, &mut Vec::new()) else { panic!() };
    let sense = outcome.sense().unwrap();
    assert_eq!(sense[..14], [0x70, 0, 0x0e, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x1d, 0x00]);
}

#[test]
fn nothing_to_verify_is_good() {
    assert_eq!(run(&cdb_10(VERIFY_10, 0x00, 131_072, 0), 0), End::Good);
    assert_eq!(run(&cdb_10(VERIFY_10, 0x02, 131_072, 0), 0), End::Good);
    assert_eq!(run(&cdb_16(VERIFY_16, 0x06, 131_072, 0), 0), End::Good);
    assert_eq!(run(&cdb_10(0x2e, 0x02, 131_072, 0), 0), End::Good);
    for byte_1 in [0x00, 0x02, 0x06] {
        assert_eq!(run(&cdb_10(VERIFY_10, byte_1, 131_073, 0), 0), OUT_OF_RANGE);
        assert_eq!(run(&cdb_16(VERIFY_16, byte_1, u64::MAX, 0), 0), OUT_OF_RANGE);
    }
    assert_eq!(run(&cdb_16(0x8e, 0, 131_073, 0), 0), OUT_OF_RANGE);
    assert_eq!(run(&cdb_16(VERIFY_16, 0x00, 131_071, 2), 0), OUT_OF_RANGE);
}

#[test]
fn what_to_compare_with_must_be_all_there() {
    for len in [0, 512, 1023, 1025] {
        assert_eq!(run(&cdb_10(VERIFY_10, 0x02, 0, 2), len), BAD_LENGTH, "{len}");
        assert_eq!(run(&cdb_10(0x2e, 0x00, 0, 2), len), BAD_LENGTH, "{len}");
    }
    for len in [0, 511, 1024] {
        assert_eq!(run(&cdb_10(VERIFY_10, 0x06, 0, 2), len), BAD_LENGTH, "{len}");
    }
    // BYTCHK 00b has no data; a buffer that comes all the same is not looked at.
    assert!(matches!(run(&cdb_10(VERIFY_10, 0x00, 0, 2), 1024), End::Ops(_)));
}

#[test]
fn write_and_verify_writes_first() {
    let (data, mut disk) = (blocks(3, 600), disk());
    let cdb = |byte_1| cdb_16(0x8e, byte_1, 100, 600);
    assert_eq!(run(&cdb(0x02), data.len()), End::Ops(vec![(Op::Write(range(100, 600)), true)]));
    for byte_1 in [0x00, 0x02] {
        let end = drive_on(&mut disk, &cdb(byte_1), &data, 8, |_| None);
        assert_eq!(end, (End::Good, None, 1 + 2)); // pieces of 412 and 188 blocks
        assert_eq!(disk[100 * 512..700 * 512], data);
        disk[100 * 512..700 * 512].fill(0xff);
    }
}

#[test]
fn write_and_verify_finds_what_was_not_written() {
    let data = blocks(3, 600);
    let cdb = cdb_16(0x8e, 0x02, 100, 600);
    // The disk never gets the data: the first block read back differs.
    let mut disk = disk();
    let mut unit = LogicalUnit::new(Geometry { size: 4096 * 512, ..geometry() });
    let step = unit.start(&decode(&cdb).unwrap(), &Transfer { len: data.len() }, None, &[], &mut Vec::new());
    let Step::Run(mut job) = step else { panic!("{step:?}") };
    let write = job.next_task().unwrap();
    assert_eq!(write, Task { op: Op::Write(range(100, 600)), memory: Memory::Command });
    assert_eq!(job.next_task(), None, "nothing is read before it is written");
    assert!(matches!(resume(&mut unit, &mut job, write.op, Ok(())), Step::Wait));
    let read = job.next_task().unwrap();
    assert_eq!(read, Task { op: Op::Read(range(100, 412)), memory: Memory::Private(412 * 512) });
    let answer = Answer { data: disk[100 * 512..512 * 512].to_vec(), ..Answer::default() };
    let finished = Finished { op: read.op, result: Ok(()), answer };
    let data_out = |at: usize, to: &mut [u8]| {
        to.copy_from_slice(&data[at..at + to.len()]);
        to.len()
    };
    let Step::Done(outcome) = unit.resume(&mut job, finished, &data_out, &mut Vec::new()) else { panic!() };
    assert_eq!(end_of(outcome), End::Check(0x0e, 0x1d, 0x00));
    assert_eq!(outcome.sense().unwrap()[3..7], [0, 0, 0, 100]);
    // A write that fails is not verified, a failed reading back is a read error.
    let writes = |op| matches!(op, Op::Write(_)).then_some(ErrorKind::Io);
    assert_eq!(drive_on(&mut disk, &cdb, &data, 8, writes), (End::Check(0x03, 0x0c, 0x00), Some(100), 1));
    let reads = |op| matches!(op, Op::Read(_)).then_some(ErrorKind::Io);
    assert_eq!(drive_on(&mut disk, &cdb, &data, 1, reads), (End::Check(0x03, 0x11, 0x00), Some(100), 2));
}

#[test]
fn the_first_failure_in_the_extent_is_told() {
    // An unreadable piece in front of a difference, and behind one.
    let data = blocks(100, 1500);
    let cdb = cdb_16(VERIFY_16, 0x02, 100, 1500);
    let mut other = data;
    other[1000 * 512] ^= 1; // LBA 1100
    for (unreadable, end) in
        [(512, (End::Check(0x03, 0x11, 0x00), Some(512))), (1536, (End::Check(0x0e, 0x1d, 0x00), Some(1100)))]
    {
        let fails = |op| match op {
            Op::Read(range) if range.offset == unreadable * 512 => Some(ErrorKind::Io),
            _ => None,
        };
        let (got, information, ran) = drive_on(&mut disk(), &cdb, &other, 8, fails);
        assert_eq!((got, information), end);
        assert_eq!(ran, 4, "412, 512, 512 and 64 blocks");
    }
}
