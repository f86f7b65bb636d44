//! The one verifier of peers by SPIFFE ID: of those that answer us, and of those that ask ([`Admission`](super::Admission)).
//! It runs inside the handshake and fails closed.
//!
//! The order of its questions: is the leaf in the form of an SVID; do we have roots for the trust domain it claims; does
//! it chain to them, for its role, now; is it an identity that may answer or ask. Until the chain is verified a claimed
//! identity is shown as `(unverified)` only. There is no permissive variant, not even for diagnosis: the refusal
//! itself carries what was seen.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use super::certificate::{CertificateFacts, PublicKey, utc};
use super::credentials::{Credentials, OwnIdentity};
use super::refusal::refuse;
use super::svid::{Role, Svid, SvidFault};
use crate::clock::Clock;
use crate::model::{Acceptance, Alpn, Failure, Peer, PeerReport, Reason, SpiffeId};

/// How many of the certificates that a peer sends are shown; a chain of a mesh has two to four.
const SHOWN_CERTIFICATES: usize = 10;

/// What may be so where the same path answers in a trust domain that is not known.
const ALIAS: &str = "if the trust domain that answered is another name of this mesh, add it to trust_domain_aliases of the \
                     job's tls_config.spiffe";

/// The cryptography of every TLS connection this program makes.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// One handshake in the making: a configuration to connect with, and afterwards what was verified in it.
#[derive(Debug)]
pub struct Handshake {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

impl Handshake {
    pub(super) fn prepare(
        credentials: &Credentials,
        own: Option<&OwnIdentity>,
        peer: &Peer,
        clock: &Clock,
    ) -> Result<Self, Failure> {
        let provider = crypto_provider();
        let verifier = Arc::new(Verifier::new(credentials, peer, Role::Server));
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Now(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Reason::TlsHandshake, format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>);
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.key)))),
            None => builder.with_no_client_auth(),
        };
        // A resumed session would not ask the verifier, and early data would leave before anybody is verified.
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// The same with these protocols in the greeting; without, none are.
    pub fn offering(mut self, alpn: &Alpn) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = alpn.names().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// The configuration to connect with, once.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// A name for rustls, which asks for one: it is neither sent nor compared with anything.
    pub fn server_name(&self) -> ServerName<'static> {
        ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
    }

    /// What was verified, after the handshake has succeeded. A connection that the verifier was not asked about is
    /// `tls_handshake`.
    pub fn verified(self, connection: &ClientConnection) -> Result<Verified, Failure> {
        let verdict = self.verifier.take_verdict()?;
        let certificates = connection.peer_certificates().unwrap_or_default();
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        let report = PeerReport {
            identity: verdict.id.to_string(),
            exact: verdict.exact,
            tls_version: version.to_owned(),
            // rustls names the suites of TLS 1.3 with a prefix of its own.
            cipher: suite.replacen("TLS13_", "TLS_", 1),
            not_after: verdict.not_after,
            chain: certificates.iter().take(SHOWN_CERTIFICATES).map(describe).collect(),
        };
        let unreadable = |error| Failure::new(Reason::TlsHandshake, error);
        let (key, leaf) = match certificates.first() {
            Some(leaf) => (PublicKey::of(leaf).map_err(unreadable)?, CertificateFacts::read(leaf).map_err(unreadable)?),
            None => return Err(Failure::new(Reason::TlsHandshake, "BUG: a peer was verified without a certificate")),
        };
        let generation = self.verifier.credentials.generation;
        let overdue_after = leaf.overdue_after();
        Ok(Verified { verdict, key, overdue_after, peer: self.verifier.peer.clone(), generation, report })
    }
}

/// What stands behind an open connection: who answered, vouched for by what, until when.
#[derive(Clone, Debug)]
pub struct Verified {
    verdict: Verdict,
    key: PublicKey,
    overdue_after: SystemTime,
    peer: Peer,
    generation: u64,
    report: PeerReport,
}

impl Verified {
    /// For people.
    pub fn report(&self) -> &PeerReport {
        &self.report
    }

    /// Who answered.
    pub fn id(&self) -> &SpiffeId {
        &self.verdict.id
    }

    /// The key that it proved to hold. Replicas of one workload have one identity, but each its own key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// From when on its certificate should have been renewed: [`CertificateFacts::overdue_after`].
    pub fn overdue_after(&self) -> SystemTime {
        self.overdue_after
    }

