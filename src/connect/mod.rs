//! One connection of one target, to a peer that was verified before anything was asked of it.
//!
//! There are three kinds of connection, and they are three types: [`SpiffeClient`] (the peer proved one SPIFFE ID),
//! [`HostNameClient`] (chain and host name, as usual) and [`PlainClient`] (`http`, written in the job). Which one a
//! target gets follows from its job; no answer, redirect or error leads from one kind to another, and a TLS connection
//! that was not verified is no value at all.
//!
//! ```text
//! Client::get ─▶ Response{status, headers, peer, body} ─▶ Body::chunk … ─▶ Client::confirm ─▶ the samples count
//! ```
//!
//! Always holds: one deadline covers everything from the first packet to the last byte of the body; every failure has
//! its reason from the closed list; a response header is at most 16 KiB. Bodies come as the transfer delivered them,
//! without content decoding and without a limit: both are the scrape's business.
//!
//! To find out how a port behaves, and for nothing else, [`ask_verified`] and [`ask_plainly`] put one question to it: they tell the
//! status of an answer and throw its body away.
//!
//! Discovery fetches its lists over HTTP by the two ordinary kinds. This room does not know labels, metric formats, or
//! what a status means.

mod advice;
mod auth;
mod classify;
mod ordinary;
mod question;
mod redirect;
mod spiffe;
mod stopwatch;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;

pub use ordinary::{HostNameClient, OrdinarySettings, PlainClient};
pub use question::{Answered, PlainAnswer, Shown, Unanswered, ask_plainly, ask_verified};
pub use spiffe::SpiffeClient;

use crate::clock::Clock;
use crate::config::{JobSecurity, KnownSecrets, ScrapeConfig};
use crate::identity::Credentials;
use crate::model::{Address, Failure, PeerReport, Phases, Reason, Scheme, Target, Verification};
use crate::token::Tokens;

/// The certificates of a job as they change.
pub type CredentialsFeed = watch::Receiver<Arc<Credentials>>;

/// One `GET`.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where to connect; the `Host` header is made of it and of nothing else.
    pub address: Address,
    /// Path and query as they stand in the request line.
    pub path_and_query: Arc<str>,
    /// Headers besides `Host`, `Authorization` and those that the file adds. When an ordinary scrape is redirected to another origin, only
    /// `Accept`, `Accept-Encoding`, `User-Agent` and the timeout header go along.
    pub headers: HeaderMap,
    /// When the last byte of the body must have come.
    pub deadline: Instant,
}

/// The head of an answer, and its body still to be read.
#[derive(Debug)]
pub struct Response<'c> {
    /// The status; a redirect only where redirects are not followed.
    pub status: StatusCode,
    /// The headers, at most 16 KiB.
    pub headers: HeaderMap,
    /// Who answered, if the connection is verified; through a proxy it is verified, too, but not told.
    pub peer: Option<PeerReport>,
    /// Where the time went so far. Connect and TLS are absent on a kept connection; in ordinary jobs the first byte
    /// counts from the beginning, because their library does not tell when the connection stood.
    pub phases: Phases,
    /// The body. Dropped before its end, it takes the connection with it.
    pub body: Body<'c>,
}

/// The body of an answer, piece by piece.
#[derive(Debug)]
pub struct Body<'c>(BodyKind<'c>);

#[derive(Debug)]
enum BodyKind<'c> {
    Spiffe(spiffe::SpiffeBody<'c>),
    Ordinary(ordinary::OrdinaryBody),
}

impl Body<'_> {
    /// The next piece as the transfer delivered it; `None` at the end. A body that breaks off inside its framing is
    /// `http_protocol`, one that is not complete at the deadline `timeout`.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match &mut self.0 {
            BodyKind::Spiffe(body) => body.chunk().await,
            BodyKind::Ordinary(body) => body.chunk().await,
        }
    }
}

/// The connection of one target, kept between its scrapes.
#[derive(Debug)]
pub enum Client {
    /// Verified by SPIFFE ID.
    Spiffe(SpiffeClient),
    /// Verified by chain and host name.
    HostName(HostNameClient),
    /// Not verified: the job says `scheme: http`.
    Plain(PlainClient),
}

