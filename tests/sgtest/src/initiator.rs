//! What a SCSI initiator knows: how commands are laid out (SPC-4, SBC-3), how sense data is read, how a LUN is asked.
//! Every number is this file's own.

use std::io;
use std::time::Duration;

/// SAM-5 status codes.
pub mod status {
    /// GOOD.
    pub const GOOD: u8 = 0x00;
    /// CHECK CONDITION: sense data tells why.
    pub const CHECK_CONDITION: u8 = 0x02;
}

/// Operation codes used by the checks.
pub mod op {
    #![allow(missing_docs)]
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0A;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SENSE_6: u8 = 0x1A;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2A;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const MODE_SENSE_10: u8 = 0x5A;
    pub const READ_16: u8 = 0x88;
    pub const COMPARE_AND_WRITE: u8 = 0x89;
    pub const WRITE_16: u8 = 0x8A;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9E;
    pub const MAINTENANCE_IN: u8 = 0xA3;
    pub const READ_12: u8 = 0xA8;
    pub const WRITE_12: u8 = 0xAA;
}

/// Sense key, additional sense code and qualifier.
pub type Code = (u8, u8, u8);

/// INVALID COMMAND OPERATION CODE.
pub const INVALID_OPCODE: Code = (5, 0x20, 0x00);
/// LOGICAL BLOCK ADDRESS OUT OF RANGE.
pub const OUT_OF_RANGE: Code = (5, 0x21, 0x00);
/// INVALID FIELD IN CDB.
pub const INVALID_CDB: Code = (5, 0x24, 0x00);
/// INVALID FIELD IN PARAMETER LIST.
pub const INVALID_PARAMETER: Code = (5, 0x26, 0x00);
/// PARAMETER LIST LENGTH ERROR.
pub const PARAMETER_LENGTH: Code = (5, 0x1A, 0x00);
/// MISCOMPARE DURING VERIFY OPERATION.
pub const MISCOMPARE: Code = (0x0E, 0x1D, 0x00);
/// The ways to say that CDB and transfer length (or direction) disagree: INVALID FIELD IN CDB, INVALID FIELD IN COMMAND
/// INFORMATION UNIT (illegal request or aborted command).
pub const LENGTH_MISMATCH: [Code; 3] = [INVALID_CDB, (5, 0x0E, 0x03), (0x0B, 0x0E, 0x03)];

/// FORCE UNIT ACCESS, in byte 1 of READ and WRITE 10/12/16.
pub const FUA: u8 = 0x08;
/// NDOB (no data-out buffer), in byte 1 of WRITE SAME(16).
pub const NDOB: u8 = 0x01;
/// UNMAP, in byte 1 of WRITE SAME.
pub const UNMAP_BIT: u8 = 0x08;

/// A command with nothing but its operation code, `len` bytes long.
#[must_use]
pub fn bare(opcode: u8, len: usize) -> Vec<u8> {
    let mut cdb = vec![0; len];
    cdb[0] = opcode;
    cdb
}

/// TEST UNIT READY.
#[must_use]
pub fn test_unit_ready() -> Vec<u8> {
    bare(op::TEST_UNIT_READY, 6)
}

/// READ(6) or WRITE(6): 21 bits of address; zero blocks mean 256.
#[must_use]
pub fn rw6(opcode: u8, lba: u32, blocks: u8) -> Vec<u8> {
    let [_, high, mid, low] = lba.to_be_bytes();
    vec![opcode, high & 0x1F, mid, low, blocks, 0]
}

