//! What a command costs before and after storage: `decode` for each row of the opcode table, then decoding and the
//! logical unit's start. Run with `cargo bench -p handler-rbd --bench commands`.
//!
//! Counts of heap allocations are not measured here but asserted in `tests/device_allocations.rs`.

#![allow(clippy::unwrap_used, missing_docs)]

mod rows;

use criterion::{Criterion, criterion_group, criterion_main};
use handler_rbd::lun::{LogicalUnit, Transfer};
use handler_rbd::scsi::decode;
use handler_rbd::scsi::opcode::TABLE;
use std::hint::black_box;

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for row in TABLE {
        // As on the ring: a buffer longer than the CDB.
        let mut buffer = [0; 32];
        let cdb = rows::cdb(row);
        buffer[..cdb.len()].copy_from_slice(&cdb);
        group.bench_function(row.name(), |b| b.iter(|| decode(black_box(&buffer))));
    }
    group.finish();
}

fn starting(c: &mut Criterion) {
    let mut group = c.benchmark_group("start");
    let identity = rows::identity();
    for row in TABLE {
        let cdb = rows::cdb(row);
        let Some(command) = rows::startable(row, &cdb) else { continue };
        let mut unit = rows::unit();
        let len = rows::transfer(&command);
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
