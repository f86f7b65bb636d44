//! What we are and whom we trust, as one immutable snapshot.
//!
//! A snapshot is checked when it is made and published whole; a new one has a new generation. Own identity and roots
//! are independent parts of it, and either may still be missing. Time is not part of it: whoever uses a snapshot says
//! what time it is, because certificates end while nobody writes files.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;

use super::certificate::{CertificateFacts, end_of, utc};
use super::roots::Roots;
use super::verify::{Handshake, Verified};
use crate::clock::Clock;
use crate::model::{Failure, Peer, Reason, SpiffeId, TrustDomain};

/// Our own certificate with its key; they are known to belong together.
pub struct OwnIdentity {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) id: Option<SpiffeId>,
    pub(super) chain: Vec<CertificateFacts>,
}

impl OwnIdentity {
    /// Our SPIFFE ID; certificates of other issuers may have none.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.id.as_ref()
    }

    /// What the certificates of our chain say, leaf first; never empty.
    pub fn chain(&self) -> &[CertificateFacts] {
        &self.chain
    }

    /// Until when our leaf is valid.
    pub fn not_after(&self) -> SystemTime {
        self.chain[0].not_after
    }

    /// Whether peers can accept it at `now`.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.chain[0].is_valid_at(now)
    }
}

/// Without the key.
impl fmt::Debug for OwnIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OwnIdentity").field("id", &self.id).field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// A checked snapshot of own identity and roots.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub(super) generation: u64,
    pub(super) read: bool,
    pub(super) own: Option<Arc<OwnIdentity>>,
    pub(super) roots: Arc<Roots>,
    pub(super) trust_domain: Option<TrustDomain>,
    pub(super) aliases: Arc<[TrustDomain]>,
}

impl Credentials {
    /// Grows with every snapshot that differs from the one before; 0 before anything was loaded.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the files have been read, whatever was in them.
    pub fn is_read(&self) -> bool {
        self.read
    }

    /// Our own certificate, once one was loaded; the last good one, so it may have expired.
    pub fn own(&self) -> Option<&OwnIdentity> {
        self.own.as_deref()
    }

    /// The roots of our trust domain and its aliases.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The trust domain for which the roots vouch: the configured one, or that of our own first certificate.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// Other names of that trust domain.
    pub fn aliases(&self) -> &[TrustDomain] {
        &self.aliases
    }

    /// Whether a handshake can be tried at `now`; the failure says what is missing. Its reason is `no_own_certificate`,
    /// `identity_unknown` or, where no root is usable, `unknown_authority`.
    pub fn ready(&self, now: SystemTime) -> Result<(), Failure> {
        self.own_at(now)?;
        self.can_verify(now)
    }

    /// Whether anybody can be verified at `now`.
    fn can_verify(&self, now: SystemTime) -> Result<(), Failure> {
        if self.trust_domain.is_none() {
            return Err(Failure::new(
                Reason::IdentityUnknown,
                "the trust domain is not known: it is not configured, and our own certificate names none",
            ));
        }
        if !self.roots.any_valid_at(now) {
            return Err(Failure::new(Reason::UnknownAuthority, "no root certificate is loaded that is valid now"));
        }
        Ok(())
    }

    /// Prepares one handshake in which exactly `peer` is accepted: TLS 1.2 or 1.3, our own certificate shown, no
    /// resumption, no early data, no SNI, no ALPN unless it is added. Cheap: key, roots and cryptography are shared.
    pub fn handshake(&self, peer: &Peer, clock: &Clock) -> Result<Handshake, Failure> {
        self.ready(clock.now())?;
        Handshake::prepare(self, Some(self.own_at(clock.now())?), peer, clock)
    }

    /// The same without a certificate of ours, to see whether a peer lets in who shows none. The peer is verified as ever.
    pub fn anonymous_handshake(&self, peer: &Peer, clock: &Clock) -> Result<Handshake, Failure> {
        self.can_verify(clock.now())?;
        Handshake::prepare(self, None, peer, clock)
    }

    /// The same for a client that makes its own connections, such as a receiver's: every connection it makes is
    /// verified to be `peer`. Make a new client when the generation changes.
    pub fn tls_config(&self, peer: &Peer, clock: &Clock) -> Result<Arc<rustls::ClientConfig>, Failure> {
        self.handshake(peer, clock).map(|handshake| handshake.config())
    }

    /// Whether what a verified connection delivered may count at `now`: the anchor of its chain is still among the
    /// roots of the peer's trust domain, and nothing in the chain has ended. Else `verification_ended`. A change of our
    /// own certificate says nothing about the peer, so it does not spoil an answer that is being read.
    pub fn still_good(&self, verified: &Verified, now: SystemTime) -> Result<(), Failure> {
        if now >= end_of(verified.not_after()) {
            let ended = utc(verified.not_after());
            return Err(ended_because(format!("a certificate in the peer's chain expired at {ended}")));
        }
        if !self.covers(verified.id().trust_domain()) {
            let domain = verified.id().trust_domain();
            return Err(ended_because(format!("there are no roots for the peer's trust domain {domain} any more")));
        }
        match self.roots.find(verified.anchor(), now) {
            Some(_) => Ok(()),
            None => Err(ended_because("the root that vouched for the peer has been withdrawn or has expired")),
        }
    }

    /// Whether a kept connection may carry another request to `peer` at `now`: [`Credentials::still_good`], and neither
    /// roots, own certificate nor expected identity have changed since its handshake.
    pub fn may_reuse(&self, verified: &Verified, peer: &Peer, now: SystemTime) -> Result<(), Failure> {
        self.still_good(verified, now)?;
        if self.generation != verified.generation() {
            return Err(ended_because("roots or our own certificate have changed since the handshake"));
        }
        if verified.peer() != peer {
            return Err(ended_because("another identity is expected than at the handshake"));
        }
        self.own_at(now).map(|_| ())
    }

    /// Whether our roots may vouch for identities of `domain`.
    pub(super) fn covers(&self, domain: &TrustDomain) -> bool {
        self.trust_domain.as_ref() == Some(domain) || self.aliases.contains(domain)
    }

    pub(super) fn own_at(&self, now: SystemTime) -> Result<&OwnIdentity, Failure> {
        let own = self.own().ok_or_else(|| {
            Failure::new(Reason::NoOwnCertificate, "no certificate of our own is loaded, so no peer would accept us")
        })?;
        if !own.is_valid_at(now) {
            let (from, until) = (utc(own.chain[0].not_before), utc(own.not_after()));
            return Err(Failure::new(
                Reason::NoOwnCertificate,
                format!("our own certificate is valid from {from} to {until}, not now"),
            ));
        }
        Ok(own)
    }
}

fn ended_because(what: impl AsRef<str>) -> Failure {
    Failure::new(Reason::VerificationEnded, what)
}
