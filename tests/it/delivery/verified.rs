//! Samples go only to who must receive them.

use std::net::Ipv4Addr;

use meshscrape::config::ClientFiles;
use meshscrape::identity::{Identity, IdentitySettings, watch};
use meshscrape::model::SpiffeId;
use rustls::version::TLS13;

use super::*;
use crate::support::ca::{Ca, CertsDir, LeafSpec, Name};

const OURS: &str = "spiffe://cluster.local/ns/monitoring/sa/meshscrape";
const THEIRS: &str = "spiffe://cluster.local/ns/monitoring/sa/prometheus";

/// Our certificate directory with its watcher.
struct Us {
    _dir: tempfile::TempDir,
    certs: CertsDir,
    identity: Identity,
    stop: CancellationToken,
}

impl Us {
    fn watching() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let certs = CertsDir::at(dir.path());
        let settings = IdentitySettings { files: certs.files(), trust_domain: None, aliases: Vec::new() };
        let stop = CancellationToken::new();
        let identity = watch(settings, &Clock::system(), stop.clone());
        Self { _dir: dir, certs, identity, stop }
    }

    fn remote(&self, receiver: &Receiver) -> RemoteWrite {
        RemoteWrite {
            security: ReceiverSecurity::Spiffe(SpiffeReceiver {
                files: self.certs.files(),
                trust_domain: None,
                aliases: Vec::new(),
                server_ids: vec![SpiffeId::parse(THEIRS).expect("an ID")],
            }),
            ..remote("main", &receiver.url())
        }
    }

    fn pipe(&self, receiver: &Receiver) -> Pipe {
        Pipe::with(vec![self.remote(receiver)], Clock::system(), |_| self.identity.credentials())
    }

    async fn generation_after(&self, before: u64) -> u64 {
        let mut credentials = self.identity.credentials();
        let newer = credentials.wait_for(|now| now.generation() > before && now.own().is_some());
        tokio::time::timeout(PATIENCE, newer).await.expect("a reload").expect("the watcher runs").generation()
    }
}

