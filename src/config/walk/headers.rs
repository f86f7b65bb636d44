//! Headers that the file adds to requests: `http_headers`, and what is common to it and `headers` of a receiver.

use http::{HeaderName, HeaderValue};

use super::Walk;
use super::fields::{Fields, Item, Named};
use super::scalar::Scalar;
use super::tables::HTTP_HEADER;
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{HttpHeader, Secret, SecretSource};
use crate::model::clean;
use crate::yaml::Value;

/// Headers that belong to a protocol, to HTTP, or to keys of their own.
const RESERVED: [&str; 20] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "transfer-encoding",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "te",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// Reads `http_headers` of a job, a discovery or a receiver.
pub(super) fn read(fields: &mut Fields<'_>) -> Vec<HttpHeader> {
    const KEY: &str = "http_headers";
    let mut headers = Vec::new();
    let mut names = Vec::new();
    let mut shown = Vec::new();
    for named in fields.names(KEY) {
        let Some(name) = name(fields.walk, &named, &names) else { continue };
        names.push(name.clone());
        let Some(mut header) = Fields::open(fields.walk, &named.item, &HTTP_HEADER) else { continue };
        let before = headers.len();
        let mut add = |value, secret| headers.push(HttpHeader { name: name.clone(), value, secret });
        for value in header.texts("values") {
            check_value(header.walk, &value);
            add(SecretSource::Inline(Secret::new(value.value)), false);
        }
        listed(&mut header, "secrets", |walk, scalar| {
            check_value(walk, &scalar);
            let shown = walk.hide(&scalar);
            add(SecretSource::Inline(Secret::new(scalar.value)), true);
            shown
        });
        listed(&mut header, "files", |walk, scalar| {
            add(SecretSource::File(walk.path(&scalar.value)), true);
            walk.shown_path(&scalar.raw)
        });
        if headers.len() == before && !HTTP_HEADER.keys.iter().any(|key| header.mentions(|written| written == *key)) {
            no_value(fields.walk, &named);
        }
        shown.push((named.name.to_owned(), header.close()));
    }
    if !shown.is_empty() {
        fields.show(KEY, Shown::Map(shown));
    }
    headers
}

/// The name of a header that the file adds; none of `others`, nor one that the agent sets itself.
pub(super) fn name(walk: &Walk<'_>, named: &Named<'_>, others: &[HeaderName]) -> Option<HeaderName> {
    let path = &named.item.path;
    let name = any_name(walk, named, others)?;
    if RESERVED.contains(&name.as_str()) {
        let instead =
            if name == http::header::AUTHORIZATION { "write authorization or basic_auth" } else { "remove it" };
        walk.problem(named.pos, path, Wrong::new("this header is set by the agent itself", instead));
        return None;
    }
    if named.item.node.value == Value::Null {
        no_value(walk, named);
        return None;
    }
    Some(name)
}

/// The name of a header that the agent does not set otherwise.
pub(super) fn free_name(text: &str) -> Result<HeaderName, Wrong> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let message = format!("{:?} cannot be the name of a header", clean(text));
        return Err(Wrong::new(message, "write letters, digits and dashes"));
    };
    match RESERVED.contains(&name.as_str()) {
        true => Err(Wrong::new("this header is set by the agent itself", "write another one")),
        false => Ok(name),
    }
}

/// As [`name`], whoever sets such a header.
pub(super) fn any_name(walk: &Walk<'_>, named: &Named<'_>, others: &[HeaderName]) -> Option<HeaderName> {
    let path = &named.item.path;
    let Ok(name) = HeaderName::from_bytes(named.name.as_bytes()) else {
        let message = format!("{:?} cannot be the name of a header", clean(named.name));
        walk.problem(named.pos, path, Wrong::new(message, "write letters, digits and dashes"));
        return None;
    };
    if others.contains(&name) {
        let message = "this header is written already, in other letters";
        walk.problem(named.pos, path, Wrong::new(message, "remove one of the two"));
    }
    Some(name)
}

/// Says so if the value cannot stand in a request.
pub(super) fn check_value(walk: &Walk<'_>, scalar: &Scalar<'_>) {
    if HeaderValue::from_str(&scalar.value).is_err() {
        let message = "the value has a line end or another character that no header can have";
        walk.problem(scalar.pos, &scalar.key, Wrong::new(message, "write a single line of ASCII characters"));
    }
}

fn no_value(walk: &Walk<'_>, named: &Named<'_>) {
    walk.problem(named.pos, &named.item.path, Wrong::new("the header has no value", "write one, or remove it"));
}

/// Reads the list behind `key`; `take` says what is shown of each item. Shown if the list is written.
fn listed<'w>(fields: &mut Fields<'w>, key: &'static str, mut take: impl FnMut(&'w Walk<'w>, Scalar<'w>) -> String) {
    let walk = fields.walk;
    let items: Vec<Item<'w>> = fields.items(key);
    let shown = items.iter().filter_map(|item| walk.scalar(item)).map(|scalar| Shown::Text(take(walk, scalar)));
    let shown = shown.collect();
    if fields.has(key) {
        fields.show(key, Shown::Seq(shown));
    }
}
