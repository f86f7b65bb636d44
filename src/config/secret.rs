//! Secrets, and where they come from.
//!
//! A [`Secret`] has no `Display`, its `Debug` is a placeholder, and the only way to its text is [`Secret::expose`], a
//! name that is easy to find in review. Secrets in files are read anew for every use, so that rotating the file is
//! enough.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use http::HeaderName;
use thiserror::Error;

/// What is shown in place of a secret.
pub(super) const PLACEHOLDER: &str = "<secret>";

/// The greatest size of a file with a secret, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A text that must never be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that puts it on the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(PLACEHOLDER)
    }
}

/// Where a secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the configuration (or in an environment variable that it names).
    Inline(Secret),
    /// In this file, read anew for every use; blanks and line ends around the text do not count.
    File(PathBuf),
}

/// Why the secret could not be read. Names the file, never its content.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("cannot read the secret in {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{} is no regular file; a secret is read from nothing else", .0.display())]
    NotAFile(PathBuf),
    /// Over the limit.
    #[error("{} is larger than a secret may be ({MAX_FILE_BYTES} bytes)", .0.display())]
    TooLarge(PathBuf),
    /// Bytes that are no UTF-8.
    #[error("{} does not contain UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// It cannot stand in a request.
    #[error("what the header {0} is to say contains a character that no header may hold")]
    NotAHeader(HeaderName),
}

impl SecretSource {
    /// The secret as it is now. Blocks for the time of reading a small file.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            SecretSource::Inline(secret) => Ok(secret.clone()),
            SecretSource::File(file) => read_file(file),
        }
    }
}

fn read_file(file: &Path) -> Result<Secret, SecretError> {
    let io = |source| SecretError::Io { file: file.to_owned(), source };
    // Opened without waiting: a pipe would wait for its writer.
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file).map_err(io)?;
    if !opened.metadata().map_err(io)?.is_file() {
        return Err(SecretError::NotAFile(file.to_owned()));
    }
    let mut bytes = Vec::new();
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(SecretError::TooLarge(file.to_owned()));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Secret::new(text.trim())),
        Err(_) => Err(SecretError::NotText(file.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let source = SecretSource::Inline(Secret::new("hunter2"));
        assert_eq!(format!("{source:?}"), "Inline(<secret>)");
    }

    #[test]
    fn a_file_is_read_anew_and_trimmed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("token");
        let source = SecretSource::File(file.clone());
        assert!(matches!(source.read(), Err(SecretError::Io { .. })));
        for (written, read) in [("one\n", "one"), (" two \r\n", "two"), ("", "")] {
            std::fs::write(&file, written).expect("write");
            assert_eq!(source.read().expect("readable").expose(), read);
        }
    }

    #[test]
    fn what_is_no_small_text_file_is_refused_without_its_content() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(matches!(SecretSource::File(dir.path().to_owned()).read(), Err(SecretError::NotAFile(_))));
        let file = dir.path().join("token");
        std::fs::write(&file, "x".repeat(64 * 1024 + 1)).expect("write");
        assert!(matches!(SecretSource::File(file.clone()).read(), Err(SecretError::TooLarge(_))));
        std::fs::write(&file, b"canary\xff").expect("write");
        let error = SecretSource::File(file).read().expect_err("not UTF-8").to_string();
        assert!(!error.contains("canary"), "{error}");
    }
}
