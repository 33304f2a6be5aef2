//! How long everything may take, derived in one place, and whether the kernel is as patient.
//!
//! ```text
//!   rados_osd_op_timeout       osd_op_timeout= of the LUN, else the configuration's; longer than a dead OSD stays
//!                              unnoticed (rbd::Cluster)                                        31 s
//!   taking the image's lock    from an owner that is dead: osd_client_watch_timeout            30 s
//!   one command at its worst   takes the lock, then times out                                  61 s
//!   kernel cmd_time_out        0, or longer than that: the kernel would give up a command that may still be
//!                              executed, and its initiator would take it for failed            default 30 s
//!   rados_mon_op_timeout, client_mount_timeout: three quarters of --open-timeout, so that the reason is told   15 s
//!   --drain-timeout            longer than an operation takes, or a stop does not wait for it  45 s
//! ```

use super::Settings;
use crate::kernel::configfs::Backstore;
use crate::kernel::file::FileError;
use crate::kernel::uio::UioDevice;
use crate::log;
use crate::rbd::TimeOuts;
use std::fmt;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

/// How long to wait for monitors, if an image must be open after `open`.
pub(super) fn connect(open: Duration) -> Duration {
    open * 3 / 4
}

/// The time-outs of one LUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    storage: TimeOuts,
    open: Duration,
    drain: Duration,
    /// The kernel's; zero is never.
    command: Duration,
    /// The kernel's, for a command that finds the ring full, in seconds: -1 is as `command`, 0 at once.
    full_ring: i32,
    /// The file of `command`.
    attribute: PathBuf,
}

impl Chain {
    pub(super) fn read(
        storage: TimeOuts,
        open: Duration,
        drain: Duration,
        backstore: &Backstore,
    ) -> Result<Self, FileError> {
        let command = Duration::from_secs(backstore.cmd_time_out()?.into());
        let (full_ring, attribute) =
            (backstore.qfull_time_out()?, backstore.dir().join("attrib/cmd_time_out"));
        Ok(Self { storage, open, drain, command, full_ring, attribute })
    }

    /// How long a command may take before it is answered.
    fn command_at_worst(&self) -> Duration {
        self.storage.lock + self.storage.operation
    }

    /// What is wrong and the command that mends it.
    pub(super) fn advice(&self) -> Option<String> {
        let worst = self.command_at_worst();
        if !self.command.is_zero() && self.command <= worst {
            return Some(format!(
                "the kernel gives a command up after {}, but storage may take {} and still execute it; run 'echo 0 > {}' \
                 before the LUN is exported",
                seconds(self.command),
                seconds(worst),
                self.attribute.display()
            ));
        }
        (self.drain <= self.storage.operation).then(|| {
            format!(
                "a stop waits {} for commands in progress, but storage may take {}; use a --drain-timeout of {}",
                seconds(self.drain),
                seconds(self.storage.operation),
                (self.storage.operation + Duration::from_secs(14)).as_secs()
            )
        })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full_ring = match self.full_ring {
            -1 => "as cmd_time_out".to_owned(),
            0 => "none".to_owned(),
            n => format!("{n} s"),
        };
        write!(
            f,
            "an OSD's answer {}, a dead lock owner {}, so a command {} at worst; kernel cmd_time_out {}, \
             qfull_time_out {full_ring}; monitors {}, opening {}, draining {}",
            seconds(self.storage.operation),
            seconds(self.storage.lock),
            seconds(self.command_at_worst()),
            if self.command.is_zero() { "none".to_owned() } else { seconds(self.command) },
            seconds(self.storage.monitors),
            seconds(self.open),
            seconds(self.drain),
        )
    }
}

/// Tells a LUN's time-outs in one line. What comes back tells once what is wrong with them, if anything: called when the
/// first initiator asks who the disk is, since tools set the attributes after they have made a device and before they
/// export it. For one that is exported already it is told here.
pub(super) fn check(
    settings: &Settings,
    uio: &UioDevice,
    storage: TimeOuts,
) -> impl Fn() + Send + Sync + use<> {
    let (name, backstore) = (uio.name.clone(), Backstore::new(&settings.sys, &uio.name));
    let (open, drain) = (settings.open_timeout, settings.drain_timeout);
    let attributes = backstore.clone();
    let is_exported = backstore.is_exported().unwrap_or(false);
    let read = move || Chain::read(storage, open, drain, &backstore);
    match read() {
        Ok(chain) => tracing::info!(device = %name, "time-outs: {chain}"),
        Err(error) => tracing::warn!(device = %name, "cannot read the time-outs: {}", log::Chain(&error)),
    }
    let told = Once::new();
    let tell = move || {
        told.call_once(|| {
            // Else an initiator that gives a long copy or erasure up has to wait for its end.
            if let Err(error) = attributes.notify_of_task_management() {
                tracing::warn!(device = %name, "aborted commands go on to their end: {}", log::Chain(&error));
            }
            if let Some(advice) = read().ok().and_then(|chain| chain.advice()) {
                tracing::warn!(device = %name, "{advice}");
            }
        });
    };
    if is_exported {
        tell();
    }
    tell
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(command: u64, drain: u64) -> Chain {
        let of = Duration::from_secs;
        Chain {
            storage: TimeOuts { operation: of(31), lock: of(30), monitors: of(15) },
            open: of(20),
            drain: of(drain),
            command: of(command),
            full_ring: -1,
            attribute: "/cfg/user_0/a/attrib/cmd_time_out".into(),
        }
    }

    #[test]
    fn one_line_says_everything() {
        assert_eq!(
            chain(30, 45).to_string(),
            "an OSD's answer 31 s, a dead lock owner 30 s, so a command 61 s at worst; kernel cmd_time_out 30 s, \
             qfull_time_out as cmd_time_out; monitors 15 s, opening 20 s, draining 45 s"
        );
        assert!(chain(0, 45).to_string().contains("kernel cmd_time_out none, "));
    }

    #[test]
    fn a_kernel_that_is_less_patient_is_warned_of_with_the_remedy() {
        for (command, warned) in [(0, false), (30, true), (61, true), (62, false)] {
            assert_eq!(chain(command, 45).advice().is_some(), warned, "{command}");
        }
        let advice = chain(30, 45).advice().unwrap();
        assert!(advice.contains("run 'echo 0 > /cfg/user_0/a/attrib/cmd_time_out'"), "{advice}");
    }

    #[test]
    fn a_stop_waits_for_what_is_in_progress() {
        assert!(chain(0, 31).advice().unwrap().ends_with("--drain-timeout of 45"));
        assert_eq!(chain(0, 32).advice(), None);
    }
}
