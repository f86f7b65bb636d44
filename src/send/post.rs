//! One request: made, sent, answered, judged.
//!
//! One deadline stands over everything from the connection to the last byte of the answer. Of an answer no more than 64
//! KiB is read and 1 KiB kept, with the secrets we know of taken out, should the receiver repeat them there or in the
//! place that a redirect names. A secret in a file is read for this one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use reqwest::{Request, RequestBuilder, Response};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::client::Clients;
use super::message::Connection;
use super::verdict::{Answer, Asked, Trouble, TroubleKind, Verdict};
use crate::clock::Clock;
use crate::config::{Auth, KnownSecrets, RemoteWrite, Secret, SecretError};
use crate::identity::failure_of;
use crate::model::{Tenant, WriteFormat, clean_to};
use crate::token::Tokens;

/// How much of an answer is read.
const READ_BYTES: usize = 64 << 10;
/// How much of an answer is kept and shown.
const KEPT_BYTES: usize = 1 << 10;

const AGENT: &str = concat!("meshscrape/", env!("CARGO_PKG_VERSION"));
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("retry-attempt");

/// Sends requests to one receiver, several at a time if need be.
pub(super) struct Post {
    remote: Arc<RemoteWrite>,
    /// The headers of the configuration, ready; marked so that no library logs them.
    extra: HeaderMap,
    /// Locked while a client is asked for, never while a receiver is.
    clients: Mutex<Clients>,
    /// Of a receiver with `oauth2`.
    tokens: Option<Tokens>,
    clock: Clock,
}

/// What came of a request.
pub(super) struct Sent {
    pub(super) verdict: Verdict,
    /// The connection over which it was answered; `None` if it was not.
    pub(super) connection: Option<Connection>,
}

impl Post {
    /// `extra` are the [`extra_headers`] of `remote`.
    pub(super) fn new(remote: Arc<RemoteWrite>, extra: HeaderMap, clients: Clients, clock: Clock) -> Self {
        let tokens = remote.oauth2.clone().map(|oauth2| Tokens::new(oauth2, clock.clone()));
        Self { remote, extra, clients: Mutex::new(clients), tokens, clock }
    }

    /// Sends one body; `attempt` is 0 the first time, and `tenant` who all of it belongs to. Always ends within
    /// `remote_timeout`, or as soon as another request has made its client.
    pub(super) async fn send(&self, body: Bytes, asked: Asked, attempt: u32, tenant: Option<&Tenant>) -> Sent {
        let deadline = Instant::now() + self.remote.remote_timeout;
        let mut secrets = secrets_of(&self.remote);
        let unanswered = |trouble| Sent { verdict: Verdict::Retry { after: None, trouble }, connection: None };
        // Before the receiver is asked: that there is no token is nothing to hold against it.
        let token = match self.token(deadline).await {
            Ok(token) => token,
            Err(trouble) => return unanswered(cleaned(trouble, &secrets)),
        };
        let response =
            match timeout_at(deadline, self.ask(body, asked.format, attempt, tenant, token, &mut secrets)).await {
                Ok(Ok(response)) => response,
                Ok(Err(trouble)) => return unanswered(cleaned(trouble, &secrets)),
                Err(_) => {
                    self.hang_up().await;
                    return unanswered(no_answer(self.remote.remote_timeout));
                }
            };
        let connection = Connection::of(&response);
        let (status, headers) = (response.status(), response.headers().clone());
        let words = shown(&read(response, deadline).await, &secrets);
        // Here and not in what is said of it: there it is cut, perhaps in the middle of a secret.
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(|place| secrets.hide(place));
        let answer = Answer { status, headers, words, location };
        Sent { verdict: Verdict::on(answer, asked, self.remote.queue.retry_on_http_429, self.clock.now()), connection }
    }

    /// A request was cut off: its connection may be dead, and is not used again. Others that are under way over it are not
    /// cut off.
    pub(super) async fn hang_up(&self) {
        self.clients.lock().await.forget();
    }

