//! Commands that must be refused, and must not have any effect. Their data carries stamps of its own, so that an
//! effect would be seen.

use crate::cdb::{self, Width};
use crate::command::{Command, Fill, Kind, Segment, Sense, Span};
use crate::make::{Maker, Named};
use Width::{Sixteen, Ten, Twelve};
use uio_ring::mock::Direction;

const LBA_OUT_OF_RANGE: Sense = (0x05, 0x21, 0x00);
pub(crate) const INVALID_FIELD_IN_CDB: Sense = (0x05, 0x24, 0x00);
const INVALID_FIELD_IN_LIST: Sense = (0x05, 0x26, 0x00);
const LIST_LENGTH_ERROR: Sense = (0x05, 0x1a, 0x00);
/// The transport's length is not the command's: INVALID FIELD IN COMMAND INFORMATION UNIT says it best, and the
/// kernel's own backstores say INVALID FIELD IN CDB.
const WRONG_LENGTH: [Sense; 2] = [(0x05, 0x0e, 0x03), INVALID_FIELD_IN_CDB];

/// What goes with the blocks of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    In,
    Out,
    /// Both halves of COMPARE AND WRITE.
    Twice,
    /// One block.
    One,
    None,
}

/// Name, operation code, width, flags, data.
type Form = (Named, u8, Data);

const FORMS: [Form; 21] = [
    (("READ(10)", 0x28, Ten), 0, Data::In),
    (("READ(12)", 0xa8, Twelve), 0, Data::In),
    (("READ(16)", 0x88, Sixteen), 0, Data::In),
    (("WRITE(10)", 0x2a, Ten), 0, Data::Out),
    (("WRITE(12)", 0xaa, Twelve), 0, Data::Out),
    (("WRITE(16)", 0x8a, Sixteen), 0, Data::Out),
    (("WRITE AND VERIFY(10)", 0x2e, Ten), 0, Data::Out),
    (("WRITE AND VERIFY(12)", 0xae, Twelve), 0, Data::Out),
    (("WRITE AND VERIFY(16)", 0x8e, Sixteen), 2, Data::Out),
    (("VERIFY(10)", 0x2f, Ten), 0, Data::None),
    (("VERIFY(12)/BYTCHK 1", 0xaf, Twelve), 2, Data::Out),
    (("VERIFY(16)/BYTCHK 1", 0x8f, Sixteen), 2, Data::Out),
    (("VERIFY(16)/BYTCHK 3", 0x8f, Sixteen), 6, Data::One),
    (("COMPARE AND WRITE", 0x89, Sixteen), 0, Data::Twice),
    (("WRITE SAME(10)", 0x41, Ten), 0, Data::One),
    (("WRITE SAME(16)", 0x93, Sixteen), 8, Data::One),
    (("WRITE SAME(16)/NDOB", 0x93, Sixteen), 9, Data::None),
    (("ORWRITE(16)", 0x8b, Sixteen), 0, Data::Out),
    (("WRITE ATOMIC(16)", 0x9c, Sixteen), 0, Data::Out),
    (("SYNCHRONIZE CACHE(16)", 0x91, Sixteen), 0, Data::None),
    (("PRE-FETCH(16)", 0x90, Sixteen), 0, Data::None),
];

/// Open defect: the device takes more blocks than its MAXIMUM TRANSFER LENGTH, which SBC has it refuse with INVALID
/// FIELD IN CDB for READ, WRITE, WRITE AND VERIFY, VERIFY and ORWRITE. Make it true once it does.
const TRANSFER_LENGTH_IS_BOUND: bool = false;

impl Maker {
    pub(crate) fn illegal(&mut self) -> Command {
        match self.rng.below(10) {
            0..4 => self.out_of_range(),
            4..6 => self.wrong_length(),
            6 => self.too_many(),
            7 => self.reserved(),
            8 => self.bad_unmap(),
            _ => self.bad_copy(),
        }
    }

    fn form(&mut self) -> Form {
        *self.rng.pick(&FORMS)
    }

    fn cdb(&self, form: Form, span: Span) -> Vec<u8> {
        let ((_, opcode, width), flags, data) = form;
        match opcode {
            0x9c => cdb::write_atomic(flags, span),
            _ if data == Data::Twice => cdb::compare_and_write(flags, span),
            _ => cdb::extent(opcode, width, flags, span),
        }
    }

    fn data(&mut self, form: Form, blocks: u64) -> Direction {
        let count = match form.2 {
            Data::None => return Direction::None,
            Data::In => return Direction::In(self.len(blocks)),
            Data::Out => blocks,
            Data::Twice => 2 * blocks,
            Data::One => 1,
        };
        let fill = Fill::Run(self.stamps(count));
        if count == 0 { Direction::None } else { Direction::Out(fill.bytes(count, self.block)) }
    }

    fn refused(&mut self, form: Form, span: Span, sense: &[Sense]) -> Command {
        let direction = self.data(form, span.blocks);
        Command { name: form.0.0, cdb: self.cdb(form, span), direction, kind: Kind::Illegal(sense.to_vec()) }
    }

    /// By one block, by more, at 2^32, and where LBA and length wrap.
    fn out_of_range(&mut self) -> Command {
        let form = self.form();
        let most = if form.2 == Data::Twice { self.said.compare } else { 8 };
        let blocks = 1 + self.rng.below(most.max(1));
        let last = form.0.2.last_lba();
        let far = [1 << 32, u64::MAX, u64::MAX - 1, 1 << 63, u64::from(u32::MAX)];
        let lba = match self.rng.below(6) {
            0..3 => self.disk - blocks + 1,
            3 => self.disk,
            4 => *self.rng.pick(&far),
            _ => self.disk + 1 + self.rng.below(1000),
        };
        // What does not fit the field becomes the field's last.
        self.refused(form, Span::new(lba.min(last), blocks), &[LBA_OUT_OF_RANGE])
    }

