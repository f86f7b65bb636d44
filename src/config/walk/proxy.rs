//! `proxy_url`, `no_proxy`, `proxy_from_environment`, `proxy_connect_header`.
//!
//! A proxy may hold a password, so no problem quotes one. Where SPIFFE IDs are verified there is none: a pod is dialled
//! at the address that its identity was computed for, and a proxy would choose for itself what it dials.

use std::sync::Arc;

use http::HeaderName;

use super::fields::Fields;
use super::{headers, urls};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{NoProxy, OrdinaryTls, Proxies, Proxy, Secret};

/// Reads them in a job, a discovery or a receiver; without `tls` it is one that verifies SPIFFE IDs.
pub(super) fn read(fields: &mut Fields<'_>, tls: Option<&OrdinaryTls>) -> Option<Arc<Proxies>> {
    let connect_headers = connect_headers(fields);
    let from_environment = fields.switched_on("proxy_from_environment");
    let url = read_url(fields);
    // One that is written and wrong is told of once, and not as if it were missing.
    let none = url.is_none() && fields.scalar("proxy_url").is_none_or(|scalar| scalar.value.is_empty());
    let except = fields.text("no_proxy").map(|scalar| scalar.value.into_owned()).filter(|text| !text.is_empty());
    if except.is_some() && (none || from_environment) {
        let (message, instead) = match from_environment {
            true => ("proxy_from_environment is on, and brings its own exceptions", "remove one of the two"),
            false => ("there is no proxy to be excepted from", "write proxy_url, too, or remove it"),
        };
        fields.wrong("no_proxy", Wrong::new(message, instead));
    }
    if from_environment && url.is_some() {
        fields.wrong("proxy_url", Wrong::new("proxy_from_environment is on as well", "remove one of the two"));
    }
    if !connect_headers.is_empty() && !from_environment && none {
        let message = "there is no proxy that they could be said to";
        fields.wrong("proxy_connect_header", Wrong::new(message, "write proxy_url, too, or remove it"));
    }
    let key = if from_environment { "proxy_from_environment" } else { "proxy_url" };
    let proxies = match url {
        Some(proxy) => Proxies {
            http: Some(proxy.clone()),
            https: Some(proxy),
            except: except.as_deref().map(NoProxy::parse),
            connect_headers,
        },
        None if from_environment => of_environment(fields, connect_headers),
        None => return None,
    };
    match tls {
        None => {
            let message = "where SPIFFE IDs are verified the peer is dialled at its own address, and with a proxy the \
                           proxy would choose what is dialled";
            fields.wrong(key, Wrong::new(message, "remove it"));
        }
        Some(tls) if tls.server_name.is_some() => {
            let message = "through a proxy the name that is verified is that of the address, and tls_config.server_name \
                           says another one";
            fields.wrong(key, Wrong::new(message, "remove one of the two"));
        }
        Some(_) => {}
    }
    (proxies.http.is_some() || proxies.https.is_some()).then(|| Arc::new(proxies))
}

fn read_url(fields: &mut Fields<'_>) -> Option<Proxy> {
    const KEY: &str = "proxy_url";
    const EXAMPLE: &str = "http://host:3128";
    if fields.scalar(KEY)?.value.is_empty() {
        return None;
    }
    let mut proxy = None;
    let (url, written) = urls::read(fields, KEY, EXAMPLE, |url| {
        proxy = Some(Proxy::parse(url.as_str()).map_err(|message| Wrong::new(message, format!("write {EXAMPLE}")))?);
        Ok(())
    })?;
    if urls::has_user_info(&url) || fields.has("proxy_connect_header") {
        urls::check_credentials_of_proxy(fields, KEY, &url, &written);
    }
    proxy
}

/// The proxies that the environment names, as Go reads it.
fn of_environment(fields: &Fields<'_>, connect_headers: Vec<(HeaderName, Secret)>) -> Proxies {
    const KEY: &str = "proxy_from_environment";
    let variable = |name: &'static str, other: &'static str| {
        let held =
            |name: &'static str| (fields.walk.env)(name).filter(|text| !text.is_empty()).map(|text| (name, text));
        held(name).or_else(|| held(other))
    };
    let proxy = |name, other| {
        let (name, text) = variable(name, other)?;
        let text = if text.contains("://") { text } else { format!("http://{text}") };
        let proxy = Proxy::parse(&text);
        if let Err(message) = &proxy {
            let message = format!("what the environment variable {name} holds cannot be used: {message}");
            fields.wrong(KEY, Wrong::new(message, "let it be http://host:port"));
        }
        proxy.ok()
    };
    let except = variable("NO_PROXY", "no_proxy").map(|(_, text)| text).unwrap_or_default();
    Proxies {
        http: proxy("HTTP_PROXY", "http_proxy"),
        https: proxy("HTTPS_PROXY", "https_proxy"),
        except: Some(NoProxy::parse(&except)),
        connect_headers,
    }
}

fn connect_headers(fields: &mut Fields<'_>) -> Vec<(HeaderName, Secret)> {
    const KEY: &str = "proxy_connect_header";
    let mut found = Vec::new();
    let mut names = Vec::new();
    let mut shown = Vec::new();
    for named in fields.names(KEY) {
        let Some(name) = headers::any_name(fields.walk, &named, &names) else { continue };
        names.push(name.clone());
        let mut values = Vec::new();
        for scalar in fields.walk.items(&named.item).iter().filter_map(|item| fields.walk.scalar(item)) {
            headers::check_value(fields.walk, &scalar);
            values.push(Shown::Text(fields.walk.hide(&scalar)));
            found.push((name.clone(), Secret::new(scalar.value)));
        }
        shown.push((named.name.to_owned(), Shown::Seq(values)));
    }
    if !shown.is_empty() {
        fields.show(KEY, Shown::Map(shown));
    }
    found
}