    /// The `Authorization` of a receiver with `oauth2`.
    async fn token(&self, deadline: Instant) -> Result<Option<HeaderValue>, Trouble> {
        match &self.tokens {
            Some(tokens) => tokens.header_by(deadline).await.map(Some).map_err(|error| not_ready(error.to_string())),
            None => Ok(None),
        }
    }

    async fn ask(
        &self,
        body: Bytes,
        format: WriteFormat,
        attempt: u32,
        tenant: Option<&Tenant>,
        token: Option<HeaderValue>,
        secrets: &mut KnownSecrets,
    ) -> Result<Response, Trouble> {
        let (client, url, is_named) = {
            let mut clients = self.clients.lock().await;
            (clients.get().await?, clients.url()?, clients.server_name().is_some())
        };
        let mut request = client.post(url);
        if is_named {
            request = request.header(HOST, authority(&self.remote));
        }
        if let (Some(tenant), Some(header)) = (tenant, &self.remote.tenant) {
            request = request.header(&header.name, tenant.as_str());
        }
        let request = self.request(request, body, format, attempt, token, secrets).await?;
        let response = client.execute(request).await.map_err(trouble)?;
        self.clients.lock().await.note(&response);
        Ok(response)
    }

    async fn request(
        &self,
        request: RequestBuilder,
        body: Bytes,
        format: WriteFormat,
        attempt: u32,
        token: Option<HeaderValue>,
        secrets: &mut KnownSecrets,
    ) -> Result<Request, Trouble> {
        // Receivers that know only 1.0 know it without a parameter.
        let (content_type, version) = match format {
            WriteFormat::V1 => ("application/x-protobuf", "0.1.0"),
            WriteFormat::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut request = request
            .header(CONTENT_ENCODING, "snappy")
            .header(CONTENT_TYPE, content_type)
            .header(VERSION_HEADER, version)
            .header(USER_AGENT, AGENT)
            .body(body);
        if attempt > 0 {
            request = request.header(ATTEMPT_HEADER, attempt);
        }
        let Read { credential, headers } = read_secrets(&self.remote).await?;
        request = match credential {
            None => request,
            Some(Credential::Basic { username, password }) => {
                secrets.add(&password);
                request.basic_auth(username.expose(), Some(password.expose()))
            }
            Some(Credential::Other { kind, credentials }) => {
                secrets.add(&credentials);
                let value = sensitive(&format!("{kind} {}", credentials.expose()));
                request.header(AUTHORIZATION, value.ok_or_else(|| not_ready(UNFIT_CREDENTIALS.to_owned()))?)
            }
        };
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let mut request = request.headers(self.extra.clone()).build().map_err(trouble)?;
        for (name, value) in headers {
            secrets.add_text(&String::from_utf8_lossy(value.as_bytes()));
            request.headers_mut().append(name, value);
        }
        if let Some(value) = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            secrets.add_authorization(value);
        }
        Ok(request)
    }
}

/// The headers of the configuration. Fails with the name of one whose value cannot stand in a request.
pub(super) fn extra_headers(remote: &RemoteWrite) -> Result<HeaderMap, HeaderName> {
    let mut extra = HeaderMap::new();
    for (name, value) in &remote.headers {
        extra.insert(name.clone(), sensitive(value.expose()).ok_or_else(|| name.clone())?);
    }
    Ok(extra)
}

const UNFIT_CREDENTIALS: &str = "the credentials of authorization contain characters that no header may have";

/// The `Authorization` of one request.
enum Credential {
    Basic { username: Secret, password: Secret },
    Other { kind: String, credentials: Secret },
}

/// What is read for one request.
struct Read {
    credential: Option<Credential>,
    /// `http_headers`.
    headers: Vec<(HeaderName, HeaderValue)>,
}

