//! The configuration string of a backstore: `POOL/IMAGE[;option=value]*`, pure text.
//!
//! [`CfgString::parse`] takes what libtcmu and its rbd handler take and then serve, so devices made
//! under the incumbent come up: leading slashes and repeated `;` collapse, `tcmur_cmd_time_out=N`
//! may stand anywhere (also before POOL), unknown options are skipped, the last of a repeated
//! option counts. What was skipped is listed, for a warning. [`check`] is for strings that are
//! about to be used for the first time, and refuses what the kernel or rtslib would garble.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The subtype that `dev_config` starts with.
pub const SUBTYPE: &str = "rbd";
/// Longest `dev_config` the kernel keeps (`TCMU_CONFIG_LEN` less its NUL).
pub const MAX_DEV_CONFIG: usize = 255;

/// How long a dead OSD stays unnoticed unless the cluster's configuration says otherwise: `osd_heartbeat_grace` and
/// `osd_heartbeat_interval`. An `osd_op_timeout` must be longer.
const RECOVERY: Duration = Duration::from_secs(20 + 6);

/// The option that may stand anywhere.
const CMD_TIME_OUT: &str = "tcmur_cmd_time_out=";

/// A parsed configuration string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CfgString {
    /// RADOS pool.
    pub pool: String,
    /// RADOS namespace; the grammar has no place for one.
    pub namespace: Option<String>,
    /// RBD image.
    pub image: String,
    /// `osd_op_timeout`: how long a RADOS operation may take.
    pub osd_op_timeout: Option<Duration>,
    /// `conf`: path of the cluster's configuration file.
    pub conf: Option<PathBuf>,
    /// `id`: Ceph user, without `client.`.
    pub id: Option<String>,
    /// `tcmur_cmd_time_out`: seconds after which a running command is worth a complaint.
    pub cmd_time_out: Option<u32>,
    /// What was skipped, and why.
    pub skipped: Vec<CfgError>,
}

/// What is wrong with a configuration string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CfgError {
    /// It does not start with `rbd/`.
    #[error("the handler is {found:?}; this daemon serves \"rbd\", as in rbd/POOL/IMAGE")]
    Subtype {
        /// What it starts with.
        found: String,
    },
    /// There is no pool.
    #[error("the pool is missing; write POOL/IMAGE")]
    NoPool,
    /// There is no image.
    #[error("the image is missing after {pool:?}; write POOL/IMAGE")]
    NoImage {
        /// What was taken for the pool.
        pool: String,
    },
    /// The image's name has a slash.
    #[error("the image {image:?} has a slash in it; RADOS namespaces are not supported, write POOL/IMAGE")]
    Namespace {
        /// The image.
        image: String,
    },
    /// An option has no value.
    #[error("the option {key} has no value; write {key}={}", example(key))]
    NoValue {
        /// The option.
        key: String,
    },
    /// An option's value is not a number of seconds.
    #[error(
        "the option {key} has the value {value:?}, which is not a number of seconds; write {key}={}",
        example(key)
    )]
    NotSeconds {
        /// The option.
        key: String,
        /// Its value.
        value: String,
    },
    /// There is no such option.
    #[error("the option {option:?} is not known; known are osd_op_timeout, conf, id and tcmur_cmd_time_out")]
    UnknownOption {
        /// The option with its value.
        option: String,
    },
    /// A character that cannot get through the kernel and rtslib.
    #[error("{character:?} at byte {at} cannot be used: {why}")]
    Character {
        /// The character.
        character: char,
        /// Where it stands, counted from 0.
        at: usize,
        /// Who would garble it.
        why: &'static str,
    },
    /// It is too long.
    #[error("it is {length} bytes long with the handler's name; the kernel keeps {MAX_DEV_CONFIG}")]
    TooLong {
        /// Its length.
        length: usize,
    },
}

/// Parses `dev_config`, as in `rbd/POOL/IMAGE;option=value`.
pub fn parse_dev_config(dev_config: &str) -> Result<CfgString, CfgError> {
    let (subtype, rest) = dev_config.split_once('/').unwrap_or((dev_config, ""));
    if subtype != SUBTYPE {
        return Err(CfgError::Subtype { found: subtype.to_owned() });
    }
    CfgString::parse(rest)
}

/// Checks a `dev_config` before a device is made with it.
pub fn check(dev_config: &str) -> Result<(), CfgError> {
    for (at, character) in dev_config.char_indices() {
        let why = match character {
            ',' => "the kernel takes it for the end of the string",
            ':' => "rtslib refuses it",
            _ if character.is_whitespace() => "rtslib cuts the string there when it saves it",
            _ if character.is_control() => "it is a control character",
            _ => continue,
        };
        return Err(CfgError::Character { character, at, why });
    }
    if dev_config.len() > MAX_DEV_CONFIG {
        return Err(CfgError::TooLong { length: dev_config.len() });
    }
    let parsed = parse_dev_config(dev_config)?;
    if parsed.image.contains('/') {
        return Err(CfgError::Namespace { image: parsed.image });
    }
    let unusable = |error: &CfgError| !matches!(error, CfgError::UnknownOption { .. });
    parsed.skipped.into_iter().find(unusable).map_or(Ok(()), Err)
}

