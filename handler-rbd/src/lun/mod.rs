//! What a command does to this disk.
//!
//! No threads, no clocks, no I/O: [`LogicalUnit::start`] turns a command into an answer, a reply or a [`Job`]
//! of storage operations, [`LogicalUnit::resume`] turns the operations' results into an answer. Commands with
//! parameters get them as plain bytes that their sender can no longer change. READ and WRITE allocate
//! nothing. Knows nothing of the ring or of Ceph.

mod access;
mod copy;
mod erase;
mod exchange;
mod fill;
mod inform;
mod job;
mod lba_status;
mod orwrite;
pub mod outcome;
mod pieces;
mod provision;
mod verify;

pub use crate::scsi::identity::{Identity, PortGroup, TargetPort};
pub use exchange::Again;
pub use fill::MAX_UNMAP_DESCRIPTORS;
use job::Role;
pub use job::{Answer, DataOut, Finished, Job, Memory, Task};
pub use outcome::Outcome;

use crate::block::{ByteRange, Limits};
use crate::scsi::extended_copy::{self, CopyResults};
use crate::scsi::{Command, Extent, Sense, mode_select, opcode};

/// What a logical unit is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical block length in bytes.
    pub block_size: u32,
    /// Size of the disk in bytes, as the kernel has it. A last part of a block is not part of the disk.
    pub size: u64,
    /// The kernel's `hw_max_sectors`, in blocks.
    pub max_sectors: u32,
    /// What the image can do.
    pub limits: Limits,
}

/// The data buffer that came with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its length in bytes: what the initiator's transport expects, whatever its CDB says.
    pub len: usize,
}

/// What to do next about a command.
#[derive(Debug)]
#[must_use = "a step not taken leaves its command unanswered"]
pub enum Step {
    /// It is over.
    Done(Outcome),
    /// It is over with GOOD and the bytes in the reply, which are within the allocation length already. What
    /// of the data buffer they do not fill is stale and must not reach the initiator.
    Reply,
    /// Start the job's tasks.
    Run(Job),
    /// Only from `resume`: take further tasks of the job if it has any, and wait for the others.
    Wait,
    /// Only from `resume`: answer the command now; then as [`Step::Wait`], with a job that nobody waits for.
    Detach(Outcome),
}

/// A disk.
#[derive(Debug)]
pub struct LogicalUnit {
    block_size: u32,
    /// Capacity in blocks.
    blocks: u64,
    max_transfer: u32,
    limits: Limits,
    /// A unit attention to report, once. The ring does not say which initiator a command is from, so there
    /// is one for all, and the first to come takes it.
    attention: Option<Sense>,
    copies: copy::Copies,
    condition: erase::Condition,
}

