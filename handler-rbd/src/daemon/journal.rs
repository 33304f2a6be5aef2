//! A device's journal: what lets a successor go on where a process stopped or died (docs/recovery.md).
//!
//! Whatever is doubtful here ends with the ring being reset, which costs initiators a BUSY and is always right.

use super::open::{Attached, map};
use super::storage::Storage;
use super::{Daemon, SetupError};
use crate::clock::{awake, since_boot};
use crate::kernel::configfs::Backstore;
use crate::kernel::file::FileError;
use crate::kernel::uio::{Instance, UioDevice};
use crate::log::Chain;
use crate::records::DeviceKey;
use crate::scsi;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use uio_ring::{Cdb, JournalFile, Recovered, ResumeError, Resumed, Ring, Stage};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A command that is so near its end is not worth being carried out.
const MARGIN_MS: u64 = 2000;

/// Why what was in progress must not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Doubt {
    /// The journal does not tell what was in progress.
    #[error(transparent)]
    Journal(#[from] ResumeError),
    /// It cannot be looked at.
    #[error("cannot read the journal")]
    Io(#[source] io::Error),
    /// The kernel may have given commands up, and their initiators may have gone on without them.
    #[error(
        "commands may be older than cmd_time_out={seconds}; run 'echo 0 > {attribute}' before the device is exported"
    )]
    Expired { seconds: u32, attribute: String },
    /// Somebody else may have written since.
    #[error("another client may have had the image's lock since")]
    Gap,
    /// An attribute cannot be read.
    #[error(transparent)]
    Attribute(#[from] FileError),
}

impl Daemon {
    fn journal_file(&self, uio: &UioDevice) -> io::Result<JournalFile> {
        let file = self.records.journal(&key(uio))?;
        Ok(JournalFile { file: file.into(), incarnation: incarnation(uio.instance)? })
    }

    /// Whether there may be something to go on with, as far as can be told without the ring.
    pub(super) fn has_journal(&self, uio: &UioDevice) -> bool {
        let found = || -> io::Result<bool> {
            let mut head = [0; 40];
            self.records.journal(&key(uio))?.read_exact_at(&mut head, 0)?;
            Ok(head[..8] != [0; 8] && head[8..] == incarnation(uio.instance)?)
        };
        found().unwrap_or(false)
    }

    /// Erases the journal of a device that has ended, unless it is the next one's of its name.
    pub(super) fn forget_own_journal(&self, uio: &UioDevice) {
        if self.has_journal(uio) {
            self.records.forget_journal(&key(uio));
        }
    }

    /// Attaches to a ring of which nothing is in progress, and begins a journal.
    pub(super) fn attach(&self, uio: &UioDevice, file: OwnedFd) -> Result<Attached, SetupError> {
        let (doorbell, mapping) = map(uio, file)?;
        let mut ring = Ring::attach(doorbell, mapping)?;
        // One of an earlier device of this name may still be mapped.
        self.records.forget_journal(&key(uio));
        let kept = self.journal_file(uio).map_err(|error| error.to_string());
        if let Err(error) = kept.and_then(|file| ring.keep_journal(file).map_err(|error| error.to_string())) {
            tracing::warn!(
                device = %uio.name,
                error,
                "no journal in the run directory: after a crash initiators get BUSY for what was in progress"
            );
        }
        ring.rested(awake());
        Ok(Attached { ring, recovered: Vec::new(), known_at: since_boot() })
    }

    /// Goes on where a predecessor stopped. The inner error says why not: then the ring must be reset.
    pub(super) fn go_on(
        &self,
        uio: &UioDevice,
        file: OwnedFd,
        storage: &Storage,
    ) -> Result<Result<Attached, Doubt>, SetupError> {
        let seamless = storage.is_seamless();
        if !seamless {
            // What found no room on the ring has waited no less, and cannot be looked at: it gets BUSY.
            self.block(&uio.name)?;
        }
        let (doorbell, mapping) = map(uio, file)?;
        let resumed = match self.journal_file(uio) {
            Ok(file) => Ring::resume(doorbell, mapping, file).map_err(Doubt::from),
            Err(error) => Err(Doubt::Io(error)),
        };
        let Resumed { mut ring, commands, waiting, queued_after } = match resumed {
            Ok(resumed) => resumed,
            Err(doubt) => return Ok(Err(doubt)),
        };
        let known_at = since_boot();
        let trusted = is_young(&self.backstore(&uio.name), queued_after).and_then(|()| {
            // Once more, and last: what has lasted until here is begun in a moment.
            let safe = if seamless { storage.is_seamless() } else { !writes(&commands, &waiting) };
            if safe { Ok(()) } else { Err(Doubt::Gap) }
        });
        if let Err(doubt) = trusted {
            commands.into_iter().for_each(|found| ring.forget(found.command.token));
            return Ok(Err(doubt));
        }
        // What of it writes is begun again only without a gap.
        self.records.end_gap(&key(uio));
        uio_ring::crash_point!("adopt-resumed");
        Ok(Ok(Attached { ring, recovered: commands, known_at }))
    }
}

/// Fails if one of the commands may have been given up by the kernel: then its initiator has been told so, and may have
/// written something newer.
fn is_young(backstore: &Backstore, queued_after: Option<u64>) -> Result<(), Doubt> {
    let Some(queued_after) = queued_after else { return Ok(()) };
    let seconds = backstore.cmd_time_out()?;
    let age = awake().saturating_sub(queued_after);
    if seconds == 0 || age + MARGIN_MS < u64::from(seconds) * 1000 {
        return Ok(());
    }
    let attribute = backstore.dir().join("attrib/cmd_time_out").display().to_string();
    Err(Doubt::Expired { seconds, attribute })
}

/// Whether any of it writes, of what was in progress or of what waits. Invariant "no late write": nobody knows for how long
/// it has waited, and its initiator may have sent it through another gateway meanwhile, and something newer after it.
fn writes(commands: &[Recovered], waiting: &[Cdb]) -> bool {
    let writes = |cdb: &Cdb| scsi::decode(cdb.as_bytes()).is_ok_and(|command| command.changes_medium());
    // What is done already only needs its answer.
    commands.iter().any(|found| found.stage != Stage::Good && writes(&found.command.cdb))
        || waiting.iter().any(writes)
}

pub(super) fn key(uio: &UioDevice) -> DeviceKey {
    DeviceKey::new(uio.name.hba, &uio.name.name)
}

/// What no other ring has, not even the next one of the same device: the boot, and sysfs' inode.
fn incarnation(Instance { minor, inode }: Instance) -> io::Result<[u8; 32]> {
    let boot = std::fs::read_to_string(BOOT_ID)?;
    let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).map_err(io::Error::other)?;
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&boot.to_be_bytes());
    bytes[16..24].copy_from_slice(&inode.to_be_bytes());
    bytes[24..28].copy_from_slice(&minor.to_be_bytes());
    Ok(bytes)
}

/// For the log.
pub(super) fn reason(doubt: &Doubt) -> String {
    Chain(doubt).to_string()
}
