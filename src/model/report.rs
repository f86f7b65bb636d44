//! What is remembered of one scrape, for people: the log, the API, the page and the debug command.

use std::time::{Duration, SystemTime};

use super::Failure;

/// How long each part of a scrape took; absent where it was not reached, or was not needed because a connection was
/// kept from the scrape before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Name resolution and TCP.
    pub connect: Option<Duration>,
    /// The TLS handshake, verification included.
    pub tls: Option<Duration>,
    /// From the request to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// The whole scrape.
    pub total: Duration,
}

/// What a verified peer showed in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// The verified identity: a SPIFFE ID, or the host name in jobs that verify host names.
    pub identity: String,
    /// False where the identity was accepted only because the job's `match` asks for less than the whole ID.
    pub exact: bool,
    /// `TLSv1.3` or `TLSv1.2`.
    pub tls_version: String,
    /// The cipher suite, by its IANA name.
    pub cipher: String,
    /// When the first certificate of the verified chain ends.
    pub not_after: SystemTime,
    /// One line a certificate as the peer sent them, leaf first: subject or SPIFFE ID, issuer, validity.
    pub chain: Vec<String>,
}

/// The last scrape of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeReport {
    /// When it started.
    pub started: SystemTime,
    /// Where the time went.
    pub phases: Phases,
    /// Sample lines in the exposition.
    pub samples: usize,
    /// Samples left after relabelling.
    pub samples_kept: usize,
    /// Samples that only the scraper may write, and that were dropped.
    pub forged: usize,
    /// Bytes of the body, decompressed.
    pub body_bytes: u64,
    /// Who answered, if the connection was verified.
    pub peer: Option<PeerReport>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// What answers lacked though they were good, of a scrape that succeeded.
    pub lack: Option<Failure>,
}
