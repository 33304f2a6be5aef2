//! What a command costs before and after storage: `decode` for each row of the opcode table, then decoding and the
//! logical unit's start. Run with `cargo bench -p handler-rbd --bench commands`.
//!
//! Counts of heap allocations are not measured here but asserted in `tests/device_allocations.rs`.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use handler_rbd::block::Limits;
use handler_rbd::lun::{Geometry, Identity, LogicalUnit, Transfer};
use handler_rbd::scsi::opcode::{Row, TABLE};
use handler_rbd::scsi::{DataPhase, decode};
use std::hint::black_box;

const BLOCK: usize = 512;

/// A CDB of this row that asks for little: one block or 252 bytes at address 0.
fn cdb(row: &Row) -> Vec<u8> {
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

fn unit() -> LogicalUnit {
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

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for row in TABLE {
        // As on the ring: a buffer longer than the CDB.
        let mut buffer = [0; 32];
        let cdb = cdb(row);
        buffer[..cdb.len()].copy_from_slice(&cdb);
        group.bench_function(row.name(), |b| b.iter(|| decode(black_box(&buffer))));
    }
    group.finish();
}

fn starting(c: &mut Criterion) {
    let mut group = c.benchmark_group("start");
    let mut unit = unit();
    let identity =
        Identity { unit_serial: "f8cc0e02-e1d0-403a-907b-2f3e44e14bd0".into(), ..Identity::default() };
    for row in TABLE {
        let cdb = cdb(row);
        let Ok(command) = decode(&cdb) else { continue };
        let len = match command.data() {
            DataPhase::None => 0,
            DataPhase::In { allocation } => usize::try_from(allocation).unwrap(),
            DataPhase::BlocksIn(blocks) | DataPhase::BlocksOut(blocks) => {
                usize::try_from(blocks.0).unwrap() * BLOCK
            }
            DataPhase::ParameterList { len } => usize::try_from(len).unwrap(),
        };
        let params = vec![0; unit.parameters(&command).min(len)];
        let identity = LogicalUnit::needs_identity(&command).then_some(&identity);
        let mut reply = Vec::with_capacity(4096);
        group.bench_function(row.name(), |b| {
            b.iter(|| {
                let command = decode(black_box(&cdb)).unwrap();
                reply.clear();
                unit.start(&command, &Transfer { len }, identity, &params, &mut reply)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = decoding, starting
}
criterion_main!(benches);
