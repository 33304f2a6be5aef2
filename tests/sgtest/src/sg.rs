//! SG_IO on `/dev/sgN`: the one file that talks to the kernel. The driver keeps a buffer per open file and copies all of
//! it to the caller, also what the target did not write: so each data-in command opens a file of its own, whose buffer
//! starts as zeros, and what stands in a reply comes from the target or is zero. (SG_DXFER_TO_FROM_DEV, made for that,
//! fails with EINVAL on Linux 6.1.176.)
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::{Duration, Instant};

use crate::initiator::{Data, Reply, Sense, Transport, status};

/// `SG_IO` of `<scsi/sg.h>`.
const SG_IO: libc::Ioctl = 0x2285;
const DXFER_NONE: libc::c_int = -1;
const DXFER_TO_DEV: libc::c_int = -2;
const DXFER_FROM_DEV: libc::c_int = -3;
/// Sense bytes asked for: as many as the kernel keeps.
const SENSE: usize = 96;

/// `struct sg_io_hdr` of `<scsi/sg.h>`.
#[repr(C)]
#[derive(Debug)]
struct Header {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration: u32,
    info: u32,
}

// The size on every 64-bit Linux; a wrong layout must not compile.
const _: () = assert!(size_of::<Header>() == 88);

/// A generic SCSI device.
#[derive(Debug)]
pub struct Sg {
    path: PathBuf,
    file: File,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

impl Sg {
    /// Opens `/dev/sgN`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)? })
    }
}

impl Transport for Sg {
    fn execute(&self, cdb: &[u8], data: Data<'_>, timeout: Duration) -> io::Result<Reply> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut sense = [0_u8; SENSE];
        let len = data.len();
        let (dxfer_direction, dxferp) = match data {
            Data::None => (DXFER_NONE, ptr::null_mut()),
            Data::In(buffer) => (DXFER_FROM_DEV, buffer.as_mut_ptr().cast()),
            Data::Out(buffer) => (DXFER_TO_DEV, buffer.as_ptr().cast_mut().cast()),
        };
        let mut header = Header {
            interface_id: libc::c_int::from(b'S'),
            dxfer_direction,
            cmd_len: u8::try_from(cdb.len()).map_err(invalid)?,
            mx_sb_len: u8::try_from(SENSE).map_err(invalid)?,
            iovec_count: 0,
            dxfer_len: u32::try_from(len).map_err(invalid)?,
            dxferp,
            cmdp: cdb.as_ptr(),
            sbp: sense.as_mut_ptr(),
            timeout: u32::try_from(timeout.as_millis()).map_err(invalid)?,
            flags: 0,
            pack_id: 0,
            usr_ptr: ptr::null_mut(),
            status: 0,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0,
            host_status: 0,
            driver_status: 0,
            resid: 0,
            duration: 0,
            info: 0,
        };
        let own = (dxfer_direction == DXFER_FROM_DEV).then(|| open(&self.path)).transpose()?;
        let fd = own.as_ref().unwrap_or(&self.file).as_raw_fd();
        let start = Instant::now();
        // SAFETY: the header is laid out as the kernel's and lives through the call; cmdp, sbp and dxferp point to
        // cdb, sense and the caller's buffer, borrowed for the whole call, with their true lengths beside them. The
        // kernel writes only to sense (at most mx_sb_len), to the header, and to dxferp if the direction is "from
        // device", where the buffer came from a mutable borrow.
        let rc = unsafe { libc::ioctl(fd, SG_IO, &raw mut header) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        let written = usize::from(header.sb_len_wr).min(SENSE);
        Ok(Reply {
            status: header.status,
            sense: (header.status == status::CHECK_CONDITION)
                .then(|| Sense::parse(&sense[..written]))
                .flatten(),
            resid: usize::try_from(header.resid).unwrap_or(0),
            host_status: header.host_status,
            elapsed: start.elapsed(),
        })
    }
}
