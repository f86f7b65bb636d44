//! Identity: who is accepted, who is refused and why, and certificates that change under a running process.
//!
//! Handshakes run in memory between our configuration and a rustls server that asks for client certificates, in TLS 1.2
//! and 1.3; certificates come from files as they do in a pod.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meshscrape::clock::Clock;
use meshscrape::config::CertificateFiles;
use meshscrape::identity::{self, Credentials, Handshake, Identity, IdentitySettings, Verified, failure_of};
use meshscrape::model::{Failure, Match, Peer, Reason, SpiffeId, TrustDomain};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::ca::{Ca, CertsDir, HOUR, Leaf, LeafSpec, Name};

mod forced;
mod ordinary;
mod refused;
mod reload;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const OURS: &str = "spiffe://cluster.local/ns/monitoring/sa/meshscrape";
const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&version::TLS12], &[&version::TLS13]];

// ---- who is accepted ----

#[test]
fn the_expected_identity_is_accepted() {
    let mesh = Mesh::new();
    for versions in VERSIONS {
        let server = mesh.ca.leaf(CART).server(&[&mesh.ca], versions);
        let verified = shake(mesh.handshake(&exactly(CART)), &server).expect("the right pod");
        assert_eq!(verified.id().as_str(), CART);
        let report = verified.report();
        assert_eq!((report.identity.as_str(), report.exact), (CART, true));
        assert!(report.chain[0].starts_with(CART), "{}", report.chain[0]);
        match versions[0].version {
            rustls::ProtocolVersion::TLSv1_3 => {
                assert_eq!(report.tls_version, "TLSv1.3");
                assert!(report.cipher.starts_with("TLS_AES_"), "{}", report.cipher);
            }
            _ => {
                assert_eq!(report.tls_version, "TLSv1.2");
                assert!(report.cipher.starts_with("TLS_ECDHE_"), "{}", report.cipher);
            }
        }
    }
}

#[test]
fn nobody_is_told_whom_we_expect() {
    let mesh = Mesh::new();
    let handshake = mesh.handshake(&exactly(CART));
    let mut client = ClientConnection::new(handshake.config(), handshake.server_name()).expect("a client");
    let mut sent = Vec::new();
    client.write_tls(&mut sent).expect("memory");
    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut sent.as_slice()).expect("memory");
    let accepted = acceptor.accept().expect("a greeting").expect("all of it");
    assert_eq!(accepted.client_hello().server_name(), None);
    assert!(accepted.client_hello().alpn().is_none(), "an Istio listener may read ALPN as an invitation to end TLS");
}

#[test]
fn a_connection_that_nobody_verified_is_no_verified_one() {
    let mesh = Mesh::new();
    let server = mesh.ca.leaf(CART).server(&[&mesh.ca], VERSIONS[1]);
    let used = mesh.handshake(&exactly(CART));
    let connection = shake_with(used.config(), used.server_name(), &server).expect("the right pod");
    let other = mesh.handshake(&exactly(CART)).verified(&connection).expect_err("its verifier was never asked");
    assert_eq!(other.reason, Reason::TlsHandshake);
}

#[test]
fn forms_that_spiffe_allows_are_accepted() {
    let mesh = Mesh::new();
    let both = LeafSpec::named(vec![Name::dns("cart.shop.svc"), Name::uri(CART), Name::Ip([10, 0, 0, 1].into())]);
    for (name, spec) in [
        ("a URI beside a host name and an address", both),
        ("no extended key usage", LeafSpec { extended_key_usages: vec![], ..LeafSpec::of(CART) }),
        ("a common name, as in dual use mode", LeafSpec { common_name: Some("x".into()), ..LeafSpec::of(CART) }),
        (
            "an RSA key, as Istio makes by default",
            LeafSpec { algorithm: &rcgen::PKCS_RSA_SHA256, ..LeafSpec::of(CART) },
        ),
        ("P-384", LeafSpec { algorithm: &rcgen::PKCS_ECDSA_P384_SHA384, ..LeafSpec::of(CART) }),
    ] {
        for versions in VERSIONS {
            let server = mesh.ca.issue(&spec).server(&[&mesh.ca], versions);
            assert!(shake(mesh.handshake(&exactly(CART)), &server).is_ok(), "{name}");
        }
    }
}

#[test]
fn a_weaker_rule_accepts_the_namespace_and_says_so() {
    let mesh = Mesh::new();
    let peer = Peer::with_aliases(id(CART), &[], Match::Namespace);
    let other = mesh.ca.leaf("spiffe://cluster.local/ns/shop/sa/checkout").server(&[&mesh.ca], VERSIONS[1]);
    let verified = shake(mesh.handshake(&peer), &other).expect("the same namespace");
    assert!(!verified.report().exact);
    let stranger = mesh.ca.leaf("spiffe://cluster.local/ns/shopping/sa/cart").server(&[&mesh.ca], VERSIONS[1]);
    assert_eq!(refusal(mesh.handshake(&peer), &stranger).reason, Reason::IdentityMismatch);
}

