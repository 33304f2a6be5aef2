//! CDBs in, commands or sense out. The numbers are the standards', not this program's constants.

use super::*;
use crate::scsi::Lba;
use proptest::prelude::*;

/// Decodes as the device does: from a longer buffer, with rubbish behind the CDB.
fn decode_padded(cdb: &[u8]) -> Result<Command, Sense> {
    let mut buffer = [0xff; 32];
    buffer[..cdb.len()].copy_from_slice(cdb);
    let padded = decode(&buffer);
    assert_eq!(padded, decode(cdb), "what follows a CDB must not matter");
    padded
}

/// Sense key, code, qualifier, SKSV .. bit pointer, field pointer.
fn sense_of(cdb: &[u8]) -> (u8, u8, u8, u8, u16) {
    let bytes = decode_padded(cdb).unwrap_err().to_bytes();
    (bytes[2], bytes[12], bytes[13], bytes[15], u16::from_be_bytes([bytes[16], bytes[17]]))
}

fn extent(lba: u64, blocks: u64) -> Extent {
    Extent { lba: Lba(lba), blocks: Blocks(blocks) }
}

#[test]
fn reads_and_writes_of_every_length() {
    #[rustfmt::skip]
    let table: &[(&[u8], Command)] = &[
        (&[0x08, 0x1f, 0xff, 0xfe, 0x05, 0], Command::Read(extent(0x1f_fffe, 5))),
        (&[0x08, 0, 0, 1, 0, 0], Command::Read(extent(1, 256))), // zero is 256
        (&[0x0a, 0, 0, 1, 0, 0], Command::Write(extent(1, 256))),
        (&[0x0a, 0x01, 0x02, 0x03, 0xff, 0], Command::Write(extent(0x1_0203, 255))),
        (&[0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0], Command::Read(extent(0x0102_0304, 0x0506))),
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0], Command::Read(extent(0, 0))), // here zero is none
        (&[0x2a, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], Command::Write(extent(0xffff_ffff, 0xffff))),
        (&[0xa8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0], Command::Read(extent(0x0102_0304, 0x0506_0708))),
        (&[0xaa, 0, 1, 2, 3, 4, 0, 0, 0, 8, 0, 0], Command::Write(extent(0x0102_0304, 8))),
        (&[0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0], Command::Read(extent(0x0102_0304_0506_0708, 0x090a_0b0c))),
        (&[0x8a, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0], Command::Write(extent(u64::MAX, 1))),
        // DPO, FUA, FUA_NV and a group number change nothing.
        (&[0x28, 0x1a, 0, 0, 0, 7, 0x1f, 0, 1, 0], Command::Read(extent(7, 1))),
        (&[0x8a, 0x18, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0x1f, 0], Command::Write(extent(7, 1))),
    ];
    for (cdb, command) in table {
        assert_eq!(decode_padded(cdb), Ok(*command), "{cdb:02x?}");
    }
}

