//! Small files under `/sys`, read and written whole, with errors that name them.
//!
//! One `write()` carries one value: the kernel acts on each write separately, so nothing here
//! retries or splits one. Values come back without the newline (or NUL) at their end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Failure to read, write or understand one file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not take the value.
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else than it should.
    #[error("{} holds {found:?} where {wanted} should stand", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What was expected.
        wanted: &'static str,
    },
}

impl FileError {
    /// Whether the file does not exist, or its device has gone.
    pub fn is_missing(&self) -> bool {
        match self {
            FileError::Read { source, .. } | FileError::Write { source, .. } => {
                source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(libc::ENODEV)
            }
            FileError::Content { .. } => false,
        }
    }

    /// The errno the kernel gave, if the failure is the kernel's.
    pub fn errno(&self) -> Option<i32> {
        match self {
            FileError::Read { source, .. } | FileError::Write { source, .. } => source.raw_os_error(),
            FileError::Content { .. } => None,
        }
    }
}

/// The bytes of a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut buffer = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut buffer))
        .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    Ok(buffer)
}

/// The text of a file, without newlines, NULs and spaces at its end.
pub(super) fn text(path: &Path) -> Result<String, FileError> {
    let bytes = bytes(path)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(super::device_name::trimmed(&text).to_owned()),
        Err(error) => Err(FileError::Content {
            path: path.to_owned(),
            found: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            wanted: "UTF-8 text",
        }),
    }
}

/// The decimal number in a file.
pub(super) fn number<T: FromStr>(path: &Path) -> Result<T, FileError> {
    let text = text(path)?;
    match text.trim_start().parse() {
        Ok(number) => Ok(number),
        Err(_) => {
            Err(FileError::Content { path: path.to_owned(), found: text, wanted: std::any::type_name::<T>() })
        }
    }
}

/// A 0 or 1 in a file.
pub(super) fn flag(path: &Path) -> Result<bool, FileError> {
    Ok(number::<u8>(path)? != 0)
}

/// Writes `value` in one write.
pub(super) fn write(path: &Path, value: &str) -> Result<(), FileError> {
    let error = |source| FileError::Write { path: path.to_owned(), value: value.to_owned(), source };
    let mut file = File::options().write(true).open(path).map_err(error)?;
    match file.write(value.as_bytes()) {
        Ok(written) if written == value.len() => Ok(()),
        Ok(_) => Err(error(io::ErrorKind::WriteZero.into())),
        Err(source) => Err(error(source)),
    }
}

/// Names of the entries of a directory, sorted.
pub(super) fn entries(path: &Path) -> Result<Vec<String>, FileError> {
    let error = |source| FileError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(error)? {
        names.push(entry.map_err(error)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
