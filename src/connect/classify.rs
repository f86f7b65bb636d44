//! From what a library says went wrong to the one reason on our list.
//!
//! A pure function of errors and of one piece of evidence: whether the peer had sent a byte of its answer. Always
//! holds: every error maps to a reason; what is not recognised says so in its own words under the reason of its stage,
//! never under a more precise one. It must not know: sockets, targets, what is done about a failure.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, InvalidMessage};

use super::stopwatch::Stopwatch;
use crate::identity;
use crate::model::{Address, Failure, Reason, Scheme};

/// Why no answer, or no further piece of a body, came over a connection that had been verified.
#[derive(Debug)]
pub(super) struct Broken {
    cause: Cause,
    /// Decrypted bytes of this answer that had come by then.
    received: u64,
}

#[derive(Debug)]
enum Cause {
    Deadline,
    Closed,
    Http(hyper::Error),
}

impl Broken {
    /// The deadline passed.
    pub(super) fn deadline() -> Self {
        Self { cause: Cause::Deadline, received: 0 }
    }

    /// The connection had ended before the request was written.
    pub(super) fn closed() -> Self {
        Self { cause: Cause::Closed, received: 0 }
    }

    /// hyper gave up.
    pub(super) fn http(error: hyper::Error) -> Self {
        Self { cause: Cause::Http(error), received: 0 }
    }

    /// Adds how much of the answer had come.
    pub(super) fn after_bytes(self, received: u64) -> Self {
        Self { received, ..self }
    }

    /// The peer went away without a byte: on a kept connection that only means it had been closed while idle.
    pub(super) fn is_unanswered(&self) -> bool {
        self.received == 0 && !matches!(self.cause, Cause::Deadline)
    }

    /// Whether the peer may have said more than we have read: an alert still in the socket.
    pub(super) fn wants_last_words(&self) -> bool {
        self.is_unanswered() && self.tls().is_none()
    }

    /// What it means before the head of the answer.
    pub(super) fn before_head(self, last_words: Option<rustls::Error>, watch: &Stopwatch) -> Failure {
        if matches!(self.cause, Cause::Deadline) {
            return watch.ran_out();
        }
        if self.received > 0 {
            return match &self.cause {
                Cause::Http(error) if error.is_parse_too_large() => {
                    Failure::new(Reason::HttpProtocol, "the response header is larger than 16 KiB")
                }
                Cause::Http(error) => Failure::new(
                    Reason::HttpProtocol,
                    format!("the answer cannot be read as HTTP/1.1: {}", words(error)),
                ),
                Cause::Closed | Cause::Deadline => {
                    Failure::new(Reason::HttpProtocol, "the connection broke off inside the response header")
                }
            };
        }
        match last_words.as_ref().or_else(|| self.tls()) {
            Some(rustls::Error::AlertReceived(alert)) if is_about_our_certificate(*alert) => rejected(*alert),
            Some(rustls::Error::AlertReceived(alert)) => Failure::new(
                Reason::ClosedAfterHandshake,
                format!("the peer ended the connection with {} before a byte of the answer", alert_name(*alert)),
            ),
            Some(error) => Failure::new(Reason::TlsHandshake, format!("after the handshake: {error}")),
            None => Failure::new(
                Reason::ClosedAfterHandshake,
                match &self.cause {
                    Cause::Http(error) => format!("no byte of the answer came: {}", words(error)),
                    Cause::Closed | Cause::Deadline => "the connection was closed before the request".to_owned(),
                },
            ),
        }
    }

    /// What it means inside the body.
    pub(super) fn inside_body(self, watch: &Stopwatch) -> Failure {
        match &self.cause {
            Cause::Deadline => watch.ran_out(),
            Cause::Closed => body_broke_off(watch.body_bytes(), "the connection was closed"),
            Cause::Http(error) => body_broke_off(watch.body_bytes(), &words(error)),
        }
    }

    fn tls(&self) -> Option<&rustls::Error> {
        match &self.cause {
            Cause::Http(error) => tls_error(error),
            Cause::Closed | Cause::Deadline => None,
        }
    }
}

/// The transfer ended before the body did.
pub(super) fn body_broke_off(bytes: u64, words: &str) -> Failure {
    Failure::new(Reason::HttpProtocol, format!("the body breaks off after {bytes} bytes: {words}"))
}

/// The resolver said no.
pub(super) fn resolution(name: &str, error: &io::Error) -> Failure {
    Failure::new(Reason::NameResolution, format!("{name}: {error}"))
}

/// `connect(2)` said no.
pub(super) fn connect(address: &Address, error: &io::Error) -> Failure {
    Failure::new(connect_reason(error), format!("{address}: {error}"))
}

/// Which way connecting failed.
fn connect_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        _ => Reason::ConnectFailed,
    }
}

/// The handshake did not succeed.
pub(super) fn handshake(error: &io::Error) -> Failure {
    match tls_error(error) {
        Some(error) => handshake_refusal(error),
        None if is_close(error.kind()) => {
            Failure::new(Reason::ClosedInHandshake, format!("the peer ended the connection: {error}"))
        }
        None => Failure::new(Reason::TlsHandshake, words(error)),
    }
}

/// The handshake did not succeed, in the words of the TLS library.
fn handshake_refusal(error: &rustls::Error) -> Failure {
    if let Some(refusal) = identity::failure_of(error) {
        return refusal;
    }
    match error {
        // Every TLS record begins with a byte from 20 to 24; no text does.
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Failure::new(Reason::PlaintextServer, "the peer answered the TLS greeting with something that is not TLS")
        }
        rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => rejected(*alert),
        rustls::Error::AlertReceived(alert) => {
            Failure::new(Reason::TlsHandshake, format!("the peer ended the handshake with {}", alert_name(*alert)))
        }
        other => Failure::new(Reason::TlsHandshake, other.to_string()),
    }
}

