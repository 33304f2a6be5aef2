//! A command of each row of the opcode table, and some that end otherwise.

use super::{Became, Seed};
use crate::drive::NAA;
use Became::{Failed, Good, Refused, Reply};

/// Flags of the input: a target port; a unit attention; the data buffer is as long as the CDB moves.
const PORT: u8 = 0x04;
const ATTENTION: u8 = 0x08;
const AS_MOVED: u8 = 0x10;
/// Somebody holds a Write Exclusive reservation.
const RESERVED: u8 = 0x08;
/// The image has a note: of FORMAT UNIT, of SANITIZE, of nobody.
const FORMATTING: u8 = 0x40;
const SANITIZING: u8 = 0x80;
const UNCLEAR: u8 = 0xc0;

#[rustfmt::skip]
const ROWS: &[(&str, &[u8], Became)] = &[
    ("test_unit_ready", &[0x00, 0, 0, 0, 0, 0], Good),
    ("request_sense", &[0x03, 0, 0, 0, 252, 0], Reply),
    ("request_sense_descriptor", &[0x03, 1, 0, 0, 252, 0], Reply),
    ("format_unit", &[0x04, 0, 0, 0, 0, 0], Good),
    ("read_6", &[0x08, 0, 0, 1, 2, 0], Good),
    ("write_6", &[0x0a, 0, 0, 1, 2, 0], Good),
    ("inquiry", &[0x12, 0, 0, 0, 96, 0], Reply),
    ("vpd_supported", &[0x12, 1, 0x00, 1, 0, 0], Reply),
    ("vpd_serial", &[0x12, 1, 0x80, 1, 0, 0], Reply),
    ("vpd_identification", &[0x12, 1, 0x83, 1, 0, 0], Reply),
    ("vpd_block_limits", &[0x12, 1, 0xb0, 1, 0, 0], Reply),
    ("vpd_characteristics", &[0x12, 1, 0xb1, 1, 0, 0], Reply),
    ("vpd_provisioning", &[0x12, 1, 0xb2, 1, 0, 0], Reply),
    ("mode_select_6", &[0x15, 0x10, 0, 0, 4, 0], Good),
    ("mode_sense_6", &[0x1a, 0, 0x3f, 0xff, 255, 0], Reply),
    ("start_stop_unit", &[0x1b, 0, 0, 0, 1, 0], Good),
    ("prevent_allow_medium_removal", &[0x1e, 0, 0, 0, 1, 0], Good),
    ("read_capacity_10", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Reply),
    ("read_10", &[0x28, 0x08, 0, 0, 0, 2, 0, 0, 8, 0], Good),
    ("write_10", &[0x2a, 0x08, 0, 0, 0, 2, 0, 0, 8, 0], Good),
    ("write_and_verify_10", &[0x2e, 0x02, 0, 0, 0, 2, 0, 0, 8, 0], Good),
    ("verify_10", &[0x2f, 0x02, 0, 0, 0, 2, 0, 0, 8, 0], Good),
    ("pre_fetch_10", &[0x34, 0, 0, 0, 0, 2, 0, 0, 8, 0], Good),
    ("synchronize_cache_10", &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Good),
    ("read_defect_data_10", &[0x37, 0, 0x18, 0, 0, 0, 0, 0, 8, 0], Reply),
    ("write_same_10", &[0x41, 0, 0, 0, 0, 2, 0, 0, 8, 0], Good),
    ("unmap", &[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], Good),
    ("sanitize_block_erase", &[0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], Good),
    ("sanitize_block_erase_immediate", &[0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0], Good),
    ("sanitize_exit_failure_mode", &[0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0], Good),
    ("log_sense", &[0x4d, 0, 0, 0, 0, 0, 0, 0, 64, 0], Reply),
    (
        "get_lba_status_32",
        &[
            0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 0,
        ],
        Reply,
    ),
    ("mode_select_10", &[0x55, 0x10, 0, 0, 0, 0, 0, 0, 8, 0], Good),
    ("mode_sense_10", &[0x5a, 0x10, 0x08, 0, 0, 0, 0, 1, 0, 0], Reply),
    ("extended_copy_nothing", &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Good),
    ("receive_copy_status", &[0x84, 0x00, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Refused),
    ("receive_copy_operating_parameters", &[0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Reply),
    ("receive_copy_failure_details", &[0x84, 0x04, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Refused),
    ("read_16", &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("compare_and_write", &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0], Good),
    ("write_16", &[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("orwrite_16", &[0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("write_and_verify_16", &[0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("verify_16", &[0x8f, 0x06, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("pre_fetch_16", &[0x90, 0x02, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("synchronize_cache_16", &[0x91, 0x02, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("write_same_16", &[0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 64, 0, 0], Good),
    ("write_same_16_no_data", &[0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 64, 0, 0], Good),
    ("write_atomic_16", &[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], Good),
    ("write_atomic_16_short", &[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Refused),
    ("write_atomic_16_of_two_objects", &[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Refused),
    ("write_atomic_16_unaligned", &[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0], Refused),
    ("read_capacity_16", &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Reply),
    ("get_lba_status_16", &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0], Reply),
    ("report_target_port_groups", &[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Reply),
    ("report_supported_operation_codes", &[0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 4, 0, 0, 0], Reply),
    ("report_supported_operation_code", &[0xa3, 0x0c, 0x03, 0xa3, 0, 0x0a, 0, 0, 4, 0, 0, 0], Reply),
    ("report_supported_task_management_functions", &[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0], Reply),
    ("read_12", &[0xa8, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("write_12", &[0xaa, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("write_and_verify_12", &[0xae, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("verify_12", &[0xaf, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0], Good),
    ("read_defect_data_12", &[0xb7, 0x08, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], Reply),
    ("unknown_opcode", &[0xc0, 0, 0, 0, 0, 0], Refused),
    ("unknown_service_action", &[0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Refused),
    ("reserved_bit", &[0x28, 0x01, 0, 0, 0, 2, 0, 0, 8, 0], Refused),
    ("cut_short", &[0x28, 0, 0, 0], Refused),
    ("out_of_range", &[0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0], Refused),
    ("no_such_page", &[0x12, 1, 0xc0, 1, 0, 0], Refused),
];

const WRITE_10: [u8; 10] = [0x2a, 0, 0, 0, 0, 2, 0, 0, 8, 0];
const OVERWRITE: [u8; 10] = [0x48, 0x01, 0, 0, 0, 0, 0, 0, 5, 0];
const OVERWRITE_NOW: [u8; 10] = [0x48, 0xa1, 0, 0, 0, 0, 0, 0, 5, 0];
const EXIT: [u8; 10] = [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];
const FORMAT: [u8; 6] = [0x04, 0, 0, 0, 0, 0];
const ORWRITE: [u8; 16] = [0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 64, 0, 0];
const COPY: [u8; 16] = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 76, 0, 0];
const STATUS: [u8; 16] = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
const VERIFY_10: [u8; 10] = [0x2f, 0x02, 0, 0, 0, 2, 0, 0, 8, 0];
const UNMAP: [u8; 10] = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];

pub(super) fn seeds() -> Vec<Seed> {
    let row =
        |&(name, cdb, want): &(&str, &[u8], Became)| seed(name, PORT | AS_MOVED, 0, cdb, &[], &[], want);
    let mut seeds: Vec<Seed> = ROWS.iter().map(row).collect();
    let list = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0, 0];
    let all = [0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 88, 0, 0];
    seeds.extend([
        seed("unmap_one", AS_MOVED, 7, &UNMAP, &[], &list, Good),
        seed("unmap_cut_short", 0, 7, &UNMAP, &[], &list[..23], Refused),
        seed("write_cut_short", 0, 0, &WRITE_10, &[], &[1; 4095], Refused),
        seed("write_fails", AS_MOVED, 0, &WRITE_10, &[0xf0, 1], &[1; 4096], Failed),
        seed("verify_finds_another", AS_MOVED, 0, &VERIFY_10, &[], &[0, 0, 1], Failed),
        // 307 200 bytes in pieces of 16 384, eight at a time, the last of them first.
        seed("write_same_in_pieces", AS_MOVED | 2, 7, &all, &[7; 40], &[], Good),
        seed("write_same_fails_within", AS_MOVED | 2, 7, &all, &[7, 7, 0xf3, 4, 7], &[], Failed),
        seed(
            "write_same_without_end",
            AS_MOVED | 3,
            0,
            &[&all[..10], &[0xff; 4], &[0; 2]].concat(),
            &[],
            &[],
            Failed,
        ),
        seed("overwrite", 0, 7, &OVERWRITE, &[], &[0x83, 0, 0, 1, 7], Good),
        seed("overwrite_fails_within", 0, 7, &OVERWRITE, &[0, 0, 0xf0, 0], &[0x83, 0, 0, 1, 7], Failed),
        // The note comes late: whether it is there is not known.
        seed("overwrite_is_not_noted", 0, 7, &OVERWRITE, &[0xf0, 2], &[0x83, 0, 0, 1, 7], Failed),
        seed("format_is_refused_by_storage", 0, 7, &FORMAT, &[0xf0, 4], &[], Failed),
        // Answered early, it fails in the end.
        seed("overwrite_goes_on", 2, 7, &OVERWRITE_NOW, &[0, 3, 2, 0xf4, 0], &[0x83, 0, 0, 1, 7], Good),
        seed("format_goes_on", FORMATTING | AS_MOVED, 3, &WRITE_10, &[0, 1, 1], &[], Good),
        seed("sanitize_goes_on", SANITIZING | AS_MOVED | 2, 3, &WRITE_10, &[0, 1, 1], &[], Good),
        seed("sanitize_fails_again", SANITIZING | AS_MOVED, 3, &WRITE_10, &[0, 0xf1, 0], &[], Failed),
        seed("sanitize_fails_and_is_over", SANITIZING, 3, &EXIT, &[0, 0xf1, 0], &[], Good),
        seed("format_fails_and_is_done_anew", FORMATTING, 3, &FORMAT, &[0, 0xf1, 0], &[], Good),
        seed("sanitize_takes_its_place", FORMATTING, 3, &OVERWRITE, &[0xf1, 1], &[0x83, 0, 0, 1, 7], Good),
        seed("a_strange_note", UNCLEAR | AS_MOVED, 3, &WRITE_10, &[], &[], Failed),
        filled(seed(
            "orwrite_loses_often",
            AS_MOVED,
            7,
            &ORWRITE,
            &[0, 0xe1, 0xe7, 3, 0xe0, 4, 0xe0, 0xe0],
            &[9; 40],
            Good,
        )),
        filled(seed("orwrite_fails_within", AS_MOVED, 7, &ORWRITE, &[0, 1, 7, 0xf3, 0], &[9; 16384], Failed)),
        seed("copy", 3, 7, &COPY, &[], &copy(), Good),
        filled(seed("copy_within_a_disk", 0, 7, &COPY, &[], &copy(), Good)),
        filled(seed("copy_fails_within", 0, 7, &COPY, &[1, 2, 0xf3, 0], &copy(), Failed)),
        filled(seed("status", AS_MOVED, 7, &STATUS, &[], &[], Reply)),
        seed("status_in_pieces", AS_MOVED | 3, 7, &STATUS, &[], &[], Reply),
        seed("status_is_not_known", AS_MOVED | 2, 7, &STATUS, &[0xf0, 6], &[], Reply),
        seed("status_fails", AS_MOVED | 2, 7, &STATUS, &[0xf0, 0], &[], Failed),
        seed("reserved_write_same", AS_MOVED, RESERVED, &all, &[], &[], Failed),
        seed("reserved_format", 0, RESERVED, &FORMAT, &[], &[], Failed),
        seed("reserved_exit_failure_mode", 0, RESERVED, &EXIT, &[], &[], Failed),
        seed("reserved_overwrite", 0, RESERVED, &OVERWRITE, &[], &[0x83, 0, 0, 1, 7], Good),
        seed("format_failed_and_exit", FORMATTING, 3, &EXIT, &[0, 0xf1, 0], &[], Good),
        seed("attention", AS_MOVED | ATTENTION, 0, &WRITE_10, &[], &[], Good),
    ]);
    seeds
}

/// The same on a disk that is not empty.
fn filled(seed: Seed) -> Seed {
    let mut bytes = seed.bytes;
    bytes[2] = 0x83;
    Seed { bytes, ..seed }
}

/// EXTENDED COPY of blocks 2 to 49 to block 60 and behind.
fn copy() -> Vec<u8> {
    let header = [1, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    let device = [0xe4, 0, 0, 0, 1, 3, 0, 16];
    let segment = [2, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 60];
    [&header, &device[..], &NAA, &[0, 0, 0, 0, 0, 0, 2, 0], &segment].concat()
}

fn seed(name: &str, flags: u8, fan_out: u8, cdb: &[u8], script: &[u8], data: &[u8], want: Became) -> Seed {
    let short = |len: usize| u8::try_from(len).expect("a short one");
    let head = [flags, fan_out, 0, 0, 0, 0, short(cdb.len()), short(script.len())];
    Seed { target: "command", name: name.into(), bytes: [&head, cdb, script, data].concat(), want }
}
