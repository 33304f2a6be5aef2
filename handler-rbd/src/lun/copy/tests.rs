use super::*;
use crate::block::ErrorKind;
use crate::lun::Finished;
use proptest::prelude::*;

const SIZE: u64 = 4096;
/// Pretended objects.
const OBJECT: u64 = 64;

fn job(segments: &[(u64, u64, u64)]) -> Result<Job, Sense> {
    let segment = |&(source, destination, len)| Segment { source, destination, len };
    let copy = Copy::new(segments.iter().map(segment).collect(), SIZE, OBJECT)?;
    Ok(Job::many(copy).with_role(Role::Copy(0)))
}

fn part(range: ByteRange) -> std::ops::Range<usize> {
    usize::try_from(range.offset).unwrap()..usize::try_from(range.offset + range.len).unwrap()
}

/// Runs a job on a disk. `choose` says which of so many operations under way ends next; an operation acts when it
/// ends. Says how the job ended and the most operations and bytes of memory under way.
fn drive(
    job: &mut Job,
    disk: &mut [u8],
    depth: usize,
    mut choose: impl FnMut(usize) -> usize,
) -> (Step, usize, usize) {
    let (mut out, mut most, mut memory): (Vec<Task>, _, _) = (Vec::new(), 0, 0);
    loop {
        while out.len() < depth {
            let Some(task) = job.next_task() else { break };
            out.push(task);
        }
        most = most.max(out.len());
        let bytes = |task: &Task| match &task.memory {
            Memory::Private(len) => *len,
            Memory::Owned(bytes) => bytes.len(),
            _ => 0,
        };
        memory = memory.max(out.iter().map(bytes).sum::<usize>());
        let next = choose(out.len()) % out.len();
        let Task { op, memory: lent } = out.swap_remove(next);
        let mut data = match lent {
            Memory::Private(len) => vec![0xee; len],
            Memory::Owned(bytes) => bytes,
            _ => vec![],
        };
        match op {
            Op::Read(range) => data.copy_from_slice(&disk[part(range)]),
            Op::Write(range) => disk[part(range)].copy_from_slice(&data),
            Op::WriteZeroes(range) => disk[part(range)].fill(0),
            op => panic!("{op:?}"),
        }
        let finished = Finished { op, result: Ok(()), answer: Answer { data, ..Answer::default() } };
        if let Some(step) = job.finish(finished, 1, &|_, _| 0, &mut Vec::new()) {
            assert!(out.is_empty());
            return (step, most, memory);
        }
    }
}

