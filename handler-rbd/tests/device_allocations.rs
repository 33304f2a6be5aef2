//! Steady READ and WRITE traffic allocates nothing in the device's thread, from ring to storage and back.
#![allow(clippy::unwrap_used, unsafe_code)]

mod device_rig;

use device_rig::{SOON, identity, model, served, verdict};
use handler_rbd::block::memory::Memory;
use handler_rbd::device::Exit;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uio_ring::mock::{Direction, MockConfig, MockKernel};

thread_local! {
    /// Whether this is the device's thread.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn count() {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
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

const DEPTH: usize = 32;

#[test]
fn reads_and_writes_allocate_nothing() {
    let kernel = MockKernel::new(MockConfig { verify: false, ..model() }).unwrap();
    let disk = Arc::new(Memory::new(device_rig::DISK));
    let served = served(&kernel, &disk, Arc::new(|| Ok(identity("x"))));
    let pump = kernel.spawn();
    let device = std::thread::spawn(move || {
        COUNTED.set(true);
        let exit = served.run();
        COUNTED.set(false);
        exit
    });
    // READ(10) and WRITE(10) of 16 blocks.
    let read = || kernel.enqueue([0x28, 0, 0, 0, 0, 8, 0, 0, 16, 0], Direction::In(8192));
    let write = || kernel.enqueue([0x2a, 0, 0, 0, 0, 8, 0, 0, 16, 0], Direction::Out(vec![7; 8192]));
    let round = || {
        // All in one event, so that the depth is the same each time.
        kernel.plug();
        let sent: Vec<_> = (0..DEPTH).map(|n| if n % 2 == 0 { read() } else { write() }.ticket).collect();
        kernel.unplug();
        for ticket in sent {
            assert_eq!(verdict(&kernel.wait(ticket, SOON).unwrap()), (0, [0; 3]));
        }
    };
    (0..4).for_each(|_| round());
    assert!(COUNT.load(Ordering::Relaxed) > 0, "the counter counts");
    let before = COUNT.load(Ordering::Relaxed);
    (0..200).for_each(|_| round());
    assert_eq!(COUNT.load(Ordering::Relaxed) - before, 0, "allocations in {} commands", 200 * DEPTH);
    kernel.unregister();
    assert_eq!(device.join().unwrap(), Exit::Removed);
    assert_eq!(kernel.faults(), []);
    drop(pump);
}