impl Drop for Us {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn samples_wait_for_our_certificate_and_then_go_to_the_right_receiver() {
    let ca = Ca::new("cluster.local");
    let receiver = Receiver::start_tls(ca.leaf(THEIRS).server(&[&ca], &[&TLS13]), script([])).await;
    let us = Us::watching();
    let pipe = us.pipe(&receiver);
    pipe.push(block_of(1, 1, 1)).await;
    trouble(&pipe.monitors[0], TroubleKind::NotReady).await;
    us.certs.write(&ca.leaf(OURS), &[&ca]);
    assert_eq!(values_of(1, &receiver.samples(1).await), [1.0]);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}

#[tokio::test]
async fn another_identity_gets_no_byte_and_the_spool_keeps_the_blocks() {
    let (ca, evil) = (Ca::new("cluster.local"), Ca::new("cluster.local"));
    let impostors = [
        (ca.leaf("spiffe://cluster.local/ns/monitoring/sa/prometheus2"), "identity_mismatch"),
        (evil.leaf(THEIRS), "unknown_authority"),
        (ca.issue(&LeafSpec::named(vec![Name::Ip(Ipv4Addr::LOCALHOST.into())])), "no_spiffe_id"),
    ];
    for (leaf, reason) in impostors {
        let receiver = Receiver::start_tls(leaf.server(&[&ca], &[&TLS13]), script([])).await;
        let us = Us::watching();
        us.certs.write(&ca.leaf(OURS), &[&ca]);
        let pipe = us.pipe(&receiver);
        pipe.push(block_of(1, 1, 3)).await;
        let detail = trouble(&pipe.monitors[0], TroubleKind::Identity).await;
        assert!(detail.starts_with(reason), "{detail}");
        assert!(receiver.recorded().is_empty(), "{reason}");
        assert_eq!(pipe.monitors[0].snapshot().queue.pending_samples, 3);
        pipe.give_up.cancel();
        assert_eq!(pipe.end().await, [Undelivered { blocks: 1, samples: 3 }]);
    }
}

#[tokio::test]
async fn new_credentials_mean_a_new_connection() {
    let ca = Ca::new("cluster.local");
    let receiver = Receiver::start_tls(ca.leaf(THEIRS).server(&[&ca], &[&TLS13]), script([])).await;
    let us = Us::watching();
    us.certs.write(&ca.leaf(OURS), &[&ca]);
    let first = us.generation_after(0).await;
    let pipe = us.pipe(&receiver);
    for scrape in 0..2 {
        pipe.push(block_of(1, scrape, 1)).await;
        receiver.requests(scrape as usize + 1).await;
    }
    us.certs.write_leaf(&ca.leaf(OURS));
    us.generation_after(first).await;
    pipe.push(block_of(1, 2, 1)).await;
    let connections: Vec<_> = receiver.requests(3).await.iter().map(|one| one.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
    pipe.end().await;
}

#[tokio::test]
async fn a_withdrawn_root_ends_delivery_though_a_connection_was_open() {
    let (ca, next) = (Ca::new("cluster.local"), Ca::new("cluster.local"));
    let receiver = Receiver::start_tls(ca.leaf(THEIRS).server(&[&ca], &[&TLS13]), script([])).await;
    let us = Us::watching();
    us.certs.write(&ca.leaf(OURS), &[&ca]);
    let first = us.generation_after(0).await;
    let pipe = us.pipe(&receiver);
    pipe.push(block_of(1, 1, 1)).await;
    receiver.requests(1).await;
    us.certs.write_roots(&[&next]);
    us.generation_after(first).await;
    pipe.push(block_of(1, 2, 1)).await;
    trouble(&pipe.monitors[0], TroubleKind::Identity).await;
    assert_eq!(receiver.recorded().len(), 1);
    pipe.give_up.cancel();
    pipe.end().await;
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_that_was_shown_in_it() {
    let ca = Ca::new("cluster.local");
    let short = ca.issue(&LeafSpec::of(THEIRS).valid(-120, 600));
    let receiver = Receiver::start_tls(short.server(&[&ca], &[&TLS13]), script([])).await;
    let us = Us::watching();
    us.certs.write(&ca.leaf(OURS), &[&ca]);
    us.generation_after(0).await;
    let clock = Clock::system();
    let pipe = Pipe::with(vec![us.remote(&receiver)], clock.clone(), |_| us.identity.credentials());
    pipe.push(block_of(1, 1, 1)).await;
    receiver.requests(1).await;
    clock.shift(601_000);
    pipe.push(block_of(1, 2, 1)).await;
    let detail = trouble(&pipe.monitors[0], TroubleKind::Identity).await;
    assert!(detail.starts_with("certificate_expired"), "{detail}");
    assert_eq!(receiver.recorded().len(), 1);
    pipe.give_up.cancel();
    pipe.end().await;
}

#[tokio::test]
async fn an_ordinary_receiver_is_verified_by_chain_and_name() {
    let (ca, evil) = (Ca::new("receivers"), Ca::new("receivers"));
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let client = ca.issue(&LeafSpec::named(vec![Name::dns("agent.example")]));
    let identity = ClientFiles { chain: at("chain.pem", client.chain_pem()), key: at("key.pem", client.key_pem()) };
    let tls = OrdinaryTls { ca_file: Some(at("ca.pem", ca.pem())), identity: Some(identity), ..OrdinaryTls::default() };
    let by_name = OrdinaryTls { server_name: Some("mimir.example".into()), ..tls.clone() };
    let (address, name) = (Name::Ip(Ipv4Addr::LOCALHOST.into()), Name::dns("mimir.example"));
    for (settings, issuer, names, refusal) in [
        (&tls, &ca, &address, None),
        (&by_name, &ca, &name, None),
        (&tls, &ca, &name, Some("host_name_mismatch")),
        (&by_name, &ca, &address, Some("host_name_mismatch")),
        (&tls, &evil, &address, Some("unknown_authority")),
    ] {
        let leaf = issuer.issue(&LeafSpec::named(vec![names.clone()]));
        let receiver = Receiver::start_tls(leaf.server(&[&ca], &[&TLS13]), script([])).await;
        let mut remote = remote("main", &receiver.url());
        remote.security = ReceiverSecurity::Ordinary(settings.clone());
        let pipe = Pipe::to(vec![remote]);
        pipe.push(block_of(1, 1, 1)).await;
        if let Some(reason) = refusal {
            let detail = trouble(&pipe.monitors[0], TroubleKind::Identity).await;
            assert!(detail.starts_with(reason), "{detail}");
            assert!(receiver.recorded().is_empty(), "{reason}");
            pipe.give_up.cancel();
        } else {
            let host = receiver.requests(1).await[0].header("host").map(str::to_owned);
            assert_eq!(host, Some(receiver.address().to_string()));
        }
        pipe.end().await;
    }
}

#[tokio::test]
async fn new_roots_of_an_ordinary_receiver_mean_a_new_connection() {
    let (ca, other) = (Ca::new("receivers"), Ca::new("others"));
    let dir = tempfile::tempdir().expect("a directory");
    let certs = CertsDir::at(dir.path());
    certs.write(&ca.leaf(OURS), &[&other]);
    let leaf = ca.issue(&LeafSpec::named(vec![Name::Ip(Ipv4Addr::LOCALHOST.into())]));
    let receiver = Receiver::start_tls(leaf.server(&[&ca], &[&TLS13]), script([])).await;
    let files = certs.files();
    let mut remote = remote("main", &receiver.url());
    remote.security = ReceiverSecurity::Ordinary(OrdinaryTls {
        ca_file: Some(files.root),
        identity: Some(ClientFiles { chain: files.chain, key: files.key }),
        ..OrdinaryTls::default()
    });
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 1)).await;
    trouble(&pipe.monitors[0], TroubleKind::Identity).await;
    certs.write_roots(&[&ca]);
    receiver.requests(1).await;
    certs.write_roots(&[&other]);
    pipe.push(block_of(1, 2, 1)).await;
    trouble(&pipe.monitors[0], TroubleKind::Identity).await;
    assert_eq!(receiver.recorded().len(), 1, "roots that were taken back end the open connection too");
    pipe.give_up.cancel();
    pipe.end().await;
}
