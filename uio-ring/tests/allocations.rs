//! Steady traffic allocates nothing: not to consume, not to complete, not to publish.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use uio_ring::mock::{Direction, MockConfig, MockKernel};
use uio_ring::{Doorbell, Entry, Mapping, Response, Ring, Token};

thread_local! {
    /// Allocations of this thread while it counts.
    static COUNT: Cell<Option<usize>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    let _ = COUNT.try_with(|count| count.set(count.get().map(|n| n + 1)));
}

// SAFETY: hands everything to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `act` allocates on this thread.
fn allocations(act: impl FnOnce()) -> usize {
    COUNT.set(Some(0));
    act();
    COUNT.take().unwrap()
}

const BLOCK: usize = 4096;
const READ: [u8; 16] = [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
const WRITE: [u8; 16] = [0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
const GOOD: Response<'_> = Response { status: 0, read_len: None, sense: None };

struct Rig {
    kernel: MockKernel,
    ring: Ring,
    tokens: Vec<Token>,
    data: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        let kernel = MockKernel::new(MockConfig {
            ring_bytes: 1 << 20,
            data_bytes: 4096 * BLOCK,
            verify: false,
            ..MockConfig::default()
        })
        .unwrap();
        let side = kernel.user_side().unwrap();
        let mapping = Mapping::new(&side.memory, side.len).unwrap();
        let ring = Ring::attach(Doorbell::new(side.doorbell), mapping).unwrap();
        Self { kernel, ring, tokens: Vec::with_capacity(2048), data: vec![0x5a; 16 * BLOCK] }
    }

    /// Takes every other of the first `blocks` blocks for good, so that commands of several blocks get as many pieces.
    fn scatter(&mut self, blocks: usize) {
        for _ in 0..blocks {
            self.kernel.enqueue(READ, Direction::In(BLOCK));
        }
        self.consume();
        let mut odd = false;
        let mut kept = Vec::with_capacity(2048);
        for token in std::mem::take(&mut self.tokens) {
            odd = !odd;
            if odd { kept.push(token) } else { self.ring.complete(token, &GOOD).unwrap() }
        }
        self.ring.flush().unwrap();
        self.kernel.pump();
        self.tokens = kept;
    }

    fn consume(&mut self) {
        for entry in self.ring.by_ref() {
            let Entry::Command(command) = entry.unwrap() else { continue };
            self.tokens.push(command.token);
        }
    }

    /// `depth` commands at once, answered in the reverse order; returns what user space allocated.
    fn round(&mut self, depth: usize, pieces: usize, write: bool) -> usize {
        let len = pieces * BLOCK;
        for _ in 0..depth {
            match write {
                true => self.kernel.enqueue(WRITE, Direction::Out(self.data[..len].to_vec())),
                false => self.kernel.enqueue(READ, Direction::In(len)),
            };
        }
        let standing = self.tokens.len();
        let allocated = allocations(|| {
            self.consume();
            for _ in 0..depth {
                let token = self.tokens.pop().unwrap();
                assert_eq!(token.data().as_iovecs().len(), pieces);
                if write {
                    token.data().read(0, &mut self.data);
                } else {
                    token.data().write(0, &self.data);
                }
                self.ring.complete(token, &GOOD).unwrap();
            }
            assert!(self.ring.flush().unwrap());
        });
        self.kernel.pump();
        assert_eq!(self.tokens.len(), standing);
        allocated
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
    assert_eq!(allocations(|| {}), 0);
}

#[test]
fn one_piece() {
    let mut rig = Rig::new();
    for depth in [1, 32, 128] {
        for write in [false, true] {
            rig.round(depth, 1, write); // warms up
            let allocated: usize = (0..20).map(|_| rig.round(depth, 1, write)).sum();
            assert_eq!(allocated, 0, "depth {depth}, write {write}");
        }
    }
    assert_eq!(rig.kernel.faults(), []);
}

#[test]
fn eight_pieces() {
    let mut rig = Rig::new();
    rig.scatter(2 * 8 * 128);
    for depth in [1, 32, 128] {
        for write in [false, true] {
            rig.round(depth, 8, write);
            let allocated: usize = (0..20).map(|_| rig.round(depth, 8, write)).sum();
            assert_eq!(allocated, 0, "depth {depth}, write {write}");
        }
    }
    for token in std::mem::take(&mut rig.tokens) {
        rig.ring.complete(token, &GOOD).unwrap();
    }
    rig.ring.flush().unwrap();
    rig.kernel.pump();
    assert_eq!(rig.kernel.faults(), []);
}
