//! How a command ends, and the only map from storage errors to SCSI.

use crate::block::{BackendError, ErrorKind};
use crate::scsi::{Lba, Sense, sense};

/// The end of a command: a status, and sense data if the status is CHECK CONDITION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a command must be answered with its outcome"]
pub enum Outcome {
    /// GOOD.
    Good,
    /// CHECK CONDITION.
    CheckCondition(Sense),
    /// BUSY: the initiator tries again.
    Busy,
    /// TASK SET FULL: the initiator tries again with fewer commands out.
    TaskSetFull,
    /// RESERVATION CONFLICT.
    ReservationConflict,
}

impl Outcome {
    /// The SCSI status byte (SAM-4, "Status codes").
    pub const fn status(self) -> u8 {
        match self {
            Self::Good => 0x00,
            Self::CheckCondition(_) => 0x02,
            Self::Busy => 0x08,
            Self::TaskSetFull => 0x28,
            Self::ReservationConflict => 0x18,
        }
    }

    /// Why, if the status is CHECK CONDITION.
    pub(super) fn cause(self) -> Option<Sense> {
        match self {
            Self::CheckCondition(sense) => Some(sense),
            Self::Good | Self::Busy | Self::TaskSetFull | Self::ReservationConflict => None,
        }
    }

    /// The same, and if it is the medium's fault, which block is the first that may be bad.
    pub(super) fn at(self, lba: Lba) -> Self {
        match self {
            Self::CheckCondition(sense) => Self::CheckCondition(sense.at(lba)),
            Self::Good | Self::Busy | Self::TaskSetFull | Self::ReservationConflict => self,
        }
    }

    /// The whole sense buffer, if there is one to send.
    pub fn sense(self) -> Option<[u8; sense::LEN]> {
        match self {
            Self::CheckCondition(sense) => Some(sense.to_bytes()),
            Self::Good | Self::Busy | Self::TaskSetFull | Self::ReservationConflict => None,
        }
    }
}

impl From<Sense> for Outcome {
    fn from(sense: Sense) -> Self {
        Self::CheckCondition(sense)
    }
}

/// Which way a failed operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It only read.
    Read,
    /// It wrote, or would have.
    Write,
}

/// What a failed operation means to the initiator.
pub fn of_failure(error: BackendError, direction: Direction) -> Outcome {
    let sense = match error.kind {
        // Whoever holds the image now may make this path work again, or another path may. The operation may
        // have happened; doing it again does no harm, but for COMPARE AND WRITE, which may then miscompare.
        ErrorKind::Fenced | ErrorKind::TimedOut => return Outcome::Busy,
        ErrorKind::NoResource => return Outcome::TaskSetFull,
        // SBC-3, "Thin provisioned logical units": no resources left to map a block to.
        ErrorKind::NoSpace => Sense::SPACE_ALLOCATION_FAILED,
        ErrorKind::ReadOnly => Sense::WRITE_PROTECTED,
        ErrorKind::Miscompare { offset } => Sense::miscompare(offset),
        // An initiator cannot cause this: what it asked for has been checked. So it is our own defect.
        ErrorKind::Invalid => Sense::INTERNAL_FAILURE,
        // The image was shrunk. No defect of the medium, and trying again does not help.
        ErrorKind::PastEnd => Sense::LBA_OUT_OF_RANGE,
        // Trying again does not help and nor does another path; somebody has to look.
        ErrorKind::Gone => Sense::MANUAL_INTERVENTION,
        ErrorKind::Io => match direction {
            Direction::Read => Sense::READ_ERROR,
            Direction::Write => Sense::WRITE_ERROR,
        },
    };
    sense.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triple(kind: ErrorKind, direction: Direction) -> (u8, Option<[u8; 3]>) {
        let outcome = of_failure(BackendError { kind, errno: 5 }, direction);
        (outcome.status(), outcome.sense().map(|bytes| [bytes[2], bytes[12], bytes[13]]))
    }

    #[test]
    fn every_kind_has_its_meaning() {
        use Direction::{Read, Write};
        for (kind, direction, status, sense) in [
            (ErrorKind::Fenced, Write, 0x08, None),
            (ErrorKind::TimedOut, Read, 0x08, None),
            (ErrorKind::NoResource, Write, 0x28, None),
            (ErrorKind::NoSpace, Write, 0x02, Some([0x07, 0x27, 0x07])),
            (ErrorKind::ReadOnly, Write, 0x02, Some([0x07, 0x27, 0x00])),
            (ErrorKind::Miscompare { offset: 3 }, Write, 0x02, Some([0x0e, 0x1d, 0x00])),
            (ErrorKind::Invalid, Write, 0x02, Some([0x04, 0x44, 0x00])),
            (ErrorKind::PastEnd, Write, 0x02, Some([0x05, 0x21, 0x00])),
            (ErrorKind::Gone, Read, 0x02, Some([0x02, 0x04, 0x03])),
            (ErrorKind::Io, Read, 0x02, Some([0x03, 0x11, 0x00])),
            (ErrorKind::Io, Write, 0x02, Some([0x03, 0x0c, 0x00])),
        ] {
            assert_eq!(triple(kind, direction), (status, sense), "{kind:?} {direction:?}");
        }
        assert_eq!(Outcome::Good.status(), 0);
        assert_eq!(Outcome::Good.sense(), None);
    }
}