#[test]
fn other_medium_access() {
    let write_same = |lba, blocks, unmap, no_data, blocks_at| Command::WriteSame {
        extent: extent(lba, blocks),
        unmap,
        no_data,
        blocks_at,
    };
    let verify = |lba, blocks, check| Command::Verify { extent: extent(lba, blocks), check };
    let write_and_verify =
        |lba, blocks, check| Command::WriteAndVerify { extent: extent(lba, blocks), check };
    #[rustfmt::skip]
    let table: &[(&[u8], Command)] = &[
        (&[0x89, 0x08, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0], Command::CompareAndWrite(extent(9, 1))),
        (&[0x8b, 0x1a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x1f, 0], Command::OrWrite(extent(0x0102_0304_0506_0708, 0x090a_0b0c))),
        (&[0x9c, 0x18, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 11, 12, 0x1f, 0], Command::WriteAtomic(extent(0x0102_0304_0506_0708, 0x0b0c))),
        (&[0x34, 0x02, 0, 0, 0, 9, 0x1f, 0, 2, 0], Command::PreFetch(extent(9, 2))),
        (&[0x90, 0x00, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 2, 0x1f, 0], Command::PreFetch(extent(9, 0x1_0002))),
        (&[0x35, 0x06, 0, 0, 0, 9, 0, 0, 2, 0], Command::SynchronizeCache(extent(9, 2))),
        (&[0x91, 0x02, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0], Command::SynchronizeCache(extent(9, 0))),
        (&[0x2f, 0x10, 0, 0, 0, 9, 0x1f, 0, 2, 0], verify(9, 2, ByteCheck::Medium)),
        (&[0x2f, 0x02, 0, 0, 0, 9, 0, 0, 2, 0], verify(9, 2, ByteCheck::Blocks)),
        (&[0xaf, 0x06, 0, 0, 0, 9, 0, 1, 0, 2, 0x1f, 0], verify(9, 0x1_0002, ByteCheck::OneBlock)),
        (&[0x8f, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x1f, 0], verify(0x0102_0304_0506_0708, 0x090a_0b0c, ByteCheck::Blocks)),
        (&[0x2e, 0x12, 0, 0, 0, 9, 0x1f, 0, 2, 0], write_and_verify(9, 2, ByteCheck::Blocks)),
        (&[0xae, 0x00, 0, 0, 0, 9, 0, 0, 0, 2, 0x1f, 0], write_and_verify(9, 2, ByteCheck::Medium)),
        (&[0x8e, 0x02, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0x1f, 0], write_and_verify(9, 2, ByteCheck::Blocks)),
        (&[0x41, 0x08, 0, 0, 0, 9, 0, 0, 2, 0], write_same(9, 2, true, false, 7)),
        (&[0x41, 0x00, 0, 0, 0, 9, 0, 0, 0, 0], write_same(9, 0, false, false, 7)),
        (&[0x93, 0x09, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0, 0], write_same(9, 0xffff_ffff, true, true, 10)),
        (&[0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0], write_same(9, 1, false, true, 10)),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0x01, 0x18, 0], Command::Unmap { list: 0x0118 }),
    ];
    for (cdb, command) in table {
        assert_eq!(decode_padded(cdb), Ok(*command), "{cdb:02x?}");
    }
}

