//! One question to a port, to find out how it behaves: whom it lets in, and whether it speaks plain text.
//!
//! These are no scrapes. What comes back is the status line of an answer and, over TLS, who gave it. The body is taken to its
//! end and thrown away unseen: to Istio's agent, whoever hangs up half way is a scrape that failed, which it logs and counts.
//! Always holds: over TLS the peer is verified by the one verifier, inside the handshake, also where no certificate of ours is
//! shown; a plain question carries nothing but the path; what happens after the status changes no answer. One connection
//! each, gone with the answer.
//!
//! It must not know: what an answer means for the port.

use std::time::SystemTime;

use http::header::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::spiffe::{expecting, head, with_host};
use super::stopwatch::{Stage, Stopwatch};
use super::transport::{Connection, dial, handshake};
use super::{Request, advice};
use crate::clock::Clock;
use crate::identity::Credentials;
use crate::model::{Alpn, Failure, Peer, PeerReport, Reason, Scheme};

/// How much of an answer is looked at to find its status.
const LOOKED_AT: u64 = 1024;
/// How much of a body is taken at most: more than any proxy has to tell, and no way to keep us busy.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// How much of an answer is looked at to find how long it is.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What of ours is shown in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Our certificate, as a scrape shows it.
    OurCertificate,
    /// None.
    Nothing,
}

/// What a peer answered that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// Who it was.
    pub peer: PeerReport,
    /// From when on the renewal of its certificate is overdue.
    pub overdue_after: SystemTime,
}

/// Why a question over TLS has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// With the reason that it has in a scrape.
    pub failure: Failure,
    /// Who it was, if that had been verified before it failed.
    pub peer: Option<PeerReport>,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self { failure, peer: None }
    }
}

/// How a port answers plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainAnswer {
    /// With this status.
    Status(u16),
    /// By closing or resetting the connection before a byte.
    Closed,
    /// With something that is not HTTP, such as a TLS alert.
    NotHttp,
}

/// Asks over TLS, of nobody but `peer`.
pub async fn ask_verified(
    request: &Request,
    peer: &Peer,
    credentials: &Credentials,
    shown: Shown,
    alpn: &Alpn,
    clock: &Clock,
) -> Result<Answered, Unanswered> {
    let mut watch = Stopwatch::until(request.deadline);
    let answered = verified(request, peer, credentials, shown, alpn, clock, &mut watch).await;
    answered.map_err(|Unanswered { failure, peer: seen }| Unanswered {
        failure: advice::add(expecting(failure, peer), alpn, &request.address),
        peer: seen,
    })
}

async fn verified(
    request: &Request,
    peer: &Peer,
    credentials: &Credentials,
    shown: Shown,
    alpn: &Alpn,
    clock: &Clock,
    watch: &mut Stopwatch,
) -> Result<Answered, Unanswered> {
    let question = head(&request.path_and_query, &with_host(request))?;
    let prepared = match shown {
        Shown::OurCertificate => credentials.handshake(peer, clock)?,
        Shown::Nothing => credentials.anonymous_handshake(peer, clock)?,
    };
    let prepared = prepared.offering(alpn);
    let tcp = dial(&request.address, Scheme::Https.default_port(), watch).await?;
    let stream = handshake(tcp, &prepared, watch).await?;
    let verified = prepared.verified(stream.get_ref().1)?;
    let (report, overdue_after) = (verified.report().clone(), verified.overdue_after());
    let answered = async {
        let mut connection = Connection::over(stream, request.address.clone(), verified.into()).await?;
        watch.enter(Stage::Answer);
        match connection.exchange(question, watch).await {
            Ok(reply) => {
                let status = reply.status().as_u16();
                let (mut body, mut taken) = (reply.into_body(), 0);
                while taken < MAX_BODY_BYTES
                    && let Some(Ok(piece)) = connection.next_piece(&mut body, watch).await
                {
                    taken += piece.len();
                }
                Ok(status)
            }
            Err(broken) => {
                let last_words = if broken.wants_last_words() { connection.last_words(watch).await } else { None };
                Err(broken.before_head(last_words, watch))
            }
        }
    };
    match answered.await {
        Ok(status) => Ok(Answered { status, peer: report, overdue_after }),
        Err(failure) => Err(Unanswered { failure, peer: Some(report) }),
    }
}

