//! A certificate authority of a mesh: good leaves as Istio makes them, leaves wrong in each way that must be refused,
//! and certificate directories written in Istio's order.
//!
//! Times are seconds from now, negative before it. The subject alternative names are encoded by hand, because no
//! library makes the wrong ones.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meshscrape::clock::Clock;
use meshscrape::config::CertificateFiles;
use meshscrape::identity::crypto_provider;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// One hour, in seconds.
pub(crate) const HOUR: i64 = 3600;

/// A root or an intermediate that issues certificates.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    key_pem: String,
    name: String,
    certificate: CertificateDer<'static>,
    /// The certificates a leaf sends after itself: intermediates up to and without the root.
    above: Vec<CertificateDer<'static>>,
}

impl Ca {
    /// A self-signed root, valid for ten hours; `name` is its organisation, the trust domain in Istio.
    pub(crate) fn new(name: &str) -> Self {
        Self::valid(name, -HOUR, 10 * HOUR)
    }

    /// A self-signed root with a validity.
    pub(crate) fn valid(name: &str, from: i64, until: i64) -> Self {
        Self::root(name, key_pair(), from, until)
    }

    /// Another root certificate over the same key and name, as istiod's rotator of its own root makes it.
    pub(crate) fn reissued(&self, from: i64, until: i64) -> Self {
        Self::root(&self.name, KeyPair::from_pem(&self.key_pem).expect("our own key"), from, until)
    }

    fn root(name: &str, key: KeyPair, from: i64, until: i64) -> Self {
        let params = ca_params(name, from, until);
        let certificate = params.self_signed(&key).expect("a root").der().clone();
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), key_pem, name: name.to_owned(), certificate, above: Vec::new() }
    }

    /// An intermediate under this one.
    pub(crate) fn intermediate(&self, name: &str, from: i64, until: i64) -> Self {
        let key = key_pair();
        let params = ca_params(name, from, until);
        let certificate = params.signed_by(&key, &self.issuer).expect("an intermediate").der().clone();
        let mut above = vec![certificate.clone()];
        above.extend(self.above.iter().cloned());
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), key_pem, name: name.to_owned(), certificate, above }
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its own certificate in PEM form.
    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// A good leaf for a SPIFFE ID, as Istio makes it.
    pub(crate) fn leaf(&self, id: &str) -> Leaf {
        self.issue(&LeafSpec::of(id))
    }

    /// Any leaf.
    pub(crate) fn issue(&self, spec: &LeafSpec) -> Leaf {
        let key = KeyPair::generate_for(spec.algorithm).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &spec.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        (params.not_before, params.not_after) = (moment(spec.from), moment(spec.until));
        params.is_ca = if spec.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages.clone_from(&spec.key_usages);
        params.extended_key_usages.clone_from(&spec.extended_key_usages);
        params.use_authority_key_identifier_extension = true;
        for names in &spec.names {
            let mut san = CustomExtension::from_oid_content(&[2, 5, 29, 17], san_der(names));
            san.set_criticality(true);
            params.custom_extensions.push(san);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a leaf").der().clone();
        let mut chain = vec![certificate];
        chain.extend(self.above.iter().cloned());
        Leaf { chain, key }
    }
}

/// What a leaf is to say.
#[derive(Clone, Debug)]
pub(crate) struct LeafSpec {
    /// The names of each subject alternative name extension; a good leaf has one.
    pub(crate) names: Vec<Vec<Name>>,
    /// From when, in seconds from now.
    pub(crate) from: i64,
    /// Until when.
    pub(crate) until: i64,
    pub(crate) common_name: Option<String>,
    pub(crate) is_ca: bool,
    pub(crate) key_usages: Vec<KeyUsagePurpose>,
    pub(crate) extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) algorithm: &'static rcgen::SignatureAlgorithm,
}

/// One subject alternative name.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Uri(Vec<u8>),
    Dns(String),
    Ip(IpAddr),
}

impl LeafSpec {
    /// Istio's form.
    pub(crate) fn of(id: &str) -> Self {
        Self::named(vec![Name::uri(id)])
    }

    /// Istio's form with these names instead.
    pub(crate) fn named(names: Vec<Name>) -> Self {
        Self {
            names: vec![names],
            from: -120,
            until: HOUR,
            common_name: None,
            is_ca: false,
            key_usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
            extended_key_usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }

    /// No subject alternative name extension at all.
    pub(crate) fn nameless() -> Self {
        Self { names: Vec::new(), ..Self::named(Vec::new()) }
    }

    /// With another validity.
    pub(crate) fn valid(self, from: i64, until: i64) -> Self {
        Self { from, until, ..self }
    }
}

impl Name {
    pub(crate) fn uri(text: &str) -> Self {
        Name::Uri(text.as_bytes().to_vec())
    }

