//! Logging: standard error for whoever started us, and a file that SIGHUP reopens for logrotate.
//!
//! The line has the incumbent's shape, which scripts grep for:
//! `2026-11-20 10:48:38.518 1492:netlink [INFO] rbd/d0: image opened`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{ChronoLocal, FormatTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// A log file that can be opened anew under its name.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    /// Opens (appends to, or creates with mode 0600) the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new(append(path)?)) })
    }

    /// Opens the file anew: logrotate has moved the old one away. On failure the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// One line's access to the file.
#[derive(Debug)]
pub struct Line(Arc<Mutex<File>>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogFile {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.file.clone())
    }
}

/// An error with everything that caused it, in one line.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let causes = std::iter::successors(self.0.source(), |&cause| cause.source());
        causes.into_iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// Sends log lines of `level` and above to standard error and to `file`.
pub fn init(level: LevelFilter, file: Option<LogFile>) {
    let to_file = file.map(|file| {
        fmt::layer().event_format(IncumbentFormat::new()).with_writer(file).log_internal_errors(false)
    });
    let to_stderr =
        fmt::layer().event_format(IncumbentFormat::new()).with_writer(io::stderr).log_internal_errors(false);
    tracing_subscriber::registry().with(level).with(to_stderr).with(to_file).init();
}

/// `TIME PID:THREAD [LEVEL] DEVICE: MESSAGE key=value ...`
struct IncumbentFormat {
    time: ChronoLocal,
    pid: u32,
}

impl IncumbentFormat {
    fn new() -> Self {
        Self { time: ChronoLocal::new("%Y-%m-%d %H:%M:%S%.3f".into()), pid: std::process::id() }
    }
}

impl<S, N> FormatEvent<S, N> for IncumbentFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        self.time.format_time(&mut to)?;
        let thread = std::thread::current();
        let level = match *event.metadata().level() {
            tracing::Level::WARN => "WARN",
            tracing::Level::ERROR => "ERROR",
            tracing::Level::INFO => "INFO",
            _ => "DEBUG",
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(to, " {}:{} [{level}] ", self.pid, thread.name().unwrap_or("-"))?;
        if let Some(device) = fields.device {
            write!(to, "{device}: ")?;
        }
        writeln!(to, "{}{}", fields.message, fields.rest)
    }
}

/// An event's fields: the device it is about goes first.
#[derive(Default)]
struct Fields {
    device: Option<String>,
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "device" => self.device = Some(format!("{value:?}")),
            "message" => self.message = format!("{value:?}"),
            name => self.rest.push_str(&format!(" {name}={value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let log = LogFile::open(&path).unwrap();
        log.make_writer().write_all(b"old\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.make_writer().write_all(b"still old\n").unwrap();
        log.reopen().unwrap();
        log.make_writer().write_all(b"new\n").unwrap();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "old\nstill old\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "new\n");
    }

    #[test]
    fn a_line_has_the_incumbents_shape() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let layer =
            fmt::layer().event_format(IncumbentFormat::new()).with_writer(LogFile::open(&path).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(device = %"rbd/d0", errno = 5, "image could not be opened");
        });
        let line = std::fs::read_to_string(path).unwrap();
        let pid = std::process::id();
        let (stamp, rest) = line.split_at("2026-11-20 10:48:38.518".len());
        assert!(stamp.as_bytes()[4] == b'-' && stamp.as_bytes()[19] == b'.', "{stamp}");
        assert!(rest.starts_with(&format!(" {pid}:")), "{rest}");
        assert!(rest.ends_with(" [WARN] rbd/d0: image could not be opened errno=5\n"), "{rest}");
    }
}
