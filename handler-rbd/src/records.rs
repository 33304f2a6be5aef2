//! What survives this process for its successor, in files below the run directory: the RADOS addresses of every
//! client, to be fenced; for each device the journal of its ring; and whether a dead client's lock is being broken.
//!
//! Invariant "no late write": a client that is not closed in order may have writes on their way to the OSDs.
//! Whoever serves its device next has the cluster refuse it first. A record is written before the client
//! opens its image and erased after it was closed; what is found at start is of the dead. Before it opens, not only
//! before it reads a command: an open image is watched, nobody can remove it, and of a client that died that is over at
//! once only if it is fenced.

use crate::clock::since_boot;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where the records are kept. On tmpfs: a host that rebooted has no clients left.
pub const DEFAULT_DIR: &str = "/run/tcmu-rbd";

/// Ends the name of a record: `user_HBA.NAME.PID-NUMBER.client`.
const SUFFIX: &str = ".client";
/// Ends the name of a journal: `user_HBA.NAME.journal`.
const JOURNAL: &str = ".journal";
/// Ends the name of the note that the lock of a device's dead client is being broken: `user_HBA.NAME.breaking`.
const BREAKING: &str = ".breaking";
/// Ends the name of the note that the lock of a device's dead client went to a successor with a gap: `user_HBA.NAME.gap`.
const GAP: &str = ".gap";
/// Ends the name of the note of what a device's image was like when it was left in order: `user_HBA.NAME.left`.
const LEFT: &str = ".left";
/// So long such a note says something: whoever takes the lock in between has the image open for longer than this.
const BREAKING_TAKES: Duration = Duration::from_secs(10);

/// A backstore, `user_HBA/NAME`. Its clients follow each other; they are not served at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceKey(String);

impl DeviceKey {
    /// The key of `user_HBA/NAME`. A backstore's name is a directory's, so it holds no '/'.
    pub fn new(hba: u32, name: &str) -> Self {
        Self(format!("user_{hba}.{name}"))
    }
}

