//! Targets in a list over HTTP: `http_sd_configs`.
//!
//! One task asks for the list of one entry: at once, then at every `refresh_interval`, which is also the time that one
//! request may take. What always holds: a list that cannot be fetched or understood leaves the targets that there were,
//! and is reported; a list is taken whole; redirects stay within the origin that was asked; a password in the URL is
//! sent to the server and shown nowhere.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::{Position, Url};

use super::content::{self, ContentError, Format};
use super::metrics::HTTP;
use super::{Answer, Group, Metrics, Problem};
use crate::clock::Clock;
use crate::config::{Auth, HttpSd, KnownSecrets, Secret, SecretSource};
use crate::connect::{Body, Client, HostNameClient, OrdinarySettings, PlainClient, Request};
use crate::model::{Address, Candidate, Failure, clean_to};
use crate::token::Tokens;

/// How much of a problem is shown.
const SHOWN_BYTES: usize = 1024;
/// The largest list that is read: some hundred thousand targets, as in a file.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The label that holds the URL of the list.
const URL: &str = "__meta_url";

const AGENT: &str = concat!("meshscrape/", env!("CARGO_PKG_VERSION"));
const INTERVAL_HEADER: HeaderName = HeaderName::from_static("x-prometheus-refresh-interval-seconds");

/// Why a list was not taken.
#[derive(Debug, Error)]
enum ListError {
    #[error("{0}; write url: http://host/path or https://host/path")]
    Url(String),
    #[error(transparent)]
    Exchange(#[from] Failure),
    #[error("server returned HTTP status {0}, only 200 is taken")]
    Status(StatusCode),
    #[error("unsupported content type {0:?}, application/json is expected")]
    ContentType(String),
    #[error("the body is encoded as {0:?}, which was not asked for")]
    Encoded(String),
    #[error("it has more than {} MiB; split it into several lists", MAX_BODY_BYTES >> 20)]
    TooLarge,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("reading it was ended")]
    Ended,
}

/// Asks for the list of `config` until `cancel` or until `report` says that nobody listens, and reports each change of
/// what it says; the first report comes in any case.
pub(super) async fn run<R: Future<Output = bool>>(
    config: HttpSd,
    clock: Clock,
    metrics: Metrics,
    cancel: CancellationToken,
    report: impl Fn(Answer) -> R,
) {
    let mut list = List { shown: config.shown_url(), ..List::default() };
    let mut server = match Server::of(&config, clock) {
        Ok(server) => server,
        // Nothing can be asked before there is another configuration.
        Err(error) => {
            list.keep(&error, &KnownSecrets::default(), &metrics);
            report(list.answer()).await;
            return;
        }
    };
    let mut ticks = tokio::time::interval(config.refresh_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = None;
    loop {
        let refreshed = async {
            ticks.tick().await;
            let began = Instant::now();
            let fetched = server.list().await;
            metrics.refreshed(HTTP, began.elapsed(), fetched.is_err());
            match fetched {
                Ok(candidates) => list.take(candidates),
                Err(error) => list.keep(&error, server.client.secrets(), &metrics),
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = refreshed => {}
        }
        let answer = list.answer();
        if last.as_ref() != Some(&answer) {
            last = Some(answer.clone());
            if !report(answer).await {
                return;
            }
        }
    }
}

/// What is known of a list.
#[derive(Default)]
struct List {
    /// Its URL for people.
    shown: String,
    candidates: Group,
    /// Why the last request failed.
    problem: Option<String>,
    /// It was read once.
    complete: bool,
}

impl List {
    fn take(&mut self, candidates: Vec<Candidate>) {
        if self.problem.take().is_some() {
            info!(url = self.shown, "a list of targets can be used again");
        }
        self.complete = true;
        // The same group again says that nothing has changed.
        if *self.candidates != candidates {
            self.candidates = Arc::new(candidates);
        }
    }

    fn keep(&mut self, error: &ListError, secrets: &KnownSecrets, metrics: &Metrics) {
        metrics.http_failures.inc();
        let problem = clean_to(&secrets.hide(&error.to_string()), SHOWN_BYTES).into_owned();
        if self.problem.as_ref() != Some(&problem) {
            let kept = self.candidates.len();
            warn!(url = self.shown, error = problem, kept, "a list of targets cannot be used, those it had are kept");
        }
        self.problem = Some(problem);
    }

    fn answer(&self) -> Answer {
        let problem = |message: &String| Problem { source: self.shown.clone(), message: message.clone() };
        Answer {
            groups: vec![Arc::clone(&self.candidates)],
            problems: self.problem.iter().map(problem).collect(),
            complete: self.complete,
            ..Answer::default()
        }
    }
}

/// Where a list is asked for, and how.
struct Server {
    client: Client,
    /// The URL as it was written, without user name and password.
    url: String,
    address: Address,
    path_and_query: Arc<str>,
    headers: HeaderMap,
    /// How long one request may take.
    patience: Duration,
}

impl Server {
    fn of(config: &HttpSd, clock: Clock) -> Result<Self, ListError> {
        let url = Url::parse(config.url.expose()).map_err(|error| ListError::Url(error.to_string()))?;
        let authority = &url[Position::BeforeHost..Position::AfterPort];
        let address = Address::parse(authority).map_err(|error| ListError::Url(error.to_string()))?;
        let settings = OrdinarySettings {
            timeout: config.refresh_interval,
            follow_redirects: config.follow_redirects,
            within_origin: true,
            http2: true,
            auth: auth_in(&url).or_else(|| config.auth.clone()),
            tokens: config.oauth2.clone().map(|oauth2| Tokens::new(oauth2, clock.clone())),
            http_headers: config.http_headers.clone(),
            proxies: config.proxies.clone(),
        };
        let client = match url.scheme() {
            "https" => Client::HostName(HostNameClient::new(settings, config.tls.clone(), clock)),
            "http" => Client::Plain(PlainClient::new(settings)?),
            other => return Err(ListError::Url(format!("{other:?} is neither http nor https"))),
        };
        let seconds = config.refresh_interval.as_secs_f64().to_string();
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(INTERVAL_HEADER, seconds.try_into().expect("digits and a point"));
        Ok(Self {
            client,
            url: config.url_without_user_info(),
            address,
            path_and_query: url[Position::BeforePath..Position::AfterQuery].into(),
            headers,
            patience: config.refresh_interval,
        })
    }

    /// The list as it is now.
    async fn list(&mut self) -> Result<Vec<Candidate>, ListError> {
        let request = Request {
            address: self.address.clone(),
            path_and_query: Arc::clone(&self.path_and_query),
            headers: self.headers.clone(),
            deadline: Instant::now() + self.patience,
        };
        let mut answer = self.client.get(&request).await?;
        if answer.status != StatusCode::OK {
            return Err(ListError::Status(answer.status));
        }
        let header =
            |name| answer.headers.get(name).map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()));
        let content_type = header(CONTENT_TYPE).unwrap_or_default();
        if !is_json(&content_type) {
            return Err(ListError::ContentType(content_type.into_owned()));
        }
        if let Some(encoding) = header(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return Err(ListError::Encoded(encoding.into_owned()));
        }
        let body = whole(&mut answer.body).await?;
        let url = self.url.clone();
        // A large list takes its time, and the runtime's threads have more to do.
        let read = tokio::task::spawn_blocking(move || read(body, &url));
        read.await.map_err(|_| ListError::Ended)?
    }
}

