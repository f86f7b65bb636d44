//! A running agent as a command sees it: its HTTP API, on this host or by a port that is forwarded to it.
//!
//! What an agent answers is foreign text, parts of it written by the pods it scrapes: whoever prints it cleans it. An
//! API is only ever asked on a loopback address: over mTLS an agent serves workloads, not people.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use crate::model::{clean, clean_to};

/// Where an agent serves its API unless it is told otherwise.
pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:9465";
/// The port of that.
pub(super) const DEFAULT_PORT: u16 = 9465;
/// More than an agent of a large cluster has to say of its targets.
const MAX_BODY: usize = 256 << 20;
/// How long a forwarded port that has closed may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much of an error that an agent answers is shown.
const SHOWN_BYTES: usize = 1024;

/// Where an agent's API is reached.
#[derive(Clone, Debug)]
pub(super) enum AgentApi {
    /// A loopback address, as `host:port`.
    Here(String),
    /// A port of the agent's pod, forwarded by the API server in this process.
    Pod { pods: Box<Api<Pod>>, namespace: String, name: String, port: u16 },
}

/// Why an agent has nothing to say.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    /// No connection, or no answer in time.
    #[error("no agent answers at {place}: {why}")]
    Unreachable { place: String, why: String },
    /// It says no.
    #[error("the agent at {place} answered {status}: {message}")]
    Refused { place: String, status: u16, message: String },
    /// It answers, and not as an agent does.
    #[error("what answers at {place} is no agent: {why}")]
    Strange { place: String, why: String },
}

/// `data` of `/api/v1/targets`; other scrapers that speak Prometheus' API leave out what is ours.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Targets {
    pub(super) active_targets: Vec<ActiveTarget>,
    pub(super) dropped_targets: Vec<DroppedTarget>,
    /// By job, complete also where `dropped_targets` is not.
    pub(super) dropped_target_counts: Option<BTreeMap<String, usize>>,
    /// Pods that it knows and that can be no targets yet; some of them.
    pub(super) waiting_pods: Vec<WaitingPod>,
    /// How many there are besides, at least.
    pub(super) waiting_pods_omitted: usize,
    /// What it is in trouble with.
    pub(super) problems: Vec<String>,
}

/// A pod that can be no target yet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct WaitingPod {
    /// `namespace/name`.
    pub(super) pod: String,
    pub(super) why: String,
}

/// A target that is scraped, or listed with the reason why it may not be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ActiveTarget {
    pub(super) id: String,
    pub(super) scrape_pool: String,
    pub(super) scrape_url: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) discovered_labels: BTreeMap<String, String>,
    /// `up`, `down` or `unknown`.
    pub(super) health: String,
    pub(super) last_error: String,
    pub(super) last_scrape: String,
    pub(super) reason: String,
    pub(super) hint: String,
    /// What the answers of a healthy target lack.
    pub(super) lack: String,
    pub(super) expected_identity: String,
    pub(super) identity_match: String,
    pub(super) accepted_identities: Vec<String>,
}

/// A target that is not scraped.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DroppedTarget {
    pub(super) scrape_pool: String,
    pub(super) discovered_labels: BTreeMap<String, String>,
    /// Counted from 1.
    pub(super) by_rule: Option<usize>,
    pub(super) rule: Option<String>,
    pub(super) error: Option<String>,
}

impl AgentApi {
    /// The API at a URL that somebody typed; the error is a sentence.
    pub(super) fn at(url: &str) -> Result<Self, String> {
        let example = format!("write for example {DEFAULT_URL}");
        let parsed = Url::parse(url).map_err(|error| format!("{url:?} is no URL ({error}); {example}"))?;
        let host = parsed.host_str().unwrap_or_default();
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let here = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if parsed.scheme() != "http" || !here {
            return Err(format!(
                "an agent serves its API on a loopback address over http, so {url:?} is none; forward its port, and {example}"
            ));
        }
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || !parsed.username().is_empty() {
            return Err(format!("{url:?} has more than a host and a port; {example}"));
        }
        Ok(Self::Here(format!("{host}:{}", parsed.port().unwrap_or(80))))
    }

