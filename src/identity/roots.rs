//! The roots that may vouch for peers.
//!
//! A trust anchor carries no validity, so the library that verifies chains would trust an expired root for ever: here
//! each root keeps its certificate's dates. Expired ones are dropped when the file is read, and each handshake gets
//! only those that are valid at its moment. Two sets are equal if they hold the same certificates, in whatever order
//! and bytes the file had them.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::certificate::CertificateFacts;

/// The roots of one trust domain; never an expired one at the time of loading.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Sorted by fingerprint, each once.
    roots: Vec<Root>,
}

#[derive(Clone, Debug)]
struct Root {
    anchor: Arc<TrustAnchor<'static>>,
    facts: CertificateFacts,
}

impl Roots {
    /// Takes what can be a root out of `certificates`, and says of each other one why it cannot.
    pub(super) fn choose(certificates: &[CertificateDer<'static>], now: SystemTime) -> (Self, Vec<String>) {
        let mut roots = Vec::new();
        let mut left_out = Vec::new();
        for (at, certificate) in certificates.iter().enumerate() {
            match root(certificate, now) {
                Ok(root) => roots.push(root),
                Err(fault) => left_out.push(format!("certificate {} is no usable root: {fault}", at + 1)),
            }
        }
        roots.sort_by_key(|root| root.facts.fingerprint);
        roots.dedup_by_key(|root| root.facts.fingerprint);
        (Self { roots }, left_out)
    }

    /// What the root certificates say, for people.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateFacts> {
        self.roots.iter().map(|root| &root.facts)
    }

    /// The anchors of the roots that are valid at `now`.
    pub(super) fn valid_at(&self, now: SystemTime) -> Vec<TrustAnchor<'static>> {
        self.current(now).map(|root| TrustAnchor::clone(&root.anchor)).collect()
    }

    /// Whether any root is valid at `now`.
    pub fn any_valid_at(&self, now: SystemTime) -> bool {
        self.current(now).next().is_some()
    }

    /// Our own copy of `anchor` and the end of its validity, if a root with that name and key is valid at `now`. A root
    /// issued anew over the same key is the same anchor; the later end counts.
    pub(super) fn find(
        &self,
        anchor: &TrustAnchor<'_>,
        now: SystemTime,
    ) -> Option<(Arc<TrustAnchor<'static>>, SystemTime)> {
        let same = self.current(now).filter(|root| *root.anchor == *anchor);
        same.max_by_key(|root| root.facts.not_after).map(|root| (Arc::clone(&root.anchor), root.facts.not_after))
    }

    fn current(&self, now: SystemTime) -> impl Iterator<Item = &Root> {
        self.roots.iter().filter(move |root| root.facts.is_valid_at(now))
    }
}

/// The same certificates.
impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        let fingerprints = |roots: &Self| roots.certificates().map(|facts| facts.fingerprint).collect::<Vec<_>>();
        fingerprints(self) == fingerprints(other)
    }
}

impl Eq for Roots {}

fn root(certificate: &CertificateDer<'static>, now: SystemTime) -> Result<Root, String> {
    let facts = CertificateFacts::read(certificate)?;
    if !facts.is_ca {
        return Err(format!("{} is not a CA", facts.name()));
    }
    if facts.is_expired_at(now) {
        return Err(format!("{} expired at {}", facts.name(), super::certificate::utc(facts.not_after)));
    }
    let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(|error| format!("{}: {error}", facts.name()))?;
    Ok(Root { anchor: Arc::new(anchor.to_owned()), facts })
}
