//! All 256 operation codes, otherwise zero, with the CDB length of their group, without data and with 512 bytes in:
//! each is answered within two seconds, the unknown ones with INVALID COMMAND OPERATION CODE, and nothing is damaged.
//! Only FORMAT UNIT, which would erase everything, gets a field that makes it wrong.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sgtest::initiator::{Data, INVALID_OPCODE, Lun, Reply, Transport, status};
use sgtest::random::Random;
use sgtest::report::{Report, Verdict};
use sgtest::sg::Sg;

const LIMIT: Duration = Duration::from_secs(2);

/// What may be answered otherwise than INVALID COMMAND OPERATION CODE, by the requirement, not by the program.
const SUPPORTED: &[u8] = &[
    0x00, 0x03, 0x04, 0x08, 0x0A, 0x12, 0x15, 0x1A, 0x1B, 0x1E, 0x25, 0x28, 0x2A, 0x2E, 0x2F, 0x34, 0x35,
    0x37, 0x41, 0x42, 0x48, 0x4D, 0x55, 0x5A, 0x7F, 0x83, 0x84, 0x88, 0x89, 0x8A, 0x8B, 0x8E, 0x8F, 0x90,
    0x91, 0x93, 0x9C, 0x9E, 0xA3, 0xA8, 0xAA, 0xAE, 0xAF, 0xB7,
];
/// REPORT LUNS, PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE: the kernel's own.
const KERNEL: &[u8] = &[0xA0, 0x5E, 0x5F, 0x16, 0x17, 0x56, 0x57];

/// CDBs of an operation code, by the length of its group (SPC-4 table 25); reserved and vendor groups in all sizes.
fn cdbs(opcode: u8) -> Vec<Vec<u8>> {
    let lengths: &[usize] = match opcode {
        0x00..=0x1F => &[6],
        0x20..=0x5F => &[10],
        0x80..=0x9F => &[16],
        0xA0..=0xBF => &[12],
        0x7F => &[8, 32],
        _ => &[6, 10, 12, 16],
    };
    let cdb = |len: usize| {
        let mut cdb = vec![0; len];
        cdb[0] = opcode;
        if opcode == 0x04 {
            cdb[1] = 0xC0; // FMTPINFO 11b, with protection information
        }
        if opcode == 0x7F {
            cdb[7] = u8::try_from(len - 8).expect("ADDITIONAL CDB LENGTH");
        }
        cdb
    };
    lengths.iter().map(|len| cdb(*len)).collect()
}

type Job = (Vec<u8>, usize);

/// A thread sends the commands, so that one which is never answered is noticed all the same.
fn sender(sg: Sg) -> (mpsc::Sender<Job>, mpsc::Receiver<Result<Reply, String>>) {
    let (jobs, todo) = mpsc::channel::<Job>();
    let (done, replies) = mpsc::channel();
    thread::spawn(move || {
        for (cdb, len) in todo {
            let mut buffer = vec![0; len];
            let data = if len == 0 { Data::None } else { Data::In(&mut buffer) };
            if done.send(sg.execute(&cdb, data, LIMIT).map_err(|e| e.to_string())).is_err() {
                break;
            }
        }
    });
    (jobs, replies)
}

fn judge(opcode: u8, reply: &Reply) -> Verdict {
    if reply.elapsed > LIMIT || reply.host_status != 0 {
        return Err(format!("not answered within {} s: {reply}", LIMIT.as_secs()));
    }
    let invalid_opcode = reply.refused_with(&[INVALID_OPCODE]);
    // Zero fields may be wrong for a command that is known (no length, a missing parameter list).
    let refused = reply.sense.is_some_and(|s| matches!(s.code.0, 0x5 | 0xB) && s.code != INVALID_OPCODE);
    let accepted = reply.good().is_ok() || (reply.status == status::CHECK_CONDITION && refused);
    match opcode {
        // Service action 00h of these is none that anybody asked for: unknown operation, or invalid field.
        0x7F | 0x9E | 0xA3 if invalid_opcode.is_ok() => Ok(()),
        _ if SUPPORTED.contains(&opcode) || KERNEL.contains(&opcode) => {
            if accepted {
                Ok(())
            } else {
                Err(format!("a supported command answered {reply}"))
            }
        }
        _ => invalid_opcode,
    }
}

/// As many as READ(6) and WRITE(6) with a zero length mean.
const BLOCKS: u32 = 256;

pub(crate) fn run(report: &Report, device: &Path) {
    let pattern = Random::new(0x0C0D).bytes(BLOCKS as usize * 512);
    let opened = Sg::open(device).map_err(|e| e.to_string());
    let prepared = opened.and_then(|sg| Lun::attach(&sg)?.write(0, &pattern).map(|()| sg));
    let sg = match prepared {
        Ok(sg) => sg,
        Err(why) => return report.record("the LUN can be written before", &Err(why)),
    };
    let (jobs, replies) = sender(sg);
    for opcode in 0..=u8::MAX {
        let mut verdict = Ok(());
        let mut hung = false;
        'passes: for len in [0, 512] {
            for cdb in cdbs(opcode) {
                let about = format!("{}-byte CDB, {len} bytes in", cdb.len());
                let reply = jobs
                    .send((cdb, len))
                    .map_err(|e| e.to_string())
                    .and_then(|()| {
                        replies.recv_timeout(LIMIT + Duration::from_secs(1)).map_err(|_| {
                            hung = true;
                            format!("not answered within {} s", LIMIT.as_secs())
                        })
                    })
                    .and_then(|reply| reply);
                verdict = reply
                    .and_then(|reply| {
                        // A status, however late, leaves the LUN usable; an aborted command may not.
                        hung |= reply.host_status != 0;
                        judge(opcode, &reply)
                    })
                    .map_err(|why| format!("{about}: {why}"));
                if verdict.is_err() {
                    break 'passes;
                }
            }
        }
        report.record(&format!("operation code {opcode:02X}h"), &verdict);
        if hung {
            return report
                .record("the remaining operation codes", &Err("not sent: the LUN hangs".to_owned()));
        }
    }
    let mut found = Err("not read".to_owned());
    report.check("TEST UNIT READY and READ after all of them", || {
        let sg = Sg::open(device).map_err(|e| e.to_string())?;
        let lun = Lun::attach(&sg)?;
        lun.is_alive()?;
        found = lun.read(0, BLOCKS);
        found.as_ref().map(drop).map_err(Clone::clone)
    });
    report.check("no block was changed by any of them", || {
        if found? == pattern {
            Ok(())
        } else {
            Err(format!("the first {BLOCKS} blocks are not what they were before"))
        }
    });
}
