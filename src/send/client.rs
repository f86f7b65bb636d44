//! The HTTP client of one receiver, and when it must be replaced.
//!
//! A SPIFFE receiver gets a new client, with no connection in it, whenever the credentials change or a leaf that it has
//! shown ends; the answer to who it is stays inside the handshake. An ordinary receiver gets a new one when its
//! certificate files change. No client leaves its origin, follows a redirect from `https` to `http`, turns a POST into
//! something else, or uses a proxy but the one of the configuration.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::SystemTime;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::tls::TlsInfo;
use reqwest::{Client, Response};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;
use url::{Host, Url};

use super::verdict::{Trouble, TroubleKind};
use crate::clock::Clock;
use crate::config::{OrdinaryTls, ReceiverSecurity, RemoteWrite, SpiffeReceiver};
use crate::identity::{CertificateFacts, Credentials, crypto_provider, ordinary_tls_config};
use crate::model::{Failure, Peer, Reason};

/// No receiver needs more hops to find itself.
const MAX_REDIRECTS: usize = 3;

/// How the receiver is verified, with what it takes.
enum Trust {
    Spiffe {
        peer: Peer,
        credentials: watch::Receiver<Arc<Credentials>>,
    },
    HostName(OrdinaryTls),
    /// `http` in the configuration.
    Nobody,
}

/// Makes and keeps the client of one receiver.
pub(super) struct Clients {
    remote: Arc<RemoteWrite>,
    trust: Trust,
    clock: Clock,
    current: Option<Current>,
}

/// What a client is made of, at one moment.
enum Material {
    Spiffe(Peer, Arc<Credentials>),
    HostName(OrdinaryTls, Vec<Option<FileState>>),
    Nobody,
}

impl Material {
    fn made_of(&self) -> MadeOf {
        match self {
            Material::Spiffe(_, credentials) => MadeOf::Generation(credentials.generation()),
            Material::HostName(_, files) => MadeOf::Files(files.clone()),
            Material::Nobody => MadeOf::Files(Vec::new()),
        }
    }
}

struct Current {
    client: Client,
    made_of: MadeOf,
    /// The end of the first leaf that the receiver has shown to this client.
    ends: Option<SystemTime>,
}

/// What tells one material from another: a client of another one is another client.
#[derive(PartialEq, Eq)]
enum MadeOf {
    Generation(u64),
    Files(Vec<Option<FileState>>),
}

/// Device, inode, length and time of change of a file.
type FileState = (u64, u64, u64, i64, i64);

impl Clients {
    /// `credentials` is asked only for a receiver that is verified by SPIFFE ID.
    pub(super) fn new(
        remote: Arc<RemoteWrite>,
        credentials: impl FnOnce(&SpiffeReceiver) -> watch::Receiver<Arc<Credentials>>,
        clock: Clock,
    ) -> Self {
        let trust = match &remote.security {
            ReceiverSecurity::Spiffe(spiffe) => Trust::Spiffe {
                peer: Peer::any_of(spiffe.server_ids.clone()).expect("SpiffeReceiver::server_ids is never empty"),
                credentials: credentials(spiffe),
            },
            ReceiverSecurity::Ordinary(tls) if remote.url.scheme() == "https" => Trust::HostName(tls.clone()),
            ReceiverSecurity::Ordinary(_) => Trust::Nobody,
        };
        Self { remote, trust, clock, current: None }
    }

    /// The client for the next request.
    pub(super) async fn get(&mut self) -> Result<Client, Trouble> {
        let material = self.material().await.map_err(not_ready)?;
        let made_of = material.made_of();
        if let Some(current) = &self.current
            && current.made_of == made_of
            && current.ends.is_none_or(|end| self.clock.now() < end)
        {
            return Ok(current.client.clone());
        }
        // The old client's connection goes with it, also if there is no new one.
        self.current = None;
        let client = self.build(self.tls(material).await.map_err(not_ready)?)?;
        self.current = Some(Current { client: client.clone(), made_of, ends: None });
        Ok(client)
    }

    /// Remembers until when the one who answered is who it says.
    pub(super) fn note(&mut self, response: &Response) {
        let leaf = response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        let end =
            leaf.and_then(|der| CertificateFacts::read(&CertificateDer::from(der)).ok()).map(|leaf| leaf.not_after);
        if let (Some(current), Some(end)) = (&mut self.current, end) {
            current.ends = Some(current.ends.map_or(end, |known| known.min(end)));
        }
    }

    /// No answer came: the connection may be dead though nobody has said so, and over HTTP/2 the next request would be
    /// given to it again.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }

    /// What a client would be made of now.
    async fn material(&mut self) -> Result<Material, Failure> {
        Ok(match &mut self.trust {
            Trust::Spiffe { peer, credentials } => {
                let credentials = Arc::clone(&credentials.borrow_and_update());
                credentials.ready(self.clock.now())?;
                Material::Spiffe(peer.clone(), credentials)
            }
            Trust::HostName(tls) => Material::HostName(tls.clone(), states_of(tls).await),
            Trust::Nobody => Material::Nobody,
        })
    }