#[test]
fn any_of_the_ids_of_a_receiver_is_accepted() {
    let mesh = Mesh::new();
    let peer = Peer::any_of(vec![id("spiffe://cluster.local/ns/m/sa/mimir"), id(CART)]).expect("ids");
    let server = mesh.ca.leaf(CART).server(&[&mesh.ca], VERSIONS[1]);
    assert!(shake(mesh.handshake(&peer), &server).is_ok());
    let other = mesh.ca.leaf("spiffe://cluster.local/ns/m/sa/mimi").server(&[&mesh.ca], VERSIONS[1]);
    assert_eq!(refusal(mesh.handshake(&peer), &other).reason, Reason::IdentityMismatch);
}

#[test]
fn an_alias_is_the_same_path_under_the_same_roots() {
    let alias = TrustDomain::parse("old.example").expect("valid");
    let mesh = Mesh::with(|settings| settings.aliases = vec![alias.clone()]);
    let peer = Peer::with_aliases(id(CART), &[alias], Match::Exact);
    let server = |name: &str| mesh.ca.leaf(name).server(&[&mesh.ca], VERSIONS[1]);
    assert!(shake(mesh.handshake(&peer), &server("spiffe://old.example/ns/shop/sa/cart")).is_ok());
    let other = refusal(mesh.handshake(&peer), &server("spiffe://old.example/ns/shop/sa/other"));
    assert_eq!(other.reason, Reason::IdentityMismatch);
    let elsewhere =
        Ca::new("old.example").leaf("spiffe://old.example/ns/shop/sa/cart").server(&[&mesh.ca], VERSIONS[1]);
    assert_eq!(refusal(mesh.handshake(&peer), &elsewhere).reason, Reason::UnknownAuthority);
}

// ---- whose key, which chain, what time ----

#[test]
fn a_peer_without_the_key_of_its_certificate_is_refused() {
    let mesh = Mesh::new();
    for versions in VERSIONS {
        let mut thief = mesh.ca.leaf(OURS);
        thief.chain = mesh.ca.leaf(CART).chain;
        let failure = refusal(mesh.handshake(&exactly(CART)), &thief.server(&[&mesh.ca], versions));
        assert_eq!(failure.reason, Reason::TlsHandshake, "{failure}");
        assert!(failure.detail.contains("holds the key"), "{failure}");
    }
}

