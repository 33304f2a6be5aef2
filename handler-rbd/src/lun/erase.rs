//! FORMAT UNIT and SANITIZE: the whole disk is erased, whatever comes in between.
//!
//! Before the first byte is touched a note of what is to be done is stored with the image; the last step takes
//! it away. Whoever opens an image with a note erases it, from the start, before anything else: it makes no
//! difference how often an erasure is done. So a command that was accepted is carried out even if this
//! process ends, and a host never finds a disk that is erased in part and says nothing.
//!
//! From the moment the command is accepted others get NOT READY with the progress. A failure is told to whoever
//! waits for it and to all that come later, until an erasure succeeds.

mod plan;
mod steps;

use super::job::Role;
use super::{Geometry, Job, LogicalUnit, Outcome, Step, provision};
use crate::block::{BackendError, ErrorKind, Op};
use crate::scsi::format::{self, Format, FormatHeader};
use crate::scsi::sanitize::{self, Sanitize, Service};
use crate::scsi::{Command, Sense};
use plan::{Cause, Content, Plan};
use steps::{Erasure, Exit};

/// What stands between initiators and the medium.
#[derive(Debug)]
pub(super) enum Condition {
    /// Nothing.
    Ready,
    /// An erasure.
    Erasing(Erasing),
    /// An erasure that failed.
    Failed(Failed),
    /// A note that is not understood.
    Unclear,
}

#[derive(Debug)]
pub(super) struct Erasing {
    plan: Plan,
    progress: u16,
    /// Whether the image may have the note.
    noted: bool,
    /// Another client has taken the image from us.
    fenced: bool,
    /// What there was before.
    before: Option<Failed>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    cause: Cause,
    fenced: bool,
}

impl Condition {
    /// What REQUEST SENSE tells.
    pub(super) fn sense(&self) -> Sense {
        match self {
            Self::Ready => Sense::NONE,
            Self::Erasing(erasing) => erasing.plan.cause.in_progress(erasing.progress),
            Self::Failed(failed) => failed.cause.has_failed(),
            Self::Unclear => Sense::MANUAL_INTERVENTION,
        }
    }

    /// The answer to a command that cannot be carried out as things stand.
    pub(super) fn refusal(&self, command: &Command) -> Option<Outcome> {
        let accepted = match self {
            Self::Ready => true,
            Self::Erasing(erasing) => {
                is_about_the_unit(command)
                    || matches!(erasing.plan.cause, Cause::Sanitize { .. }) && stays_as_it_is(command)
            }
            Self::Failed(Failed { cause: Cause::Format, .. }) => {
                needs_no_medium(command)
                    || matches!(command, Command::FormatUnit { .. } | Command::Sanitize(_))
            }
            Self::Failed(_) => needs_no_medium(command) || matches!(command, Command::Sanitize(_)),
            Self::Unclear => needs_no_medium(command),
        };
        if accepted {
            return None;
        }
        Some(match self {
            // Another path may work, and its client goes on with the erasure.
            Self::Failed(Failed { fenced: true, .. }) => Outcome::Busy,
            _ => self.sense().into(),
        })
    }
}

/// INQUIRY and REQUEST SENSE are carried out during an erasure (SBC-3, "FORMAT UNIT command", "Sanitize
/// operations"), and what says how to talk to this unit and over which path.
fn is_about_the_unit(command: &Command) -> bool {
    matches!(
        command,
        Command::Inquiry { .. }
            | Command::RequestSense { .. }
            | Command::ReportSupportedOperationCodes { .. }
            | Command::ReportSupportedTaskManagementFunctions { .. }
            | Command::ReportTargetPortGroups { .. }
    )
}

/// What a SANITIZE leaves alone is told while it runs (SBC-4, "Commands allowed during sanitize").
fn stays_as_it_is(command: &Command) -> bool {
    match command {
        Command::ReadCapacity10 | Command::ReadCapacity16 { .. } => true,
        // Caching and Control.
        Command::ModeSense(ask) => matches!(ask.page, 0x08 | 0x0a),
        _ => false,
    }
}

/// Commands that are not about what is on the medium. TEST UNIT READY is.
fn needs_no_medium(command: &Command) -> bool {
    let harmless = matches!(
        command,
        Command::ModeSense(_)
            | Command::ModeSelect { .. }
            | Command::LogSense { .. }
            | Command::PreventAllowMediumRemoval
            | Command::ReadCapacity10
            | Command::ReadCapacity16 { .. }
            | Command::ReadDefectData { .. }
    );
    harmless || is_about_the_unit(command)
}

/// FORMAT UNIT.
pub(super) fn format(
    unit: &mut LogicalUnit,
    header: Option<FormatHeader>,
    params: &[u8],
) -> Result<Step, Sense> {
    let format = match header {
        Some(header) => format::parse(header, params, unit.block_size)?,
        None => Format { immediate: false, pattern: None },
    };
    let content = match format.pattern.filter(|pattern| pattern.iter().any(|&byte| byte != 0)) {
        Some(pattern) => Content::pattern(pattern, false, 1),
        None => Content::Zeroes,
    };
    Ok(unit.erase(Plan { cause: Cause::Format, content }, format.immediate))
}