    async fn tls(&self, material: Material) -> Result<ClientConfig, Failure> {
        match material {
            Material::Spiffe(peer, credentials) => {
                credentials.tls_config(&peer, &self.clock).map(|config| (*config).clone())
            }
            Material::HostName(tls, _) => {
                let clock = self.clock.clone();
                let reading = tokio::task::spawn_blocking(move || ordinary_tls_config(&tls, &clock)).await;
                reading.unwrap_or_else(|error| {
                    Err(Failure::new(Reason::TlsHandshake, format!("reading the certificate files was ended: {error}")))
                })
            }
            Material::Nobody => Ok(never_used()),
        }
    }

    fn build(&self, mut tls: ClientConfig) -> Result<Client, Trouble> {
        let origin = self.remote.url.clone();
        let follow = self.remote.follow_redirects;
        let mut builder = Client::builder()
            .no_proxy()
            .referer(false)
            .redirect(Policy::custom(move |attempt| within_origin(follow, attempt)))
            .https_only(origin.scheme() == "https")
            .tls_info(true)
            // Shared by all addresses of the name, so that a dead one does not take the time of a live one.
            .connect_timeout(self.remote.remote_timeout.mul_f64(0.8))
            .pool_max_idle_per_host(self.remote.queue.max_requests_in_flight);
        if self.remote.enable_http2 {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        } else {
            builder = builder.http1_only();
        }
        if let (Some(_), Some(host)) = (self.server_name(), origin.host()) {
            builder = builder.dns_resolver(Arc::new(Fixed { host: host.to_owned() }));
        }
        let proxy = self.remote.proxies.as_ref().and_then(|proxies| Some((proxies, proxies.for_url(&origin)?)));
        if let Some((proxies, proxy)) = proxy {
            let mut through = reqwest::Proxy::all(proxy.url().clone()).map_err(|error| Trouble {
                kind: TroubleKind::NotReady,
                detail: format!("the proxy {proxy} cannot be used: {}", error.without_url()),
            })?;
            if let Some(authorization) = proxy.authorization() {
                through = through.custom_http_auth(authorization);
            }
            // Without a tunnel the library would send them to the receiver, too.
            if origin.scheme() == "https" {
                through = through.headers(proxies.connect_headers());
            }
            builder = builder.proxy(through);
        }
        builder.tls_backend_preconfigured(tls).build().map_err(|error| Trouble {
            kind: TroubleKind::NotReady,
            detail: format!("the HTTP client cannot be made: {}", error.without_url()),
        })
    }

    /// The URL to ask for. Where the configuration names the server otherwise than the URL, the name stands in the URL,
    /// because there the client takes the name from that is sent and checked; it is resolved as the host of `url`.
    pub(super) fn url(&self) -> Result<Url, Trouble> {
        let mut url = self.remote.url.clone();
        if let Some(name) = self.server_name() {
            let is_domain = matches!(Host::parse(name), Ok(Host::Domain(_)));
            if !is_domain || url.set_host(Some(name)).is_err() {
                return Err(Trouble {
                    kind: TroubleKind::NotReady,
                    detail: format!("tls_config.server_name is {name:?}; for a receiver it must be a host name"),
                });
            }
        }
        Ok(url)
    }

    /// The name that the server is to have, if it is not the host of the URL.
    pub(super) fn server_name(&self) -> Option<&str> {
        match &self.trust {
            Trust::HostName(tls) => tls.server_name.as_deref(),
            Trust::Spiffe { .. } | Trust::Nobody => None,
        }
    }
}

/// Only where the method and body stay (307, 308) and scheme, host and port do.
fn within_origin(follow: bool, attempt: Attempt<'_>) -> Action {
    let keeps_body = matches!(attempt.status().as_u16(), 307 | 308);
    let stays = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if follow && keeps_body && stays && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

fn not_ready(failure: Failure) -> Trouble {
    Trouble { kind: TroubleKind::NotReady, detail: failure.to_string() }
}

/// reqwest wants to know how it would make TLS connections even where it makes none; this way trusts nobody.
fn never_used() -> ClientConfig {
    ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

async fn states_of(tls: &OrdinaryTls) -> Vec<Option<FileState>> {
    let own = tls.identity.iter().flat_map(|files| [&files.chain, &files.key]);
    let mut states = Vec::new();
    for file in tls.ca_file.iter().chain(own) {
        // Follows links, so a swapped link is a change.
        let state = tokio::fs::metadata(file).await.ok();
        states.push(state.map(|file| (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec())));
    }
    states
}

/// Resolves every name as one host.
struct Fixed {
    host: Host<String>,
}

impl Resolve for Fixed {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // The port is the URL's; zero here says so.
            let addresses: Vec<SocketAddr> = match host {
                Host::Ipv4(ip) => vec![(ip, 0).into()],
                Host::Ipv6(ip) => vec![(ip, 0).into()],
                Host::Domain(name) => tokio::net::lookup_host((name, 0)).await?.collect(),
            };
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
