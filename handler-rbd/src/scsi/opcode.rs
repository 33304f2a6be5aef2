//! The one table of commands: decoded, refused and reported (REPORT SUPPORTED OPERATION CODES) by it.
//!
//! A row's CDB usage data (SPC-4, "One_command parameter data format") is also the law of
//! [`decode`](super::command::decode): a bit that the usage data does not name is not evaluated, so setting
//! it is an error, never ignored. RDPROTECT, WRPROTECT, ANCHOR, PBDATA, LBDATA, PMI, RELADR, NACA and LINK are
//! refused by that alone. Named, though nothing depends on them: DPO is a hint; FUA, FUA_NV and SYNC_NV ask
//! for what every write gives here; IMMED allows an early answer, and a late one keeps more than its promise;
//! GROUP NUMBER has no effect without groups to count in;
//! REPORT TYPE is ignored by a device that supports none but 00h (RTP = 0);
//! CMPLST is about a list of defects that is empty; AUSE is ignored by EXIT FAILURE MODE.

use super::cdb::{CDB_MAX, Cdb};
use super::command::Command;
use super::parse;
use super::sense::Sense;
use super::variable;

/// What a logical unit must have for a command to be one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing but blocks.
    Nothing,
    /// Storage that compares and writes a logical block in one operation.
    CompareAndWrite,
    /// Storage that writes aligned logical blocks in one operation.
    AtomicWrite,
    /// A target port, which is in a group.
    Port,
}

/// A command that a logical unit can have.
pub struct Row {
    name: &'static str,
    service_action: Option<u8>,
    usage: &'static [u8],
    need: Need,
    /// One bits: the CDB's bytes.
    whole: u128,
    /// One bits: those of the CDB that must be zero.
    refused: u128,
    parse: fn(Cdb) -> Result<Command, Sense>,
}

impl Row {
    const fn new(name: &'static str, usage: &'static [u8], parse: fn(Cdb) -> Result<Command, Sense>) -> Self {
        Self::with(name, None, usage, parse)
    }

    /// A command told by its opcode and the SERVICE ACTION in byte 1, which the usage data holds too.
    const fn service(
        name: &'static str,
        usage: &'static [u8],
        parse: fn(Cdb) -> Result<Command, Sense>,
    ) -> Self {
        Self::with(name, Some(usage[1] & SERVICE_ACTION), usage, parse)
    }

    const fn with(
        name: &'static str,
        service_action: Option<u8>,
        usage: &'static [u8],
        parse: fn(Cdb) -> Result<Command, Sense>,
    ) -> Self {
        let mut whole = [0; CDB_MAX];
        let mut refused = [0; CDB_MAX];
        let mut i = 0;
        while i < usage.len() {
            whole[i] = 0xff;
            refused[i] = !usage[i];
            i += 1;
        }
        // A CDB that found the row has the row's opcode and service action, which the usage data name.
        refused[0] = 0;
        let (whole, refused) = (u128::from_be_bytes(whole), u128::from_be_bytes(refused));
        Self { name, service_action, usage, need: Need::Nothing, whole, refused, parse }
    }

    /// A command that only some logical units have.
    const fn needing(self, need: Need) -> Self {
        Self { need, ..self }
    }

    /// The command's name in the standard.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// OPERATION CODE.
    pub const fn opcode(&self) -> u8 {
        self.usage[0]
    }

    /// SERVICE ACTION, if the opcode has them.
    pub const fn service_action(&self) -> Option<u8> {
        self.service_action
    }

    /// What it takes.
    pub const fn need(&self) -> Need {
        self.need
    }