#[derive(Clone, Debug)]
struct Client {
    device: DeviceKey,
    addresses: String,
    path: PathBuf,
    /// Whether it may still be served: not of an earlier process, nor given up.
    ours: bool,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The daemon is stopping, so no image may be opened any more.
    #[error("the daemon is stopping")]
    Stopping,
    /// It cannot be written.
    #[error(transparent)]
    File(#[from] io::Error),
}

/// The records of this host.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
    clients: Mutex<Clients>,
    /// A client of ours has ended or was given up.
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct Clients {
    number: u64,
    /// There are to be no more of ours.
    closed: bool,
    by_number: HashMap<u64, Client>,
}

impl Records {
    /// Reads what earlier processes have left. Called once, under the daemon's lock, so they are all dead.
    pub fn load(dir: &Path) -> io::Result<Arc<Self>> {
        let mut clients = Clients::default();
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        for path in entries.iter().map(fs::DirEntry::path) {
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
            let Some((device, _)) = name.and_then(|name| name.rsplit_once('.')) else { continue };
            let device = DeviceKey(device.to_owned());
            let addresses = fs::read_to_string(&path)?.trim().to_owned();
            clients.add(Client { device, addresses, path, ours: false });
        }
        Ok(Arc::new(Self { dir: dir.to_owned(), clients: Mutex::new(clients), fewer: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of the clients to fence before `device` is served.
    pub fn predecessors(&self, device: &DeviceKey) -> Vec<String> {
        let clients = self.lock();
        let dead = clients.by_number.values().filter(|client| client.device == *device && !client.ours);
        dead.map(|client| client.addresses.clone()).collect()
    }

    /// Records a client of this process.
    pub fn begin(self: &Arc<Self>, device: &DeviceKey, addresses: &str) -> Result<Record, RecordError> {
        fs::create_dir_all(&self.dir)?;
        let mut clients = self.lock();
        if clients.closed {
            return Err(RecordError::Stopping);
        }
        // A predecessor may have had the same process id: in a container it always has. Its record is not to be taken
        // for ours when it is erased.
        let path = loop {
            let unique = format!("{}-{}", std::process::id(), clients.number);
            let path = self.dir.join(format!("{}.{unique}{SUFFIX}", device.0));
            if !path.try_exists()? {
                break path;
            }
            clients.number += 1;
        };
        let new = path.with_extension("new");
        fs::write(&new, format!("{addresses}\n"))?;
        fs::rename(&new, &path)?; // whole or not at all
        let client = Client { device: device.clone(), addresses: addresses.to_owned(), path, ours: true };
        Ok(Record { records: self.clone(), number: clients.add(client), kept: AtomicBool::new(false) })
    }

    /// Erases the records of clients that have been fenced. Their successor's must exist by now.
    pub fn fenced(&self, device: &DeviceKey, addresses: &[String]) {
        let mut clients = self.lock();
        clients.by_number.retain(|_, client| {
            let done = client.device == *device && !client.ours && addresses.contains(&client.addresses);
            if done {
                erase(&client.path);
            }
            !done
        });
    }

    /// The file of a device's journal, made if need be.
    pub fn journal(&self, device: &DeviceKey) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        File::options().read(true).write(true).create(true).truncate(false).open(self.path(device, JOURNAL))
    }

    /// What was in progress with the device is no more.
    pub fn forget_journal(&self, device: &DeviceKey) {
        erase(&self.path(device, JOURNAL));
        erase(&self.path(device, GAP));
        erase(&self.path(device, LEFT));
    }

    /// Somebody else may have had the lock since the journal's client: whoever holds it now, what writes must not be begun
    /// again. Holds until the journal is forgotten.
    pub fn begin_gap(&self, device: &DeviceKey) -> io::Result<()> {
        fs::write(self.path(device, GAP), "")
    }

    /// Nothing of before is in progress any more, and the lock is ours.
    pub fn end_gap(&self, device: &DeviceKey) {
        erase(&self.path(device, GAP));
    }

    /// Whether that is so.
    pub fn has_gap(&self, device: &DeviceKey) -> bool {
        self.path(device, GAP).exists()
    }

    /// Erases the journals of all devices but these, and what goes with them.
    pub fn keep_journals(&self, devices: &[DeviceKey]) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.and_then(|name| {
                [JOURNAL, GAP, BREAKING, LEFT].iter().find_map(|end| name.strip_suffix(end))
            });
            if name.is_some_and(|name| devices.iter().all(|device| device.0 != name)) {
                erase(&path);
            }
        }
    }

    /// The mark of a device's image when it was left with everything answered, if it could be told.
    pub fn left(&self, device: &DeviceKey) -> Option<String> {
        fs::read_to_string(self.path(device, LEFT)).ok().filter(|mark| !mark.is_empty())
    }

    /// The lock of a device's dead client, which still holds it, is about to be broken and taken over.
    pub fn begin_breaking(&self, device: &DeviceKey) -> io::Result<()> {
        fs::write(self.path(device, BREAKING), since_boot().as_millis().to_string())
    }

    /// Whether a predecessor has done that a moment ago, and has not come to [`Records::end_breaking`].
    pub fn was_breaking(&self, device: &DeviceKey) -> bool {
        let noted = fs::read_to_string(self.path(device, BREAKING)).ok().and_then(|text| text.parse().ok());
        noted.map(Duration::from_millis).is_some_and(|at| {
            let now = since_boot();
            at <= now && now - at < BREAKING_TAKES
        })
    }

    /// The lock is ours, or somebody else's.
    pub fn end_breaking(&self, device: &DeviceKey) {
        erase(&self.path(device, BREAKING));
    }

    fn path(&self, device: &DeviceKey, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}{suffix}", device.0))
    }

    /// The clients of a device have not ended in order, or not in time: whoever comes next fences them.
    pub fn abandon(&self, device: &DeviceKey) {
        for client in self.lock().by_number.values_mut().filter(|client| client.device == *device) {
            client.ours = false;
        }
        self.fewer.notify_all();
    }

    /// From here on there are no more clients of ours. Waits until all have closed their images, also those that were
    /// opening them, or were given up; at most `patience`. Whether they have.
    pub fn close(&self, patience: Duration) -> bool {
        let mut clients = self.lock();
        clients.closed = true;
        let some = |clients: &mut Clients| clients.by_number.values().any(|client| client.ours);
        let waited = self.fewer.wait_timeout_while(clients, patience, some);
        let (mut clients, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !some(&mut clients)
    }
}

impl Clients {
    fn add(&mut self, client: Client) -> u64 {
        self.number += 1;
        self.by_number.insert(self.number, client);
        self.number
    }
}

fn erase(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "cannot erase {}; a successor will heed it", path.display()),
    }
}

