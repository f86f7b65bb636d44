//! A mesh of one CA, with our certificate in a directory on disk, and a client for one of its targets.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use meshscrape::clock::Clock;
use meshscrape::connect::{Client, Request, SpiffeClient};
use meshscrape::identity::{Credentials, Identity, IdentitySettings, watch};
use meshscrape::model::{Address, Failure, Peer, SpiffeId};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ca::{Ca, CertsDir, Leaf};

/// Who must answer.
pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// Who asks.
pub(crate) const SCRAPER: &str = "spiffe://cluster.local/ns/monitoring/sa/meshscrape";

/// The mesh, and the scraper's live identity in it.
pub(crate) struct Mesh {
    pub(crate) ca: Ca,
    /// Another mesh. Its root has the same name, as all of Istio's own roots have.
    pub(crate) other: Ca,
    pub(crate) certs: CertsDir,
    pub(crate) identity: Identity,
    pub(crate) clock: Clock,
    /// What servers of this mesh speak.
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    _directory: tempfile::TempDir,
    _task: DropGuard,
}

/// Only TLS 1.3.
pub(crate) const ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];
/// Only TLS 1.2.
pub(crate) const ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];

impl Mesh {
    /// With our identity loaded.
    pub(crate) async fn new(versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        let ca = Ca::new("cluster.local");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let certs = CertsDir::at(directory.path());
        certs.write(&ca.leaf(SCRAPER), &[&ca]);
        let clock = Clock::system();
        let cancel = CancellationToken::new();
        let settings = IdentitySettings { files: certs.files(), trust_domain: None, aliases: Vec::new() };
        let identity = watch(settings, &clock, cancel.clone());
        let mut credentials = identity.credentials();
        let loaded = credentials.wait_for(|credentials| credentials.ready(clock.now()).is_ok()).await;
        drop(loaded.expect("the identity is followed"));
        let other = Ca::new("cluster.local");
        Self { ca, other, certs, identity, clock, versions, _directory: directory, _task: cancel.drop_guard() }
    }

    /// A server's TLS with this leaf, asking for a client certificate of this mesh.
    pub(crate) fn tls(&self, leaf: &Leaf) -> Arc<ServerConfig> {
        leaf.server(&[&self.ca], self.versions)
    }

    /// The TLS of the workload that must answer.
    pub(crate) fn cart(&self) -> Arc<ServerConfig> {
        self.tls(&self.ca.leaf(CART))
    }

    /// A client that accepts only [`CART`].
    pub(crate) fn client(&self) -> Client {
        Client::Spiffe(self.spiffe_client(true))
    }

    pub(crate) fn spiffe_client(&self, follow_redirects: bool) -> SpiffeClient {
        let peer = Peer::exactly(SpiffeId::parse(CART).expect("well-formed"));
        SpiffeClient::new(peer, self.identity.credentials(), self.clock.clone(), follow_redirects, None)
    }

    /// Waits for the next snapshot of the credentials after `change`.
    pub(crate) async fn reload(&self, change: impl FnOnce(&CertsDir)) -> Arc<Credentials> {
        let mut credentials = self.identity.credentials();
        credentials.mark_unchanged();
        change(&self.certs);
        credentials.changed().await.expect("the identity is followed");
        self.identity.current()
    }
}

/// A `GET` that may take `timeout`.
pub(crate) fn get(address: &Address, path: &str, timeout: Duration) -> Request {
    Request {
        address: address.clone(),
        path_and_query: path.into(),
        headers: HeaderMap::new(),
        deadline: Instant::now() + timeout,
    }
}

/// One scrape without its meaning: the whole body, or the failure and how many bytes had been handed out by then.
pub(crate) async fn scrape(client: &mut Client, request: &Request) -> Result<Vec<u8>, (Failure, usize)> {
    let mut bytes = Vec::new();
    let mut body = client.get(request).await.map_err(|failure| (failure, 0))?.body;
    loop {
        match body.chunk().await {
            Ok(Some(piece)) => bytes.extend(piece),
            Ok(None) => break,
            Err(failure) => return Err((failure, bytes.len())),
        }
    }
    drop(body);
    client.confirm().map_err(|failure| (failure, bytes.len()))?;
    Ok(bytes)
}
