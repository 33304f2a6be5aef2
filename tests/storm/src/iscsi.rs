//! A small iSCSI initiator (RFC 7143): one session of one connection, no authentication, no digests, error recovery level
//! 0. It hides nothing: every SCSI status comes back as the target sent it, BUSY and TASK SET FULL too, which Linux
//! retries by itself.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use sgtest::initiator::{Sense, be};

const HEADER: usize = 48;
const NO_TAG: u32 = u32::MAX;
/// What we take in one Data-In.
const RECEIVE: usize = 262_144;
const FIRST_BURST: usize = 65_536;

mod opcode {
    pub(super) const NOP_OUT: u8 = 0x00;
    pub(super) const COMMAND: u8 = 0x01;
    pub(super) const LOGIN: u8 = 0x03;
    pub(super) const DATA_OUT: u8 = 0x05;
    pub(super) const LOGOUT: u8 = 0x06;
    pub(super) const IMMEDIATE: u8 = 0x40;
    pub(super) const NOP_IN: u8 = 0x20;
    pub(super) const RESPONSE: u8 = 0x21;
    pub(super) const LOGIN_RESPONSE: u8 = 0x23;
    pub(super) const DATA_IN: u8 = 0x25;
    pub(super) const LOGOUT_RESPONSE: u8 = 0x26;
    pub(super) const R2T: u8 = 0x31;
}

/// A SCSI command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Command {
    pub(crate) cdb: Vec<u8>,
    /// To the target.
    pub(crate) out: Vec<u8>,
    /// Expected from the target.
    pub(crate) expect: usize,
}

/// What the target said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) tag: u32,
    pub(crate) status: u8,
    pub(crate) sense: Option<Sense>,
    /// As many bytes as were expected; what did not come is zero and counted in `missing`.
    pub(crate) data: Vec<u8>,
    /// Residual count, over- or underflow.
    pub(crate) missing: u32,
}

#[derive(Debug)]
struct Task {
    out: Vec<u8>,
    data: Vec<u8>,
    arrived: usize,
}

