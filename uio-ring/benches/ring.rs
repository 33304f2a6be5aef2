//! What the user side of the ring costs per command, with and without a journal: consume, complete and publish.
//!
//! The kernel side is a loop that writes entries by hand into the same memory, and is not timed. The doorbell
//! is `/dev/null`, so a kick costs its system call and nothing behind it.
#![allow(clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use uio_ring::{Doorbell, Entry, JournalFile, Mapping, Response, Ring, Stage, Token};

const RING_BYTES: usize = 8 << 20;
const CMDR_SIZE: usize = RING_BYTES - 128;
const DATA_BYTES: usize = 4 << 20;
/// READ(10) with up to four iovecs.
const ENTRY: usize = 128;
const GOOD: Response<'_> = Response { status: 0, read_len: None, sense: None };

/// The producer: a ring whose length is a multiple of the entry's, so that there is no padding.
struct Producer {
    memory: File,
    head: usize,
    entry: [u8; ENTRY],
}

impl Producer {
    fn new(memory: File, pieces: u32) -> Self {
        let put = |at, bytes: &[u8]| memory.write_all_at(bytes, at).unwrap();
        memory.set_len((RING_BYTES + DATA_BYTES) as u64).unwrap();
        put(0, &2u16.to_ne_bytes());
        put(2, &0xfu16.to_ne_bytes());
        put(4, &128u32.to_ne_bytes());
        put(8, &u32::try_from(CMDR_SIZE).unwrap().to_ne_bytes());
        let mut entry = [0; ENTRY];
        entry[..4].copy_from_slice(&(128u32 | 1).to_ne_bytes());
        entry[8..12].copy_from_slice(&pieces.to_ne_bytes());
        for piece in 0..pieces as usize {
            let base = (RING_BYTES + 8192 * piece) as u64;
            entry[48 + 16 * piece..][..8].copy_from_slice(&base.to_ne_bytes());
            entry[56 + 16 * piece..][..8].copy_from_slice(&4096u64.to_ne_bytes());
        }
        entry[112..122].copy_from_slice(&[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
        Self { memory, head: 0, entry }
    }

    fn queue(&mut self, depth: usize) {
        for id in 1..=u16::try_from(depth).unwrap() {
            let at = 128 + self.head;
            self.entry[4..6].copy_from_slice(&id.to_ne_bytes());
            self.entry[24..32].copy_from_slice(&((at + 112) as u64).to_ne_bytes());
            self.memory.write_all_at(&self.entry, at as u64).unwrap();
            self.head = (self.head + ENTRY) % CMDR_SIZE;
        }
        self.memory.write_all_at(&u32::try_from(self.head).unwrap().to_ne_bytes(), 12).unwrap();
    }
}

fn round(ring: &mut Ring, tokens: &mut Vec<Token>) {
    for entry in ring.by_ref() {
        if let Entry::Command(command) = entry.unwrap() {
            std::hint::black_box(command.cdb);
            tokens.push(command.token);
        }
    }
    for token in &*tokens {
        ring.reached(token.id(), Stage::Begun);
    }
    while let Some(token) = tokens.pop() {
        ring.complete(token, &GOOD).unwrap();
    }
    ring.flush().unwrap();
}

fn bench(c: &mut Criterion) {
    for (pieces, journal) in [(1, false), (1, true), (4, false), (4, true)] {
        let with = if journal { "with journal" } else { "without" };
        let mut group = c.benchmark_group(format!("consume+complete+flush/{pieces}-iovec, {with}"));
        for depth in [1usize, 32, 128] {
            let memory = nix::sys::memfd::memfd_create("ring-bench", nix::sys::memfd::MFdFlags::empty());
            let memory = File::from(memory.unwrap());
            let mapping = |file: &File| Mapping::new(file, RING_BYTES + DATA_BYTES).unwrap();
            let mut producer = Producer::new(memory.try_clone().unwrap(), pieces);
            let sink = OpenOptions::new().write(true).open("/dev/null").unwrap();
            let mut ring = Ring::attach(Doorbell::new(sink.into()), mapping(&memory)).unwrap();
            if journal {
                let file =
                    nix::sys::memfd::memfd_create("journal", nix::sys::memfd::MFdFlags::empty()).unwrap();
                ring.keep_journal(JournalFile { file, incarnation: [1; 32] }).unwrap();
            }
            let mut tokens = Vec::with_capacity(depth);
            group.throughput(Throughput::Elements(1));
            // Criterion counts commands, so its time is per command.
            group.bench_function(BenchmarkId::from_parameter(depth), |b| {
                b.iter_custom(|commands| {
                    let rounds = usize::try_from(commands).unwrap().div_ceil(depth);
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        producer.queue(depth);
                        let start = Instant::now();
                        round(&mut ring, &mut tokens);
                        spent += start.elapsed();
                    }
                    let scale = commands as f64 / (rounds * depth) as f64;
                    spent.mul_f64(scale)
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = bench
}
criterion_main!(benches);
