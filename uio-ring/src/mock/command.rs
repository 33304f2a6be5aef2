//! A SCSI command as the target core hands it over, and its answers.

use super::{Delivered, Ticket};

/// Which way data moves, and how much: the fabric's expected transfer length, whatever the CDB says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direction {
    /// No data phase.
    None,
    /// These bytes go to the device.
    Out(Vec<u8>),
    /// Up to this many bytes come from the device.
    In(usize),
    /// Both, as fabrics with `TARGET_SCF_BIDI_OP` may ask for.
    Bidi {
        /// Data-Out.
        out: Vec<u8>,
        /// Length of Data-In.
        in_len: usize,
    },
}

impl Direction {
    /// Bytes of the first and of the bidirectional buffer.
    pub(super) fn lengths(&self) -> (usize, usize) {
        match self {
            Self::None => (0, 0),
            Self::Out(data) => (data.len(), 0),
            Self::In(len) => (*len, 0),
            Self::Bidi { out, in_len } => (out.len(), *in_len),
        }
    }

    pub(super) fn data_out(&self) -> &[u8] {
        match self {
            Self::Out(data) | Self::Bidi { out: data, .. } => data,
            Self::None | Self::In(_) => &[],
        }
    }
}

/// A command that has no id yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ticket: Ticket,
    /// As many bytes as the kernel copies for this opcode.
    pub(super) cdb: Vec<u8>,
    pub(super) direction: Direction,
}

/// Where a command with an id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live,
    /// Answered by the timer; the entry, id and blocks stay until user space completes it.
    Expired,
    /// Completed with `KEEP_BUF`.
    Kept,
}

/// A command on the ring (`struct tcmu_cmd`).
#[derive(Debug)]
pub(super) struct Command {
    pub(super) request: Request,
    pub(super) blocks: Vec<u32>,
    pub(super) bidi_blocks: Vec<u32>,
    /// Bytes behind the end of the transfer, which nobody may write.
    pub(super) slack: Vec<u8>,
    pub(super) bidi_slack: Vec<u8>,
    pub(super) state: State,
    pub(super) aborted: bool,
}

impl Command {
    /// The core ignores what comes back for an aborted command.
    pub(super) fn verdict(&self, delivered: Delivered) -> Delivered {
        if self.aborted { Answer::TaskAborted.into() } else { delivered }
    }
}

/// What the kernel says to the initiator without asking user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Busy,
    TaskSetFull,
    TaskAborted,
    /// NOT READY 08h/00h, the fate of every CHECK CONDITION without sense.
    CommunicationFailure,
    /// ILLEGAL REQUEST 24h/00h.
    InvalidField,
}

impl From<Answer> for Delivered {
    fn from(answer: Answer) -> Self {
        let (status, sense) = match answer {
            Answer::Busy => (0x08, [0; 96]),
            Answer::TaskSetFull => (0x28, [0; 96]),
            Answer::TaskAborted => (0x40, [0; 96]),
            Answer::CommunicationFailure => (0x02, fixed_sense(0x02, 0x08)),
            Answer::InvalidField => (0x02, fixed_sense(0x05, 0x24)),
        };
        Self { status, sense, data: None, resid: 0 }
    }
}

/// Fixed format, current error, ASCQ 0: what the target core builds.
fn fixed_sense(key: u8, asc: u8) -> [u8; 96] {
    let mut sense = [0; 96];
    sense[0] = 0x70;
    sense[2] = key;
    sense[7] = 0x0a;
    sense[12] = asc;
    sense
}
