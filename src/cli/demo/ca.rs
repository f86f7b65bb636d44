//! A certificate authority in memory that issues what Istio's would: an X.509-SVID with an empty subject and one
//! critical URI SAN, signed by a root that says no more than its trust domain.
//!
//! Every root of a trust domain carries the same subject, as Istio's self-signed roots do, so that only the signature
//! tells an old root from a new one. Nothing here touches the disk or a socket.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use crate::clock::Clock;
use crate::model::{SpiffeId, TrustDomain};

/// How far a leaf's validity begins before now, against clocks that disagree; Istio's own allowance.
const BACKDATED: Duration = Duration::from_secs(120);
/// How long a root lives. It is never written anywhere but to the bundles of one run.
const ROOT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// One root with its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    clock: Clock,
}

/// A key and the certificate for it, as OUTPUT_CERTS writes them.
pub(super) struct Issued {
    /// The private key, PKCS#8.
    pub(super) key_pem: String,
    /// The leaf, then the root that signed it.
    pub(super) chain_pem: String,
}

impl Authority {
    /// Makes a new self-signed root for `domain`.
    pub(super) fn new(domain: &TrustDomain, clock: Clock) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (clock.now() - BACKDATED).into();
        params.not_after = (clock.now() + ROOT_LIFETIME).into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), root_pem, clock })
    }

    /// The root certificate.
    pub(super) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Issues a leaf over a fresh key to `id`, valid from two minutes ago and for `lifetime` from now.
    pub(super) fn issue(&self, id: &SpiffeId, lifetime: Duration) -> Result<Issued, rcgen::Error> {
        let mut params = CertificateParams::default();
        // rcgen marks the SAN critical exactly where the subject is empty, as RFC 5280 demands and Istio does.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (self.clock.now() - BACKDATED).into();
        params.not_after = (self.clock.now() + lifetime).into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { key_pem: key.serialize_pem(), chain_pem: leaf.pem() + &self.root_pem })
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

    use super::*;

    #[test]
    fn a_leaf_has_the_form_that_istio_gives_it() {
        let domain = TrustDomain::parse("cluster.local").expect("valid");
        let id = SpiffeId::of_service_account(&domain, "shop", "cart").expect("valid");
        let authority = Authority::new(&domain, Clock::system()).expect("root");
        let issued = authority.issue(&id, Duration::from_secs(30)).expect("leaf");

        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>().expect("pem");
        assert_eq!(chain.len(), 2, "leaf and root");
        let (_, leaf) = X509Certificate::from_der(&chain[0]).expect("leaf");
        let (_, root) = X509Certificate::from_der(&chain[1]).expect("root");
        assert_eq!(leaf.subject().iter().count(), 0);
        assert_eq!(root.subject().to_string(), "O=cluster.local");

        let san = leaf.subject_alternative_name().expect("one").expect("present");
        assert!(san.critical);
        assert!(matches!(san.value.general_names[..], [GeneralName::URI(uri)] if uri == id.as_str()));
        let usage = leaf.key_usage().expect("one").expect("present");
        assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
        assert!(!usage.value.key_cert_sign());
        let purpose = leaf.extended_key_usage().expect("one").expect("present").value;
        assert!(purpose.server_auth && purpose.client_auth);
        let constraints = leaf.basic_constraints().expect("one").expect("present");
        assert!(constraints.critical && !constraints.value.ca);
        assert!(
            leaf.extensions()
                .iter()
                .any(|extension| matches!(extension.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_)))
        );
        let lifetime = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(lifetime, 150, "two minutes back, thirty seconds ahead");
    }
}
