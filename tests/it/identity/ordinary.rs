//! TLS as usual: chain and host name, for jobs and receivers without SPIFFE IDs.

use std::fs;

use meshscrape::config::{ClientFiles, OrdinaryTls, TlsVersion};
use meshscrape::identity::ordinary_tls_config;

use super::*;

#[test]
fn the_host_name_and_the_chain_are_verified() {
    let home = Home::new();
    let now = (-120, HOUR);
    let table = [
        ("the right name", Name::dns("mimir.example"), now, None),
        ("another name", Name::dns("evil.example"), now, Some(Reason::HostNameMismatch)),
        ("a mesh certificate", Name::uri(CART), now, Some(Reason::HostNameMismatch)),
        ("expired", Name::dns("mimir.example"), (-2 * HOUR, -HOUR), Some(Reason::CertificateExpired)),
        ("not yet valid", Name::dns("mimir.example"), (HOUR, 2 * HOUR), Some(Reason::CertificateNotYetValid)),
    ];
    for (name, san, (from, until), reason) in table {
        let leaf = home.ca.issue(&LeafSpec::named(vec![san]).valid(from, until));
        assert_eq!(home.outcome(&home.settings(), &leaf), reason, "{name}");
    }
    let stranger = Ca::new("cluster.local").issue(&LeafSpec::named(vec![Name::dns("mimir.example")]));
    assert_eq!(home.outcome(&home.settings(), &stranger), Some(Reason::UnknownAuthority));
    // None of the system's roots made it either.
    let system = OrdinaryTls { ca_file: None, ..home.settings() };
    assert_eq!(home.outcome(&system, &stranger), Some(Reason::UnknownAuthority));
}

#[test]
fn only_the_configured_versions_are_spoken() {
    let home = Home::new();
    let only = |version| OrdinaryTls { min_version: Some(version), max_version: Some(version), ..home.settings() };
    for (settings, versions, spoken) in [
        (home.settings(), VERSIONS[0], true),
        (home.settings(), VERSIONS[1], true),
        (only(TlsVersion::Tls12), VERSIONS[0], true),
        (only(TlsVersion::Tls12), VERSIONS[1], false),
        (only(TlsVersion::Tls13), VERSIONS[0], false),
        (only(TlsVersion::Tls13), VERSIONS[1], true),
    ] {
        let leaf = home.ca.issue(&LeafSpec::named(vec![Name::dns("mimir.example")]));
        let config = ordinary_tls_config(&settings, &Clock::system()).expect("usable");
        let server = leaf.server(&[&home.ca], versions);
        assert_eq!(shake_with(Arc::new(config), host(), &server).is_ok(), spoken, "{settings:?}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let home = Home::new();
    let refused = |settings: OrdinaryTls| {
        let failure = ordinary_tls_config(&settings, &Clock::system()).expect_err("unusable");
        (failure.reason, failure.detail)
    };
    let missing = home.dir.path().join("missing.pem");
    let (reason, detail) = refused(OrdinaryTls { ca_file: Some(missing.clone()), ..home.settings() });
    assert_eq!(reason, Reason::UnknownAuthority);
    assert!(detail.contains("missing.pem does not exist"), "{detail}");
    let identity = Some(ClientFiles { chain: home.dir.path().join("chain.pem"), key: missing });
    let settings = OrdinaryTls { identity, ..home.settings() };
    let failure = ordinary_tls_config(&settings, &Clock::system()).expect_err("unusable");
    assert_eq!(failure.reason, Reason::NoOwnCertificate);
    assert!(failure.detail.contains("missing.pem does not exist"), "{failure}");
    assert!(failure.hint().starts_with("see to cert_file and key_file"), "{}", failure.hint());
}

/// A directory with `ca.pem`, `chain.pem` and `key.pem`.
struct Home {
    ca: Ca,
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        let (ca, dir) = (Ca::new("example"), TempDir::new().expect("a directory"));
        let client = ca.leaf(OURS);
        fs::write(dir.path().join("ca.pem"), ca.pem()).expect("written");
        fs::write(dir.path().join("chain.pem"), client.chain_pem()).expect("written");
        fs::write(dir.path().join("key.pem"), client.key_pem()).expect("written");
        Self { ca, dir }
    }

    /// With a certificate of our own, which the server requires.
    fn settings(&self) -> OrdinaryTls {
        let file = |name: &str| self.dir.path().join(name);
        let identity = Some(ClientFiles { chain: file("chain.pem"), key: file("key.pem") });
        OrdinaryTls { ca_file: Some(file("ca.pem")), identity, ..OrdinaryTls::default() }
    }

    fn outcome(&self, settings: &OrdinaryTls, leaf: &Leaf) -> Option<Reason> {
        let config = ordinary_tls_config(settings, &Clock::system()).expect("usable");
        let server = leaf.server(&[&self.ca], VERSIONS[1]);
        let error = shake_with(Arc::new(config), host(), &server).err()?;
        Some(failure_of(&error).unwrap_or_else(|| panic!("no refusal in {error:?}")).reason)
    }
}

fn host() -> ServerName<'static> {
    ServerName::try_from("mimir.example").expect("a name")
}
