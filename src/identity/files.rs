//! Reading the three files, whatever lies there.
//!
//! Who writes the certificate directory is not trusted to be careful: what is opened is opened without waiting (a FIFO
//! without a writer would block for ever), only regular files are read, at most 1 MiB and 100 certificates each. Symbolic
//! links are followed, because Kubernetes makes them. Nothing here judges what the certificates are worth.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::config::CertificateFiles;

/// The largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;
/// The most certificates that one file may hold.
const MAX_CERTIFICATES: usize = 100;

/// Why a file gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// It is not there; at start that means that the proxy has not written it yet.
    #[error("{path} does not exist (yet)", path = .0.display())]
    Missing(PathBuf),
    /// It cannot be opened or read.
    #[error("{path}: {1}", path = .0.display())]
    Unreadable(PathBuf, String),
    /// A FIFO, a device, a directory.
    #[error("{path} is not a regular file", path = .0.display())]
    NotRegular(PathBuf),
    /// Over 1 MiB.
    #[error("{path} has more than {MAX_BYTES} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// Its PEM framing is broken, as in a file that is half written.
    #[error("{path}: broken PEM: {1}", path = .0.display())]
    Pem(PathBuf, String),
    /// No PEM section of the wanted kind.
    #[error("{path} holds no {1} in PEM form", path = .0.display())]
    Nothing(PathBuf, &'static str),
    /// Over 100 certificates.
    #[error("{path} holds more than {MAX_CERTIFICATES} certificates", path = .0.display())]
    TooMany(PathBuf),
}

/// The certificates of a file, in its order.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) list: Vec<CertificateDer<'static>>,
    /// What is wrong behind the last certificate of the list; a writer may be in the middle of it.
    pub(super) broken: Option<FileError>,
}

/// The bytes of the three files at one moment, or why there are none.
#[derive(Debug)]
pub(super) struct FileSet {
    pub(super) chain: Content,
    pub(super) key: Content,
    pub(super) root: Content,
}

impl FileSet {
    /// Reads all three; blocks for as long as the file system does.
    pub(super) fn read(files: &CertificateFiles) -> Self {
        Self { chain: Content::read(&files.chain), key: Content::read(&files.key), root: Content::read(&files.root) }
    }
}

/// What one file held.
pub(super) struct Content {
    path: PathBuf,
    bytes: Result<Vec<u8>, FileError>,
}

/// Without the bytes: they may be a key.
impl std::fmt::Debug for Content {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {:?}", self.path.display(), self.bytes.as_ref().map(Vec::len))
    }
}

/// What is remembered of a file's bytes, to see that they have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark(Result<[u8; 32], FileError>);

impl Content {
    /// Reads one file.
    pub(super) fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: read_bounded(path) }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.bytes.as_ref().map(|bytes| Sha256::digest(bytes).into()).map_err(Clone::clone))
    }

    /// The certificates in it, at least one. Sections of other kinds are passed over.
    pub(super) fn certificates(&self) -> Result<Certificates, FileError> {
        let bytes = self.bytes.as_ref().map_err(Clone::clone)?;
        let mut list = Vec::new();
        let mut broken = None;
        for section in CertificateDer::pem_slice_iter(bytes) {
            match section {
                Ok(_) if list.len() == MAX_CERTIFICATES => return Err(FileError::TooMany(self.path.clone())),
                Ok(certificate) => list.push(certificate),
                Err(error) => {
                    broken = Some(FileError::Pem(self.path.clone(), describe(&error)));
                    break;
                }
            }
        }
        match (list.is_empty(), broken) {
            (true, Some(broken)) => Err(broken),
            (true, None) => Err(FileError::Nothing(self.path.clone(), "certificate")),
            (false, broken) => Ok(Certificates { list, broken }),
        }
    }

    /// The first private key in it: PKCS#1, SEC1 or PKCS#8.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, FileError> {
        let bytes = self.bytes.as_ref().map_err(Clone::clone)?;
        PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => FileError::Nothing(self.path.clone(), "private key"),
            other => FileError::Pem(self.path.clone(), describe(&other)),
        })
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
        _ => FileError::Unreadable(path.to_owned(), error.to_string()),
    };
    let file: File =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// The kind of the fault only: the library's words can quote the file, and the file may be a key.
fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section does not begin as it should".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}