/// Asks in plain HTTP, of whoever is there. It fails where no connection is made or nothing happens in time; everything
/// else is an answer.
pub async fn ask_plainly(request: &Request) -> Result<PlainAnswer, Failure> {
    let mut watch = Stopwatch::until(request.deadline);
    let question = plain(&request.path_and_query, &with_host(request))?;
    let mut tcp = dial(&request.address, Scheme::Http.default_port(), &mut watch).await?;
    watch.enter(Stage::Answer);
    let seen = watch.bounded(exchange(&mut tcp, question.as_bytes())).await?;
    let answer = answer_of(&seen);
    if matches!(answer, PlainAnswer::Status(_)) {
        // Its own end, ours, or the deadline: the answer is known.
        let _ = watch.bounded(throw_away(&mut tcp, seen)).await;
    }
    Ok(answer)
}

fn plain(path_and_query: &str, headers: &HeaderMap) -> Result<String, Failure> {
    // The same look at the path as over TLS.
    head(path_and_query, headers)?;
    let mut text = format!("GET {path_and_query} HTTP/1.1\r\n");
    for (name, value) in headers {
        let value = value.to_str().map_err(|error| Failure::new(Reason::HttpProtocol, error.to_string()))?;
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("connection: close\r\n\r\n");
    Ok(text)
}

/// Whoever closes may do so at any moment: an error of the socket is an answer, too.
async fn exchange(tcp: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let _ = tcp.write_all(question).await;
    let mut limited = tcp.take(LOOKED_AT);
    while !seen.contains(&b'\n') {
        match limited.read_buf(&mut seen).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    seen
}

/// Takes what is left of an answer that begins with `seen`: as far as it says, or until the connection ends.
async fn throw_away(tcp: &mut TcpStream, mut seen: Vec<u8>) {
    let (mut piece, mut taken, mut end) = (vec![0; 64 * 1024], seen.len(), end_of(&seen));
    while taken < end.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES) {
        match tcp.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => {
                taken += bytes;
                if end.is_none() && seen.len() < MAX_HEAD_BYTES {
                    seen.extend_from_slice(&piece[..bytes]);
                    end = end_of(&seen);
                }
            }
        }
    }
}

/// Where an answer ends, counted from its first byte, if its head is there and tells.
fn end_of(seen: &[u8]) -> Option<usize> {
    let head = seen.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let length = std::str::from_utf8(&seen[..head]).ok()?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    head.checked_add(length)
}

fn answer_of(seen: &[u8]) -> PlainAnswer {
    let status = || {
        let line = seen.split(|byte| *byte == b'\n').next()?;
        let rest = line.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?;
        let digits = std::str::from_utf8(rest.get(..3)?).ok()?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    match status() {
        _ if seen.is_empty() => PlainAnswer::Closed,
        Some(status) => PlainAnswer::Status(status),
        None => PlainAnswer::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_first_line() {
        for (bytes, answer) in [
            ("HTTP/1.1 200 OK\r\nx", PlainAnswer::Status(200)),
            ("HTTP/1.0 403\r\n", PlainAnswer::Status(403)),
            ("", PlainAnswer::Closed),
            ("HTTP/1.1 2", PlainAnswer::NotHttp),
            ("HTTP/1.1 +20 x\r\n", PlainAnswer::NotHttp),
            ("HTTP/2 200\r\n", PlainAnswer::NotHttp),
            ("\u{15}\u{3}\u{3}\0\u{2}\u{2}P", PlainAnswer::NotHttp),
        ] {
            assert_eq!(answer_of(bytes.as_bytes()), answer, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        for (bytes, end) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Some(41)),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", Some(46)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", None),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n", None),
        ] {
            assert_eq!(end_of(bytes.as_bytes()), end, "{bytes:?}");
        }
    }
}
