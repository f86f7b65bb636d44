//! SPIFFE IDs, and the question "is this the one we want?".
//!
//! An ID that exists is well-formed by the SPIFFE ID specification (section 2): scheme `spiffe` in lower case, a trust
//! domain of `[a-z0-9._-]`, a path of non-empty segments of `[A-Za-z0-9._-]` that are not `.` or `..`, at most 2048
//! bytes, nothing else. Comparison is by bytes: nothing is folded, decoded or trimmed, because two spellings of one
//! identity are how a check is talked round.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// The greatest length of an ID in bytes (SPIFFE ID specification, section 2.3).
const MAX_ID_BYTES: usize = 2048;
/// The greatest length of a trust domain in bytes (SPIFFE ID specification, section 2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The name of a trust domain, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// Why a text is not a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrustDomainError {
    /// Nothing there.
    #[error("the trust domain is empty")]
    Empty,
    /// A character outside `[a-z0-9._-]`.
    #[error("{0:?} may not stand in a trust domain: only a-z, 0-9, '.', '-' and '_' may")]
    Character(char),
    /// Over 255 bytes.
    #[error("the trust domain has {0} bytes, at most {MAX_TRUST_DOMAIN_BYTES} are allowed")]
    TooLong(usize),
}

impl TrustDomain {
    /// Parses a bare trust domain, without `spiffe://`.
    pub fn parse(text: &str) -> Result<Self, TrustDomainError> {
        if text.is_empty() {
            return Err(TrustDomainError::Empty);
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(TrustDomainError::TooLong(text.len()));
        }
        match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
            Some(bad) => Err(TrustDomainError::Character(bad)),
            None => Ok(Self(text.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TrustDomain({})", self.0)
    }
}

/// The identity of a workload, such as `spiffe://cluster.local/ns/shop/sa/cart`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

/// Why a text is not a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    /// Does not begin with `spiffe://`, in lower case.
    #[error("it does not begin with \"spiffe://\"")]
    Scheme,
    /// The trust domain is wrong.
    #[error(transparent)]
    TrustDomain(#[from] TrustDomainError),
    /// No path: that names a trust domain, not a workload.
    #[error("it has no path, so it names a trust domain and no workload")]
    NoPath,
    /// An empty segment, a trailing slash, `.` or `..`.
    #[error("the path segment {0:?} is not allowed")]
    Segment(String),
    /// A character outside `[A-Za-z0-9._-]` in the path.
    #[error("{0:?} may not stand in the path: only a-z, A-Z, 0-9, '.', '-' and '_' may")]
    Character(char),
    /// Over 2048 bytes.
    #[error("it has {0} bytes, at most {MAX_ID_BYTES} are allowed")]
    TooLong(usize),
}

impl SpiffeId {
    /// Parses the ID of a workload; an ID without a path is refused.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let trust_domain = TrustDomain::parse(domain)?;
        let Some(path) = path.strip_prefix('/') else { return Err(SpiffeIdError::NoPath) };
        for segment in path.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(SpiffeIdError::Segment(segment.to_owned()));
            }
            if let Some(bad) = segment.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
                return Err(SpiffeIdError::Character(bad));
            }
        }
        Ok(Self { text: text.into(), trust_domain })
    }

    /// Istio's form of a service account's identity. Each name is one segment of the path.
    pub fn of_service_account(domain: &TrustDomain, namespace: &str, account: &str) -> Result<Self, SpiffeIdError> {
        if namespace.contains('/') || account.contains('/') {
            return Err(SpiffeIdError::Character('/'));
        }
        Self::parse(&format!("spiffe://{domain}/ns/{namespace}/sa/{account}"))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain: it alone decides which roots may vouch for this ID.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path, with its leading slash.
    pub fn path(&self) -> &str {
        &self.text["spiffe://".len() + self.trust_domain.as_str().len()..]
    }

    /// The namespace, if the path is exactly Istio's `/ns/<namespace>/sa/<account>`.
    pub fn namespace(&self) -> Option<&str> {
        let mut segments = self.path()[1..].split('/');
        match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("ns"), Some(namespace), Some("sa"), Some(_), None) => Some(namespace),
            _ => None,
        }
    }

    /// The same path in another trust domain.
    pub fn in_domain(&self, domain: &TrustDomain) -> Self {
        Self { text: format!("spiffe://{domain}{}", self.path()).into(), trust_domain: domain.clone() }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SpiffeId({})", self.text)
    }
}

/// How much of the expected identity must agree. The weaker ones are named for what they give up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Match {
    /// The whole ID, byte for byte.
    #[default]
    Exact,
    /// Trust domain and namespace: any service account of the namespace may answer.
    Namespace,
    /// The trust domain: any workload of it may answer.
    TrustDomain,
}

impl Match {
    /// Every one of them.
    pub const ALL: [Match; 3] = [Match::Exact, Match::Namespace, Match::TrustDomain];

    /// Its name, as in the file and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Match::Exact => "exact",
            Match::Namespace => "namespace",
            Match::TrustDomain => "trust_domain",
        }
    }
}

/// Who must answer: the identities that are accepted, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    accepted: Vec<SpiffeId>,
    rule: Match,
}

/// The outcome of comparing a presented identity with the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Byte for byte one of the accepted identities.
    Exact,
    /// Accepted only because the job's `match` asks for less than the whole ID.
    Weaker,
    /// Somebody else.
    Refused,
}

impl Peer {
    /// Exactly this identity.
    pub fn exactly(id: SpiffeId) -> Self {
        Self { accepted: vec![id], rule: Match::Exact }
    }

