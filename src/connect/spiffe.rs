//! Scrapes over a connection whose peer proved to be exactly the workload that had to answer.
//!
//! One client belongs to one target and keeps at most one connection, from one scrape to the next. There is no pool, so
//! no connection can serve another identity. Always holds:
//!
//! - no request is written before the handshake's verifier has accepted the peer;
//! - a kept connection carries another request only after [`Credentials::may_reuse`] agreed; else it is replaced;
//! - redirects stay on the connection that redirects, or are refused: no second host is ever dialled;
//! - where only a known peer will do, the key of a new connection is looked at before the request is written;
//! - an answer that was not read to its end takes its connection with it.
//!
//! A connection that the peer closed while it was idle is replaced without a failed scrape: a `GET` that was answered
//! by no byte is sent again, once, and only on a new connection.
//!
//! It must not know: labels, jobs, what a status or a body means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::redirect::{self, Trail};
use super::stopwatch::{Stage, Stopwatch};
use super::transport::{Connection, dial, handshake};
use super::{Body, BodyKind, Request, Response, advice, auth, classify};
use crate::clock::Clock;
use crate::config::{Auth, HttpHeader, KnownSecrets};
use crate::identity::{Credentials, PublicKey, Verified};
use crate::model::{Address, Alpn, Failure, Peer, Phases, Reason, Scheme};

/// How much of a redirect's body is read to keep the connection.
const MAX_REDIRECT_BODY_BYTES: usize = 64 * 1024;

/// The connection of one target in a job that verifies SPIFFE IDs.
#[derive(Debug)]
pub struct SpiffeClient {
    peer: Peer,
    credentials: watch::Receiver<Arc<Credentials>>,
    clock: Clock,
    follow_redirects: bool,
    auth: Option<Auth>,
    /// Headers that are added to every request.
    http_headers: Vec<HttpHeader>,
    /// What is offered in each greeting.
    alpn: Alpn,
    /// The key of the peer whose answer counted last.
    known: Option<Known>,
    /// Since this moment the address may belong to somebody else: who was not known before will not do.
    uncertain_since: Option<std::time::Instant>,
    /// Kept between scrapes; its last answer was read to the end.
    kept: Option<Box<Connection>>,
    /// What verified the connection of the last answer.
    verified: Option<Arc<Verified>>,
    /// How far the last request came.
    phases: Phases,
    /// What it told that nobody is to see.
    secrets: KnownSecrets,
}

/// A key whose answers count.
#[derive(Debug)]
struct Known {
    key: PublicKey,
    /// When the first of them did.
    since: std::time::Instant,
}

impl SpiffeClient {
    /// A client that accepts answers from `peer` only. Nothing is dialled yet.
    pub fn new(
        peer: Peer,
        credentials: watch::Receiver<Arc<Credentials>>,
        clock: Clock,
        follow_redirects: bool,
        auth: Option<Auth>,
    ) -> Self {
        Self {
            peer,
            credentials,
            clock,
            follow_redirects,
            auth,
            http_headers: Vec::new(),
            alpn: Alpn::default(),
            known: None,
            uncertain_since: None,
            kept: None,
            verified: None,
            phases: Phases::default(),
            secrets: KnownSecrets::default(),
        }
    }

    /// The same with these headers in every request.
    pub fn adding(self, http_headers: Vec<HttpHeader>) -> Self {
        Self { http_headers, ..self }
    }

    /// The same with these protocols in every greeting.
    pub fn offering(self, alpn: Alpn) -> Self {
        Self { alpn, ..self }
    }

