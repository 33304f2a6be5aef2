//! One command from its CDB to its end, as the device's loop drives it. The only place that does.

use crate::disk::{Disk, Script, error};
use handler_rbd::block::{ErrorKind, Op};
use handler_rbd::lun::{Answer, Finished, Job, LogicalUnit, Memory, Outcome, Step, Task, Transfer};
use handler_rbd::scsi::Command;
use handler_rbd::scsi::identity::{Identity, PortGroup, TargetPort};

/// UNIT SERIAL NUMBER of the disk, and the NAA designator that LIO makes of it: 6h, the OUI 001405h, and the first
/// 25 hexadecimal digits.
const SERIAL: &str = "f8cc0e02-e1d0-403a-907b-2f3e44e14bd0";
pub(crate) const NAA: [u8; 16] = 0x6001405_f8cc0e02e1d0403a907b2f3e4_u128.to_be_bytes();

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How it was answered; GOOD with a reply.
    pub outcome: Outcome,
    /// How its job ended, if the answer was given before.
    pub late: Option<Outcome>,
    /// The reply, if that is how it ended.
    pub reply: Option<Vec<u8>>,
    /// Its operations and how they ended, in that order.
    pub ops: Vec<(Op, Result<(), ErrorKind>)>,
    /// How much of the data buffer is an answer.
    pub data_in: u64,
    /// Whether its job had the disk to itself.
    pub exclusive: bool,
}

impl End {
    fn new() -> Self {
        let ops = vec![];
        Self { outcome: Outcome::Good, late: None, reply: None, ops, data_in: 0, exclusive: false }
    }

    /// What became of it in the end.
    pub fn at_last(&self) -> Outcome {
        self.late.unwrap_or(self.outcome)
    }
}

/// What happens around a command.
pub(crate) struct Around<'a> {
    /// Whether the kernel's configuration has a port for it.
    pub(crate) port: bool,
    /// Whether somebody holds a reservation of a Write Exclusive type.
    pub(crate) write_exclusive: bool,
    /// Operations side by side.
    pub(crate) fan_out: usize,
    pub(crate) script: Script<'a>,
}

/// An operation that storage has.
struct Out {
    op: Op,
    lent: Lent,
}

/// What it works on.
enum Lent {
    Command,
    Private(Vec<u8>),
}

pub(crate) fn drive(
    unit: &mut LogicalUnit,
    disk: &mut Disk,
    cdb: &[u8],
    buffer: &mut [u8],
    around: &mut Around<'_>,
) -> End {
    let mut end = End::new();
    let command = match unit.decode(cdb) {
        Ok(command) => command,
        Err(sense) => return End { outcome: sense.into(), ..end },
    };
    match start(unit, &command, buffer, around, &mut end) {
        Step::Done(outcome) => End { outcome, ..end },
        Step::Reply => end,
        Step::Run(job) => run(unit, disk, job, Some(buffer), around, end),
        step @ (Step::Wait | Step::Detach(_)) => panic!("{step:?} is no answer to start"),
    }
}

/// Carries out the erasure that nobody waits for, if there is one.
pub(crate) fn resume_erasure(
    unit: &mut LogicalUnit,
    disk: &mut Disk,
    around: &mut Around<'_>,
) -> Option<End> {
    let job = unit.resume_erasure()?;
    Some(run(unit, disk, job, None, around, End::new()))
}