#[test]
fn intermediates_lead_to_the_root_while_they_are_valid() {
    let mesh = Mesh::new();
    for (until, expected) in [(2 * HOUR, None), (-60, Some(Reason::CertificateExpired))] {
        let issuing = mesh.ca.intermediate("policy", -HOUR, 5 * HOUR).intermediate("issuing", -HOUR, until);
        let server = issuing.leaf(CART).server(&[&mesh.ca], VERSIONS[1]);
        match (shake(mesh.handshake(&exactly(CART)), &server), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(reason)) => assert_eq!(failure_of(&error).expect("a refusal").reason, reason),
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn the_first_certificate_of_the_chain_to_end_ends_the_connection() {
    let mesh = Mesh::new();
    let issuing = mesh.ca.intermediate("issuing", -HOUR, HOUR / 2);
    let server = issuing.leaf(CART).server(&[&mesh.ca], VERSIONS[1]);
    let verified = shake(mesh.handshake(&exactly(CART)), &server).expect("a chain");
    let left = verified.not_after().duration_since(mesh.clock.now()).expect("in the future");
    assert!(left <= Duration::from_secs(HOUR as u64 / 2), "{left:?}");
    assert!(mesh.credentials.still_good(&verified, mesh.clock.now()).is_ok());
    mesh.clock.shift(HOUR / 2 * 1000 + 2000);
    let ended = mesh.credentials.still_good(&verified, mesh.clock.now()).expect_err("it ended");
    assert_eq!(ended.reason, Reason::VerificationEnded);
}

#[test]
fn our_own_identity_ends_at_its_end() {
    let mesh = Mesh::new();
    mesh.clock.shift(HOUR * 1000 + 2000);
    let failure = mesh.credentials.handshake(&exactly(CART), &mesh.clock).expect_err("expired");
    assert_eq!(failure.reason, Reason::NoOwnCertificate, "{failure}");
}

// ---- what ends a connection ----

#[test]
fn a_change_ends_reuse_and_only_lost_trust_ends_an_answer() {
    let (old, new, clock) = (Ca::new("cluster.local"), Ca::new("cluster.local"), Clock::system());
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    let leaf = old.leaf(OURS);
    certs.write(&leaf, &[&old]);
    let runtime = runtime();
    let identity = runtime.block_on(async { identity::watch(settings(dir.path()), &clock, CancellationToken::new()) });
    let step = |expected: &str, change: &dyn Fn()| {
        let before = identity.current().generation();
        change();
        let now = runtime.block_on(until(&identity, |now| now.generation() > before));
        assert_eq!(now.generation(), before + 1, "{expected}: one change");
        now
    };
    let peer = exactly(CART);
    let first = runtime.block_on(until(&identity, |now| now.generation() > 0));
    let verified = shake(handshake(&first, &peer, &clock), &old.leaf(CART).server(&[&old], VERSIONS[1])).expect("good");
    first.may_reuse(&verified, &peer, clock.now()).expect("nothing has changed");
    let other = first.may_reuse(&verified, &exactly("spiffe://cluster.local/ns/shop/sa/b"), clock.now());
    assert_eq!(other.expect_err("another identity is expected").reason, Reason::VerificationEnded);

    // (what changes, how, whether an answer that is being read may still count)
    type Change<'a> = (&'a str, &'a dyn Fn(), bool);
    let changes: [Change<'_>; 4] = [
        ("our leaf", &|| certs.write_leaf(&old.leaf(OURS)), true),
        ("a root more", &|| certs.write_roots(&[&old, &new]), true),
        ("the root issued anew over its key", &|| certs.write_roots(&[&old.reissued(-60, HOUR), &new]), true),
        ("the root withdrawn", &|| certs.write_roots(&[&new]), false),
    ];
    for (name, change, counts) in changes {
        let now = step(name, change);
        assert!(now.may_reuse(&verified, &peer, clock.now()).is_err(), "{name}");
        assert_eq!(now.still_good(&verified, clock.now()).is_ok(), counts, "{name}");
    }
}

// ---- helpers ----

/// A CA, and what we have loaded from files it made.
struct Mesh {
    ca: Ca,
    clock: Clock,
    credentials: Arc<Credentials>,
}

impl Mesh {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut IdentitySettings)) -> Self {
        let (ca, clock) = (Ca::new("cluster.local"), Clock::system());
        let dir = TempDir::new().expect("a directory");
        CertsDir::at(dir.path()).write(&ca.leaf(OURS), &[&ca]);
        let mut settings = settings(dir.path());
        change(&mut settings);
        let (credentials, snapshot) = identity::load(&settings, &clock);
        assert_eq!(snapshot.problems, Vec::<String>::new());
        Self { ca, clock, credentials }
    }

    fn handshake(&self, peer: &Peer) -> Handshake {
        handshake(&self.credentials, peer, &self.clock)
    }
}

fn handshake(credentials: &Credentials, peer: &Peer, clock: &Clock) -> Handshake {
    credentials.handshake(peer, clock).expect("ready")
}

fn settings(dir: &Path) -> IdentitySettings {
    IdentitySettings { files: CertificateFiles::in_dir(dir), trust_domain: None, aliases: Vec::new() }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect(text)
}

fn exactly(text: &str) -> Peer {
    Peer::exactly(id(text))
}

/// A whole handshake in which exactly the right one is accepted, and what was verified in it.
fn shake(handshake: Handshake, server: &Arc<ServerConfig>) -> Result<Verified, rustls::Error> {
    let client = shake_with(handshake.config(), handshake.server_name(), server)?;
    Ok(handshake.verified(&client).expect("the verifier was asked"))
}

/// A whole handshake, in memory; the server must be content.
fn shake_with(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: &Arc<ServerConfig>,
) -> Result<ClientConnection, rustls::Error> {
    let mut client = ClientConnection::new(config, name)?;
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent).expect("memory");
        }
        let mut arriving = sent.as_slice();
        while !arriving.is_empty() {
            server.read_tls(&mut arriving).expect("memory");
            server.process_new_packets()?;
        }
        let mut sent = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut sent).expect("memory");
        }
        assert!(!sent.is_empty() || !client.is_handshaking(), "both sides wait");
        let mut arriving = sent.as_slice();
        while !arriving.is_empty() {
            client.read_tls(&mut arriving).expect("memory");
            client.process_new_packets()?;
        }
    }
    Ok(client)
}

/// The failure of a handshake that must fail.
fn refusal(handshake: Handshake, server: &Arc<ServerConfig>) -> Failure {
    let error = shake(handshake, server).expect_err("the handshake must fail");
    // As tokio hands it out.
    let error = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    failure_of(&error).unwrap_or_else(|| panic!("no refusal in {error:?}"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Waits until the published credentials are as wanted, at most ten seconds.
async fn until(identity: &Identity, wanted: impl FnMut(&Arc<Credentials>) -> bool) -> Arc<Credentials> {
    let mut receiver = identity.credentials();
    let found = tokio::time::timeout(Duration::from_secs(10), receiver.wait_for(wanted)).await;
    Arc::clone(&found.unwrap_or_else(|_| panic!("{:?}", identity.snapshot().problems)).expect("the watcher lives"))
}