async fn read_secrets(remote: &RemoteWrite) -> Result<Read, Trouble> {
    let (auth, headers) = (remote.auth.clone(), remote.http_headers.clone());
    let read = move || -> Result<Read, SecretError> {
        let credential = match auth {
            None => None,
            Some(Auth::Basic { username, password }) => {
                Some(Credential::Basic { username: username.read()?, password: password.read()? })
            }
            Some(Auth::Authorization { kind, credentials }) => {
                Some(Credential::Other { kind, credentials: credentials.read()? })
            }
        };
        let headers = headers.into_iter().map(|header| Ok((header.name.clone(), header.read()?)));
        Ok(Read { credential, headers: headers.collect::<Result<_, SecretError>>()? })
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(not_ready(error.to_string())),
        Err(error) => Err(not_ready(format!("reading the credentials was ended: {error}"))),
    }
}

/// Reads what the receiver has to say, as far as it counts and until the deadline; what came by then is enough.
async fn read(mut response: Response, deadline: Instant) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < READ_BYTES {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
            Ok(Ok(None) | Err(_)) | Err(_) => break,
        }
    }
    bytes.truncate(READ_BYTES);
    bytes
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn authority(remote: &RemoteWrite) -> String {
    let host = remote.url.host_str().unwrap_or_default();
    remote.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn not_ready(detail: String) -> Trouble {
    Trouble { kind: TroubleKind::NotReady, detail }
}

fn no_answer(limit: Duration) -> Trouble {
    Trouble { kind: TroubleKind::Timeout, detail: format!("no answer within remote_timeout ({limit:?})") }
}

/// What went wrong where there is no answer. The URL, which may hold a token, is left out.
fn trouble(error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    if let Some(failure) = failure_of(&error) {
        return Trouble { kind: TroubleKind::Identity, detail: failure.to_string() };
    }
    let kind = match () {
        () if error.is_builder() => TroubleKind::NotReady,
        () if error.is_connect() => TroubleKind::Connect,
        () => TroubleKind::Network,
    };
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let words = error.to_string();
        // Wrappers often repeat what they wrap.
        if !detail.ends_with(&words) {
            detail = format!("{detail}: {words}");
        }
        cause = error.source();
    }
    Trouble { kind, detail }
}

/// What the configuration holds that nobody is to see, whoever repeats it; more is added as it is read.
fn secrets_of(remote: &RemoteWrite) -> KnownSecrets {
    let mut secrets = KnownSecrets::default();
    remote.headers.iter().for_each(|(_, value)| secrets.add(value));
    secrets.add_query(&remote.url);
    if let Some(proxies) = &remote.proxies {
        proxies.secrets().for_each(|secret| secrets.add(&secret));
    }
    secrets
}

/// Foreign bytes as text that may be shown, of bounded length.
fn shown(bytes: &[u8], secrets: &KnownSecrets) -> String {
    clean_to(secrets.hide(&String::from_utf8_lossy(bytes)).trim(), KEPT_BYTES).into_owned()
}

fn cleaned(trouble: Trouble, secrets: &KnownSecrets) -> Trouble {
    Trouble { detail: shown(trouble.detail.as_bytes(), secrets), ..trouble }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary() -> KnownSecrets {
        let mut secrets = KnownSecrets::default();
        secrets.add_text("canary-long");
        secrets
    }

    #[test]
    fn secrets_are_taken_out_before_the_text_is_cut() {
        let secrets = canary();
        let padding = "x".repeat(KEPT_BYTES - 3);
        let told = shown(format!(" {padding}canary-long").as_bytes(), &secrets);
        assert!(!told.contains("can"), "{told}");
        assert_eq!(shown(b"bad token canary-long\n", &secrets), "bad token <secret>");
        assert_eq!(shown(b"\xff\x1b[31m", &secrets), "\u{fffd}\\u{1b}[31m");
    }

    #[test]
    fn a_redirect_inside_an_answer_is_cleaned_too() {
        let trouble = Trouble { kind: TroubleKind::Network, detail: "a canary-long\nin a line".into() };
        assert_eq!(cleaned(trouble, &canary()).detail, "a <secret>\\u{a}in a line");
    }
}
