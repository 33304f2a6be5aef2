//! Which memory librbd is given. Needs no cluster.

use crate::ring::FakeRing;
use crate::setup::{Device, range};
use handler_rbd::block::{BackendError, Buffer, ErrorKind, Op, Request};
use handler_rbd::rbd::call::{Call, Memory, plan};
use uio_ring::{IoVec, Token};

const PAGE: usize = 4096;

/// Plans an operation on ring pages, and gives the token back.
fn planned(ring: &mut FakeRing, op: Op, pieces: &[(usize, usize)]) -> (Result<Call, BackendError>, Planned) {
    let device = Device::new(PAGE);
    let mut request = device.request(op, Buffer::Ring(ring.token(pieces)));
    let mut iov = Vec::new();
    let call = plan(&mut request, &mut iov);
    (call, Planned { request, iov })
}

struct Planned {
    request: Box<Request>,
    iov: Vec<libc::iovec>,
}

impl Planned {
    fn token(&self) -> &Token {
        match &self.request.buffer {
            Buffer::Ring(token) => token,
            other => panic!("{other:?}"),
        }
    }

    fn first(&self) -> *mut u8 {
        self.token().data().as_iovecs()[0].as_ptr()
    }

    fn end(mut self, ring: &mut FakeRing) {
        match std::mem::replace(&mut self.request.buffer, Buffer::None) {
            Buffer::Ring(token) => ring.answer(token),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_piece_is_lent_where_it_lies_in_the_mapping() {
    let mut ring = FakeRing::new(16 * PAGE);
    for op in [Op::Read(range(512, 4096)), Op::Write(range(512, 4096)), Op::Write(range(512, 100))] {
        let (call, plan) = planned(&mut ring, op, &[(PAGE, PAGE)]);
        let (Call::Read { memory, .. } | Call::Write { memory, .. }) = call.unwrap() else { panic!() };
        assert_eq!(memory, Memory::Linear(plan.first()));
        assert!(plan.token().data().maps(plan.first()));
        plan.end(&mut ring);
    }
}

#[test]
fn several_pieces_are_lent_as_the_rings_own_list() {
    let mut ring = FakeRing::new(16 * PAGE);
    let pieces = [(3 * PAGE, PAGE), (0, 2 * PAGE), (8 * PAGE, PAGE)];
    // (bytes of the range, pieces that are lent of the ring's list)
    for (len, count) in [(4 * PAGE, 3), (3 * PAGE, 2)] {
        let (call, plan) = planned(&mut ring, Op::Write(range(0, len as u64)), &pieces);
        let list = IoVec::as_raw(plan.token().data().as_iovecs());
        assert_eq!(call, Ok(Call::Write { offset: 0, len, memory: Memory::Vector(list, count) }));
        assert_eq!(plan.iov.capacity(), 0, "nothing was allocated");
        plan.end(&mut ring);
    }
}

#[test]
fn a_range_that_ends_within_a_piece_gets_a_shortened_list() {
    let mut ring = FakeRing::new(16 * PAGE);
    let pieces = [(3 * PAGE, PAGE), (0, 2 * PAGE), (8 * PAGE, PAGE)];
    let (call, plan) = planned(&mut ring, Op::Read(range(0, 2 * PAGE as u64)), &pieces);
    assert_eq!(
        call,
        Ok(Call::Read { offset: 0, len: 2 * PAGE, memory: Memory::Vector(plan.iov.as_ptr(), 2) })
    );
    let lent: Vec<_> = plan.iov.iter().map(|iov| (iov.iov_base.cast::<u8>(), iov.iov_len)).collect();
    let own = plan.token().data().as_iovecs();
    assert_eq!(lent, [(own[0].as_ptr(), PAGE), (own[1].as_ptr(), PAGE)]);
    assert!(lent.iter().all(|(address, _)| plan.token().data().maps(*address)));
    plan.end(&mut ring);
}

#[test]
fn a_pattern_is_copied_only_if_it_lies_in_pieces() {
    let mut ring = FakeRing::new(16 * PAGE);
    let same = Op::WriteSame { range: range(0, 8192), pattern: 512 };
    let (call, plan) = planned(&mut ring, same, &[(PAGE, 512)]);
    let Ok(Call::WriteSame { pattern, len: 8192, pattern_len: 512, .. }) = call else { panic!() };
    assert_eq!(pattern, plan.first().cast_const());
    plan.end(&mut ring);
    let compare = Op::CompareAndWrite(range(0, 512));
    let (call, plan) = planned(&mut ring, compare, &[(0, 512), (PAGE, 512)]);
    let Ok(Call::CompareAndWrite { compare, write, len: 512, .. }) = call else { panic!() };
    assert_eq!(compare, plan.request.bounce.as_ptr());
    assert_eq!(write, plan.request.bounce[512..].as_ptr());
    plan.end(&mut ring);
}

#[test]
fn a_buffer_that_is_too_short_is_refused() {
    let mut ring = FakeRing::new(16 * PAGE);
    let short = [
        Op::Read(range(0, 8193)),
        Op::Write(range(0, 8193)),
        Op::WriteSame { range: range(0, 16386), pattern: 8193 },
        Op::CompareAndWrite(range(0, 4097)),
        Op::WriteSame { range: range(0, 513), pattern: 512 },
        Op::WriteSame { range: range(0, 512), pattern: 0 },
        Op::Read(range(0, u64::MAX)),
        Op::CompareAndWrite(range(0, u64::MAX)),
    ];
    for op in short {
        let (call, plan) = planned(&mut ring, op, &[(0, PAGE), (2 * PAGE, PAGE)]);
        assert_eq!(call, Err(BackendError::new(ErrorKind::Invalid)), "{op:?}");
        plan.end(&mut ring);
    }
}

#[test]
fn an_empty_range_is_no_call() {
    let mut ring = FakeRing::new(PAGE);
    for op in [Op::Read(range(0, 0)), Op::Discard(range(9, 0)), Op::CompareAndWrite(range(0, 0))] {
        let (call, plan) = planned(&mut ring, op, &[]);
        assert_eq!(call, Ok(Call::Nothing));
        plan.end(&mut ring);
    }
}