    pub(crate) fn dns(text: &str) -> Self {
        Name::Dns(text.to_owned())
    }
}

/// Each leaf that must be refused although the right CA made it, for a verifier that expects `id`: a name, the leaf, and
/// the reason that must come out.
pub(crate) fn refused_leaves(ca: &Ca, id: &str) -> Vec<(&'static str, Leaf, meshscrape::model::Reason)> {
    use meshscrape::model::Reason;
    let good = LeafSpec::of(id);
    let named = |names: Vec<Name>| LeafSpec::named(names);
    let other = |text: String| LeafSpec::of(&text);
    let domain_end = "spiffe://".len() + id["spiffe://".len()..].find('/').expect("a path");
    let (domain, path) = id.split_at(domain_end);
    let usages = |key_usages: Vec<KeyUsagePurpose>| LeafSpec { key_usages, ..good.clone() };
    let mut not_utf8 = id.as_bytes().to_vec();
    not_utf8.push(0xff);
    let (signature, cert_sign, crl_sign) =
        (KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign);
    let table = vec![
        ("another service account", other(format!("{domain}/ns/shop/sa/somebody-else")), Reason::IdentityMismatch),
        ("the id and more", other(format!("{id}2")), Reason::IdentityMismatch),
        ("the id and a segment more", other(format!("{id}/x")), Reason::IdentityMismatch),
        ("the id without its end", other(id[..id.len() - 1].to_owned()), Reason::IdentityMismatch),
        ("the id behind something", other(format!("{domain}/x{path}")), Reason::IdentityMismatch),
        ("the id in other case", other(format!("{domain}{}", path.to_uppercase())), Reason::IdentityMismatch),
        ("another trust domain", other(format!("spiffe://evil.example{path}")), Reason::IdentityMismatch),
        ("a trust domain that begins alike", other(format!("{domain}.evil.example{path}")), Reason::IdentityMismatch),
        ("expired", good.clone().valid(-2 * HOUR, -HOUR), Reason::CertificateExpired),
        ("not yet valid", good.clone().valid(HOUR, 2 * HOUR), Reason::CertificateNotYetValid),
        ("no names", LeafSpec::nameless(), Reason::NoSpiffeId),
        ("a host name only", named(vec![Name::dns("cart.shop.svc")]), Reason::NoSpiffeId),
        ("an address only", named(vec![Name::Ip([127, 0, 0, 1].into())]), Reason::NoSpiffeId),
        ("two URIs", named(vec![Name::uri(id), Name::uri("spiffe://cluster.local/x")]), Reason::InvalidSvid),
        ("the same URI twice", named(vec![Name::uri(id), Name::uri(id)]), Reason::InvalidSvid),
        ("a second URI that is not UTF-8", named(vec![Name::uri(id), Name::Uri(not_utf8)]), Reason::InvalidSvid),
        (
            "two name extensions",
            LeafSpec { names: vec![vec![Name::uri(id)], vec![Name::dns("x")]], ..good.clone() },
            Reason::InvalidSvid,
        ),
        (
            "a URI of another scheme",
            named(vec![Name::uri("https://cluster.local/ns/shop/sa/cart")]),
            Reason::InvalidSvid,
        ),
        ("a scheme in capitals", other(id.replace("spiffe:", "SPIFFE:")), Reason::InvalidSvid),
        ("a trust domain only", other(domain.to_owned()), Reason::InvalidSvid),
        ("a slash at the end", other(format!("{id}/")), Reason::InvalidSvid),
        ("a NUL behind the id", other(format!("{id}\0")), Reason::InvalidSvid),
        ("a URI of 4 KiB", other(format!("{domain}/{}", "a".repeat(4096))), Reason::InvalidSvid),
        ("a CA", LeafSpec { is_ca: true, ..good.clone() }, Reason::InvalidSvid),
        ("no key usage", usages(vec![]), Reason::InvalidSvid),
        ("no digitalSignature", usages(vec![KeyUsagePurpose::KeyEncipherment]), Reason::InvalidSvid),
        ("keyCertSign", usages(vec![signature, cert_sign]), Reason::InvalidSvid),
        ("cRLSign", usages(vec![signature, crl_sign]), Reason::InvalidSvid),
        (
            "for clients only",
            LeafSpec { extended_key_usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..good.clone() },
            Reason::InvalidSvid,
        ),
    ];
    table.into_iter().map(|(name, spec, reason)| (name, ca.issue(&spec), reason)).collect()
}

/// A certificate with its chain and key.
pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Leaf {
    /// The key for rustls.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// The chain in PEM form, leaf first.
    pub(crate) fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
    }