impl Client {
    /// The client that a target's job asks for; nothing is dialled yet. `credentials` are those of the job's identity,
    /// for jobs that verify SPIFFE IDs; `tokens` those of jobs with `oauth2`. A target that may not be connected yields its
    /// failure.
    pub fn for_target(
        target: &Target,
        job: &ScrapeConfig,
        credentials: Option<CredentialsFeed>,
        tokens: Option<Tokens>,
        clock: &Clock,
    ) -> Result<Self, Failure> {
        match (&job.security, &target.verification, target.scheme) {
            (_, Verification::Refused(failure), _) => Err(failure.clone()),
            (JobSecurity::Spiffe(_), Verification::Spiffe(peer), Scheme::Https) => {
                let credentials = credentials.ok_or_else(|| {
                    Failure::new(Reason::NoOwnCertificate, "BUG: the job has no identity").expecting(peer)
                })?;
                let auth = job.auth.clone();
                let client = SpiffeClient::new(peer.clone(), credentials, clock.clone(), job.follow_redirects, auth);
                Ok(Client::Spiffe(client.adding(job.http_headers.clone()).offering(target.alpn.clone())))
            }
            (JobSecurity::Spiffe(_), _, Scheme::Http) => Err(Failure::new(
                Reason::PlaintextRefused,
                "the target asks for http in a job that verifies identities",
            )),
            (JobSecurity::Spiffe(_), _, _) => {
                Err(Failure::new(Reason::NoExpectedIdentity, "nobody is named who may answer for this target"))
            }
            (JobSecurity::Ordinary(tls), Verification::HostName, Scheme::Https) => {
                let settings = OrdinarySettings::of_job(job, target.timeout, tokens);
                Ok(Client::HostName(HostNameClient::new(settings, tls.clone(), clock.clone())))
            }
            (JobSecurity::Ordinary(_), Verification::None, Scheme::Http) => {
                Ok(Client::Plain(PlainClient::new(OrdinarySettings::of_job(job, target.timeout, tokens))?))
            }
            (JobSecurity::Ordinary(_), _, scheme) => {
                let scheme = scheme.as_str();
                Err(Failure::new(
                    Reason::PlaintextRefused,
                    format!("BUG: an ordinary job has no such verification for {scheme}"),
                ))
            }
        }
    }

    /// Asks once. Reuses the kept connection where it may, follows redirects where the job follows them and the kind of
    /// connection allows the place.
    pub async fn get(&mut self, request: &Request) -> Result<Response<'_>, Failure> {
        match self {
            Client::Spiffe(client) => client.get(request).await,
            Client::HostName(client) => client.get(request).await,
            Client::Plain(client) => client.get(request).await,
        }
    }

    /// What the last request told that nobody is to see, should whoever answers repeat it.
    pub fn secrets(&self) -> &KnownSecrets {
        match self {
            Client::Spiffe(client) => client.secrets(),
            Client::HostName(client) => client.secrets(),
            Client::Plain(client) => client.secrets(),
        }
    }

    /// How far the last request came before its answer, or its failure. Ordinary jobs do not measure it.
    pub fn phases(&self) -> Phases {
        match self {
            Client::Spiffe(client) => client.phases(),
            Client::HostName(_) | Client::Plain(_) => Phases::default(),
        }
    }

    /// Watches over a kept connection while nothing is asked, and closes it as soon as it may not carry another request:
    /// roots, own certificate or the peer's validity have ended. Never returns; drop it to go on.
    pub async fn keep_while_verified(&mut self) {
        match self {
            Client::Spiffe(client) => client.keep_while_verified().await,
            Client::HostName(_) | Client::Plain(_) => std::future::pending().await,
        }
    }

    /// The answer that was read last is one to go by: who gave it is the one meant by [`Client::only_known_peer`]. That
    /// has no meaning where nobody is verified by SPIFFE ID.
    pub fn remember_peer(&mut self) {
        match self {
            Client::Spiffe(client) => client.remember_peer(),
            Client::HostName(_) | Client::Plain(_) => {}
        }
    }

    /// With a moment, nobody is asked but who shows a key that was remembered before it; else `discovery_stale`, before a
    /// byte of the request. For when it is uncertain whose the address is, since that moment: who came later may be
    /// another one already, also over a connection that is kept.
    pub fn only_known_peer(&mut self, since: Option<std::time::Instant>) {
        match self {
            Client::Spiffe(client) => client.only_known_peer(since),
            Client::HostName(_) | Client::Plain(_) => {}
        }
    }

    /// Asked when a body has been read and before anything of it counts: nothing that verified the connection has ended
    /// meanwhile. Else `verification_ended`.
    pub fn confirm(&self) -> Result<(), Failure> {
        match self {
            Client::Spiffe(client) => client.confirm(),
            Client::HostName(_) | Client::Plain(_) => Ok(()),
        }
    }
}
