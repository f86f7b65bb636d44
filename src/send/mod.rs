//! From the spool to the receivers: one task each, several requests at a time.
//!
//! ```text
//! lease ─┬▶ join ─▶ gate ─▶ rate ─▶ POST ─▶ Verdict ─┬─ Delivered ─▶ ack
//! lease ─┤           ▲                               ├─ Retry ─▶ pause (Backoff, Retry-After) ─┐
//!   ▲    ┆           └───────────────────────────────┼─────────────────────────────────────────┘
//!   └── spool                                        └─ Rejected ─▶ by target, then in halves; then dropped, said ─▶ ack
//! ```
//!
//! What always holds:
//! - samples of one target leave in the order in which they came, unless the newest are to go first, and never two requests
//!   with samples of one target are under way; a block is acknowledged only when the receiver has it, refused it for good, or
//!   it grew older than `sample_age_limit`: at least once, in order. That limit goes by the timestamps and the wall clock of
//!   the moment, as in Prometheus: a clock that is ahead makes samples too old while it is, which is why there is none unless
//!   it is asked for;
//! - a request that gets no answer holds back its own targets, and others only by the place that it takes, and by what waits
//!   behind it once that fills half of `max_memory`; a receiver in trouble is asked one request at a time, with one pause for
//!   all ([`gate`]);
//! - no request has samples of two tenants, and one that the receiver refuses with 429, or whose requests alone fail, holds up
//!   no other ([`tenants`]) before what waits for it fills half of `max_memory`: its requests have pauses of their own, and what
//!   waits for it goes out in its order. Only after half an hour of refusals, and if others wait behind it, is the oldest of it
//!   given up;
//! - a receiver that answers 415 to remote write 2.0 gets the same samples as 1.0, as long as that connection lasts and for
//!   a minute at least, unless no answer comes;
//! - what an answer means is decided in one place, [`Verdict`];
//! - receivers know nothing of each other: each has its task, its queue and its client;
//! - what metric families are is told beside samples, in one request at a time, which takes its place among the others, waits
//!   with them for a receiver in trouble, and is cut off once the queue is closed;
//! - one bad series costs itself and no other: a request that is rejected for its content is sent again target by target,
//!   then in halves ([`search`]), and what was rejected alone goes alone for a while ([`narrow`]);
//! - a receiver cannot make us wait longer than five minutes at a time, read more than 64 KiB, talk to another origin or
//!   show what it should not: credentials and queries are in no log, no metric and no snapshot.
//!
//! After an outage the oldest go first: many receivers refuse what is older than the newest of its series, and as every target
//! has a backlog of the same age then, no order of targets would bring any of them nearer to now. What shortens it is the number
//! of requests under way. Of a receiver that takes samples in any order it can be said that the newest are to go first
//! (`catch_up`): then the queue gives what came in of late before what waits on disk, in leases of their own, and both keep
//! their order. So in one request the samples of a target are in order, and what is found to be at fault in it is found as
//! ever. A receiver that refuses older samples refuses what waits for good.
//!
//! This room does not know targets and jobs; what is inside a block it asks [`wire`](crate::wire), once a receiver rejects it.

mod account;
mod apart;
mod backoff;
mod client;
mod complaints;
mod delivery;
mod demand;
mod describe;
mod earlier;
mod error;
mod gate;
mod kinds;
mod message;
mod metrics;
mod narrow;
mod parts;
mod post;
mod progress;
mod rate;
mod recent;
mod search;
mod sender;
mod taken;
mod tenants;
mod verdict;

#[cfg(test)]
mod many_tenants;

pub use backoff::{Backoff, BackoffError, Pauses};
pub use describe::MetadataSource;
pub use error::SendError;
pub use kinds::Kinds;
pub use metrics::{HistogramsDropped, Metrics};
pub use progress::{Monitor, ReceiverSnapshot, Refusal};
pub use sender::{Prepared, Sender};
pub use verdict::{Trouble, TroubleKind, Verdict};