/// SANITIZE.
pub(super) fn sanitize(unit: &mut LogicalUnit, ask: Sanitize, params: &[u8]) -> Result<Step, Sense> {
    let failed = match unit.condition {
        Condition::Failed(Failed { cause: Cause::Sanitize { unrestricted }, .. }) => Some(unrestricted),
        _ => None,
    };
    let content = match ask.service {
        Service::BlockErase => Content::Zeroes,
        Service::Overwrite { list } => {
            let overwrite = sanitize::overwrite(list, params, unit.block_size)?;
            Content::pattern(overwrite.pattern, overwrite.invert, overwrite.count)
        }
        Service::ExitFailureMode => {
            return match failed {
                None => Ok(Step::Done(Outcome::Good)),
                Some(true) => Ok(Step::Run(Job::many(Exit::default()).with_role(Role::Exit))),
                // SBC-3, "Sanitize operations": only a successful one ends the failure of a restricted one.
                Some(false) => Err(Sense::invalid_cdb_field(1, Some(4))),
            };
        }
    };
    if failed == Some(false) && ask.unrestricted {
        // Nor may an unrestricted one take its place.
        return Err(Sense::invalid_cdb_field(1, Some(5)));
    }
    let cause = Cause::Sanitize { unrestricted: ask.unrestricted };
    Ok(unit.erase(Plan { cause, content }, ask.immediate))
}

impl LogicalUnit {
    /// A disk of this geometry whose image has this note. [`LogicalUnit::resume_erasure`] says what is to be
    /// done about it.
    pub fn with_note(geometry: Geometry, note: &[u8]) -> Self {
        let mut unit = Self::new(geometry);
        if !note.is_empty() {
            unit.condition = Plan::of_note(note).map_or(Condition::Unclear, |plan| {
                Condition::Erasing(Erasing { plan, progress: 0, noted: true, fenced: false, before: None })
            });
        }
        unit
    }

    /// A disk of this geometry whose image has a note that is another client's, which may live. Its erasure is not ours to go
    /// on with, or data would be lost that was written after it; nor may the medium be used before one has succeeded.
    pub fn with_foreign_note(geometry: Geometry, note: &[u8]) -> Self {
        let mut unit = Self::with_note(geometry, note);
        unit.erasure_is_spoilt();
        unit
    }

    /// A new client serves the image, which has this note now. Not to be called while an erasure is under way.
    pub fn renew(&mut self, note: &[u8], ours: bool) {
        let geometry = Geometry {
            block_size: self.block_size,
            size: self.size(),
            max_sectors: self.max_transfer,
            limits: self.limits,
        };
        let with = if ours { Self::with_note } else { Self::with_foreign_note };
        self.condition = with(geometry, note).condition;
    }

    pub(super) fn erasure_is_spoilt(&mut self) {
        if let Condition::Erasing(erasing) = &self.condition {
            self.condition = erasing.failed();
        }
    }

    /// Whether the image has a note that is not understood, so that somebody must look.
    pub fn needs_intervention(&self) -> bool {
        matches!(self.condition, Condition::Unclear)
    }

    /// The erasure that is to be done, from its start, for nobody: when serving begins, and again after all
    /// jobs were dropped.
    pub fn resume_erasure(&mut self) -> Option<Job> {
        let Condition::Erasing(erasing) = &mut self.condition else { return None };
        erasing.noted = true; // it may have been under way
        let plan = erasing.plan.clone();
        Some(self.erasure(plan, false))
    }

    fn erase(&mut self, plan: Plan, immediate: bool) -> Step {
        let job = self.erasure(plan.clone(), immediate);
        let before = match self.condition {
            Condition::Failed(failed) => Some(failed),
            _ => None,
        };
        let erasing = Erasing { plan, progress: 0, noted: false, fenced: false, before };
        self.condition = Condition::Erasing(erasing);
        Step::Run(job)
    }

    fn erasure(&self, plan: Plan, immediate: bool) -> Job {
        let steps = Erasure::new(plan, self.size(), provision::piece(self), self.block_size, immediate);
        Job::many(steps).with_role(Role::Erasure)
    }

    /// Draws the conclusions from a job's operation that has ended like this, and the job's next step.
    pub(super) fn watch(&mut self, job: &Job, (op, result): (Op, Result<(), BackendError>), step: &Step) {
        match (job.role(), &mut self.condition, step) {
            (Role::Exit, Condition::Failed(_), Step::Done(Outcome::Good)) => {
                self.condition = Condition::Ready
            }
            (Role::Erasure, Condition::Erasing(erasing), step) => {
                let kind = result.err().map(|error| error.kind);
                erasing.progress = erasing.progress.max(job.progress());
                erasing.fenced |= kind == Some(ErrorKind::Fenced);
                erasing.noted |= op != Op::SetNote || kind.is_none_or(may_have_happened);
                match step {
                    Step::Done(Outcome::Good) => self.condition = Condition::Ready,
                    Step::Done(_) => self.condition = erasing.failed(),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

impl Erasing {
    /// What is after it has failed.
    fn failed(&self) -> Condition {
        if self.noted {
            // Also if nothing has been erased: a successor that finds the note erases, so until an erasure has
            // succeeded nobody may write what it would destroy.
            return Condition::Failed(Failed { cause: self.plan.cause, fenced: self.fenced });
        }
        self.before.map_or(Condition::Ready, Condition::Failed)
    }
}

/// Whether an operation that failed like this may have been carried out all the same, or may yet be.
fn may_have_happened(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::ReadOnly | ErrorKind::NoSpace | ErrorKind::NoResource | ErrorKind::Invalid)
}
