//! Scrapes of jobs that do not verify SPIFFE IDs: over `https` by chain and host name, over `http` not at all.
//!
//! Both go through reqwest, which brings HTTP/2 and a pool of one connection; two types keep them apart. Always holds:
//! no proxy is used but the job's own; redirects are taken here and not by the library, `https` never leads to
//! `http` nor `http` to `https`, and what proves who we are (the `Authorization` header, other added headers, a client
//! certificate) never reaches another origin than the target's own.
//!
//! The library hides when its connection stood, so connecting gets nine tenths of the scrape's time: what has not
//! connected by then is told apart from what does not answer. It must not know: labels, jobs, what a status means.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::tls::TlsInfo;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::lookup_host;
use url::Url;

use super::redirect::{self, Trail};
use super::stopwatch::{Stage, Stopwatch};
use super::{Body, BodyKind, Request, Response, advice, auth, classify};
use crate::clock::Clock;
use crate::config::{Auth, HttpHeader, KnownSecrets, OrdinaryTls, Proxies, Proxy, ScrapeConfig};
use crate::identity::{CertificateFacts, crypto_provider, ordinary_tls_config};
use crate::model::{Failure, Host, PeerReport, Reason, Scheme};
use crate::token::Tokens;

/// The largest response header, names and values counted.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// How long a connection may be idle, as in Prometheus.
const IDLE: Duration = Duration::from_secs(300);

/// What goes along to another origin.
const HARMLESS: [HeaderName; 4] =
    [ACCEPT, ACCEPT_ENCODING, USER_AGENT, HeaderName::from_static("x-prometheus-scrape-timeout-seconds")];

/// What both kinds of ordinary scrapes are told by their job.
#[derive(Clone, Debug)]
pub struct OrdinarySettings {
    /// How long one scrape may take.
    pub timeout: Duration,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Whether they may lead to no other origin (scheme, host and port) than the one that was asked.
    pub within_origin: bool,
    /// Whether HTTP/2 is offered; over `https` only.
    pub http2: bool,
    /// The `Authorization` header.
    pub auth: Option<Auth>,
    /// Where the token of that header comes from instead.
    pub tokens: Option<Tokens>,
    /// Headers that are added to every request.
    pub http_headers: Vec<HttpHeader>,
    /// Through which proxies servers are asked.
    pub proxies: Option<Arc<Proxies>>,
}

impl OrdinarySettings {
    /// Those of a job, for a target with this scrape timeout; `tokens` are those of all its targets.
    pub fn of_job(job: &ScrapeConfig, timeout: Duration, tokens: Option<Tokens>) -> Self {
        Self {
            timeout,
            follow_redirects: job.follow_redirects,
            within_origin: false,
            http2: job.enable_http2,
            auth: job.auth.clone(),
            tokens,
            http_headers: job.http_headers.clone(),
            proxies: job.proxies.clone(),
        }
    }
}

/// The connection of one target over `http`.
#[derive(Debug)]
pub struct PlainClient {
    settings: OrdinarySettings,
    http: reqwest::Client,
    /// What the last request told that nobody is to see.
    secrets: KnownSecrets,
}

impl PlainClient {
    /// A client for `http` only. Nothing is dialled yet.
    pub fn new(settings: OrdinarySettings) -> Result<Self, Failure> {
        // The library wants a TLS configuration. With this one no TLS connection could succeed.
        let nobody = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Reason::TlsHandshake, format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let http = build(reqwest::Client::builder().http1_only(), nobody, Scheme::Http, &settings)?;
        Ok(Self { settings, http, secrets: KnownSecrets::default() })
    }

    /// As [`Client::get`](super::Client::get).
    pub async fn get(&mut self, request: &Request) -> Result<Response<'static>, Failure> {
        let to_http = |_: &Url, next: &Url| match next.scheme() {
            "http" => Ok(()),
            _ => Err("this job scrapes plain http and makes no TLS connection"),
        };
        let (settings, secrets) = (&self.settings, &mut self.secrets);
        exchange(&self.http, (settings, secrets), Scheme::Http, None, request, to_http).await
    }

    /// As [`Client::secrets`](super::Client::secrets).
    pub fn secrets(&self) -> &KnownSecrets {
        &self.secrets
    }
}

/// The connection of one target over `https`, verified by chain and host name.
#[derive(Debug)]
pub struct HostNameClient {
    settings: OrdinarySettings,
    tls: OrdinaryTls,
    clock: Clock,
    /// The client, and the state of the files it was made from.
    made: Option<(Vec<FileState>, reqwest::Client)>,
    /// What the last request told that nobody is to see.
    secrets: KnownSecrets,
}

impl HostNameClient {
    /// A client for `https` only. Nothing is read or dialled yet.
    pub fn new(settings: OrdinarySettings, tls: OrdinaryTls, clock: Clock) -> Self {
        Self { settings, tls, clock, made: None, secrets: KnownSecrets::default() }
    }

