//! What an answer says.

use crate::command::Sense;
use crate::disk::Injected;
use handler_rbd::block::ErrorKind;
use uio_ring::mock::Delivered;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const CONDITION_MET: u8 = 0x04;
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;

/// An answer without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: u8,
    pub(crate) sense: Sense,
    /// INFORMATION, if it is VALID.
    pub(crate) information: Option<u32>,
}

impl Verdict {
    pub(crate) fn of(answer: &Delivered) -> Result<Self, String> {
        let sense = &answer.sense;
        if answer.status != CHECK_CONDITION {
            let nothing = sense.iter().all(|&byte| byte == 0);
            let verdict = Self { status: answer.status, sense: (0, 0, 0), information: None };
            return if nothing { Ok(verdict) } else { Err("sense data without CHECK CONDITION".into()) };
        }
        if sense[0] & 0x7f != 0x70 {
            return Err(format!("sense data of response code {:02x}", sense[0]));
        }
        let information = (sense[0] & 0x80 != 0).then(|| u32::from_be_bytes(sense[3..7].try_into().unwrap()));
        Ok(Self { status: answer.status, sense: (sense[2] & 0xf, sense[12], sense[13]), information })
    }

    pub(crate) fn good(self) -> bool {
        self.status == GOOD
    }

    /// PRE-FETCH may say so.
    pub(crate) fn condition_met(self) -> bool {
        self.status == CONDITION_MET
    }

    /// MISCOMPARE DURING VERIFY OPERATION.
    pub(crate) fn miscompare(self) -> bool {
        self.sense == (0x0e, 0x1d, 0x00)
    }

    pub(crate) fn unknown_opcode(self) -> bool {
        self.sense == (0x05, 0x20, 0x00)
    }

    /// INVALID FIELD IN CDB, what an unknown service action gets.
    pub(crate) fn invalid_field(self) -> bool {
        self.sense == (0x05, 0x24, 0x00)
    }

    /// NOT READY: format or sanitize in progress.
    pub(crate) fn formatting(self) -> bool {
        self.sense == (0x02, 0x04, 0x04) || self.sense == (0x02, 0x04, 0x1b)
    }

    pub(crate) fn task_set_full(self) -> bool {
        self.status == TASK_SET_FULL
    }

    /// COPY ABORTED: THIRD PARTY DEVICE FAILURE.
    pub(crate) fn copy_aborted(self) -> bool {
        self.sense == (0x0a, 0x0d, 0x01)
    }

    /// Whether storage's failure may be told the initiator like this.
    pub(crate) fn tells(self, failure: &Injected) -> bool {
        match failure.kind {
            ErrorKind::Io if failure.write => self.sense == (0x03, 0x0c, 0x00),
            ErrorKind::Io => self.sense == (0x03, 0x11, 0x00),
            ErrorKind::NoSpace => self.sense == (0x07, 0x27, 0x07),
            ErrorKind::TimedOut => self.status == BUSY,
            ErrorKind::NoResource => self.status == BUSY || self.status == TASK_SET_FULL,
            _ => false,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, asc, ascq) = self.sense;
        write!(f, "status {:02x}", self.status)?;
        if self.status == CHECK_CONDITION {
            write!(f, " sense {key:02x}/{asc:02x}/{ascq:02x}")?;
        }
        self.information.map_or(Ok(()), |information| write!(f, " information {information:#x}"))
    }
}
