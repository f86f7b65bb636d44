//! The workloads of the demo: who they claim to be, who they are, and the port on which they answer.
//!
//! A sidecar behaves as an Istio secure port does: mTLS with a client certificate required, no ALPN, a keep-alive
//! connection that lives on over rotations, Istio's routes and content types. It takes its certificates from its own
//! directory, as a set, whenever [`Sidecar::reload`] is called. It knows nothing of the agent that scrapes it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, SERVER};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::certs::{CHAIN, CertDir, KEY, ROOT};
use super::exposition::{Shape, exposition, tainted};
use crate::model::{Reason, SpiffeId, TrustDomain};

/// How long a client may take over its handshake; Envoy's own patience.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// What answers at the place where a workload should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    /// The workload itself.
    Honest,
    /// Another workload of the same mesh, with its own valid certificate: a recycled pod IP, or somebody who poses.
    Impostor {
        /// The namespace of its identity.
        namespace: &'static str,
        /// The service account of its identity.
        account: &'static str,
    },
    /// A server without TLS.
    Plaintext,
}

/// One part in the play.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    /// The name under which it is scraped and shown.
    pub(super) name: &'static str,
    /// The namespace in which the workload should run.
    pub(super) namespace: &'static str,
    /// The service account under which the workload should run.
    pub(super) account: &'static str,
    /// What it exposes.
    pub(super) shape: Shape,
    /// Who answers in truth.
    pub(super) conduct: Conduct,
}

/// The six workloads, in the order in which they are shown.
pub(super) const CAST: [Role; 6] = [
    Role { name: "cart", namespace: "shop", account: "cart", shape: Shape::Merged, conduct: Conduct::Honest },
    Role {
        name: "checkout",
        namespace: "shop",
        account: "checkout",
        shape: Shape::MergedOpenMetrics,
        conduct: Conduct::Honest,
    },
    Role { name: "search", namespace: "shop", account: "search", shape: Shape::Envoy, conduct: Conduct::Honest },
    Role {
        name: "gateway",
        namespace: "ingress",
        account: "gateway-istio",
        shape: Shape::Gateway,
        conduct: Conduct::Honest,
    },
    Role {
        name: "payments",
        namespace: "shop",
        account: "payments",
        shape: Shape::Merged,
        conduct: Conduct::Impostor { namespace: "sandbox", account: "default" },
    },
    Role { name: "legacy", namespace: "shop", account: "legacy", shape: Shape::Merged, conduct: Conduct::Plaintext },
];

impl Role {
    /// Who must answer.
    pub(super) fn expected(&self, domain: &TrustDomain) -> SpiffeId {
        SpiffeId::of_service_account(domain, self.namespace, self.account).expect("the cast's names are well-formed")
    }

    /// Who does answer, where a certificate is shown at all.
    pub(super) fn actual(&self, domain: &TrustDomain) -> Option<SpiffeId> {
        match self.conduct {
            Conduct::Honest => Some(self.expected(domain)),
            Conduct::Impostor { namespace, account } => Some(
                SpiffeId::of_service_account(domain, namespace, account).expect("the cast's names are well-formed"),
            ),
            Conduct::Plaintext => None,
        }
    }

    /// The reason for which it has to be refused, if it has to be.
    pub(super) fn refusal(&self) -> Option<Reason> {
        match self.conduct {
            Conduct::Honest => None,
            Conduct::Impostor { .. } => Some(Reason::IdentityMismatch),
            Conduct::Plaintext => Some(Reason::PlaintextServer),
        }
    }

    /// What it exposes `uptime` after its start.
    fn body(&self, uptime: Duration) -> String {
        match self.conduct {
            Conduct::Honest => exposition(self.shape, self.name, uptime),
            Conduct::Impostor { .. } | Conduct::Plaintext => tainted(self.name, uptime),
        }
    }

    /// Whether Istio routes `path` on this kind of port; prefixes, as Envoy matches them.
    fn routes(&self, path: &str) -> bool {
        path.starts_with("/stats/prometheus") || (self.shape != Shape::Envoy && path.starts_with("/metrics"))
    }
}

