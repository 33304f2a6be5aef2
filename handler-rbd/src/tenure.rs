//! What survives this process so that its successor can fence it: the RADOS addresses of each device's
//! client, in a file below the run directory.
//!
//! Invariant "no late write": a process that dies may leave writes on their way to the OSDs. Whoever serves
//! the device next has the cluster refuse the dead client before it serves or has anything answered. The
//! record is written before the first command is consumed and erased after the image was closed in order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the records of all devices are kept. On tmpfs: a host that rebooted has no clients left.
pub const DEFAULT_DIR: &str = "/run/tcmu-rbd";

/// The record of one device.
#[derive(Clone, Debug)]
pub struct Tenure {
    path: PathBuf,
}

impl Tenure {
    /// The record of `user_HBA/NAME`.
    pub fn of(dir: &Path, hba: u32, name: &str) -> Self {
        // A backstore's name cannot contain '/' (it is a directory's), so the file name is unique.
        Self { path: dir.join(format!("user_{hba}.{name}.client")) }
    }

    /// The addresses of a predecessor that did not end in order, if there was one.
    pub fn predecessor(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|addresses| !addresses.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The record's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records our own addresses in the predecessor's place, who has been fenced by now.
    pub fn begin(&self, addresses: &str) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{addresses}\n"))?;
        fs::rename(&new, &self.path) // whole or not at all
    }

    /// Erases the record: the client has been shut down in order and has nothing on its way.
    pub fn end(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_finds_the_addresses_unless_the_end_was_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let tenure = Tenure::of(&run, 3, "disk.a");
        assert_eq!(tenure.predecessor().unwrap(), None);
        tenure.begin("10.0.0.1:0/1,10.0.0.1:0/2").unwrap();
        let found = Tenure::of(&run, 3, "disk.a").predecessor().unwrap();
        assert_eq!(found.as_deref(), Some("10.0.0.1:0/1,10.0.0.1:0/2"));
        assert_eq!(Tenure::of(&run, 2, "disk.a").predecessor().unwrap(), None);
        tenure.end().unwrap();
        tenure.end().unwrap();
        assert_eq!(tenure.predecessor().unwrap(), None);
    }
}