#[test]
fn questions() {
    let mode = |long, control, page, subpage, allocation| {
        Command::ModeSense(ModeSense { long, control, page, subpage, allocation })
    };
    let sanitize =
        |service, immediate, unrestricted| Command::Sanitize(Sanitize { service, immediate, unrestricted });
    let rsoc = |selection, timeouts| Command::ReportSupportedOperationCodes {
        selection,
        timeouts,
        allocation: 0x0102_0304,
    };
    #[rustfmt::skip]
    let table: &[(&[u8], Command)] = &[
        (&[0x00, 0, 0, 0, 0, 0], Command::TestUnitReady),
        (&[0x03, 0, 0, 0, 252, 0], Command::RequestSense { descriptor: false, allocation: 252 }),
        (&[0x03, 1, 0, 0, 8, 0], Command::RequestSense { descriptor: true, allocation: 8 }),
        (&[0x12, 0, 0, 0x01, 0x02, 0], Command::Inquiry { page: None, allocation: 0x0102 }),
        (&[0x12, 1, 0x83, 0, 0xff, 0], Command::Inquiry { page: Some(0x83), allocation: 255 }),
        (&[0x12, 1, 0x00, 0, 0, 0], Command::Inquiry { page: Some(0), allocation: 0 }),
        (&[0x1a, 0x08, 0x3f, 0xff, 0xc0, 0], mode(false, PageControl::Current, 0x3f, 0xff, 0xc0)),
        (&[0x1a, 0, 0x48, 0, 4, 0], mode(false, PageControl::Changeable, 8, 0, 4)),
        (&[0x5a, 0x18, 0x8a, 0, 0, 0, 0, 1, 2, 0], mode(true, PageControl::Default, 0x0a, 0, 0x0102)),
        (&[0x5a, 0, 0xc1, 0, 0, 0, 0, 1, 2, 0], mode(true, PageControl::Saved, 1, 0, 0x0102)),
        (&[0x1b, 0x01, 0, 0, 0x01, 0], Command::StartUnit),
        (&[0x1b, 0x00, 0, 0, 0x05, 0], Command::StartUnit), // NO_FLUSH
        (&[0x1b, 0x01, 0, 0, 0x10, 0], Command::StartUnit), // ACTIVE, which it is
        (&[0x1b, 0x00, 0, 0, 0x11, 0], Command::StartUnit),
        (&[0x1e, 0, 0, 0, 0, 0], Command::PreventAllowMediumRemoval),
        (&[0x1e, 0, 0, 0, 1, 0], Command::PreventAllowMediumRemoval),
        (&[0x15, 0x10, 0, 0, 24, 0], Command::ModeSelect { long: false, list: 24 }),
        (&[0x15, 0x00, 0, 0, 0, 0], Command::ModeSelect { long: false, list: 0 }),
        (&[0x55, 0x10, 0, 0, 0, 0, 0, 1, 2, 0], Command::ModeSelect { long: true, list: 0x0102 }),
        (&[0x4d, 0, 0x40, 0xff, 0, 0, 7, 1, 2, 0], Command::LogSense { page: 0, subpage: 0xff, pointer: 7, allocation: 0x0102 }),
        (&[0x4d, 0, 0x0c, 0, 0, 0, 0, 0, 4, 0], Command::LogSense { page: 0x0c, subpage: 0, pointer: 0, allocation: 4 }),
        (&[0x37, 0, 0x1d, 0, 0, 0, 0, 1, 2, 0], Command::ReadDefectData { long: false, lists_and_format: 0x1d, allocation: 0x0102 }),
        (&[0xb7, 0x08, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0], Command::ReadDefectData { long: true, lists_and_format: 0x08, allocation: 0x0102_0304 }),
        (&[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0], Command::ReportSupportedTaskManagementFunctions { extended: true, allocation: 16 }),
        (&[0xa3, 0x0d, 0x00, 0, 0, 0, 0, 0, 0, 4, 0, 0], Command::ReportSupportedTaskManagementFunctions { extended: false, allocation: 4 }),
        (&[0x04, 0, 0, 0, 0, 0], Command::FormatUnit { list: None }),
        (&[0x04, 0x28, 0, 0, 0, 0], Command::FormatUnit { list: None }), // LONGLIST and CMPLST of no list
        (&[0x04, 0x10, 0, 0, 0, 0], Command::FormatUnit { list: Some(FormatHeader::Short) }),
        (&[0x04, 0x18, 0, 0, 0, 0], Command::FormatUnit { list: Some(FormatHeader::Short) }), // CMPLST
        (&[0x04, 0x38, 0, 0, 0, 0], Command::FormatUnit { list: Some(FormatHeader::Long) }),
        (&[0x48, 0x81, 0, 0, 0, 0, 0, 2, 4, 0], sanitize(Service::Overwrite { list: 0x0204 }, true, false)),
        (&[0x48, 0x22, 0, 0, 0, 0, 0, 0, 0, 0], sanitize(Service::BlockErase, false, true)),
        (&[0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0], sanitize(Service::ExitFailureMode, false, false)),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Command::ReadCapacity10),
        (&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Command::ReadCapacity16 { allocation: 32 }),
        (&[0x9e, 0x12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0], Command::GetLbaStatus { lba: Lba(0x0102_0304_0506_0708), scan: Blocks(0), allocation: 0x090a_0b0c }),
        (&[0xa3, 0x0a, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0], Command::ReportTargetPortGroups { extended: false, allocation: 0x0102_0304 }),
        (&[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Command::ReportTargetPortGroups { extended: true, allocation: 8 }),
        (&[0xa3, 0x0c, 0x00, 0, 0, 0, 1, 2, 3, 4, 0, 0], rsoc(Selection::All, false)),
        (&[0xa3, 0x0c, 0x81, 0x28, 0, 0, 1, 2, 3, 4, 0, 0], rsoc(Selection::Opcode(0x28), true)),
        (&[0xa3, 0x0c, 0x02, 0x9e, 0, 0x10, 1, 2, 3, 4, 0, 0], rsoc(Selection::ServiceAction(0x9e, 0x10), false)),
        (&[0xa3, 0x0c, 0x03, 0x9e, 1, 0x10, 1, 2, 3, 4, 0, 0], rsoc(Selection::Either(0x9e, 0x110), false)),
    ];
    for (cdb, command) in table {
        assert_eq!(decode_padded(cdb), Ok(*command), "{cdb:02x?}");
    }
}

