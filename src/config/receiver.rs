//! `remote_write[]`: where samples go.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::{Auth, HttpHeader, OAuth2, OrdinaryTls, Proxies, Secret, SpiffeReceiver};
use crate::model::{TenantRule, WriteFormat};
use crate::relabel::Rule;

/// One receiver.
#[derive(Clone, PartialEq)]
pub struct RemoteWrite {
    /// Its name in metrics and logs, unique; six hex digits made from the block unless written.
    pub name: String,
    /// Where to POST: `http` or `https`, with a host, without user-info or fragment. Its query may hold a token, so it
    /// is not for showing: see [`RemoteWrite::shown_url`].
    pub url: Url,
    /// Headers that are added to every request; none of those that we set ourselves.
    pub headers: Vec<(HeaderName, Secret)>,
    /// More of them, which may stand in files.
    pub http_headers: Vec<HttpHeader>,
    /// Whose the samples of each target are, where it serves several tenants.
    pub tenant: Option<TenantHeader>,
    /// Through which proxies it is asked; none where its SPIFFE ID is verified.
    pub proxies: Option<Arc<Proxies>>,
    /// The deadline of one request, connect to last byte of the answer.
    pub remote_timeout: Duration,
    /// The `Authorization` header.
    pub auth: Option<Auth>,
    /// Whose tokens it holds instead.
    pub oauth2: Option<Arc<OAuth2>>,
    /// As which message samples are sent.
    pub message: WriteFormat,
    /// How the receiver is verified. Always ordinary where the URL is `http`.
    pub security: ReceiverSecurity,
    /// Whether redirects are followed (within the origin of `url` only).
    pub follow_redirects: bool,
    /// Whether HTTP/2 may be spoken.
    pub enable_http2: bool,
    /// Applied to every series after the external labels; `false` keeps the series from this receiver.
    pub write_relabel: Vec<Rule>,
    /// Whether native histograms are for this receiver.
    pub send_native_histograms: bool,
    /// Whether exemplars are for this receiver.
    pub send_exemplars: bool,
    /// Whether and when it is told what metric families are.
    pub metadata: MetadataConfig,
    /// Batches, retries, memory.
    pub queue: QueueConfig,
}

impl RemoteWrite {
    /// The URL for people: without its query.
    pub fn shown_url(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }
}

impl fmt::Debug for RemoteWrite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            url: _,
            headers,
            http_headers,
            tenant,
            proxies,
            remote_timeout,
            auth,
            oauth2,
            message,
            security,
            follow_redirects,
            enable_http2,
            write_relabel,
            send_native_histograms,
            send_exemplars,
            metadata,
            queue,
        } = self;
        out.debug_struct("RemoteWrite")
            .field("name", name)
            .field("url", &self.shown_url())
            .field("headers", headers)
            .field("http_headers", http_headers)
            .field("tenant", tenant)
            .field("proxies", proxies)
            .field("remote_timeout", remote_timeout)
            .field("auth", auth)
            .field("oauth2", oauth2)
            .field("message", message)
            .field("security", security)
            .field("follow_redirects", follow_redirects)
            .field("enable_http2", enable_http2)
            .field("write_relabel", write_relabel)
            .field("send_native_histograms", send_native_histograms)
            .field("send_exemplars", send_exemplars)
            .field("metadata", metadata)
            .field("queue", queue)
            .finish()
    }
}

/// `tenant` of a receiver: which requests carry the samples of which targets. A section of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantHeader {
    /// The header that names the tenant; none that is set otherwise.
    pub name: HeaderName,
    /// What it says.
    pub rule: TenantRule,
}

/// How a receiver is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverSecurity {
    /// One of the named identities, exactly; the URL is `https`.
    Spiffe(SpiffeReceiver),
    /// Chain and host name over `https`; not at all over `http`.
    Ordinary(OrdinaryTls),
}

/// `metadata_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataConfig {
    /// Whether metadata is sent.
    pub send: bool,
    /// How often all of it is sent, for the first time after this long.
    pub send_interval: Duration,
    /// The most families of one request.
    pub max_samples_per_send: usize,
}

impl Default for MetadataConfig {
    fn default() -> Self {
        Self { send: true, send_interval: Duration::from_secs(60), max_samples_per_send: 2000 }
    }
}

/// `queue_config`. `capacity`, `min_shards` and `max_shards` of Prometheus are accepted and have no effect here: one
/// queue per receiver, bounded by `max_memory` and `max_disk`, and `max_requests_in_flight` at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The most bytes that wait in memory for this receiver; beyond it the oldest are dropped and counted. A key of
    /// ours.
    pub max_memory: u64,
    /// The most bytes of what waits on disk for this receiver, where there is a data directory; beyond it the oldest are
    /// dropped and counted. A key of ours.
    pub max_disk: u64,
    /// How long samples wait there before they are dropped and counted. A key of ours.
    pub max_disk_age: Duration,
    /// The most samples of one request.
    pub max_samples_per_send: usize,
    /// How long a request that is not full waits for more.
    pub batch_send_deadline: Duration,
    /// The first pause before a retry; doubled each time.
    pub min_backoff: Duration,
    /// The longest pause before a retry.
    pub max_backoff: Duration,
    /// Whether 429 is retried; unlike in Prometheus it is, unless switched off.
    pub retry_on_http_429: bool,
    /// Samples older than this are dropped instead of sent; zero: never.
    pub sample_age_limit: Duration,
    /// The most requests that are under way at a time, never two with samples of one target. A key of ours.
    pub max_requests_in_flight: usize,
    /// The most samples a second, repeated ones included; zero: as many as the receiver takes. A key of ours.
    pub max_samples_per_second: u64,
    /// Whether a request that is rejected for what is in it is sent again in parts, until what is at fault is known. A key
    /// of ours.
    pub split_rejected: bool,
    /// What goes first where something waits on disk. A key of ours.
    pub catch_up: CatchUp,
}

/// How a receiver catches up after an outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// All samples of a target leave in the order in which they came.
    #[default]
    OldestFirst,
    /// What comes in goes first, and beside it, oldest first, what waits on disk: for receivers that take samples in any
    /// order.
    NewestFirst,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            max_memory: 64 * 1024 * 1024,
            max_disk: 1024 * 1024 * 1024,
            max_disk_age: Duration::from_secs(2 * 60 * 60),
            max_samples_per_send: 2000,
            batch_send_deadline: Duration::from_secs(5),
            min_backoff: Duration::from_millis(30),
            max_backoff: Duration::from_secs(5),
            retry_on_http_429: true,
            sample_age_limit: Duration::ZERO,
            max_requests_in_flight: 4,
            max_samples_per_second: 0,
            split_rejected: true,
            catch_up: CatchUp::default(),
        }
    }
}