/// READ, WRITE, WRITE SAME or SYNCHRONIZE CACHE (10).
#[must_use]
pub fn rw10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> Vec<u8> {
    let mut cdb = bare(opcode, 10);
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// READ or WRITE (12).
#[must_use]
pub fn rw12(opcode: u8, flags: u8, lba: u32, blocks: u32) -> Vec<u8> {
    let mut cdb = bare(opcode, 12);
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..10].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// READ, WRITE, WRITE SAME or SYNCHRONIZE CACHE (16).
#[must_use]
pub fn rw16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> Vec<u8> {
    let mut cdb = bare(opcode, 16);
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// COMPARE AND WRITE; the data is `blocks` to compare, then `blocks` to write.
#[must_use]
pub fn compare_and_write(lba: u64, blocks: u8) -> Vec<u8> {
    let mut cdb = bare(op::COMPARE_AND_WRITE, 16);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[13] = blocks;
    cdb
}

/// INQUIRY: standard data, or one vital product data page.
#[must_use]
pub fn inquiry(page: Option<u8>, allocation: u16) -> Vec<u8> {
    let mut cdb = bare(op::INQUIRY, 6);
    if let Some(page) = page {
        cdb[1] = 1;
        cdb[2] = page;
    }
    cdb[3..5].copy_from_slice(&allocation.to_be_bytes());
    cdb
}

/// REQUEST SENSE, fixed format.
#[must_use]
pub fn request_sense(allocation: u8) -> Vec<u8> {
    vec![op::REQUEST_SENSE, 0, 0, 0, allocation, 0]
}

/// MODE SENSE(6), current values.
#[must_use]
pub fn mode_sense6(page: u8, allocation: u8) -> Vec<u8> {
    vec![op::MODE_SENSE_6, 0, page, 0, allocation, 0]
}

/// MODE SENSE(10), current values.
#[must_use]
pub fn mode_sense10(page: u8, allocation: u16) -> Vec<u8> {
    let mut cdb = bare(op::MODE_SENSE_10, 10);
    cdb[2] = page;
    cdb[7..9].copy_from_slice(&allocation.to_be_bytes());
    cdb
}

/// READ CAPACITY(10).
#[must_use]
pub fn read_capacity10() -> Vec<u8> {
    bare(op::READ_CAPACITY_10, 10)
}

/// READ CAPACITY(16), service action 10h of SERVICE ACTION IN(16).
#[must_use]
pub fn read_capacity16(allocation: u32) -> Vec<u8> {
    let mut cdb = bare(op::SERVICE_ACTION_IN_16, 16);
    cdb[1] = 0x10;
    cdb[10..14].copy_from_slice(&allocation.to_be_bytes());
    cdb
}

/// REPORT SUPPORTED OPERATION CODES (all commands), service action 0Ch of MAINTENANCE IN.
#[must_use]
pub fn report_opcodes(allocation: u32) -> Vec<u8> {
    let mut cdb = bare(op::MAINTENANCE_IN, 12);
    cdb[1] = 0x0C;
    cdb[6..10].copy_from_slice(&allocation.to_be_bytes());
    cdb
}

/// UNMAP with a parameter list of `len` bytes.
#[must_use]
pub fn unmap(len: u16) -> Vec<u8> {
    let mut cdb = bare(op::UNMAP, 10);
    cdb[7..9].copy_from_slice(&len.to_be_bytes());
    cdb
}

/// UNMAP's parameter list: header, then one descriptor per (LBA, count).
#[must_use]
pub fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let descriptors = u16::try_from(ranges.len() * 16).expect("few ranges");
    let mut list = Vec::new();
    list.extend((descriptors + 6).to_be_bytes());
    list.extend(descriptors.to_be_bytes());
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

/// Big-endian number of up to eight bytes.
#[must_use]
pub fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// Decoded sense data, fixed (70h, 71h) or descriptor format (72h, 73h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sense {
    /// Key, code and qualifier.
    pub code: Code,
    /// The INFORMATION field if it is valid.
    pub information: Option<u64>,
}

impl Sense {
    /// Reads what a target sent; `None` if it is no sense data.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let at = |n: usize| bytes.get(n).copied().unwrap_or(0);
        match at(0) & 0x7F {
            0x70 | 0x71 => Some(Self {
                code: (at(2) & 0x0F, at(12), at(13)),
                information: (at(0) & 0x80 != 0).then(|| be(bytes.get(3..7).unwrap_or(&[]))),
            }),
            0x72 | 0x73 => {
                let mut rest = bytes.get(8..).unwrap_or(&[]);
                let mut information = None;
                while let [kind, len, tail @ ..] = rest {
                    if *kind == 0 && tail.len() >= 10 && tail[0] & 0x80 != 0 {
                        information = Some(be(&tail[2..10]));
                    }
                    rest = tail.get(usize::from(*len)..).unwrap_or(&[]);
                }
                Some(Self { code: (at(1) & 0x0F, at(2), at(3)), information })
            }
            _ => None,
        }
    }
}