    /// The key in PEM form, PKCS#8.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The key as Istio writes it by default: `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC1).
    pub(crate) fn traditional_key_pem(&self) -> String {
        let pkcs8 = self.key.serialize_der();
        let rsa = self.key.algorithm() == &rcgen::PKCS_RSA_SHA256;
        // PrivateKeyInfo ::= SEQUENCE { version, algorithm, OCTET STRING { the traditional key } }
        let (_, info) = der_value(&pkcs8);
        let (after_version, _) = der_value(info);
        let (after_algorithm, _) = der_value(after_version);
        let (_, inner) = der_value(after_algorithm);
        pem(if rsa { "RSA PRIVATE KEY" } else { "EC PRIVATE KEY" }, inner)
    }

    /// Shows this certificate whatever its form: rustls' own setter refuses some of the wrong ones.
    pub(crate) fn resolver(&self) -> SingleCertAndKey {
        let key = crypto_provider().key_provider.load_private_key(self.key()).expect("a key");
        CertifiedKey::new(self.chain.clone(), key).into()
    }

    /// A server that asks for no client certificate.
    pub(crate) fn open_server(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.resolver()));
        Arc::new(config)
    }

    /// A server that asks for a client certificate made by one of `clients`, as Envoy's secure listener does.
    pub(crate) fn server(&self, clients: &[&Ca], versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        for ca in clients {
            roots.add(ca.certificate().clone()).expect("a root");
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto_provider());
        let config = ServerConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_cert_resolver(Arc::new(self.resolver()));
        Arc::new(config)
    }
}

/// A directory as Istio's agent writes it (`OUTPUT_CERTS`): key, chain, root, each renamed into place.
pub(crate) struct CertsDir {
    path: PathBuf,
}

impl CertsDir {
    /// An existing directory, still empty.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn files(&self) -> CertificateFiles {
        CertificateFiles::in_dir(&self.path)
    }

    /// All three, in Istio's order.
    pub(crate) fn write(&self, leaf: &Leaf, roots: &[&Ca]) {
        self.write_leaf(leaf);
        self.write_roots(roots);
    }

    /// Key, then chain.
    pub(crate) fn write_leaf(&self, leaf: &Leaf) {
        self.put("key.pem", leaf.key_pem().as_bytes());
        self.put("cert-chain.pem", leaf.chain_pem().as_bytes());
    }

    pub(crate) fn write_roots(&self, roots: &[&Ca]) {
        let text: String = roots.iter().map(|ca| ca.pem()).collect();
        self.put("root-cert.pem", text.as_bytes());
    }

    /// Any bytes, by rename of a temporary file in the same directory.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let temporary = self.path.join(format!("{name}.tmp.{}", rand::random::<u32>()));
        std::fs::write(&temporary, bytes).expect("a temporary file");
        std::fs::rename(&temporary, self.path.join(name)).expect("a rename");
    }
}

/// One PEM section.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for group in der.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 0x3f;
            base64.push(if digit > group.len() { '=' } else { char::from(ALPHABET[value as usize]) });
        }
    }
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn key_pair() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn ca_params(name: &str, from: i64, until: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    (params.not_before, params.not_after) = (moment(from), moment(until));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn moment<T>(seconds_from_now: i64) -> T
where
    T: From<std::time::SystemTime>,
{
    let now = Clock::system().now();
    let distance = Duration::from_secs(seconds_from_now.unsigned_abs());
    T::from(if seconds_from_now >= 0 { now + distance } else { now - distance })
}

/// `GeneralNames` in DER, exactly as told.
fn san_der(names: &[Name]) -> Vec<u8> {
    let mut inside = Vec::new();
    for name in names {
        let (tag, bytes) = match name {
            Name::Uri(bytes) => (0x86, bytes.clone()),
            Name::Dns(text) => (0x82, text.as_bytes().to_vec()),
            Name::Ip(IpAddr::V4(ip)) => (0x87, ip.octets().to_vec()),
            Name::Ip(IpAddr::V6(ip)) => (0x87, ip.octets().to_vec()),
        };
        inside.extend(der_element(tag, &bytes));
    }
    der_element(0x30, &inside)
}

fn der_element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..128 => out.push(short as u8),
        long => {
            out.push(0x82);
            out.extend((long as u16).to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// What follows the first element, and what is inside it.
fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let (start, length) = match der[1] {
        short @ 0..0x80 => (2, usize::from(short)),
        long => {
            let digits = usize::from(long & 0x7f);
            (2 + digits, der[2..2 + digits].iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
        }
    };
    (&der[start + length..], &der[start..start + length])
}
