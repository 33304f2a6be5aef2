//! Who may only read: the fabrics' access lists, as far as they concern one backstore.

use super::configfs::Backstore;
use super::file::{self, FileError};
use std::fs;
use std::path::Path;

impl Backstore {
    /// Whether an initiator may exist that may read this device and not write it: a mapped LUN with `write_protect`, or a
    /// portal group that lets unknown initiators in write protected.
    pub fn has_read_only_initiators(&self) -> Result<bool, FileError> {
        let alua = self.dir().join("alua");
        for group in missing_is(Vec::new(), file::entries(&alua))? {
            let members = missing_is(String::new(), file::text(&alua.join(group).join("members")))?;
            for member in super::alua::members_of(&members) {
                let tpg = self.fabrics().join(&member.fabric).join(&member.wwn);
                if is_read_only_for_some(&tpg.join(format!("tpgt_{}", member.tpgt)), member.lun)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn is_read_only_for_some(tpg: &Path, lun: u64) -> Result<bool, FileError> {
    let flag = |path: &Path| missing_is(false, file::flag(path));
    let attributes = tpg.join("attrib");
    if flag(&attributes.join("generate_node_acls"))? && flag(&attributes.join("demo_mode_write_protect"))? {
        return Ok(true);
    }
    let acls = tpg.join("acls");
    for initiator in missing_is(Vec::new(), file::entries(&acls))? {
        let acl = acls.join(initiator);
        for mapped in missing_is(Vec::new(), file::entries(&acl))? {
            let mapped = acl.join(mapped);
            if is_of(&mapped, lun) && flag(&mapped.join("write_protect"))? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a mapped LUN is a link to the portal group's LUN of this number.
fn is_of(mapped: &Path, lun: u64) -> bool {
    let name = format!("lun_{lun}");
    let entries = fs::read_dir(mapped).into_iter().flatten().flatten();
    let mut links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|target| target.file_name().is_some_and(|file| *file == *name))
}

/// What is removed while we look, or is not of this fabric, is not there.
fn missing_is<T>(default: T, found: Result<T, FileError>) -> Result<T, FileError> {
    match found {
        Err(error) if error.is_missing() => Ok(default),
        found => found,
    }
}
