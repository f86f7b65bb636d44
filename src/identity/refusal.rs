//! How a verifier's refusal travels through rustls and comes out again as a [`Failure`].
//!
//! rustls carries foreign errors inside `CertificateError::Other`; tokio wraps rustls' error in an `io::Error`, hyper
//! and reqwest wrap that once more. [`failure_of`] walks through all of it.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use super::certificate::utc;
use crate::model::{Failure, Reason};

/// A refusal on its way through rustls, which prints foreign errors with `Debug`: both forms are the sentence.
pub(super) struct Refusal(Failure);

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

impl Error for Refusal {}

/// Packs a refusal for rustls.
pub(super) fn refuse(failure: Failure) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(Refusal(failure)))).into()
}

/// The failure in an error that came out of a connection, if the peer's certificate is what it was about: a refusal by
/// our verifier, or one by rustls' own in jobs that verify host names. Any other error is `None`: whoever made the
/// connection knows better what it means.
pub fn failure_of(error: &(dyn Error + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Refusal(failure)) = error.downcast_ref() {
            return Some(failure.clone());
        }
        if let Some(rustls::Error::InvalidCertificate(certificate)) = error.downcast_ref() {
            return Some(of_certificate(certificate));
        }
        next = match error.downcast_ref::<io::Error>() {
            // `source` of an io::Error skips the error inside it and goes on with that one's source.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

fn of_certificate(error: &CertificateError) -> Failure {
    let unknown = "the peer's certificate does not chain to the trusted roots";
    match error {
        CertificateError::Other(OtherError(inner)) => match inner.downcast_ref() {
            Some(Refusal(failure)) => failure.clone(),
            None => Failure::new(Reason::TlsHandshake, format!("the peer's certificate was refused: {inner}")),
        },
        CertificateError::Expired => Failure::new(Reason::CertificateExpired, "the peer's certificate has expired"),
        CertificateError::ExpiredContext { not_after, .. } => {
            let ended = utc(std::time::UNIX_EPOCH + std::time::Duration::from_secs(not_after.as_secs()));
            Failure::new(Reason::CertificateExpired, format!("the peer's certificate expired at {ended}"))
        }
        CertificateError::NotValidYet => {
            Failure::new(Reason::CertificateNotYetValid, "the peer's certificate is not valid yet")
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let begins = utc(std::time::UNIX_EPOCH + std::time::Duration::from_secs(not_before.as_secs()));
            Failure::new(Reason::CertificateNotYetValid, format!("the peer's certificate is valid from {begins} only"))
        }
        CertificateError::UnknownIssuer => Failure::new(Reason::UnknownAuthority, unknown),
        // All self-signed Istio roots of one trust domain have one name: a leaf of another mesh finds "its" root here
        // and then fails at the signature.
        CertificateError::BadSignature => {
            Failure::new(Reason::UnknownAuthority, format!("{unknown}: a signature in it does not verify"))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Failure::new(Reason::HostNameMismatch, format!("the peer's certificate was refused: {error}"))
        }
        other => Failure::new(Reason::TlsHandshake, format!("the peer's certificate was refused: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    fn failure() -> Failure {
        Failure::new(Reason::IdentityMismatch, "expected a, but b answered")
    }

    #[test]
    fn a_refusal_is_found_however_it_is_wrapped() {
        let io = || io::Error::new(io::ErrorKind::InvalidData, refuse(failure()));
        assert_eq!(failure_of(&refuse(failure())), Some(failure()));
        assert_eq!(failure_of(&io()), Some(failure()));
        assert_eq!(failure_of(&Outer(io())), Some(failure()));
        assert_eq!(failure_of(&Outer(io::Error::other(Outer(io())))), Some(failure()));
    }

    #[test]
    fn other_errors_are_left_to_others() {
        for error in [rustls::Error::HandshakeNotComplete, rustls::Error::NoCertificatesPresented] {
            assert_eq!(failure_of(&error), None);
        }
        assert_eq!(failure_of(&Outer(io::ErrorKind::ConnectionReset.into())), None);
    }

    #[test]
    fn rustls_prints_the_sentence() {
        let shown = refuse(failure()).to_string();
        assert!(shown.contains("identity_mismatch: expected a, but b answered"), "{shown}");
    }
}