/// Runs a job to its end, with the command's data buffer as long as it has one.
fn run(
    unit: &mut LogicalUnit,
    disk: &mut Disk,
    mut job: Job,
    mut buffer: Option<&mut [u8]>,
    around: &mut Around<'_>,
    mut end: End,
) -> End {
    end.exclusive = job.is_exclusive();
    let (mut out, mut answered): (Vec<Out>, _) = (vec![], buffer.is_none());
    let mut reply = vec![0xee; 4];
    let outcome = loop {
        while out.len() < around.fan_out.max(1) {
            let Some(Task { op, memory }) = job.next_task() else { break };
            // Whoever has the command's buffer has it alone; nor can it be copied meanwhile.
            let wants = matches!(memory, Memory::Command | Memory::Copy(_));
            let lent = answered || out.iter().any(|other| matches!(other.lent, Lent::Command));
            assert!(!(wants && lent), "{op:?}: the command's buffer is lent, or gone");
            out.push(Out { op, lent: lend(memory, buffer.as_deref().unwrap_or_default()) });
        }
        assert!(!out.is_empty(), "the job has not ended, waits for nothing and has nothing to do");
        if end.exclusive {
            assert_not_ready(unit);
        }
        let (next, fate) = around.script.next(out.len());
        let Out { op, lent } = out.swap_remove(next);
        let mut answer = Answer::default();
        let result = match lent {
            Lent::Command => {
                let buffer = buffer.as_deref_mut().unwrap_or_default();
                disk.carry_out(op, buffer, &mut answer.extents, fate)
            }
            Lent::Private(mut bytes) => {
                let result = disk.carry_out(op, &mut bytes, &mut answer.extents, fate);
                answer.data = bytes;
                result
            }
        };
        end.ops.push((op, result));
        let finished = Finished { op, result: result.map_err(error), answer };
        let there = buffer.as_deref().unwrap_or_default();
        let data_out = |at: usize, to: &mut [u8]| {
            let there = there.get(at..).unwrap_or_default();
            let len = there.len().min(to.len());
            to[..len].copy_from_slice(&there[..len]);
            len
        };
        match unit.resume(&mut job, finished, &data_out, &mut reply) {
            Step::Wait => {}
            Step::Done(outcome) => break outcome,
            Step::Reply => {
                assert!(!answered, "a reply for nobody");
                end.reply = Some(reply);
                break Outcome::Good;
            }
            Step::Detach(outcome) => {
                assert!(!answered && end.exclusive, "answered twice, or early");
                // The data buffer is another command's now.
                (answered, buffer, end.outcome) = (true, None, outcome);
            }
            step @ Step::Run(_) => panic!("{step:?} is only ever an answer to start"),
        }
    };
    assert!(out.is_empty(), "the command ended while storage had {} of its operations", out.len());
    assert_eq!(job.next_task(), None, "the command has ended");
    if answered {
        end.late = Some(outcome);
    } else {
        end.outcome = outcome;
        end.data_in = job.data_in();
        assert!(end.data_in <= buffer.unwrap_or_default().len() as u64);
    }
    end
}

/// While the disk is erased, others hear so.
fn assert_not_ready(unit: &mut LogicalUnit) {
    let sense = test_unit_ready(unit).sense().expect("an erasure is in progress");
    assert!(sense[2] == 0x02 && sense[12] == 0x04 && matches!(sense[13], 0x04 | 0x1b), "{sense:02x?}");
}

pub(crate) fn test_unit_ready(unit: &mut LogicalUnit) -> Outcome {
    match unit.start(&Command::TestUnitReady, &Transfer { len: 0 }, None, &[], &mut vec![]) {
        Step::Done(outcome) => outcome,
        step => panic!("{step:?}"),
    }
}

fn start(
    unit: &mut LogicalUnit,
    command: &Command,
    buffer: &[u8],
    around: &Around<'_>,
    end: &mut End,
) -> Step {
    let identity = LogicalUnit::needs_identity(command).then(|| identity(around));
    let params = &buffer[..unit.parameters(command).min(buffer.len())];
    let mut reply = vec![0xee; 4];
    let step = unit.start(command, &Transfer { len: buffer.len() }, identity.as_ref(), params, &mut reply);
    if matches!(step, Step::Reply) {
        end.reply = Some(reply);
    }
    step
}

/// The memory of an operation.
fn lend(memory: Memory, buffer: &[u8]) -> Lent {
    Lent::Private(match memory {
        Memory::Command => return Lent::Command,
        Memory::None => vec![],
        Memory::Owned(bytes) => bytes,
        Memory::Copy(len) => {
            assert!(len <= buffer.len(), "a copy of {len} bytes of {}", buffer.len());
            buffer[..len].to_vec()
        }
        Memory::Private(len) => {
            assert!(len <= PRIVATE_MAX, "a private buffer of {len} bytes");
            vec![0xdd; len]
        }
    })
}

/// Longest private buffer of one operation: that of the largest object.
const PRIVATE_MAX: usize = 4 << 20;

fn identity(around: &Around<'_>) -> Identity {
    let port = around.port.then(|| TargetPort {
        protocol: 5,
        relative_id: 1,
        group_id: 1,
        tpgt: 1,
        wwn: "iqn.2003-01.com.example:gw".into(),
    });
    Identity {
        unit_serial: SERIAL.into(),
        config: "rbd/rbd/disk_1;osd_op_timeout=30".into(),
        groups: vec![PortGroup { id: 1, supported: 0x8f, ports: vec![1], ..PortGroup::default() }],
        port,
        implicit_trans_secs: 45,
        write_exclusive: around.write_exclusive,
        read_only: false,
    }
}