/// The record of a client of ours. Dropped once the client's image is closed in order, it is erased; a client
/// that cannot be closed leaves it behind ([`Record::keep`]).
#[derive(Debug)]
pub struct Record {
    records: Arc<Records>,
    number: u64,
    kept: AtomicBool,
}

impl Record {
    /// Everything is answered, and the image about to be closed: for [`Records::left`].
    pub fn leave(&self, mark: Option<&str>) {
        let clients = self.records.lock();
        let Some(client) = clients.by_number.get(&self.number) else { return };
        let path = self.records.path(&client.device, LEFT);
        let Some(mark) = mark else { return erase(&path) };
        let new = path.with_extension("new");
        if let Err(error) = fs::write(&new, mark).and_then(|()| fs::rename(&new, &path)) {
            tracing::warn!(%error, "cannot note how the image was left; a successor resets the ring");
        }
    }

    /// Leaves the record to whoever fences the client.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
        if let Some(client) = self.records.lock().by_number.get_mut(&self.number) {
            client.ours = false;
        }
        self.records.fewer.notify_all();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if *self.kept.get_mut() {
            return;
        }
        let client = self.records.lock().by_number.remove(&self.number);
        if let Some(client) = client {
            erase(&client.path);
        }
        self.records.fewer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceKey {
        DeviceKey::new(3, "disk.a")
    }

    #[test]
    fn a_successor_finds_who_did_not_end_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let first = Records::load(&run).unwrap();
        assert_eq!(first.predecessors(&device()), [""; 0]);
        std::mem::forget(first.begin(&device(), "10.0.0.1:0/1").unwrap()); // kill -9
        drop(first.begin(&device(), "10.0.0.1:0/2").unwrap()); // ended in order
        assert_eq!(first.predecessors(&device()), [""; 0], "it is served by this very process");

