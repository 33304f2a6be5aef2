//! One backstore's directory in configfs, `core/user_N/NAME`, as typed values.
//!
//! Attributes are read when they are asked for: tools write the serial number, timeouts and ALUA
//! groups after they enabled the device. Never call this for a device whose removal is not yet
//! answered, and never from a thread that must answer quickly: lookups wait for whoever holds the
//! directory. `action/` returns EINVAL until the device's ADDED event is answered.

use super::{DeviceName, Sys, file, file::FileError};
use std::path::{Path, PathBuf};
use tcmu_sys::paths::{CONFIGFS_CORE, CONFIGFS_TARGET};

const SERIAL_PREFIX: &str = "T10 VPD Unit Serial Number: ";

/// How the commands that a ring reset throws away are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// With BUSY: initiators try again.
    Busy,
    /// With CHECK CONDITION, NOT READY 08h/00h: initiators fail them.
    CheckCondition,
}

/// A backstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backstore {
    dir: PathBuf,
    fabrics: PathBuf,
}

impl Backstore {
    /// The backstore called `name`. Nothing is looked up.
    pub fn new(sys: &Sys, name: &DeviceName) -> Self {
        let dir = sys.path(CONFIGFS_CORE).join(format!("user_{}", name.hba)).join(&name.name);
        Backstore { dir, fabrics: sys.path(CONFIGFS_TARGET) }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the fabrics' directories are.
    pub(super) fn fabrics(&self) -> &Path {
        &self.fabrics
    }

    /// Size in bytes.
    pub fn dev_size(&self) -> Result<u64, FileError> {
        self.number("attrib/dev_size")
    }

    /// Size of a logical block in bytes.
    pub fn block_size(&self) -> Result<u32, FileError> {
        let path = self.dir.join("attrib/hw_block_size");
        match file::number::<u32>(&path)? {
            size if size.is_power_of_two() && size >= 512 => Ok(size),
            size => Err(FileError::Content {
                path,
                found: size.to_string(),
                wanted: "a power of two that is at least 512",
            }),
        }
    }

    /// Recommended largest transfer, in blocks.
    pub fn max_sectors(&self) -> Result<u32, FileError> {
        self.number("attrib/hw_max_sectors")
    }

    /// Seconds after which the kernel gives a command up; 0 means never.
    pub fn cmd_time_out(&self) -> Result<u32, FileError> {
        self.number("attrib/cmd_time_out")
    }

    /// Whether some fabric exports it.
    pub fn is_exported(&self) -> Result<bool, FileError> {
        Ok(file::text(&self.dir.join("info"))?.contains("Status: ACTIVATED"))
    }

    /// Has the kernel tell on the ring which commands were aborted. Off unless somebody sets it.
    pub fn notify_of_task_management(&self) -> Result<(), FileError> {
        file::write(&self.dir.join("attrib/tmr_notification"), "1")
    }

    /// Seconds that a command waits for room on the ring; -1 is as `cmd_time_out`, 0 not at all.
    pub fn qfull_time_out(&self) -> Result<i32, FileError> {
        self.number("attrib/qfull_time_out")
    }

    /// Changes the size, in bytes. For a device that is set up the kernel asks first, with an event, and waits for
    /// the answer.
    pub fn set_dev_size(&self, size: u64) -> Result<(), FileError> {
        file::write(&self.dir.join("attrib/dev_size"), &size.to_string())
    }

    /// Whether initiators are told of a volatile write cache.
    pub fn emulate_write_cache(&self) -> Result<bool, FileError> {
        file::flag(&self.dir.join("attrib/emulate_write_cache"))
    }

    /// The unit serial number that identifies the LUN on all gateways; empty until a tool set it.
    pub fn unit_serial(&self) -> Result<String, FileError> {
        let text = file::text(&self.dir.join("wwn/vpd_unit_serial"))?;
        // Without a serial the kernel prints the prefix alone, and its space is trimmed.
        Ok(text.strip_prefix(SERIAL_PREFIX.trim_end()).unwrap_or(&text).trim_start().to_owned())
    }

    /// Whether somebody holds a persistent reservation of a Write Exclusive type.
    pub fn write_exclusive(&self) -> Result<bool, FileError> {
        let text = file::text(&self.dir.join("pr/res_pr_type"))?;
        Ok(text
            .strip_prefix("SPC-3 Reservation Type: ")
            .is_some_and(|kind| kind.starts_with("Write Exclusive")))
    }

    /// Answers new commands with BUSY (`true`), or lets them through again.
    pub fn block(&self, block: bool) -> Result<(), FileError> {
        file::write(&self.dir.join("action/block_dev"), if block { "1" } else { "0" })
    }

    /// Throws away every command that is not complete and empties the ring. Only for a device whose
    /// commands nobody is working on.
    pub fn reset_ring(&self, kind: ResetKind) -> Result<(), FileError> {
        let value = match kind {
            ResetKind::Busy => "1",
            ResetKind::CheckCondition => "2",
        };
        file::write(&self.dir.join("action/reset_ring"), value)
    }

    fn number<T: std::str::FromStr>(&self, attribute: &str) -> Result<T, FileError> {
        file::number(&self.dir.join(attribute))
    }
}