    /// This identity in its own trust domain or in one of its `aliases` (the same CA under other names), compared
    /// by `rule`.
    pub fn with_aliases(id: SpiffeId, aliases: &[TrustDomain], rule: Match) -> Self {
        let mut accepted = vec![id];
        for alias in aliases {
            let other = accepted[0].in_domain(alias);
            if !accepted.contains(&other) {
                accepted.push(other);
            }
        }
        Self { accepted, rule }
    }

    /// Any one of `ids`, exactly; `None` if there is none to accept.
    pub fn any_of(ids: Vec<SpiffeId>) -> Option<Self> {
        if ids.is_empty() { None } else { Some(Self { accepted: ids, rule: Match::Exact }) }
    }

    /// The identity that is asked for first; the others are its aliases or alternatives.
    pub fn expected(&self) -> &SpiffeId {
        &self.accepted[0]
    }

    /// All identities that are accepted exactly.
    pub fn accepted(&self) -> &[SpiffeId] {
        &self.accepted
    }

    /// How much must agree.
    pub fn rule(&self) -> Match {
        self.rule
    }

    /// Whether a peer that presents `id` is the one we want.
    pub fn judge(&self, id: &SpiffeId) -> Acceptance {
        if self.accepted.contains(id) {
            return Acceptance::Exact;
        }
        let weaker = self.accepted.iter().any(|own| match self.rule {
            Match::Exact => false,
            Match::Namespace => {
                own.trust_domain() == id.trust_domain()
                    && own.namespace().is_some()
                    && own.namespace() == id.namespace()
            }
            Match::TrustDomain => own.trust_domain() == id.trust_domain(),
        });
        if weaker { Acceptance::Weaker } else { Acceptance::Refused }
    }
}

/// What was asked for, in words for a person.
impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Match::Exact => write!(out, "{}", self.expected())?,
            Match::Namespace => write!(out, "any service account of the namespace of {}", self.expected())?,
            Match::TrustDomain => write!(out, "any workload of {}", self.expected().trust_domain())?,
        }
        match self.accepted.len() {
            1 => Ok(()),
            n => write!(out, " (or {} more)", n - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).expect(text)
    }

    #[test]
    fn well_formed_ids() {
        let cart = id("spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(cart.trust_domain().as_str(), "cluster.local");
        assert_eq!(cart.path(), "/ns/shop/sa/cart");
        assert_eq!(cart.namespace(), Some("shop"));
        assert_eq!(id("spiffe://td/a").namespace(), None);
        assert_eq!(id("spiffe://td/ns/a/sa/x/y").namespace(), None);
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let long = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES));
        for bad in [
            "",
            "spiffe:/td/a",
            "SPIFFE://td/a",
            "https://td/a",
            "spiffe://TD/a",
            "spiffe://td",
            "spiffe://td/",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/a/",
            "spiffe://td//a",
            "spiffe://td/./a",
            "spiffe://td/a/..",
            "spiffe://td:1/a",
            "spiffe://u@td/a",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://td/%41",
            "spiffe://td/ä",
            " spiffe://td/a",
            "spiffe://td/a\n",
            "spiffe://td/a\0",
            &long,
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn what_we_accept_the_reference_implementation_accepts() {
        for text in ["spiffe://cluster.local/ns/a/sa/b", "spiffe://a_b-c.d/x", "spiffe://td/A.b_c-9/..."] {
            let theirs = spiffe::SpiffeId::new(text).expect(text);
            assert_eq!(theirs.to_string(), id(text).as_str());
        }
    }

    #[test]
    fn exact_accepts_neither_prefix_nor_suffix() {
        let peer = Peer::exactly(id("spiffe://td/ns/shop/sa/cart"));
        assert_eq!(peer.judge(&id("spiffe://td/ns/shop/sa/cart")), Acceptance::Exact);
        for other in [
            "spiffe://td/ns/shop/sa/car",
            "spiffe://td/ns/shop/sa/cart2",
            "spiffe://td/ns/shop/sa/cart/x",
            "spiffe://td/x/ns/shop/sa/cart",
            "spiffe://td2/ns/shop/sa/cart",
            "spiffe://td/ns/shop/sa/Cart",
        ] {
            assert_eq!(peer.judge(&id(other)), Acceptance::Refused, "{other}");
        }
    }

    #[test]
    fn namespace_compares_whole_segments() {
        let peer = Peer::with_aliases(id("spiffe://td/ns/a/sa/x"), &[], Match::Namespace);
        assert_eq!(peer.judge(&id("spiffe://td/ns/a/sa/y")), Acceptance::Weaker);
        assert_eq!(peer.judge(&id("spiffe://td/ns/a/sa/x")), Acceptance::Exact);
        for other in ["spiffe://td/ns/ab/sa/x", "spiffe://td/ns/a/sa/x/y", "spiffe://td2/ns/a/sa/x", "spiffe://td/a"] {
            assert_eq!(peer.judge(&id(other)), Acceptance::Refused, "{other}");
        }
        let spire = Peer::with_aliases(id("spiffe://td/a/b"), &[], Match::Namespace);
        assert_eq!(spire.judge(&id("spiffe://td/a/c")), Acceptance::Refused, "no namespace on either side is no match");
    }

    #[test]
    fn aliases_keep_the_path() {
        let alias = TrustDomain::parse("old.example").expect("valid");
        let peer = Peer::with_aliases(id("spiffe://td/ns/a/sa/x"), &[alias], Match::Exact);
        assert_eq!(peer.judge(&id("spiffe://old.example/ns/a/sa/x")), Acceptance::Exact);
        assert_eq!(peer.judge(&id("spiffe://old.example/ns/a/sa/y")), Acceptance::Refused);
    }
}