        let second = Records::load(&run).unwrap();
        assert_eq!(second.predecessors(&device()), ["10.0.0.1:0/1"]);
        assert_eq!(second.predecessors(&DeviceKey::new(3, "disk")), [""; 0]);
        let _ours = second.begin(&device(), "10.0.0.1:0/3").unwrap();
        second.fenced(&device(), &second.predecessors(&device()));
        assert_eq!(second.predecessors(&device()), [""; 0]);
        assert_eq!(Records::load(&run).unwrap().predecessors(&device()), ["10.0.0.1:0/3"]);
    }

    #[test]
    fn a_crash_between_fencing_and_recording_loses_nobody() {
        let dir = tempfile::tempdir().unwrap();
        std::mem::forget(Records::load(dir.path()).unwrap().begin(&device(), "10.0.0.1:0/1").unwrap());
        let second = Records::load(dir.path()).unwrap();
        std::mem::forget(second.begin(&device(), "10.0.0.1:0/2").unwrap());
        let mut found = Records::load(dir.path()).unwrap().predecessors(&device());
        found.sort();
        assert_eq!(found, ["10.0.0.1:0/1", "10.0.0.1:0/2"]);
    }

    #[test]
    fn journals_of_devices_that_are_gone_are_erased() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        let other = DeviceKey::new(3, "disk");
        for device in [&device(), &other] {
            records.journal(device).unwrap().set_len(5).unwrap();
        }
        records.keep_journals(&[device()]);
        let found = |device: &DeviceKey| dir.path().join(format!("{}.journal", device.0)).exists();
        assert_eq!((found(&device()), found(&other)), (true, false));
        assert_eq!(records.journal(&device()).unwrap().metadata().unwrap().len(), 5, "it is not made anew");
        assert!(!records.has_gap(&device()));
        records.begin_gap(&device()).unwrap();
        assert!(records.has_gap(&device()) && !records.has_gap(&other));
        records.forget_journal(&device());
        records.forget_journal(&device());
        assert!(!found(&device()) && !records.has_gap(&device()));
    }

    #[test]
    fn breaking_a_lock_is_known_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        assert!(!records.was_breaking(&device()));
        records.begin_breaking(&device()).unwrap();
        assert!(Records::load(dir.path()).unwrap().was_breaking(&device()), "a successor");
        assert!(!records.was_breaking(&DeviceKey::new(3, "disk")));
        let long_ago = since_boot().saturating_sub(Duration::from_secs(11)).as_millis().to_string();
        for text in [long_ago.as_str(), "", "x", "99999999999999"] {
            fs::write(dir.path().join("user_3.disk.a.breaking"), text).unwrap();
            assert!(!records.was_breaking(&device()), "{text}");
        }
        records.begin_breaking(&device()).unwrap();
        records.end_breaking(&device());
        assert!(!records.was_breaking(&device()));
    }

    /// An opening that was given up ends after the same device is served anew.
    #[test]
    fn a_late_client_takes_no_record_but_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        let late = records.begin(&device(), "10.0.0.1:0/1").unwrap();
        let serving = records.begin(&device(), "10.0.0.1:0/2").unwrap();
        drop(late);
        assert_eq!(records.predecessors(&device()), [""; 0]);
        assert_eq!(Records::load(dir.path()).unwrap().predecessors(&device()), ["10.0.0.1:0/2"]);
        drop(serving);
        assert_eq!(Records::load(dir.path()).unwrap().predecessors(&device()), [""; 0]);
    }

    #[test]
    fn an_abandoned_client_is_fenced_unless_it_ends_first() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        let slow = records.begin(&device(), "10.0.0.1:0/1").unwrap();
        records.abandon(&device());
        assert_eq!(records.predecessors(&device()), ["10.0.0.1:0/1"]);
        drop(slow);
        assert_eq!(records.predecessors(&device()), [""; 0]);
        records.begin(&device(), "10.0.0.1:0/2").unwrap().keep();
        assert_eq!(records.predecessors(&device()), ["10.0.0.1:0/2"]);
    }

    #[test]
    fn a_stop_waits_until_every_client_is_closed_and_lets_none_begin() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        std::mem::forget(records.begin(&DeviceKey::new(4, "given-up"), "10.0.0.1:0/1").unwrap());
        records.abandon(&DeviceKey::new(4, "given-up"));
        let opening = records.begin(&device(), "10.0.0.1:0/2").unwrap();
        let erasing = records.begin(&device(), "10.0.0.1:0/3").unwrap();
        assert!(!records.close(Duration::ZERO));
        assert!(matches!(records.begin(&device(), "10.0.0.1:0/4"), Err(RecordError::Stopping)));
        let theirs = records.clone();
        let stop = std::thread::spawn(move || theirs.close(Duration::MAX));
        erasing.keep();
        assert!(!records.close(Duration::ZERO) && !stop.is_finished());
        drop(opening);
        assert!(stop.join().unwrap());
        assert_eq!(Records::load(dir.path()).unwrap().predecessors(&device()), ["10.0.0.1:0/3"]);
    }

    #[test]
    fn how_an_image_was_left_is_known_until_the_journal_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        let record = records.begin(&device(), "10.0.0.1:0/1").unwrap();
        assert_eq!(records.left(&device()), None);
        record.leave(Some("1234 5"));
        drop(record);
        let records = Records::load(dir.path()).unwrap();
        assert_eq!(records.left(&device()).as_deref(), Some("1234 5"));
        assert_eq!(records.left(&DeviceKey::new(3, "disk")), None);
        records.begin(&device(), "10.0.0.1:0/2").unwrap().leave(None);
        assert_eq!(records.left(&device()), None, "it cannot be told");
        records.begin(&device(), "10.0.0.1:0/2").unwrap().leave(Some("1234 7"));
        records.forget_journal(&device());
        assert_eq!(records.left(&device()), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// In a container every process has the same id.
    #[test]
    fn a_successor_with_the_same_process_id_erases_no_record_but_its_predecessors() {
        let dir = tempfile::tempdir().unwrap();
        for generation in 1..6 {
            let records = Records::load(dir.path()).unwrap();
            let predecessors = records.predecessors(&device());
            let expected: Vec<_> =
                (generation > 1).then(|| format!("10.0.0.1:0/{}", generation - 1)).into_iter().collect();
            assert_eq!(predecessors, expected);
            std::mem::forget(records.begin(&device(), &format!("10.0.0.1:0/{generation}")).unwrap());
            records.fenced(&device(), &predecessors);
        }
    }
}