    /// As [`Client::get`](super::Client::get).
    pub async fn get(&mut self, request: &Request) -> Result<Response<'_>, Failure> {
        let mut watch = Stopwatch::until(request.deadline);
        self.verified = None;
        let answered = self.answer(request, &mut watch).await;
        self.phases = watch.phases();
        match answered {
            Ok((connection, reply)) => {
                let verified = Arc::clone(connection.verified());
                let phases = self.phases;
                let (head, incoming) = reply.into_parts();
                let peer = Some(verified.report().clone());
                self.verified = Some(verified);
                self.kept = Some(connection);
                let body = SpiffeBody { slot: &mut self.kept, incoming, watch, peer: &self.peer, finished: false };
                Ok(Response {
                    status: head.status,
                    headers: head.headers,
                    peer,
                    phases,
                    body: Body(BodyKind::Spiffe(body)),
                })
            }
            Err(failure) => Err(advice::add(expecting(failure, &self.peer), &self.alpn, &request.address)),
        }
    }

    /// As [`Client::secrets`](super::Client::secrets).
    pub fn secrets(&self) -> &KnownSecrets {
        &self.secrets
    }

    /// As [`Client::phases`](super::Client::phases).
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// As [`Client::confirm`](super::Client::confirm).
    pub fn confirm(&self) -> Result<(), Failure> {
        let outcome = match &self.verified {
            Some(verified) => self.still_good(verified),
            None => Err(Failure::new(Reason::VerificationEnded, "there is no answer to confirm")),
        };
        outcome.map_err(|failure| expecting(failure, &self.peer))
    }

    /// As [`Client::remember_peer`](super::Client::remember_peer).
    pub fn remember_peer(&mut self) {
        let Some(verified) = &self.verified else { return };
        let key = verified.key();
        if self.known.as_ref().is_none_or(|known| known.key != key) {
            self.known = Some(Known { key, since: tokio::time::Instant::now().into_std() });
        }
    }

    /// As [`Client::only_known_peer`](super::Client::only_known_peer).
    pub fn only_known_peer(&mut self, since: Option<std::time::Instant>) {
        self.uncertain_since = since;
    }

    /// As [`Client::keep_while_verified`](super::Client::keep_while_verified).
    pub async fn keep_while_verified(&mut self) {
        loop {
            let now = self.clock.now();
            let Some(kept) = &self.kept else { return std::future::pending().await };
            if self.credentials.borrow_and_update().may_reuse(kept.verified(), &self.peer, now).is_err() {
                tracing::debug!(peer = %self.peer, "closing a connection whose verification has ended");
                self.kept = None;
                continue;
            }
            let left = kept.verified().not_after().duration_since(now).unwrap_or_default();
            // Woken by a change, or at the end of the peer's validity; asked anew in both cases.
            let woken = tokio::time::timeout(left + Duration::from_secs(1), self.credentials.changed()).await;
            if let Ok(Err(_)) = woken {
                // Nobody publishes certificates any more: the process is stopping.
                return std::future::pending().await;
            }
        }
    }

    /// An answer that is no redirect, or one that is not followed, and the connection that its body comes over.
    async fn answer(
        &mut self,
        request: &Request,
        watch: &mut Stopwatch,
    ) -> Result<(Box<Connection>, http::Response<Incoming>), Failure> {
        let headers = self.headers(request)?;
        let (mut connection, mut reply) = self.first_answer(request, &headers, watch).await?;
        let mut trail = None;
        while self.follow_redirects && redirect::is_redirect(reply.status()) {
            let trail = match &mut trail {
                Some(trail) => trail,
                None => trail.insert(Trail::from(Scheme::Https, &request.address, &request.path_and_query)?),
            };
            let elsewhere = |_: &_, _: &_| Err("a verified scrape stays with the peer that was verified");
            let next = redirect::path_and_query(trail.follow(reply.status(), reply.headers(), elsewhere)?);
            drain(&mut connection, reply, watch).await?;
            self.still_good(connection.verified())?;
            watch.enter(Stage::Answer);
            reply = match connection.exchange(head(&next, &headers)?, watch).await {
                Ok(reply) => reply,
                Err(broken) => return Err(broken.before_head(None, watch)),
            };
            watch.answered();
        }
        Ok((connection, reply))
    }

    /// The first answer: over the kept connection if it may and can still be used, else over a new one.
    async fn first_answer(
        &mut self,
        request: &Request,
        headers: &HeaderMap,
        watch: &mut Stopwatch,
    ) -> Result<(Box<Connection>, http::Response<Incoming>), Failure> {
        if let Some(mut kept) = self.kept.take()
            && self.may_reuse(&kept, &request.address)
            && self.check_known(kept.verified().key()).is_ok()
            && kept.is_open().await
        {
            watch.enter(Stage::Answer);
            match kept.exchange(head(&request.path_and_query, headers)?, watch).await {
                Ok(reply) => {
                    watch.answered();
                    return Ok((kept, reply));
                }
                // Closed while idle, or retired by the peer at this very moment: nobody has answered yet.
                Err(broken) if broken.is_unanswered() => {}
                Err(broken) => return Err(broken.before_head(None, watch)),
            }
        }
        let mut fresh = self.connect(&request.address, watch).await?;
        self.still_good(fresh.verified())?;
        self.check_known(fresh.verified().key())?;
        watch.enter(Stage::Answer);
        match fresh.exchange(head(&request.path_and_query, headers)?, watch).await {
            Ok(reply) => {
                watch.answered();
                Ok((fresh, reply))
            }
            Err(broken) => {
                let last_words = if broken.wants_last_words() { fresh.last_words(watch).await } else { None };
                Err(broken.before_head(last_words, watch))
            }
        }
    }

    /// Dials, and lets the verifier decide.
    async fn connect(&self, address: &Address, watch: &mut Stopwatch) -> Result<Box<Connection>, Failure> {
        if let Some(since) = self.uncertain_since
            && self.known.as_ref().is_none_or(|known| known.since > since)
        {
            return Err(stale("no answer of it had counted before, so nobody can prove to be the same"));
        }
        let credentials = self.credentials.borrow().clone();
        // Asked before dialling: a connection that cannot be verified is not made at all.
        let prepared = credentials.handshake(&self.peer, &self.clock)?.offering(&self.alpn);
        let tcp = dial(address, Scheme::Https.default_port(), watch).await?;
        let stream = handshake(tcp, &prepared, watch).await?;
        let verified = prepared.verified(stream.get_ref().1)?;
        Ok(Box::new(Connection::over(stream, address.clone(), Arc::new(verified)).await?))
    }

    fn may_reuse(&self, kept: &Connection, address: &Address) -> bool {
        let now = self.clock.now();
        kept.address() == address && self.credentials.borrow().may_reuse(kept.verified(), &self.peer, now).is_ok()
    }

    fn still_good(&self, verified: &Verified) -> Result<(), Failure> {
        self.credentials.borrow().still_good(verified, self.clock.now())
    }

    fn check_known(&self, key: PublicKey) -> Result<(), Failure> {
        let Some(since) = self.uncertain_since else { return Ok(()) };
        match self.known.as_ref().is_some_and(|known| known.key == key && known.since <= since) {
            true => Ok(()),
            false => Err(stale("its identity answers with another key than the one whose answers counted")),
        }
    }

    /// The headers of every request of this scrape.
    fn headers(&mut self, request: &Request) -> Result<HeaderMap, Failure> {
        let mut headers = with_host(request);
        self.secrets = auth::add(&mut headers, self.auth.as_ref(), &self.http_headers)?;
        Ok(headers)
    }
}

