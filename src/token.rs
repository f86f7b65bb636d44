//! OAuth 2 tokens: fetched when one is needed, kept until shortly before they end, shared by whoever needs the same one.
//!
//! What always holds: however many wait, one request is under way, and it goes on when all of them have given up, so
//! that a token that takes longer than a scrape may serves the next one; the client's secret is read anew for every
//! use, and another secret brings another token; the one who is asked is verified like any server, and neither followed
//! elsewhere nor read beyond 1 MiB; neither secret nor token is in an error, nor what the query of `token_url` holds or
//! a proxy is told.
//!
//! This room does not know what a token is for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Position, Url, form_urlencoded};

use crate::clock::Clock;
use crate::config::{KnownSecrets, OAuth2, Secret, SecretError};
use crate::identity::ordinary_tls_config;
use crate::model::{clean, clean_to};

/// How much of an answer is read, as in Go's client.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How much of what the other one says is shown.
const SHOWN_BYTES: usize = 200;
/// A token is not used when it has so little time left, as in Go's client.
const MARGIN: Duration = Duration::from_secs(10);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long all who wait are told the same failure, instead of each asking again.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const AGENT: &str = concat!("meshscrape/", env!("CARGO_PKG_VERSION"));

/// Why there is no token. Names the one who was asked; holds no secret.
#[derive(Clone, Debug, Error)]
pub enum TokenError {
    /// The client's secret cannot be read.
    #[error("oauth2: {0}")]
    Secret(Arc<SecretError>),
    /// No connection can be made, no answer came, or one that breaks off.
    #[error("no OAuth 2 token from {url}: {words}")]
    Exchange {
        /// Who was asked.
        url: String,
        /// What went wrong.
        words: String,
    },
    /// It takes longer than whoever needs it can wait.
    #[error("no OAuth 2 token from {url}: none came within {patience:?}; it is used as soon as it comes")]
    Late {
        /// Who was asked.
        url: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The answer is a refusal.
    #[error("no OAuth 2 token from {url}: it answered {status}{words}")]
    Refused {
        /// Who was asked.
        url: String,
        /// Its answer.
        status: StatusCode,
        /// What it said, in brackets.
        words: String,
    },
    /// The answer holds no token that could be sent.
    #[error("no OAuth 2 token from {url}: its answer {what}")]
    Unusable {
        /// Who was asked.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Gets and keeps the token of one client. Clones share it.
#[derive(Clone)]
pub struct Tokens {
    settings: Arc<OAuth2>,
    clock: Clock,
    kept: Arc<Mutex<Kept>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tokens").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Kept {
    token: Option<Token>,
    failure: Option<(Instant, TokenError)>,
    /// How the one who is asked wants to be told who we are, once that is known.
    style: Option<Style>,
}

struct Token {
    header: HeaderValue,
    /// The secret that it was given for.
    secret: Secret,
    ends: Option<Instant>,
}

/// Where the client's name and secret stand in a request (RFC 6749, section 2.3.1).
#[derive(Clone, Copy)]
enum Style {
    Header,
    Body,
}

/// An answer (RFC 6749, section 5.1), or a refusal (section 5.2). What is `null` in it is absent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    #[serde(deserialize_with = "text")]
    access_token: String,
    #[serde(deserialize_with = "text")]
    token_type: String,
    #[serde(deserialize_with = "seconds")]
    expires_in: f64,
    #[serde(deserialize_with = "text")]
    error: String,
    #[serde(deserialize_with = "text")]
    error_description: String,
}

impl Tokens {
    /// Nothing is asked yet.
    pub fn new(settings: Arc<OAuth2>, clock: Clock) -> Self {
        Self { settings, clock, kept: Arc::default() }
    }

    /// As [`Tokens::header`], but waits until `deadline` at most.
    pub async fn header_by(&self, deadline: Instant) -> Result<HeaderValue, TokenError> {
        let begun = Instant::now();
        timeout_at(deadline, self.header()).await.unwrap_or_else(|_| {
            let patience = deadline.saturating_duration_since(begun);
            // The deadline was set some microseconds before.
            let patience =
                Duration::from_millis(u64::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
            Err(TokenError::Late { url: self.url(), patience })
        })
    }

    /// The value of an `Authorization` header with a token that is good now, marked so that no library shows it. Whoever
    /// asks may give up waiting at any time.
    pub async fn header(&self) -> Result<HeaderValue, TokenError> {
        let source = self.settings.client_secret.clone();
        let read = spawn_blocking(move || source.read()).await.map_err(|error| self.ended(&error))?;
        let secret = read.map_err(|error| TokenError::Secret(Arc::new(error)))?;
        // Held by the request while one is under way.
        let mut kept = Arc::clone(&self.kept).lock_owned().await;
        if let Some(token) = &kept.token
            && token.secret == secret
            && token.ends.is_none_or(|ends| Instant::now() + MARGIN < ends)
        {
            return Ok(token.header.clone());
        }
        if let Some((when, failure)) = &kept.failure
            && when.elapsed() < FAILURE_HOLDS
        {
            return Err(failure.clone());
        }
        kept.token = None;
        let this = self.clone();
        // A task of its own, which ends with its answer and not with whoever asked first.
        let request = tokio::spawn(async move {
            match this.fetch(&secret, &mut kept.style).await {
                Ok(token) => {
                    let header = token.header.clone();
                    *kept = Kept { token: Some(token), failure: None, style: kept.style };
                    Ok(header)
                }
                Err(error) => {
                    kept.failure = Some((Instant::now(), error.clone()));
                    Err(error)
                }
            }
        });
        request.await.map_err(|error| self.ended(&error))?
    }

    /// Asks in the way that is known to work; else in the header, and where that is refused in the body, as Go's client
    /// finds it out.
    async fn fetch(&self, secret: &Secret, style: &mut Option<Style>) -> Result<Token, TokenError> {
        let client = self.client().await?;
        let first = style.unwrap_or(Style::Header);
        match self.ask(&client, secret, first).await {
            Err(TokenError::Refused { .. }) if style.is_none() => {
                let token = self.ask(&client, secret, Style::Body).await?;
                *style = Some(Style::Body);
                Ok(token)
            }
            Ok(token) => {
                *style = Some(first);
                Ok(token)
            }
            Err(error) => Err(error),
        }
    }

    /// A client for one token: they are rare, and so its files are as they are now.
    async fn client(&self) -> Result<reqwest::Client, TokenError> {
        let (tls, clock) = (self.settings.tls.clone(), self.clock.clone());
        let read = spawn_blocking(move || ordinary_tls_config(&tls, &clock)).await;
        let mut tls = read
            .map_err(|error| self.ended(&error))?
            .map_err(|failure| TokenError::Exchange { url: self.url(), words: failure.to_string() })?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let place = self.place()?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(self.settings.token_url.scheme() == "https")
            .http1_only()
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE);
        let url = &self.settings.token_url;
        if let Some(name) = place.host_str().filter(|name| url.host_str() != Some(name)) {
            builder = builder.resolve_to_addrs(name, &self.addresses().await?);
        }
        if let Some(proxies) = &self.settings.proxies
            && let Some(proxy) = proxies.for_url(url)
        {
            let mut through = reqwest::Proxy::all(proxy.url().clone()).map_err(|error| self.broken(error))?;
            if let Some(authorization) = proxy.authorization() {
                through = through.custom_http_auth(authorization);
            }
            if url.scheme() == "https" {
                through = through.headers(proxies.connect_headers());
            }
            builder = builder.proxy(through);
        }
        builder.build().map_err(|error| self.broken(error))
    }

    /// The URL to ask. Where the settings name the server otherwise than `token_url`, the name stands in it, because there
    /// the client takes the name from that is sent and checked; it is resolved as the host of `token_url`.
    fn place(&self) -> Result<Url, TokenError> {
        let mut url = self.settings.token_url.clone();
        if let Some(name) = &self.settings.tls.server_name
            && url.scheme() == "https"
            && (!matches!(Host::parse(name), Ok(Host::Domain(_))) || url.set_host(Some(name)).is_err())
        {
            let words = format!("tls_config.server_name is {name:?}; here it must be a host name");
            return Err(TokenError::Exchange { url: self.url(), words });
        }
        Ok(url)
    }

    /// Where the host of `token_url` is; without ports, which are those of the URL.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, TokenError> {
        let host = self.settings.token_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let failed = |words: String| TokenError::Exchange { url: self.url(), words: clean(&words).into_owned() };
        match timeout(PATIENCE, lookup_host((host, 0))).await {
            Ok(Ok(found)) => Ok(found.collect()),
            Ok(Err(error)) => Err(failed(format!("{host} does not resolve: {error}"))),
            Err(_) => Err(failed(format!("{host}: the resolver did not answer within {PATIENCE:?}"))),
        }
    }

    async fn ask(&self, client: &reqwest::Client, secret: &Secret, style: Style) -> Result<Token, TokenError> {
        let authority = &self.settings.token_url[Position::BeforeHost..Position::AfterPort];
        let mut request = client
            .post(self.place()?)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, AGENT)
            .body(self.form(secret, style));
        if matches!(style, Style::Header) {
            let mut value = HeaderValue::try_from(format!("Basic {}", self.pair(secret))).expect("ASCII");
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let asked = Instant::now();
        let mut answer = request.send().await.map_err(|error| self.broken(error))?;
        let (status, kind) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.unusable("is larger than 1 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        let is_form = kind.is_some_and(|kind| kind.to_str().is_ok_and(is_form));
        let read = if is_form { Some(read_form(&body)) } else { serde_json::from_slice::<Answer>(&body).ok() };
        match read {
            Some(read) if status.is_success() && read.error.is_empty() => self.token(&read, secret, asked),
            None if status.is_success() => Err(self.unusable("is neither JSON nor a form")),
            read => {
                let words = self.words(&read.unwrap_or_default(), secret);
                Err(TokenError::Refused { url: self.url(), status, words })
            }
        }
    }

    /// Name and secret as they stand in a header.
    fn pair(&self, secret: &Secret) -> String {
        BASE64.encode(format!("{}:{}", encoded(&self.settings.client_id), encoded(secret.expose())))
    }

    /// The body of a request.
    fn form(&self, secret: &Secret, style: Style) -> String {
        let settings = &self.settings;
        let mut form = form_urlencoded::Serializer::new(String::new());
        if matches!(style, Style::Body) {
            form.append_pair("client_id", &settings.client_id).append_pair("client_secret", secret.expose());
        }
        for (name, value) in &settings.endpoint_params {
            form.append_pair(name, value.expose());
        }
        form.append_pair("grant_type", "client_credentials");
        if !settings.scopes.is_empty() {
            form.append_pair("scope", &settings.scopes.join(" "));
        }
        form.finish()
    }

    fn token(&self, read: &Answer, secret: &Secret, asked: Instant) -> Result<Token, TokenError> {
        if read.access_token.is_empty() {
            return Err(self.unusable("holds no access_token"));
        }
        let kind = match read.token_type.as_str() {
            kind if kind.is_empty() || kind.eq_ignore_ascii_case("bearer") => "Bearer",
            kind => kind,
        };
        let header = HeaderValue::try_from(format!("{kind} {}", read.access_token));
        let mut header = header.map_err(|_| self.unusable("holds a token that no header may hold"))?;
        header.set_sensitive(true);
        let life =
            (read.expires_in > 0.0).then(|| Duration::from_secs_f64(read.expires_in.min(MAX_LIFE.as_secs_f64())));
        Ok(Token { header, secret: secret.clone(), ends: life.map(|life| asked + life) })
    }

    /// What a refusal says, cleaned, without the secrets should they be repeated, as they are or as they were sent.
    fn words(&self, answer: &Answer, secret: &Secret) -> String {
        let said = [&answer.error, &answer.error_description].map(|text| text.trim());
        let said: Vec<_> = said.into_iter().filter(|text| !text.is_empty()).collect();
        if said.is_empty() {
            return String::new();
        }
        let params = self.settings.endpoint_params.iter().map(|(_, value)| value);
        let mut hidden = KnownSecrets::default();
        for secret in [secret].into_iter().chain(params) {
            hidden.add(secret);
            hidden.add_text(&encoded(secret.expose()));
        }
        hidden.add_text(&self.pair(secret));
        hidden.add_query(&self.settings.token_url);
        for secret in self.settings.proxies.iter().flat_map(|proxies| proxies.secrets()) {
            hidden.add(&secret);
        }
        format!(" ({})", clean_to(&hidden.hide(&said.join(": ")), SHOWN_BYTES))
    }

    fn broken(&self, error: reqwest::Error) -> TokenError {
        let error = error.without_url();
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        TokenError::Exchange { url: self.url(), words: clean_to(&words, SHOWN_BYTES).into_owned() }
    }

    /// A task of ours has no result: the process is stopping.
    fn ended(&self, error: &JoinError) -> TokenError {
        TokenError::Exchange { url: self.url(), words: format!("asking for it was ended: {error}") }
    }

    fn unusable(&self, what: &'static str) -> TokenError {
        TokenError::Unusable { url: self.url(), what }
    }

    fn url(&self) -> String {
        self.settings.shown_url()
    }
}

/// As in a form.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Some answer so.
fn is_form(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/x-www-form-urlencoded", "text/plain"].iter().any(|form| kind.eq_ignore_ascii_case(form))
}

fn read_form(body: &[u8]) -> Answer {
    let mut answer = Answer::default();
    for (name, value) in form_urlencoded::parse(body) {
        match &*name {
            "access_token" => answer.access_token = value.into_owned(),
            "token_type" => answer.token_type = value.into_owned(),
            "expires_in" => answer.expires_in = value.parse().unwrap_or_default(),
            "error" => answer.error = value.into_owned(),
            "error_description" => answer.error_description = value.into_owned(),
            _ => {}
        }
    }
    answer
}

fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A number of seconds, which some write as a text.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
        Nothing(()),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(seconds) => Ok(seconds),
        Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Written::Nothing(()) => Ok(0.0),
    }
}