#[test]
fn unknown_opcodes_are_named_as_such() {
    // 60h to 7Eh and C0h to FFh have no CDB length and yet get an answer.
    for opcode in [0x01, 0x02, 0x2c, 0x4c, 0x60, 0x7e, 0x85, 0xa0, 0xc0, 0xff] {
        assert_eq!(sense_of(&[opcode, 0, 0, 0, 0, 0]), (5, 0x20, 0, 0, 0), "{opcode:02x}");
    }
    assert_eq!(decode(&[]), Err(Sense::INVALID_OPCODE));
}

#[test]
fn fields_that_are_not_understood_are_pointed_at() {
    // CDB; SKSV | C/D | BPV | bit; byte.
    #[rustfmt::skip]
    let table: &[(&[u8], u8, u16)] = &[
        (&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], 0xcd, 1),                          // RDPROTECT 001b
        (&[0x2a, 0xe0, 0, 0, 0, 0, 0, 0, 1, 0], 0xcf, 1),                          // WRPROTECT 111b
        (&[0x8a, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcd, 1),
        (&[0x89, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcd, 1),
        (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0], 0xc8, 11),          // reserved
        (&[0x8b, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcf, 1),        // WRPROTECT
        (&[0x9c, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcd, 1),
        (&[0x9c, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xc9, 1),        // FUA_NV: not in this one
        (&[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 16, 0, 0], 0xcf, 10),         // ATOMIC BOUNDARY
        (&[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 16, 0, 0], 0xcf, 10),
        (&[0x2f, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], 0xcd, 1),                          // VRPROTECT
        (&[0x8f, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcf, 1),
        (&[0x2f, 0x04, 0, 0, 0, 0, 0, 0, 1, 0], 0xca, 1),                          // BYTCHK 10b
        (&[0x2f, 0x01, 0, 0, 0, 0, 0, 0, 1, 0], 0xc8, 1),                          // RELADR
        (&[0x2e, 0x06, 0, 0, 0, 0, 0, 0, 1, 0], 0xca, 1),                          // BYTCHK 11b
        (&[0xae, 0x20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcd, 1),                    // WRPROTECT
        (&[0x41, 0x10, 0, 0, 0, 0, 0, 0, 1, 0], 0xcc, 1),                          // ANCHOR
        (&[0x41, 0x04, 0, 0, 0, 0, 0, 0, 1, 0], 0xca, 1),                          // PBDATA
        (&[0x41, 0x02, 0, 0, 0, 0, 0, 0, 1, 0], 0xc9, 1),                          // LBDATA
        (&[0x41, 0x01, 0, 0, 0, 0, 0, 0, 1, 0], 0xc8, 1),                          // NDOB: only in (16)
        (&[0x93, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcc, 1),
        (&[0x93, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0xcd, 1),
        (&[0x42, 0x01, 0, 0, 0, 0, 0, 0, 24, 0], 0xc8, 1),                         // ANCHOR
        (&[0x04, 0x50, 0, 0, 0, 0], 0xce, 1),                                      // FMTPINFO
        (&[0x04, 0x15, 0, 0, 0, 0], 0xca, 1),                                      // DEFECT LIST FORMAT 101b
        (&[0x04, 0, 0, 0, 0x01, 0], 0xc8, 4),                                      // FFMT
        (&[0x48, 0x03, 0, 0, 0, 0, 0, 0, 0, 0], 0xcc, 1),                          // CRYPTOGRAPHIC ERASE
        (&[0x48, 0x00, 0, 0, 0, 0, 0, 0, 0, 0], 0xcc, 1),
        (&[0x48, 0x42, 0, 0, 0, 0, 0, 0, 0, 0], 0xce, 1),                          // ZNR
        (&[0x48, 0x02, 0, 0, 0, 0, 0x10, 0, 0, 0], 0xcc, 6),                       // reserved
        (&[0x48, 0x02, 0, 0, 0, 0, 0, 0, 8, 0], 0xcb, 8),                          // PARAMETER LIST LENGTH
        (&[0x48, 0x1f, 0, 0, 0, 0, 0, 0, 8, 0], 0xcb, 8),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0xc8, 8),                             // PMI
        (&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 1, 0], 0xc8, 14),      // PMI
        (&[0x9e, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 0xcc, 1),       // unknown service action
        (&[0xa3, 0x05, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 0xcc, 1),                    // unknown service action
        (&[0xa3, 0x4a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 0xce, 1),                    // format 010b
        (&[0xa3, 0x0c, 0x04, 0, 0, 0, 0, 0, 0, 8, 0, 0], 0xca, 2),                 // REPORTING OPTIONS 100b
        (&[0x12, 0, 0x83, 0, 255, 0], 0xcf, 2),                                    // page without EVPD
        (&[0x12, 2, 0, 0, 255, 0], 0xc9, 1),                                       // CMDDT
        (&[0x1b, 0, 0, 0, 0x00, 0], 0xc8, 4),                                      // STOP
        (&[0x1b, 0, 0, 0, 0x21, 0], 0xcf, 4),                                      // IDLE
        (&[0x1b, 0, 0, 0, 0x03, 0], 0xc9, 4),                                      // LOEJ
        (&[0x1b, 0, 0, 0, 0xb1, 0], 0xcf, 4),                                      // FORCE_STANDBY_0
        (&[0x1b, 0, 0, 1, 0x10, 0], 0xc8, 3),                                      // POWER CONDITION MODIFIER
        (&[0x1e, 0, 0, 0, 0x02, 0], 0xc9, 4),                                      // obsolete
        (&[0x15, 0x00, 0, 0, 24, 0], 0xcc, 1),                                     // PF = 0
        (&[0x15, 0x11, 0, 0, 24, 0], 0xc8, 1),                                     // SP
        (&[0x55, 0x11, 0, 0, 0, 0, 0, 0, 24, 0], 0xc8, 1),
        (&[0x4d, 0x01, 0, 0, 0, 0, 0, 0, 4, 0], 0xc8, 1),                          // SP
        (&[0x37, 0, 0x1f, 0, 0, 0, 0, 0, 4, 0], 0xca, 2),                          // DEFECT LIST FORMAT 111b
        (&[0xb7, 0x07, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 0xca, 1),
        (&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0], 0xcf, 6),                    // fewer than four bytes
        (&[0x34, 0x01, 0, 0, 0, 0, 0, 0, 1, 0], 0xc8, 1),                          // RELADR
        (&[0x00, 0, 0, 0, 0, 0x04], 0xca, 5),                                      // NACA
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0x01], 0xc8, 9),                          // LINK
    ];
    for (cdb, specific, byte) in table {
        assert_eq!(sense_of(cdb), (5, 0x24, 0, *specific, *byte), "{cdb:02x?}");
    }
}

#[test]
fn a_cdb_cut_short_is_an_error() {
    for len in 1..10 {
        let cdb = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let bytes = decode(&cdb[..len]).unwrap_err().to_bytes();
        assert_eq!((bytes[12], usize::from(bytes[17])), (0x24, len));
    }
}

#[test]
fn data_phases() {
    let blocks = |n| DataPhase::BlocksOut(Blocks(n));
    #[rustfmt::skip]
    let table: &[(&[u8], DataPhase)] = &[
        (&[0x00, 0, 0, 0, 0, 0], DataPhase::None),
        (&[0x35, 0, 0, 0, 0, 0, 0, 0, 8, 0], DataPhase::None),
        (&[0x03, 0, 0, 0, 18, 0], DataPhase::In { allocation: 18 }),
        (&[0x12, 0, 0, 0x02, 0x00, 0], DataPhase::In { allocation: 512 }),
        (&[0x5a, 0, 0x3f, 0, 0, 0, 0, 0x02, 0x00, 0], DataPhase::In { allocation: 512 }),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], DataPhase::In { allocation: 8 }),
        (&[0xa3, 0x0a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], DataPhase::In { allocation: 0xffff_ffff }),
        (&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], DataPhase::In { allocation: 24 }),
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], DataPhase::BlocksIn(Blocks(8))),
        (&[0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], blocks(8)),
        (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], blocks(2)),
        (&[0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], blocks(256)),
        (&[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], blocks(256)),
        (&[0x2f, 0x00, 0, 0, 0, 0, 0, 0, 8, 0], DataPhase::None),
        (&[0x2f, 0x02, 0, 0, 0, 0, 0, 0, 8, 0], blocks(8)),
        (&[0x2f, 0x06, 0, 0, 0, 0, 0, 0, 8, 0], blocks(1)),
        (&[0x2f, 0x06, 0, 0, 0, 0, 0, 0, 0, 0], blocks(0)),
        (&[0x2e, 0x00, 0, 0, 0, 0, 0, 0, 8, 0], blocks(8)),
        (&[0x41, 0, 0, 0, 0, 0, 0, 0, 8, 0], blocks(1)),
        (&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], DataPhase::None),
        (&[0x1e, 0, 0, 0, 0, 0], DataPhase::None),
        (&[0x34, 0, 0, 0, 0, 0, 0, 0, 8, 0], DataPhase::None),
        (&[0x4d, 0, 0, 0, 0, 0, 0, 1, 0, 0], DataPhase::In { allocation: 256 }),
        (&[0x37, 0, 0, 0, 0, 0, 0, 1, 0, 0], DataPhase::In { allocation: 256 }),
        (&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], DataPhase::In { allocation: 256 }),
        (&[0x15, 0x10, 0, 0, 24, 0], DataPhase::ParameterList { len: 24 }),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], DataPhase::ParameterList { len: 24 }),
        (&[0x04, 0, 0, 0, 0, 0], DataPhase::None),
        (&[0x04, 0x10, 0, 0, 0, 0], DataPhase::ParameterList { len: 4 }),
        (&[0x04, 0x30, 0, 0, 0, 0], DataPhase::ParameterList { len: 8 }),
        (&[0x48, 0x01, 0, 0, 0, 0, 0, 2, 4, 0], DataPhase::ParameterList { len: 516 }),
        (&[0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], DataPhase::None),
    ];
    for (cdb, phase) in table {
        assert_eq!(decode_padded(cdb).map(|command| command.data()), Ok(*phase), "{cdb:02x?}");
    }
}

/// Every value of a few bytes of every CDB, the others random.
#[test]
fn every_opcode_and_service_action_has_an_answer() {
    let mut accepted = 0;
    for first in 0..=255 {
        for second in 0..=255 {
            let mut cdb = [0; 32];
            cdb[..2].copy_from_slice(&[first, second]);
            accepted += u32::from(decode(&cdb).is_ok());
        }
    }
    assert!(accepted > 24, "{accepted}");
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(cdb in prop::collection::vec(any::<u8>(), 0..=32)) {
        match decode(&cdb) {
            Ok(command) => { command.data(); }
            Err(sense) => prop_assert_eq!(sense.to_bytes()[2], 0x05),
        }
    }

    #[test]
    fn any_bytes_of_any_opcode_have_an_answer(mut cdb in any::<[u8; 32]>()) {
        for opcode in 0..=255 {
            cdb[0] = opcode;
            match decode(&cdb) {
                Ok(command) => { command.data(); }
                Err(sense) => prop_assert!(matches!(sense.to_bytes()[12], 0x20 | 0x24)),
            }
        }
    }
}