    /// As [`Client::get`](super::Client::get).
    pub async fn get(&mut self, request: &Request) -> Result<Response<'static>, Failure> {
        let bound = self.tls.identity.is_some() || self.tls.server_name.is_some();
        let to_https = move |_: &Url, next: &Url| match next.scheme() {
            "https" if bound => Err("cert_file and server_name of this job are for one host"),
            "https" => Ok(()),
            _ => Err("a verified scrape never goes on over plain http"),
        };
        let http = self.current(request)?;
        let (settings, secrets) = (&self.settings, &mut self.secrets);
        exchange(&http, (settings, secrets), Scheme::Https, self.tls.server_name.as_deref(), request, to_https)
            .await
            .map_err(advice::add_to_ordinary)
    }

    /// As [`Client::secrets`](super::Client::secrets).
    pub fn secrets(&self) -> &KnownSecrets {
        &self.secrets
    }

    /// The client, made anew when a file that it came from has changed.
    fn current(&mut self, request: &Request) -> Result<reqwest::Client, Failure> {
        let files = self.files();
        if let Some((seen, http)) = &self.made
            && *seen == files
        {
            return Ok(http.clone());
        }
        self.made = None;
        let mut config = ordinary_tls_config(&self.tls, &self.clock)?;
        let mut builder = reqwest::Client::builder().https_only(true).tls_info(true);
        if self.settings.http2 {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            builder = builder.http2_max_header_list_size(MAX_HEADER_BYTES as u32);
        } else {
            builder = builder.http1_only();
        }
        if let Some(name) = &self.tls.server_name {
            if name.parse::<IpAddr>().is_ok() {
                return Err(Failure::new(Reason::HostNameMismatch, format!("server_name {name:?} is no host name")));
            }
            builder = builder.dns_resolver(Arc::new(Elsewhere(request.address.host().clone())));
        }
        let http = build(builder, config, Scheme::Https, &self.settings)?;
        self.made = Some((files, http.clone()));
        Ok(http)
    }

    fn files(&self) -> Vec<FileState> {
        let own = self.tls.identity.iter().flat_map(|own| [&own.chain, &own.key]);
        self.tls.ca_file.iter().chain(own).map(|path| FileState::of(path)).collect()
    }
}

/// The body of an answer that reqwest delivers.
#[derive(Debug)]
pub(super) struct OrdinaryBody {
    answer: reqwest::Response,
    watch: Stopwatch,
}

impl OrdinaryBody {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.watch.bounded(self.answer.chunk()).await? {
            Ok(Some(bytes)) => {
                self.watch.count_body(bytes.len());
                Ok(Some(bytes))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                Err(classify::body_broke_off(self.watch.body_bytes(), &classify::words(&error.without_url())))
            }
        }
    }
}

/// What `stat` says of a file; it changes when the file is written or replaced, also through a symlink.
#[derive(Debug, PartialEq, Eq)]
struct FileState(Option<(u64, u64, u64, Option<SystemTime>)>);

impl FileState {
    fn of(path: &Path) -> Self {
        let state = std::fs::metadata(path).ok();
        Self(state.map(|state| (state.dev(), state.ino(), state.size(), state.modified().ok())))
    }
}

/// Resolves the name that is verified (`server_name`) to the host that is dialled.
struct Elsewhere(Host);

impl Resolve for Elsewhere {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // Without a port here: the library puts in that of the URL.
            let found: Addrs = match host {
                Host::Ip(ip) => Box::new(std::iter::once((ip, 0).into())),
                Host::Name(name) => Box::new(lookup_host((name.as_ref(), 0)).await?.collect::<Vec<_>>().into_iter()),
            };
            Ok(found)
        })
    }
}

fn build(
    builder: reqwest::ClientBuilder,
    tls: ClientConfig,
    scheme: Scheme,
    settings: &OrdinarySettings,
) -> Result<reqwest::Client, Failure> {
    let mut builder = builder
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(settings.timeout * 9 / 10)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE);
    if let Some(proxies) = &settings.proxies {
        builder = through(builder, proxies, scheme);
    }
    builder.build().map_err(|error| Failure::new(Reason::ConnectFailed, classify::words(&error)))
}

/// The client with the proxy for what is asked over `scheme`.
fn through(builder: reqwest::ClientBuilder, proxies: &Arc<Proxies>, scheme: Scheme) -> reqwest::ClientBuilder {
    let proxy = match scheme {
        Scheme::Http => &proxies.http,
        Scheme::Https => &proxies.https,
    };
    let Some(authorization) = proxy.as_ref().map(Proxy::authorization) else { return builder };
    let rules = Arc::clone(proxies);
    let mut proxy = reqwest::Proxy::custom(move |url| rules.for_url(url).map(|proxy| proxy.url().clone()));
    if let Some(authorization) = authorization {
        proxy = proxy.custom_http_auth(authorization);
    }
    // Without a tunnel the library would send them to the server, too.
    if scheme == Scheme::Https {
        proxy = proxy.headers(proxies.connect_headers());
    }
    builder.proxy(proxy)
}