/// A command's data phase.
#[derive(Debug)]
pub enum Data<'a> {
    /// No data.
    None,
    /// From the target; zeros where nothing arrives.
    In(&'a mut [u8]),
    /// To the target.
    Out(&'a [u8]),
}

impl Data<'_> {
    /// Bytes the initiator offers.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::In(buffer) => buffer.len(),
            Self::Out(buffer) => buffer.len(),
        }
    }

    /// Whether there is nothing to transfer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// SAM status.
    pub status: u8,
    /// Sense data with CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Bytes of the buffer the target did not use.
    pub resid: usize,
    /// The transport's own failure (Linux `DID_*`), 0 if none.
    pub host_status: u16,
    /// From issue to answer.
    pub elapsed: Duration,
}

impl Reply {
    /// GOOD and nothing else.
    pub fn good(&self) -> Result<(), String> {
        if self.status == status::GOOD && self.host_status == 0 { Ok(()) } else { Err(self.to_string()) }
    }

    /// CHECK CONDITION with one of these codes.
    pub fn refused_with(&self, codes: &[Code]) -> Result<(), String> {
        let wanted =
            codes.iter().map(|(k, a, q)| format!("{k:02X}/{a:02X}/{q:02X}")).collect::<Vec<_>>().join(" or ");
        let found = self.sense.filter(|_| self.status == status::CHECK_CONDITION && self.host_status == 0);
        if found.is_some_and(|sense| codes.contains(&sense.code)) {
            Ok(())
        } else {
            Err(format!("expected CHECK CONDITION {wanted}, found {self}"))
        }
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host_status != 0 {
            return write!(f, "host status {:02X}h after {} ms", self.host_status, self.elapsed.as_millis());
        }
        match (self.status, &self.sense) {
            (status::GOOD, _) => write!(f, "GOOD, resid {}", self.resid),
            (status::CHECK_CONDITION, Some(sense)) => {
                let (key, asc, ascq) = sense.code;
                write!(f, "CHECK CONDITION {key:02X}/{asc:02X}/{ascq:02X}")?;
                sense.information.map_or(Ok(()), |n| write!(f, " information {n}"))
            }
            (status::CHECK_CONDITION, None) => f.write_str("CHECK CONDITION without sense"),
            (other, _) => write!(f, "status {other:02X}h after {} ms", self.elapsed.as_millis()),
        }
    }
}

/// Carries commands to one logical unit. `Err` means that the carrier itself failed, not the command.
pub trait Transport {
    /// Executes one command and waits for its answer, `timeout` at most.
    fn execute(&self, cdb: &[u8], data: Data<'_>, timeout: Duration) -> io::Result<Reply>;
}

/// How long any command of the checks may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A logical unit, asked by its capacity once.
pub struct Lun<'a> {
    transport: &'a dyn Transport,
    /// Number of logical blocks.
    pub blocks: u64,
    /// Bytes per logical block.
    pub block: usize,
}

impl std::fmt::Debug for Lun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lun")
            .field("blocks", &self.blocks)
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

impl<'a> Lun<'a> {
    /// Clears pending unit attentions and reads the capacity.
    pub fn attach(transport: &'a dyn Transport) -> Result<Self, String> {
        let mut lun = Self { transport, blocks: 0, block: 0 };
        for _ in 0..16 {
            if lun.send(&test_unit_ready(), Data::None)?.status == status::GOOD {
                break;
            }
        }
        let mut data = [0; 32];
        lun.send(&read_capacity16(32), Data::In(&mut data))?
            .good()
            .map_err(|e| format!("READ CAPACITY(16): {e}"))?;
        lun.blocks = be(&data[..8]) + 1;
        lun.block = usize::try_from(be(&data[8..12])).map_err(|e| e.to_string())?;
        if lun.block != 512 || lun.blocks < 0x1_0000 {
            return Err(format!(
                "needs a LUN of at least 65536 blocks of 512, this has {} of {}",
                lun.blocks, lun.block
            ));
        }
        Ok(lun)
    }