    /// All that the agent knows of its targets.
    pub(super) async fn targets(&self, patience: Duration) -> Result<Targets, ApiError> {
        self.ask(Method::GET, "/api/v1/targets", patience).await
    }

    /// One live scrape of the target with this id, its exposition included; `more` is more of the query.
    pub(super) async fn scrape<T: DeserializeOwned>(
        &self,
        id: &str,
        more: &str,
        patience: Duration,
    ) -> Result<T, ApiError> {
        self.ask(Method::POST, &format!("/api/v1/targets/{id}/scrape?body=true{more}"), patience).await
    }

    /// The place in words.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Here(address) => format!("http://{address}"),
            Self::Pod { namespace, name, port, .. } => {
                format!("port {port} of pod {}/{}", clean(namespace), clean(name))
            }
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, patience: Duration) -> Result<T, ApiError> {
        #[derive(Deserialize)]
        struct Answer<T> {
            data: T,
        }
        let place = self.place();
        let (status, body) = match tokio::time::timeout(patience, self.exchange(method, path)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(ApiError::Unreachable { place, why }),
            Err(_) => {
                return Err(ApiError::Unreachable { place, why: format!("no answer within {}s", patience.as_secs()) });
            }
        };
        if status != StatusCode::OK {
            let message = error_of(&body);
            return Err(ApiError::Refused { place, status: status.as_u16(), message });
        }
        let answer: Result<Answer<T>, _> = serde_json::from_slice(&body);
        answer.map(|answer| answer.data).map_err(|error| ApiError::Strange { place, why: error.to_string() })
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), String> {
        match self {
            Self::Here(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                exchange(stream, request(method, address, path)).await.map_err(|error| error.to_string())
            }
            Self::Pod { pods, name, port, .. } => {
                let mut forwarder =
                    pods.portforward(name, &[*port]).await.map_err(|error| crate::discover::client_error(&error))?;
                let stream = forwarder.take_stream(*port).ok_or("BUG: the forwarded port has no stream")?;
                // The pod's end of it is a loopback address, too, and the agent asks for one in the Host header.
                let answer = exchange(stream, request(method, &format!("127.0.0.1:{port}"), path));
                let refused = forwarder.take_error(*port).ok_or("BUG: the forwarded port has no errors")?;
                tokio::pin!(answer, refused);
                let words = |error: String| clean_to(error.trim(), SHOWN_BYTES).into_owned();
                // A kubelet may hang up before its words are through.
                let mute =
                    |error: io::Error| format!("{error}; does it serve its API there? --agent-port names another");
                let mut nothing_to_say = false;
                loop {
                    tokio::select! {
                        // It comes before the end that it explains.
                        biased;
                        said = refused.as_mut(), if !nothing_to_say => match said {
                            Some(error) => return Err(words(error)),
                            None => nothing_to_say = true,
                        },
                        answer = answer.as_mut() => match answer {
                            Err(_) if !nothing_to_say => {
                                // Or, on a stream of its own, a moment behind it.
                                if let Ok(Some(said)) = tokio::time::timeout(LAST_WORDS, refused.as_mut()).await {
                                    return Err(words(said));
                                }
                                return answer.map_err(mute);
                            }
                            answer => return answer.map_err(mute),
                        },
                    }
                }
            }
        }
    }
}

/// A request without content. The header says that no page in a browser has sent it.
fn request(method: Method, host: &str, path: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    Request::builder().method(method).uri(path).header(HOST, host).header("X-Meshscrape", "scrape").body(Empty::new())
}

/// Asks once on a fresh stream, which ends with the answer.
pub(super) async fn exchange<S>(
    stream: S,
    request: Result<Request<Empty<Bytes>>, http::Error>,
) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request.map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok((status, body.map_err(io::Error::other)?.to_bytes()))
    };
    // The connection is driven only for as long as the answer takes, and gone with it.
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(io::Error::other(error)),
    }
}

/// What an answer that is an error says, cleaned: the `error` of the API's frame, or the beginning of whatever it is.
fn error_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Frame {
        error: String,
    }
    let text = match serde_json::from_slice::<Frame>(body) {
        Ok(frame) => frame.error,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]).trim().to_owned(),
    };
    clean_to(&text, SHOWN_BYTES).into_owned()
}