/// A workload that listens. It stops, with all its connections, when this value is dropped.
pub(super) struct Sidecar {
    role: Role,
    address: SocketAddr,
    tls: Option<(CertDir, Arc<ArcSwap<ServerConfig>>)>,
    _serving: JoinSet<()>,
}

impl Sidecar {
    /// Plays `role` at the `position`th loopback address, on a port that the system chooses. `certs` is its
    /// directory, already filled; none for a server without TLS.
    pub(super) async fn start(role: Role, position: u8, certs: Option<CertDir>) -> io::Result<Self> {
        let listener = listen(position).await?;
        let address = listener.local_addr()?;
        let tls = match certs {
            Some(dir) => {
                let config = load(dir.path()).await?;
                Some((dir, Arc::new(ArcSwap::from_pointee(config))))
            }
            None => None,
        };
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, role, tls.as_ref().map(|(_, config)| config.clone())));
        Ok(Self { role, address, tls, _serving: serving })
    }

    /// Its part.
    pub(super) fn role(&self) -> &Role {
        &self.role
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate directory, where it has one.
    pub(super) fn certs(&self) -> Option<&CertDir> {
        self.tls.as_ref().map(|(dir, _)| dir)
    }

    /// Takes the set that is in its directory now; connections that stand keep what they have, as with Envoy.
    pub(super) async fn reload(&self) -> io::Result<()> {
        if let Some((dir, config)) = &self.tls {
            config.store(Arc::new(load(dir.path()).await?));
        }
        Ok(())
    }
}

/// Binds 127.0.0.2 for the first workload and so on; 127.0.0.1 where the system has only that one.
async fn listen(position: u8) -> io::Result<TcpListener> {
    let own = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2 + position));
    match TcpListener::bind((own, 0)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        bound => bound,
    }
}

/// The server's side of a certificate directory: a client has to show a certificate of the roots in it.
async fn load(dir: &Path) -> io::Result<ServerConfig> {
    let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let key = PrivateKeyDer::from_pem_slice(&tokio::fs::read(dir.join(KEY)).await?).map_err(|e| invalid(&e))?;
    let chain = certificates(&tokio::fs::read(dir.join(CHAIN)).await?).map_err(|e| invalid(&e))?;
    let mut roots = rustls::RootCertStore::empty();
    for root in certificates(&tokio::fs::read(dir.join(ROOT)).await?).map_err(|e| invalid(&e))? {
        roots.add(root).map_err(|e| invalid(&e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| invalid(&e))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
        .map_err(|e| invalid(&e))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// Accepts until it is dropped; the connections are its own and end with it.
async fn accept(listener: TcpListener, role: Role, tls: Option<Arc<ArcSwap<ServerConfig>>>) {
    let started = Instant::now();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, most likely: a moment later there may be some.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let config = tls.as_ref().map(|config| config.load_full());
                connections.spawn(connection(stream, role, config, started));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, role: Role, tls: Option<Arc<ServerConfig>>, started: Instant) {
    // Without it every handshake waits for a delayed acknowledgement; a failure costs time and nothing else.
    let _ = stream.set_nodelay(true);
    let Some(config) = tls else { return serve(stream, role, started).await };
    // A client that is refused, or refuses us, is no event here: the agent tells it from the other side.
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        serve(stream, role, started).await;
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, role: Role, started: Instant) {
    let service = service_fn(|request| {
        let response = answer(&role, &request, started.elapsed());
        async { response }
    });
    // How a connection ends is the client's business too.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn answer(role: &Role, request: &Request<Incoming>, uptime: Duration) -> io::Result<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::default());
    response.headers_mut().insert(SERVER, HeaderValue::from_static("envoy"));
    if !role.routes(request.uri().path()) {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(role.shape.content_type()));
    let body = role.body(uptime);
    let accepted = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    *response.body_mut() = if role.shape.compresses() && accepted.contains("gzip") {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body.as_bytes())?;
        Full::from(encoder.finish()?)
    } else {
        Full::from(body)
    };
    Ok(response)
}