    /// Sends one command.
    pub fn send(&self, cdb: &[u8], data: Data<'_>) -> Result<Reply, String> {
        self.transport.execute(cdb, data, PATIENCE).map_err(|e| format!("command {cdb:02X?}: {e}"))
    }

    /// Sends one command that must end GOOD.
    pub fn good(&self, cdb: &[u8], data: Data<'_>) -> Result<Reply, String> {
        let reply = self.send(cdb, data)?;
        reply.good().map_err(|e| format!("command {cdb:02X?}: expected GOOD, found {e}"))?;
        Ok(reply)
    }

    /// Reads whole blocks with READ(16); all of them must arrive.
    pub fn read(&self, lba: u64, blocks: u32) -> Result<Vec<u8>, String> {
        let mut data = vec![0xAB; usize::try_from(blocks).expect("fits") * self.block];
        let reply = self.good(&rw16(op::READ_16, 0, lba, blocks), Data::In(&mut data))?;
        if reply.resid != 0 {
            return Err(format!("READ(16) of {blocks} blocks at {lba}: resid {}", reply.resid));
        }
        Ok(data)
    }

    /// Writes whole blocks with WRITE(16).
    pub fn write(&self, lba: u64, data: &[u8]) -> Result<(), String> {
        let blocks = u32::try_from(data.len() / self.block).expect("fits");
        self.good(&rw16(op::WRITE_16, 0, lba, blocks), Data::Out(data)).map(drop)
    }

    /// UNMAP of these ranges: what the target says to it.
    pub fn unmap(&self, ranges: &[(u64, u32)]) -> Result<Reply, String> {
        let list = unmap_list(ranges);
        self.send(&unmap(u16::try_from(list.len()).expect("short")), Data::Out(&list))
    }

    /// The unit still answers, and blocks can be read at both ends.
    pub fn is_alive(&self) -> Result<(), String> {
        self.good(&test_unit_ready(), Data::None)?;
        self.read(0, 1)?;
        self.read(self.blocks - 1, 1).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Literal layouts from SPC-4 and SBC-3, one byte table per builder that computes something.
    #[test]
    fn commands_are_laid_out_as_the_standards_say() {
        assert_eq!(rw6(0x08, 0x1F_1234, 0), [0x08, 0x1F, 0x12, 0x34, 0, 0]);
        assert_eq!(rw10(0x2A, 0x08, 0x0102_0304, 0x0506), [0x2A, 8, 1, 2, 3, 4, 0, 5, 6, 0]);
        assert_eq!(rw12(0xA8, 0, 0x0102_0304, 0x0506_0708), [0xA8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
        assert_eq!(
            rw16(0x8A, 0, 0x0102_0304_0506_0708, 0x090A_0B0C),
            [0x8A, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]
        );
        assert_eq!(compare_and_write(9, 1), [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0]);
        assert_eq!(inquiry(Some(0x83), 0x0102), [0x12, 1, 0x83, 1, 2, 0]);
        assert_eq!(unmap(24), [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
        assert_eq!(
            unmap_list(&[(0x80, 2)]),
            [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 2, 0, 0, 0, 0]
        );
    }

    #[test]
    fn sense_is_read_in_both_formats() {
        let mut fixed = [0; 18];
        fixed[..8].copy_from_slice(&[0xF0, 0, 0x0E, 0, 0, 1, 2, 10]);
        fixed[12] = 0x1D;
        assert_eq!(Sense::parse(&fixed), Some(Sense { code: MISCOMPARE, information: Some(258) }));
        let descriptor = [0x72, 5, 0x24, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(Sense::parse(&descriptor), Some(Sense { code: INVALID_CDB, information: Some(7) }));
        assert_eq!(Sense::parse(&[0; 18]), None);
        assert_eq!(Sense::parse(&[]), None);
    }
}