pub use crate::spool::Undelivered;

use sha2::{Digest, Sha256};

use crate::config::{Auth, RemoteWrite, SecretSource};
use crate::model::{Tenant, names_tenant};

/// What all metrics of a receiver carry, here and in the spool, as Prometheus names it.
pub fn labels(remote: &RemoteWrite) -> Vec<(String, String)> {
    vec![("remote_name".to_owned(), remote.name.clone()), ("url".to_owned(), remote.shown_url())]
}

/// What the queue of a receiver is called on disk: the same as long as what is in it is for the same place, that is for
/// the same URL without its query, the same tenant and the same user, who with `oauth2` is its client. Of headers,
/// those count whose names say that they name a tenant.
///
/// The name of a receiver is not in it, because one that is not written changes with every other key. Of what is hashed
/// nothing can be read, and the host is there for people.
pub fn spool_name(remote: &RemoteWrite) -> String {
    let mut url = remote.url.clone();
    url.set_query(None);
    let tenant = remote.headers.iter().find(|(name, _)| name.as_str() == TENANT_HEADER);
    let tenant_of_http = remote.http_headers.iter().find(|header| header.name.as_str() == TENANT_HEADER);
    let user = match &remote.auth {
        Some(Auth::Basic { username, .. }) => Some(username),
        _ => None,
    };
    let parts = [
        Some(url.as_str().as_bytes()),
        tenant.map(|(_, value)| value.expose().as_bytes()),
        tenant_of_http.map(|header| as_written(&header.value)),
        user.map(as_written),
    ];
    // Behind what every receiver has, so that nothing changes for those without tenants.
    let rule = remote.tenant.iter().flat_map(|tenant| {
        let default = tenant.rule.default().map_or("", Tenant::as_str);
        [tenant.name.as_str(), tenant.rule.template(), default].map(|text| Some(text.as_bytes()))
    });
    // Behind that for the same reason, and in an order of their own: one may move in the file.
    let written = remote.headers.iter().map(|(name, value)| (name.as_str(), value.expose().as_bytes()));
    let of_http = remote.http_headers.iter().map(|header| (header.name.as_str(), as_written(&header.value)));
    let mut others: Vec<_> = written.chain(of_http).filter(|(name, _)| names_another_tenant(name)).collect();
    others.sort_unstable();
    // Last for the same reason; no header that names a tenant is called so.
    let client = remote.oauth2.as_ref().map(|oauth2| ("client_id", oauth2.client_id.as_bytes()));
    let others = others.into_iter().chain(client).flat_map(|(name, value)| [Some(name.as_bytes()), Some(value)]);
    let mut hash = Sha256::new();
    for part in parts.into_iter().chain(rule).chain(others) {
        let part = part.unwrap_or_default();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hash = hex(&hash.finalize()[..8]);
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let host: String = url.host_str().unwrap_or_default().chars().filter(allowed).take(63).collect();
    format!("{}-{hash}", host.trim_start_matches('.'))
}

/// The same of a receiver for a place that another one is for, too, whose queue must be another one: with what tells them
/// apart, its name, whatever order they stand in.
pub fn spool_name_of_twin(remote: &RemoteWrite) -> String {
    format!("{}-{}", spool_name(remote), hex(&Sha256::digest(remote.name.as_bytes())[..4]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn as_written(source: &SecretSource) -> &[u8] {
    match source {
        SecretSource::Inline(secret) => secret.expose().as_bytes(),
        SecretSource::File(file) => file.as_os_str().as_encoded_bytes(),
    }
}

/// The header that names a tenant to Mimir and its kin.
const TENANT_HEADER: &str = "x-scope-orgid";

/// Whether a header other than that names a tenant, too, to Thanos or to a proxy.
fn names_another_tenant(header: &str) -> bool {
    header != TENANT_HEADER && names_tenant(header)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn name_of(entry: &str) -> String {
        let text = format!("remote_write: [{{{entry}}}]");
        let config = config::parse(Path::new("test.yaml"), &text, &|_| None).config.expect("it can be used");
        spool_name(&config.remote_write[0])
    }

    #[test]
    fn a_queue_stays_with_the_place_that_it_is_for() {
        let auth = "basic_auth: {username: me, password: canary}";
        let plain = name_of(&format!("url: 'https://mimir.example/push', {auth}"));
        // What is on disk is found by it: it must not change.
        assert_eq!(plain, "mimir.example-47dcc1d7343af072");
        for same in [
            "url: 'https://mimir.example/push?token=canary', basic_auth: {username: me, password: other}",
            "url: 'https://mimir.example/push', basic_auth: {username: me, password: canary}, name: other, remote_timeout: 7s",
            "url: 'https://mimir.example/push', basic_auth: {username: me, password: canary}, headers: {x-from: here}",
        ] {
            assert_eq!(name_of(same), plain, "{same}");
        }
        for other in [
            "url: 'https://mimir.example/push'",
            "url: 'https://mimir.example/push', basic_auth: {username: you, password: canary}",
            "url: 'https://mimir.example/push2', basic_auth: {username: me, password: canary}",
            "url: 'https://mimir.example:8443/push', basic_auth: {username: me, password: canary}",
            "url: 'https://mimir.example/push', basic_auth: {username: me, password: canary}, headers: {X-Scope-OrgID: a}",
            "url: 'https://mimir.example/push', basic_auth: {username: me, password: canary}, tenant: {template: '{a}'}",
            "url: 'https://mimir.example/push', basic_auth: {username: me, password: canary}, \
             http_headers: {X-Scope-OrgID: {values: [a]}}",
        ] {
            assert_ne!(name_of(other), plain, "{other}");
        }
        // It must not change, either.
        let mimir = name_of("url: 'https://mimir.example/push', headers: {X-Scope-OrgID: a, x-from: here}");
        assert_eq!(mimir, "mimir.example-b31cff1077b303a2");
        let with = |headers: &str| name_of(&format!("url: 'https://mimir.example/push', {headers}"));
        let places: std::collections::HashSet<_> = [
            "name: none",
            "headers: {THANOS-TENANT: a}",
            "headers: {THANOS-TENANT: b}",
            "headers: {X-Tenant-Id: a}",
            "headers: {Loki-OrgID: a}",
            "headers: {X-Scope-OrgID: a}",
            "headers: {X-Scope-OrgID: a, THANOS-TENANT: a}",
            "headers: {X-Scope-OrgID: a, THANOS-TENANT: b}",
            "http_headers: {THANOS-TENANT: {files: [/tenant]}}",
        ]
        .map(with)
        .into();
        assert_eq!(places.len(), 9, "{places:?}");
        assert_eq!(with("headers: {THANOS-TENANT: a, X-Tenant: b}"), with("headers: {X-Tenant: b, THANOS-TENANT: a}"));
        for secret in ["X-Tenant-Token", "X-Tenant-Api-Key", "OrgID-Secret", "Tenant-Authorization"] {
            assert_eq!(with(&format!("headers: {{{secret}: a}}")), with("name: none"), "{secret}");
        }
        let oauth2 = |client: &str, secret: &str| {
            let place = "token_url: 'https://tokens.example/'";
            with(&format!("oauth2: {{client_id: {client}, client_secret: {secret}, {place}}}"))
        };
        // Nor must this.
        assert_eq!(oauth2("me", "canary"), "mimir.example-b98514e9bb30681d");
        assert_ne!(oauth2("me", "canary"), oauth2("you", "canary"));
        assert_ne!(oauth2("me", "canary"), with("name: none"));
        assert_eq!(oauth2("me", "canary"), oauth2("me", "other"));
        let odd = name_of("url: 'http://[::1]:9090/'");
        assert!(odd.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')), "{odd}");
    }
}
