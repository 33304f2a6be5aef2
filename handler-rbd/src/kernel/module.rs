//! The kernel module `target_core_user`: is it there, and its netlink switches.
//!
//! A daemon that starts finds whatever its predecessor left: creators that wait for an answer
//! nobody will give. [`Module::block_netlink`] stops new events (creators get EAGAIN, removals
//! proceed without an event), [`Module::reset_netlink`] then frees the waiting (they get EINTR;
//! EBUSY unless blocked).

use super::{Sys, file, file::FileError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tcmu_sys::paths::MODULE_PARAMETERS;

/// Name of the module.
pub const NAME: &str = "target_core_user";

/// The module of one machine.
#[derive(Clone, Debug)]
pub struct Module {
    parameters: PathBuf,
    modprobe: PathBuf,
}

/// Failure to load the module or to use its switches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// modprobe cannot be run.
    #[error("{} is not loaded and {} cannot be run; load it with `modprobe target_core_user`", module.display(), modprobe.display())]
    Modprobe {
        /// Where a loaded module would appear.
        module: PathBuf,
        /// The program.
        modprobe: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// modprobe ran and the module is still not there.
    #[error("{} is not there after `modprobe target_core_user`, which said {said:?}; install the kernel package that has target_core_user.ko (in a container, load it on the host)", module.display())]
    NotLoaded {
        /// Where a loaded module would appear.
        module: PathBuf,
        /// What modprobe printed.
        said: String,
    },
    /// A switch cannot be set.
    #[error("cannot set {NAME}'s {switch}; {remedy}")]
    Switch {
        /// Name of the module parameter.
        switch: &'static str,
        /// What to do about it.
        remedy: &'static str,
        /// Which file, and why.
        source: FileError,
    },
}

impl Module {
    /// The module as `sys` shows it.
    pub fn new(sys: &Sys) -> Self {
        Module { parameters: sys.path(MODULE_PARAMETERS), modprobe: PathBuf::from("modprobe") }
    }

    /// Loads it with another program than `modprobe`.
    pub fn with_modprobe(self, modprobe: impl Into<PathBuf>) -> Self {
        Module { modprobe: modprobe.into(), ..self }
    }

    /// Whether the module is in the kernel.
    pub fn is_loaded(&self) -> bool {
        self.directory().exists()
    }

    /// Which loading of the module this is; none if it is not loaded. Loaded anew it has another number.
    pub fn instance(&self) -> Option<u64> {
        std::fs::metadata(self.directory()).ok().map(|directory| directory.ino())
    }

    /// Loads the module, unless it is there already.
    pub fn load(&self) -> Result<(), ModuleError> {
        if self.is_loaded() {
            return Ok(());
        }
        let output =
            Command::new(&self.modprobe).arg(NAME).stdin(Stdio::null()).output().map_err(|source| {
                ModuleError::Modprobe {
                    module: self.directory().to_owned(),
                    modprobe: self.modprobe.clone(),
                    source,
                }
            })?;
        if self.is_loaded() {
            return Ok(());
        }
        Err(ModuleError::NotLoaded {
            module: self.directory().to_owned(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Stops (`true`) or resumes the kernel's events.
    pub fn block_netlink(&self, block: bool) -> Result<(), ModuleError> {
        self.switch("block_netlink", if block { "1" } else { "0" })
    }

    /// Frees every task that waits for an answer. Events must be blocked.
    pub fn reset_netlink(&self) -> Result<(), ModuleError> {
        self.switch("reset_netlink", "1")
    }

    fn directory(&self) -> &Path {
        self.parameters.parent().unwrap_or(&self.parameters)
    }

    fn switch(&self, switch: &'static str, value: &str) -> Result<(), ModuleError> {
        file::write(&self.parameters.join(switch), value).map_err(|source| {
            let remedy = match source.errno() {
                Some(libc::ENOENT) if self.is_loaded() => "this needs Linux 4.19 or later",
                Some(libc::ENOENT) => "load it with `modprobe target_core_user`",
                Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                    "run as root, in a container with /sys writable"
                }
                Some(libc::EBUSY) => "block_netlink must be set to 1 first",
                _ => "the kernel's log may say more",
            };
            ModuleError::Switch { switch, remedy, source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn switches_are_written() {
        let root = tempfile::tempdir().unwrap();
        let parameters = root.path().join("sys/module/target_core_user/parameters");
        fs::create_dir_all(&parameters).unwrap();
        fs::write(parameters.join("block_netlink"), "?").unwrap();
        fs::write(parameters.join("reset_netlink"), "?").unwrap();
        let module = Module::new(&Sys::at(root.path()));

        module.block_netlink(true).unwrap();
        module.reset_netlink().unwrap();

        assert!(module.is_loaded());
        assert_eq!(fs::read_to_string(parameters.join("block_netlink")).unwrap(), "1");
        assert_eq!(fs::read_to_string(parameters.join("reset_netlink")).unwrap(), "1");
    }

    #[test]
    fn a_missing_module_names_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let module = Module::new(&Sys::at(root.path()));
        let error = module.block_netlink(true).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot set target_core_user's block_netlink; load it with `modprobe target_core_user`"
        );
    }

    #[test]
    fn load_runs_modprobe_and_looks() {
        let root = tempfile::tempdir().unwrap();
        let module = Module::new(&Sys::at(root.path()));

        let error = module.clone().with_modprobe("false").load().unwrap_err();
        assert!(matches!(error, ModuleError::NotLoaded { .. }), "{error}");
        let error = module.clone().with_modprobe("/nonexistent").load().unwrap_err();
        assert!(matches!(error, ModuleError::Modprobe { .. }), "{error}");

        fs::create_dir_all(root.path().join("sys/module/target_core_user")).unwrap();
        module.with_modprobe("/nonexistent").load().unwrap();
    }
}