/// What of a string that [`check`] takes is not what it looks like. Not part of `check`: targetcli would refuse what it
/// takes today.
pub fn warnings(dev_config: &str) -> Result<Vec<String>, CfgError> {
    let parsed = parse_dev_config(dev_config)?;
    let mut found: Vec<_> = parsed.skipped.iter().map(|skipped| format!("ignored: {skipped}")).collect();
    if let Some(timeout) = parsed.osd_op_timeout.filter(|timeout| *timeout <= RECOVERY) {
        found.push(format!(
            "osd_op_timeout={} is not longer than a dead OSD stays unnoticed (osd_heartbeat_grace + osd_heartbeat_interval, \
             {} s by default); unless they are less in this cluster, a longer one is used",
            timeout.as_secs_f64(),
            RECOVERY.as_secs()
        ));
    }
    if parsed.image.contains('@') {
        found.push(format!(
            "the image {:?} has an @ in it: snapshots are not served, and an image of this name will not be found; \
             serve a clone of the snapshot",
            parsed.image
        ));
    }
    Ok(found)
}

impl CfgString {
    /// Parses `POOL/IMAGE;option=value`, without the subtype.
    pub fn parse(text: &str) -> Result<Self, CfgError> {
        let mut parsed = CfgString::default();
        let mut target = None;
        for part in text.split(';').filter(|part| !part.is_empty()) {
            if target.is_none() && !part.starts_with(CMD_TIME_OUT) {
                target = Some(part);
            } else {
                parsed.option(part)?;
            }
        }
        let target = target.unwrap_or_default().trim_start_matches('/');
        let (pool, image) = target.split_once('/').unwrap_or((target, ""));
        if pool.is_empty() {
            return Err(CfgError::NoPool);
        }
        if image.is_empty() {
            return Err(CfgError::NoImage { pool: pool.to_owned() });
        }
        parsed.pool = pool.to_owned();
        parsed.image = image.to_owned();
        Ok(parsed)
    }

    fn option(&mut self, option: &str) -> Result<(), CfgError> {
        let Some((key, value)) = option.split_once('=') else {
            self.skipped.push(CfgError::UnknownOption { option: option.to_owned() });
            return Ok(());
        };
        let known = ["osd_op_timeout", "conf", "id", "tcmur_cmd_time_out"].contains(&key);
        if known && value.is_empty() {
            return Err(CfgError::NoValue { key: key.to_owned() });
        }
        let not_seconds = || CfgError::NotSeconds { key: key.to_owned(), value: value.to_owned() };
        match key {
            "osd_op_timeout" => match seconds(value) {
                Some(seconds) => self.osd_op_timeout = Some(seconds),
                None => self.skipped.push(not_seconds()),
            },
            "tcmur_cmd_time_out" => match value.parse() {
                Ok(seconds) => self.cmd_time_out = Some(seconds),
                Err(_) => self.skipped.push(not_seconds()),
            },
            "conf" => self.conf = Some(PathBuf::from(value)),
            "id" => self.id = Some(value.to_owned()),
            _ => self.skipped.push(CfgError::UnknownOption { option: option.to_owned() }),
        }
        Ok(())
    }
}

impl fmt::Display for CfgString {
    /// The string that parses to this value, without the subtype.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pool.starts_with(CMD_TIME_OUT) {
            // Else it would be taken for the option, which may stand before the pool.
            f.write_str("/")?;
        }
        write!(f, "{}/{}", self.pool, self.image)?;
        if let Some(timeout) = self.osd_op_timeout {
            write!(f, ";osd_op_timeout={}", timeout.as_secs_f64())?;
        }
        if let Some(conf) = &self.conf {
            write!(f, ";conf={}", conf.display())?;
        }
        if let Some(id) = &self.id {
            write!(f, ";id={id}")?;
        }
        if let Some(seconds) = self.cmd_time_out {
            write!(f, ";tcmur_cmd_time_out={seconds}")?;
        }
        Ok(())
    }
}

fn seconds(value: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(value.parse().ok()?).ok()
}

fn example(key: &str) -> &'static str {
    match key {
        "conf" => "/etc/ceph/ceph.conf",
        "id" => "admin",
        _ => "30",
    }
}

#[cfg(test)]
#[path = "cfgstring_tests.rs"]
mod tests;