/// What went wrong in a scrape that reqwest made.
pub(super) fn ordinary(error: reqwest::Error, scheme: Scheme) -> Failure {
    // The URL may carry secrets in its query, and the failure's target is known anyway.
    let error = error.without_url();
    if let Some(refusal) = identity::failure_of(&error) {
        return refusal;
    }
    // The two outermost errors only say that a request was sent by a client.
    let said = error.source().and_then(Error::source).map_or_else(|| words(&error), words);
    let failure = |reason| Failure::new(reason, &said);
    let closed = io_error(&error).is_some_and(|io| is_close(io.kind()));
    if error.is_dns() {
        return failure(Reason::NameResolution);
    }
    if error.is_connect() {
        return match (tls_error(&error), io_error(&error)) {
            (Some(tls), _) => handshake_refusal(tls),
            _ if error.is_timeout() => failure(Reason::ConnectTimeout),
            (None, Some(_)) if closed && scheme == Scheme::Https => failure(Reason::ClosedInHandshake),
            (None, Some(io)) => failure(connect_reason(io)),
            (None, None) => failure(Reason::ConnectFailed),
        };
    }
    match tls_error(&error) {
        Some(rustls::Error::AlertReceived(alert)) if is_about_our_certificate(*alert) => rejected(*alert),
        _ if scheme == Scheme::Https && closed_without_answer(&error) => failure(Reason::ClosedAfterHandshake),
        _ => failure(Reason::HttpProtocol),
    }
}

/// Whether the peer went away before its answer, as far as reqwest tells.
pub(super) fn closed_without_answer(error: &reqwest::Error) -> bool {
    let incomplete = links(error)
        .filter_map(|link| link.downcast_ref::<hyper::Error>())
        .any(|error| error.is_incomplete_message() || error.is_canceled());
    !error.is_connect() && (incomplete || io_error(error).is_some_and(|io| is_close(io.kind())))
}

/// The TLS error inside `error`, however it is wrapped.
pub(super) fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    links(error).find_map(|link| link.downcast_ref())
}

/// The innermost error of the operating system, or of a library that borrows its form; those around it only pass it on.
fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    links(error).filter_map(|link| link.downcast_ref()).last()
}

/// `error` and everything that it says it comes from. An `io::Error` made around another error skips that one when it
/// is asked for its source, so it is unpacked by hand.
fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&link| {
        let inside = link.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inside.map(|inside| inside as &(dyn Error + 'static)).or_else(|| link.source())
    })
}

/// What an error says, with its causes, each once.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut said = String::new();
    for link in links(error) {
        let text = link.to_string();
        if !said.contains(&text) {
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(&text);
        }
    }
    said
}

/// The ways in which the other side of a connection goes away.
fn is_close(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

/// Alerts by which a server says that it does not take our certificate (RFC 8446, section 6.2). `decrypt_error` is
/// among them: it is what a server says whose root has the name of our issuer and another key, as the roots of any two
/// Istio meshes do.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}

fn rejected(alert: AlertDescription) -> Failure {
    Failure::new(Reason::ClientCertificateRejected, format!("the peer answered with {}", alert_name(alert)))
}

fn alert_name(alert: AlertDescription) -> String {
    format!("TLS alert {} ({alert:?})", u8::from(alert))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn every_close_inside_the_handshake_is_one() {
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
            assert_eq!(handshake(&io::Error::from(kind)).reason, Reason::ClosedInHandshake, "{kind:?}");
        }
    }

    #[test]
    fn alerts_in_the_handshake() {
        for (alert, reason) in [
            (AlertDescription::UnknownCA, Reason::ClientCertificateRejected),
            (AlertDescription::CertificateExpired, Reason::ClientCertificateRejected),
            (AlertDescription::CertificateRequired, Reason::ClientCertificateRejected),
            (AlertDescription::BadCertificate, Reason::ClientCertificateRejected),
            (AlertDescription::HandshakeFailure, Reason::TlsHandshake),
            (AlertDescription::ProtocolVersion, Reason::TlsHandshake),
        ] {
            let failure = handshake(&wrapped(rustls::Error::AlertReceived(alert)));
            assert_eq!(failure.reason, reason, "{failure}");
            assert!(failure.detail.contains(&u8::from(alert).to_string()), "{failure}");
        }
    }

    #[test]
    fn text_in_place_of_tls() {
        let failure = handshake(&wrapped(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)));
        assert_eq!(failure.reason, Reason::PlaintextServer);
    }

    #[test]
    fn an_error_inside_an_io_error_is_found_and_said_once() {
        let error = io::Error::other(wrapped(rustls::Error::DecryptError));
        assert_eq!(tls_error(&error), Some(&rustls::Error::DecryptError));
        assert_eq!(words(&error), "cannot decrypt peer's message");
    }

    #[test]
    fn connecting_fails_in_three_ways() {
        for (kind, reason) in [
            (io::ErrorKind::ConnectionRefused, Reason::ConnectRefused),
            (io::ErrorKind::TimedOut, Reason::ConnectTimeout),
            (io::ErrorKind::HostUnreachable, Reason::ConnectFailed),
        ] {
            assert_eq!(connect_reason(&io::Error::from(kind)), reason);
        }
    }
}
