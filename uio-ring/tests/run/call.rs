//! The calls.

/// A call by the kernel or by user space.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Enqueue {
        opcode: u8,
        dir: Dir,
        len: usize,
    },
    Consume {
        at_most: usize,
    },
    Complete {
        which: Pick,
        answer: Answer,
    },
    /// A defect drops the token; the ring answers for it.
    Lose(Pick),
    Flush,
    Pump,
    KernelLooks,
    Expire(Pick),
    Tmr {
        kind: u8,
        which: Vec<Pick>,
    },
    Unknown {
        op: u8,
        len: usize,
    },
    Block,
    Unblock,
    Reset {
        retry: bool,
        seen_by: SeenBy,
    },
    Plug,
    Unplug,
    /// A successor takes over, if no command is unanswered.
    HandOver,
}

/// One of however many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick(pub(crate) usize);

impl Pick {
    pub(super) fn index(self, len: usize) -> usize {
        self.0 % len
    }
}

/// How user space comes across a reset.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SeenBy {
    Next,
    Complete,
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dir {
    None,
    Out,
    In,
    Bidi,
}

/// What user space says to a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Good,
    /// GOOD with this part, in percent, of the buffer filled.
    Short(usize),
    Sense,
    Status(u8),
}