    /// A buffer that is not as long as the command says. (One for the other direction looks right: the ring does
    /// not tell them apart.)
    fn wrong_length(&mut self) -> Command {
        let form = loop {
            let form = self.form();
            if form.2 != Data::None {
                break form;
            }
        };
        let most = if form.2 == Data::Twice { self.said.compare } else { 8 };
        let span = self.span(self.areas.general, most);
        let mut command = self.refused(form, span, &WRONG_LENGTH);
        let change = 1 + self.rng.index(self.block);
        command.direction = match command.direction {
            Direction::In(_) | Direction::Out(_) if self.rng.once_in(4) => Direction::None,
            Direction::In(len) => Direction::In(len - change),
            Direction::Out(mut bytes) => {
                let len = if self.rng.once_in(2) { bytes.len() + change } else { bytes.len() - change };
                bytes.resize(len, 0xee);
                Direction::Out(bytes)
            }
            other => other,
        };
        command
    }

    /// More blocks than the Block Limits page allows.
    fn too_many(&mut self) -> Command {
        let form = self.form();
        let limit = match form.2 {
            Data::Twice => self.said.compare,
            _ if form.0.1 == 0x9c && self.said.atomic != 0 => self.said.atomic,
            _ if matches!(form.0.1, 0x41 | 0x93) => self.said.write_same,
            _ if matches!(form.0.1, 0x90 | 0x91) => 0,
            _ if TRANSFER_LENGTH_IS_BOUND => self.said.transfer,
            _ => 0,
        };
        let blocks = limit + 1 + self.rng.below(2);
        // Without a limit, or where the disk is smaller than it, this cannot be told apart.
        if limit == 0 || blocks > self.disk || blocks > 255 && form.2 == Data::Twice {
            return self.out_of_range();
        }
        let lba = self.rng.below(self.disk - blocks + 1);
        self.refused(form, Span::new(lba, blocks), &[INVALID_FIELD_IN_CDB])
    }

    /// Protection that the disk is not formatted with, BYTCHK that is reserved, ANCHOR that is not supported.
    fn reserved(&mut self) -> Command {
        let mut form = self.form();
        let span = self.span(self.areas.general, if form.2 == Data::Twice { self.said.compare } else { 8 });
        form.1 = match form.0.1 {
            0x2f | 0xaf | 0x8f | 0x2e | 0xae | 0x8e if self.rng.once_in(2) => 0x04,
            0x41 | 0x93 if self.rng.once_in(2) => 0x18,
            0x90 | 0x91 => return self.out_of_range(), // nothing to forbid
            _ => 0x20 << self.rng.below(3),
        };
        self.refused(form, span, &[INVALID_FIELD_IN_CDB])
    }

    fn bad_unmap(&mut self) -> Command {
        let good = self.span(self.areas.general, 8);
        let refused = |(cdb, list): (Vec<u8>, Vec<u8>), sense: &[Sense]| Command {
            name: "UNMAP",
            cdb,
            direction: Direction::Out(list),
            kind: Kind::Illegal(sense.to_vec()),
        };
        match self.rng.below(5) {
            0 => refused(cdb::unmap(&[good, Span::new(self.disk, 1)]), &[LBA_OUT_OF_RANGE]),
            1 => refused(cdb::unmap(&[good, Span::new(u64::MAX, 2)]), &[LBA_OUT_OF_RANGE]),
            2 => {
                let (cdb, mut list) = cdb::unmap(&[good]);
                list.truncate(20);
                refused((cdb, list), &[WRONG_LENGTH[0], WRONG_LENGTH[1], LIST_LENGTH_ERROR])
            }
            3 if self.said.descriptors < 1000 => {
                let count = usize::try_from(self.said.descriptors).unwrap() + 1;
                refused(cdb::unmap(&vec![Span::new(good.lba, 1); count]), &[INVALID_FIELD_IN_LIST])
            }
            _ => {
                // Shorter than its own header.
                let (mut cdb, mut list) = cdb::unmap(&[]);
                cdb[8] = 4;
                list.truncate(4);
                refused((cdb, list), &[LIST_LENGTH_ERROR])
            }
        }
    }

    /// A segment that leaves the disk. Alone: those before it would rightly take effect.
    fn bad_copy(&mut self) -> Command {
        let good = self.span(self.areas.general, 8);
        let at = *self.rng.pick(&[self.disk, u64::MAX, 1 << 32]);
        let (from, to) = if self.rng.once_in(2) { (at, good.lba) } else { (good.lba, at) };
        let segments = [Segment { from, to, blocks: 1 }];
        let block = u32::try_from(self.block).unwrap();
        let (cdb, list) = cdb::extended_copy(&self.said.naa, block, &segments);
        // SPC: an LBA out of range, as the copy target device would say it or as the copy manager does.
        let sense = vec![LBA_OUT_OF_RANGE, (0x0a, 0x21, 0x00), (0x0a, 0x0d, 0x02), (0x0a, 0x0d, 0x01)];
        Command {
            name: "EXTENDED COPY(LID1)",
            cdb,
            direction: Direction::Out(list),
            kind: Kind::Illegal(sense),
        }
    }
}
