//! The initiator's side of the proof, written from SPC, SBC and the facts alone: nothing here imports a constant, a type
//! or a line of the daemon, so that a misreading of a standard cannot pass its own test.
//!
//! [`initiator`] builds commands and reads replies, [`sg`] carries them to a real LUN through SG_IO, [`oracle`] says what
//! the disk must contain, [`report`] counts. The binary `sgtest` (see its `--help`) runs the checks inside lab guests.

pub mod initiator;
pub mod oracle;
pub mod random;
pub mod report;
pub mod sg;
