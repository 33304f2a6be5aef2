//! The same as `commands`, counted instead of timed: `scripts/bench.d/instructions` runs this under callgrind, which writes
//! its counter down each time `callgrind_mark` is called. Prints what is between two marks, if it is to be told of.

#![allow(clippy::unwrap_used, missing_docs)]

mod rows;

use handler_rbd::lun::{LogicalUnit, Transfer};
use handler_rbd::scsi::decode;
use handler_rbd::scsi::opcode::TABLE;
use std::hint::black_box;

const ROUNDS: usize = 1000;

#[inline(never)]
fn callgrind_mark() {
    black_box(());
}

/// Counts `act`, and what is between this and the next, which is not told of.
fn count(name: &str, mut act: impl FnMut()) {
    act(); // whatever is done once
    callgrind_mark();
    for _ in 0..ROUNDS {
        act();
    }
    callgrind_mark();
    println!("{name}");
}

fn main() {
    println!("rounds\t{ROUNDS}");
    let (cdb, mut copy) = ([0x28_u8; 32], [0; 32]);
    count("copy\t", || copy.copy_from_slice(black_box(&cdb)));
    black_box(copy);
    let identity = rows::identity();
    for row in TABLE {
        let mut buffer = [0; 32];
        let cdb = rows::cdb(row);
        buffer[..cdb.len()].copy_from_slice(&cdb);
        count(&format!("decode\t{}", row.name()), || {
            let _ = black_box(decode(black_box(&buffer)));
        });
        let Some(command) = rows::startable(row, &buffer) else { continue };
        let mut unit = rows::unit();
        let len = rows::transfer(&command);
        let params = vec![0; unit.parameters(&command).min(len)];
        let identity = LogicalUnit::needs_identity(&command).then_some(&identity);
        let mut reply = Vec::with_capacity(4096);
        count(&format!("start\t{}", row.name()), || {
            reply.clear();
            let step = unit.start(black_box(&command), &Transfer { len }, identity, &params, &mut reply);
            let _ = black_box(step);
        });
    }
}