    /// Who had to answer.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The end of the first certificate of the verified chain, its root included.
    pub fn not_after(&self) -> SystemTime {
        self.verdict.not_after
    }

    /// The generation of the credentials that verified it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.verdict.anchor
    }
}

/// A peer that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) id: SpiffeId,
    exact: bool,
    pub(super) not_after: SystemTime,
    anchor: Arc<TrustAnchor<'static>>,
}

pub(super) struct Verifier {
    credentials: Credentials,
    peer: Peer,
    role: Role,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: Mutex<Option<Verdict>>,
}

impl Verifier {
    /// For one handshake, in which `peer` has this role.
    pub(super) fn new(credentials: &Credentials, peer: &Peer, role: Role) -> Self {
        Self {
            credentials: credentials.clone(),
            peer: peer.clone(),
            role,
            algorithms: crypto_provider().signature_verification_algorithms,
            verdict: Mutex::default(),
        }
    }

    /// What was decided, once, after the handshake has succeeded.
    pub(super) fn take_verdict(&self) -> Result<Verdict, Failure> {
        let verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        verdict
            .ok_or_else(|| Failure::new(Reason::TlsHandshake, "BUG: the handshake ended without a verdict on the peer"))
    }

    /// Decides on a peer, and keeps the decision for [`Verifier::take_verdict`].
    pub(super) fn accept(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let verdict = self.decide(leaf, intermediates, now);
        let verdict = verdict.map_err(|failure| {
            let sent = std::iter::once(leaf).chain(intermediates).take(SHOWN_CERTIFICATES);
            refuse(failure.expecting(&self.peer).sending(sent.map(describe).collect()))
        })?;
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        Ok(())
    }

    /// The whole decision on a peer.
    fn decide(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Verdict, Failure> {
        let svid = Svid::read(leaf, self.role).map_err(misshapen)?;
        let acceptance = self.peer.judge(&svid.id);
        if !self.credentials.covers(svid.id.trust_domain()) {
            return Err(self.foreign_domain(&svid.id, acceptance));
        }
        let (not_after, anchor) = self.verify_chain(leaf, intermediates, &svid, now)?;
        let exact = match acceptance {
            Acceptance::Exact => true,
            Acceptance::Weaker => false,
            Acceptance::Refused => {
                let detail = format!("expected {}, but {} {}", self.peer, svid.id, self.role.did());
                return Err(Failure::new(Reason::IdentityMismatch, detail).presenting(svid.id.as_str()));
            }
        };
        Ok(Verdict { id: svid.id, exact, not_after, anchor })
    }

    /// Builds the chain to the roots that are valid now; gives its earliest end and its anchor.
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        svid: &Svid,
        now: UnixTime,
    ) -> Result<(SystemTime, Arc<TrustAnchor<'static>>), Failure> {
        let wall = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let anchors = self.credentials.roots.valid_at(wall);
        let leaf = EndEntityCert::try_from(leaf)
            .map_err(|error| misshapen(SvidFault::Form(format!("it cannot be used: {error}"))))?;
        let usage = match self.role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let build = |time: UnixTime| {
            leaf.verify_for_usage(self.algorithms.all, &anchors, intermediates, time, usage, None, None)
        };
        let path = build(now).map_err(|error| {
            // An expired leaf is reported before anybody looked at its signature. Whether it is one of ours at all is
            // the better answer, so the chain is built once more at a time when the leaf was valid, to choose words.
            let error = match error {
                webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                    build(within(now, svid)).err().filter(is_unknown_authority).unwrap_or(error)
                }
                other => other,
            };
            self.broken_chain(svid, &error, wall)
        })?;
        let (anchor, mut not_after) = self
            .credentials
            .roots
            .find(path.anchor(), wall)
            .ok_or_else(|| self.broken_chain(svid, &webpki::Error::UnknownIssuer, wall))?;
        not_after = not_after.min(svid.not_after);
        for intermediate in path.intermediate_certificates() {
            let facts = CertificateFacts::read(&intermediate.der()).map_err(|error| {
                Failure::new(
                    Reason::UnknownAuthority,
                    format!("an intermediate certificate of the peer cannot be read: {error}"),
                )
            })?;
            not_after = not_after.min(facts.not_after);
        }
        Ok((not_after, anchor))
    }

    fn broken_chain(&self, svid: &Svid, error: &webpki::Error, now: SystemTime) -> Failure {
        let id = &svid.id;
        let domain = id.trust_domain();
        let (reason, detail) = match error {
            error if is_unknown_authority(error) => {
                let why = match error {
                    webpki::Error::UnknownIssuer => "its issuer is none of them".to_owned(),
                    other => format!("{other}"),
                };
                let count = self.credentials.roots.valid_at(now).len();
                (
                    Reason::UnknownAuthority,
                    format!("a certificate that claims {id} does not chain to the {count} root(s) of {domain}: {why}"),
                )
            }
            webpki::Error::CertExpired { not_after, .. } => {
                let whose = if now > svid.not_after {
                    "the peer's certificate"
                } else {
                    "an intermediate certificate of the peer"
                };
                let ended = utc(UNIX_EPOCH + Duration::from_secs(not_after.as_secs()));
                (Reason::CertificateExpired, format!("{whose} expired at {ended}; it claims {id}"))
            }
            webpki::Error::CertNotValidYet { not_before, .. } => {
                let begins = utc(UNIX_EPOCH + Duration::from_secs(not_before.as_secs()));
                (
                    Reason::CertificateNotYetValid,
                    format!("the peer's certificate is valid from {begins} only; it claims {id}"),
                )
            }
            other => {
                (Reason::UnknownAuthority, format!("the chain of a certificate that claims {id} is refused: {other}"))
            }
        };
        Failure::new(reason, detail).presenting(&unverified(id))
    }

    fn foreign_domain(&self, id: &SpiffeId, acceptance: Acceptance) -> Failure {
        let domain = id.trust_domain();
        let failure = match acceptance {
            // We want somebody for whom we have no roots: that is our own configuration, not the peer's fault.
            Acceptance::Exact | Acceptance::Weaker => Failure::new(
                Reason::UnknownAuthority,
                format!("there are no roots for trust domain {domain}, so nobody can prove to be {id}"),
            )
            .mended_by(ALIAS),
            Acceptance::Refused => Failure::new(
                Reason::IdentityMismatch,
                format!(
                    "expected {}, but a certificate {} that claims {id}, of the unknown trust domain {domain} (unverified)",
                    self.peer,
                    self.role.did()
                ),
            ),
        };
        let is_namesake = self.peer.accepted().iter().any(|own| own.in_domain(domain) == *id);
        let failure = if is_namesake && acceptance == Acceptance::Refused { failure.advising(ALIAS) } else { failure };
        failure.presenting(&unverified(id))
    }
}

