//! The other side of a handshake: whoever asks us must prove one of the identities that may.
//!
//! The decision is the one verifier's ([`verify`](super::verify)), asked about a client; here rustls is told to want a
//! certificate and to ask it. What always holds: nobody comes in without a certificate, and no session is resumed, because that
//! would not ask.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier as _};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::credentials::Credentials;
use super::svid::Role;
use super::verify::{Now, Verifier, crypto_provider};
use crate::clock::Clock;
use crate::model::{Failure, Peer, Reason, SpiffeId};

/// One handshake with a client: a configuration to accept with, and afterwards who it was.
#[derive(Debug)]
pub struct Admission {
    config: Arc<ServerConfig>,
    verifier: Arc<Verifier>,
}

impl Credentials {
    /// Prepares one handshake in which only clients that are `allowed` are let in: TLS 1.2 or 1.3, our own certificate shown,
    /// no resumption, no early data.
    ///
    /// # Errors
    /// Where own certificate or roots are missing; the reasons are those of [`Credentials::ready`].
    pub fn admission(&self, allowed: &Peer, clock: &Clock) -> Result<Admission, Failure> {
        self.ready(clock.now())?;
        let own = self.own_at(clock.now())?;
        let verifier = Arc::new(Verifier::new(self, allowed, Role::Client));
        let asks = Arc::new(Clients(Arc::clone(&verifier)));
        let mut config = ServerConfig::builder_with_details(crypto_provider(), Arc::new(Now(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Reason::TlsHandshake, format!("TLS cannot be set up: {error}")))?
            .with_client_cert_verifier(asks)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.key))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Admission { config: Arc::new(config), verifier })
    }
}

impl Admission {
    /// The configuration to accept with, once.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Who was let in, after the handshake has succeeded, and the end of the first certificate of the verified chain.
    ///
    /// # Errors
    /// `tls_handshake` for a connection that the verifier was not asked about.
    pub fn client(self) -> Result<(SpiffeId, SystemTime), Failure> {
        self.verifier.take_verdict().map(|verdict| (verdict.id, verdict.not_after))
    }
}

/// rustls' questions about clients, passed on.
#[derive(Debug)]
struct Clients(Arc<Verifier>);

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client of a mesh has one certificate; a hint could only make it keep that back.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.accept(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
