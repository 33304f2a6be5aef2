//! The oracle alone, told of sequences that are right and that are wrong: also for commands that no device here has.

use crate::command::{Command, Fill, Kind, Segment, Span};
use crate::oracle::{Checked, End, Flight, Oracle};
use crate::sets::{Layout, Sets};
use crate::verdict::Verdict;
use uio_ring::mock::Direction;

const GOOD: Verdict = Verdict { status: 0, sense: (0, 0, 0), information: None };

/// Blocks 0 to 3 are counters, 4 to 7 words, the rest general; objects of 4 blocks.
struct Story {
    sets: Sets,
    now: u64,
    flights: Vec<Flight>,
}

fn story() -> Story {
    let (counters, words, general) = (Span::new(0, 4), Span::new(4, 4), Span::new(8, 16));
    let sets = Sets::new(Layout { block: 512, object: 4, counters, words, general });
    Story { sets, now: 0, flights: vec![] }
}

impl Story {
    /// Sends a command; its number.
    fn send(&mut self, kind: Kind) -> u64 {
        self.now += 1;
        let command = Command { name: "told", cdb: vec![], direction: Direction::None, kind };
        let flight = Flight { number: self.now, sent: self.now, length: 0, command };
        self.sets.sent(&flight);
        self.flights.push(flight);
        self.now
    }

    fn end(&mut self, number: u64, end: End, data: &[u8]) -> Checked {
        self.now += 1;
        let at = self.flights.iter().position(|flight| flight.number == number).unwrap();
        let flight = self.flights.remove(at);
        let horizon =
            self.flights.iter().map(|flight| flight.sent).min().unwrap_or(self.now).min(flight.sent);
        self.sets.answered(&flight, self.now, horizon, end, GOOD, data)
    }

    fn good(&mut self, number: u64) {
        self.end(number, End::Good, &[]).unwrap();
    }

    fn write(&mut self, lba: u64, blocks: u64, first: u64) -> u64 {
        self.send(write(lba, blocks, first, false))
    }

    /// Writes with nothing else going on.
    fn put(&mut self, lba: u64, blocks: u64, first: u64) {
        let number = self.write(lba, blocks, first);
        self.good(number);
    }

    fn read(&mut self, lba: u64, blocks: u64) -> u64 {
        self.send(Kind::Read(Span::new(lba, blocks)))
    }

    /// The read is answered with these stamps; whether that may be.
    fn saw(&mut self, number: u64, values: &[u64]) -> bool {
        let data: Vec<_> = values.iter().flat_map(|&value| Fill::Same(value).bytes_of(0, 512)).collect();
        self.end(number, End::Good, &data).is_ok()
    }

    fn sees(&mut self, lba: u64, values: &[u64]) -> bool {
        let number = self.read(lba, values.len() as u64);
        self.saw(number, values)
    }

    fn sees_word(&mut self, lba: u64, word: u64) -> bool {
        let number = self.read(lba, 1);
        self.end(number, End::Good, &Fill::Word(word).bytes_of(0, 512)).is_ok()
    }

    fn exchange(&mut self, lba: u64, old: u64, new: u64) -> u64 {
        let compare = Fill::Same(old).bytes_of(0, 512);
        self.send(Kind::CompareAndWrite { span: Span::new(lba, 1), compare, fill: Fill::Same(new) })
    }
}

fn write(lba: u64, blocks: u64, first: u64, atomic: bool) -> Kind {
    Kind::Write { span: Span::new(lba, blocks), fill: Fill::Run(first), atomic, verify: false }
}

fn copy(from: u64, to: u64, blocks: u64) -> Kind {
    Kind::Copy(vec![Segment { from, to, blocks }])
}

#[test]
fn a_read_sees_the_last_write() {
    let mut s = story();
    s.put(8, 1, 100);
    s.put(8, 1, 101);
    assert!(s.sees(8, &[101]));
    assert!(!s.sees(8, &[100]), "overwritten");
    assert!(!s.sees(8, &[0]), "never so since");
    assert!(!s.sees(9, &[101]), "another block's");
}

#[test]
fn commands_in_flight_together_come_in_any_order_but_in_one() {
    for (first, then, right) in
        [(100, 100, true), (101, 101, true), (100, 101, true), (0, 100, true), (100, 0, false)]
    {
        let mut s = story();
        let (a, b) = (s.write(8, 1, 100), s.write(8, 1, 101));
        let allowed = s.sees(8, &[first]) && s.sees(8, &[then]);
        assert_eq!(allowed, right, "{first} then {then}");
        s.good(a);
        s.good(b);
    }
    // Back and forth is no order.
    let mut s = story();
    let (a, b) = (s.write(8, 1, 100), s.write(8, 1, 101));
    assert!(s.sees(8, &[100]) && s.sees(8, &[101]) && !s.sees(8, &[100]));
    s.good(a);
    s.good(b);
}

#[test]
fn a_read_in_flight_sees_old_or_new() {
    for (value, right) in [(100, true), (101, true), (102, false)] {
        let mut s = story();
        s.put(8, 1, 100);
        let read = s.read(8, 1);
        s.put(8, 1, 101);
        assert_eq!(s.saw(read, &[value]), right, "{value}");
    }
}

#[test]
fn a_failed_write_leaves_old_or_new_but_not_first_one_then_the_other() {
    for (values, right) in [([100, 100], true), ([101, 101], true), ([100, 101], false), ([101, 100], false)]
    {
        let mut s = story();
        s.put(8, 1, 100);
        let failed = s.write(8, 1, 101);
        s.end(failed, End::Failed, &[]).unwrap();
        assert_eq!(s.sees(8, &values[..1]) && s.sees(8, &values[1..]), right, "{values:?}");
    }
}