    /// CDB usage data; as long as the CDB.
    pub const fn usage(&self) -> &'static [u8] {
        self.usage
    }

    /// Makes a command of the CDB that found this row.
    pub(super) fn parse(&self, cdb: Cdb) -> Result<Command, Sense> {
        let wrong = cdb.0 & self.refused;
        if wrong != 0 {
            return Err(first_bit(wrong));
        }
        (self.parse)(Cdb(cdb.0 & self.whole))
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// INVALID FIELD IN CDB that points at the first bit set.
#[cold]
fn first_bit(wrong: u128) -> Sense {
    let position = wrong.leading_zeros();
    let (byte, bit) = (position / 8, 7 - position % 8);
    Sense::invalid_cdb_field(u16::try_from(byte).unwrap_or(0), u8::try_from(bit).ok())
}

/// The bits of byte 1 that hold the service action.
const SERVICE_ACTION: u8 = 0x1f;

/// Every command, by opcode and service action.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    Row::new("TEST UNIT READY", &[0x00, 0, 0, 0, 0, 0], parse::test_unit_ready),
    Row::new("REQUEST SENSE", &[0x03, 0x01, 0, 0, 0xff, 0], parse::request_sense),
    Row::new("FORMAT UNIT", &[0x04, 0x38, 0, 0, 0, 0], parse::format_unit),
    Row::new("READ(6)", &[0x08, 0x1f, 0xff, 0xff, 0xff, 0], parse::read_6),
    Row::new("WRITE(6)", &[0x0a, 0x1f, 0xff, 0xff, 0xff, 0], parse::write_6),
    Row::new("INQUIRY", &[0x12, 0x01, 0xff, 0xff, 0xff, 0], parse::inquiry),
    Row::new("MODE SELECT(6)", &[0x15, 0x10, 0, 0, 0xff, 0], parse::mode_select_6),
    Row::new("MODE SENSE(6)", &[0x1a, 0x08, 0xff, 0xff, 0xff, 0], parse::mode_sense_6),
    Row::new("START STOP UNIT", &[0x1b, 0x01, 0, 0, 0xf5, 0], parse::start_stop_unit),
    Row::new("PREVENT ALLOW MEDIUM REMOVAL", &[0x1e, 0, 0, 0, 0x01, 0], parse::prevent_allow_medium_removal),
    Row::new("READ CAPACITY(10)", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], parse::read_capacity_10),
    Row::new("READ(10)", &[0x28, 0x1a, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], parse::read_10),
    Row::new("WRITE(10)", &[0x2a, 0x1a, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], parse::write_10),
    Row::new("WRITE AND VERIFY(10)", &[0x2e, 0x12, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], parse::write_and_verify_10),
    Row::new("VERIFY(10)", &[0x2f, 0x16, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], parse::verify_10),
    Row::new("PRE-FETCH(10)", &[0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], parse::pre_fetch_10),
    Row::new("SYNCHRONIZE CACHE(10)", &[0x35, 0x06, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], parse::synchronize_cache_10),
    Row::new("READ DEFECT DATA(10)", &[0x37, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0], parse::read_defect_data_10),
    Row::new("WRITE SAME(10)", &[0x41, 0x08, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], parse::write_same_10),
    Row::new("UNMAP", &[0x42, 0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0], parse::unmap),
    Row::service("SANITIZE, OVERWRITE", &[0x48, 0xa1, 0, 0, 0, 0, 0, 0xff, 0xff, 0], parse::sanitize_overwrite),
    Row::service("SANITIZE, BLOCK ERASE", &[0x48, 0xa2, 0, 0, 0, 0, 0, 0, 0, 0], parse::sanitize_block_erase),
    Row::service("SANITIZE, EXIT FAILURE MODE", &[0x48, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0], parse::sanitize_exit_failure_mode),
    Row::new("LOG SENSE", &[0x4d, 0, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0], parse::log_sense),
    Row::new("MODE SELECT(10)", &[0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0], parse::mode_select_10),
    Row::new("MODE SENSE(10)", &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0], parse::mode_sense_10),
    Row::service("EXTENDED COPY(LID1)", &[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::extended_copy),
    Row::service("RECEIVE COPY STATUS(LID1)", &[0x84, 0x00, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::receive_copy_status),
    Row::service("RECEIVE COPY OPERATING PARAMETERS", &[0x84, 0x03, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::receive_copy_operating_parameters),
    Row::service("RECEIVE COPY FAILURE DETAILS(LID1)", &[0x84, 0x04, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::receive_copy_failure_details),
    Row::new("READ(16)", &[0x88, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::read_16),
    Row::new("COMPARE AND WRITE", &[0x89, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x1f, 0], parse::compare_and_write).needing(Need::CompareAndWrite),
    Row::new("WRITE(16)", &[0x8a, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::write_16),
    Row::new("ORWRITE(16)", &[0x8b, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::orwrite_16).needing(Need::CompareAndWrite),
    Row::new("WRITE AND VERIFY(16)", &[0x8e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::write_and_verify_16),
    Row::new("VERIFY(16)", &[0x8f, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::verify_16),
    Row::new("PRE-FETCH(16)", &[0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::pre_fetch_16),
    Row::new("SYNCHRONIZE CACHE(16)", &[0x91, 0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::synchronize_cache_16),
    Row::new("WRITE SAME(16)", &[0x93, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::write_same_16),
    Row::new("WRITE ATOMIC(16)", &[0x9c, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::write_atomic_16).needing(Need::AtomicWrite),
    Row::service("READ CAPACITY(16)", &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::read_capacity_16),
    Row::service("GET LBA STATUS(16)", &[0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], parse::get_lba_status_16),
    Row::service("REPORT TARGET PORT GROUPS", &[0xa3, 0x2a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::report_target_port_groups).needing(Need::Port),
    Row::service("REPORT SUPPORTED OPERATION CODES", &[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::report_supported_operation_codes),
    Row::service("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", &[0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::report_supported_task_management_functions),
    Row::new("READ(12)", &[0xa8, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::read_12),
    Row::new("WRITE(12)", &[0xaa, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::write_12),
    Row::new("WRITE AND VERIFY(12)", &[0xae, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::write_and_verify_12),
    Row::new("VERIFY(12)", &[0xaf, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], parse::verify_12),
    Row::new("READ DEFECT DATA(12)", &[0xb7, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], parse::read_defect_data_12),
];

/// A command as it is reported: a row of [`TABLE`] or of [`variable::TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// The command's name in the standard.
    pub name: &'static str,
    /// OPERATION CODE.
    pub opcode: u8,
    /// SERVICE ACTION, if the opcode has them.
    pub service_action: Option<u16>,
    /// CDB usage data; as long as the CDB.
    pub usage: &'static [u8],
    /// What a logical unit must have for it.
    pub need: Need,
}

/// Every command, by opcode and service action.
pub fn described() -> impl Iterator<Item = Described> {
    let short = |row: &'static Row| Described {
        name: row.name,
        opcode: row.opcode(),
        service_action: row.service_action.map(u16::from),
        usage: row.usage,
        need: row.need,
    };
    let long = |row: &'static variable::LongRow| Described {
        name: row.name,
        opcode: variable::OPCODE,
        service_action: Some(row.service_action),
        usage: &row.usage,
        need: Need::Nothing,
    };
    let (before, after) = ROWS.split_at(ROWS.partition_point(|row| row.opcode() < variable::OPCODE));
    before.iter().map(short).chain(variable::TABLE.iter().map(long)).chain(after.iter().map(short))
}

/// No row has this opcode.
const ABSENT: u8 = 0xff;

/// For each opcode, its first row.
static FIRST: [u8; 256] = first_rows();

const fn first_rows() -> [u8; 256] {
    assert!(TABLE.len() < ABSENT as usize);
    let mut first = [ABSENT; 256];
    let mut i = TABLE.len();
    while i > 0 {
        i -= 1;
        #[allow(clippy::cast_possible_truncation, reason = "asserted above; try_from is not const")]
        let index = i as u8;
        first[TABLE[i].opcode() as usize] = index;
    }
    first
}

/// One copy of the table in memory.
static ROWS: &[Row] = TABLE;

/// The row that an opcode and, where it has them, a service action mean.
fn find(opcode: u8, service_action: u8) -> Result<&'static Row, Sense> {
    let first = usize::from(FIRST[usize::from(opcode)]);
    let rows = ROWS.get(first..).unwrap_or(&[]);
    match rows.first() {
        None => Err(Sense::INVALID_OPCODE),
        Some(row) if row.service_action.is_none() => Ok(row),
        // SPC-4, "Operation code" and "Service action": of a known opcode it is a field that is invalid; only
        // an unknown opcode is an INVALID COMMAND OPERATION CODE.
        Some(_) => rows
            .iter()
            .take_while(|row| row.opcode() == opcode)
            .find(|row| row.service_action == Some(service_action))
            .ok_or(Sense::invalid_cdb_field(1, Some(4))),
    }
}

/// The row that a CDB means.
pub(super) fn lookup(cdb: Cdb) -> Result<&'static Row, Sense> {
    find(cdb.byte::<0>(), cdb.byte::<1>() & SERVICE_ACTION)
}

/// The row a CDB means, for names in logs and metrics.
pub fn row(cdb: &[u8]) -> Option<&'static Row> {
    let service_action = cdb.get(1).copied().unwrap_or(0) & SERVICE_ACTION;
    find(*cdb.first()?, service_action).ok()
}

/// CDB length by group code (SPC-4, "Operation code"); 0 for groups without one.
const fn cdb_len(opcode: u8) -> usize {
    match opcode >> 5 {
        0 => 6,
        1 | 2 => 10,
        4 => 16,
        5 => 12,
        _ => 0,
    }
}

const _: () = {
    let mut i = 0;
    while i < TABLE.len() {
        let row = &TABLE[i];
        assert!(row.usage.len() == cdb_len(row.opcode()), "usage data must be as long as the CDB");
        if i > 0 {
            let before = &TABLE[i - 1];
            assert!(order(before) < order(row), "rows must be sorted and unique");
            let same = before.opcode() == row.opcode();
            assert!(
                !same || (before.service_action.is_some() && row.service_action.is_some()),
                "an opcode has service actions or it has none"
            );
        }
        i += 1;
    }
};

const fn order(row: &Row) -> u16 {
    let action = match row.service_action {
        Some(action) => action,
        None => 0,
    };
    u16::from_be_bytes([row.opcode(), action])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_cdb() {
        let name = |cdb: &[u8]| row(cdb).map(Row::name);
        assert_eq!(name(&[0x28]), Some("READ(10)"));
        assert_eq!(name(&[0xa3, 0x0a]), Some("REPORT TARGET PORT GROUPS"));
        assert_eq!(name(&[0xa3, 0xec]), Some("REPORT SUPPORTED OPERATION CODES")); // high bits are not of it
        assert_eq!(name(&[0xa3, 0x05]), None);
        assert_eq!(name(&[0x9e]), None);
        assert_eq!(name(&[0xff]), None);
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn the_table_is_these_commands() {
        // Opcode, service action, CDB length, in order.
        let expected: &[(u8, Option<u8>, usize)] = &[
            (0x00, None, 6),        // TEST UNIT READY
            (0x03, None, 6),        // REQUEST SENSE
            (0x04, None, 6),        // FORMAT UNIT
            (0x08, None, 6),        // READ(6)
            (0x0a, None, 6),        // WRITE(6)
            (0x12, None, 6),        // INQUIRY
            (0x15, None, 6),        // MODE SELECT(6)
            (0x1a, None, 6),        // MODE SENSE(6)
            (0x1b, None, 6),        // START STOP UNIT
            (0x1e, None, 6),        // PREVENT ALLOW MEDIUM REMOVAL
            (0x25, None, 10),       // READ CAPACITY(10)
            (0x28, None, 10),       // READ(10)
            (0x2a, None, 10),       // WRITE(10)
            (0x2e, None, 10),       // WRITE AND VERIFY(10)
            (0x2f, None, 10),       // VERIFY(10)
            (0x34, None, 10),       // PRE-FETCH(10)
            (0x35, None, 10),       // SYNCHRONIZE CACHE(10)
            (0x37, None, 10),       // READ DEFECT DATA(10)
            (0x41, None, 10),       // WRITE SAME(10)
            (0x42, None, 10),       // UNMAP
            (0x48, Some(0x01), 10), // SANITIZE, OVERWRITE
            (0x48, Some(0x02), 10), // SANITIZE, BLOCK ERASE
            (0x48, Some(0x1f), 10), // SANITIZE, EXIT FAILURE MODE
            (0x4d, None, 10),       // LOG SENSE
            (0x55, None, 10),       // MODE SELECT(10)
            (0x5a, None, 10),       // MODE SENSE(10)
            (0x83, Some(0x00), 16), // EXTENDED COPY(LID1)
            (0x84, Some(0x00), 16), // RECEIVE COPY STATUS(LID1)
            (0x84, Some(0x03), 16), // RECEIVE COPY OPERATING PARAMETERS
            (0x84, Some(0x04), 16), // RECEIVE COPY FAILURE DETAILS(LID1)
            (0x88, None, 16),       // READ(16)
            (0x89, None, 16),       // COMPARE AND WRITE
            (0x8a, None, 16),       // WRITE(16)
            (0x8b, None, 16),       // ORWRITE(16)
            (0x8e, None, 16),       // WRITE AND VERIFY(16)
            (0x8f, None, 16),       // VERIFY(16)
            (0x90, None, 16),       // PRE-FETCH(16)
            (0x91, None, 16),       // SYNCHRONIZE CACHE(16)
            (0x93, None, 16),       // WRITE SAME(16)
            (0x9c, None, 16),       // WRITE ATOMIC(16)
            (0x9e, Some(0x10), 16), // READ CAPACITY(16)
            (0x9e, Some(0x12), 16), // GET LBA STATUS(16)
            (0xa3, Some(0x0a), 12), // REPORT TARGET PORT GROUPS
            (0xa3, Some(0x0c), 12), // REPORT SUPPORTED OPERATION CODES
            (0xa3, Some(0x0d), 12), // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
            (0xa8, None, 12),       // READ(12)
            (0xaa, None, 12),       // WRITE(12)
            (0xae, None, 12),       // WRITE AND VERIFY(12)
            (0xaf, None, 12),       // VERIFY(12)
            (0xb7, None, 12),       // READ DEFECT DATA(12)
        ];
        let rows: Vec<_> =
            TABLE.iter().map(|row| (row.opcode(), row.service_action(), row.usage().len())).collect();
        assert_eq!(rows, expected);
    }
}