/// The body of an answer, read over the connection of its client.
#[derive(Debug)]
pub(super) struct SpiffeBody<'c> {
    slot: &'c mut Option<Box<Connection>>,
    incoming: Incoming,
    watch: Stopwatch,
    peer: &'c Peer,
    finished: bool,
}

impl SpiffeBody<'_> {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.finished {
            return Ok(None);
        }
        let Some(connection) = self.slot else {
            return Err(classify::body_broke_off(self.watch.body_bytes(), "it has failed before"));
        };
        match connection.next_piece(&mut self.incoming, &mut self.watch).await {
            Some(Ok(bytes)) => {
                self.watch.count_body(bytes.len());
                Ok(Some(bytes))
            }
            None => {
                self.finished = true;
                Ok(None)
            }
            Some(Err(broken)) => {
                *self.slot = None;
                Err(expecting(broken.inside_body(&self.watch), self.peer))
            }
        }
    }
}

/// What is left of a body would be taken for the next answer: its connection goes.
impl Drop for SpiffeBody<'_> {
    fn drop(&mut self) {
        if !self.finished {
            *self.slot = None;
        }
    }
}

pub(super) fn expecting(failure: Failure, peer: &Peer) -> Failure {
    if failure.expected.is_some() { failure } else { failure.expecting(peer) }
}

fn stale(why: &str) -> Failure {
    Failure::new(Reason::DiscoveryStale, format!("the address may belong to another pod by now, and {why}"))
}

/// The headers of a request, with a `Host` that comes from the address that is dialled and nowhere else.
pub(super) fn with_host(request: &Request) -> HeaderMap {
    let mut headers = request.headers.clone();
    let host = HeaderValue::try_from(request.address.to_string())
        .expect("an address consists of letters, digits and a few marks");
    headers.insert(HOST, host);
    headers
}

/// A request in origin form. The text has been checked where the target was made; this is the last look.
pub(super) fn head(path_and_query: &str, headers: &HeaderMap) -> Result<http::Request<Empty<Bytes>>, Failure> {
    let unfit =
        |why: String| Failure::new(Reason::HttpProtocol, format!("{path_and_query:?} cannot be asked for: {why}"));
    if !path_and_query.starts_with('/') {
        return Err(unfit("a path begins with a slash".to_owned()));
    }
    let target = PathAndQuery::try_from(path_and_query).map_err(|error| unfit(error.to_string()))?;
    let mut request = http::Request::new(Empty::new());
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers.clone();
    Ok(request)
}

/// Reads a redirect's body to its end, so that the connection can carry the next request.
async fn drain(
    connection: &mut Connection,
    reply: http::Response<Incoming>,
    watch: &mut Stopwatch,
) -> Result<(), Failure> {
    let refused = |status: StatusCode, why: &str| {
        Failure::new(Reason::RedirectRefused, format!("{} with {why}", status.as_u16()))
    };
    let (head, mut body) = reply.into_parts();
    let mut bytes = 0;
    while let Some(piece) = connection.next_piece(&mut body, watch).await {
        bytes += piece.map_err(|broken| broken.inside_body(watch))?.len();
        if bytes > MAX_REDIRECT_BODY_BYTES {
            return Err(refused(head.status, "a body of more than 64 KiB"));
        }
    }
    if !connection.is_open().await {
        return Err(refused(head.status, "the end of the connection; it is followed on the same connection only"));
    }
    Ok(())
}