/// The body up to its end.
async fn whole(body: &mut Body<'_>) -> Result<Vec<u8>, ListError> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.chunk().await? {
        if bytes.len() + piece.len() > MAX_BODY_BYTES {
            return Err(ListError::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn read(body: Vec<u8>, url: &str) -> Result<Vec<Candidate>, ListError> {
    let text = String::from_utf8(body).map_err(|_| ListError::NotUtf8)?;
    Ok(content::candidates_of((URL, url), Format::Json, &text)?)
}

/// As Prometheus: nothing but `application/json`, in UTF-8 if it says so.
fn is_json(content_type: &str) -> bool {
    let text = content_type.trim().to_ascii_lowercase();
    match text.strip_prefix("application/json") {
        Some("") => true,
        Some(rest) => match rest.strip_prefix(';') {
            Some(parameter) => matches!(parameter.trim_start(), "charset=utf-8" | "charset=\"utf-8\""),
            None => false,
        },
        None => false,
    }
}

/// User name and password in a URL, which count as those of `basic_auth`.
fn auth_in(url: &Url) -> Option<Auth> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let inline = |text: &str| SecretSource::Inline(Secret::new(percent_decode_str(text).decode_utf8_lossy()));
    Some(Auth::Basic { username: inline(url.username()), password: inline(url.password().unwrap_or_default()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_json_is_taken() {
        for (content_type, expected) in [
            ("application/json", true),
            (" Application/JSON\t", true),
            ("application/json;charset=utf-8", true),
            ("application/json; charset=UTF-8", true),
            ("application/json;  charset=\"utf-8\"", true),
            ("application/json;", false),
            ("application/json ;charset=utf-8", false),
            ("application/json; charset=utf-8; v=1", false),
            ("application/json; charset=latin1", false),
            ("application/json; v=1", false),
            ("application/jsonl", false),
            ("text/json", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), expected, "{content_type:?}");
        }
    }

    #[test]
    fn user_name_and_password_of_a_url_are_decoded() {
        let auth = |url: &str| auth_in(&Url::parse(url).expect("a URL"));
        let Some(Auth::Basic { username, password }) = auth("http://us%40er:p%3Aw+x@h/") else { panic!("basic") };
        let text = |source: &SecretSource| source.read().expect("inline").expose().to_owned();
        assert_eq!((text(&username).as_str(), text(&password).as_str()), ("us@er", "p:w+x"));
        assert_eq!(auth("http://h/@x"), None);
    }
}
