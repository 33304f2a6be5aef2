//! What the benches ask for: of each row of the opcode table one CDB, to a disk of 1 TiB.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use handler_rbd::block::Limits;
use handler_rbd::lun::{Geometry, Identity, LogicalUnit};
use handler_rbd::scsi::opcode::Row;
use handler_rbd::scsi::{Command, DataPhase, decode};

const BLOCK: usize = 512;

/// A CDB of this row that asks for little: one block or 252 bytes at address 0.
pub fn cdb(row: &Row) -> Vec<u8> {
    let mut cdb = vec![0; row.usage().len()];
    cdb[0] = row.opcode();
    if let Some(action) = row.service_action() {
        cdb[1] = action;
    }
    let lengths: &[usize] = match row.usage().len() {
        6 => &[4],
        10 => &[8],
        12 => &[9],
        _ => &[13],
    };
    for &at in lengths {
        if row.usage()[at] == 0xff {
            cdb[at] = if row.name().starts_with("READ(") || row.name().contains("WRITE") { 1 } else { 252 };
        }
    }
    cdb
}

pub fn unit() -> LogicalUnit {
    let size = 1 << 40;
    let limits = Limits {
        size,
        object_size: 4 << 20,
        compare_and_write: 512,
        discard_granularity: 65536,
        solid_state: false,
    };
    LogicalUnit::new(Geometry { block_size: 512, size, max_sectors: 1024, limits })
}

pub fn identity() -> Identity {
    Identity { unit_serial: "f8cc0e02-e1d0-403a-907b-2f3e44e14bd0".into(), ..Identity::default() }
}

/// Length of the data buffer that comes with a command.
pub fn transfer(command: &Command) -> usize {
    match command.data() {
        DataPhase::None => 0,
        DataPhase::In { allocation } => usize::try_from(allocation).unwrap(),
        DataPhase::BlocksIn(blocks) | DataPhase::BlocksOut(blocks) => {
            usize::try_from(blocks.0).unwrap() * BLOCK
        }
        DataPhase::ParameterList { len } => usize::try_from(len).unwrap(),
    }
}

/// The command, if it can be started again and again: an erasure under way has all others refused.
pub fn startable(row: &Row, cdb: &[u8]) -> Option<Command> {
    let command = decode(cdb).ok()?;
    let erases = row.name().starts_with("FORMAT") || row.name().starts_with("SANITIZE");
    (!erases).then_some(command)
}
