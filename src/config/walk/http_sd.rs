//! `http_sd_configs`: lists of targets that are fetched.

use std::time::Duration;

use super::fields::Fields;
use super::tables::HTTP_SD;
use super::{auth, headers, oauth2, proxy, tls, urls};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{HttpSd, Secret};

const DEFAULT_REFRESH: Duration = Duration::from_secs(60);

/// Reads the `http_sd_configs` of a job; `verifies` says whether it verifies SPIFFE IDs.
pub(super) fn read(fields: &mut Fields<'_>, verifies: bool) -> Vec<HttpSd> {
    const KEY: &str = "http_sd_configs";
    let mut configs = Vec::new();
    let mut shown = Vec::new();
    for item in fields.items(KEY) {
        let Some(mut config) = Fields::open(fields.walk, &item, &HTTP_SD) else { continue };
        configs.extend(read_one(&mut config, verifies));
        shown.push(config.close());
    }
    fields.show(KEY, Shown::Seq(shown));
    configs
}

fn read_one(config: &mut Fields<'_>, verifies: bool) -> Option<HttpSd> {
    const EXAMPLE: &str = "https://host/targets";
    config.need("url", &format!("write url: {EXAMPLE}"));
    let url = urls::read(config, "url", EXAMPLE, |_| Ok(()));
    let refresh_interval = config.some_duration("refresh_interval", DEFAULT_REFRESH);
    let tls = tls::of_discovery(config).unwrap_or_default();
    let auth = auth::read(config);
    let oauth2 = oauth2::read(config);
    let http_headers = headers::read(config);
    let proxies = proxy::read(config, Some(&tls));
    let follow_redirects = config.flag("follow_redirects", true);
    if !config.flag("enable_http2", true) {
        let message = "this has no effect: the version of HTTP is agreed on with the server";
        config.warn("enable_http2", Wrong::new(message, "remove it"));
    }
    let (url, written) = url?;
    if verifies && url.scheme() == "http" {
        let message = "this job verifies SPIFFE IDs, and over http nobody verifies who says which targets there are";
        config.wrong("url", Wrong::new(message, "write a URL that begins with https://"));
    }
    let proves = auth.is_some() || oauth2.is_some();
    if proves && urls::has_user_info(&url) {
        let message = "the URL holds a user name or a password, and one request has one Authorization";
        config.wrong("url", Wrong::new(message, "write them in one place"));
    }
    if proves || http_headers.iter().any(|header| header.secret) || urls::has_user_info(&url) {
        urls::check_credentials(config, "url", &url, &written, "this discovery");
    }
    Some(HttpSd {
        url: Secret::new(written.value),
        refresh_interval,
        tls,
        auth,
        oauth2,
        http_headers,
        proxies,
        follow_redirects,
    })
}