impl Role {
    /// What a peer in this role did.
    fn did(self) -> &'static str {
        match self {
            Role::Server => "answered",
            Role::Client => "asked",
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.accept(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
            .map_err(not_the_holder)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .map_err(not_the_holder)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Verifier({})", self.peer)
    }
}

/// rustls' view of our clock.
#[derive(Debug)]
pub(super) struct Now(pub(super) Clock);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// `now`, moved into the validity of the leaf.
fn within(now: UnixTime, svid: &Svid) -> UnixTime {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let moved = now.as_secs().min(seconds(svid.not_after)).max(seconds(svid.not_before));
    UnixTime::since_unix_epoch(Duration::from_secs(moved))
}

/// The errors that mean "not made by our CA". A leaf of another mesh often finds a root of the right name and fails
/// only at the signature, because every self-signed Istio root of one trust domain has the same name.
fn is_unknown_authority(error: &webpki::Error) -> bool {
    matches!(
        error,
        webpki::Error::UnknownIssuer
            | webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
    )
}

fn misshapen(fault: SvidFault) -> Failure {
    let (reason, what) = match fault {
        SvidFault::NoUri(_) => (Reason::NoSpiffeId, "names no workload"),
        SvidFault::Form(_) => (Reason::InvalidSvid, "is not in the form of an SVID"),
    };
    Failure::new(reason, format!("the peer's certificate (chain not verified) {what}: {fault}"))
}

fn not_the_holder(error: rustls::Error) -> rustls::Error {
    let detail = format!("the peer did not prove that it holds the key of its certificate: {error}");
    refuse(Failure::new(Reason::TlsHandshake, detail))
}

fn unverified(id: &SpiffeId) -> String {
    format!("{id} (unverified)")
}

fn describe(certificate: &CertificateDer<'_>) -> String {
    match CertificateFacts::read(certificate) {
        Ok(facts) => facts.to_string(),
        Err(error) => format!("unreadable: {error}"),
    }
}