/// A logged-in session.
#[derive(Debug)]
pub(crate) struct Session {
    stream: TcpStream,
    lun: u8,
    input: Vec<u8>,
    tasks: HashMap<u32, Task>,
    next_tag: u32,
    cmd_sn: u32,
    max_cmd_sn: u32,
    exp_stat_sn: u32,
    /// Bytes the target takes in one PDU.
    segment: usize,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn put(header: &mut [u8; HEADER], at: usize, value: u32) {
    header[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn get(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn small(n: usize) -> u32 {
    u32::try_from(n).expect("data is small")
}

fn large(n: u32) -> usize {
    usize::try_from(n).expect("64-bit")
}

impl Session {
    /// Connects and logs in.
    pub(crate) fn login(portal: &str, target: &str, initiator: &str, lun: u8) -> io::Result<Self> {
        let stream = TcpStream::connect(portal)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut session = Self {
            stream,
            lun,
            input: Vec::new(),
            tasks: HashMap::new(),
            next_tag: 1,
            cmd_sn: 1,
            max_cmd_sn: 1,
            exp_stat_sn: 0,
            segment: 8192,
        };
        let names =
            format!("InitiatorName={initiator}\0TargetName={target}\0SessionType=Normal\0AuthMethod=None\0");
        session.negotiate(0, 1, &names)?;
        let keys = format!(
            "HeaderDigest=None\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0MaxConnections=1\0\
             MaxRecvDataSegmentLength={RECEIVE}\0MaxBurstLength={RECEIVE}\0FirstBurstLength={FIRST_BURST}\0\
             MaxOutstandingR2T=1\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0\0\
             DefaultTime2Wait=2\0DefaultTime2Retain=0\0"
        );
        session.negotiate(1, 3, &keys)?;
        session.stream.set_read_timeout(None)?;
        Ok(session)
    }

    /// One stage of the login, until the target goes on to the next.
    fn negotiate(&mut self, stage: u8, next: u8, keys: &str) -> io::Result<()> {
        let mut keys = keys.as_bytes().to_vec();
        for _ in 0..8 {
            let mut header = [0; HEADER];
            header[0] = opcode::LOGIN | opcode::IMMEDIATE;
            header[1] = 0x80 | stage << 2 | next;
            header[8..14].copy_from_slice(&[0x80, 0x73, 0x74, 0x6F, 0x72, self.lun]);
            put(&mut header, 24, self.cmd_sn);
            put(&mut header, 28, self.exp_stat_sn);
            self.send(header, &keys)?;
            let (answer, data) = self.receive_one()?;
            if answer[0] & 0x3F != opcode::LOGIN_RESPONSE || answer[36] != 0 {
                return Err(wrong(format!("login refused: class {} detail {}", answer[36], answer[37])));
            }
            for key in String::from_utf8_lossy(&data).split('\0') {
                if let Some(size) = key.strip_prefix("MaxRecvDataSegmentLength=") {
                    self.segment = size.parse().map_err(|_| wrong(format!("login: {key}")))?;
                }
            }
            if answer[1] & 0x80 != 0 {
                return Ok(());
            }
            keys.clear();
        }
        Err(wrong("login: the target does not end a stage"))
    }

    fn send(&mut self, mut header: [u8; HEADER], data: &[u8]) -> io::Result<()> {
        let length = small(data.len()).to_be_bytes();
        header[5..8].copy_from_slice(&length[1..]);
        let mut pdu = header.to_vec();
        pdu.extend_from_slice(data);
        pdu.resize(HEADER + data.len().next_multiple_of(4), 0);
        self.stream.write_all(&pdu)
    }

    /// The next whole PDU of what has arrived.
    fn take(&mut self) -> Option<([u8; HEADER], Vec<u8>)> {
        let header: [u8; HEADER] = self.input.get(..HEADER)?.try_into().ok()?;
        let start = HEADER + usize::from(header[4]) * 4;
        let length = usize::try_from(be(&header[5..8])).ok()?;
        let end = start + length.next_multiple_of(4);
        let data = self.input.get(start..end)?[..length].to_vec();
        self.input.drain(..end);
        Some((header, data))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut part = vec![0; 1 << 18];
        let n = self.stream.read(&mut part)?;
        if n == 0 {
            return Err(wrong("the target closed the connection"));
        }
        self.input.extend_from_slice(&part[..n]);
        Ok(())
    }

    fn receive_one(&mut self) -> io::Result<([u8; HEADER], Vec<u8>)> {
        loop {
            if let Some((header, data)) = self.take() {
                self.numbers(&header);
                return Ok((header, data));
            }
            self.fill()?;
        }
    }

    fn numbers(&mut self, header: &[u8; HEADER]) {
        let max = get(header, 32);
        if max.wrapping_sub(self.max_cmd_sn) < 1 << 31 {
            self.max_cmd_sn = max;
        }
        let carries_status = match header[0] & 0x3F {
            opcode::DATA_IN => header[1] & 1 != 0,
            opcode::R2T => false,
            opcode::NOP_IN => get(header, 16) != NO_TAG,
            _ => true,
        };
        if carries_status {
            self.exp_stat_sn = get(header, 24).wrapping_add(1);
        }
    }

    /// Whether the target takes another command.
    pub(crate) fn room(&self) -> bool {
        self.max_cmd_sn.wrapping_sub(self.cmd_sn) < 1 << 31
    }

    /// Sends a command; its answer will carry the tag that is returned.
    pub(crate) fn submit(&mut self, command: &Command) -> io::Result<u32> {
        let tag = self.next_tag;
        self.next_tag = if tag == NO_TAG - 1 { 1 } else { tag + 1 };
        let mut header = [0; HEADER];
        header[0] = opcode::COMMAND;
        header[1] = 0x81;
        if !command.out.is_empty() {
            header[1] |= 0x20;
        } else if command.expect > 0 {
            header[1] |= 0x40;
        }
        header[9] = self.lun;
        put(&mut header, 16, tag);
        put(&mut header, 20, small(command.out.len().max(command.expect)));
        put(&mut header, 24, self.cmd_sn);
        put(&mut header, 28, self.exp_stat_sn);
        header[32..32 + command.cdb.len()].copy_from_slice(&command.cdb);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        let task = Task { out: command.out.clone(), data: vec![0; command.expect], arrived: 0 };
        self.tasks.insert(tag, task);
        let immediate = command.out.len().min(self.segment).min(FIRST_BURST);
        self.send(header, &command.out[..immediate])?;
        Ok(tag)
    }

    /// What poll shall wait for.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads what has come and returns the commands that are answered. Blocks if nothing has.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Answer>> {
        self.fill()?;
        let mut answers = Vec::new();
        while let Some((header, data)) = self.take() {
            self.numbers(&header);
            answers.extend(self.handle(&header, &data)?);
        }
        Ok(answers)
    }

    fn handle(&mut self, header: &[u8; HEADER], data: &[u8]) -> io::Result<Option<Answer>> {
        let tag = get(header, 16);
        let unknown = || wrong(format!("PDU {:02X}h for task {tag}, which is not under way", header[0]));
        match header[0] & 0x3F {
            opcode::NOP_IN => {
                if get(header, 20) != NO_TAG {
                    self.pong(header)?;
                }
                Ok(None)
            }
            opcode::R2T => {
                let (offset, length) = (large(get(header, 40)), large(get(header, 44)));
                let out = self.tasks.get(&tag).ok_or_else(unknown)?.out.clone();
                let part = out.get(offset..offset + length).ok_or_else(|| wrong("R2T past the data"))?;
                self.data_out(tag, header, offset, part)?;
                Ok(None)
            }
            opcode::DATA_IN => {
                let task = self.tasks.get_mut(&tag).ok_or_else(unknown)?;
                let offset = large(get(header, 40));
                let into = task.data.get_mut(offset..offset + data.len());
                into.ok_or_else(|| wrong("Data-In past the buffer"))?.copy_from_slice(data);
                task.arrived += data.len();
                if header[1] & 1 == 0 {
                    return Ok(None);
                }
                let task = self.tasks.remove(&tag).ok_or_else(unknown)?;
                Ok(Some(answer(tag, header[3], None, task, header)))
            }
            opcode::RESPONSE => {
                if header[2] != 0 {
                    return Err(wrong(format!("iSCSI response {:02X}h for task {tag}", header[2])));
                }
                let task = self.tasks.remove(&tag).ok_or_else(unknown)?;
                let sense = data.get(2..).and_then(Sense::parse);
                Ok(Some(answer(tag, header[3], sense, task, header)))
            }
            other => Err(wrong(format!("unexpected PDU {other:02X}h: {header:02X?}"))),
        }
    }

    fn pong(&mut self, ping: &[u8; HEADER]) -> io::Result<()> {
        let mut header = [0; HEADER];
        header[0] = opcode::NOP_OUT | opcode::IMMEDIATE;
        header[1] = 0x80;
        header[8..16].copy_from_slice(&ping[8..16]);
        put(&mut header, 16, NO_TAG);
        header[20..24].copy_from_slice(&ping[20..24]);
        put(&mut header, 24, self.cmd_sn);
        put(&mut header, 28, self.exp_stat_sn);
        self.send(header, &[])
    }

    fn data_out(&mut self, tag: u32, r2t: &[u8; HEADER], offset: usize, part: &[u8]) -> io::Result<()> {
        let mut done = 0;
        for (n, piece) in part.chunks(self.segment).enumerate() {
            let mut header = [0; HEADER];
            header[0] = opcode::DATA_OUT;
            header[1] = if done + piece.len() == part.len() { 0x80 } else { 0 };
            header[8..16].copy_from_slice(&r2t[8..16]);
            put(&mut header, 16, tag);
            header[20..24].copy_from_slice(&r2t[20..24]);
            put(&mut header, 28, self.exp_stat_sn);
            put(&mut header, 36, small(n));
            put(&mut header, 40, small(offset + done));
            self.send(header, piece)?;
            done += piece.len();
        }
        Ok(())
    }

    /// Ends the session.
    pub(crate) fn logout(mut self) -> io::Result<()> {
        let mut header = [0; HEADER];
        header[0] = opcode::LOGOUT | opcode::IMMEDIATE;
        header[1] = 0x80;
        put(&mut header, 16, self.next_tag);
        put(&mut header, 24, self.cmd_sn);
        put(&mut header, 28, self.exp_stat_sn);
        self.stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        self.send(header, &[])?;
        while self.receive_one()?.0[0] & 0x3F != opcode::LOGOUT_RESPONSE {}
        Ok(())
    }
}

fn answer(tag: u32, status: u8, sense: Option<Sense>, task: Task, header: &[u8; HEADER]) -> Answer {
    let missing = if header[1] & 0x06 == 0 { 0 } else { get(header, 44) };
    let missing = missing.max(small(if status == 0 { task.data.len() - task.arrived } else { 0 }));
    Answer { tag, status, sense, data: task.data, missing }
}
