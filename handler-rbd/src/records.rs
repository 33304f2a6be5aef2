//! What survives this process so that its successor can fence it: the RADOS addresses of every client, a
//! file each below the run directory.
//!
//! Invariant "no late write": a client that is not closed in order may have writes on their way to the OSDs.
//! Whoever serves its device next has the cluster refuse it first. A record is written before the client
//! opens its image and erased after it was closed; what is found at start is of the dead. Before it opens, not only
//! before it reads a command: an open image is watched, nobody can remove it, and of a client that died that is over at
//! once only if it is fenced.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where the records are kept. On tmpfs: a host that rebooted has no clients left.
pub const DEFAULT_DIR: &str = "/run/tcmu-rbd";

/// Ends the name of a record: `user_HBA.NAME.PID-NUMBER.client`.
const SUFFIX: &str = ".client";

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
        let unique = format!("{}-{}", std::process::id(), clients.number);
        let path = self.dir.join(format!("{}.{unique}{SUFFIX}", device.0));
        let new = path.with_extension("new");
        fs::write(&new, format!("{addresses}\n"))?;
        fs::rename(&new, &path)?; // whole or not at all
        let client = Client { device: device.clone(), addresses: addresses.to_owned(), path, ours: true };
        Ok(Record { records: self.clone(), number: clients.add(client) })
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
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, "cannot erase {}; a client that is gone will be fenced once more", path.display());
    }
}

/// The record of a client of ours. Dropped once the client's image is closed in order, it is erased; a client
/// that cannot be closed leaves it behind ([`Record::keep`]).
#[derive(Debug)]
pub struct Record {
    records: Arc<Records>,
    number: u64,
}

impl Record {
    /// Leaves the record to whoever fences the client.
    pub fn keep(self) {
        if let Some(client) = self.records.lock().by_number.get_mut(&self.number) {
            client.ours = false;
        }
        self.records.fewer.notify_all();
        std::mem::forget(self);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
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
}