impl LogicalUnit {
    /// A disk of this geometry, with nothing to report.
    pub fn new(geometry: Geometry) -> Self {
        let block_size = geometry.block_size.max(1);
        Self {
            block_size,
            blocks: geometry.size / u64::from(block_size),
            max_transfer: geometry.max_sectors,
            limits: geometry.limits,
            attention: None,
            copies: copy::Copies::default(),
            condition: erase::Condition::Ready,
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }

    /// Length of a block in bytes.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Reads a CDB. A command that this disk cannot have is not known, whatever its fields hold.
    pub fn decode(&self, cdb: &[u8]) -> Result<Command, Sense> {
        crate::scsi::decode(cdb).map_err(|sense| match opcode::row(cdb) {
            // Of a target port is not known here; `start` sees.
            Some(row) if !self.has(row.need(), true) => Sense::INVALID_OPCODE,
            _ => sense,
        })
    }

    /// Whether `start` needs an identity for this command.
    pub fn needs_identity(command: &Command) -> bool {
        inform::needs_identity(command)
    }

    /// How many of the data buffer's first bytes `start` wants to see as `params`; fewer if the buffer is
    /// shorter. UNMAP, MODE SELECT, EXTENDED COPY, FORMAT UNIT, SANITIZE: the parameter list. WRITE SAME that may
    /// unmap: its block, to see whether it is zero.
    pub fn parameters(&self, command: &Command) -> usize {
        provision::parameters(command, self.block_size)
    }

    /// Begins a command again that storage may have done, in part or as a whole, for a process that died. `None`: begin it
    /// as usual ([`LogicalUnit::start`]); most commands do no harm when they are done twice (docs/recovery.md).
    pub fn start_again(&self, command: &Command, transfer: &Transfer, again: Again) -> Option<Step> {
        match *command {
            // One over itself, begun again, would copy what it has changed. The initiator copies by itself.
            Command::ExtendedCopy { list: 1.. } => Some(Step::Done(extended_copy::failed(0).into())),
            Command::CompareAndWrite(extent) => {
                let Ok(Step::Run(_)) = access::compare_and_write(self, extent, *transfer) else {
                    return None;
                };
                Some(Step::Run(exchange::job(self.locate(extent).ok()?, Some(again))))
            }
            _ => None,
        }
    }

    /// Begins a command.
    ///
    /// `params` holds what [`LogicalUnit::parameters`] asked for. `reply` is cleared, and filled if the step
    /// is [`Step::Reply`].
    pub fn start(
        &mut self,
        command: &Command,
        transfer: &Transfer,
        identity: Option<&Identity>,
        params: &[u8],
        reply: &mut Vec<u8>,
    ) -> Step {
        if let Some(attention) = self.attention
            && !bypasses_attention(command)
        {
            self.attention = None;
            return Step::Done(attention.into());
        }
        if let Some(refusal) = self.condition.refusal(command) {
            return Step::Done(refusal);
        }
        self.plan(command, *transfer, identity, params, reply)
            .unwrap_or_else(|sense| Step::Done(sense.into()))
    }

    fn plan(
        &mut self,
        command: &Command,
        transfer: Transfer,
        identity: Option<&Identity>,
        params: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Step, Sense> {
        if command.writes_without_data() {
            // The kernel checks reservations, but those of a Write Exclusive type only for commands with data from
            // the initiator (`core_scsi3_pr_seq_non_holder`). Who sent this one the ring does not say, so with such a
            // reservation even its holder is refused.
            match identity {
                None => return Err(Sense::INTERNAL_FAILURE),
                Some(identity) if identity.write_exclusive => {
                    return Ok(Step::Done(Outcome::ReservationConflict));
                }
                // Nor does it keep such a command from an initiator that may only read (`transport_lookup_cmd_lun`). Both go
                // by the direction of the data, so neither stops a WRITE whose initiator says that it reads; the ring
                // does not tell the direction, and nor can we (docs/scsi.md, "Reservations").
                Some(identity) if identity.read_only => return Err(Sense::WRITE_PROTECTED),
                Some(_) => {}
            }
        }
        match *command {
            Command::Read(extent) => access::read(self, extent, transfer),
            Command::Write(extent) => access::write(self, extent, transfer),
            Command::CompareAndWrite(extent) => access::compare_and_write(self, extent, transfer),
            Command::PreFetch(extent) => access::pre_fetch(self, extent),
            Command::WriteAtomic(extent) => access::write_atomic(self, extent, transfer),
            Command::OrWrite(extent) => orwrite::orwrite(self, extent, transfer),
            Command::GetLbaStatus { lba, scan, allocation } => lba_status::get(self, lba, scan, allocation),
            Command::SynchronizeCache(extent) => access::synchronize_cache(self, extent),
            Command::Verify { extent, check } => verify::verify(self, extent, check, transfer),
            Command::WriteAndVerify { extent, check } => {
                verify::write_and_verify(self, extent, check, transfer)
            }
            Command::WriteSame { extent, unmap, no_data, blocks_at } => {
                let ask = provision::WriteSame { extent, unmap, no_data, blocks_at };
                provision::write_same(self, &ask, transfer, params)
            }
            Command::ExtendedCopy { list } => copy::extended_copy(self, list, transfer, identity, params),
            Command::Unmap { list } => provision::unmap(self, list, params),
            Command::FormatUnit { list } => erase::format(self, list, params),
            Command::Sanitize(ask) => erase::sanitize(self, ask, params),
            // SAM-4, "Unit attention condition": asked like this, a pending one is told in the reply, once.
            Command::RequestSense { descriptor, allocation } => {
                let sense = self.attention.take().unwrap_or(self.condition.sense());
                inform::request_sense(sense, descriptor, allocation, reply);
                Ok(Step::Reply)
            }
            // The kernel answers for a device that is not set up; one that got here is ready.
            Command::TestUnitReady | Command::StartUnit | Command::PreventAllowMediumRemoval => {
                Ok(Step::Done(Outcome::Good))
            }
            Command::ModeSelect { long, list } => {
                // Fewer parameters than the CDB says is what a data buffer shorter than that gives.
                let list = params.get(..usize::from(list)).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
                mode_select::check(long, list)?;
                Ok(Step::Done(Outcome::Good))
            }
            Command::Inquiry { .. }
            | Command::ModeSense(_)
            | Command::LogSense { .. }
            | Command::ReadDefectData { .. }
            | Command::ReadCapacity10
            | Command::ReadCapacity16 { .. }
            | Command::ReportSupportedOperationCodes { .. }
            | Command::ReportSupportedTaskManagementFunctions { .. }
            | Command::ReceiveCopyResults { .. }
            | Command::ReportTargetPortGroups { .. } => {
                inform::reply(self, command, identity, reply)?;
                if let Command::ReceiveCopyResults { ask: CopyResults::Status(id), .. } = *command {
                    self.copies.told(id);
                }
                Ok(Step::Reply)
            }
        }
    }

    /// Takes the result of one task of a job: [`Step::Done`] or [`Step::Reply`] if nothing of the job is left to do or
    /// to wait for, else [`Step::Wait`] or [`Step::Detach`]. `data_out` reads the command's data buffer.
    pub fn resume(
        &mut self,
        job: &mut Job,
        finished: Finished,
        data_out: DataOut<'_>,
        reply: &mut Vec<u8>,
    ) -> Step {
        let came_back = (finished.op, finished.result);
        let step = job.finish(finished, self.block_size, data_out, reply).unwrap_or(Step::Wait);
        match job.role() {
            Role::Copy(serial) => self.copies.went_on(serial, job.copied(), &step),
            Role::Io | Role::Exchange(_) | Role::Erasure | Role::Exit => self.watch(job, came_back, &step),
        }
        step
    }

    /// A job has ended because of a defect of ours.
    pub fn spoilt(&mut self, job: &Job) {
        match job.role() {
            Role::Copy(serial) => {
                self.copies.went_on(serial, job.copied(), &Step::Done(Sense::INTERNAL_FAILURE.into()));
            }
            Role::Erasure => self.erasure_is_spoilt(),
            Role::Io | Role::Exchange(_) | Role::Exit => {}
        }
    }

    /// All jobs in progress are void: none is resumed any more.
    pub fn jobs_are_void(&mut self) {
        self.copies.forget_running();
    }

    /// The disk has a new size. The next command that may report it does.
    pub fn resize(&mut self, size: u64) {
        let blocks = size / u64::from(self.block_size);
        if blocks != self.blocks {
            self.blocks = blocks;
            self.attention = Some(Sense::CAPACITY_CHANGED);
        }
    }

    /// The bytes of an extent, if it is on the disk.
    ///
    /// An empty extent may begin where the disk ends, but not beyond: SBC-3, "READ (10) command", refuses an
    /// LBA, or an LBA plus length, that exceeds the capacity, whether or not anything is transferred. The
    /// kernel draws the same line for its own backstores (`sbc_parse_cdb`).
    fn locate(&self, extent: Extent) -> Result<ByteRange, Sense> {
        let range = || {
            let end = extent.lba.0.checked_add(extent.blocks.0)?;
            if end > self.blocks {
                return None;
            }
            let size = u64::from(self.block_size);
            Some(ByteRange {
                offset: extent.lba.0.checked_mul(size)?,
                len: extent.blocks.0.checked_mul(size)?,
            })
        };
        range().ok_or(Sense::LBA_OUT_OF_RANGE)
    }

    /// So many bytes or a little less, in whole blocks; at least one.
    fn whole_blocks(&self, bytes: u64) -> u64 {
        let block = u64::from(self.block_size);
        (bytes / block).max(1).saturating_mul(block)
    }
}

/// SAM-4, "Unit attention condition": these commands are carried out although one is pending, and INQUIRY
/// leaves it pending.
fn bypasses_attention(command: &Command) -> bool {
    matches!(command, Command::Inquiry { .. } | Command::RequestSense { .. })
}

#[cfg(test)]
mod tests;