#[test]
fn a_refused_write_is_never_seen() {
    let mut s = story();
    let refused = s.write(8, 1, 100);
    s.end(refused, End::Refused, &[]).unwrap();
    assert!(!s.sees(8, &[100]));
    let seen = s.write(9, 1, 101);
    assert!(s.sees(9, &[101]));
    assert!(s.end(seen, End::Refused, &[]).is_err());
}

#[test]
fn an_atomic_write_is_seen_whole() {
    for (atomic, right) in [(false, true), (true, false)] {
        let mut s = story();
        s.put(8, 2, 100);
        let number = s.send(write(8, 2, 200, atomic));
        assert_eq!(s.sees(8, &[200, 101]), right, "in flight");
        s.good(number);
    }
    // Not across objects while in flight, but also there once it is over, be it by failure.
    let mut s = story();
    s.put(11, 2, 100);
    let number = s.send(write(11, 2, 200, true));
    assert!(s.sees(11, &[200, 101]));
    s.end(number, End::Failed, &[]).unwrap();
    assert!(!s.sees(11, &[200, 101]));
}

#[test]
fn one_exchange_wins() {
    let mut s = story();
    let first = s.exchange(0, 0, 50);
    s.good(first);
    let (a, b) = (s.exchange(0, 50, 51), s.exchange(0, 50, 52));
    s.good(a);
    assert!(s.end(b, End::Good, &[]).is_err(), "both found the same");
}

#[test]
fn no_exchange_is_lost() {
    for (last, right) in [(51, true), (50, false), (0, false)] {
        let mut s = story();
        for (old, new) in [(0, 50), (50, 51)] {
            let number = s.exchange(0, old, new);
            s.good(number);
        }
        assert_eq!(s.sees(0, &[last]) && s.sets.finish().is_ok(), right, "{last}");
    }
}

#[test]
fn a_difference_must_be_possible() {
    let mut s = story();
    s.put(8, 1, 100);
    let alone = s.exchange(8, 100, 101);
    assert!(s.end(alone, End::Miscompare, &[]).is_err());
    let mut s = story();
    s.put(8, 1, 100);
    let together = s.exchange(8, 100, 101);
    let other = s.write(8, 1, 102);
    s.end(together, End::Miscompare, &[]).unwrap();
    s.good(other);
    assert!(!s.sees(8, &[101]), "refused");
}

#[test]
fn ored_bits_stay() {
    let span = Span::new(4, 1);
    let mut s = story();
    let (a, b) = (s.send(Kind::Or { span, word: 0b001 }), s.send(Kind::Or { span, word: 0b010 }));
    s.good(a);
    assert!(s.sees_word(4, 0b001) && s.sees_word(4, 0b011));
    assert!(!s.sees_word(4, 0b010), "a bit is lost");
    assert!(!s.sees_word(4, 0b101), "a bit came from nowhere");
    s.good(b);
    assert!(!s.sees_word(4, 0b001), "a bit is lost");
    let clear = s.send(Kind::Write { span, fill: Fill::Word(0), atomic: false, verify: false });
    assert!(s.sees_word(4, 0b011) && s.sees_word(4, 0));
    s.good(clear);
    assert!(s.sees_word(4, 0) && !s.sees_word(4, 0b011));
}

#[test]
fn a_copy_leaves_what_its_source_held_meanwhile() {
    for (value, right) in [(100, true), (101, true), (102, false), (0, false), (99, false)] {
        let mut s = story();
        s.put(8, 1, 99);
        s.put(8, 1, 100);
        let number = s.send(copy(8, 12, 1));
        s.put(8, 1, 101);
        s.good(number);
        s.put(8, 1, 102);
        assert_eq!(s.sees(12, &[value]), right, "{value}");
    }
    // Once seen, that is what it is.
    let mut s = story();
    s.put(8, 1, 100);
    let number = s.send(copy(8, 12, 1));
    s.put(8, 1, 101);
    s.good(number);
    assert!(s.sees(12, &[100]) && !s.sees(12, &[101]));
}

#[test]
fn zeros_come_from_any_that_zeroes() {
    let mut s = story();
    s.put(8, 4, 100);
    let unmap = s.send(Kind::Unmap(vec![Span::new(8, 2), Span::new(9, 2)]));
    assert!(s.sees(8, &[0, 101, 0, 103]));
    s.good(unmap);
    assert!(s.sees(8, &[0, 0, 0, 103]) && !s.sees(9, &[101]) && !s.sees(11, &[0]));
}

/// GET LBA STATUS: two extents, mapped and not.
#[test]
fn what_is_deallocated_reads_as_zeros() {
    let list = |second: u8| {
        let mut data = vec![0, 0, 0, 36, 0, 0, 0, 0];
        data.extend([0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0]);
        data.extend([0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 14, second, 0, 0, 0]);
        data
    };
    for (lba, right) in [(9, true), (10, false), (23, false)] {
        let mut s = story();
        s.put(lba, 1, 100);
        let number = s.send(Kind::Status { lba: 8, allocation: 40 });
        assert_eq!(s.end(number, End::Good, &list(1)).is_ok(), right, "{lba}");
    }
    let mut s = story();
    s.put(12, 1, 100);
    let number = s.send(Kind::Status { lba: 8, allocation: 40 });
    s.end(number, End::Good, &list(0)).unwrap();
    let number = s.send(Kind::Status { lba: 9, allocation: 40 });
    assert!(s.end(number, End::Good, &list(0)).is_err(), "does not begin where it was asked");
}
