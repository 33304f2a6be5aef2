//! `tcmu-rbd status`: the daemon tells what its devices are doing to whoever connects to a UNIX socket.
//!
//! One word comes, `text` or `json`, and the whole answer goes back. On a thread of its own, from copies: it answers
//! while every cluster is away and while every device's thread is busy, and a client that is slow holds up only the
//! next client.

use nix::sys::socket::{Shutdown, shutdown};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Name of the socket in the run directory.
pub const SOCKET: &str = "status.sock";

/// How long a client may keep the daemon.
const CLIENT_PATIENCE: Duration = Duration::from_secs(1);
/// How long the daemon may keep a client.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the answer is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Format {
    fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Answers on the socket until it is dropped.
#[derive(Debug)]
pub struct StatusServer {
    listener: Arc<UnixListener>,
    path: PathBuf,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StatusServer {
    /// Listens in `dir`. A socket that a process has left there is replaced: the daemon's lock says that it is dead.
    pub fn start(dir: &Path, answer: impl Fn(Format) -> String + Send + 'static) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Arc::new(UnixListener::bind(&path)?);
        // Configuration strings and reasons are for the administrator.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let ending = Arc::new(AtomicBool::new(false));
        let (theirs, is_ending) = (listener.clone(), ending.clone());
        let thread = std::thread::Builder::new().name("status".into()).spawn(move || {
            for client in theirs.incoming() {
                match client {
                    _ if is_ending.load(Ordering::Relaxed) => return,
                    Ok(client) => {
                        // Whoever asked and went away, or is too slow, does without.
                        let _ = tell(client, &answer);
                    }
                    // Out of files, say: not as fast as it can.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
        Ok(Self { listener, path, ending, thread: Some(thread) })
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tell(mut client: UnixStream, answer: &impl Fn(Format) -> String) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_PATIENCE))?;
    client.set_write_timeout(Some(CLIENT_PATIENCE))?;
    let mut word = [0; 4];
    client.read_exact(&mut word)?;
    let format = [Format::Text, Format::Json].into_iter().find(|format| format.word().as_bytes() == word);
    match format {
        Some(format) => client.write_all(answer(format).as_bytes()),
        None => client.write_all(b"say text or json\n"),
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no tcmu-rbd is running: nobody answers at {}; start the service, or name its --run-dir",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// Not for this user.
    #[error("only root may ask at {}", .0.display())]
    Denied(PathBuf),
    /// Something is there and does not answer.
    #[error("no answer from {}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        source: io::Error,
    },
}

/// Asks the daemon whose run directory this is.
pub fn ask(dir: &Path, format: Format) -> Result<String, AskError> {
    let path = dir.join(SOCKET);
    let ask = || {
        let mut daemon = UnixStream::connect(&path)?;
        daemon.set_read_timeout(Some(PATIENCE))?;
        daemon.set_write_timeout(Some(PATIENCE))?;
        daemon.write_all(format.word().as_bytes())?;
        let mut answer = String::new();
        daemon.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(path.clone()),
        io::ErrorKind::PermissionDenied => AskError::Denied(path.clone()),
        _ => AskError::NoAnswer { path: path.clone(), source },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn server(dir: &Path) -> StatusServer {
        StatusServer::start(dir, |format| format!("{format:?}")).unwrap()
    }

    #[test]
    fn who_asks_is_answered_in_the_format_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let _server = server(dir.path());
        assert_eq!(ask(dir.path(), Format::Text).unwrap(), "Text");
        assert_eq!(ask(dir.path(), Format::Json).unwrap(), "Json");
        let mode = std::fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_a_daemon_the_answer_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(ask(dir.path(), Format::Text), Err(AskError::NotRunning(_))));
        // One that was killed leaves its socket behind.
        drop(UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let error = ask(dir.path(), Format::Text).unwrap_err();
        assert!(error.to_string().starts_with("no tcmu-rbd is running"), "{error}");
        let server = server(dir.path());
        assert_eq!(ask(dir.path(), Format::Text).unwrap(), "Text");
        drop(server);
        assert!(matches!(ask(dir.path(), Format::Text), Err(AskError::NotRunning(_))));
    }

    #[test]
    fn a_client_that_says_nothing_or_nonsense_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let _server = server(dir.path());
        let silent = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        drop(UnixStream::connect(dir.path().join(SOCKET)).unwrap());
        let mut nonsense = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        nonsense.write_all(b"what").unwrap();
        let mut answer = String::new();
        nonsense.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "say text or json\n");
        assert_eq!(ask(dir.path(), Format::Json).unwrap(), "Json");
        drop(silent);
    }
}