/// Asks, and follows redirects as far as `may_leave` allows.
async fn exchange(
    http: &reqwest::Client,
    (settings, secrets): (&OrdinarySettings, &mut KnownSecrets),
    scheme: Scheme,
    server_name: Option<&str>,
    request: &Request,
    may_leave: impl Fn(&Url, &Url) -> Result<(), &'static str>,
) -> Result<Response<'static>, Failure> {
    let mut watch = Stopwatch::until(request.deadline);
    let mut headers = request.headers.clone();
    *secrets = auth::add(&mut headers, settings.auth.as_ref(), &settings.http_headers)?;
    if let Some(tokens) = &settings.tokens {
        auth::add_token(&mut headers, secrets, tokens.header_by(request.deadline).await)?;
    }
    for secret in settings.proxies.iter().flat_map(|proxies| proxies.secrets()) {
        secrets.add(&secret);
    }
    let mut trail = Trail::from(scheme, &request.address, &request.path_and_query)?;
    loop {
        let mut place = trail.here().clone();
        if let Some(name) = server_name {
            headers.insert(HOST, host_header(request));
            place.set_host(Some(name)).map_err(|error| {
                Failure::new(Reason::HostNameMismatch, format!("server_name {name:?} is no host name: {error}"))
            })?;
        }
        watch.enter(Stage::Answer);
        let proxy = settings.proxies.as_ref().and_then(|proxies| proxies.for_url(&place)).cloned();
        let answer = ask(http, place, &headers, scheme, &mut watch).await;
        let answer = answer.map_err(|mut failure| {
            if let Some(proxy) = proxy {
                failure.detail = format!("through the proxy {proxy}: {}", failure.detail);
                failure = advice::add_to_proxied(failure);
            }
            failure
        })?;
        watch.answered();
        let size: usize = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > MAX_HEADER_BYTES {
            return Err(Failure::new(Reason::HttpProtocol, "the response header is larger than 16 KiB"));
        }
        if !settings.follow_redirects || !redirect::is_redirect(answer.status()) {
            return Ok(Response {
                status: answer.status(),
                headers: answer.headers().clone(),
                peer: report(&answer, server_name, request),
                phases: watch.phases(),
                body: Body(BodyKind::Ordinary(OrdinaryBody { answer, watch })),
            });
        }
        trail.follow(answer.status(), answer.headers(), |here, next| match settings.within_origin {
            true => Err("it is another origin (scheme, host and port)"),
            false => may_leave(here, next),
        })?;
        if trail.left_origin() {
            headers = harmless(&headers);
        }
    }
}

/// One request. A kept connection may have been closed while it was idle, which the library notices in most cases and
/// answers with a new one; where it does not, the request is sent a second time.
async fn ask(
    http: &reqwest::Client,
    place: Url,
    headers: &HeaderMap,
    scheme: Scheme,
    watch: &mut Stopwatch,
) -> Result<reqwest::Response, Failure> {
    let send = || http.get(place.clone()).headers(headers.clone()).send();
    let error = match watch.bounded(send()).await? {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    if !classify::closed_without_answer(&error) {
        return Err(classify::ordinary(error, scheme));
    }
    watch.bounded(send()).await?.map_err(|error| classify::ordinary(error, scheme))
}

fn harmless(headers: &HeaderMap) -> HeaderMap {
    HARMLESS.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

fn host_header(request: &Request) -> HeaderValue {
    HeaderValue::try_from(request.address.to_string()).expect("an address consists of letters, digits and a few marks")
}

/// Who answered, as far as the library tells: it keeps the leaf and the version, and not the cipher; behind a proxy
/// nothing.
fn report(answer: &reqwest::Response, server_name: Option<&str>, request: &Request) -> Option<PeerReport> {
    let info = answer.extensions().get::<TlsInfo>()?;
    let facts = CertificateFacts::read(&CertificateDer::from(info.peer_certificate()?)).ok()?;
    let version = match info.version() {
        Some(reqwest::tls::Version::TLS_1_3) => "TLSv1.3",
        Some(reqwest::tls::Version::TLS_1_2) => "TLSv1.2",
        _ => "",
    };
    Some(PeerReport {
        identity: server_name.map_or_else(|| request.address.host().to_string(), str::to_owned),
        exact: true,
        tls_version: version.to_owned(),
        cipher: String::new(),
        not_after: facts.not_after,
        chain: vec![facts.to_string()],
    })
}
