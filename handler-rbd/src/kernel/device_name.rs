//! The name of a TCMU device, as UIO and netlink spell it: `tcm-user/HBA/NAME/CONFIG`.
//!
//! HBA is the number N of the configfs directory `user_N`; NAME cannot hold a slash, CONFIG can
//! (and usually does). A device without `dev_config` has no third slash. `dev_config` written
//! through configfs keeps the newline that `echo` added, so the end of CONFIG is trimmed.

use std::fmt;
use tcmu_sys::paths::NAME_PREFIX;

/// A device: which configfs directory it has, and its `dev_config`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceName {
    /// N of the configfs directory `user_N`.
    pub hba: u32,
    /// Name of the directory below it.
    pub name: String,
    /// `dev_config`: the subtype, a slash and the handler's configuration string.
    pub config: String,
}

/// A name that this grammar does not cover.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device name {name:?} is not of the form tcm-user/HBA/NAME/CONFIG: {fault}")]
pub struct NameError {
    name: String,
    fault: &'static str,
}

impl DeviceName {
    /// Parses `tcm-user/HBA/NAME/CONFIG`.
    pub fn parse(text: &[u8]) -> Result<Self, NameError> {
        let error = |fault| NameError { name: String::from_utf8_lossy(text).into_owned(), fault };
        let text = std::str::from_utf8(text).map_err(|_| error("it is not UTF-8"))?;
        let text = trimmed(text);
        let rest = text.strip_prefix(NAME_PREFIX).ok_or_else(|| error("it does not start with tcm-user/"))?;
        let (hba, rest) = rest.split_once('/').ok_or_else(|| error("NAME is missing"))?;
        if hba.is_empty() || !hba.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(error("HBA is not a number"));
        }
        let hba = hba.parse().map_err(|_| error("HBA does not fit 32 bits"))?;
        let (name, config) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() || name == "." || name == ".." {
            return Err(error("NAME is not a directory's name"));
        }
        Ok(DeviceName { hba, name: name.to_owned(), config: trimmed(config).to_owned() })
    }

    /// The subtype: what stands before the first slash of `config`.
    pub fn subtype(&self) -> &str {
        self.config.split_once('/').map_or(self.config.as_str(), |(subtype, _)| subtype)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user_{}/{}", self.hba, self.name)
    }
}

/// `text` without the newlines, NULs and spaces at its end.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_end_matches(|c: char| c == '\0' || c.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(hba: u32, name: &str, config: &str) -> DeviceName {
        DeviceName { hba, name: name.to_owned(), config: config.to_owned() }
    }

    #[test]
    fn splits_on_the_first_three_slashes_only() {
        let table: [(&[u8], DeviceName); 5] = [
            (b"tcm-user/0/d0/rbd/rbd/img", name(0, "d0", "rbd/rbd/img")),
            (b"tcm-user/17/rbd.disk_1/rbd/p/i;conf=/etc/x\n", name(17, "rbd.disk_1", "rbd/p/i;conf=/etc/x")),
            (b"tcm-user/1/d\n", name(1, "d", "")),
            (b"tcm-user/1/d/", name(1, "d", "")),
            (b"tcm-user/1/d/rbd/p/i \n\0", name(1, "d", "rbd/p/i")),
        ];
        for (text, want) in table {
            assert_eq!(DeviceName::parse(text), Ok(want));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let table: [(&[u8], &str); 8] = [
            (b"", "it does not start with tcm-user/"),
            (b"uio_pci_generic", "it does not start with tcm-user/"),
            (b"tcm-user/0", "NAME is missing"),
            (b"tcm-user/x/d/c", "HBA is not a number"),
            (b"tcm-user/+1/d/c", "HBA is not a number"),
            (b"tcm-user/99999999999/d/c", "HBA does not fit 32 bits"),
            (b"tcm-user/0/../c", "NAME is not a directory's name"),
            (b"tcm-user/0/\xff/c", "it is not UTF-8"),
        ];
        for (text, fault) in table {
            assert_eq!(DeviceName::parse(text).unwrap_err().fault, fault);
        }
    }

    #[test]
    fn subtype_is_exact() {
        assert_eq!(name(0, "d", "rbd/p/i").subtype(), "rbd");
        assert_eq!(name(0, "d", "rb/p/i").subtype(), "rb");
        assert_eq!(name(0, "d", "").subtype(), "");
    }
}
