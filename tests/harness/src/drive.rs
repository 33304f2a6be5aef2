//! One command from its CDB to its end, as the device's loop drives it. The only place that does.

use crate::disk::{Disk, Script, error};
use handler_rbd::block::{ErrorKind, Op};
use handler_rbd::lun::{Finished, LogicalUnit, Memory, Outcome, Step, Task, Transfer};
use handler_rbd::scsi::identity::{Identity, PortGroup, TargetPort};
use handler_rbd::scsi::{Command, decode};

/// Longest private buffer of one operation.
const PRIVATE_MAX: usize = 1 << 20;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its outcome; GOOD with a reply.
    pub outcome: Outcome,
    /// The reply, if that is how it ended.
    pub reply: Option<Vec<u8>>,
    /// Its operations and how they ended, in that order.
    pub ops: Vec<(Op, Result<(), ErrorKind>)>,
    /// How much of the data buffer is an answer.
    pub data_in: u64,
}

/// What happens around a command.
pub(crate) struct Around<'a> {
    /// Whether the kernel's configuration has a port for it.
    pub(crate) port: bool,
    /// Operations side by side.
    pub(crate) fan_out: usize,
    pub(crate) script: Script<'a>,
}

/// An operation that storage has.
struct Out {
    task: Task,
    private: Vec<u8>,
}

pub(crate) fn drive(
    unit: &mut LogicalUnit,
    disk: &mut Disk,
    cdb: &[u8],
    buffer: &mut [u8],
    around: &mut Around<'_>,
) -> End {
    let mut end = End { outcome: Outcome::Good, reply: None, ops: vec![], data_in: 0 };
    let command = match decode(cdb) {
        Ok(command) => command,
        Err(sense) => return End { outcome: sense.into(), ..end },
    };
    let mut job = match start(unit, &command, buffer, around.port, &mut end) {
        Step::Done(outcome) => return End { outcome, ..end },
        Step::Reply => return end,
        Step::Run(job) => job,
        Step::Wait => panic!("start never waits"),
    };
    let mut out: Vec<Out> = vec![];
    end.outcome = loop {
        while out.len() < around.fan_out.max(1) {
            let Some(task) = job.next_task() else { break };
            // Whoever has the command's buffer has it alone; nor can it be copied meanwhile.
            let wants = matches!(task.memory, Memory::Command | Memory::Copy(_));
            let lent = out.iter().any(|other| other.task.memory == Memory::Command);
            assert!(!(wants && lent), "{task:?}: the command's buffer is lent");
            out.push(Out { private: private(task.memory, buffer), task });
        }
        assert!(!out.is_empty(), "the job has not ended, waits for nothing and has nothing to do");
        let (next, failure) = around.script.next(out.len());
        let Out { task: Task { op, memory }, mut private } = out.swap_remove(next);
        let lent = if memory == Memory::Command { &mut *buffer } else { &mut private };
        let result = disk.carry_out(op, lent, failure);
        end.ops.push((op, result));
        let finished = Finished { op, result: result.map_err(error), data: &private };
        let data_out = |at: usize, to: &mut [u8]| {
            let there = buffer.get(at..).unwrap_or_default();
            let len = there.len().min(to.len());
            to[..len].copy_from_slice(&there[..len]);
            len
        };
        match unit.resume(&mut job, &finished, &data_out) {
            Step::Wait => {}
            Step::Done(outcome) => break outcome,
            step @ (Step::Reply | Step::Run(_)) => panic!("{step:?} is only ever an answer to start"),
        }
    };
    assert!(out.is_empty(), "the command ended while storage had {} of its operations", out.len());
    assert_eq!(job.next_task(), None, "the command has ended");
    end.data_in = job.data_in();
    assert!(end.data_in <= buffer.len() as u64);
    end
}

fn start(unit: &mut LogicalUnit, command: &Command, buffer: &[u8], port: bool, end: &mut End) -> Step {
    let identity = LogicalUnit::needs_identity(command).then(|| identity(port));
    let params = &buffer[..unit.parameters(command).min(buffer.len())];
    let mut reply = vec![0xee; 4];
    let step = unit.start(command, &Transfer { len: buffer.len() }, identity.as_ref(), params, &mut reply);
    if matches!(step, Step::Reply) {
        end.reply = Some(reply);
    }
    step
}

/// The private memory of an operation.
fn private(memory: Memory, buffer: &[u8]) -> Vec<u8> {
    match memory {
        Memory::None | Memory::Command => vec![],
        Memory::Copy(len) => {
            assert!(len <= buffer.len(), "a copy of {len} bytes of {}", buffer.len());
            buffer[..len].to_vec()
        }
        Memory::Private(len) => {
            assert!(len <= PRIVATE_MAX, "a private buffer of {len} bytes");
            vec![0xdd; len]
        }
    }
}

fn identity(port: bool) -> Identity {
    let port = port.then(|| TargetPort {
        protocol: 5,
        relative_id: 1,
        group_id: 1,
        tpgt: 1,
        wwn: "iqn.2003-01.com.example:gw".into(),
    });
    Identity {
        unit_serial: "f8cc0e02-e1d0-403a-907b-2f3e44e14bd0".into(),
        config: "rbd/rbd/disk_1;osd_op_timeout=30".into(),
        groups: vec![PortGroup { id: 1, supported: 0x8f, ports: vec![1], ..PortGroup::default() }],
        port,
        implicit_trans_secs: 45,
    }
}