fn pattern() -> Vec<u8> {
    (0..SIZE).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

proptest! {
    #[test]
    fn a_copy_is_as_if_all_had_been_read_first(
        segments in prop::collection::vec((0..SIZE, 0..SIZE, 0_u64..1500, any::<bool>()), 1..4),
        depth in 1_usize..10,
        choices in prop::collection::vec(any::<usize>(), 400),
    ) {
        // Half of them near their source, to overlap.
        let segments: Vec<_> = segments
            .into_iter()
            .map(|(from, to, len, near)| (from, if near { (from / 8 * 8 + to % 200).saturating_sub(100) } else { to }, len))
            .map(|(from, to, len)| (from, to, len.min(SIZE - from).min(SIZE.saturating_sub(to))))
            .filter(|&(_, to, _)| to <= SIZE)
            .collect();
        let (mut disk, mut expected) = (pattern(), pattern());
        for &(from, to, len) in &segments {
            let source = part(ByteRange { offset: from, len });
            expected.copy_within(source, usize::try_from(to).unwrap());
        }
        let mut job = job(&segments).unwrap();
        if segments.iter().any(|&(_, _, len)| len > 0) {
            let mut choices = choices.into_iter().cycle();
            let (step, _, memory) = drive(&mut job, &mut disk, depth, |_| choices.next().unwrap());
            prop_assert!(matches!(step, Step::Done(Outcome::Good)));
            prop_assert!(memory <= 8 * 64);
        }
        prop_assert_eq!(disk, expected);
    }
}

#[test]
fn eight_chunks_side_by_side() {
    let mut disk = pattern();
    let mut job = job(&[(0, 2048, 2048)]).unwrap();
    let (_, most, _) = drive(&mut job, &mut disk, 100, |_| 0);
    assert_eq!(most, 8);
    assert_eq!(disk[2048..], disk[..2048]);
}

#[test]
fn zeros_stay_thin() {
    let mut job = job(&[(0, 1024, 128)]).unwrap();
    let read = job.next_task().unwrap();
    assert_eq!(read.op, Op::Read(ByteRange { offset: 0, len: 64 }));
    let answer = Answer { data: vec![0; 64], ..Answer::default() };
    let finished = Finished { op: read.op, result: Ok(()), answer };
    assert!(job.finish(finished, 1, &|_, _| 0, &mut Vec::new()).is_none());
    let zeroes = Op::WriteZeroes(ByteRange { offset: 1024, len: 64 });
    assert_eq!(job.next_task(), Some(Task { op: zeroes, memory: Memory::None }));
}

#[test]
fn segments_beyond_the_disk_copy_nothing() {
    for bad in [(SIZE - 10, 0, 11), (0, SIZE, 1), (u64::MAX, 0, 2)] {
        let sense = job(&[(0, 100, 10), bad]).unwrap_err().to_bytes();
        assert_eq!((sense[2], sense[12], sense[13], sense[11]), (0x0a, 0x0d, 0x02, 1), "the second segment");
    }
    assert!(job(&[(0, SIZE, 0), (SIZE - 1, 0, 1)]).is_ok());
}

#[test]
fn a_failure_names_its_segment_and_stops() {
    let mut job = job(&[(0, 100, 0), (0, 1000, 10), (0, 2000, 500)]).unwrap();
    let mut disk = pattern();
    let mut writes = 0;
    let step = loop {
        let Some(Task { op, memory }) = job.next_task() else { panic!("nothing to do and no end") };
        let mut data = match memory {
            Memory::Private(len) => vec![0; len],
            Memory::Owned(bytes) => bytes,
            _ => vec![],
        };
        if let Op::Read(range) = op {
            data.copy_from_slice(&disk[part(range)]);
        }
        writes += usize::from(matches!(op, Op::Write(_)));
        let result = if writes == 3 { Err(BackendError::new(ErrorKind::TimedOut)) } else { Ok(()) };
        let finished = Finished { op, result, answer: Answer { data, ..Answer::default() } };
        if let Some(step) = job.finish(finished, 1, &|_, _| 0, &mut Vec::new()) {
            break step;
        }
    };
    let Step::Done(outcome) = step else { panic!("{step:?}") };
    let sense = outcome.sense().unwrap();
    assert_eq!(sense[..14], [0x70, 0, 0x0a, 0, 0, 0, 0, 0x0a, 0, 0, 0, 2, 0x0d, 0x01]);
    assert_eq!(job.next_task(), None);
    assert_eq!(job.copied(), Progress { segments: 2, bytes: 10 + 48 }, "up to 2048, where an object ends");
    disk.clear();
}

#[test]
fn an_abort_ends_it_early() {
    let mut job = job(&[(0, 2048, 2048)]).unwrap();
    let tasks: Vec<_> = std::iter::from_fn(|| job.next_task()).collect();
    job.abort();
    assert_eq!(job.next_task(), None);
    let mut ends = Vec::new();
    for Task { op, .. } in tasks {
        let answer = Answer { data: vec![1; 64], ..Answer::default() };
        ends.extend(job.finish(Finished { op, result: Ok(()), answer }, 1, &|_, _| 0, &mut Vec::new()));
    }
    let [Step::Done(Outcome::CheckCondition(sense))] = ends[..] else { panic!("{ends:?}") };
    assert_eq!(sense.to_bytes()[2], 0x0b);
}

#[test]
fn the_latest_sixteen_are_known() {
    let mut copies = Copies::default();
    let serials: Vec<_> = (0..20).map(|id| copies.begin(Some(id), true)).collect();
    let nameless = copies.begin(None, false);
    assert_eq!(copies.running, 21);
    assert!(copies.find(3).is_none() && copies.find(4).is_some());
    let progress = Progress { segments: 1, bytes: 2 };
    copies.went_on(serials[4], progress, &Step::Wait);
    assert_eq!(
        copies.find(4).map(|known| (known.state, known.progress)),
        Some((CopyState::Running, progress))
    );
    copies.went_on(serials[4], progress, &Step::Done(Outcome::Busy));
    assert_eq!(copies.find(4).map(|known| known.state), Some(CopyState::Failed(8, None)));
    copies.went_on(nameless, progress, &Step::Done(Outcome::Good));
    assert_eq!(copies.running, 19);
    copies.forget_running();
    assert_eq!((copies.running, copies.known.len()), (0, 1));
}

#[test]
fn an_ended_copy_is_told_of_once_or_never() {
    let mut copies = Copies::default();
    let known = |copies: &Copies, id| copies.find(id).map(|known| known.told);
    for (id, keep) in [(1, true), (2, false)] {
        let serial = copies.begin(Some(id), keep);
        copies.told(id);
        assert_eq!(known(&copies, id), Some(false), "{id}: as long as it runs it is told of");
        copies.went_on(serial, Progress::default(), &Step::Done(Outcome::Good));
    }
    assert_eq!((known(&copies, 1), known(&copies, 2)), (Some(false), None));
    copies.told(1);
    assert_eq!(known(&copies, 1), Some(true));
    let _ = copies.begin(Some(1), true);
    assert_eq!(known(&copies, 1), Some(false));
}

#[test]
fn of_two_with_one_identifier_the_older_says_nothing_of_the_newer() {
    let mut copies = Copies::default();
    let (older, newer) = (copies.begin(Some(1), true), copies.begin(Some(1), true));
    let progress = Progress { segments: 3, bytes: 4096 };
    copies.went_on(older, progress, &Step::Wait);
    copies.went_on(older, progress, &Step::Done(Outcome::Good));
    let known = |copies: &Copies| copies.find(1).map(|known| (known.state, known.progress.bytes));
    assert_eq!((known(&copies), copies.running), (Some((CopyState::Running, 0)), 1));
    copies.went_on(newer, Progress::default(), &Step::Done(Outcome::Busy));
    assert_eq!((known(&copies), copies.running), (Some((CopyState::Failed(8, None), 0)), 0));
}

/// Else eight defects would be the end of copying.
#[test]
fn a_copy_that_a_defect_has_ended_is_over() {
    let mut unit = crate::lun::tests::unit();
    let serial = unit.copies.begin(Some(3), true);
    let job = job(&[(0, 1024, 64)]).unwrap().with_role(Role::Copy(serial));
    unit.spoilt(&job);
    assert_eq!(unit.copies.running, 0);
    assert_eq!(
        unit.copies.find(3).map(|known| known.state),
        Some(CopyState::Failed(2, Some(Sense::INTERNAL_FAILURE)))
    );
}
