//! The way to the API server: in-cluster, by kubeconfig, or as the file says.
//!
//! An [`Api`] is made anew for every attempt that follows a failure, so that whatever it was made of (token, roots,
//! kubeconfig, the server's address) may change while the process runs. What always holds: the server is verified, by
//! chain and host name; a kubeconfig that wants to skip that is refused with a sentence. No error shows a secret.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;

use super::words::client_error;
use crate::clock::Clock;
use crate::config::{ApiServer, Auth, KubernetesAccess};
use crate::identity::ordinary_tls_config;
use crate::model::clean_to;

/// How long the server may take to begin an answer, connecting included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How much is read of an answer that says what went wrong.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// How much of that is shown.
const SHOWN_BYTES: usize = 512;

/// Why the API server could not be asked, or what it said.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    /// There is no way to it.
    #[error("there is no way to the API server: {0}")]
    Access(String),
    /// No answer.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// It does not answer in time.
    #[error("the API server did not answer within {} seconds", .0.as_secs())]
    Slow(Duration),
    /// The answer broke off, or is not what it should be.
    #[error("the answer of the API server {0}")]
    Broken(String),
    /// It refuses.
    #[error("the API server refuses ({code}): {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// Its words, cleaned.
        message: String,
    },
    /// What was asked for is no longer remembered (410): everything must be listed anew.
    #[error("the API server no longer remembers what we have seen")]
    Gone,
}

impl ApiError {
    /// What to do about it, where that can be said.
    pub(super) fn next_step(&self) -> Option<&'static str> {
        match self {
            ApiError::Refused { code: 401, .. } => {
                Some("the token is not accepted: it has expired, or belongs to another cluster")
            }
            ApiError::Refused { code: 403, .. } => {
                Some("grant get, list and watch on it to the service account (see deploy/)")
            }
            _ => None,
        }
    }
}

/// The API server, ready to be asked.
pub(super) struct Api {
    client: Client,
    /// Read anew for every request; `None` where the client library brings its own.
    auth: Option<Auth>,
}

impl Api {
    /// Finds the server. With `https_only` one that nobody could verify is refused: what it says decides which identity
    /// is expected of whom.
    pub(super) async fn new(access: &KubernetesAccess, https_only: bool, clock: &Clock) -> Result<Self, ApiError> {
        let api = match access {
            KubernetesAccess::InCluster => {
                let config = Config::incluster().map_err(|error| {
                    ApiError::Access(format!("this process does not run in a pod with a service account ({error})"))
                })?;
                Self { client: client(config).await?, auth: None }
            }
            KubernetesAccess::Kubeconfig(path) => {
                let shown = path.display();
                let unusable = |error: KubeconfigError| ApiError::Access(format!("{shown}: {}", client_error(&error)));
                let file = Kubeconfig::read_from(path).map_err(unusable)?;
                let mut config =
                    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)?;
                if config.accept_invalid_certs {
                    return Err(ApiError::Access(format!(
                        "{shown} says insecure-skip-tls-verify, and nothing is skipped; name the server's CA instead"
                    )));
                }
                if https_only && config.cluster_url.scheme_str() != Some("https") {
                    return Err(ApiError::Access(format!(
                        "{shown} names a server without https, whose word may not decide who is believed; use https"
                    )));
                }
                if let Some(plugin) = &mut config.auth_info.exec {
                    // Nobody sits here to be asked, and what it complains of is not for our log.
                    plugin.interactive_mode = Some(ExecInteractiveMode::Never);
                }
                Self { client: client(config).await?, auth: None }
            }
            KubernetesAccess::Server(server) => {
                Self { client: client_of(server, clock).await?, auth: server.auth.clone() }
            }
        };
        Ok(api)
    }

    /// One that asks `client`, whose answers a test makes up.
    #[cfg(test)]
    pub(super) fn through(client: Client) -> Self {
        Self { client, auth: None }
    }

    /// Sends a GET and returns the answer if it is a good one. The body may go on for ever.
    pub(super) async fn get(&self, path_and_query: &str) -> Result<Response<Body>, ApiError> {
        let mut request = Request::get(path_and_query)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, HeaderValue::from_static(concat!("meshscrape/", env!("CARGO_PKG_VERSION"))))
            .body(Body::empty())
            .map_err(|error| ApiError::Broken(format!("cannot be asked for: {error}")))?;
        if let Some(auth) = &self.auth {
            let text = auth.header().map_err(|error| ApiError::Access(error.to_string()))?;
            let mut value = HeaderValue::try_from(text.expose())
                .map_err(|_| ApiError::Access("a secret contains a character that no header may hold".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = match timeout(HEAD_TIMEOUT, self.client.send(request)).await {
            Err(_) => return Err(ApiError::Slow(HEAD_TIMEOUT)),
            Ok(Err(error)) => return Err(ApiError::Unreachable(client_error(&error))),
            Ok(Ok(answer)) => answer,
        };
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::GONE => Err(ApiError::Gone),
            status => {
                let body = Limited::new(answer.into_body(), MAX_ERROR_BYTES).collect();
                let words = match timeout(HEAD_TIMEOUT, body).await {
                    Ok(Ok(body)) => words_of(&body.to_bytes()),
                    Ok(Err(error)) if error.is::<LengthLimitError>() => "an endless answer".to_owned(),
                    Ok(Err(_)) | Err(_) => String::new(),
                };
                Err(ApiError::Refused { code: status.as_u16(), message: words })
            }
        }
    }
}

/// A client without retries of its own, which would hide from us how the server is doing.
async fn client(mut config: Config) -> Result<Client, ApiError> {
    config.default_retry = false;
    config.proxy_url = None;
    // Files are read here, and a plugin of the kubeconfig may take its time.
    tokio::task::spawn_blocking(|| Client::try_from(config))
        .await
        .map_err(|error| ApiError::Access(format!("making the client was ended: {error}")))?
        .map_err(|error| ApiError::Access(client_error(&error)))
}

async fn client_of(server: &ApiServer, clock: &Clock) -> Result<Client, ApiError> {
    let uri: Uri =
        server.url.parse().map_err(|error| ApiError::Access(format!("{} is not a URL: {error}", server.url)))?;
    let (tls, clock) = (server.tls.clone(), clock.clone());
    let server_name = tls.server_name.clone();
    let tls = tokio::task::spawn_blocking(move || ordinary_tls_config(&tls, &clock))
        .await
        .map_err(|error| ApiError::Access(format!("reading the certificate files was ended: {error}")))?
        .map_err(|failure| ApiError::Access(failure.to_string()))?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(HEAD_TIMEOUT));
    let mut connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = server_name {
        let name = rustls::pki_types::ServerName::try_from(name)
            .map_err(|error| ApiError::Access(format!("tls_config.server_name: {error}")))?;
        connector = connector.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name));
    }
    let https = connector.enable_http1().wrap_connector(tcp);
    let http: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new()).build(https);
    let base = Config::new(uri).base_uri_layer();
    Ok(ClientBuilder::new(http, "default").with_layer(&base).build())
}

/// What a `Status` object says, or the text as it is.
fn words_of(body: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let text = match serde_json::from_slice::<Status>(body) {
        Ok(status) => status.message,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    clean_to(&text, SHOWN_BYTES).into_owned()
}
